//! The process: limits, signals, exit codes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{BadConfig, ExitKind, Options, Running, start};
use crate::control::receipts::Cause;

/// The exit codes of `run`; 2 is the command line's own, for wrong usage.
mod exit {
    pub(super) const CLEAN: u8 = 0;
    /// It could not start, or a thread ended that must not.
    pub(super) const FAILED: u8 = 1;
    /// What still ran was closed: the drain's deadline came, or a second signal.
    pub(super) const CUT_OFF: u8 = 3;
}

/// The exit code where the config cannot be used: `EX_CONFIG` of sysexits.h.
pub const BAD_CONFIG: u8 = 78;

/// Runs headgate until it is told to end. Returns the exit code.
pub fn run(config: PathBuf) -> u8 {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    match serve(config) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            if error.is::<BadConfig>() { BAD_CONFIG } else { exit::FAILED }
        }
    }
}

fn serve(config: PathBuf) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything listens: a signal that finds no handler would end the process where it stands.
    let mut signals = {
        let _within = runtime.enter();
        Signals::new().context("signals cannot be received")?
    };
    let running = start(Options { config, workers: None })?;
    for (name, address) in &running.listeners {
        tracing::info!("listener {name} on {address}");
    }
    tracing::info!("headgate serves");
    Ok(match runtime.block_on(attend(&running, &mut signals)) {
        Ended::InOrder => match running.join() {
            ExitKind::Clean => exit::CLEAN,
            ExitKind::Forced => exit::CUT_OFF,
            ExitKind::Failed => exit::FAILED,
        },
        Ended::AtOnce => {
            tracing::warn!("a second signal: closing what is left");
            running.stop();
            exit::CUT_OFF
        }
        Ended::ThreadGone => {
            tracing::error!("a thread has ended that must not: so does the process");
            exit::FAILED
        }
    })
}

struct Signals {
    hang_up: Signal,
    reopen: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }
}

enum Ended {
    InOrder,
    AtOnce,
    ThreadGone,
}

/// Does what signals ask for until the end.
async fn attend(running: &Running, signals: &mut Signals) -> Ended {
    let Signals { hang_up, reopen, terminate, interrupt, quit } = signals;
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let mut is_ending = false;
    loop {
        tokio::select! {
            _ = hang_up.recv() => running.handle.ask_reload(Cause::Signal),
            _ = reopen.recv() => running.handle.plane.access_log.reopen(),
            _ = async { tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {}, _ = quit.recv() => {} } } => {
                if is_ending {
                    return Ended::AtOnce;
                }
                is_ending = true;
                running.drain();
            }
            _ = look.tick() => {
                if running.control.is_finished() {
                    return if is_ending { Ended::InOrder } else { Ended::ThreadGone };
                }
                if !is_ending && running.workers.iter().any(std::thread::JoinHandle::is_finished) {
                    return Ended::ThreadGone;
                }
            }
        }
    }
}
