//! `[listeners.X]`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::address::Address;
use crate::base::units::ByteSize;
use crate::config::document::{Item, Table};
use crate::config::model::{
    CertificateFiles, HttpsRedirect, Listener, ListenerLimits, ListenerTimeouts, ListenerTls, TlsVersion,
};

pub(super) struct Defaults {
    timeouts: ListenerTimeouts,
    limits: ListenerLimits,
}

pub(super) fn defaults(table: Option<Table<'_>>) -> Defaults {
    let mut defaults = Defaults {
        timeouts: ListenerTimeouts {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            send: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
        },
        limits: ListenerLimits {
            header_bytes: ByteSize::kib(64),
            target_bytes: ByteSize::kib(8),
            connections: None,
            streams: 100,
        },
    };
    if let Some(table) = table {
        timeouts(&table, &mut defaults.timeouts);
        limits(&table, &mut defaults.limits);
        table.finish();
    }
    defaults
}

fn timeouts(table: &Table<'_>, timeouts: &mut ListenerTimeouts) {
    let Some(table) = table.sub("timeouts") else { return };
    table.set("handshake", &mut timeouts.handshake, Item::duration);
    table.set("header", &mut timeouts.header, Item::duration);
    table.set("body", &mut timeouts.body, Item::duration);
    table.set("send", &mut timeouts.send, Item::duration);
    table.set("keep_alive", &mut timeouts.keep_alive, Item::duration);
    table.finish();
}

fn limits(table: &Table<'_>, limits: &mut ListenerLimits) {
    let Some(table) = table.sub("limits") else { return };
    let within = |item: &Item<'_>, least: ByteSize, most: ByteSize| {
        let size = item.size()?;
        if size < least || size > most {
            item.fault("value", format!("`{}` goes from {least} to {most}", item.path));
            return None;
        }
        Some(size)
    };
    table.reserve(&["rate"]);
    table.set("header_bytes", &mut limits.header_bytes, |item| within(item, ByteSize::kib(4), ByteSize::kib(256)));
    table.set("target_bytes", &mut limits.target_bytes, |item| within(item, ByteSize(256), ByteSize::kib(256)));
    table.set("connections", &mut limits.connections, |item| Some(Some(item.number(1..=10_000_000)? as usize)));
    table.set("streams", &mut limits.streams, |item| item.number(1..=10_000));
    table.finish();
}

pub(super) fn listener(name: &str, table: &Table<'_>, defaults: &Defaults) -> Option<Listener> {
    table.reserve(&["protocol"]);
    let address = table.need("address").and_then(|item| match item.parse::<Address>()? {
        Address::Tcp(address) => Some(address),
        Address::Unix(_) => {
            item.fault("value", "a listener takes an IP address and a port");
            None
        }
    });
    let tls = table.sub("tls").map(|table| tls(&table));
    let mut redirect = None;
    // The port is put in once all listeners are known.
    table.set("redirect", &mut redirect, |item| Some(item.choice(&[("https", HttpsRedirect { port: 0 })])));
    let mut trusted_proxies = Vec::new();
    table.set("trusted_proxies", &mut trusted_proxies, |item| item.one_or_list().iter().map(trusted).collect());
    let (mut time, mut limit) = (defaults.timeouts, defaults.limits);
    timeouts(table, &mut time);
    limits(table, &mut limit);
    table.finish();
    let name = name.into();
    let tls = tls.map_or(Some(None), |tls| tls.map(Some))?;
    Some(Listener { name, address: address?, redirect, tls, trusted_proxies, timeouts: time, limits: limit })
}

fn trusted(item: &Item<'_>) -> Option<IpNet> {
    let network = network(item)?;
    if network.prefix_len() == 0 {
        item.warn(
            format!("`{network}` believes the forwarding headers of everyone: any client can claim any address"),
            "name the networks of your own proxies, such as `10.0.0.0/8`",
        );
    }
    Some(network)
}

/// `10.0.0.0/8`, or a single address.
pub(super) fn network(item: &Item<'_>) -> Option<IpNet> {
    let text = item.text()?;
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().map(IpNet::from).ok());
    if network.is_none() {
        item.fault_help("value", format!("`{text}` is no network"), "write `10.0.0.0/8`, `::1` or `192.0.2.7`");
    }
    network
}

fn tls(table: &Table<'_>) -> Option<ListenerTls> {
    let certificates = table.need("certificates").and_then(|item| {
        let list = item.list()?;
        if list.is_empty() {
            item.fault("value", "at least one certificate is needed");
        }
        list.iter().map(certificate).collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()
    });
    let mut tls = ListenerTls { certificates: Vec::new(), min_version: TlsVersion::V1_2, http2: true };
    let versions = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
    table.set("min_version", &mut tls.min_version, |item| item.choice(&versions));
    table.set("http2", &mut tls.http2, Item::bool);
    table.finish();
    tls.certificates = certificates?;
    Some(tls)
}

fn certificate(item: &Item<'_>) -> Option<CertificateFiles> {
    let table = item.table()?;
    let cert = table.need("cert").and_then(|item| item.file_to_read());
    let key = table.need("key").and_then(|item| item.file_to_read());
    table.finish();
    Some(CertificateFiles { cert: cert?, key: key? })
}
