//! Operational logs: on stderr, for people and collectors.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Names the levels: `debug`, or `headgate::upstream=debug,info`.
const VARIABLE: &str = "HEADGATE_LOG";

/// Starts operational logs; a second call does nothing.
///
/// Lines are written where they arise. The data plane logs nothing per request, so a stderr that blocks can hold
/// up only what is rare.
pub fn init() {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let (filter, fault) = match builder.parse(&text) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let started =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour).try_init();
    if let (Ok(()), Some(error)) = (started, fault) {
        tracing::warn!(%error, "{VARIABLE} is not understood; logging at info");
    }
}
