//! Where the app servers keep their notes: a primary with one read replica, or one SQLite file.
//!
//! The pair is started from nothing or from what an earlier run left. A server's data directory counts as made
//! when its marker file is there, which is written last; without it the directory is deleted and made again. The
//! replica's marker repeats the primary's: when the primary was made again, so is the replica. Binary logs are
//! never purged, so an empty replica can always catch up from the first event.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};

use crate::database::engine::{Engine, Member};
use crate::home::Home;
use crate::options::StoreChoice;
use crate::ports::Ports;
use crate::process::{Process, Spec, Supervisor};
use crate::terminal::say;

pub mod engine;
mod mariadb;
mod mysql;

/// Crash recovery of a busy pair is included.
const READY_WITHIN: Duration = Duration::from_secs(60);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(30);
/// A server flushes its pages on the way out.
const STOP_GRACE: Duration = Duration::from_secs(30);
const ADMINISTRATOR: &str = "stack";
const MARKER: &str = "made-by-stack";

/// What the notes are kept in.
#[derive(Debug)]
pub enum Store {
    /// A primary and its replica.
    Pair(Pair),
    /// One file, which all app servers share.
    Sqlite(PathBuf),
}

/// A store that was chosen and not started yet.
#[derive(Debug)]
pub enum Plan {
    /// A pair of these servers.
    Pair(Engine),
    /// One file; why, when it was not asked for.
    Sqlite(Option<&'static str>),
}

/// A running primary and replica.
#[derive(Debug)]
pub struct Pair {
    engine: Engine,
    primary: SocketAddr,
    replica: SocketAddr,
    password: String,
}

// === impl Plan ===

impl Plan {
    /// Chooses the store; a pair that was asked for and cannot be had is a failure.
    pub fn choose(choice: StoreChoice) -> Result<Self> {
        match (choice, Engine::find()?) {
            (StoreChoice::Sqlite, _) => Ok(Self::Sqlite(None)),
            (_, Some(engine)) => Ok(Self::Pair(engine)),
            (StoreChoice::Auto, None) => Ok(Self::Sqlite(Some("no mariadbd or mysqld is installed"))),
            (StoreChoice::Mariadb, None) => bail!(
                "no mariadbd or mysqld is installed; on Debian: apt-get install mariadb-server-core mariadb-client-core, \
                 or use --store sqlite"
            ),
        }
    }

    /// Starts the store.
    pub async fn start(&self, home: &Home, supervisor: &Supervisor, ports: &Ports) -> Result<Store> {
        match self {
            Self::Pair(engine) => Pair::start(engine, home, supervisor, ports).await.map(Store::Pair),
            Self::Sqlite(_) => Ok(Store::Sqlite(home.root().join("notes.sqlite"))),
        }
    }
}

// === impl Store ===

impl Store {
    /// What a read server connects to.
    pub fn read_url(&self) -> String {
        match self {
            Self::Pair(pair) => app_url(pair.replica),
            Self::Sqlite(file) => format!("sqlite:{}", file.display()),
        }
    }

    /// What a write server connects to.
    pub fn write_url(&self) -> String {
        match self {
            Self::Pair(pair) => app_url(pair.primary),
            Self::Sqlite(file) => format!("sqlite:{}", file.display()),
        }
    }

    /// Waits until what was written is what is read: a row written now is visible on the replica.
    pub async fn settle(&self) -> Result<()> {
        match self {
            Self::Pair(pair) => pair.catch_up().await,
            Self::Sqlite(_) => Ok(()),
        }
    }

    /// The contents of the stored notes that begin with `prefix`, asked of the database, not of the app; a note
    /// that was stored twice is there twice.
    pub async fn contents(&self, prefix: &str) -> Result<Vec<String>> {
        const QUERY: &str = "SELECT content FROM notes WHERE content LIKE ?";
        let pattern = format!("{prefix}%");
        match self {
            Self::Pair(pair) => {
                let mut primary = pair.connect(pair.primary, Some("notes")).await?;
                let contents = primary.exec(QUERY, (pattern,)).await.context("cannot read the notes on the primary")?;
                primary.disconnect().await.context("cannot leave the primary")?;
                Ok(contents)
            }
            Self::Sqlite(file) => {
                let database = rusqlite::Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
                    .with_context(|| format!("cannot open {}", file.display()))?;
                let mut statement = database.prepare(QUERY).context("cannot read the notes")?;
                let contents = statement.query_map([pattern], |row| row.get(0)).context("cannot read the notes")?;
                contents.collect::<Result<_, _>>().context("cannot read the notes")
            }
        }
    }
}

// === impl Pair ===

impl Pair {
    async fn start(engine: &Engine, home: &Home, supervisor: &Supervisor, ports: &Ports) -> Result<Self> {
        let place = home.root().join(engine.label());
        let pair =
            Self { engine: engine.clone(), primary: ports.primary, replica: ports.replica, password: random_text()? };
        let primary = Member::primary(&place, ports.primary);
        let replica = Member::replica(&place, ports.replica);

        let made = pair.make(&primary, &random_text()?, supervisor).await?;
        if read_marker(&replica).is_some_and(|marker| marker != made) {
            remove_directory(&replica.directory)?;
        }
        pair.make(&replica, &made, supervisor).await?;
        let (primary_process, replica_process) =
            (pair.launch(&primary, supervisor)?, pair.launch(&replica, supervisor)?);
        pair.wait_ready(&primary_process, pair.primary, supervisor).await?;
        pair.wait_ready(&replica_process, pair.replica, supervisor).await?;
        for member in [&primary, &replica] {
            // The servers have read it; the password in it is theirs and ours alone.
            crate::home::remove_if_there(&member.init_file())?;
        }
        pair.prepare_primary().await?;
        if let Err(error) = pair.replicate().await {
            say(format_args!(
                "The replica cannot follow ({error:#}); it is made again from the primary's first event."
            ));
            replica_process.stop().await;
            remove_directory(&replica.directory)?;
            pair.make(&replica, &made, supervisor).await?;
            let process = pair.launch(&replica, supervisor)?;
            pair.wait_ready(&process, pair.replica, supervisor).await?;
            crate::home::remove_if_there(&replica.init_file())?;
            pair.replicate().await?;
        }
        Ok(pair)
    }

    /// Makes a server's data directory unless an earlier run did; returns what its marker says.
    async fn make(&self, member: &Member, marker: &str, supervisor: &Supervisor) -> Result<String> {
        if let Some(marker) = read_marker(member) {
            return Ok(marker);
        }
        remove_directory(&member.directory)?;
        fs::create_dir_all(&member.directory).with_context(|| format!("cannot make {}", member.directory.display()))?;
        let (program, arguments) = self.engine.install(member)?;
        let spec = Spec {
            name: member.install_name,
            role: "makes a database".to_owned(),
            address: String::new(),
            program,
            arguments,
            environment: Vec::new(),
            grace: STOP_GRACE,
            remedy: self.remedy(),
        };
        supervisor.run(spec).await?;
        let path = member.directory.join(MARKER);
        fs::write(&path, marker).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(marker.to_owned())
    }

    fn launch(&self, member: &Member, supervisor: &Supervisor) -> Result<Arc<Process>> {
        let account = format!("'{ADMINISTRATOR}'@'127.0.0.1'");
        let password = &self.password;
        // One statement a line; run by the server before it takes connections, and kept out of the binary log,
        // so that each server has its own.
        let statements = format!(
            "SET sql_log_bin = 0;\n\
             CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{password}';\n\
             ALTER USER {account} IDENTIFIED BY '{password}';\n\
             GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION;\n"
        );
        let path = member.init_file();
        fs::write(&path, statements).with_context(|| format!("cannot write {}", path.display()))?;
        supervisor.start(Spec {
            name: member.name,
            role: member.role.describe().to_owned(),
            address: member.address.to_string(),
            program: self.engine.server().to_owned(),
            arguments: self.engine.serve(member),
            environment: Vec::new(),
            grace: STOP_GRACE,
            remedy: self.remedy(),
        })
    }

    fn remedy(&self) -> String {
        format!(
            "The server is {}. Deleting the data directory starts afresh; --store sqlite does without a server.",
            self.engine.server().display()
        )
    }

    async fn wait_ready(&self, process: &Process, address: SocketAddr, supervisor: &Supervisor) -> Result<()> {
        let connect = async || self.connect(address, None).await;
        let connection = supervisor.wait_ready(process, READY_WITHIN, connect).await?;
        connection.disconnect().await.context("cannot leave a database that just answered")
    }

    async fn prepare_primary(&self) -> Result<()> {
        let mut primary = self.connect(self.primary, None).await?;
        for statement in [
            "CREATE DATABASE IF NOT EXISTS notes CHARACTER SET utf8mb4",
            "CREATE USER IF NOT EXISTS 'app'@'127.0.0.1' IDENTIFIED BY 'app'",
            "GRANT ALL PRIVILEGES ON notes.* TO 'app'@'127.0.0.1'",
            "CREATE USER IF NOT EXISTS 'replica'@'127.0.0.1' IDENTIFIED BY 'replica'",
            "GRANT REPLICATION SLAVE ON *.* TO 'replica'@'127.0.0.1'",
            "CREATE DATABASE IF NOT EXISTS stack",
            "CREATE TABLE IF NOT EXISTS stack.heartbeat (id INT PRIMARY KEY, token VARCHAR(64) NOT NULL)",
        ] {
            primary.query_drop(statement).await.with_context(|| format!("the primary refuses: {statement}"))?;
        }
        primary.disconnect().await.context("cannot leave the primary")
    }

    async fn replicate(&self) -> Result<()> {
        let mut replica = self.connect(self.replica, None).await?;
        for statement in self.engine.follow(self.primary) {
            replica.query_drop(&statement).await.with_context(|| format!("the replica refuses: {statement}"))?;
        }
        replica.disconnect().await.context("cannot leave the replica")?;
        self.catch_up().await
    }

    /// Writes a row on the primary and waits until the replica has it.
    async fn catch_up(&self) -> Result<()> {
        let token = random_text()?;
        let mut primary = self.connect(self.primary, None).await?;
        let beat = "REPLACE INTO stack.heartbeat (id, token) VALUES (1, ?)";
        primary.exec_drop(beat, (&token,)).await.context("the primary does not take a write")?;
        primary.disconnect().await.context("cannot leave the primary")?;

        let mut replica = self.connect(self.replica, None).await?;
        let wait = async {
            loop {
                let query = "SELECT token FROM stack.heartbeat WHERE id = 1";
                // Until replication has brought it, the table is not there: an error like an old row.
                if let Ok(Some(seen)) = replica.query_first::<String, _>(query).await
                    && seen == token
                {
                    return Ok(());
                }
                self.replication_fault(&mut replica).await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let outcome = tokio::time::timeout(CATCH_UP_WITHIN, wait).await;
        replica.disconnect().await.context("cannot leave the replica")?;
        outcome.unwrap_or_else(|_| bail!("the replica has not caught up within {CATCH_UP_WITHIN:?}"))
    }

    async fn replication_fault(&self, replica: &mut Conn) -> Result<()> {
        let status: Option<Row> =
            replica.query_first(self.engine.status_query()).await.context("the replica does not tell its status")?;
        match status.as_ref().and_then(replication_error) {
            Some(fault) => bail!("replication stopped: {fault}"),
            None => Ok(()),
        }
    }

    async fn connect(&self, address: SocketAddr, database: Option<&str>) -> Result<Conn> {
        let options: Opts = OptsBuilder::default()
            .ip_or_hostname(address.ip().to_string())
            .tcp_port(address.port())
            .user(Some(ADMINISTRATOR))
            .pass(Some(&self.password))
            .db_name(database)
            .prefer_socket(false)
            .into();
        Conn::new(options).await.with_context(|| format!("cannot connect to the database on {address}"))
    }
}

/// What stopped replication, from `SHOW SLAVE STATUS` or `SHOW REPLICA STATUS`. A primary that cannot be reached
/// yet is no fault: the replica tries again.
fn replication_error(status: &Row) -> Option<String> {
    let text = |name: &str| status.get_opt::<String, _>(name).and_then(Result::ok).filter(|text| !text.is_empty());
    let running = |names: [&str; 2]| names.iter().find_map(|name| text(name));
    if let Some(fault) = text("Last_SQL_Error") {
        return Some(fault);
    }
    let stopped = running(["Slave_IO_Running", "Replica_IO_Running"]).is_some_and(|state| state == "No");
    stopped.then(|| text("Last_IO_Error").unwrap_or_else(|| "the receiving thread does not run".to_owned()))
}

fn app_url(address: SocketAddr) -> String {
    format!("mysql://app:app@{address}/notes")
}

fn read_marker(member: &Member) -> Option<String> {
    fs::read_to_string(member.directory.join(MARKER)).ok().filter(|marker| !marker.is_empty())
}

fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// 128 random bits in hexadecimal.
fn random_text() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0_u8; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
