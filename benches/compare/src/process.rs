//! A child process: started on its cores with a log, ended in any case.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::child_guard::place;

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(3);
/// For one that has something to write at its end.
const PATIENCE: Duration = Duration::from_secs(30);
const READY_TRIES: usize = 200;
const READY_EVERY: Duration = Duration::from_millis(25);
const POLL: Duration = Duration::from_millis(5);
const LOG_TAIL_LINES: usize = 8;

/// A process that ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    /// Starts a program; what it writes goes to a log in `directory`.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        cores: &[usize],
        directory: &Path,
    ) -> Result<Self> {
        let log = directory.join(format!("{name}.out"));
        let out = File::create(&log).context("cannot make a log")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        let child = spawn(&mut command, cores).with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).context("a child without a process id")?;
        Ok(Self { name: name.to_owned(), child, pid: Pid::from_raw(pid), log })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// An error that shows the end of the log when it runs no more.
    pub fn check_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} ended ({status}): {}", self.name, self.log_tail())),
        }
    }

    /// Waits until it serves, which `is_ready` looks at.
    ///
    /// # Errors
    /// Where it runs no more, or takes too long.
    pub async fn await_ready(&mut self, is_ready: impl AsyncFn() -> bool) -> Result<()> {
        for _ in 0..READY_TRIES {
            self.check_runs()?;
            if is_ready().await {
                return Ok(());
            }
            tokio::time::sleep(READY_EVERY).await;
        }
        bail!("{} does not answer: {}", self.name, self.log_tail())
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// Where it does not end by itself, or ends with another status than 0.
    pub async fn end(mut self) -> Result<()> {
        kill(self.pid, Signal::SIGTERM).with_context(|| format!("{} has ended: {}", self.name, self.log_tail()))?;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.with_context(|| format!("{} does not end", self.name))??;
        ensure!(status.success(), "{} ended ({status}): {}", self.name, self.log_tail());
        Ok(())
    }

    /// The last lines that it wrote.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Whether it has ended, looked at until then or the grace is over.
    fn ends_in_time(&mut self) -> bool {
        let deadline = Instant::now() + GRACE;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // An error means that it has just ended, which is what is wanted; likewise below.
            let _ = kill(self.pid, Signal::SIGTERM);
            if !self.ends_in_time() {
                let _ = killpg(self.pid, Signal::SIGKILL);
                self.ends_in_time();
            }
        }
    }
}

/// Starts a child in a process group of its own: Ctrl-C reaches only this program, which ends them in order. SIGTERM
/// when this program dies: to SIGKILL an nginx master would leave its workers behind.
pub fn spawn(command: &mut Command, cores: &[usize]) -> Result<Child> {
    place(command, cores, Signal::SIGTERM)?;
    Ok(command.process_group(0).kill_on_drop(true).spawn()?)
}

/// Where a program is; Debian puts servers where a person's PATH may not lead.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut places = path.split(':').chain(["/usr/sbin", "/usr/local/sbin", "/sbin"]);
    let found = places.find_map(|place| Some(Path::new(place).join(name)).filter(|path| path.is_file()));
    found.with_context(|| format!("{name} is missing; on Debian: apt-get install nginx haproxy wrk nghttp2-client"))
}
