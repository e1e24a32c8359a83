//! `balance`, `sticky` and `slow_start` of a pool.

use std::time::Duration;

use http::HeaderName;

use super::{Names, resolve};
use crate::base::source::Source;
use crate::config::document::{Item, Table};
use crate::config::model::{Balance, BoundedLoad, EndpointSpec, HashKey, Hashing, StickyCookie};

/// A ramp is counted in tenths of a second, and not many of them.
const LONGEST_SLOW_START: Duration = Duration::from_secs(24 * 3600);

pub(super) fn balance(item: &Item<'_>) -> Option<Balance> {
    if !item.is_text() {
        let table = item.table()?;
        let key = table.need("hash").and_then(|item| hash_key(&item));
        let mut bounded_load = BoundedLoad::DEFAULT;
        table.set("bounded_load", &mut bounded_load, |item| item.hundredths(100..=10_000).map(BoundedLoad));
        table.finish();
        return Some(Balance::Hash(Hashing { key: key?, bounded_load }));
    }
    let algorithm = item.choice(&[
        ("power-of-two", 0),
        ("round-robin", 1),
        ("least-requests", 2),
        ("peak-ewma", 3),
        ("random", 4),
    ])?;
    Some(match algorithm {
        0 => Balance::PowerOfTwo,
        1 => Balance::RoundRobin,
        2 => Balance::LeastRequests,
        3 => Balance::PeakEwma,
        _ => Balance::Random,
    })
}

fn hash_key(item: &Item<'_>) -> Option<HashKey> {
    if item.is_text() {
        let of_uri = item.choice(&[("client-ip", false), ("uri", true)])?;
        return Some(if of_uri { HashKey::Uri } else { HashKey::ClientIp });
    }
    let table = item.table()?;
    let mut keys = Vec::new();
    keys.extend(table.get("header").and_then(|item| {
        let name = HeaderName::from_bytes(item.text()?.as_bytes()).ok();
        if name.is_none() {
            item.fault("value", "this is no header field name");
        }
        name.map(HashKey::Header)
    }));
    keys.extend(table.get("cookie").and_then(|item| cookie_name(&item)).map(HashKey::Cookie));
    keys.extend(table.get("query").and_then(|item| item.text()).map(|name| HashKey::Query(name.to_owned())));
    table.finish();
    match (table.entries, keys.pop()) {
        ([_], key) => key,
        _ => {
            item.fault_help("value", "a hash has one key", "`\"client-ip\"`, `\"uri\"`, `{ header = \"x-user\" }`, `{ cookie = \"session\" }` or `{ query = \"user\" }`");
            None
        }
    }
}

/// A token (RFC 6265 §4.1.1), and not too long to be sent with each request.
fn cookie_name(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let fine = !text.is_empty() && text.len() <= 64 && text.bytes().all(letters);
    if !fine {
        item.fault("value", format!("`{text}` is no cookie name: 1 to 64 letters, digits, `-`, `_` or `.`"));
    }
    fine.then(|| text.to_owned())
}

/// `instances` share the clients of a pool, so each must be able to open what another has sealed.
pub(super) fn sticky(item: &Item<'_>, names: &Names<'_>, instances: u32) -> Option<StickyCookie> {
    let table = item.table()?;
    let cookie = table.need("cookie").and_then(|item| cookie_name(&item));
    let key = table.get("key");
    let mut sticky = StickyCookie { cookie: String::new(), key: None, ttl: None };
    if let Some(item) = &key {
        let place = resolve(item, "key", &names.keys);
        sticky.key = place.and_then(|place| names.keys.get(place as usize)).map(|name| (*name).into());
    } else if instances > 1 {
        item.fault_help(
            "missing",
            format!("`process.instances` is {instances}, and without a key each seals with one of its own"),
            "add `key = \"main\"` and a `[keys.main]` that all instances have",
        );
    }
    table.set("ttl", &mut sticky.ttl, |item| {
        let ttl = item.duration()?;
        // A cookie's age is counted in seconds.
        if ttl < Duration::from_secs(1) {
            item.fault("value", format!("`{}` must be 1s or longer", item.path));
            return None;
        }
        Some(Some(ttl))
    });
    table.finish();
    sticky.cookie = cookie?;
    Some(sticky)
}

pub(super) fn slow_start(item: &Item<'_>) -> Option<Duration> {
    let time = item.duration()?;
    if time > LONGEST_SLOW_START {
        item.fault("value", "a slow start takes 24h at most");
        return None;
    }
    Some(time)
}

/// At least one endpoint gets something by its weight.
pub(super) fn weights(table: &Table<'_>, endpoints: &[EndpointSpec<Source>]) {
    if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.weight.value() == 0) {
        let item = table.get("endpoints");
        let say = |item: Item<'_>| {
            item.fault_help(
                "value",
                "every endpoint has weight 0: none would get anything",
                "give one of them a weight",
            );
        };
        item.into_iter().for_each(say);
    }
}
