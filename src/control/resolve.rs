//! The names of endpoints: one task per name, which looks it up whenever its TTL has passed and tells the control loop
//! when it stands for other endpoints.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, LocalSet};

use crate::base::source::Source;
use crate::base::{clock, task};
use crate::config::model::{Config, Dns};
use crate::control::Command;
use crate::control::family::race;
use crate::control::lookup::{Ask, NameServers};
use crate::upstream::registry::{NameState, Registry};
use crate::upstream::resolve::{Host, Known, Learned, News, until_next};

/// How long a start or a reload waits for the first answer to a name. What is not known by then is a down endpoint.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// Names that are looked up at the same time.
const MOST_LOOKUPS: usize = 64;
/// However short the TTL, which family of a host is used is found out no more often than this, unless it moved.
const BETWEEN_RACES: Duration = Duration::from_secs(10);

/// Hosts of one service that are looked up at the same time.
const MOST_AT_ONCE: usize = 8;
/// Addresses that a log line shows.
const TOLD: usize = 8;

/// The servers of the newest config: `/etc/resolv.conf` may have changed where the config has not.
type CurrentServers = Rc<RefCell<Rc<NameServers>>>;

/// The names that are kept up to date.
pub(super) struct Names {
    dns: Dns,
    servers: CurrentServers,
    running: HashMap<Source, Running>,
    turns: Rc<Semaphore>,
    commands: mpsc::UnboundedSender<Command>,
}

struct Running {
    state: Arc<NameState>,
    since: Instant,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Names {
    pub(super) fn new(dns: &Dns, commands: mpsc::UnboundedSender<Command>) -> Self {
        let servers = current(dns);
        let turns = Rc::new(Semaphore::new(MOST_LOOKUPS));
        Self { dns: dns.clone(), servers, running: HashMap::new(), turns, commands }
    }

    /// Begins to look up what a config names and nobody has asked for; tells until when it is worth waiting for.
    pub(super) fn pending(&mut self, config: &Config, registry: &Registry) -> Option<Instant> {
        // Those of this config, which may not be the ones asked so far.
        let servers = if self.dns == config.dns { self.servers.clone() } else { current(&config.dns) };
        for source in sources(config) {
            self.begin(source, &servers, registry);
        }
        let running = sources(config).filter_map(|source| self.running.get(source));
        let unknown = running.filter(|running| !running.state.known().asked);
        unknown.map(|running| running.since + FIRST_ANSWER).filter(|until| *until > clock::now()).max()
    }

    /// Keeps the names of a config up to date, and no others.
    pub(super) fn follow(&mut self, config: &Config, registry: &Registry) {
        if self.dns == config.dns {
            // Only what is read from the system's files can differ.
            self.servers.replace(Rc::new(NameServers::new(&config.dns)));
        } else {
            // Every task holds those of another config, and its name is looked up anew.
            (self.dns, self.servers) = (config.dns.clone(), current(&config.dns));
            self.running.clear();
        }
        let wanted: HashSet<&Source> = sources(config).collect();
        self.running.retain(|source, _| wanted.contains(source));
        for source in wanted {
            self.begin(source, &self.servers.clone(), registry);
        }
    }

    fn begin(&mut self, source: &Source, servers: &CurrentServers, registry: &Registry) {
        if self.running.contains_key(source) {
            return;
        }
        let (state, commands, turns) = (registry.name(source), self.commands.clone(), self.turns.clone());
        let (name, servers) = (Name { source: source.clone(), state: state.clone() }, servers.clone());
        let task = task::spawn_local(async move {
            let mut raced = None;
            loop {
                // The semaphore is never closed.
                let Ok(turn) = turns.acquire().await else { return };
                let servers = servers.borrow().clone();
                let looked = name.look(&*servers, race_is_due(raced)).await;
                drop(turn);
                raced = if looked.raced { Some(clock::now()) } else { raced };
                if looked.moved || looked.first {
                    // Closed only when the process ends.
                    drop(commands.send(Command::NameKnown { moved: looked.moved }));
                }
                tokio::time::sleep(looked.next).await;
            }
        });
        self.running.insert(source.clone(), Running { state, since: clock::now(), task });
    }
}

fn current(dns: &Dns) -> CurrentServers {
    Rc::new(RefCell::new(Rc::new(NameServers::new(dns))))
}

fn race_is_due(raced: Option<Instant>) -> bool {
    raced.is_none_or(|at| clock::now() - at >= BETWEEN_RACES)
}

/// The names of a config, each as often as it stands there.
fn sources(config: &Config) -> impl Iterator<Item = &Source> {
    let all = config.pools.iter().flat_map(|pool| &pool.endpoints).map(|endpoint| &endpoint.address);
    all.filter(|source| source.address().is_none())
}

/// Looks every name of a config up before the process begins to serve: for [`FIRST_ANSWER`] at most.
///
/// # Errors
/// Where the system gives no runtime.
pub fn first_answers(config: &Config, registry: &Registry) -> std::io::Result<()> {
    let wanted: HashSet<&Source> = sources(config).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let servers = NameServers::new(&config.dns);
        let names = wanted.into_iter().map(|source| Name { source: source.clone(), state: registry.name(source) });
        let all = stream::iter(names).for_each_concurrent(MOST_LOOKUPS, async |name| {
            name.look(&servers, true).await;
        });
        // What is not there by then is looked up again at once by the control plane.
        drop(tokio::time::timeout(FIRST_ANSWER, all).await);
    });
    Ok(())
}

/// A name that is looked up.
struct Name {
    source: Source,
    state: Arc<NameState>,
}

/// What a look-up came to.
struct Looked {
    /// The first one of this name.
    first: bool,
    /// It stands for other endpoints than before.
    moved: bool,
    /// A race between families was held.
    raced: bool,
    /// To the next one.
    next: Duration,
}

impl Name {
    async fn look(&self, servers: &impl Ask, race_is_due: bool) -> Looked {
        let mut learned = Learned::default();
        let hosts: Vec<(Arc<str>, u16)> = match &self.source {
            Source::Address(_) => Vec::new(),
            Source::Host { name, port } => vec![(name.clone(), *port)],
            Source::Service(name) => {
                let found = servers.services(name).await;
                let mut known = self.state.known();
                learned = known.learn_services(found);
                let hosts = known.services.iter().map(|service| (service.target.clone(), service.port));
                hosts.collect::<BTreeSet<_>>().into_iter().collect()
            }
        };
        let looks = hosts.into_iter().map(async |key| {
            let mut host = self.state.known().hosts.get(&key).cloned().unwrap_or_default();
            let (learned, raced) = look_at(&mut host, &key, servers, race_is_due).await;
            self.state.known().hosts.insert(key, host);
            (learned, raced)
        });
        let mut raced = false;
        let mut looks = stream::iter(looks).buffer_unordered(MOST_AT_ONCE);
        while let Some((of_host, has_raced)) = looks.next().await {
            learned = learned.and(of_host);
            raced |= has_raced;
        }
        let mut known = self.state.known();
        let first = !known.asked;
        let news = known.close(&self.source, learned, clock::unix_millis());
        let next = until_next(learned, known.failures, fastrand::f64());
        tell(&self.source, &known, news);
        Looked { first, moved: news.moved, raced, next }
    }
}

/// Asks for both families of a host, and finds out which to use where it has both.
async fn look_at(
    host: &mut Host,
    (name, port): &(Arc<str>, u16),
    servers: &impl Ask,
    race_is_due: bool,
) -> (Learned, bool) {
    let before = host.clone();
    let (v4, v6) = tokio::join!(servers.v4(name), servers.v6(name));
    let learned = host.learn(v4, v6);
    let races = host.is_dual() && (race_is_due || *host != before);
    if races {
        host.family = race(host, *port).await.or(host.family);
    }
    (learned, races)
}

/// Once per change, and not per look-up.
fn tell(source: &Source, known: &Known, news: News) {
    match known.fault {
        Some(fault) if news.turned => {
            let goes_on = match known.targets.is_empty() {
                true => "it has no endpoint".to_owned(),
                false => format!("its last good answer goes on, with {} endpoints", known.targets.len()),
            };
            tracing::warn!(name = %source, reason = fault.as_str(), "a name cannot be looked up: {goes_on}");
        }
        None if news.turned => tracing::info!(name = %source, "the name can be looked up again"),
        _ => {}
    }
    if news.moved {
        let addresses: Vec<String> = known.targets.iter().take(TOLD).map(|target| target.address.to_string()).collect();
        let more = if known.targets.len() > TOLD { ", .." } else { "" };
        tracing::info!(name = %source, "the name stands for {}{more}", addresses.join(", "));
    }
}
