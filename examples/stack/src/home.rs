//! The data directory: who owns it, what is where, and what an earlier run left behind.
//!
//! Layout: `stack.lock` (held while a stack runs), `logs/NAME.log`, `run/NAME.pid`, `headgate.toml` (the working
//! config), `admin.sock`, `mariadb-VERSION/{primary,replica}` or `notes.sqlite`.
//!
//! The directory is its owner's alone: in it is the database's socket, on which its root needs no password.
//!
//! Leftover processes are known by a mark in their environment, not by their pid files: a pid file can name a
//! process that has nothing to do with us, and a child of a child has none. The mark is the data directory's
//! path, so one stack never ends another's processes. Pid files are written for people and scripts.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::terminal::say;

/// The environment variable every child carries; its value is the data directory.
pub const MARK: &str = "HEADGATE_STACK_DATA";

/// A unix socket's path must fit in `sockaddr_un` (108 bytes with the final zero).
const SOCKET_PATH_BYTES: usize = 107;

/// How long leftovers may take to end after SIGTERM before they are killed.
const LEFTOVER_GRACE: Duration = Duration::from_secs(5);

/// Logs larger than this are set aside when their process starts.
const LOG_BYTES: u64 = 4 * 1024 * 1024;

/// The data directory, locked by this program until it is dropped.
#[derive(Debug)]
pub struct Home {
    root: PathBuf,
    lock: File,
}

impl Drop for Home {
    /// To close the file is not enough: a process that is being started has a copy of it until it becomes its program.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl Home {
    /// Makes the directory when it is missing, takes its lock, and ends what an earlier run left.
    ///
    /// A directory that is neither empty nor a stack's own is refused: parts of it would be deleted one day.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        let root = path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))?;
        let lock_path = root.join("stack.lock");
        let is_empty = fs::read_dir(&root).with_context(|| format!("cannot list {}", root.display()))?.next().is_none();
        if !is_empty && !lock_path.exists() {
            bail!("{} is not empty and not a stack's data directory; give another with --data DIR", root.display());
        }
        let lock = lock(&lock_path)?;
        let home = Self { root, lock };
        for directory in ["logs", "run"] {
            let path = home.root.join(directory);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let ended = home.end_leftovers()?;
        if !ended.is_empty() {
            say(format_args!("Ended what an earlier run left behind: {}", ended.join(", ")));
        }
        remove_if_there(&home.admin_socket())?;
        Ok(home)
    }

    /// The directory itself, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a process's output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// Where a process's id is written.
    pub fn pid_file(&self, name: &str) -> PathBuf {
        self.root.join("run").join(format!("{name}.pid"))
    }

    /// headgate's admin socket: in the data directory, or under the temporary directory when that path is too long.
    pub fn admin_socket(&self) -> PathBuf {
        let beside = self.root.join("admin.sock");
        if beside.as_os_str().len() <= SOCKET_PATH_BYTES {
            return beside;
        }
        let key = self
            .root
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        std::env::temp_dir().join(format!("headgate-stack-{key:016x}.sock"))
    }

    /// Opens a process's log for appending, setting a large one aside first.
    pub fn open_log(&self, name: &str) -> Result<File> {
        let path = self.log(name);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES) {
            fs::rename(&path, path.with_extension("log.1"))
                .with_context(|| format!("cannot set {} aside", path.display()))?;
        }
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open the log {}", path.display()))
    }

    /// Ends every process that carries this directory's mark; returns what they were.
    pub fn end_leftovers(&self) -> Result<Vec<String>> {
        let found = self.leftovers()?;
        for leftover in &found {
            signal(leftover.pid, Signal::SIGTERM)?;
        }
        let deadline = Instant::now() + LEFTOVER_GRACE;
        while !self.leftovers()?.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        for leftover in self.leftovers()? {
            signal(leftover.pid, Signal::SIGKILL)?;
        }
        let deadline = Instant::now() + LEFTOVER_GRACE;
        while !self.leftovers()?.is_empty() {
            if Instant::now() > deadline {
                bail!("processes of an earlier run do not end: {}", names(&self.leftovers()?).join(", "));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for entry in fs::read_dir(self.root.join("run")).context("cannot list the pid files")? {
            remove_if_there(&entry.context("cannot list the pid files")?.path())?;
        }
        Ok(names(&found))
    }

    fn leftovers(&self) -> Result<Vec<Leftover>> {
        let mark = [MARK.as_bytes(), b"=", self.root.as_os_str().as_encoded_bytes()].concat();
        let processes = match fs::read_dir("/proc") {
            Ok(processes) => processes,
            // Not Linux: the pid files are all there is, and their processes ended with ours or are the reader's.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("cannot list /proc"),
        };
        let own = std::process::id();
        // A process that ends while it is looked at is no leftover: its files are simply gone.
        Ok(processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != own))
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|pair| pair == mark))
            })
            .map(|pid| Leftover { pid: Pid::from_raw(pid), command: command_name(pid) })
            .collect())
    }
}

/// A process an earlier run started.
struct Leftover {
    pid: Pid,
    command: String,
}

/// Removes a file that may be missing.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn lock(path: &Path) -> Result<File> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let owner = fs::read_to_string(path).unwrap_or_default();
            bail!(
                "another stack (pid {}) runs in {}; stop it, or give this one --data DIR and --ports auto",
                owner.trim(),
                path.parent().unwrap_or(path).display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

fn signal(pid: Pid, signal: Signal) -> Result<()> {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot end process {pid} of an earlier run")),
    }
}

fn command_name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

fn names(leftovers: &[Leftover]) -> Vec<String> {
    leftovers.iter().map(|leftover| format!("{} (pid {})", leftover.command, leftover.pid)).collect()
}
