//! Faults, each with pass criteria that are figures: a real headgate, scripted servers, a load at a fixed rate.
//!
//! In reading order:
//!
//! - [`table`]: every fault with its criteria and lengths; [`faults`]: what each does, a file for each family.
//! - [`lab`]: what they are made of, a headgate with its doors and its account, namespaces; [`origin`]: servers that
//!   can be killed, frozen and scripted; [`load`]: the client, which counts every failure by kind.
//! - [`verdict`]: criteria, hard and soft; [`report`]: the table on the terminal, and JSON.
//!
//! Each fault runs on a thread of its own: a network namespace is a thread's (unshare(2)), and goes with it. Traffic
//! stays on loopback, or within such a namespace.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::lab::Lab;
use crate::options::Options;
use crate::report::Run;
use crate::table::{FAULTS, Fault, Needs};
use crate::verdict::{Findings, Verdict};

mod faults;
mod lab;
mod load;
mod options;
mod origin;
mod report;
mod table;
mod verdict;

fn main() -> ExitCode {
    match start(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what is asked for. False where a criterion failed.
fn start(options: &Options) -> Result<bool> {
    if options.list {
        println!("{}", report::list());
        return Ok(true);
    }
    for id in &options.only {
        ensure!(FAULTS.iter().any(|fault| fault.id.eq_ignore_ascii_case(id)), "there is no fault {id}: see --list");
    }
    let program = options.headgate.canonicalize();
    let program = program.with_context(|| format!("no program at {}", options.headgate.display()))?;
    let scratch = tempfile::tempdir().context("no place for files")?;
    let folder = options.keep.as_deref().unwrap_or(scratch.path());
    let wanted =
        |fault: &&Fault| options.only.is_empty() || options.only.iter().any(|id| fault.id.eq_ignore_ascii_case(id));
    let began = Instant::now();
    let mut runs = Vec::new();
    for fault in FAULTS.iter().filter(wanted) {
        let lab = Lab {
            program: program.clone(),
            folder: std::path::absolute(folder)?.join(fault.id),
            quick: options.quick,
            length: Duration::from_secs_f64(if options.quick { fault.quick } else { fault.full }),
            findings: Findings::default(),
        };
        let run = run(fault, lab);
        println!("{}", report::lines(&run));
        runs.push(run);
    }
    println!("{}", report::summary(&runs, began.elapsed()));
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&runs, options.quick)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(runs.iter().all(|run| run.verdict != Verdict::Fail))
}

/// Runs one fault. An error of the test itself is a failure: what was not measured has not held.
fn run(fault: &'static Fault, mut lab: Lab) -> Run {
    let began = Instant::now();
    let thread = std::thread::Builder::new().name(fault.id.to_owned()).spawn(move || {
        let prepared = match fault.needs {
            Needs::Nothing => Ok(()),
            Needs::Network => lab::namespace::enter(),
            Needs::Mounts => lab::namespace::enter_mounts(),
        };
        if let Err(error) = prepared {
            lab.findings.skip("all of it", format!("{error:#}"));
        } else if let Err(error) = (fault.run)(&mut lab) {
            lab.findings.hard("the test runs to its end", "yes", format!("{error:#}"), false);
        }
        lab.findings
    });
    let findings = thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(|| {
        let mut findings = Findings::default();
        findings.hard("the test runs to its end", "yes", "it has panicked", false);
        findings
    });
    let verdict = findings.verdict();
    Run { id: fault.id, what: fault.what, seconds: began.elapsed().as_secs_f64(), verdict, findings }
}
