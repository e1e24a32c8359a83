//! Faults and warnings with their place in a file.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The config is refused.
    Error,
    /// The config is taken, with a risk.
    Warning,
}

/// One fault or warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word for the kind of fault: `unknown-key`, `value`, …
    pub code: &'static str,
    /// The file.
    pub file: String,
    /// From 1; 0 where the fault is about the file as a whole.
    pub line: usize,
    /// In characters, from 1; 0 where the fault is about the file as a whole.
    pub column: usize,
    /// The key, as `pools.app.balance`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The line, and below it a line that underlines the offending text.
    pub excerpt: String,
}

impl Diagnostic {
    /// A fault about a file as a whole.
    pub fn of_file(code: &'static str, file: &str, message: String) -> Self {
        Self {
            severity: Severity::Error,
            code,
            file: file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            message,
            help: None,
            excerpt: String::new(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}: {}", self.message)?;
        if self.line == 0 {
            writeln!(f, " --> {}", self.file)?;
        } else {
            writeln!(f, " --> {}:{}:{}", self.file, self.line, self.column)?;
            let number = self.line.to_string();
            let mut lines = self.excerpt.lines();
            writeln!(f, "{number} | {}", lines.next().unwrap_or_default())?;
            writeln!(f, "{:width$} | {}", "", lines.next().unwrap_or_default(), width = number.len())?;
        }
        match &self.help {
            Some(help) => writeln!(f, "help: {help}"),
            None => Ok(()),
        }
    }
}

/// Line, column and excerpt of the bytes `start..end` of `text`.
pub(super) fn locate(text: &str, start: usize, end: usize) -> (usize, usize, String) {
    let mut start = start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count();
    let whole = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let line_end = line_start + whole.len();
    let marked = end.min(line_end).max(start);
    let carets = text.get(start..marked).map_or(1, |marked| marked.chars().count()).max(1);
    (line, column + 1, excerpt(whole, column, carets))
}

/// How many characters of a line are shown, and how many of them before the offending text.
const SHOWN: usize = 120;
const SHOWN_BEFORE: usize = 40;

/// A line and below it the carets; of a long line the part around them.
fn excerpt(whole: &str, column: usize, carets: usize) -> String {
    let count = whole.chars().count();
    let from = if count <= SHOWN { 0 } else { column.saturating_sub(SHOWN_BEFORE).min(count - SHOWN) };
    let (before, after) = (if from > 0 { "… " } else { "" }, if count > from + SHOWN { " …" } else { "" });
    // Control characters would run through the reader's terminal.
    let shown: String = whole.chars().skip(from).take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let indent = before.chars().count() + column - from;
    let carets = carets.min((from + SHOWN).saturating_sub(column).max(1));
    format!("{before}{shown}{after}\n{}{}", " ".repeat(indent), "^".repeat(carets))
}

/// What the parser says, with a way out where people often need one.
pub(super) fn syntax(message: &str, marked: &str) -> (String, Option<String>) {
    // As in the excerpt: control characters would run through the reader's terminal.
    let marked: String = marked.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let help = if message.starts_with("string values must be quoted") {
        format!("text stands in quotes: `\"{}\"`", marked.trim())
    } else if message.starts_with("invalid basic string, expected `\"`") {
        "the closing quote is missing; text ends on its line".to_owned()
    } else if message == "duplicate key" {
        let message = format!("`{marked}` stands here a second time");
        return (message, Some("join the two, or give one of them another name".to_owned()));
    } else if message.starts_with("invalid key-value pair") {
        "a config is TOML: `key = value`, tables as `[pools.app]`".to_owned()
    } else {
        return (message.to_owned(), None);
    };
    (message.split(", expected").next().unwrap_or(message).to_owned(), Some(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_with_its_line_and_carets() {
        let (line, column, excerpt) = locate("a = 1\nbä = 22\n", 12, 14);
        assert_eq!((line, column, excerpt.as_str()), (2, 6, "bä = 22\n     ^^"));
        assert_eq!(locate("", 7, 9), (1, 1, "\n^".to_owned()));
    }

    /// A generated list on one line is no reason to fill the reader's terminal.
    #[test]
    fn of_a_long_line_the_part_around_the_fault_is_shown() {
        let text = format!("a = [{}]", "\"ä\", ".repeat(2000));
        for (start, end) in [(0, 1), (5000, 5004), (5000, text.len()), (text.len() - 1, text.len())] {
            let start = (0..=start).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let (line, column, excerpt) = locate(&text, start, end);
            let (shown, carets) = excerpt.split_once('\n').unwrap();
            assert_eq!((line, column), (1, text[..start].chars().count() + 1));
            assert!(shown.chars().count() <= 124 && carets.chars().count() <= 124, "{excerpt}");
            let marked = carets.chars().count() - carets.trim_start().len();
            assert_eq!(shown.chars().nth(marked), text[start..].chars().next(), "{excerpt}");
            assert_eq!(
                (shown.starts_with("… "), shown.ends_with(" …")),
                (start > 40, start < text.len() - 60),
                "{excerpt}"
            );
        }
    }

    /// The fuzz target `config` found it: help quoted what stood there, escape sequences and all.
    #[test]
    fn help_never_repeats_control_characters() {
        let (_, help) = syntax("string values must be quoted", "p\u{1b}[2J\0");
        assert_eq!(help.as_deref(), Some("text stands in quotes: `\"p [2J\"`"));
    }
}
