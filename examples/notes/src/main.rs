//! notes: the reference app behind headgate, a small note service with a read and a write role.
//!
//! The map, in reading order:
//!
//! - `options`: the flags, parsed into values that cannot be wrong (role, name, store address);
//! - `server`: bind, serve, stop; the only place that knows signals and the drain;
//! - `api`: the routes and their handlers; `input` beside it reads and checks what clients send;
//! - `page`: the page for a person, its static files and their `ETag`s;
//! - `problem`: the one table from "no" to status and `application/problem+json` (RFC 9457);
//! - `store`: users and notes in SQLite or MySQL, behind one set of questions.
//!
//! What is deliberately absent: a read server has no write routes (so a misrouted request is
//! visible as a 405), no handler panics on input, and no answer leaves without `X-Served-By`.

mod api;
mod input;
mod options;
mod page;
mod problem;
mod server;
mod store;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let options = options::Options::parse();
    match server::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("notes: {error:#}");
            ExitCode::FAILURE
        }
    }
}
