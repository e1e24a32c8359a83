//! What a person sees: lines, with colours on a terminal only and never with `NO_COLOR` (no-color.org).
//!
//! A reader who has gone (`stack | head`) is no reason to stop serving: what cannot be printed is dropped.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Colours text, or leaves it.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// For text that goes to standard output.
    pub fn stdout() -> Self {
        Self { on: wanted() && std::io::stdout().is_terminal() }
    }

    /// For text that goes to standard error.
    pub fn stderr() -> Self {
        Self { on: wanted() && std::io::stderr().is_terminal() }
    }

    /// No colours.
    pub fn plain() -> Self {
        Self { on: false }
    }

    /// Something that went well.
    pub fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// Something that did not.
    pub fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    /// A heading.
    pub fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What may be skipped.
    pub fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints a line.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line about something that went wrong.
pub fn warn(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A path as a person would type it here: relative when it is below the working directory.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    below.unwrap_or_else(|| path.to_owned()).display().to_string()
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
