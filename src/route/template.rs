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

/// Expands a path. Captures have no leading slash, so one is put before a template that begins with a capture.
pub fn path(template: &Template, captures: &Captures) -> String {
    let text = expand(template, captures);
    match template.0.first() {
        Some(TemplatePart::Capture(_)) => format!("/{text}"),
        _ => text,
    }
}

/// Expands a redirect's location. Where it leads is the template's to say and never the client's: one that begins
/// with a capture is a path (not `https:/elsewhere`), and a path never becomes `//elsewhere` (RFC 3986 §4.2). The
/// request's query goes along where the template has none of its own.
pub fn location(template: &Template, captures: &Captures, query: Option<&str>) -> String {
    let mut text = path(template, captures);
    // Browsers read a backslash here as a slash.
    if text.starts_with("//") || text.starts_with("/\\") {
        text = format!("/{}", text.trim_start_matches(['/', '\\']));
    }
    if let Some(query) = query.filter(|_| !text.contains('?')) {
        let end = text.find('#').unwrap_or(text.len());
        text.insert_str(end, &format!("?{query}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_leads_where_the_template_says() {
        let literal = |text: &str| TemplatePart::Literal(text.into());
        let rest = || TemplatePart::Capture("rest".into());
        let table = [
            (vec![literal("/new/"), rest()], "a/b", "/new/a/b"),
            (vec![literal("/new/"), rest()], "", "/new/"),
            (vec![literal("https://x.test/"), rest()], "a", "https://x.test/a"),
            (vec![literal("/"), rest(), literal("/evil.test")], "", "/evil.test"),
            (vec![literal("//"), rest()], "evil.test", "/evil.test"),
            (vec![literal("/\\"), rest()], "evil.test", "/evil.test"),
            (vec![rest()], "https:/evil.test", "/https:/evil.test"),
            (vec![rest()], "javascript:alert(1)", "/javascript:alert(1)"),
            (vec![rest(), literal("/evil.test")], "", "/evil.test"),
            (vec![literal("/q?x="), rest()], "a%0Db", "/q?x=a%0Db"),
        ];
        for (parts, value, expected) in table {
            let captures = vec![("rest".to_owned(), value.to_owned())];
            assert_eq!(location(&Template(parts), &captures, None), expected);
        }
    }

    #[test]
    fn a_location_keeps_the_query_unless_it_has_one() {
        let table = [
            ("/new", Some("a=1"), "/new?a=1"),
            ("/new#top", Some("a=1"), "/new?a=1#top"),
            ("/new?b=2", Some("a=1"), "/new?b=2"),
            ("/new?", Some("a=1"), "/new?"),
            ("/new", Some(""), "/new?"),
            ("/new", None, "/new"),
        ];
        for (template, query, expected) in table {
            let template = Template(vec![TemplatePart::Literal(template.into())]);
            assert_eq!(location(&template, &Captures::default(), query), expected);
        }
    }
}
