//! The working config: the committed one with this stack's addresses filled in.

use std::ffi::OsString;

use stack::front::fill_in;

fn filled(template: &str) -> anyhow::Result<String> {
    let variables = [("NOTES_READ_1", OsString::from("127.0.0.1:7001")), ("HEADGATE_KEY", OsString::from("a\"b"))];
    fill_in(template, &variables)
}

#[test]
fn our_variables_are_filled_in_with_and_without_a_default() {
    let template = "a = \"${NOTES_READ_1:-127.0.0.1:1}\"\nb = \"${NOTES_READ_1}\"\n";
    assert_eq!(filled(template).unwrap(), "a = \"127.0.0.1:7001\"\nb = \"127.0.0.1:7001\"\n");
}

#[test]
fn what_is_not_ours_is_left_as_it_is() {
    for template in ["a = \"${SOMEBODY_ELSES:-x}\"", "a = \"$NOTES_READ_1\"", "never closed ${NOTES_READ_1", ""] {
        assert_eq!(filled(template).unwrap(), template);
    }
}

#[test]
fn a_value_that_would_break_the_file_is_refused() {
    assert!(filled("key = \"${HEADGATE_KEY}\"").unwrap_err().to_string().contains("HEADGATE_KEY"));
}
