//! The same app on a real MySQL-protocol server: a throw-away one, on a unix socket of its own.
//!
//! Skipped with a printed line where no server is installed.

use std::{
    env,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mysql_async::{Conn, Opts, prelude::Queryable};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::kit::{Server, eventually};

/// A database server of this test alone, down to its directory for temporary files: a server that
/// starts removes every temporary table it finds there, and one that loses its own crashes.
struct Database {
    binary: PathBuf,
    directory: TempDir,
    process: Option<Child>,
}

#[test]
fn the_app_on_mariadb() {
    let Some(mut database) = Database::prepare() else {
        // Straight to the handle: what the macros print is hidden when a test passes.
        let words = "SKIPPED the_app_on_mariadb: no mariadbd or mysqld with its installer is here";
        let _ = writeln!(std::io::stderr(), "{words}");
        return;
    };
    // The app is started first: it waits for its database and says why.
    let write = Server::start("write-1", "write", &database.url("root"));
    assert_eq!(write.get("/readyz").problem(503), "store-unavailable");
    assert_eq!(write.get("/api/notes").problem(503), "store-unavailable");
    database.start();
    database.run("CREATE DATABASE notes CHARACTER SET utf8mb4");
    write.await_ready();

    // The reader's account may do nothing but read, so it cannot have created anything.
    database.run("CREATE USER reader@localhost");
    database.run("GRANT SELECT ON notes.* TO reader@localhost");
    let read = Server::start("read-1", "read", &database.url("reader"));
    read.await_ready();

    notes_live(&write, &read);
    the_schema_holds(&database);
    a_silent_database_is_given_up_on(&mut database, &write, &read);
    a_killed_database_comes_back(&mut database, &write, &read);
    a_read_only_database_is_no_place_for_a_writer(&database, &write, &read);

    // Stopping says goodbye on every connection.
    for server in [write, read] {
        server.signal(Signal::SIGTERM);
        let end = server.await_end();
        assert_eq!(end.status.code(), Some(0), "{}", end.stderr);
        assert!(!end.stderr.contains("did not close in time"), "{}", end.stderr);
    }
}

fn notes_live(write: &Server, read: &Server) {
    let ada = write.create_user("Ada ☕");
    assert_eq!(read.get(&format!("/api/users/{ada}")).json()["name"], "Ada ☕");
    let text = "☕".repeat(341);
    let note = write.create_note(ada, &text);
    let place = format!("/api/notes/{note}");
    assert_eq!(read.get(&place).json()["content"], text);

    for _ in 0..2 {
        // The same content twice: a row that did not change was found all the same.
        let changed = write.put(&place, &json!({ "content": "50% of It_" }));
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!(changed.json()["content"], "50% of It_");
    }
    for (search, found) in [("50%", vec![note]), ("it_", vec![note]), ("50_", vec![])] {
        let response = read.post("/api/search", &json!({ "text": search }));
        assert_eq!(response.ids("notes"), found, "{search}");
    }

    let mut ids: Vec<_> = (0..5).map(|_| write.create_note(ada, "more")).collect();
    ids.reverse();
    let list = format!("/api/users/{ada}/notes?limit=3");
    let first = read.get(&list);
    assert_eq!(first.ids("notes"), ids[..3]);
    let before = &first.json()["next_before"];
    let second = read.get(&format!("{list}&before={before}"));
    assert_eq!(second.ids("notes"), [ids[3], ids[4], note]);
    assert!(second.json().get("next_before").is_none());

    let once = json!({ "user_id": ada, "content": "x", "client_id": "c-1" });
    assert_eq!(write.post("/api/notes", &once).status, 201);
    assert_eq!(write.post("/api/notes", &once).problem(409), "duplicate-client-id");
    let nobody = json!({ "user_id": 9999, "content": "x" });
    assert_eq!(write.post("/api/notes", &nobody).problem(404), "unknown-user");

    assert_eq!(write.delete(&place).status, 204);
    assert_eq!(write.delete(&place).problem(404), "unknown-note");
    assert_eq!(read.get(&place).problem(404), "unknown-note");
    let missing = write.put(&place, &json!({ "content": "x" }));
    assert_eq!(missing.problem(404), "unknown-note");
    assert_eq!(read.post("/api/notes", &once).problem(405), "read-only-server");
}

fn the_schema_holds(database: &Database) {
    let engines = "SELECT count(*) FROM information_schema.tables \
                   WHERE table_schema = 'notes' AND engine = 'InnoDB'";
    assert_eq!(database.number(engines), 2);
    let keys = "SELECT count(*) FROM information_schema.referential_constraints \
                WHERE constraint_schema = 'notes' AND referenced_table_name = 'users'";
    assert_eq!(database.number(keys), 1);
    assert_eq!(database.number("SELECT count(*) FROM notes.notes"), 6);
}

/// A database that takes connections and says nothing: every answer comes within the deadline,
/// and afterwards no connection holds a stale answer.
fn a_silent_database_is_given_up_on(database: &mut Database, write: &Server, read: &Server) {
    database.signal(Signal::SIGSTOP);
    for server in [write, read] {
        let started = Instant::now();
        assert_eq!(server.get("/readyz").problem(503), "store-unavailable");
        assert!(started.elapsed() < Duration::from_millis(1900), "readiness has the shorter deadline");
        assert_eq!(server.get("/api/notes").problem(503), "store-unavailable");
        assert_eq!(server.get("/healthz").status, 200);
    }
    database.signal(Signal::SIGCONT);
    write.await_ready();
    read.await_ready();
    let users = read.get("/api/users").ids("users");
    assert_eq!(users.len(), 1);
    for _ in 0..40 {
        assert_eq!(read.get("/api/users").ids("users"), users);
        assert_eq!(read.get("/api/notes?limit=100").ids("notes").len(), 6);
    }
}

fn a_killed_database_comes_back(database: &mut Database, write: &Server, read: &Server) {
    database.kill_hard();
    for server in [write, read] {
        assert_eq!(server.get("/readyz").problem(503), "store-unavailable");
        assert_eq!(server.get("/api/notes").problem(503), "store-unavailable");
    }
    database.start();
    write.await_ready();
    read.await_ready();
    let user = read.get("/api/users").ids("users")[0];
    let note = write.create_note(user, "after the crash");
    assert_eq!(read.get(&format!("/api/notes/{note}")).status, 200);
}

fn a_read_only_database_is_no_place_for_a_writer(database: &Database, write: &Server, read: &Server) {
    database.run("SET GLOBAL read_only = 1");
    let refused = write.get("/readyz");
    assert_eq!(refused.problem(503), "store-unavailable");
    assert!(refused.text().contains("read-only"), "{}", refused.text());
    assert_eq!(read.get("/readyz").status, 200);
    database.run("SET GLOBAL read_only = 0");
    write.await_ready();
}

// === impl Database ===

impl Database {
    /// An empty data directory, or nothing where no database is installed.
    fn prepare() -> Option<Self> {
        let binary = find("mariadbd").or_else(|| find("mysqld"))?;
        let installer = find("mariadb-install-db").or_else(|| find("mysql_install_db"))?;
        let directory = TempDir::new().unwrap();
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        std::fs::create_dir(directory.path().join("tmp")).unwrap();
        let installed = Command::new(installer)
            .env("TMPDIR", directory.path().join("tmp"))
            .arg("--no-defaults")
            .arg(format!("--datadir={}", directory.path().join("data").display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(as_root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&installed.stderr);
        assert!(installed.status.success(), "the data directory is not made: {said}");
        Some(Self { binary, directory, process: None })
    }

    fn start(&mut self) {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let process = Command::new(&self.binary)
            .env("TMPDIR", path("tmp"))
            .arg("--no-defaults")
            .arg(format!("--datadir={}", path("data")))
            .arg(format!("--socket={}", path("db.sock")))
            .arg(format!("--pid-file={}", path("db.pid")))
            .arg(format!("--log-error={}", path("db.log")))
            .args(["--skip-networking", "--innodb-buffer-pool-size=16M"])
            .args(as_root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        eventually("the database", || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the database ended: {}", self.log());
            self.ask::<i64>("SELECT 1").ok()
        });
    }

    fn url(&self, user: &str) -> String {
        let socket = self.directory.path().join("db.sock");
        format!("mysql://{user}@localhost/notes?socket={}", socket.display())
    }

    fn run(&self, statement: &str) {
        self.ask::<i64>(statement).unwrap();
    }

    fn number(&self, query: &str) -> i64 {
        self.ask(query).unwrap().unwrap()
    }

    fn ask<T>(&self, statement: &str) -> mysql_async::Result<Option<T>>
    where
        T: mysql_async::prelude::FromRow + Send + 'static,
    {
        let socket = self.directory.path().join("db.sock");
        let url = format!("mysql://root@localhost/?socket={}", socket.display());
        let opts = Opts::from_url(&url)?;
        Runtime::new().unwrap().block_on(async {
            let mut conn = Conn::new(opts).await?;
            let answer = conn.query_first(statement).await?;
            conn.disconnect().await?;
            Ok(answer)
        })
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.as_ref().unwrap().id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    fn kill_hard(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("db.log")).unwrap_or_default()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.kill_hard();
    }
}

/// The database refuses to run as root unless told to.
fn as_root() -> Option<&'static str> {
    Uid::effective().is_root().then_some("--user=root")
}

/// A program of `PATH` or of the places that only root has in it.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/libexec", "/usr/local/sbin"].map(|place| Path::new(place).into()))
        .map(|place| place.join(name))
        .find(|program| program.is_file())
}
