//! `endpoints_file`: a pool's list in a file of its own, which the loader has read beside the config.

use std::path::PathBuf;

use crate::base::source::Source;
use crate::config::check::pool::endpoints;
use crate::config::document::{Item, Table};
use crate::config::model::EndpointSpec;

type Endpoints = (Vec<EndpointSpec<Source>>, Option<PathBuf>);

/// The pool's endpoints and the file that they are from: exactly one of the two keys says.
pub(super) fn source(table: &Table<'_>) -> Option<Endpoints> {
    let (list, file) = (table.get("endpoints"), table.get("endpoints_file"));
    match (list, file) {
        (Some(_), Some(file)) => {
            let help =
                "keep `endpoints` for a list in the config, `endpoints_file` for one that another program writes";
            file.key_fault_help(
                "conflict",
                "a pool has one source of endpoints: `endpoints` or `endpoints_file`",
                help,
            );
            None
        }
        (None, Some(file)) => in_file(&file),
        _ => table.need("endpoints").and_then(|item| Some((endpoints(&item)?, None))),
    }
}

fn in_file(item: &Item<'_>) -> Option<Endpoints> {
    let path = item.file()?;
    // A text that is checked alone has no files; one that could not be read has its fault already.
    let Some(table) = item.list_file(&path) else { return Some((Vec::new(), Some(path))) };
    for (key, other) in table.items().filter(|(key, _)| *key != "endpoints") {
        other.key_fault_help("unknown-key", format!("unknown key `{key}`"), "known in a file of endpoints: endpoints");
    }
    let list = match table.entries.is_empty() {
        // Its place is the file as a whole: the first line is as good as any.
        true => {
            table.fault("missing", format!("`{}` has no `endpoints`: write `endpoints = [..]`", path.display()));
            None
        }
        false => table.need("endpoints"),
    };
    Some((endpoints(&list?)?, Some(path)))
}
