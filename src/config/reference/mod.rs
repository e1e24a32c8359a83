//! Every key of a config, written down once: its place, its default or an example, one line, and whether a reload can
//! change it. The checker takes its list of known keys from here, `headgate reference` prints it, and
//! `config/reference.toml` is that print.
//!
//! A derive on schema types (schemars) was rejected: the checker reads a tree with places in the text, not types, so
//! the derived list would be a second one beside it. The defaults themselves stay where they are read; that each is
//! the one shown here is held by a test, which puts every shown default in and gets the same model.

mod keys;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use keys::SECTIONS;

/// A table of the reference. In places `<name>` stands for any name, shown as this one.
struct Section {
    /// `listeners.<https>`; empty for what stands before the first table.
    place: &'static str,
    /// Printed behind the header.
    line: &'static str,
    /// For `[defaults.X]`: the section whose keys it takes, and the first part of those keys.
    takes: Option<(&'static str, &'static [&'static str])>,
    keys: &'static [Key],
}

/// A key below a section.
struct Key {
    /// With dots; behind `[]` stand the keys of a list's tables.
    path: &'static str,
    shown: Shown,
    /// What it does, where it needs saying: what holds without it.
    line: &'static str,
    reload: Reload,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reload {
    Changes,
    NeedsRestart,
}

#[derive(Clone, Copy)]
enum Shown {
    /// Written out: it must be there, or it makes the table what it is.
    Given(&'static str),
    /// Written out, and documented in another section.
    Again(&'static str),
    /// Commented out with the value that holds without it.
    Default(&'static str),
    /// Commented out with a value that is only an example.
    Example(&'static str),
    /// A list; the entries are the keys behind `[]` that follow.
    List,
    /// An entry of the list before it.
    Entry(&'static str),
}

/// What the reference says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Whether it is commented out with its default.
    pub is_default: bool,
    /// Whether a reload cannot change it.
    pub needs_restart: bool,
}

/// Where the comments begin.
const COLUMN: usize = 42;

const HEADER: &str = "\
# Every key; `headgate reference` prints this. What is commented out is optional and shows its default, or an example
# where it has none. Durations: \"500ms\" \"2s\" \"1m\" \"1h\". Sizes: \"512B\" \"64KiB\" \"16MiB\" \"1GiB\". \"${NAME}\" and
# \"${NAME:-default}\" take an environment variable; \"$${\" stands for \"${\". Relative paths are relative to this file's
# directory. A reload changes everything but what says that it needs a restart.
";

/// The reference as a config that loads.
pub fn text() -> String {
    let mut out = HEADER.to_owned();
    for section in SECTIONS {
        out.push('\n');
        if !section.place.is_empty() {
            line(&mut out, &format!("[{}]", written(section.place)), section.line);
        }
        let mut keys = section.keys.iter().peekable();
        while let Some(key) = keys.next() {
            let restart = if key.reload == Reload::NeedsRestart { "; needs a restart" } else { "" };
            let (name, about) = (written(key.path), format!("{}{restart}", key.line));
            match key.shown {
                Shown::Given(value) | Shown::Again(value) => line(&mut out, &format!("{name} = {value}"), &about),
                Shown::Default(value) | Shown::Example(value) => {
                    line(&mut out, &format!("# {name} = {value}"), &about);
                }
                Shown::List => line(&mut out, &format!("{name} = ["), &about),
                Shown::Entry(entry) => {
                    line(&mut out, &format!("  {entry},"), &about);
                    if !keys.peek().is_some_and(|next| matches!(next.shown, Shown::Entry(_))) {
                        out.push_str("]\n");
                    }
                }
            }
        }
    }
    out
}

fn line(out: &mut String, code: &str, about: &str) {
    let wide = COLUMN - 1;
    // Writing to a string does not fail.
    let _ = match about {
        "" => writeln!(out, "{code}"),
        about => writeln!(out, "{code:<wide$} # {about}"),
    };
}

fn written(path: &str) -> String {
    path.replace(['<', '>'], "")
}

/// The names that stand directly below a place such as `listeners.*.timeouts`, in the order of the reference.
pub(super) fn below(place: &str) -> &'static [&'static str] {
    static BELOW: LazyLock<HashMap<String, Vec<&'static str>>> = LazyLock::new(|| {
        let mut below: HashMap<String, Vec<&'static str>> = HashMap::new();
        for (parts, _) in all() {
            let mut place = String::new();
            for part in parts {
                let (names, name) = (below.entry(place.clone()).or_default(), part.trim_end_matches("[]"));
                if !names.contains(&name) {
                    names.push(name);
                }
                place = if place.is_empty() { part.to_owned() } else { format!("{place}.{}", star(part)) };
            }
        }
        below
    });
    BELOW.get(place).map_or(&[], Vec::as_slice)
}

/// How a key may be written, as `endpoints = [{ address = "127.0.0.1:7001" }]`.
pub(super) fn example(place: &str) -> Option<String> {
    let place = place.trim_end_matches("[]");
    let name = place.rsplit('.').next().unwrap_or(place);
    let mut listed = None;
    for (parts, key) in all() {
        let (Some(key), Some((last, above))) = (key, parts.split_last()) else { continue };
        let stars = |parts: &[&str]| parts.iter().map(|part| star(part)).collect::<Vec<_>>().join(".");
        let (here, above) = (stars(&parts), stars(above));
        match key.shown {
            Shown::Given(value) | Shown::Default(value) | Shown::Example(value) if here == place => {
                return Some(format!("`{name} = {value}`"));
            }
            Shown::Given(value) if above == place => return Some(format!("`{name} = {{ {last} = {value} }}`")),
            Shown::Entry(entry) if above.strip_suffix("[]") == Some(place) => {
                listed.get_or_insert_with(|| format!("`{name} = [{entry}]`"));
            }
            _ => {}
        }
    }
    listed
}

/// Every key with a name put where one is free, as `listeners.https.address` and `pools.app.endpoints[].weight`.
pub fn facts() -> Vec<(String, Fact)> {
    let key = |(parts, key): (Vec<&str>, Option<&Key>)| {
        let is_default = matches!(key?.shown, Shown::Default(_));
        let fact = Fact { is_default, needs_restart: key?.reload == Reload::NeedsRestart };
        (!matches!(key?.shown, Shown::Again(_))).then(|| (written(&parts.join(".")), fact))
    };
    all().filter_map(key).collect()
}

/// The parts of every key's path, and the key; none for a section alone.
fn all() -> impl Iterator<Item = (Vec<&'static str>, Option<&'static Key>)> {
    SECTIONS.iter().flat_map(|section| {
        let (taken, first) = section.takes.unwrap_or_default();
        let from =
            SECTIONS.iter().filter(move |other| other.place.split('.').next() == Some(taken) && !taken.is_empty());
        let inherited = from
            .flat_map(|other| other.keys)
            .filter(move |key| first.contains(&key.path.split(['.', '[']).next().unwrap_or_default()));
        let own = section.keys.iter().chain(inherited).map(Some);
        std::iter::once(None).chain(own).map(|key| {
            let path = key.map_or("", |key| key.path);
            let parts = section.place.split('.').chain(path.split('.')).filter(|part| !part.is_empty());
            (parts.collect(), key)
        })
    })
}

fn star(part: &str) -> &str {
    if part.starts_with('<') { "*" } else { part }
}

#[cfg(test)]
mod tests;
