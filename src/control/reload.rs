//! Loads a config and puts it in place, whole or not at all.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::base::address::Address;
use crate::base::clock;
use crate::config::diagnostic::Severity;
use crate::config::diff::diff;
use crate::config::load::{self, Loaded, SourceFile};
use crate::config::model::{AccessLog, AccessLogOutput, Config, Name};
use crate::control::probes::Probes;
use crate::control::receipts::{Cause, Receipt};
use crate::control::resolve::Names;
use crate::control::watch::Watch;
use crate::control::{Command, Setup};
use crate::snapshot::plane::{Plane, WorkerCommand};
use crate::snapshot::{BuildError, Snapshot};

type SocketKey = (Name, SocketAddr);

/// What becomes of the sockets when a config is applied.
#[derive(Default)]
struct NewSockets {
    renamed: Vec<(SocketKey, Name)>,
    bound: Vec<(SocketKey, Vec<TcpListener>)>,
    gone: Vec<SocketKey>,
}

/// Owns what a reload changes beside the snapshot: sockets, probes, the watch.
pub(super) struct Reloader {
    setup: Setup,
    sockets: BTreeSet<SocketKey>,
    probes: Probes,
    watch: Watch,
    names: Names,
    /// The files of the last load, applied or refused, as they were read: a refusal is told once.
    known: Vec<SourceFile>,
    /// What the process began with, and still has where only a restart changes it.
    began_with: Arc<Config>,
}

/// What one try at a reload came to.
pub(super) enum Attempt {
    /// Applied or refused.
    Done(Receipt),
    /// The files may be between two states: a certificate without its key yet, a config that was moved away.
    Unsettled(Vec<String>),
    /// It names endpoints that are being looked up: worth waiting for until then.
    NamesPending(Instant),
}

impl Reloader {
    pub(super) fn new(setup: Setup, commands: mpsc::UnboundedSender<Command>) -> Self {
        let snapshot = setup.plane.snapshot.load_full();
        let mut probes = Probes::default();
        probes.follow(&snapshot);
        let mut names = Names::new(&snapshot.config.dns, commands.clone());
        names.follow(&snapshot.config, &setup.plane.carried.registry);
        let mut watch = Watch::start(commands);
        watch.follow(&setup.path, &setup.files);
        let began_with = snapshot.config.clone();
        Self { sockets: wanted(&snapshot.config), probes, watch, names, known: setup.files.clone(), began_with, setup }
    }

    /// Where the planes meet.
    pub(super) fn plane(&self) -> Arc<Plane> {
        self.setup.plane.clone()
    }

    /// The sockets that are open.
    pub(super) fn sockets(&self) -> impl Iterator<Item = SocketKey> {
        self.sockets.iter().cloned()
    }

    /// Whether any file has other bytes than at the last load.
    pub(super) fn files_differ(&mut self) -> bool {
        // What was moved or swapped may stand elsewhere now, with the same content.
        self.watch.follow(&self.setup.path, &self.known);
        !load::unchanged(&self.known)
    }

    /// Loads the config and publishes it, or tells why not.
    pub(super) fn attempt(&mut self, cause: Cause) -> Attempt {
        let (files, outcome) = match load::load(&self.setup.path) {
            Ok(loaded) if let Some(until) = self.names.pending(&loaded.config, &self.setup.plane.carried.registry) => {
                self.remember(loaded.files);
                return Attempt::NamesPending(until);
            }
            Ok(loaded) => (loaded.files.clone(), self.build(&loaded).map(|snapshot| (loaded, snapshot)).map_err(Ok)),
            Err(faults) => (faults.files, Err(Err(faults.diagnostics))),
        };
        self.remember(files);
        // Behind `remember`: what changes from here on is seen by the watch.
        if !load::unchanged(&self.known) {
            return Attempt::Unsettled(vec!["the files change faster than they can be read".to_owned()]);
        }
        match outcome {
            Ok((loaded, snapshot)) => {
                let applied = self.apply(cause, &loaded, snapshot);
                Attempt::Done(applied.unwrap_or_else(|fault| self.refuse(cause, vec![fault])))
            }
            Err(Ok(torn)) => Attempt::Unsettled(vec![torn.to_string()]),
            Err(Err(found)) => {
                let told = found.iter().map(ToString::to_string).collect();
                // A file that is not there may come yet; every other fault is somebody's mistake.
                match found.iter().all(|found| found.severity == Severity::Warning || found.code == "file") {
                    true => Attempt::Unsettled(told),
                    false => Attempt::Done(self.refuse(cause, told)),
                }
            }
        }
    }

    fn apply(&mut self, cause: Cause, loaded: &Loaded, snapshot: Snapshot) -> Result<Receipt, String> {
        let sockets = self.bind(&loaded.config)?;
        let old = self.setup.plane.snapshot.load_full();
        if old.config.access_log != loaded.config.access_log {
            let changed = self.setup.plane.access_log.reconfigure(&loaded.config.access_log);
            changed.map_err(|error| access_log_fault(&loaded.config.access_log, &error))?;
        }
        Ok(self.publish(cause, loaded, snapshot, sockets, &old))
    }

    fn build(&self, loaded: &Loaded) -> Result<Snapshot, BuildError> {
        let plane = &self.setup.plane;
        Snapshot::build(plane.snapshot.load().generation + 1, loaded.config.clone(), &plane.carried)
    }

    fn remember(&mut self, files: Vec<SourceFile>) {
        self.watch.follow(&self.setup.path, &files);
        self.known = files;
    }

    /// Binds what the config needs and is not there. Nothing is handed over yet.
    fn bind(&self, config: &Config) -> Result<NewSockets, String> {
        let workers = self.setup.workers.len();
        // By port: `0.0.0.0:80` cannot be proven free while a listener of ours still has `127.0.0.1:80`.
        let ours: BTreeSet<u16> = self.sockets.iter().map(|(_, address)| address.port()).collect();
        let wanted = wanted(config);
        let mut gone: BTreeSet<&SocketKey> = self.sockets.difference(&wanted).collect();
        let mut new = NewSockets::default();
        for key in wanted.difference(&self.sockets) {
            // An address that only goes to another name keeps its socket, and so what waits in its queue.
            if let Some(before) = gone.iter().copied().find(|before| before.1 == key.1) {
                gone.remove(before);
                new.renamed.push((before.clone(), key.0.clone()));
                continue;
            }
            let prove_free = !config.process.share_ports && !ours.contains(&key.1.port());
            let sockets = (self.setup.bind)(key.1, workers, prove_free).map_err(|error| listener_fault(key, &error))?;
            new.bound.push((key.clone(), sockets));
        }
        new.gone = gone.into_iter().cloned().collect();
        Ok(new)
    }

    /// Tells the workers what to accept on from now on.
    fn hand_over(&self, new: NewSockets, snapshot: &Arc<Snapshot>) {
        let workers = &self.setup.workers;
        for ((from, address), to) in new.renamed {
            for worker in workers {
                let (from, to, snapshot) = (from.clone(), to.clone(), snapshot.clone());
                drop(worker.send(WorkerCommand::Rename { from, to, address, snapshot }));
            }
        }
        for ((listener, address), made) in new.bound {
            for (worker, socket) in workers.iter().zip(made) {
                let (listener, snapshot) = (listener.clone(), snapshot.clone());
                drop(worker.send(WorkerCommand::Listen { listener, address, socket, snapshot }));
            }
        }
        for (listener, address) in new.gone {
            for worker in workers {
                drop(worker.send(WorkerCommand::Unlisten { listener: listener.clone(), address }));
            }
        }
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
        self.put_in_place(&snapshot);
        self.hand_over(sockets, &snapshot);
        self.sockets = wanted(&loaded.config);
        self.names.follow(&loaded.config, &plane.carried.registry);
        let before: HashMap<_, _> = old.config.pools.iter().map(|pool| (&pool.name, pool)).collect();
        let receipt = Receipt {
            cause,
            at_unix_ms: clock::unix_millis(),
            generation: snapshot.generation,
            ok: true,
            changes: diff(&old.config, &loaded.config).iter().map(ToString::to_string).collect(),
            pools_kept: loaded.config.pools.iter().filter(|pool| before.get(&pool.name) == Some(pool)).count(),
            connections_kept: plane.connections.taken(),
            warnings: loaded
                .warnings
                .iter()
                .map(ToString::to_string)
                .chain(needs_restart(&self.began_with, &loaded.config))
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

    /// Publishes the same config anew, for what lives outside it: orders of operators, and what names stand for. The
    /// generation counts configs, so it stays.
    pub(super) fn renew(&mut self) {
        let plane = &self.setup.plane;
        let snapshot = Arc::new(plane.snapshot.load().renewed(&plane.carried));
        self.put_in_place(&snapshot);
    }

    /// Requests begin with this snapshot from here on.
    fn put_in_place(&mut self, snapshot: &Arc<Snapshot>) {
        let plane = &self.setup.plane;
        plane.carried.keep(snapshot);
        plane.snapshot.store(snapshot.clone());
        self.probes.follow(snapshot);
        plane.carried.registry.sweep(&snapshot.pools);
    }

    /// The receipt of a config that was not applied.
    pub(super) fn refuse(&mut self, cause: Cause, faults: Vec<String>) -> Receipt {
        let plane = &self.setup.plane;
        // The names that only it has are looked up no longer.
        self.names.follow(&plane.snapshot.load().config, &plane.carried.registry);
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
            connections_kept: plane.connections.taken(),
            warnings: Vec::new(),
            faults,
        }
    }
}

fn wanted(config: &Config) -> BTreeSet<SocketKey> {
    config.listeners.iter().map(|listener| (listener.name.clone(), listener.address)).collect()
}

/// What differs from what the process `began_with` and stays so until it is restarted.
fn needs_restart<'a>(began_with: &'a Config, new: &'a Config) -> impl Iterator<Item = String> + use<'a> {
    [
        ("process.workers", began_with.process.workers != new.process.workers),
        ("metrics.address", began_with.metrics != new.metrics),
        ("admin.address", began_with.admin != new.admin),
    ]
    .into_iter()
    .filter(|(_, changed)| *changed)
    .map(|(key, _)| format!("{key} changes only with a restart"))
}

/// Why the access log has no output, and what to do.
pub fn access_log_fault(settings: &AccessLog, error: &io::Error) -> String {
    let place = match &settings.output {
        AccessLogOutput::Stdout => "standard output".to_owned(),
        AccessLogOutput::File(path) => path.display().to_string(),
    };
    let help = match error.kind() {
        io::ErrorKind::NotFound => "make its directory first, or name another file",
        io::ErrorKind::PermissionDenied => "let headgate's user write there, or name another file",
        _ => "name a file that can be appended to, or \"stdout\"",
    };
    format!("access_log.output: cannot open {place}: {error}; {help}")
}

/// Why a listener has no socket, and what to do.
pub fn listener_fault((name, address): &SocketKey, error: &io::Error) -> String {
    bind_fault(&format!("listeners.{name}"), &Address::Tcp(*address), error)
}

/// Why there is no socket for a `key` of the config, and what to do.
pub fn bind_fault(key: &str, address: &Address, error: &io::Error) -> String {
    let help = match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => {
            "another process listens there: stop it, or choose another port (to take over from it: process.share_ports)"
        }
        (_, Address::Unix(_)) => "check its directory and rights",
        (io::ErrorKind::PermissionDenied, _) => {
            "ports below 1024 need the right to bind them: choose a higher one, or give CAP_NET_BIND_SERVICE"
        }
        (io::ErrorKind::AddrNotAvailable, _) => "this machine has no such address: use one of its own, or 0.0.0.0",
        _ => "check the address",
    };
    format!("{key}: cannot listen on {address}: {error}; {help}")
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
