//! Everything together: planned, started in order, introduced, stopped in reverse order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::apps::Apps;
use crate::client::Client;
use crate::database::{Plan, Store};
use crate::front::Front;
use crate::home::Home;
use crate::options::Options;
use crate::ports::Ports;
use crate::process::Supervisor;
use crate::table::Table;
use crate::terminal::{Paint, say, shown};

/// The host name everything is asked under; it resolves to loopback in browsers (RFC 6761, section 6.3).
pub const HOST: &str = "notes.localhost";

/// A scene that is planned: nothing of it runs yet.
#[derive(Debug)]
pub struct Scene {
    home: Arc<Home>,
    supervisor: Supervisor,
    ports: Ports,
    plan: Plan,
    headgate: PathBuf,
    notes: PathBuf,
    certificates: PathBuf,
    config: PathBuf,
}

/// A scene that runs.
#[derive(Debug)]
pub struct Running {
    /// What the notes are kept in.
    pub store: Store,
    /// The app servers.
    pub apps: Apps,
    /// headgate.
    pub front: Front,
    /// Talks to headgate.
    pub client: Client,
}

impl Scene {
    /// Finds the programs, takes the data directory, ends leftovers of an earlier run, and finds the ports free.
    pub fn prepare(options: &Options) -> Result<Self> {
        let headgate = program("headgate", options.headgate.as_deref())?;
        let notes = program("notes", options.notes.as_deref())?;
        let plan = Plan::choose(options.store)?;
        let home = Arc::new(Home::open(&options.data)?);
        let ports = Ports::plan(options, matches!(plan, Plan::Pair(_)))?;
        Ok(Self {
            supervisor: Supervisor::new(Arc::clone(&home)),
            home,
            ports,
            plan,
            headgate,
            notes,
            certificates: options.certs.clone(),
            config: options.config.clone(),
        })
    }

    /// Starts everything: the store, the app servers, headgate; each ready before the next begins.
    pub async fn start(&self) -> Result<Running> {
        match &self.plan {
            Plan::Pair(engine) => say(format_args!("Starting a primary and a replica ({})", engine.label())),
            Plan::Sqlite(None) => say("Storing in SQLite: one file for all app servers, no replica"),
            Plan::Sqlite(Some(why)) => {
                say(format_args!("Storing in SQLite, because {why}: one file for all app servers"))
            }
        }
        let store = self.plan.start(&self.home, &self.supervisor, &self.ports).await?;
        say("Starting the app servers");
        let apps = Apps::start(&self.notes, &store, &self.ports, &self.supervisor).await?;
        say("Starting headgate");
        let front =
            Front::start(&self.headgate, &self.certificates, &self.config, &self.home, &self.ports, &self.supervisor)
                .await?;
        let client = Client::new(HOST, front.https(), &front.authority())?;
        Ok(Running { store, apps, front, client })
    }

    /// The processes.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Says what runs where.
    pub fn introduce(&self, running: &Running) {
        let paint = Paint::stdout();
        let mut table = Table::new(&["name", "role", "address", "pid", "log"]);
        for process in self.supervisor.all() {
            let spec = process.spec();
            table.row([
                spec.name.to_owned(),
                spec.role.clone(),
                spec.address.clone(),
                process.pid().to_string(),
                shown(process.log()),
            ]);
        }
        if let Store::Sqlite(file) = &running.store {
            table.row(["store".to_owned(), "SQLite".to_owned(), shown(file)]);
        }
        say(format_args!("\n{}", table.render(paint)));
        let line = |name: &str, text: &str| say(format_args!("  {} {text}", paint.strong(&format!("{name:<10}"))));
        line("notes", &running.client.url("/"));
        line("metrics", &format!("http://{}/metrics", self.ports.metrics));
        line("config", &shown(running.front.config()));
        line("access log", &format!("{}\n", shown(&self.home.log("access"))));
    }

    /// Says what a person can try while it serves.
    pub fn suggest(&self, running: &Running) {
        let faint = |text: &str| Paint::stdout().faint(text);
        let (headgate, config) = (shown(&self.headgate), shown(running.front.config()));
        let authority = shown(&running.front.authority());
        say("Serving; Ctrl-C stops everything. To try, in another terminal:");
        say(format_args!("  curl --cacert {authority} {}", running.client.url("/api/notes")));
        say(format_args!("  export HEADGATE_CONFIG={config}"));
        say(format_args!("  {headgate} status"));
        say(format_args!("  {headgate} explain GET {}", running.client.url("/api/notes/1")));
        let [first, _] = running.apps.read();
        if let Some(process) = self.supervisor.all().iter().find(|process| process.spec().name == first.name) {
            let effect = faint(&format!("# {}: no request fails", first.name));
            say(format_args!("  kill -9 {}  {effect}", process.pid()));
        }
        let effect = faint("# applied as it is saved; with a fault in it, refused whole");
        say(format_args!("  ${{EDITOR:-nano}} {config}  {effect}"));
        say(format_args!(
            "A browser warns of the development certificate: go on, or let it trust {authority}.\n\
             What ends, and what headgate logs, is shown here from now on.\n"
        ));
    }

    /// Stops everything, in order.
    pub async fn stop(&self) {
        self.supervisor.stop_all().await;
        say(format_args!("Everything is stopped; data and logs are in {}", shown(self.home.root())));
    }

    /// Ends everything at once.
    pub fn kill(&self) {
        self.supervisor.kill_all();
    }
}

/// A program that was named, or is beside this one.
fn program(name: &str, given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("cannot find this program's own file")?.with_file_name(name),
    };
    ensure!(path.is_file(), "{} is missing; build it (make build), or give its path with --{name}", path.display());
    path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))
}
