//! What a read server does and what it leaves to others.

use serde_json::json;
use tempfile::TempDir;

use crate::kit::Server;

fn pair() -> (TempDir, Server, Server) {
    let directory = TempDir::new().unwrap();
    let store = format!("sqlite:{}", directory.path().join("notes.db").display());
    let write = Server::start("write-1", "write", &store);
    write.await_ready();
    let read = Server::start("read-1", "read", &store);
    read.await_ready();
    (directory, write, read)
}

#[test]
fn a_read_server_refuses_every_write() {
    let (_directory, write, read) = pair();
    let user = write.create_user("Ada");
    let note = write.create_note(user, "stays");
    let place = format!("/api/notes/{note}");
    let body = json!({ "user_id": user, "content": "x", "name": "x" });

    for response in
        [read.post("/api/users", &body), read.post("/api/notes", &body), read.put(&place, &body), read.delete(&place)]
    {
        assert_eq!(response.problem(405), "read-only-server");
        assert_eq!(response.header("allow"), Some("GET,HEAD"));
    }
    // The role is asked before the body: a misrouted write is visible even when it is bad too.
    let bad = read.request("POST", "/api/notes", &[], b"{");
    assert_eq!(bad.problem(405), "read-only-server");
    assert_eq!(read.get(&place).json()["content"], "stays");
}

#[test]
fn a_read_server_reads_also_by_post() {
    let (_directory, write, read) = pair();
    let user = write.create_user("Ada");
    let note = write.create_note(user, "needle in a haystack");
    assert_eq!(read.get(&format!("/api/notes/{note}")).status, 200);
    assert_eq!(read.get(&format!("/api/users/{user}/notes")).ids("notes"), [note]);
    let found = read.post("/api/search", &json!({ "text": "needle" }));
    assert_eq!(found.ids("notes"), [note]);
}

#[test]
fn a_write_server_reads_too() {
    let (_directory, write, _read) = pair();
    let user = write.create_user("Ada");
    let note = write.create_note(user, "x");
    assert_eq!(write.get(&format!("/api/notes/{note}")).status, 200);
}
