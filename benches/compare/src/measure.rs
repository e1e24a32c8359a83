//! One turn: the load runs, and the accounts of proxy, origin and load are read around it.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::accounting::CpuReading;
use crate::lab::{LOAD_CORE, Lab};
use crate::load::child::{Plan, READY};
use crate::load::{Outcome, handshake, open, tunnels};
use crate::process::spawn;
use crate::rows::{Generator, HANDSHAKE_SLOTS, OPEN_CONNECTIONS, Row, TUNNELS};

/// Work that a proxy put off, such as writing its log, is to be counted too.
const SETTLE: Duration = Duration::from_millis(100);
/// For getting ready, and for what a load takes beyond its time.
const LIMIT: Duration = Duration::from_secs(60);

/// What one turn gave.
#[derive(Debug, Clone)]
pub struct Turn {
    /// What the generator saw.
    pub outcome: Outcome,
    /// Time on a core.
    pub proxy: Duration,
    /// Likewise.
    pub origin: Duration,
    /// Likewise.
    pub load: Duration,
}

/// One of our own generators, ready to start.
#[derive(Debug)]
pub struct Generating {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    pid: i32,
}

/// Reads accounts.
struct Meter<'a> {
    lab: &'a Lab,
    proxy: Option<i32>,
}

// === impl Turn ===

impl Turn {
    /// Time of the proxy for each request, in microseconds.
    pub fn cpu_micros(&self) -> f64 {
        self.proxy.as_secs_f64() * 1e6 / (self.outcome.requests as f64).max(1.0)
    }

    /// How much of the time the proxy ran, of one core.
    pub fn proxy_busy(&self) -> f64 {
        self.proxy.as_secs_f64() / self.outcome.seconds
    }

    /// How much of the time load and origin ran, of their core.
    pub fn load_busy(&self) -> f64 {
        (self.load + self.origin).as_secs_f64() / self.outcome.seconds
    }
}

// === impl Meter ===

impl Meter<'_> {
    /// Accounts of proxy and origin.
    fn read(&self) -> Result<[CpuReading; 2]> {
        let proxy = self.proxy.map(CpuReading::take).transpose()?.unwrap_or_default();
        Ok([proxy, CpuReading::take(self.lab.origin.pid())?])
    }

    fn turn(&self, outcome: Outcome, load: Duration, before: &[CpuReading; 2]) -> Result<Turn> {
        let after = self.read()?;
        let used = |index: usize| after[index].since(&before[index], self.lab.ticks_per_second);
        Ok(Turn { outcome, proxy: used(0), origin: used(1), load })
    }
}

// === impl Generating ===

impl Generating {
    /// Starts it, and waits until it is ready.
    pub async fn start(lab: &Lab, plan: &Plan) -> Result<Self> {
        let log = File::create(lab.setting.directory.join("load.err")).context("cannot make a log")?;
        let mut command = Command::new(&lab.setting.own);
        command.arg("load").arg(serde_json::to_string(plan)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = spawn(&mut command, &[LOAD_CORE]).context("cannot start a load")?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).context("a child without a process id")?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).context("a child without pipes")?;
        let mut generating = Self { child, input, lines: BufReader::new(output).lines(), pid };
        match generating.line(lab, LIMIT).await?.as_str() {
            READY => Ok(generating),
            other => bail!("the load said {other:?} instead of {READY:?}"),
        }
    }

    /// Lets it run; its outcome. It still holds its connections.
    pub async fn go(&mut self, lab: &Lab, limit: Duration) -> Result<Outcome> {
        self.input.write_all(b"go\n").await.context("the load is gone")?;
        let line = self.line(lab, limit).await?;
        serde_json::from_str(&line).with_context(|| format!("not an outcome: {line}"))
    }

    /// Ends it.
    pub async fn end(mut self) -> Result<()> {
        drop(self.input);
        timeout(LIMIT, self.child.wait()).await.context("the load does not end")??;
        Ok(())
    }

    async fn line(&mut self, lab: &Lab, limit: Duration) -> Result<String> {
        let line = timeout(limit, self.lines.next_line()).await.context("the load says nothing")??;
        match line {
            Some(line) => Ok(line),
            None => {
                self.child.wait().await?;
                let said = fs::read_to_string(lab.setting.directory.join("load.err")).unwrap_or_default();
                bail!("the load failed: {}", said.trim())
            }
        }
    }
}

/// Runs a row's load against a port of loopback, for so many seconds; `proxy` is whose account is read.
pub async fn run(lab: &Lab, row: &Row, port: u16, proxy: Option<i32>, seconds: u32) -> Result<Turn> {
    let meter = Meter { lab, proxy };
    let directory = &lab.setting.directory;
    let address = ([127, 0, 0, 1], port).into();
    let duration = f64::from(seconds);
    let plan = match row.generator {
        Generator::Wrk(plan) => {
            let arguments = plan.arguments(port, seconds, directory)?;
            let parse = |output: &str| plan.outcome(output);
            return external(&meter, Command::new(&lab.wrk).args(arguments), seconds, parse).await;
        }
        Generator::H2load(plan) => {
            let arguments = plan.arguments(port, seconds, directory);
            let parse = |output: &str| plan.outcome(output, seconds, directory);
            return external(&meter, Command::new(&lab.h2load).args(arguments), seconds, parse).await;
        }
        Generator::Handshake { version, resumed } => {
            Plan::Handshake(handshake::Plan { address, version, resumed, slots: HANDSHAKE_SLOTS, seconds: duration })
        }
        Generator::Tunnels => Plan::Tunnels(tunnels::Plan { address, tunnels: TUNNELS, seconds: duration }),
        Generator::Open { rate } => {
            Plan::Open(open::Plan { address, rate, connections: OPEN_CONNECTIONS, seconds: duration })
        }
        Generator::Idle { .. } => bail!("idle connections are no load"),
    };
    own(&meter, &plan, seconds).await
}

/// A generator that starts at once and prints its figures at its end.
async fn external(
    meter: &Meter<'_>,
    command: &mut Command,
    seconds: u32,
    parse: impl Fn(&str) -> Result<Outcome>,
) -> Result<Turn> {
    let before = meter.read()?;
    let load_before = children_time()?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(command, &[LOAD_CORE]).context("cannot start a load")?;
    let limit = LIMIT + Duration::from_secs(seconds.into());
    let output = timeout(limit, child.wait_with_output()).await.context("the load does not end")??;
    let load = children_time()?.saturating_sub(load_before);
    tokio::time::sleep(SETTLE).await;
    let text = [output.stdout, output.stderr].concat();
    meter.turn(parse(&String::from_utf8_lossy(&text))?, load, &before)
}

/// A generator of our own.
async fn own(meter: &Meter<'_>, plan: &Plan, seconds: u32) -> Result<Turn> {
    let mut generating = Generating::start(meter.lab, plan).await?;
    let before = meter.read()?;
    let load_before = CpuReading::take(generating.pid)?;
    let outcome = generating.go(meter.lab, LIMIT + Duration::from_secs(seconds.into())).await?;
    let load = CpuReading::take(generating.pid)?.since(&load_before, meter.lab.ticks_per_second);
    tokio::time::sleep(SETTLE).await;
    let turn = meter.turn(outcome, load, &before)?;
    generating.end().await?;
    Ok(turn)
}

/// Time on a core of all children that have ended: in a turn only the load ends.
fn children_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}
