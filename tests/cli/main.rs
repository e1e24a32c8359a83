//! Stories told with the real program: signals, exit codes, the command line, systemd, a want of descriptors, memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

mod binary;
mod commands;
#[path = "../it/kit/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the stories in tests/it use the rest")]
mod kit;
mod logs;
mod memory;
mod panics;
mod shortage;
mod stopping;
mod systemd;
