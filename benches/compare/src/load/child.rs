//! Our own generators run as children of the comparison, so that they are pinned and their time is told apart.
//!
//! The child makes ready, writes `ready`, and waits for a line; measures; writes its outcome as one line of JSON; and
//! holds what it has open until its input ends. So the parent reads a proxy's account exactly around the load.

use std::io::{BufRead, Write, stdin, stdout};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Outcome, handshake, idle, open, tunnels};

/// What the child writes when it waits for the start.
pub const READY: &str = "ready";

/// What a child is to do; its argument, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Plan {
    /// See [`handshake`].
    Handshake(handshake::Plan),
    /// See [`tunnels`].
    Tunnels(tunnels::Plan),
    /// See [`idle`].
    Idle(idle::Plan),
    /// See [`open`].
    Open(open::Plan),
}

/// Does what the plan says, as the child.
pub async fn run(plan: &str) -> Result<()> {
    let plan: Plan = serde_json::from_str(plan).context("a plan that is none")?;
    let outcome: Outcome = match plan {
        Plan::Handshake(plan) => handshake::run(&plan).await?,
        Plan::Tunnels(plan) => tunnels::run(&plan).await?,
        Plan::Idle(plan) => idle::run(&plan).await?,
        Plan::Open(plan) => open::run(&plan)?,
    };
    say(&serde_json::to_string(&outcome)?)?;
    let mut end = String::new();
    stdin().lock().read_line(&mut end).context("the parent is gone")?;
    Ok(())
}

/// Says that all is ready, and waits for the parent's word. Blocks the thread: nothing else is to run now.
pub fn wait_for_go() -> Result<()> {
    say(READY)?;
    let mut line = String::new();
    stdin().lock().read_line(&mut line).context("the parent is gone")?;
    ensure!(line.trim() == "go", "the parent gave up");
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
