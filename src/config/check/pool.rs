//! `[pools.X]`.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Names, balance, ejection, failover, health, queue, retry};
use crate::base::address::Address;
use crate::base::source::Source;
use crate::base::units::Weight;
use crate::config::check::endpoints_file::source;
use crate::config::document::{Item, Table};
use crate::config::model::{
    Balance, Ejection, EndpointSpec, Failback, HealthCheck, Pool, PoolTimeouts, PoolTls, Queue, RetryBudget,
    ServerVerification,
};

pub(super) struct Defaults {
    balance: Balance,
    health: Option<HealthCheck>,
    timeouts: PoolTimeouts,
    ejection: Option<Ejection>,
    panic_threshold: u32,
    failback: Failback,
    max_requests: Option<NonZeroU32>,
    max_connections: Option<NonZeroU32>,
    queue: Queue,
    outage_wait: Duration,
    max_idle: usize,
    retry_budget: RetryBudget,
    slow_start: Option<Duration>,
    drain_timeout: Duration,
}

pub(super) fn defaults(table: Option<Table<'_>>) -> Defaults {
    let mut defaults = Defaults {
        balance: Balance::PowerOfTwo,
        health: None,
        timeouts: PoolTimeouts {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(30),
            body: Duration::from_secs(30),
            keep_alive: Duration::from_secs(4),
            keep_alive_ceiling: Duration::from_secs(60),
        },
        ejection: Some(Ejection::DEFAULT),
        // Off: where a pool is down, a quick 503 helps more than more requests to what is down.
        panic_threshold: 0,
        failback: Failback::AtOnce,
        max_requests: None,
        max_connections: None,
        queue: queue::DEFAULT,
        // A restart of the only app server; in what takes longer a quick 503 helps more.
        outage_wait: Duration::from_secs(1),
        max_idle: 1024,
        retry_budget: RetryBudget::DEFAULT,
        slow_start: None,
        drain_timeout: Duration::from_secs(600),
    };
    if let Some(table) = table {
        defaults = policy(&table, &defaults);
        table.finish();
    }
    defaults
}

/// What both a pool and the defaults can say.
fn policy(table: &Table<'_>, defaults: &Defaults) -> Defaults {
    let mut policy = Defaults { balance: defaults.balance.clone(), health: defaults.health.clone(), ..*defaults };
    table.set("balance", &mut policy.balance, balance::balance);
    table.set("health", &mut policy.health, |item| Some(health::health(&item.table()?)));
    if let Some(table) = table.sub("timeouts") {
        table.set("connect", &mut policy.timeouts.connect, Item::duration);
        table.set("response", &mut policy.timeouts.response, Item::duration);
        table.set("body", &mut policy.timeouts.body, Item::duration);
        if let Some(keep_alive) = table.get("keep_alive").and_then(|item| item.duration()) {
            (policy.timeouts.keep_alive, policy.timeouts.keep_alive_ceiling) = (keep_alive, keep_alive);
        }
        table.finish();
    }
    if let Some(table) = table.sub("ejection") {
        policy.ejection = ejection::ejection(&table, policy.ejection);
    }
    table.set("panic_threshold", &mut policy.panic_threshold, |item| item.number(0..=100));
    table.set("failback", &mut policy.failback, failover::failback);
    table.set("max_requests", &mut policy.max_requests, |item| Some(NonZeroU32::new(item.number(1..=10_000_000)?)));
    table.set("max_connections", &mut policy.max_connections, |item| {
        Some(NonZeroU32::new(item.number(1..=10_000_000)?))
    });
    queue::queue(table.sub("queue"), &mut policy.queue);
    table.set("outage_wait", &mut policy.outage_wait, Item::duration_or_zero);
    table.set("max_idle", &mut policy.max_idle, |item| Some(item.number(0..=100_000)? as usize));
    if let Some(table) = table.sub("retry_budget") {
        retry::budget(&table, &mut policy.retry_budget);
    }
    table.set("slow_start", &mut policy.slow_start, |item| balance::slow_start(item).map(Some));
    table.set("drain_timeout", &mut policy.drain_timeout, Item::duration);
    policy
}

pub(super) fn pool(
    name: &str,
    table: &Table<'_>,
    defaults: &Defaults,
    names: &Names<'_>,
    instances: u32,
) -> Option<Pool> {
    let source = source(table);
    let policy = policy(table, defaults);
    let tls = table.sub("tls").map(|table| tls(&table));
    let mut chain = Vec::new();
    table.set("failover", &mut chain, |item| failover::failover(item, name, names));
    let sticky = table.get("sticky").and_then(|item| balance::sticky(&item, names, instances));
    table.finish();
    let (endpoints, endpoints_file) = source?;
    if let Some(check) = &policy.health {
        health::fits(table, check, &endpoints);
    }
    balance::weights(table, &endpoints);
    if policy.health.is_none() && endpoints.iter().any(|endpoint| endpoint.backup) {
        let message = format!("pool `{name}` has a backup but no health check: fail-over waits for failed connections");
        let help =
            Some("add `health.http = { path = \"/readyz\" }`, `health.tcp = {}` or `health.grpc = {}`".to_owned());
        table.context.report(
            crate::config::diagnostic::Severity::Warning,
            "risk",
            table.at,
            &table.path,
            message,
            help,
        );
    }
    let Defaults {
        balance,
        health,
        timeouts,
        ejection,
        panic_threshold,
        failback,
        max_requests,
        max_connections,
        queue,
        outage_wait,
        max_idle,
        retry_budget,
        slow_start,
        drain_timeout,
    } = policy;
    Some(Pool {
        name: name.into(),
        balance,
        endpoints,
        endpoints_file,
        health,
        timeouts,
        tls,
        ejection,
        panic_threshold,
        failover: chain,
        failback,
        max_requests,
        max_connections,
        queue,
        outage_wait,
        max_idle,
        retry_budget,
        sticky,
        slow_start,
        drain_timeout,
    })
}

pub(super) fn endpoints(item: &Item<'_>) -> Option<Vec<EndpointSpec<Source>>> {
    let list = item.list()?;
    let mut endpoints: Vec<EndpointSpec<Source>> = Vec::new();
    for item in &list {
        let Some(endpoint) = endpoint(item) else { continue };
        if endpoints.iter().any(|other| other.address == endpoint.address) {
            item.fault("duplicate", format!("the endpoint `{}` is in this pool already", endpoint.address));
        }
        endpoints.push(endpoint);
    }
    if list.is_empty() {
        item.fault("value", "a pool needs at least one endpoint");
    } else if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.backup) {
        item.fault("value", "at least one endpoint must not be a backup");
    }
    Some(endpoints)
}

fn endpoint(item: &Item<'_>) -> Option<EndpointSpec<Source>> {
    let mut endpoint = EndpointSpec { address: (), weight: Weight::ONE, backup: false, drain: false };
    if item.is_text() {
        return Some(endpoint.at(address(item)?));
    }
    let table = item.table()?;
    let address = table.need("address").and_then(|item| address(&item));
    table.set("weight", &mut endpoint.weight, |item| u16::try_from(item.number(0..=65_535)?).ok().map(Weight));
    table.set("backup", &mut endpoint.backup, Item::bool);
    table.set("drain", &mut endpoint.drain, Item::bool);
    table.finish();
    let address = address?;
    if let (Source::Service(_), Some(weight)) = (&address, table.get("weight")) {
        weight.key_fault("conflict", "the weights of SRV records are in the records");
    }
    Some(endpoint.at(address))
}

fn address(item: &Item<'_>) -> Option<Source> {
    let source = item.parse::<Source>()?;
    if source.address().and_then(Address::tcp).is_some_and(|address| address.port() == 0) {
        item.fault("value", "an endpoint needs a port from 1 to 65535");
        return None;
    }
    Some(source)
}

fn tls(table: &Table<'_>) -> PoolTls {
    let mut tls = PoolTls { verify: ServerVerification::System, server_name: None };
    let ca_file = table.get("ca_file");
    if let Some(file) = ca_file.as_ref().and_then(|item| item.file_to_read()) {
        tls.verify = ServerVerification::CaFile(file);
    }
    if let Some(item) = table.get("verify")
        && item.bool() == Some(false)
    {
        if ca_file.is_some() {
            item.key_fault("conflict", "`verify = false` and `ca_file` contradict each other");
        }
        item.warn("the endpoints' certificates are not verified", "set `tls.ca_file` to the CA that signed them");
        tls.verify = ServerVerification::Off;
    }
    table.set("server_name", &mut tls.server_name, |item| {
        let text = item.text()?;
        let fine = rustls_pki_types::ServerName::try_from(text).is_ok();
        if !fine {
            item.fault("value", format!("`{text}` is no server name"));
        }
        fine.then(|| Some(text.to_owned()))
    });
    table.finish();
    tls
}
