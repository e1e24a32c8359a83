//! The whole scene on one machine: a database primary and its replica, two read and two write app servers,
//! and headgate in front; started together, stopped together, in a data directory of their own.
//!
//! In reading order:
//!
//! - [`options`]: the command line; [`ports`]: one free port for each listener, checked before anything starts.
//! - [`home`]: the data directory: its lock, its layout, and what an earlier run that was killed left in it.
//! - [`process`]: a child process: started, watched, stopped; [`child_guard`]: the kernel ends it when we die.
//! - [`database`]: the pair of servers (MariaDB or MySQL), or one SQLite file.
//! - [`apps`]: the app servers; [`front`]: headgate with its certificate and its working config.
//! - [`scene`]: all of the above, in order; [`tour`]: the main job shown step by step, over [`client`].
//! - [`table`] and [`terminal`]: what a person sees.
//!
//! What it never does: touch the system's database, start a service, listen beyond loopback unless told to,
//! or leave a process behind. Every child has a process group of its own, so Ctrl-C reaches only this program,
//! which stops them in order; when this program is killed the kernel ends them, and what still survives is
//! known by a mark in its environment and ended by the next start.
//!
//! The runtime has one thread, and that is a contract: the kernel ties a child's life to the *thread* that made
//! it (prctl(2), `PR_SET_PDEATHSIG`), so children are made on the one thread that lives as long as the program.

use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::Options;
use crate::scene::Scene;
use crate::terminal::{Paint, say, warn};

pub mod apps;
pub mod child_guard;
pub mod client;
pub mod database;
pub mod front;
pub mod home;
pub mod options;
pub mod ports;
pub mod process;
pub mod scene;
pub mod table;
pub mod terminal;
pub mod tour;

/// Starts the scene, serves or takes the tour, stops everything.
pub fn run(options: &Options) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(drive(options))
}

async fn drive(options: &Options) -> Result<ExitCode> {
    let mut interrupts = Interrupts::new()?;
    let scene = Scene::prepare(options)?;

    let outcome = tokio::select! {
        outcome = perform(&scene, options.tour) => outcome,
        signal = interrupts.next() => {
            say(format_args!("\n{signal}: stopping"));
            // Ctrl-C is how serving ends; a tour that did not reach its end did not pass.
            Ok(if options.tour { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
    };
    if let Err(error) = &outcome {
        // Said now, before the messages about stopping, where the reader looks first.
        warn(format_args!("{} {error:#}", Paint::stderr().bad("✗")));
    }
    tokio::select! {
        () = scene.stop() => {}
        signal = interrupts.next() => {
            warn(format_args!("{signal} again: ending everything at once"));
            scene.kill();
        }
    }
    Ok(outcome.unwrap_or(ExitCode::FAILURE))
}

async fn perform(scene: &Scene, take_tour: bool) -> Result<ExitCode> {
    let running = scene.start().await?;
    scene.introduce(&running);
    if take_tour {
        return Ok(if tour::take(scene, &running).await? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    scene.suggest(&running);
    let name = Paint::stdout().faint("headgate │");
    running.front.process().follow(|line| say(format_args!("{name} {line}"))).await
}

/// The ways a person, a closed terminal or a service manager asks this program to stop.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot watch SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot watch SIGTERM")?,
            hangup: signal(SignalKind::hangup()).context("cannot watch SIGHUP")?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hangup.recv() => Signal::SIGHUP,
        }
    }
}
