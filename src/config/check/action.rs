//! What a route does: `pool | split | redirect | respond`, and how it changes what passes.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{Names, matches, pattern, resolve};
use crate::base::id::PoolIndex;
use crate::base::record::Side;
use crate::config::document::{Item, Table};
use crate::config::model::{
    Action, HeaderEdits, PathPattern, Redirect, Respond, Rewrite, Split, SplitOverride, WhenReadsDown,
};

const ACTIONS: [&str; 4] = ["pool", "split", "redirect", "respond"];

/// Exactly one of the four.
pub(super) fn action(table: &Table<'_>, paths: &[PathPattern], names: &Names<'_>) -> Option<Action> {
    let given: Vec<Item<'_>> = ACTIONS.iter().filter_map(|key| table.get(key)).collect();
    if let [first, others @ ..] = given.as_slice() {
        for other in others {
            let message = format!("a route has one action, and `{}` is one already: take one of them out", first.path);
            other.key_fault("conflict", message);
        }
    } else {
        table.fault(
            "missing",
            format!("`{}` has no action: give it `pool`, `split`, `redirect` or `respond`", table.path),
        );
    }
    let mut actions = ACTIONS.iter().filter_map(|key| {
        let item = table.get(key)?;
        Some(match *key {
            "pool" => resolve(&item, "pool", &names.pools).map(|pool| Action::Pool(PoolIndex(pool))),
            "split" => split(&item.table()?, names).map(Action::Split),
            "redirect" => redirect(&item.table()?, paths).map(Action::Redirect),
            _ => respond(&item.table()?).map(Action::Respond),
        })
    });
    actions.next().flatten()
}

fn split(table: &Table<'_>, names: &Names<'_>) -> Option<Split> {
    table.reserve(&["read_your_writes", "max_staleness"]);
    let pool = |key| table.need(key).and_then(|item| resolve(&item, "pool", &names.pools)).map(PoolIndex);
    let (read, write) = (pool("read"), pool("write"));
    let mut overrides = Vec::new();
    table.set("overrides", &mut overrides, |item| Some(item.list()?.iter().filter_map(split_override).collect()));
    let mut when_reads_down = WhenReadsDown::Write;
    let choices = [("write", WhenReadsDown::Write), ("fail", WhenReadsDown::Fail)];
    table.set("when_reads_down", &mut when_reads_down, |item| item.choice(&choices));
    table.finish();
    Some(Split { read: read?, write: write?, overrides, when_reads_down })
}

fn split_override(item: &Item<'_>) -> Option<SplitOverride> {
    let table = item.table()?;
    let (method, path) = (table.get("method"), table.get("path"));
    if method.is_none() && path.is_none() {
        item.fault("missing", "an override needs a `method` or a `path`");
    }
    let method = method.and_then(|item| matches::method(&item));
    let path = path.and_then(|item| matches::path(&item));
    let side = table.need("side").and_then(|item| item.choice(&[("read", Side::Read), ("write", Side::Write)]));
    table.finish();
    Some(SplitOverride { method, path, side: side? })
}

fn redirect(table: &Table<'_>, paths: &[PathPattern]) -> Option<Redirect> {
    let to = table.need("to").and_then(|item| pattern::location(&item, paths));
    let mut status = StatusCode::PERMANENT_REDIRECT;
    table.set("status", &mut status, |item| {
        let number = item.number(0..=u32::MAX)?;
        if ![301, 302, 303, 307, 308].contains(&number) {
            item.fault("value", format!("{number} is no redirect; take 301, 302, 303, 307 or 308"));
        }
        StatusCode::from_u16(u16::try_from(number).ok()?).ok()
    });
    table.finish();
    Some(Redirect { to: to?, status })
}

fn respond(table: &Table<'_>) -> Option<Respond> {
    let status = table.need("status").and_then(|item| item.number(200..=599));
    let mut body = Bytes::new();
    table.set("body", &mut body, |item| Some(Bytes::copy_from_slice(item.text()?.as_bytes())));
    let mut content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    table.set("content_type", &mut content_type, header_value);
    table.finish();
    let status = StatusCode::from_u16(u16::try_from(status?).ok()?).ok()?;
    Some(Respond { status, body, content_type })
}

pub(super) fn rewrite(item: &Item<'_>, paths: &[PathPattern]) -> Option<Rewrite> {
    let table = item.table()?;
    let (strip, replace) = (table.get("strip_prefix"), table.get("replace"));
    table.finish();
    match (strip, replace) {
        (Some(item), None) => {
            let text = item.text()?;
            let prefix = text.strip_suffix('/').unwrap_or(text);
            match pattern::path(prefix) {
                Ok(path) if pattern::captures(&path).is_empty() && !prefix.ends_with('*') => {
                    Some(Rewrite::StripPrefix(prefix.to_owned()))
                }
                Ok(_) => {
                    item.fault("value", "a prefix is plain text, without captures");
                    None
                }
                Err(message) => {
                    item.fault("value", format!("`{text}`: {message}"));
                    None
                }
            }
        }
        (None, Some(item)) => pattern::new_path(&item, paths).map(Rewrite::Replace),
        _ => {
            item.fault("conflict", "a rewrite is either `strip_prefix` or `replace`");
            None
        }
    }
}

pub(super) fn header_edits(table: &Table<'_>) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    let pairs = |item: &Item<'_>| -> Option<Vec<(HeaderName, HeaderValue)>> {
        let table = item.table()?;
        let pair = |(name, item): (&str, Item<'_>)| {
            let name = field(name, &item);
            let value = header_value(&item);
            Some((name?, value?))
        };
        Some(table.items().filter_map(pair).collect())
    };
    table.set("set", &mut edits.set, pairs);
    table.set("add", &mut edits.add, pairs);
    table.set("remove", &mut edits.remove, |item| {
        Some(item.one_or_list().iter().filter_map(|item| field(item.text()?, item)).collect())
    });
    table.finish();
    edits
}

/// A field that may be edited: what frames a message is headgate's alone.
pub(super) fn field(name: &str, item: &Item<'_>) -> Option<HeaderName> {
    let framing = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TE,
        header::UPGRADE,
        header::TRAILER,
    ];
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if framing.contains(&name) => {
            item.key_fault("value", format!("`{name}` frames the message and cannot be edited"));
            None
        }
        Ok(name) => Some(name),
        Err(_) => {
            item.key_fault("value", format!("`{name}` is no header field name"));
            None
        }
    }
}

pub(super) fn header_value(item: &Item<'_>) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(item.text()?).ok();
    if value.is_none() {
        item.fault("value", "a header field value is visible ASCII on one line");
    }
    value
}
