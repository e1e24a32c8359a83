//! The real program as a child process: its log, its signals, its exit code.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kit::eventually;

/// The program, with an environment in which nothing of the tester's own matters.
pub(crate) fn headgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    for name in ["HEADGATE_CONFIG", "HEADGATE_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    command
}

/// A running headgate. Ended by force when dropped.
pub(crate) struct Headgate {
    child: Child,
    log: Arc<Mutex<String>>,
    pub(crate) folder: tempfile::TempDir,
}

impl Headgate {
    /// Starts it with a config and waits until it serves. `@FOLDER` is the folder of its files; the admin API is at
    /// `admin.sock` in it.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_as(headgate(), config)
    }

    /// Likewise with a command of the story's own, to which `run --config FILE` is added.
    pub(crate) fn start_as(command: Command, config: &str) -> Self {
        let headgate = Self::launch(command, config);
        eventually("headgate serves", || headgate.log().contains("headgate serves"));
        headgate
    }

    /// Starts it and waits for nothing.
    pub(crate) fn launch(mut command: Command, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = write_config(folder.path(), config);
        command.arg("run").arg("--config").arg(path);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log: Arc<Mutex<String>> = Arc::default();
        let into = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = into.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, log, folder }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Replaces its config.
    pub(crate) fn write(&self, config: &str) {
        write_config(self.folder.path(), config);
    }

    /// Where a listener is bound, as the log tells.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        let log = self.log();
        let mark = format!("listener {name} on ");
        let (_, after) = log.split_once(&mark).unwrap_or_else(|| panic!("no listener {name} in:\n{log}"));
        after.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for its end and gives the exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let mut ended = None;
        eventually("headgate ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap().code()
    }

    /// Runs a command beside it, in its folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        headgate().current_dir(self.folder.path()).args(arguments).output().unwrap()
    }
}

impl Drop for Headgate {
    fn drop(&mut self) {
        // It may have ended by itself, as most stories want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn write_config(folder: &Path, config: &str) -> PathBuf {
    let path = folder.join("headgate.toml");
    let text = format!("{HEAD}{config}");
    std::fs::write(&path, text.replace("@FOLDER", &folder.display().to_string())).unwrap();
    path
}

/// What every config of these stories begins with.
pub(crate) const HEAD: &str =
    "config_version = 1\n[admin]\naddress = \"unix:@FOLDER/admin.sock\"\n[access_log]\nformat = \"off\"\n";

/// One listener, one route, one pool of one endpoint.
pub(crate) fn simple(endpoint: SocketAddr) -> String {
    format!(
        "[listeners.http]\naddress = \"127.0.0.1:0\"\n[pools.app]\nendpoints = [\"{endpoint}\"]\n\
         [routes.all]\npool = \"app\"\n"
    )
}

/// What a command said, both ways.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
