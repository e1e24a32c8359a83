//! Text with captures put in: redirect locations and rewritten paths.

use crate::config::model::{Template, TemplatePart};
use crate::route::pattern::Captures;

/// Puts the captures in. A capture keeps its canonical, percent-encoded form, so it can bring in no line break.
pub fn expand(template: &Template, captures: &Captures) -> String {
    let mut text = String::new();
    for part in &template.0 {
        match part {
            TemplatePart::Literal(literal) => text.push_str(literal),
            TemplatePart::Capture(name) => {
                text.push_str(captures.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value));
            }
        }
    }
    text
}

/// Expands a redirect's location: one that begins as a path stays one, and never becomes `//elsewhere`.
pub fn location(template: &Template, captures: &Captures) -> String {
    let text = expand(template, captures);
    match text.starts_with("//") {
        true => format!("/{}", text.trim_start_matches('/')),
        false => text,
    }
}
