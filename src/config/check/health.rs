//! `health.*` of a pool.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;

use super::action::{field, header_value};
use crate::base::address::Address;
use crate::base::source::Source;
use crate::config::document::{Item, Table};
use crate::config::model::{
    EndpointSpec, GrpcProbe, HealthCheck, HealthProbe, HttpProbe, ProbeKind, StatusSet, TcpProbe,
};

/// More often than this no endpoint is probed, whatever it is thought of.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// Of what is looked for or sent, in bytes.
const LONGEST_TEXT: usize = 4096;

const KINDS: [&str; 3] = ["http", "tcp", "grpc"];

/// One question, and how it is asked. A part that is faulty is replaced, so that all faults are told.
pub(super) fn health(table: &Table<'_>) -> Option<HealthCheck> {
    let given: Vec<(&str, Item<'_>)> = KINDS.iter().filter_map(|kind| Some((*kind, table.get(kind)?))).collect();
    table.finish();
    let Some(((kind, item), others)) = given.split_first() else {
        table.fault("missing", "say which health check: `http = { path = \"/readyz\" }`, `tcp = {}` or `grpc = {}`");
        return None;
    };
    for (_, other) in others {
        other.key_fault("conflict", "a pool has one health check: `http`, `tcp` or `grpc`");
    }
    let table = item.table()?;
    let kind = match *kind {
        "http" => ProbeKind::Http(http(&table)),
        "tcp" => ProbeKind::Tcp(tcp(&table)),
        _ => ProbeKind::Grpc(grpc(&table)),
    };
    let mut port = None;
    table.set("port", &mut port, |item| Some(NonZeroU16::new(item.number(1..=65_535)?.try_into().ok()?)));
    let mut check = HealthCheck {
        probe: HealthProbe { port, kind },
        interval: Duration::from_secs(1),
        interval_in_doubt: Duration::ZERO,
        interval_down: Duration::ZERO,
        timeout: Duration::from_millis(500),
        rise: 2,
        fall: 2,
    };
    table.set("interval", &mut check.interval, interval);
    check.interval_in_doubt = (check.interval / 2).max(SHORTEST_INTERVAL);
    check.interval_down = check.interval;
    table.set("interval_in_doubt", &mut check.interval_in_doubt, interval);
    table.set("interval_down", &mut check.interval_down, interval);
    if let Some(item) = table.get("interval_in_doubt")
        && check.interval_in_doubt > check.interval
    {
        item.fault_help(
            "conflict",
            format!("in doubt it would be probed less often than every {:?}, as without", check.interval),
            "make it the `interval` or shorter",
        );
    }
    table.set("timeout", &mut check.timeout, Item::duration);
    table.set("rise", &mut check.rise, |item| item.number(1..=100));
    table.set("fall", &mut check.fall, |item| item.number(1..=100));
    table.finish();
    Some(check)
}

/// Whether the pool's endpoints can be asked: told where the pool says it, or where it takes it from the defaults.
pub(super) fn fits(pool: &Table<'_>, check: &HealthCheck, endpoints: &[EndpointSpec<Source>]) {
    let is_unix = |endpoint: &EndpointSpec<Source>| matches!(endpoint.address, Source::Address(Address::Unix(_)));
    let Some(endpoint) = endpoints.iter().find(|endpoint| is_unix(endpoint)) else { return };
    if check.probe.port.is_some()
        && let Some(item) = pool.get("health").or_else(|| pool.get("endpoints")).or_else(|| pool.get("endpoints_file"))
    {
        item.key_fault("conflict", format!("`health.*.port` is set, and {} has no ports", endpoint.address));
    }
}

fn interval(item: &Item<'_>) -> Option<Duration> {
    let interval = item.duration()?;
    if interval < SHORTEST_INTERVAL {
        item.fault("value", format!("`{}` must be {SHORTEST_INTERVAL:?} or longer", item.path));
        return None;
    }
    Some(interval)
}

fn http(table: &Table<'_>) -> HttpProbe {
    let mut probe = HttpProbe {
        method: Method::GET,
        path: table.need("path").and_then(|item| path(&item)).unwrap_or_default(),
        host: None,
        headers: Vec::new(),
        expect_status: StatusSet::success_or_redirect(),
        expect_body: None,
    };
    let methods = [("GET", 0), ("HEAD", 1), ("OPTIONS", 2), ("POST", 3)];
    table.set("method", &mut probe.method, |item| {
        Some([Method::GET, Method::HEAD, Method::OPTIONS, Method::POST][item.choice(&methods)?].clone())
    });
    table.set("host", &mut probe.host, |item| host(item).map(Some));
    if let Some(table) = table.sub("headers") {
        let pair = |(name, item): (&str, Item<'_>)| {
            let name = field(name, &item);
            if name == Some(http::header::HOST) {
                item.key_fault("conflict", "the Host field has a key of its own: `host`");
            }
            let value = header_value(&item);
            Some((name?, value?))
        };
        probe.headers = table.items().filter_map(pair).collect();
    }
    table.set("expect_status", &mut probe.expect_status, statuses);
    table.set("expect_body", &mut probe.expect_body, |item| text(item).map(Some));
    if let Some(item) = table.get("expect_body")
        && probe.method == Method::HEAD
    {
        item.key_fault("conflict", "a response to HEAD has no body: take another `method`");
    }
    probe
}

fn tcp(table: &Table<'_>) -> TcpProbe {
    let mut probe = TcpProbe::default();
    table.set("send", &mut probe.send, |item| text(item).map(Some));
    table.set("expect", &mut probe.expect, |item| text(item).map(Some));
    if let (Some(item), Some(_), None) = (table.get("send"), &probe.send, table.get("expect")) {
        item.warn("what is sent is answered by nobody: the endpoint is up once it has accepted", "add `expect`");
    }
    probe
}

fn grpc(table: &Table<'_>) -> GrpcProbe {
    let mut probe = GrpcProbe::default();
    table.set("service", &mut probe.service, |item| {
        let text = item.text()?;
        let letters = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
        let fine = text.len() <= 256 && text.bytes().all(letters);
        if !fine {
            item.fault_help("value", format!("`{text}` is no service"), "for example `notes.v1.Notes`, or nothing");
        }
        fine.then(|| text.to_owned())
    });
    table.set("host", &mut probe.host, |item| host(item).map(Some));
    probe
}

fn host(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let fine = text.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.as_str().contains('@'));
    if !fine {
        item.fault("value", format!("`{text}` is no host"));
    }
    fine.then(|| text.to_owned())
}

fn path(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let fine = text.starts_with('/') && !text.contains('#') && text.parse::<http::uri::PathAndQuery>().is_ok();
    if !fine {
        item.fault_help("value", format!("`{text}` is no path"), "it begins with a slash: `/readyz`");
    }
    fine.then(|| text.to_owned())
}

/// What is sent or looked for; every answer holds nothing at all.
fn text(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let fine = (1..=LONGEST_TEXT).contains(&text.len());
    if !fine {
        item.fault("value", format!("`{}` is 1 to {LONGEST_TEXT} bytes long", item.path));
    }
    fine.then(|| text.to_owned())
}

fn statuses(item: &Item<'_>) -> Option<StatusSet> {
    let list = item.one_or_list();
    if list.is_empty() {
        item.fault("value", format!("`{}` is empty: no answer would be healthy", item.path));
    }
    StatusSet::new(list.iter().filter_map(status_range).collect())
}

/// `200`, `"200"`, `"2xx"`, `"200-399"`.
fn status_range(item: &Item<'_>) -> Option<RangeInclusive<u16>> {
    if !item.is_text() {
        let status = u16::try_from(item.number(200..=599)?).ok()?;
        return Some(status..=status);
    }
    let text = item.text()?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.len() == 3);
    let range = match (text.split_once('-'), text.strip_suffix("xx")) {
        (Some((from, to)), _) => number(from).zip(number(to)).map(|(from, to)| from..=to),
        (None, Some(class)) => class.parse::<u16>().ok().filter(|class| *class < 10).map(|c| c * 100..=c * 100 + 99),
        (None, None) => number(text).map(|status| status..=status),
    };
    let range = range.filter(|range| !range.is_empty() && *range.start() >= 200 && *range.end() <= 599);
    if range.is_none() {
        item.fault_help(
            "value",
            format!("`{text}` names no final statuses"),
            "write `200`, `\"2xx\"` or `\"200-399\"`, from 200 to 599",
        );
    }
    range
}
