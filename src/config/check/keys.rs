//! `[keys.X]`.

use crate::config::document::{Item, Table};
use crate::config::model::{Key, KeyBytes, KeySource};

/// Each is tried on each cookie that the ones before it did not open.
const MOST_SECRETS: usize = 8;

pub(super) fn key(name: &str, table: &Table<'_>) -> Option<Key> {
    let list = table.need("secrets").and_then(|item| Some((item.list()?, item)));
    table.finish();
    let (list, item) = list?;
    if list.is_empty() || list.len() > MOST_SECRETS {
        item.fault("value", format!("a key has 1 to {MOST_SECRETS} secrets: the first seals, all open"));
    }
    Some(Key { name: name.into(), secrets: list.iter().filter_map(secret).collect() })
}

fn secret(item: &Item<'_>) -> Option<KeySource> {
    let table = item.table()?;
    let (value, file) = (table.get("value"), table.get("file"));
    table.finish();
    match (value, file) {
        (Some(item), None) => {
            let bytes = KeyBytes::from_text(item.text()?);
            if bytes.is_none() {
                item.fault_help("value", KeyBytes::FAULT, "`openssl rand -base64 32` makes one");
            }
            bytes.map(KeySource::Value)
        }
        (None, Some(item)) => item.file_to_read().map(KeySource::File),
        _ => {
            item.fault_help(
                "value",
                "a secret has a `value` or a `file`",
                "`{ file = \"main.key\" }` or `{ value = \"${MAIN_KEY}\" }`",
            );
            None
        }
    }
}
