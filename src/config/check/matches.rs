//! `routes.X.match`.

use http::{HeaderName, Method};

use super::pattern;
use super::{Names, listener, resolve};
use crate::base::id::ListenerIndex;
use crate::config::document::{Item, Table};
use crate::config::model::{HeaderMatch, PathPattern, QueryMatch, RouteMatch, Scheme, ValueMatch};

pub(super) fn matches(table: &Table<'_>, names: &Names<'_>) -> RouteMatch {
    let mut matches = RouteMatch {
        listeners: each(table, "listener", |item| resolve(item, "listener", &names.listeners).map(ListenerIndex)),
        scheme: None,
        hosts: each(table, "host", |item| read(item, pattern::host)),
        paths: each(table, "path", path),
        methods: each(table, "method", method),
        client_ips: each(table, "client_ip", listener::network),
        headers: Vec::new(),
        queries: Vec::new(),
    };
    let schemes = [("http", Some(Scheme::Http)), ("https", Some(Scheme::Https))];
    table.set("scheme", &mut matches.scheme, |item| item.choice(&schemes));
    if let Some(table) = table.sub("header") {
        for (name, item) in table.items() {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => matches.headers.extend(value(&item).map(|value| HeaderMatch { name, value })),
                Err(_) => item.key_fault("value", format!("`{name}` is no header field name")),
            }
        }
    }
    if let Some(table) = table.sub("query") {
        let query = |(name, item): (&str, Item<'_>)| Some(QueryMatch { name: name.to_owned(), value: value(&item)? });
        matches.queries = table.items().filter_map(query).collect();
    }
    table.finish();
    matches
}

/// One or many; an empty list would silently match everything.
fn each<T>(table: &Table<'_>, key: &'static str, read: impl Fn(&Item<'_>) -> Option<T>) -> Vec<T> {
    let Some(item) = table.get(key) else { return Vec::new() };
    let list = item.one_or_list();
    if list.is_empty() {
        item.fault("value", format!("`{}` is empty: leave it out to match everything", item.path));
    }
    list.iter().filter_map(read).collect()
}

fn read<T>(item: &Item<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let text = item.text()?;
    parse(text).map_err(|message| item.fault("value", format!("`{text}`: {message}"))).ok()
}

pub(super) fn path(item: &Item<'_>) -> Option<PathPattern> {
    read(item, pattern::path)
}

pub(super) fn method(item: &Item<'_>) -> Option<Method> {
    read(item, |text| match Method::from_bytes(text.as_bytes()) {
        Ok(method) if !text.bytes().any(|b| b.is_ascii_lowercase()) => Ok(method),
        _ => Err("a method is written in upper case: `GET`".to_owned()),
    })
}

fn value(item: &Item<'_>) -> Option<ValueMatch> {
    if item.is_text() {
        return item.text().map(|text| ValueMatch::Equals(text.to_owned()));
    }
    Some(if item.bool()? { ValueMatch::Present } else { ValueMatch::Absent })
}
