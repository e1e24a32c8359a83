//! Chooses an exit code; everything else is in the library (`lib.rs` is the map).

use std::process::ExitCode;

use clap::Parser;
use stack::options::Options;

fn main() -> ExitCode {
    match stack::run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stack: {error:#}");
            ExitCode::FAILURE
        }
    }
}
