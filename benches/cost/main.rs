//! What one request costs, from end to end and in figures that do not depend on the machine's mood: instructions and
//! allocations on the worker's thread. `make cost` runs it and compares with `expected.toml`; `UPDATE=1` writes that.

mod allocations;
mod callgrind;
mod figures;
mod instructions;
mod load;
mod scenario;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::figures::{Figures, Table, Verdict, compare, updated, written};
use crate::scenario::SCENARIOS;

fn main() -> ExitCode {
    // `cargo test --benches` runs it as well, and builds another program than the figures are of.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing is counted in a test build: `make cost`");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let lacking = instructions::lacking();
    let mut measured = Table::new();
    for scenario in &SCENARIOS {
        let instructions = match lacking {
            None => Some(instructions::per_request(scenario).context(scenario.name)?),
            Some(_) => None,
        };
        let allocations = allocations::per_request(scenario).context(scenario.name)?;
        measured.insert(scenario.name.to_owned(), Figures { instructions, allocations });
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cost/expected.toml");
    let expected: Table = toml::from_str(&fs::read_to_string(&path)?).context("expected.toml")?;
    let report = compare(&expected, &measured);
    print!("{}", report.text);
    if let Some(why) = lacking {
        println!("NOT COUNTED: instructions ({why})");
    }
    if std::env::var_os("UPDATE").is_some_and(|value| !value.is_empty() && value != "0") {
        fs::write(&path, written(&updated(&expected, &measured))?)?;
        println!("benches/cost/expected.toml is written anew");
        return Ok(ExitCode::SUCCESS);
    }
    let any = |verdict| report.verdicts.contains(&verdict);
    if any(Verdict::Better) {
        println!("A request has become cheaper: `make cost UPDATE=1` keeps it so.");
    }
    if any(Verdict::Warn) {
        println!("A request costs over 3 % more than expected; from 10 % on this fails.");
    }
    if any(Verdict::Fail) {
        println!(
            "FAILED: a request costs over 10 % more than expected, or nothing is; if it must, `make cost UPDATE=1`."
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
