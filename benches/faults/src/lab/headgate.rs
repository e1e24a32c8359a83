//! The program under test: started with a config, asked, signalled, ended when dropped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::account::Account;
use super::{ask, eventually};

const START_LIMIT: Duration = Duration::from_secs(20);
const END_LIMIT: Duration = Duration::from_secs(3);
const LOG_TAIL: usize = 6;

/// What may differ at the start.
#[derive(Debug, Default)]
pub struct Launch {
    /// Limit of open files.
    pub descriptors: Option<u32>,
    /// More environment.
    pub environment: Vec<(&'static str, String)>,
    /// Where stdout goes, if not to nowhere.
    pub stdout: Option<OwnedFd>,
    /// Where stderr goes, if not to the log. Then the listener's port must stand in the config.
    pub stderr: Option<OwnedFd>,
}

/// A running headgate.
#[derive(Debug)]
pub struct Headgate {
    program: PathBuf,
    child: Child,
    folder: PathBuf,
    config: PathBuf,
    metrics: SocketAddr,
    /// Its listener.
    pub address: SocketAddr,
}

/// Metrics at one moment.
#[derive(Debug, Clone)]
pub struct Metrics(String);

/// A port that nobody has just now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

// === impl Headgate ===

impl Headgate {
    /// Starts it in a folder of its own, which is made, and waits until it serves. What every config begins with is put
    /// before `config`; `@LISTEN` in it is the address of the listener.
    pub fn start(program: &Path, folder: PathBuf, config: &str, launch: Launch) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let (metrics, listen) = (free_port()?, free_port()?);
        let mut headgate = Self {
            program: program.to_owned(),
            child: idle_child()?,
            config: folder.join("headgate.toml"),
            folder,
            metrics: (Ipv4Addr::LOCALHOST, metrics).into(),
            address: (Ipv4Addr::LOCALHOST, listen).into(),
        };
        headgate.write(config)?;
        headgate.launch(program, launch)?;
        Ok(headgate)
    }

    fn launch(&mut self, program: &Path, launch: Launch) -> Result<()> {
        let mut command = match launch.descriptors {
            None => std::process::Command::new(program),
            Some(limit) => {
                // The shell's limit is both the soft and the hard one, so that headgate cannot raise it.
                let mut command = std::process::Command::new("sh");
                command.args([
                    OsStr::new("-c"),
                    OsStr::new(&format!("ulimit -n {limit}; exec \"$@\"")),
                    OsStr::new("sh"),
                ]);
                command.arg(program);
                command
            }
        };
        for name in ["HEADGATE_CONFIG", "HEADGATE_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        command.envs(launch.environment);
        command.arg("run").arg("--config").arg(&self.config).stdin(Stdio::null());
        command.stdout(launch.stdout.map_or_else(Stdio::null, Stdio::from));
        match launch.stderr {
            Some(stderr) => command.stderr(stderr),
            None => command.stderr(File::create(self.folder.join("headgate.log"))?),
        };
        self.child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut ended = false;
        eventually(START_LIMIT, || {
            ended = !matches!(self.child.try_wait(), Ok(None));
            ended || self.is_ready()
        });
        ensure!(!ended && self.is_ready(), "headgate does not serve: {}", self.log_tail());
        Ok(())
    }

    /// Replaces its config, by a rename, as deployments do.
    pub fn write(&self, config: &str) -> Result<()> {
        let new = self.config.with_extension("new");
        fs::write(&new, self.text(config))?;
        Ok(fs::rename(new, &self.config)?)
    }

    /// The whole text of a config.
    pub fn text(&self, config: &str) -> String {
        let (folder, metrics) = (self.folder.display(), self.metrics);
        let head = format!(
            "config_version = 1\n[metrics]\naddress = \"{metrics}\"\n[admin]\naddress = \"unix:{folder}/admin.sock\"\n"
        );
        let log = match config.contains("[access_log]") {
            true => String::new(),
            false => format!("[access_log]\noutput = \"{folder}/access.log\"\n"),
        };
        let listener = match config.contains("[listeners.") {
            true => String::new(),
            false => format!("[listeners.http]\naddress = \"{}\"\n", self.address),
        };
        format!("{head}{log}{listener}{config}").replace("@FOLDER", &folder.to_string())
    }

    /// The file that its config is in.
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// What it uses now.
    pub fn account(&self) -> Result<Account> {
        Account::take(self.pid())
    }

    /// Its metrics now.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, text) = ask::tcp(self.metrics, "GET", "/metrics")?;
        ensure!(status == 200, "metrics answer {status}");
        Ok(Metrics(text))
    }

    /// Whether it calls itself ready.
    pub fn is_ready(&self) -> bool {
        ask::tcp(self.metrics, "GET", "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// Asks the admin API.
    pub fn admin(&self, method: &str, path: &str) -> Result<(u16, Value)> {
        let (status, body) = ask::unix(&self.admin_socket(), method, path)?;
        Ok((status, serde_json::from_str(&body).unwrap_or(Value::String(body))))
    }

    /// Gives it an order by its own command line.
    pub fn command(&self, arguments: &[&str]) -> Result<()> {
        let mut command = std::process::Command::new(&self.program);
        let output = command.args(arguments).arg("--config").arg(&self.config).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", arguments.join(" "), said.trim());
        Ok(())
    }

    /// Where its admin API is.
    pub fn admin_socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// What the admin API says of one endpoint.
    pub fn endpoint(&self, pool: &str, address: SocketAddr) -> Result<Value> {
        let (_, pool) = self.admin("GET", &format!("/v1/pools/{pool}"))?;
        let address = address.to_string();
        let found = pool["endpoints"].as_array().and_then(|all| all.iter().find(|one| one["address"] == *address));
        found.cloned().ok_or_else(|| anyhow!("no endpoint {address} in {pool}"))
    }

    /// Its standing: `usable`, `suspect`, `out` ...
    pub fn standing(&self, pool: &str, address: SocketAddr) -> String {
        let endpoint = self.endpoint(pool, address).unwrap_or_default();
        endpoint["standing"].as_str().unwrap_or("?").to_owned()
    }

    /// The generation that is served.
    pub fn generation(&self) -> Result<u64> {
        self.admin("GET", "/v1/status")?.1["generation"].as_u64().context("no generation")
    }

    /// Its operational log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("headgate.log")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }
}

impl Drop for Headgate {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may have ended just now; likewise below.
            let _ = self.signal(Signal::SIGTERM);
            let _ = self.signal(Signal::SIGTERM);
            let deadline = Instant::now() + END_LIMIT;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What stands in for the child until it is there.
fn idle_child() -> Result<Child> {
    std::process::Command::new("true").spawn().context("cannot start a process")
}

// === impl Metrics ===

impl Metrics {
    /// The sum of a metric's series whose labels hold all of `labels`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let is = series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label));
            is.then(|| value.parse::<f64>().ok())?
        };
        // The sum of nothing is -0 otherwise.
        self.0.lines().filter_map(of).fold(0.0, |sum, value| sum + value)
    }
}
