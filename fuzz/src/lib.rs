//! Fuzz targets: plain functions of bytes, which panic where an invariant does not hold.
//!
//! `tests/fuzz.rs` of the main crate replays `corpus/TARGET/*` and mutations of it on stable; `fuzz_targets/` hands
//! the same functions to libFuzzer. A finding becomes a file of the corpus, named after what it found.

pub mod cache_control;
pub mod cache_key;
pub mod config;
pub mod cookie;
pub mod forwarded;
pub mod h1_path;
pub mod h1_split;
pub mod health_v1;
pub mod host;
pub mod keep_alive;
pub mod mutate;
pub mod path_norm;
pub mod pattern;
pub mod response;
pub mod source;
mod stage;
pub mod template;

/// The lines of an input.
fn lines(data: &[u8]) -> impl Iterator<Item = &str> {
    data.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

/// A text as a TOML string.
fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    };
    // `${` would ask for an environment variable.
    format!("\"{}\"", text.chars().map(escape).collect::<String>().replace("${", "$${"))
}
