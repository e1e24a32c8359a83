//! Every endpoint and what it does with good input.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::kit::{Connection, Server};

#[test]
fn a_note_lives_from_its_creation_to_its_end() {
    let server = Server::in_memory();
    let user = server.post("/api/users", &json!({ "name": "  Ada Lovelace " }));
    assert_eq!(user.status, 201);
    assert_eq!(user.header("location"), Some("/api/users/1"));
    let user_id = user.json()["id"].as_i64().unwrap();
    assert_eq!(server.get("/api/users/1").json()["name"], "Ada Lovelace");

    let text = "tea ☕, \"quotes\", <b>tags</b>\nand a second line";
    let created = server.post("/api/notes", &json!({ "user_id": user_id, "content": text }));
    assert_eq!(created.status, 201);
    let note = created.json();
    let place = format!("/api/notes/{}", note["id"]);
    assert_eq!(created.header("location"), Some(place.as_str()));

    let read = server.get(&place);
    assert_eq!(read.status, 200);
    assert_eq!(read.header("content-type"), Some("application/json"));
    assert_eq!(read.header("cache-control"), Some("no-store"));
    assert_eq!(read.json(), note);
    assert_eq!(note["content"], text);
    assert_eq!(note["user_id"], user_id);

    let changed = server.put(&place, &json!({ "content": "changed" }));
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["content"], "changed");
    assert_eq!(server.get(&place).json(), changed.json());

    let deleted = server.delete(&place);
    assert_eq!(deleted.status, 204);
    assert!(deleted.body.is_empty());
    assert_eq!(server.get(&place).problem(404), "unknown-note");
    assert_eq!(server.delete(&place).problem(404), "unknown-note");
}

#[test]
fn a_list_is_read_in_parts_newest_first() {
    let server = Server::in_memory();
    let ada = server.create_user("Ada");
    let grace = server.create_user("Grace");
    let mut by_ada = Vec::new();
    for number in 0..25 {
        by_ada.push(server.create_note(ada, &format!("note {number}")));
        server.create_note(grace, "in between");
    }
    by_ada.reverse();

    let list = format!("/api/users/{ada}/notes");
    let by_default = server.get(&list);
    assert_eq!(by_default.ids("notes"), by_ada[..20]);

    let mut read = Vec::new();
    let mut target = format!("{list}?limit=10");
    loop {
        let part = server.get(&target);
        read.extend(part.ids("notes"));
        match part.json()["next_before"].as_i64() {
            Some(before) => target = format!("{list}?limit=10&before={before}"),
            None => break,
        }
    }
    assert_eq!(read, by_ada);

    let exactly_all = server.get(&format!("{list}?limit=25"));
    assert!(exactly_all.json().get("next_before").is_none());
    assert_eq!(server.get("/api/notes?limit=100").ids("notes").len(), 50);
    assert_eq!(server.get("/api/users").ids("users"), [grace, ada]);
    assert_eq!(server.get("/api/users?limit=1").json()["next_before"], grace);

    let nobody = server.create_user("Nobody");
    let empty = server.get(&format!("/api/users/{nobody}/notes"));
    assert_eq!(empty.status, 200);
    assert!(empty.ids("notes").is_empty());
    assert_eq!(server.get("/api/users/99/notes").problem(404), "unknown-user");
}

#[test]
fn a_search_finds_the_text_and_only_the_text() {
    let server = Server::in_memory();
    let user = server.create_user("Ada");
    let half = server.create_note(user, "50% of it");
    let snake = server.create_note(user, "snake_case!");
    let plain = server.create_note(user, "50 of them");
    for (text, found) in [
        ("50", vec![plain, half]),
        ("50%", vec![half]),
        ("_", vec![snake]),
        ("e!", vec![snake]),
        ("SNAKE", vec![snake]),
        ("%%", vec![]),
    ] {
        let response = server.post("/api/search", &json!({ "text": text }));
        assert_eq!(response.status, 200);
        assert_eq!(response.ids("notes"), found, "{text}");
    }
    let one = server.post("/api/search", &json!({ "text": "50", "limit": 1 }));
    assert_eq!(one.ids("notes"), [plain]);
}

#[test]
fn a_client_id_is_stored_once() {
    let server = Server::in_memory();
    let user_id = server.create_user("Ada");
    let note = json!({ "user_id": user_id, "content": "once", "client_id": "load-7/000123" });
    assert_eq!(server.post("/api/notes", &note).status, 201);
    let again = server.post("/api/notes", &note);
    assert_eq!(again.problem(409), "duplicate-client-id");
    // None is not a value: any number of notes may go without.
    let without = json!({ "user_id": user_id, "content": "once", "client_id": null });
    assert_eq!(server.post("/api/notes", &without).status, 201);
    assert_eq!(server.post("/api/notes", &without).status, 201);
    assert_eq!(server.get("/api/notes").ids("notes").len(), 3);
}

#[test]
fn a_note_of_exactly_1024_bytes_is_kept_whole() {
    let server = Server::in_memory();
    let user = server.create_user("Ada");
    for text in ["x".repeat(1024), "é".repeat(512), "\u{1}".repeat(1024), "☕".repeat(341)] {
        let id = server.create_note(user, &text);
        assert_eq!(server.get(&format!("/api/notes/{id}")).json()["content"], text);
    }
}

#[test]
fn a_chunked_body_has_the_same_limit() {
    let server = Server::in_memory();
    let mut connection = Connection::open(server.address).unwrap();
    let headers = [("transfer-encoding", "chunked")];
    connection.send("POST", "/api/notes", &headers, b"").unwrap();
    // The first chunk alone is over the limit; the rest need not be sent.
    let chunk = format!("5000\r\n{}\r\n", "x".repeat(0x5000));
    connection.send_raw(chunk.as_bytes()).unwrap();
    assert_eq!(connection.receive("POST").unwrap().problem(413), "body-too-large");
}

#[test]
fn a_connection_is_kept_for_more_requests() {
    let server = Server::in_memory();
    let mut connection = Connection::open(server.address).unwrap();
    let user = connection.request("POST", "/api/users", &[], br#"{"name":"Ada"}"#).unwrap();
    assert_eq!(user.status, 201);
    let refused = connection.request("POST", "/api/users", &[], b"{").unwrap();
    assert_eq!(refused.status, 400);
    let head = connection.request("HEAD", "/api/users/1", &[], b"").unwrap();
    assert_eq!(head.status, 200);
    let read = connection.request("GET", "/api/users/1", &[], b"").unwrap();
    assert_eq!(read.json()["name"], "Ada");
    assert_eq!(head.header("content-length"), read.header("content-length"));
}

#[test]
fn slow_waits_and_does_not_hold_up_others() {
    let server = Server::in_memory();
    let started = Instant::now();
    let mut slow = Connection::open(server.address).unwrap();
    slow.send("GET", "/api/slow?ms=200", &[], b"").unwrap();
    assert_eq!(server.get("/healthz").status, 200);
    let answer = slow.receive("GET").unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("200 ms"));
    assert_eq!(server.get("/api/slow?ms=0").status, 200);
}
