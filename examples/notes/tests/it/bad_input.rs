//! What the app refuses, as a table: each line is one request and the problem it must end in.

use serde_json::json;

use crate::kit::Server;

#[test]
fn a_bad_user_is_refused() {
    let too_long = json!({ "name": "é".repeat(101) }).to_string();
    let too_deep = "[".repeat(10_000);
    refused(
        (400, "bad-input"),
        &[
            ("POST /api/users", ""),
            ("POST /api/users", "{"),
            ("POST /api/users", "[]"),
            ("POST /api/users", "null"),
            ("POST /api/users", "{}"),
            ("POST /api/users", r#"{"name":7}"#),
            ("POST /api/users", r#"{"name":""}"#),
            ("POST /api/users", r#"{"name":"  "}"#),
            ("POST /api/users", r#"{"name":"\ud800"}"#),
            ("POST /api/users", r#"{"name":"a","name":"b"}"#),
            ("POST /api/users", r#"{"name":"a"} and more"#),
            ("POST /api/users", r#"{"name":"a\u0000b"}"#),
            ("POST /api/users", r#"{"name":"a\nb"}"#),
            ("POST /api/users", r#"{"name":1e400}"#),
            ("POST /api/users", &too_long),
            ("POST /api/users", &too_deep),
        ],
    );
}

#[test]
fn a_body_that_is_no_utf_8_is_refused() {
    let server = Server::in_memory();
    for (target, body) in [
        ("/api/users", b"{\"name\":\"\xff\"}".as_slice()),
        ("/api/notes", b"{\"user_id\":1,\"content\":\"\xc3\"}"),
        ("/api/search", b"\xfe\xff"),
    ] {
        assert_eq!(server.request("POST", target, &[], body).problem(400), "bad-input", "{target}");
    }
}

#[test]
fn a_bad_note_is_refused() {
    let bytes_1025 = note(&"x".repeat(1025));
    let bytes_1026 = note(&"é".repeat(513));
    let long_id = format!(r#"{{"user_id":1,"content":"x","client_id":"{}"}}"#, "x".repeat(65));
    refused(
        (400, "bad-input"),
        &[
            ("POST /api/notes", r#"{"user_id":1}"#),
            ("POST /api/notes", r#"{"content":"x"}"#),
            ("POST /api/notes", r#"{"user_id":"1","content":"x"}"#),
            ("POST /api/notes", r#"{"user_id":1.5,"content":"x"}"#),
            ("POST /api/notes", r#"{"user_id":0,"content":"x"}"#),
            ("POST /api/notes", r#"{"user_id":-1,"content":"x"}"#),
            ("POST /api/notes", r#"{"user_id":9223372036854775808,"content":"x"}"#),
            ("POST /api/notes", r#"{"user_id":1,"content":""}"#),
            ("POST /api/notes", r#"{"user_id":1,"content":" \n"}"#),
            ("POST /api/notes", r#"{"user_id":1,"content":"x","client_id":""}"#),
            ("POST /api/notes", r#"{"user_id":1,"content":"x","client_id":"a b"}"#),
            ("POST /api/notes", r#"{"user_id":1,"content":"x","client_id":"é"}"#),
            ("POST /api/notes", &long_id),
            ("POST /api/notes", &bytes_1025),
            ("POST /api/notes", &bytes_1026),
            ("PUT /api/notes/1", ""),
            ("PUT /api/notes/1", "{}"),
            ("PUT /api/notes/1", r#"{"content":""}"#),
            ("PUT /api/notes/1", &bytes_1025),
        ],
    );
}

#[test]
fn a_bad_search_is_refused() {
    let too_long = json!({ "text": "x".repeat(257) }).to_string();
    refused(
        (400, "bad-input"),
        &[
            ("POST /api/search", "{}"),
            ("POST /api/search", r#"{"text":" "}"#),
            ("POST /api/search", r#"{"text":"x","limit":0}"#),
            ("POST /api/search", r#"{"text":"x","limit":101}"#),
            ("POST /api/search", r#"{"text":"x","limit":-1}"#),
            ("POST /api/search", r#"{"text":"x","limit":"5"}"#),
            ("POST /api/search", &too_long),
        ],
    );
}

#[test]
fn a_bad_number_in_the_target_is_refused() {
    refused(
        (400, "bad-input"),
        &[
            ("GET /api/notes/0", ""),
            ("GET /api/notes/-1", ""),
            ("GET /api/notes/abc", ""),
            ("GET /api/notes/1.0", ""),
            ("GET /api/notes/%FF", ""),
            ("GET /api/notes/9223372036854775808", ""),
            ("GET /api/users/x", ""),
            ("GET /api/users/x/notes", ""),
            ("PUT /api/notes/x", r#"{"content":"y"}"#),
            ("DELETE /api/notes/x", ""),
            ("GET /api/users/1/notes?limit=0", ""),
            ("GET /api/users/1/notes?limit=101", ""),
            ("GET /api/users/1/notes?limit=-1", ""),
            ("GET /api/users/1/notes?limit=ten", ""),
            ("GET /api/users/1/notes?limit=", ""),
            ("GET /api/users/1/notes?limit=1&limit=2", ""),
            ("GET /api/users/1/notes?limit=1e1", ""),
            ("GET /api/users/1/notes?before=9223372036854775808", ""),
            ("GET /api/users/1/notes?before=%00", ""),
            ("GET /api/users/1/notes?before=0", ""),
            ("GET /api/users/1/notes?before=x", ""),
            ("GET /api/notes?limit=0", ""),
            ("GET /api/users?before=-5", ""),
            ("GET /api/slow", ""),
            ("GET /api/slow?ms=10001", ""),
            ("GET /api/slow?ms=-1", ""),
        ],
    );
}

#[test]
fn what_is_not_there_is_not_found() {
    let of_nobody = r#"{"user_id":99,"content":"x"}"#;
    refused(
        (404, "unknown-user"),
        &[("POST /api/notes", of_nobody), ("GET /api/users/99", ""), ("GET /api/users/99/notes", "")],
    );
    refused(
        (404, "unknown-note"),
        &[("GET /api/notes/99", ""), ("PUT /api/notes/99", r#"{"content":"x"}"#), ("DELETE /api/notes/99", "")],
    );
    refused(
        (404, "no-such-path"),
        &[
            ("GET /api/nothing", ""),
            ("POST /nothing", "x"),
            ("GET /static/nothing", ""),
            ("GET /static/..%2fCargo.toml", ""),
        ],
    );
}

#[test]
fn a_method_that_is_not_there_is_named() {
    refused(
        (405, "method-not-allowed"),
        &[
            ("BREW /api/notes", ""),
            ("OPTIONS /api/notes", ""),
            ("PATCH /api/notes/1", r#"{"content":"x"}"#),
            ("DELETE /api/users/1", ""),
            ("GET /api/search", ""),
            ("POST /", "x"),
            ("PUT /static/app.css", "x"),
        ],
    );
}

#[test]
fn a_body_larger_than_any_note_is_refused() {
    let large = note(&"x".repeat(20_000));
    refused(
        (413, "body-too-large"),
        &[
            ("POST /api/users", &large),
            ("POST /api/notes", &large),
            ("PUT /api/notes/1", &large),
            ("POST /api/search", &large),
        ],
    );
}

fn note(content: &str) -> String {
    json!({ "user_id": 1, "content": content }).to_string()
}

/// Every one of these requests ends in this problem, and leaves the one stored note as it is.
fn refused((status, code): (u16, &str), requests: &[(&str, &str)]) {
    let server = Server::in_memory();
    server.create_user("Ada");
    server.create_note(1, "the one note");
    for (line, body) in requests {
        let (method, target) = line.split_once(' ').expect("a method and a target");
        let response = server.request(method, target, &[], body.as_bytes());
        let shown: String = body.chars().take(80).collect();
        assert_eq!(response.problem(status), code, "{line} {shown}");
        assert_eq!(response.header("allow").is_some(), status == 405, "{line}");
    }
    assert_eq!(server.get("/api/notes").ids("notes"), [1], "nothing was stored");
    assert_eq!(server.get("/api/notes/1").json()["content"], "the one note");
    assert_eq!(server.get("/api/users").ids("users"), [1]);
}
