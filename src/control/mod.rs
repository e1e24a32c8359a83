//! Floor 7: the control plane, one thread with a runtime of its own.
//!
//! It changes the world in two ways only: it publishes a new snapshot, or it sets what it has the word on: an endpoint's
//! verdict, and where a pool's traffic goes back to. Sockets are bound by whom the app names, since this room knows
//! nothing of the server beside it.

mod asked;
mod drain;
pub mod explain;
mod family;
pub mod gauges;
mod lookup;
pub mod order;
mod probes;
pub mod receipts;
pub mod reload;
pub mod resolve;
#[cfg(test)]
mod simulation;
pub mod status;
mod supervisor;
pub mod traffic;
mod watch;
mod why;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::base::task;
use crate::config::load::SourceFile;
use crate::config::model::Name;
use crate::control::asked::Reloads;
use crate::control::order::{Followed, Order, Refusal};
use crate::control::receipts::{Cause, Receipt, Receipts};
use crate::control::reload::Reloader;
use crate::snapshot::plane::{Plane, WorkerCommand, WorkerSender};

/// Binds one socket per worker: the address, how many, and whether the address must be free of others.
pub type Bind = Box<dyn Fn(SocketAddr, usize, bool) -> io::Result<Vec<TcpListener>> + Send>;

/// Starts what else runs on the control thread: the HTTP servers. Called within its `LocalSet`.
pub type Services = Box<dyn FnOnce(Handle) + Send>;

/// What the control plane starts from.
pub struct Setup {
    /// The config file.
    pub path: PathBuf,
    /// Every file that was read for the first snapshot.
    pub files: Vec<SourceFile>,
    /// Where the planes meet.
    pub plane: Arc<Plane>,
    /// The ways to the workers.
    pub workers: Vec<WorkerSender>,
    /// How sockets are bound.
    pub bind: Bind,
    /// The receipt of the start.
    pub started: Receipt,
}

pub(crate) enum Command {
    Reload {
        cause: Cause,
        reply: oneshot::Sender<Receipt>,
    },
    Order {
        order: Order,
        reply: oneshot::Sender<Result<Followed, Refusal>>,
    },
    FilesChanged,
    /// A name was looked up for the first time, or `moved`: it stands for other endpoints than before.
    NameKnown {
        moved: bool,
    },
    Drain,
    Drained(End),
    Stop,
}

/// How the control thread came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every connection had ended by itself.
    Drained,
    /// What was left was closed: the drain's deadline had come, or nobody wanted to wait for it.
    CutOff,
}

/// The control thread is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("headgate is stopping")]
pub struct Gone;

/// The way to the control plane.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    workers: Arc<[WorkerSender]>,
    /// Where the planes meet.
    pub plane: Arc<Plane>,
    /// What reloads left behind.
    pub receipts: Arc<Receipts>,
}

impl Handle {
    /// Loads the config now.
    ///
    /// # Errors
    /// [`Gone`] where the process is on its way out.
    pub async fn reload(&self, cause: Cause) -> Result<Receipt, Gone> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Reload { cause, reply }).map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// The same from a thread without a runtime.
    ///
    /// # Errors
    /// [`Gone`] where the process is on its way out.
    pub fn reload_blocking(&self, cause: Cause) -> Result<Receipt, Gone> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Reload { cause, reply }).map_err(|_| Gone)?;
        answer.blocking_recv().map_err(|_| Gone)
    }

    /// The same for whoever does not wait for the receipt.
    pub fn ask_reload(&self, cause: Cause) {
        drop(self.commands.send(Command::Reload { cause, reply: oneshot::channel().0 }));
    }

    /// Has an endpoint drained, or its weight changed.
    ///
    /// # Errors
    /// [`Gone`] where the process is on its way out; [`Refusal`] where there is no such endpoint.
    pub async fn order(&self, order: Order) -> Result<Result<Followed, Refusal>, Gone> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Order { order, reply }).map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// Begins the end: not ready, then no new connections, then none at all.
    pub fn drain(&self) {
        drop(self.commands.send(Command::Drain));
    }

    /// Ends everything at once.
    pub fn stop(&self) {
        self.plane.draining.store(true, Ordering::Relaxed);
        for worker in self.workers.iter() {
            drop(worker.send(WorkerCommand::Stop));
        }
        drop(self.commands.send(Command::Stop));
    }
}

/// Starts the control thread.
///
/// # Errors
/// Where the system gives no thread or no runtime.
pub fn start(setup: Setup, services: Services) -> io::Result<(Handle, JoinHandle<End>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, commands) = mpsc::unbounded_channel();
    let receipts = Arc::new(Receipts::default());
    receipts.push(setup.started.clone());
    let handle =
        Handle { commands: sender, workers: setup.workers.clone().into(), plane: setup.plane.clone(), receipts };
    let kept = handle.clone();
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        LocalSet::new().block_on(&runtime, async move {
            services(handle.clone());
            run(setup, handle, commands).await
        })
    })?;
    Ok((kept, thread))
}

async fn run(setup: Setup, handle: Handle, mut commands: mpsc::UnboundedReceiver<Command>) -> End {
    let plane = setup.plane.clone();
    let workers = setup.workers.clone();
    let reloader = Reloader::new(setup, handle.commands.clone());
    let mut reloads = Reloads::new(reloader, handle.receipts.clone());
    supervisor::ready(plane.snapshot.load().generation);
    supervisor::watchdog(&plane);
    traffic::watch(&plane);
    let mut is_draining = false;
    let end = loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            () = reloads.due() => {
                reloads.retry();
                continue;
            }
        };
        match command {
            Some(Command::NameKnown { moved }) => reloads.name_known(moved),
            Some(Command::FilesChanged) if is_draining => {}
            Some(Command::FilesChanged) => reloads.look(),
            Some(Command::Reload { cause, reply }) if is_draining => reloads.refuse(Some((cause, reply))),
            Some(Command::Reload { cause, reply }) => reloads.ask(cause, reply),
            // Whoever has gone can read it in the status.
            Some(Command::Order { order, reply }) => drop(reply.send(order::follow(&mut reloads.reloader, &order))),
            Some(Command::Drain) if is_draining => {}
            Some(Command::Drain) => {
                is_draining = true;
                supervisor::stopping();
                reloads.refuse(None);
                let sockets: Vec<(Name, SocketAddr)> = reloads.reloader.sockets().collect();
                let (plane, workers, commands) = (plane.clone(), workers.clone(), handle.commands.clone());
                task::spawn_local(async move {
                    let end = drain::drain(&plane, &workers, &sockets).await;
                    drop(commands.send(Command::Drained(end)));
                });
            }
            Some(Command::Drained(end)) => break end,
            Some(Command::Stop) | None => break End::CutOff,
        }
    };
    for worker in &workers {
        drop(worker.send(WorkerCommand::Stop));
    }
    end
}
