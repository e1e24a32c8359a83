//! The documents that ship are true: configs load, and the reference is the one that headgate prints.

use std::fs;

use headgate::base::reason::Reason;
use headgate::config::load::parse_text;
use headgate::config::reference;
use headgate::proxy::early_status;

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

/// All of them are one config: the first, and what it says to put behind it.
#[test]
fn the_configs_of_the_readme_load_without_warnings() {
    let readme = fs::read_to_string("README.md").unwrap();
    let blocks: Vec<&str> = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2, "the README shows configs");
    for text in [blocks[0].to_owned(), blocks.concat()] {
        match parse_text("README.md", &text, &|_| None) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{warnings:#?}"),
            Err(faults) => panic!("{}", faults.iter().map(ToString::to_string).collect::<String>()),
        }
    }
}

#[test]
fn the_readme_tells_every_reason_once_and_beside_its_status() {
    let readme = fs::read_to_string("README.md").unwrap();
    let section = readme.split("## When headgate answers itself").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut told: Vec<&str> = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let [_, status, reasons, _] = row.split('|').map(str::trim).collect::<Vec<_>>()[..] else { panic!("{row}") };
        for word in reasons.split('`').skip(1).step_by(2) {
            let Some(reason) = Reason::ALL.iter().find(|reason| reason.as_str() == word) else { continue };
            let right = status.starts_with("none") || status == early_status(*reason).to_string();
            assert!(right, "`{word}` is answered with {}, not {status}", early_status(*reason));
            told.push(word);
        }
    }
    told.sort_unstable();
    let mut all: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    all.sort_unstable();
    assert_eq!(told, all);
}
