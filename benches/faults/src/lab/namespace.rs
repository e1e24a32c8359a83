//! A network namespace for one thread and all that it starts: where packets are lost without anybody else noticing.
//!
//! A fault that needs one runs on a thread of its own, which leaves the common namespace (unshare(2)). Each origin that
//! is to be cut off has a namespace of its own behind a veth pair. Packets are swallowed by a neighbour entry with a
//! hardware address that nobody has: they leave, and no error comes back. It needs `ip`, and no netfilter.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};

/// An address that no interface has: locally administered, unicast.
const NOBODY: &str = "02:00:00:00:de:ad";

/// Takes this thread, and what it starts from now on, into a new network namespace with a loopback device.
///
/// # Errors
/// Why that is not possible here.
pub fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace needs root (CAP_SYS_ADMIN)")?;
    ip("link set lo up")
}

/// A mount namespace for this thread and what it starts: what it mounts goes with it.
///
/// # Errors
/// Why that is not possible here.
pub fn enter_mounts() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace needs root (CAP_SYS_ADMIN)")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Mounts a small filesystem in memory.
///
/// # Errors
/// Why that is not possible here.
pub fn small_disk(path: &std::path::Path, bytes: u64) -> Result<()> {
    use nix::mount::{MsFlags, mount};
    let size = format!("size={bytes}");
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(&*size)).context("tmpfs cannot be mounted")
}

/// Runs `ip`.
pub fn ip(arguments: &str) -> Result<()> {
    run("ip", arguments)
}

/// Runs `tc`.
pub fn tc(arguments: &str) -> Result<()> {
    run("tc", arguments)
}

fn run(program: &str, arguments: &str) -> Result<()> {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.with_context(|| format!("{program} is missing (iproute2)"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments}: {}", said.trim());
    Ok(())
}

/// A network of its own behind a veth pair, held by a thread: `10.99.N.2` there, `10.99.N.1` here.
#[derive(Debug)]
pub struct Island {
    number: u8,
    /// Ends the thread that holds the namespace, when dropped.
    _hold: std::sync::mpsc::Sender<()>,
    thread: i32,
}

impl Island {
    /// Makes one.
    pub fn make(number: u8) -> Result<Self> {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::Builder::new().name(format!("island-{number}")).spawn(move || {
            let entered = enter().map(|()| nix::unistd::gettid().as_raw());
            let lives = entered.is_ok();
            let _ = tell.send(entered);
            if lives {
                let _ = held.recv();
            }
        })?;
        let thread = told.recv().context("the island's thread ended")??;
        let island = Self { number, _hold: hold, thread };
        let (here, there) = (island.device(), format!("far{number}"));
        ip(&format!("link add {here} type veth peer name {there} netns {thread}"))?;
        ip(&format!("addr add 10.99.{number}.1/24 dev {here}"))?;
        ip(&format!("link set {here} up"))?;
        island.inside(&format!("ip addr add 10.99.{number}.2/24 dev {there}"))?;
        island.inside(&format!("ip link set {there} up"))?;
        Ok(island)
    }

    /// The device on this side.
    pub fn device(&self) -> String {
        format!("near{}", self.number)
    }

    /// The address on the island, with a port.
    pub fn address(&self, port: u16) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::new(10, 99, self.number, 2), port).into()
    }

    /// Takes this thread there.
    pub fn visit(&self) -> Result<()> {
        let file = fs::File::open(format!("/proc/self/task/{}/ns/net", self.thread)).context("the island is gone")?;
        nix::sched::setns(file, CloneFlags::CLONE_NEWNET).context("the island cannot be entered")?;
        Ok(())
    }

    /// Runs a program of several words there.
    pub fn inside(&self, command: &str) -> Result<()> {
        let Some((program, arguments)) = command.split_once(' ') else { bail!("a command of one word") };
        let (program, arguments) = (program.to_owned(), arguments.to_owned());
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                self.visit()?;
                run(&program, &arguments)
            });
            there.join().unwrap_or_else(|_| bail!("a thread has panicked"))
        })
    }

    /// From now on nothing that is sent there arrives, and nobody is told.
    pub fn swallow(&self) -> Result<()> {
        ip(&format!("neigh replace 10.99.{}.2 lladdr {NOBODY} dev {} nud permanent", self.number, self.device()))
    }
}
