//! Holds the plan of the house: who may import whom, and what every file looks like.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floor of each room; a room imports only rooms on lower floors. The crate doc shows the same table.
const FLOORS: &[(&str, u8)] = &[
    ("base", 0),
    ("config", 1),
    ("telemetry", 2),
    ("tls", 2),
    ("route", 2),
    ("cache", 2),
    ("relay", 2),
    ("upstream", 3),
    ("snapshot", 4),
    ("decide", 5),
    ("proxy", 6),
    ("server", 7),
    ("control", 7),
    ("admin", 8),
    ("app", 9),
    ("cli", 10),
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils", "common", "helpers", "manager", "types"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The room that a file belongs to; none for `lib.rs` and `main.rs`.
fn room(file: &Path) -> Option<String> {
    let relative = file.strip_prefix(source_root()).unwrap();
    let first = relative.components().next()?.as_os_str().to_str()?.to_owned();
    (!first.ends_with(".rs")).then_some(first)
}

#[test]
fn rooms_import_downwards_only() {
    let floors: HashMap<&str, u8> = FLOORS.iter().copied().collect();
    let mut faults = Vec::new();
    for file in sources(&source_root()) {
        let Some(own) = room(&file) else { continue };
        let floor = *floors.get(own.as_str()).unwrap_or_else(|| panic!("{own}/ is in no floor: add it to FLOORS"));
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            for (at, _) in line.match_indices("crate::") {
                let other: String =
                    line[at + 7..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let Some(&below) = floors.get(other.as_str()) else { continue };
                let comment = line.trim_start().starts_with("//");
                if other != own && below >= floor && !comment {
                    faults.push(format!("{}:{}: {own} imports {other}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "imports must point down:\n{}", faults.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let bare: Vec<_> = sources(&source_root())
        .into_iter()
        .filter(|file| !file.ends_with("tests.rs") && !fs::read_to_string(file).unwrap().starts_with("//!"))
        .collect();
    assert!(bare.is_empty(), "no header (`//!`) in {bare:?}");
}

#[test]
fn no_file_has_an_empty_name() {
    for file in sources(&source_root()) {
        let names = file.components().map(|part| part.as_os_str().to_string_lossy().replace(".rs", ""));
        let tail: Vec<String> = names.collect();
        assert!(!tail.iter().any(|name| EMPTY_NAMES.contains(&name.as_str())), "{}", file.display());
    }
}

#[test]
fn the_crate_doc_shows_the_floors() {
    let doc = fs::read_to_string(source_root().join("lib.rs")).unwrap();
    for (room, floor) in FLOORS {
        let row = doc.lines().find(|line| line.starts_with(&format!("//! | {floor} |"))).unwrap();
        assert!(row.contains(&format!("[`{room}`]")), "{room} is missing in: {row}");
    }
}

#[test]
fn tests_await_events() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let word = concat!("sle", "ep(");
    for file in sources(&tests) {
        assert!(!fs::read_to_string(&file).unwrap().contains(word), "{} sleeps: await an event", file.display());
    }
}
