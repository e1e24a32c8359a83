//! The place where faults happen: origins, a headgate, loads, and what was found.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

pub mod account;
pub mod ask;
pub mod headgate;
pub mod namespace;

use crate::load::seen::Seen;
use crate::origin::Origin;
use crate::verdict::{Findings, show};
use headgate::{Headgate, Launch};

const LOOK: Duration = Duration::from_millis(5);
/// A load's first requests say nothing of its usual latency.
const WARM_UP: Duration = Duration::from_millis(400);

/// What the criteria of HARDENING assume: checks each second, fall 3, rise 2, 250 ms to connect. Its 1 s per try is in
/// [`PER_TRY`], for the faults that need it: elsewhere a machine that stands still for a second would be a failure.
pub const POOL: &str = "health.http = { path = \"/healthz\", interval = \"1s\", rise = 2, fall = 3 }
\
    timeouts.connect = \"250ms\"
";
/// To the response's head, per attempt.
pub const PER_TRY: &str = "timeouts.response = \"1s\"
";

/// What a fault is given.
#[derive(Debug)]
pub struct Lab {
    /// The program under test.
    pub program: PathBuf,
    /// A folder of this run's own.
    pub folder: PathBuf,
    /// The shortened run.
    pub quick: bool,
    /// How long its main phase is to last.
    pub length: Duration,
    /// What it came to.
    pub findings: Findings,
}

/// From one moment to another.
pub type Window = (Instant, Instant);

/// A small load that goes straight to a server of its own: what the machine itself makes of latency.
#[derive(Debug)]
pub struct Control {
    running: crate::load::Running,
    _origin: Origin,
}

impl Control {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let origin = Origin::start("control")?;
        Ok(Self { running: crate::load::Load::new(origin.address).start()?, _origin: origin })
    }

    /// What it saw.
    pub fn finish(self) -> Result<Seen> {
        self.running.finish()
    }
}

// === impl Lab ===

impl Lab {
    /// Starts headgate with a config.
    pub fn headgate(&self, config: &str) -> Result<Headgate> {
        self.headgate_with(config, Launch::default())
    }

    /// Starts it otherwise than usual.
    pub fn headgate_with(&self, config: &str, launch: Launch) -> Result<Headgate> {
        Headgate::start(&self.program, self.folder.clone(), config, launch)
    }

    /// Whether the program has a config key; where it has not, all is skipped for that reason.
    pub fn has(&mut self, key: &str) -> bool {
        let has = self.knows(key);
        if !has {
            self.findings.skip("all of it", format!("this headgate has no key {key}"));
        }
        has
    }

    /// Whether the program has a config key, as its reference writes it.
    pub fn knows(&self, key: &str) -> bool {
        let output = std::process::Command::new(&self.program).arg("reference").output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&format!("{key} = ")))
    }

    /// Lets a share of the main phase pass.
    pub fn pass(&self, share: f64) {
        std::thread::sleep(self.length.mul_f64(share));
    }

    /// Notes what failed, by kind.
    pub fn note_failures(&mut self, all: &[Seen]) {
        for seen in all {
            let kinds: Vec<_> = seen.failures().into_iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
            if !kinds.is_empty() {
                self.findings.note(format!("{}: of {}: {}", seen.protocol, seen.samples.len(), kinds.join(", ")));
            }
        }
    }

    /// Nothing failed, of any method, in either protocol.
    pub fn none_failed(&mut self, all: &[Seen]) {
        for seen in all {
            let what = format!("{} failed requests of {}", seen.protocol, seen.samples.len());
            self.findings.none(what, seen.failed());
        }
        self.note_failures(all);
    }

    /// p99 in a window beside p99 before it. `control` went straight to a server meanwhile: what it waited is the machine's.
    pub fn p99_beside(&mut self, all: &[Seen], control: &Seen, before: Window, window: Window, times: f64) {
        let noise = control.between(window.0, window.1).quantile(0.99).unwrap_or_default();
        for seen in all {
            let p99 = |(from, to)| seen.between(from, to).quantile(0.99);
            // The first requests open connections.
            let (Some(usual), now) = (p99((before.0 + WARM_UP, before.1)), p99(window)) else { continue };
            // A request through headgate waits for a core about three times as often as one that goes straight.
            let bound = usual.mul_f64(times).max(Duration::from_millis(5)).max(noise * 3);
            let what = format!("{} p99 beside {} before; without headgate {}", seen.protocol, show(usual), show(noise));
            self.findings.within(what, now, bound);
        }
    }

    /// No POST was read to its end twice, over all origins.
    pub fn none_twice(&mut self, all: &[Seen], origins: &[&Origin]) {
        let posts = all.iter().flat_map(|seen| &seen.samples).filter(|sample| sample.method == "POST");
        let twice = posts.filter(|sample| origins.iter().map(|origin| origin.record.times(sample.id)).sum::<u32>() > 1);
        self.findings.none("POSTs that ran twice", twice.count());
    }
}

/// A pool of origins and a route to it.
pub fn pool(name: &str, origins: &[&Origin], keys: &str) -> String {
    let list: Vec<_> = origins.iter().map(|origin| format!("\"{}\"", origin.address)).collect();
    format!("[pools.{name}]\nendpoints = [{}]\n{keys}", list.join(", "))
}

/// One pool, and everything goes there.
pub fn simple(origins: &[&Origin], keys: &str) -> String {
    format!("{}{}", pool("app", origins, keys), route(""))
}

/// The route of everything to the pool `app`.
pub fn route(keys: &str) -> String {
    format!("[routes.all]\npool = \"app\"\n{keys}")
}

/// Waits until it holds, and tells how long that took; nothing where it never did.
pub fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    loop {
        if holds() {
            return Some(began.elapsed());
        }
        if began.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// So many origins, by name.
pub fn origins<const N: usize>(names: [&str; N]) -> Result<[Origin; N]> {
    let made: Result<Vec<_>> = names.iter().map(|name| Origin::start(name)).collect();
    made?.try_into().map_err(|_| anyhow::anyhow!("not as many as were named"))
}

/// Lets time pass.
pub fn pass(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}
