//! The configs that ship must load.

use headgate::config::load::parse_text;

#[test]
fn shipped_configs_load_without_warnings() {
    for name in ["config/headgate.toml", "config/reference.toml"] {
        let text = std::fs::read_to_string(name).unwrap();
        match parse_text(name, &text, &|_| None) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{name}: {warnings:#?}"),
            Err(faults) => panic!("{name}: {faults:#?}"),
        }
    }
}
