//! Loads a config and puts it in place, whole or not at all.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::base::clock;
use crate::config::diff::diff;
use crate::config::load::{self, Loaded, SourceFile};
use crate::config::model::{Config, Name};
use crate::control::probes::Probes;
use crate::control::receipts::{Cause, Receipt};
use crate::control::watch::Watch;
use crate::control::{Command, Setup};
use crate::snapshot::plane::WorkerCommand;
use crate::snapshot::{BuildError, Snapshot};

/// A certificate and its key are two files, and somebody may be between the two.
const TLS_RETRIES: u32 = 3;
const TLS_RETRY_AFTER: Duration = Duration::from_millis(500);

type SocketKey = (Name, SocketAddr);
type NewSockets = Vec<(SocketKey, Vec<TcpListener>)>;

/// Owns what a reload changes beside the snapshot: sockets, probes, the watch.
pub(super) struct Reloader {
    setup: Setup,
    sockets: BTreeSet<SocketKey>,
    probes: Probes,
    watch: Watch,
    /// Of the files of the last load, applied or refused: a refusal is told once.
    fingerprint: u64,
}

impl Reloader {
    pub(super) fn new(setup: Setup, commands: mpsc::UnboundedSender<Command>) -> Self {
        let snapshot = setup.plane.snapshot.load_full();
        let mut probes = Probes::default();
        probes.follow(&snapshot);
        let mut watch = Watch::start(commands);
        watch.follow(&setup.path, &setup.files);
        let fingerprint = load::fingerprint(&setup.files);
        Self { sockets: wanted(&snapshot.config), probes, watch, fingerprint, setup }
    }

    /// The sockets that are open.
    pub(super) fn sockets(&self) -> impl Iterator<Item = SocketKey> {
        self.sockets.iter().cloned()
    }

    /// Whether any file has other bytes than at the last load.
    pub(super) fn files_differ(&self) -> bool {
        let files = match load::load(&self.setup.path) {
            Ok(loaded) => loaded.files,
            Err(faults) => faults.files,
        };
        load::fingerprint(&files) != self.fingerprint
    }

    /// Loads the config and publishes it, or tells why not.
    pub(super) async fn reload(&mut self, cause: Cause) -> Receipt {
        let mut tries = 0;
        let (loaded, snapshot) = loop {
            let loaded = match load::load(&self.setup.path) {
                Ok(loaded) => loaded,
                Err(faults) => {
                    self.remember(&faults.files);
                    let faults = faults.diagnostics.iter().map(ToString::to_string).collect();
                    return self.refuse(cause, faults);
                }
            };
            match self.build(&loaded) {
                Ok(snapshot) => break (loaded, snapshot),
                Err(_) if tries < TLS_RETRIES => {
                    tries += 1;
                    tokio::time::sleep(TLS_RETRY_AFTER).await;
                }
                Err(error) => {
                    self.remember(&loaded.files);
                    return self.refuse(cause, vec![error.to_string()]);
                }
            }
        };
        self.remember(&loaded.files);
        let sockets = match self.bind(&loaded.config) {
            Ok(sockets) => sockets,
            Err(fault) => return self.refuse(cause, vec![fault]),
        };
        let old = self.setup.plane.snapshot.load_full();
        if old.config.access_log != loaded.config.access_log
            && let Err(error) = self.setup.plane.access_log.reconfigure(&loaded.config.access_log)
        {
            return self.refuse(cause, vec![format!("access_log: the output cannot be opened: {error}")]);
        }
        self.publish(cause, &loaded, snapshot, sockets, &old)
    }

    fn build(&self, loaded: &Loaded) -> Result<Snapshot, BuildError> {
        let plane = &self.setup.plane;
        Snapshot::build(plane.snapshot.load().generation + 1, loaded.config.clone(), &plane.carried)
    }

    fn remember(&mut self, files: &[SourceFile]) {
        self.fingerprint = load::fingerprint(files);
        self.watch.follow(&self.setup.path, files);
    }

    /// Binds what the config needs and is not there. Nothing is handed over yet.
    fn bind(&self, config: &Config) -> Result<NewSockets, String> {
        let workers = self.setup.workers.len();
        let ours: BTreeSet<SocketAddr> = self.sockets.iter().map(|(_, address)| *address).collect();
        let mut made = Vec::new();
        for key in wanted(config).difference(&self.sockets) {
            // An address that a listener of another name gives up is ours, and still open.
            let sockets = (self.setup.bind)(key.1, workers, !ours.contains(&key.1))
                .map_err(|error| bind_fault(&key.0, key.1, &error))?;
            made.push((key.clone(), sockets));
        }
        Ok(made)
    }

    fn publish(
        &mut self,
        cause: Cause,
        loaded: &Loaded,
        snapshot: Snapshot,
        sockets: NewSockets,
        old: &Snapshot,
    ) -> Receipt {
        let plane = self.setup.plane.clone();
        let snapshot = Arc::new(snapshot);
        plane.snapshot.store(snapshot.clone());
        let wanted = wanted(&loaded.config);
        for ((listener, address), made) in sockets {
            for (worker, socket) in self.setup.workers.iter().zip(made) {
                drop(worker.send(WorkerCommand::Listen { listener: listener.clone(), address, socket }));
            }
        }
        for (listener, address) in self.sockets.difference(&wanted) {
            for worker in &self.setup.workers {
                drop(worker.send(WorkerCommand::Unlisten { listener: listener.clone(), address: *address }));
            }
        }
        self.sockets = wanted;
        self.probes.follow(&snapshot);
        plane.carried.registry.sweep();
        let before: HashMap<_, _> = old.config.pools.iter().map(|pool| (&pool.name, pool)).collect();
        let receipt = Receipt {
            cause,
            at_unix_ms: clock::unix_millis(),
            generation: snapshot.generation,
            ok: true,
            changes: diff(&old.config, &loaded.config).iter().map(ToString::to_string).collect(),
            pools_kept: loaded.config.pools.iter().filter(|pool| before.get(&pool.name) == Some(pool)).count(),
            connections_kept: plane.connections.load(Ordering::Relaxed),
            warnings: loaded
                .warnings
                .iter()
                .map(ToString::to_string)
                .chain(needs_restart(&old.config, &loaded.config))
                .collect(),
            faults: Vec::new(),
        };
        plane.metrics.reload(true, receipt.at_unix_ms / 1000, receipt.generation);
        let changes = receipt.changes.join("; ");
        tracing::info!(?cause, generation = receipt.generation, "config applied: {changes}");
        for warning in &receipt.warnings {
            tracing::warn!("{warning}");
        }
        receipt
    }

    /// The receipt of a config that was not applied.
    pub(super) fn refuse(&self, cause: Cause, faults: Vec<String>) -> Receipt {
        let plane = &self.setup.plane;
        let at_unix_ms = clock::unix_millis();
        let generation = plane.snapshot.load().generation;
        plane.metrics.reload(false, at_unix_ms / 1000, generation);
        for fault in &faults {
            tracing::error!(?cause, "config refused: {fault}");
        }
        tracing::warn!("generation {generation} goes on serving");
        Receipt {
            cause,
            at_unix_ms,
            generation,
            ok: false,
            changes: Vec::new(),
            pools_kept: plane.snapshot.load().pools.len(),
            connections_kept: plane.connections.load(Ordering::Relaxed),
            warnings: Vec::new(),
            faults,
        }
    }
}

fn wanted(config: &Config) -> BTreeSet<SocketKey> {
    config.listeners.iter().map(|listener| (listener.name.clone(), listener.address)).collect()
}

fn needs_restart<'a>(old: &'a Config, new: &'a Config) -> impl Iterator<Item = String> + use<'a> {
    [
        ("process.workers", old.process.workers != new.process.workers),
        ("metrics.address", old.metrics != new.metrics),
        ("admin.address", old.admin != new.admin),
    ]
    .into_iter()
    .filter(|(_, changed)| *changed)
    .map(|(key, _)| format!("{key} changes only with a restart"))
}

/// Why a listener has no socket, and what to do.
pub fn bind_fault(listener: &str, address: SocketAddr, error: &io::Error) -> String {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the right to bind them: choose a higher one, or give CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: use one of its own, or 0.0.0.0",
        _ => "check the address",
    };
    format!("listeners.{listener}: cannot listen on {address}: {error}; {help}")
}

#[cfg(test)]
mod tests {
    use crate::config::load::parse_text;
    use crate::config::reference;

    #[test]
    fn what_needs_a_restart_is_what_the_reference_says() {
        let config = |more: &str| {
            let text = format!("config_version = 1\nlisteners.a.address = \"127.0.0.1:0\"\n{more}");
            parse_text("t.toml", &text, &|_| None).unwrap().0
        };
        let new = "process.workers = 3\nmetrics.address = \"127.0.0.1:1\"\nadmin.address = \"127.0.0.1:2\"";
        let mut told: Vec<String> = super::needs_restart(&config(""), &config(new)).collect();
        let keys = reference::facts().into_iter().filter(|(_, fact)| fact.needs_restart);
        let mut known: Vec<String> = keys.map(|(key, _)| format!("{key} changes only with a restart")).collect();
        told.sort();
        known.sort();
        assert_eq!(told, known);
    }
}
