//! The documents that ship are true: configs load, and the reference is the one that headgate prints.

use std::fs;

use headgate::config::load::parse_text;
use headgate::config::reference;

#[test]
fn shipped_configs_load_without_warnings() {
    for name in ["config/headgate.toml", "config/reference.toml"] {
        let text = fs::read_to_string(name).unwrap();
        match parse_text(name, &text, &|_| None) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{name}: {warnings:#?}"),
            Err(faults) => panic!("{name}: {faults:#?}"),
        }
    }
}

/// `UPDATE=1 cargo test --test docs` writes the file anew.
#[test]
fn the_reference_is_what_headgate_prints() {
    let (name, printed) = ("config/reference.toml", reference::text());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(name, &printed).unwrap();
    }
    let file = fs::read_to_string(name).unwrap();
    let differs = file.lines().zip(printed.lines()).find(|(file, printed)| file != printed);
    assert!(file == printed, "{name} is out of date; run `UPDATE=1 cargo test --test docs`. First: {differs:?}");
}

#[test]
fn the_reference_says_what_needs_a_restart() {
    let printed = reference::text();
    for (path, fact) in reference::facts().into_iter().filter(|(_, fact)| fact.needs_restart) {
        let key = path.rsplit('.').next().unwrap();
        let said =
            printed.lines().any(|line| line.contains(&format!("{key} = ")) && line.ends_with("; needs a restart"));
        assert!(said && !fact.is_default, "{path}");
    }
}
