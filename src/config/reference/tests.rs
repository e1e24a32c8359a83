//! The reference says what the checker does: every key is read, every default is the real one.

use std::collections::HashSet;

use super::{Key, SECTIONS, Shown, all, below, facts, star, text};
use crate::config::load::parse_text;
use crate::config::model::Config;

fn read(text: &str) -> Result<Config, String> {
    let found = parse_text("reference.toml", text, &|_| None);
    found.map(|(config, _)| config).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

/// The numbers of the lines that are a key with a value, commented out.
fn optional_lines(text: &str) -> Vec<usize> {
    let is_key = |line: &str| {
        let key = line.strip_prefix("# ").and_then(|line| line.split_once(" = ")).map(|(key, _)| key);
        key.is_some_and(|key| key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)))
    };
    text.lines().enumerate().filter(|(_, line)| is_key(line)).map(|(at, _)| at).collect()
}

fn uncommented(text: &str, wanted: usize) -> String {
    let line = |(at, line): (usize, &str)| match at == wanted {
        true => format!("{}\n", line.trim_start_matches("# ")),
        false => format!("{line}\n"),
    };
    text.lines().enumerate().map(line).collect()
}

#[test]
fn each_optional_line_loads_alone_and_each_default_is_the_real_one() {
    let text = text();
    let without = read(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let optional = || {
        SECTIONS.iter().flat_map(|section| section.keys).filter_map(|key| match key.shown {
            Shown::Default(_) => Some((key, true)),
            Shown::Example(_) => Some((key, false)),
            _ => None,
        })
    };
    let lines = optional_lines(&text);
    assert_eq!(lines.len(), optional().count());
    for (line, (key, is_default)) in lines.into_iter().zip(optional()) {
        let with = read(&uncommented(&text, line)).unwrap_or_else(|faults| panic!("{}: {faults}", key.path));
        // What is included and cut off by a text alone is the loader's.
        if key.path != "include" {
            assert_eq!(with == without, is_default, "{}: is the value shown its default?", key.path);
        }
    }
}

#[test]
fn every_key_of_the_reference_is_read() {
    for (path, _) in facts() {
        // No key takes a date, so whoever reads it says so.
        let text = match path.split_once("[].") {
            Some((list, key)) => format!("{list} = [{{ {key} = 1979-05-27 }}]\n"),
            None => format!("{path} = 1979-05-27\n"),
        };
        let faults = parse_text("t.toml", &text, &|_| None).unwrap_err();
        let path = path.replace("[]", "");
        assert!(faults.iter().any(|fault| fault.path == path && fault.code == "type"), "{text}{faults:#?}");
    }
}

#[test]
fn every_key_is_told_once() {
    let mut seen = HashSet::new();
    let told = |key: &Key| !matches!(key.shown, Shown::Again(_));
    for (parts, key) in all() {
        let path: Vec<&str> = parts.iter().map(|part| star(part)).collect();
        if key.is_some_and(told) {
            assert!(seen.insert(path.join(".")), "{path:?} is told twice");
        }
    }
    for (parts, key) in all().filter(|(_, key)| key.is_some_and(|key| !told(key))) {
        let path: Vec<&str> = parts.iter().map(|part| star(part)).collect();
        assert!(seen.contains(&path.join(".")), "{path:?}: {} is told nowhere", key.map_or("", |key| key.path));
    }
}

#[test]
fn the_keys_below_a_place_are_those_that_it_takes() {
    assert_eq!(below("process"), ["workers", "instances", "max_connections", "held_bodies", "share_ports", "drain"]);
    assert_eq!(below("defaults"), ["listener", "pool", "route"]);
    assert_eq!(below("defaults.listener"), ["timeouts", "limits"]);
    assert_eq!(below("defaults.listener.limits"), below("listeners.*.limits"));
    assert_eq!(below("pools.*.endpoints[]"), ["address", "weight", "backup", "drain"]);
    assert_eq!(below("pools.*.balance"), ["hash", "bounded_load"]);
    assert_eq!(below("pools.*.balance.hash"), ["header", "cookie", "query"]);
    assert_eq!(
        below("routes.*.retry"),
        ["attempts", "on", "status", "per_try_timeout", "body", "non_idempotent", "idempotency_key"]
    );
    assert_eq!(below("nonsense"), [""; 0]);
}
