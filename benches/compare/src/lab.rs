//! What the comparison stands on: programs, a work directory, a certificate, the origin, the stand-in.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use tempfile::TempDir;
use tokio::process::Command;

use crate::options::Comparison;
use crate::ports::Ports;
use crate::probe;
use crate::process::{Process, find};
use crate::proxies::Setting;

/// The proxy's core, and the one of origin and load.
pub const PROXY_CORE: usize = 0;
/// Likewise.
pub const LOAD_CORE: usize = 1;
/// For 10,000 idle connections, and HAProxy's account of two for each.
const DESCRIPTORS: u64 = 65_536;
/// Of the work directory's name; our process id follows.
const PREFIX: &str = "compare-";

/// What a proxy alone stands on.
#[derive(Debug)]
pub struct Ground {
    /// What starts a proxy.
    pub setting: Setting,
    /// The origin, which answers when it is here.
    pub origin: Process,
    // Held until the end: first the process that uses the directory ends, then it goes.
    directory: TempDir,
}

/// All of it.
#[derive(Debug)]
pub struct Lab {
    /// What starts a proxy.
    pub setting: Setting,
    /// The load generators that are not ours.
    pub wrk: PathBuf,
    /// Likewise.
    pub h2load: PathBuf,
    /// The origin.
    pub origin: Process,
    /// Clock ticks of `/proc` in a second.
    pub ticks_per_second: u64,
    // Held until the end, in this order: first the process that uses the directory ends, then it goes.
    _stand_in: Process,
    _directory: TempDir,
}

// === impl Lab ===

impl Lab {
    /// Makes everything ready.
    pub async fn prepare(options: &Comparison) -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        ensure!(cores >= 2, "two cores are needed: one for the proxy, one for the load");
        // Now, and not when it is its turn.
        ["nginx", "haproxy"].into_iter().try_for_each(|peer| find(peer).map(drop))?;
        let headgate = match &options.headgate {
            Some(path) => path.clone(),
            None => build_headgate().await?,
        };
        let Ground { setting, origin, directory } = Ground::prepare(&headgate).await?;
        let place = &setting.directory;
        let arguments =
            ["stand-in".to_owned(), loopback(setting.ports.stand_in).to_string(), place.display().to_string()];
        let mut stand_in = Process::start("stand-in", &setting.own, arguments, &[PROXY_CORE], place)?;
        stand_in.await_ready(async || probe::listens(setting.ports.stand_in).await).await?;
        let ticks = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok());
        Ok(Self {
            wrk: find("wrk")?,
            h2load: find("h2load")?,
            setting,
            origin,
            ticks_per_second: ticks.unwrap_or(100),
            _stand_in: stand_in,
            _directory: directory,
        })
    }

    /// Where the origin listens.
    pub fn origin_address(&self) -> SocketAddr {
        loopback(self.setting.ports.origin)
    }
}

// === impl Ground ===

impl Ground {
    /// Makes a work directory with a certificate, and starts the origin.
    pub async fn prepare(headgate: &Path) -> Result<Self> {
        raise_descriptors()?;
        let own = std::env::current_exe().context("where is this program?")?;
        let headgate = fs::canonicalize(headgate).with_context(|| format!("no headgate at {}", headgate.display()))?;
        let beside = own.parent().context("this program is in no directory")?;
        clear_left_over(beside);
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir_in(beside)?;
        let place = directory.path().to_owned();
        make_certificate(&headgate, &place).await?;

        let ports = Ports::find()?;
        let arguments = ["origin".to_owned(), loopback(ports.origin).to_string()];
        // With one core nothing can be compared, but headgate can be served on.
        let core = LOAD_CORE.min(std::thread::available_parallelism()?.get() - 1);
        let mut origin = Process::start("origin", &own, arguments, &[core], &place)?;
        let setting = Setting { directory: place, ports, headgate, own };
        origin.await_ready(async || probe::get(loopback(ports.origin), "/1k").await.is_ok()).await?;
        Ok(Self { setting, origin, directory })
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Removes the work directories of runs that were killed.
fn clear_left_over(beside: &Path) {
    for entry in fs::read_dir(beside).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// To what an administrator may; else as far as it goes.
fn raise_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.max(DESCRIPTORS);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")?;
    }
    Ok(())
}

async fn build_headgate() -> Result<PathBuf> {
    let status = Command::new("cargo").args(["build", "--release", "--locked", "-p", "headgate"]).status().await?;
    ensure!(status.success(), "headgate could not be built");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(target.join("release/headgate"))
}

/// The same certificate for all: P-256, as `headgate dev-cert` makes it.
async fn make_certificate(headgate: &Path, directory: &Path) -> Result<()> {
    let output = Command::new(headgate).arg("dev-cert").arg("--dir").arg(directory).output().await?;
    ensure!(output.status.success(), "no certificate: {}", String::from_utf8_lossy(&output.stderr));
    // HAProxy wants chain and key in one file.
    let parts = ["localhost.pem", "localhost.key"].map(|name| fs::read(directory.join(name)));
    let [certificate, key] = parts;
    fs::write(directory.join("haproxy.pem"), [certificate?, key?].concat()).context("cannot write a certificate")
}
