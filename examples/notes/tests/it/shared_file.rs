//! Several servers on one SQLite file.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use tempfile::TempDir;

use crate::kit::{Server, eventually, request};

fn count(directory: &TempDir, query: &str) -> i64 {
    let path = directory.path().join("notes.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    database.query_row(query, [], |row| row.get(0)).unwrap()
}

#[test]
fn two_writers_and_two_readers_share_a_file() {
    let directory = TempDir::new().unwrap();
    let store = format!("sqlite:{}", directory.path().join("notes.db").display());
    let writers = ["write-1", "write-2"].map(|name| Server::start(name, "write", &store));
    let readers = ["read-1", "read-2"].map(|name| Server::start(name, "read", &store));
    for server in writers.iter().chain(&readers) {
        server.await_ready();
    }
    let user = writers[0].create_user("Ada");

    // What one wrote, every other one reads at once.
    let note = writers[1].create_note(user, "seen by all");
    for server in writers.iter().chain(&readers) {
        assert_eq!(server.get(&format!("/api/notes/{note}")).status, 200);
    }

    // Both write at the same time while the others read: nothing is refused, lost or doubled.
    let written = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in &readers {
            scope.spawn(|| {
                while !written.load(Ordering::Relaxed) {
                    let list = reader.get(&format!("/api/users/{user}/notes"));
                    assert_eq!(list.status, 200, "{}", list.text());
                }
            });
        }
        let writing: Vec<_> = (0..6)
            .map(|lane| {
                let writer = &writers[lane % 2];
                scope.spawn(move || {
                    for number in 0..25 {
                        let client_id = format!("{lane}-{number}");
                        let note = json!({ "user_id": user, "content": "x", "client_id": client_id });
                        let response = writer.post("/api/notes", &note);
                        assert_eq!(response.status, 201, "{}", response.text());
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = writing.into_iter().map(|lane| lane.join()).collect();
        written.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok));
    });
    assert_eq!(count(&directory, "SELECT count(*) FROM notes"), 151);
    let distinct = "SELECT count(DISTINCT client_id) FROM notes";
    assert_eq!(count(&directory, distinct), 150);
    let orphans = "SELECT count(*) FROM pragma_foreign_key_check";
    assert_eq!(count(&directory, orphans), 0);
}

/// kill -9 of the writer while it writes: every 201 is in the file, and a reader that is then
/// alone with an unfinished log still reads.
#[test]
fn a_killed_writer_loses_nothing_it_confirmed() {
    let directory = TempDir::new().unwrap();
    let store = format!("sqlite:{}", directory.path().join("notes.db").display());
    let writer = Server::start("write-1", "write", &store);
    writer.await_ready();
    let user = writer.create_user("Ada");
    let address = writer.address;
    let confirmed = thread::scope(|scope| {
        let lanes: Vec<_> = (0..4)
            .map(|lane| {
                scope.spawn(move || {
                    let mut confirmed = BTreeSet::new();
                    for number in 0.. {
                        let client_id = format!("{lane}-{number}");
                        let note = json!({ "user_id": user, "content": "x", "client_id": client_id });
                        let body = note.to_string();
                        match request(address, "POST", "/api/notes", &[], body.as_bytes()) {
                            Ok(response) if response.status == 201 => confirmed.insert(client_id),
                            Ok(_) | Err(_) => break,
                        };
                    }
                    confirmed
                })
            })
            .collect();
        eventually("a hundred notes", || (count(&directory, "SELECT count(*) FROM notes") > 100).then_some(()));
        writer.kill_hard();
        let mut all = BTreeSet::new();
        for lane in lanes {
            all.extend(lane.join().unwrap());
        }
        all
    });

    let reader = Server::start("read-1", "read", &store);
    reader.await_ready();
    assert!(!reader.get(&format!("/api/users/{user}/notes")).ids("notes").is_empty());
    let path = directory.path().join("notes.db");
    let database = Connection::open(path).unwrap();
    let mut query = database.prepare("SELECT client_id FROM notes").unwrap();
    let stored: BTreeSet<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(confirmed.len() > 90, "{} were confirmed", confirmed.len());
    let lost: Vec<_> = confirmed.difference(&stored).collect();
    assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
}

#[test]
fn a_read_server_waits_for_the_file_and_creates_nothing() {
    let directory = TempDir::new().unwrap();
    let store = format!("sqlite:{}", directory.path().join("notes.db").display());
    let reader = Server::start("read-1", "read", &store);
    let not_yet = reader.get("/readyz");
    assert_eq!(not_yet.problem(503), "store-unavailable");
    assert_eq!(not_yet.header("retry-after"), Some("1"));
    assert_eq!(reader.get("/api/notes").problem(503), "store-unavailable");
    assert_eq!(reader.get("/healthz").status, 200, "the process is well");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

    let writer = Server::start("write-1", "write", &store);
    writer.await_ready();
    reader.await_ready();
}
