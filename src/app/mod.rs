//! Floor 9: joins server and control to one process, and ends it in good order.

mod run;
mod socket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

pub use run::{BAD_CONFIG, run};

use crate::admin::{self, Door};
use crate::base::address::Address;
use crate::base::clock;
use crate::config::load::{self, Loaded};
use crate::config::model::{Config, Name};
use crate::control::receipts::{Cause, Receipt};
use crate::control::reload::{access_log_fault, bind_fault, listener_fault};
use crate::control::traffic::FailbackRefused;
use crate::control::{self, End, Gone, Handle, Setup};
use crate::server::{listener, worker};
use crate::snapshot::plane::{Plane, WorkerCommand};
use crate::snapshot::{Carried, Snapshot};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;

/// How long threads may take to end when nobody wants to wait.
const HASTE: Duration = Duration::from_millis(500);

/// What a process is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The config file.
    pub config: PathBuf,
    /// Worker threads; the config's number unless given.
    pub workers: Option<usize>,
}

/// The config cannot be used: the exit code is 78 (`EX_CONFIG`).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// Nothing was cut off.
    Clean,
    /// The deadline came, or somebody was in a hurry.
    Forced,
    /// A thread that must not end has ended.
    Failed,
}

/// A running headgate.
pub struct Running {
    /// Each listener with the address that it is bound to.
    pub listeners: Vec<(Name, SocketAddr)>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Where the admin API is served.
    pub admin: Option<Address>,
    handle: Handle,
    workers: Vec<JoinHandle<()>>,
    control: JoinHandle<End>,
}

/// Starts headgate and returns when it listens.
///
/// # Errors
/// [`BadConfig`] where the config cannot be used; else what the system refused, and what to do.
pub fn start(options: Options) -> anyhow::Result<Running> {
    let loaded = load::load(&options.config).map_err(|faults| BadConfig(faults.to_string()))?;
    let Loaded { config, warnings, files } = loaded;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let usable = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let count = options.workers.or(config.process.workers.map(|count| count.get())).unwrap_or_else(usable).max(1);
    let access_log = AccessLog::start(&config.access_log)
        .map_err(|error| anyhow::anyhow!(access_log_fault(&config.access_log, &error)))?;
    let carried = Carried::new();
    control::resolve::first_answers(&config, &carried.registry).context("names could not be looked up")?;
    let snapshot = Snapshot::build(1, config.clone(), &carried).map_err(|error| BadConfig(error.to_string()))?;
    // What can fail comes before the listeners: where ports are shared, clients come as soon as one is bound.
    let mut doors = Doors::open(&config)?;
    let mut sockets = Vec::new();
    for spec in &config.listeners {
        let made = listener::bind(spec.address, count, !config.process.share_ports)
            .map_err(|error| anyhow::anyhow!(listener_fault(&(spec.name.clone(), spec.address), &error)))?;
        sockets.push((spec.name.clone(), spec.address, made));
    }
    doors.take_place()?;
    let bound = |made: &[std::net::TcpListener], address| {
        made.first().and_then(|socket| socket.local_addr().ok()).unwrap_or(address)
    };
    let listeners = sockets.iter().map(|(name, address, made)| (name.clone(), bound(made, *address))).collect();
    let (metrics_address, admin_address) = (doors.metrics_address(), doors.admin_address.clone());

    carried.keep(&snapshot);
    let plane = Arc::new(Plane::new(snapshot, carried, Metrics::new(), access_log, count));
    control::gauges::install(&plane);
    let mut senders = Vec::with_capacity(count);
    let mut threads = Vec::with_capacity(count);
    for index in 0..count {
        let worker = worker::spawn(index, plane.clone()).context("a worker could not be started")?;
        senders.push(worker.commands);
        threads.push(worker.thread);
    }
    for (name, address, made) in sockets {
        for (worker, socket) in senders.iter().zip(made) {
            let (listener, snapshot) = (name.clone(), plane.snapshot.load_full());
            drop(worker.send(WorkerCommand::Listen { listener, address, socket, snapshot }));
        }
    }
    let started = Receipt {
        cause: Cause::Start,
        at_unix_ms: clock::unix_millis(),
        generation: 1,
        ok: true,
        changes: Vec::new(),
        pools_kept: 0,
        connections_kept: 0,
        warnings: warnings.iter().map(ToString::to_string).collect(),
        faults: Vec::new(),
    };
    plane.metrics.reload(true, started.at_unix_ms / 1000, 1);
    let setup = Setup { path: options.config, files, plane, workers: senders, bind: Box::new(listener::bind), started };
    let (handle, control) = control::start(setup, Box::new(move |handle| doors.serve(&handle)))?;
    Ok(Running { listeners, metrics: metrics_address, admin: admin_address, handle, workers: threads, control })
}

impl Running {
    /// Loads the config now.
    ///
    /// # Errors
    /// [`Gone`] where the process is on its way out.
    pub fn reload(&self) -> Result<Receipt, Gone> {
        self.handle.reload_blocking(Cause::Admin)
    }

    /// What loads of the config came to, newest first.
    pub fn receipts(&self) -> Vec<Receipt> {
        self.handle.receipts.all()
    }

    /// Lets a pool's traffic go back to what it was taken from, as `Handle::failback` does.
    ///
    /// # Errors
    /// Where there is nothing to go back from or to.
    pub fn failback(&self, pool: &str) -> Result<(), FailbackRefused> {
        self.handle.failback(pool)
    }

    /// Begins the end.
    pub fn drain(&self) {
        self.handle.drain();
    }

    /// Drains and waits for the end.
    pub fn shutdown(self) -> ExitKind {
        self.handle.drain();
        self.join()
    }

    fn join(self) -> ExitKind {
        // A thread that panicked has told so; the others end all the same.
        let kind = match self.control.join() {
            Ok(End::Drained) => ExitKind::Clean,
            Ok(End::CutOff) => ExitKind::Forced,
            Err(_) => ExitKind::Failed,
        };
        for worker in self.workers {
            drop(worker.join());
        }
        self.handle.plane.access_log.flush_and_stop(Duration::from_secs(2));
        kind
    }

    /// Closes everything now. What does not end by itself in [`HASTE`] is left behind.
    fn stop(self) {
        self.handle.stop();
        let began = clock::now();
        let runs = || self.workers.iter().any(|thread| !thread.is_finished()) || !self.control.is_finished();
        while runs() && clock::now() - began < HASTE {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.handle.plane.access_log.flush_and_stop(HASTE);
    }
}

/// The bound sockets of the HTTP servers for operators.
struct Doors {
    metrics: Option<std::net::TcpListener>,
    admin: Option<Door>,
    admin_address: Option<Address>,
    /// Where the unix socket is while another headgate still has its place.
    beside: Option<PathBuf>,
}

impl Doors {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let takes_over = config.process.share_ports;
        let fault = |key: &str, address: &Address, error| anyhow::anyhow!(bind_fault(key, address, &error));
        let tcp = |key: &str, address: SocketAddr| {
            let made = listener::bind(address, 1, !takes_over);
            let made = made.map_err(|error| fault(key, &Address::Tcp(address), error))?;
            made.into_iter().next().with_context(|| format!("{key}: {address} gave no socket"))
        };
        let metrics = config.metrics.as_ref().map(|server| tcp("metrics.address", server.address)).transpose()?;
        let (mut admin, mut admin_address, mut beside) = (None, None, None);
        match config.admin.as_ref().map(|admin| &admin.address) {
            None => {}
            Some(Address::Tcp(address)) => {
                let listener = tcp("admin.address", *address)?;
                admin_address = Some(Address::Tcp(listener.local_addr()?));
                admin = Some(Door::Tcp(listener));
            }
            Some(address @ Address::Unix(path)) => {
                let listening = socket::listen(path, takes_over);
                let (listener, bound) = listening.map_err(|error| fault("admin.address", address, error))?;
                beside = (bound != *path).then_some(bound);
                admin_address = Some(Address::Unix(path.clone()));
                admin = Some(Door::Unix(listener, path.clone()));
            }
        }
        Ok(Self { metrics, admin, admin_address, beside })
    }

    /// Takes the place of the headgate that is taken over from.
    fn take_place(&mut self) -> anyhow::Result<()> {
        if let (Some(beside), Some(Door::Unix(_, path))) = (self.beside.take(), &self.admin) {
            let moved = std::fs::rename(&beside, path);
            moved.with_context(|| format!("admin.address: {} cannot be renamed", beside.display()))?;
        }
        Ok(())
    }

    fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    fn serve(self, handle: &Handle) {
        if let Some(listener) = self.metrics {
            admin::serve(Door::Tcp(listener), admin::metrics_router(handle.clone()));
        }
        if let Some(door) = self.admin {
            let tcp = matches!(door, Door::Tcp(_));
            admin::serve(door, admin::admin_router(handle.clone(), tcp));
        }
    }
}
