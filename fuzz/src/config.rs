//! Any bytes are refused or loaded; every diagnostic has its place inside the text; both doors agree.

use headgate::config::diagnostic::Diagnostic;
use headgate::config::diff::diff;
use headgate::config::load::{load, parse_text};
use headgate::route::table::RouteTable;

pub fn target(data: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headgate.toml");
    std::fs::write(&path, data).unwrap();
    let loaded = load(&path);
    let Ok(text) = std::str::from_utf8(data) else {
        assert!(loaded.is_err(), "bytes that are no text were loaded");
        return;
    };
    let parsed = parse_text(&path.display().to_string(), text, &|name| std::env::var(name).ok());
    match (&loaded, &parsed) {
        (Ok(loaded), Ok((_, warnings))) => {
            assert_eq!(&loaded.warnings, warnings);
            assert_eq!(diff(&loaded.config, &loaded.config), []);
            drop(RouteTable::build(&loaded.config.routes));
        }
        // Only the loader reads what the text names.
        (Err(faults), Ok(_)) => {
            let files = ["file", "value", "duplicate", "syntax", "environment"];
            assert!(faults.diagnostics.iter().any(|fault| files.contains(&fault.code)), "{faults}");
        }
        (Ok(_), Err(faults)) => assert!(text.contains("include"), "loaded in spite of {faults:#?}"),
        (Err(_), Err(faults)) => assert!(!faults.is_empty(), "refused without a word"),
    }
    for diagnostic in parsed.map_or_else(|faults| faults, |(_, warnings)| warnings) {
        placed(text, &diagnostic);
    }
}

fn placed(text: &str, diagnostic: &Diagnostic) {
    let Diagnostic { line, column, .. } = *diagnostic;
    let lines: Vec<&str> = text.split('\n').collect();
    assert!((1..=lines.len()).contains(&line), "no line {line}: {diagnostic:?}");
    let width = lines[line - 1].chars().count();
    assert!((1..=width + 1).contains(&column), "no column {column} in line {line}: {diagnostic:?}");
    let shown = diagnostic.to_string();
    assert!(!shown.contains('\u{1b}') && !shown.contains('\0'), "{shown:?} reaches the terminal");
}
