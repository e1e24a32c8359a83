//! Child processes: started with a log, watched, waited for, stopped in order.
//!
//! A process is started, then ready ([`Supervisor::wait_ready`] saw it answer), then ended. One that ends while
//! ready and unasked is reported on the terminal; the stack goes on, because that is what a person comes to watch.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::sync::watch;

use crate::child_guard::die_with_parent;
use crate::home::{Home, MARK, remove_if_there};
use crate::terminal::{Paint, shown, warn};

const PROBE_EVERY: Duration = Duration::from_millis(50);
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
const LOG_TAIL_LINES: usize = 12;
const LOG_ERROR_LINES: usize = 5;

/// What to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name in the table, the log and the pid file.
    pub name: &'static str,
    /// What it does, for the table.
    pub role: String,
    /// Where it listens, for the table.
    pub address: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment, beyond ours.
    pub environment: Vec<(&'static str, OsString)>,
    /// How long it may take from SIGTERM to its end.
    pub grace: Duration,
    /// What a person can do when it does not start.
    pub remedy: String,
}

/// A process that was started.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    pid: Pid,
    log: PathBuf,
    /// Where this start's output begins in the log, in bytes.
    log_start: u64,
    end: watch::Receiver<Option<ExitStatus>>,
    /// Whether its end is news: from ready until somebody ends it.
    is_serving: Arc<AtomicBool>,
}

/// Starts processes, and knows all that run.
#[derive(Debug)]
pub struct Supervisor {
    home: Arc<Home>,
    processes: Mutex<Vec<Arc<Process>>>,
}

// === impl Process ===

impl Process {
    /// What it was started from.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its log.
    pub fn log(&self) -> &PathBuf {
        &self.log
    }

    /// What it wrote since it was started, as far as it is text.
    pub fn output(&self) -> String {
        let Ok(log) = fs::read(&self.log) else {
            return String::new();
        };
        let start = usize::try_from(self.log_start).unwrap_or(0).min(log.len());
        String::from_utf8_lossy(&log[start..]).into_owned()
    }

    /// Hands on each line that comes into its log from now on, without the time in front. Never ends.
    pub async fn follow<T>(&self, mut show: impl FnMut(&str)) -> T {
        let mut shown = self.output().len();
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            let output = self.output();
            let new = output.get(shown..).unwrap_or_default();
            // A line that is being written is for the next turn.
            let whole = new.rfind('\n').map_or(0, |end| end + 1);
            for line in new.get(..whole).unwrap_or_default().lines() {
                let is_time = |word: &str| word.starts_with("20") && word.ends_with('Z');
                show(
                    line.split_once(' ').filter(|(word, _)| is_time(word)).map_or(line, |(_, rest)| rest.trim_start()),
                );
            }
            shown += whole;
        }
    }

    /// How it ended, when it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.end.borrow()
    }

    /// Waits for its end.
    pub async fn wait_end(&self) -> ExitStatus {
        let mut end = self.end.clone();
        loop {
            if let Some(status) = *end.borrow_and_update() {
                return status;
            }
            if end.changed().await.is_err() {
                // The task that waits for the child is gone: the runtime is ending, and the child with it.
                return ExitStatus::default();
            }
        }
    }

    /// SIGKILL, as a crash would look; returns when it has ended.
    pub async fn crash(&self) {
        self.is_serving.store(false, Ordering::Relaxed);
        self.signal(Signal::SIGKILL);
        self.wait_end().await;
    }

    /// SIGTERM, and SIGKILL when its grace is over; returns when it has ended.
    pub async fn stop(&self) {
        self.is_serving.store(false, Ordering::Relaxed);
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(self.spec.grace, self.wait_end()).await.is_err() {
            warn(format_args!("{} did not stop within {:?}: killed", self.spec.name, self.spec.grace));
            self.kill_group();
            self.wait_end().await;
        }
    }

    /// SIGKILL to it and whatever it started, without waiting.
    pub fn kill_group(&self) {
        self.is_serving.store(false, Ordering::Relaxed);
        self.signal(Signal::SIGKILL);
    }

    /// To its whole group: an installer is a script whose server must end with it.
    fn signal(&self, signal: Signal) {
        if self.ended().is_none() {
            // An error means that it has ended meanwhile, which is what was wanted.
            let _ = killpg(self.pid, signal);
        }
    }

    fn log_tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        if tail.is_empty() {
            return format!("it wrote nothing to {}", self.log.display());
        }
        // What went wrong is often said first and followed by advice.
        let earlier = &lines[..lines.len() - tail.len()];
        let errors = earlier.iter().filter(|line| line.contains("ERROR")).take(LOG_ERROR_LINES);
        let shown: Vec<String> = errors.chain(tail).map(|line| format!("    {line}")).collect();
        format!("the end of {}:\n{}", self.log.display(), shown.join("\n"))
    }

    fn failure(&self, what: &dyn Display) -> anyhow::Error {
        anyhow!("{} {what}; {}\n  {}", self.spec.name, self.log_tail(), self.spec.remedy)
    }
}

// === impl Supervisor ===

impl Supervisor {
    /// No processes yet.
    pub fn new(home: Arc<Home>) -> Self {
        Self { home, processes: Mutex::new(Vec::new()) }
    }

    /// Starts a process; a stopped one of the same name gives up its place in the table to the new one.
    pub fn start(&self, spec: Spec) -> Result<Arc<Process>> {
        let name = spec.name;
        let mut log = self.home.open_log(name)?;
        writeln!(log, "--- {}: {}", name, command_line(&spec)).context("cannot write a log")?;
        let log_start = log.metadata().context("cannot look at a log")?.len();
        let errors = log.try_clone().context("cannot share a log")?;

        let mut command = Command::new(&spec.program);
        command
            .args(&spec.arguments)
            .envs(spec.environment.iter().map(|(name, value)| (name, value)))
            .env(MARK, self.home.root())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true);
        die_with_parent(&mut command);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}: {}\n  {}", spec.program.display(), spec.remedy))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let pid = pid.with_context(|| format!("{name} has no process id"))?;
        let pid_file = self.home.pid_file(name);
        fs::write(&pid_file, format!("{pid}\n")).with_context(|| format!("cannot write {}", pid_file.display()))?;

        let (ended, end) = watch::channel(None);
        let is_serving = Arc::new(AtomicBool::new(false));
        let process = Arc::new(Process {
            log: self.home.log(name),
            log_start,
            spec,
            pid,
            end,
            is_serving: Arc::clone(&is_serving),
        });
        let log = process.log.clone();
        let again = command_line(&process.spec);
        tokio::spawn(async move {
            let status = child.wait().await.unwrap_or_default();
            // The file may name the process that took this one's place.
            if fs::read_to_string(&pid_file).is_ok_and(|text| text.trim() == pid.to_string()) {
                let _ = remove_if_there(&pid_file);
            }
            if is_serving.load(Ordering::Relaxed) {
                let mark = Paint::stderr().bad("✗");
                warn(format_args!("{mark} {name} (pid {pid}) ended unasked: {status}; its log: {}", shown(&log)));
                warn(format_args!("  to start it again, in another terminal: {again}"));
            }
            ended.send_replace(Some(status));
        });

        let mut processes = self.processes();
        match processes.iter_mut().find(|other| other.spec.name == name) {
            Some(place) => *place = Arc::clone(&process),
            None => processes.push(Arc::clone(&process)),
        }
        Ok(process)
    }

    /// Runs a program to its end, as a step of starting; its output goes to a log of the same name.
    pub async fn run(&self, spec: Spec) -> Result<()> {
        let name = spec.name;
        let process = self.start(spec)?;
        let status = process.wait_end().await;
        self.processes().retain(|other| other.spec.name != name);
        if status.success() { Ok(()) } else { Err(process.failure(&format!("failed ({status})"))) }
    }

    /// Waits until `probe` succeeds. A process that ends first, or is not ready within `limit`, is a failure that
    /// shows the end of its log.
    pub async fn wait_ready<T>(
        &self,
        process: &Process,
        limit: Duration,
        mut probe: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = process.ended() {
                return Err(process.failure(&format!("ended while starting ({status})")));
            }
            match tokio::time::timeout(limit, probe()).await {
                Ok(Ok(value)) => {
                    process.is_serving.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Ok(Err(_)) if Instant::now() < deadline => tokio::time::sleep(PROBE_EVERY).await,
                Ok(Err(error)) => {
                    return Err(process.failure(&format!("is not ready after {limit:?} ({error:#})")));
                }
                Err(_) => return Err(process.failure(&format!("does not answer after {limit:?}"))),
            }
        }
    }

    /// All that were started and not forgotten, in the order of their first start.
    pub fn all(&self) -> Vec<Arc<Process>> {
        self.processes().clone()
    }

    /// Stops everything: the last started first, each ended before the next is asked, so that nothing loses what
    /// it stands on while it still serves.
    pub async fn stop_all(&self) {
        for process in self.all().iter().rev() {
            if process.ended().is_none() {
                process.stop().await;
            }
        }
    }

    /// Kills everything at once.
    pub fn kill_all(&self) {
        for process in self.all() {
            process.kill_group();
        }
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Arc<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn command_line(spec: &Spec) -> String {
    let words = spec.arguments.iter().map(|word| word.to_string_lossy());
    [shown(&spec.program).into()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}
