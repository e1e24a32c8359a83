//! `[process]`, `[metrics]`, `[admin]`, `[access_log]`, `[caches.X]`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::base::address::Address;
use crate::base::units::ByteSize;
use crate::config::document::{Item, Table};
use crate::config::model::{
    AccessLog, AccessLogFormat, AccessLogOutput, Admin, CacheZone, Dns, MetricsServer, Process,
};

pub(super) fn process(table: Option<Table<'_>>) -> Process {
    let mut process = Process {
        workers: None,
        instances: 1,
        max_connections: 20_000,
        held_bodies: ByteSize::mib(256),
        share_ports: false,
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::from_secs(25),
    };
    let Some(table) = table else { return process };
    table.set("workers", &mut process.workers, |item| Some(NonZeroUsize::new(item.number(1..=1024)? as usize)));
    table.set("instances", &mut process.instances, |item| item.number(1..=10_000));
    table.set("max_connections", &mut process.max_connections, |item| Some(item.number(1..=10_000_000)? as usize));
    table.set("held_bodies", &mut process.held_bodies, |item| item.size());
    table.set("share_ports", &mut process.share_ports, |item| item.bool());
    if let Some(drain) = table.sub("drain") {
        drain.set("delay", &mut process.drain_delay, |item| item.duration_or_zero());
        drain.set("timeout", &mut process.drain_timeout, |item| item.duration_or_zero());
        drain.finish();
    }
    table.finish();
    process
}

pub(super) fn metrics(table: &Table<'_>) -> Option<MetricsServer> {
    let item = table.need("address");
    table.finish();
    let item = item?;
    match item.parse::<Address>()? {
        Address::Tcp(address) => Some(MetricsServer { address }),
        Address::Unix(_) => {
            item.fault("value", "metrics are served on TCP only");
            None
        }
    }
}

pub(super) fn admin(table: &Table<'_>) -> Option<Admin> {
    let item = table.need("address");
    table.finish();
    let item = item?;
    let address = item.parse::<Address>()?;
    if address.tcp().is_some_and(|address| !address.ip().is_loopback()) {
        let help = "use `unix:/run/headgate/admin.sock` or `127.0.0.1:9902`";
        item.fault_help(
            "value",
            "the admin API may change the process, so on TCP it takes a loopback address only",
            help,
        );
        return None;
    }
    Some(Admin { address })
}

pub(super) fn access_log(table: Option<Table<'_>>) -> AccessLog {
    let mut log = AccessLog { output: AccessLogOutput::Stdout, format: Some(AccessLogFormat::Json) };
    let Some(table) = table else { return log };
    table.set("output", &mut log.output, |item| match item.text()? {
        "stdout" => Some(AccessLogOutput::Stdout),
        _ => Some(AccessLogOutput::File(item.file()?)),
    });
    let formats = [("json", Some(AccessLogFormat::Json)), ("combined", Some(AccessLogFormat::Combined)), ("off", None)];
    table.set("format", &mut log.format, |item| item.choice(&formats));
    table.finish();
    log
}

pub(super) fn dns(table: Option<Table<'_>>) -> Dns {
    let mut dns = Dns { servers: Vec::new(), timeout: Duration::from_secs(5) };
    let Some(table) = table else { return dns };
    table.set("servers", &mut dns.servers, |item| item.list()?.iter().map(name_server).collect());
    table.set("timeout", &mut dns.timeout, Item::duration);
    table.finish();
    dns
}

/// An IP address, with a port where it is not 53.
fn name_server(item: &Item<'_>) -> Option<SocketAddr> {
    let text = item.text()?;
    let with_port = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    let server = with_port.ok().or_else(|| text.parse().ok()).filter(|server| server.port() != 0);
    if server.is_none() {
        let help = "write `10.0.0.2`, `10.0.0.2:5353` or `[fd00::2]:5353`";
        item.fault_help("value", format!("`{text}` is no IP address of a name server"), help);
    }
    server
}

pub(super) fn cache(name: &str, table: &Table<'_>) -> Option<CacheZone> {
    table.reserve(&["disk"]);
    let mut zone = CacheZone { name: name.into(), memory: ByteSize::mib(64), max_body: ByteSize::mib(1) };
    table.set("memory", &mut zone.memory, |item| item.size());
    let max_body = table.get("max_body");
    if let Some(size) = max_body.as_ref().and_then(|item| item.size()) {
        zone.max_body = size;
    }
    table.finish();
    if let Some(item) = max_body.filter(|_| zone.max_body > zone.memory) {
        item.fault(
            "value",
            format!("`max_body` ({}) is more than the cache's `memory` ({})", zone.max_body, zone.memory),
        );
    }
    zone.max_body = zone.max_body.min(zone.memory);
    Some(zone)
}
