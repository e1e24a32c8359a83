//! What holds between sections.

use std::net::SocketAddr;

use crate::base::address::Address;
use crate::config::document::{Item, Table};
use crate::config::model::{HttpsRedirect, Listener};

/// The sections of a kind, by name.
pub(super) fn items<'a>(root: &Table<'a>, section: &'static str) -> Vec<(&'a str, Item<'a>)> {
    let Some(item) = root.get(section) else { return Vec::new() };
    // A section that is no table has its fault already.
    match &item.node.value {
        crate::config::document::Value::Table(_) => {
            item.table().map(|table| table.items().collect()).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The value at a key of a section.
pub(super) fn inside<'a>(item: &Item<'a>, key: &'static str) -> Option<Item<'a>> {
    match &item.node.value {
        crate::config::document::Value::Table(_) => item.table()?.get(key),
        _ => None,
    }
}

/// Gives `redirect = "https"` the port of the first listener that speaks TLS.
pub(super) fn https_ports(root: &Table<'_>, mut listeners: Vec<Listener>) -> Vec<Listener> {
    let port = listeners.iter().find(|listener| listener.tls.is_some()).map(|listener| listener.address.port());
    // A listener with faults of its own may be the one that speaks TLS.
    let sections = items(root, "listeners");
    let any_tls = sections.iter().any(|(_, item)| inside(item, "tls").is_some());
    for (name, item) in &sections {
        let Some(redirect) = inside(item, "redirect") else { continue };
        if inside(item, "tls").is_some() {
            redirect.fault("conflict", format!("the listener `{name}` speaks TLS itself"));
        } else if !any_tls {
            redirect.fault("missing", "`redirect = \"https\"` needs a listener with `tls`");
        }
    }
    for listener in listeners.iter_mut().filter(|listener| listener.redirect.is_some()) {
        listener.redirect = port.map(|port| HttpsRedirect { port });
    }
    listeners
}

/// No two servers on one address.
pub(super) fn addresses(root: &Table<'_>) {
    let sections = items(root, "listeners").into_iter().map(|(_, item)| item);
    let others = ["metrics", "admin"].into_iter().filter_map(|key| root.get(key));
    let mut seen: Vec<(SocketAddr, String)> = Vec::new();
    for item in sections.chain(others).filter_map(|item| inside(&item, "address")).filter(Item::is_text) {
        let parsed = item.text().and_then(|text| text.parse::<Address>().ok()).and_then(|address| address.tcp());
        // Port 0 is a free port each time.
        let Some(address) = parsed.filter(|address| address.port() != 0) else { continue };
        match seen.iter().find(|(other, _)| *other == address) {
            Some((_, path)) => item.fault("duplicate", format!("`{path}` has the address {address} already")),
            None => seen.push((address, item.path.clone())),
        }
    }
}
