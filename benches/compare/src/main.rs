//! headgate side by side with nginx, HAProxy and a plain relay, each on one core with one worker.
//!
//! In reading order:
//!
//! - [`options`]: the command line; [`rows`]: what is measured, with its goals and gates.
//! - [`run`]: the whole comparison; [`lab`]: what it needs on this machine; [`measure`]: one turn of one proxy;
//!   [`memory`] and [`ceiling`]: the turns that go otherwise; [`probe`]: whether a proxy answers rightly at all.
//! - [`proxies`] with `peers/*`: the proxies and their config files ([`template`]); [`process`] and [`child_guard`]:
//!   children, pinned and ended; [`ports`].
//! - [`accounting`]: time on a core and memory from `/proc`; [`statistics`], [`histogram`], [`judgement`]: what figures come to.
//! - [`origin`], [`relay`], [`stand_in`], [`load`] over [`http1`] and [`websocket`]: the other ends.
//! - [`train`]: work for an instrumented headgate, of which its build learns.
//! - [`report`]: the terminal, JSON, Markdown and SVG; [`machine`]: what it was measured on.
//!
//! It listens on loopback only, ends every process it started, and writes nothing outside a directory of its own but
//! the report. The runtime has one thread, and that is a contract: the kernel ties a child's life to the *thread*
//! that made it (prctl(2), `PR_SET_PDEATHSIG`).

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::options::{Options, Part};

mod accounting;
mod ceiling;
mod child_guard;
mod histogram;
mod http1;
mod judgement;
mod lab;
mod load;
mod machine;
mod measure;
mod memory;
mod options;
mod origin;
mod ports;
mod probe;
mod process;
mod proxies;
mod relay;
mod report;
mod rows;
mod run;
mod stand_in;
mod statistics;
mod template;
mod train;
mod websocket;

fn main() -> ExitCode {
    match start(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        match &options.part {
            None => return run::run(&options.comparison).await,
            Some(Part::Origin { listen }) => origin::serve(*listen).await?,
            Some(Part::Relay { listen, target }) => relay::serve(*listen, *target).await?,
            Some(Part::StandIn { listen, directory }) => stand_in::serve(*listen, directory).await?,
            Some(Part::Train { headgate }) => train::train(headgate).await?,
            Some(Part::Load { plan }) => load::child::run(plan).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}
