//! The process: limits, signals, exit codes.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{BadConfig, ExitKind, Options, Running, start};
use crate::control::receipts::Cause;

/// `EX_CONFIG` of sysexits.h.
const BAD_CONFIG: u8 = 78;

/// Runs headgate until it is told to end. Returns the exit code.
pub fn run(config: PathBuf) -> u8 {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let running = match start(Options { config, workers: None }) {
        Ok(running) => running,
        Err(error) => {
            tracing::error!("{error:#}");
            return if error.is::<BadConfig>() { BAD_CONFIG } else { 1 };
        }
    };
    for (name, address) in &running.listeners {
        tracing::info!("listener {name} on {address}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve(&running)));
    match served {
        Ok(Ended::InOrder) => u8::from(running.join() == ExitKind::Forced),
        Ok(Ended::AtOnce) => {
            running.handle.plane.access_log.flush_and_stop(Duration::from_millis(500));
            1
        }
        Ok(Ended::WorkerGone) => {
            tracing::error!("a worker has ended: so does the process");
            70
        }
        Err(error) => {
            tracing::error!(%error, "signals cannot be received");
            1
        }
    }
}

enum Ended {
    InOrder,
    AtOnce,
    WorkerGone,
}

async fn serve(running: &Running) -> std::io::Result<Ended> {
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let mut is_ending = false;
    loop {
        tokio::select! {
            _ = hang_up.recv() => drop(running.handle.reload(Cause::Signal).await),
            _ = reopen.recv() => running.handle.plane.access_log.reopen(),
            _ = async { tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {}, _ = quit.recv() => {} } } => {
                if is_ending {
                    running.handle.stop();
                    return Ok(Ended::AtOnce);
                }
                is_ending = true;
                running.drain();
            }
            _ = look.tick() => {
                if running.control.is_finished() {
                    return Ok(if is_ending { Ended::InOrder } else { Ended::WorkerGone });
                }
                if !is_ending && running.workers.iter().any(std::thread::JoinHandle::is_finished) {
                    return Ok(Ended::WorkerGone);
                }
            }
        }
    }
}
