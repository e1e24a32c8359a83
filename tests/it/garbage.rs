//! Endpoints that do not speak HTTP as they should: nobody else may be hurt by it.

use std::time::Duration;

use serde_json::Value;

use crate::kit::{Answer, Chaos, Client, Origin, Proxy, Way, answer_to, await_later, exchange, ok};

/// Answers each path with what is put in the story, `/canary` as it should be.
fn origin(answer: Vec<u8>) -> Origin {
    Origin::scripted(move |heard, _| match heard.line.contains("/canary") {
        true => ok("canary"),
        false => answer.clone(),
    })
}

/// Sends `request` to an endpoint that answers with `response`; then a canary on the same connection of the client
/// where it stays, which must get its own answer.
fn treated(request: &str, response: impl Into<Vec<u8>>) -> (Option<Answer>, Value) {
    let origin = origin(response.into());
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    client.send(request);
    let answer = match request.starts_with("HEAD") {
        true => client.receive_head(),
        false => client.receive(),
    };
    // Thrice, so that each worker and each idle connection gets its turn.
    for _ in 0..3 {
        client.send("GET /canary HTTP/1.1\r\nhost: a\r\n\r\n");
        let canary = client.receive().unwrap_or_else(|| {
            client = Client::connect(proxy.address());
            client.send("GET /canary HTTP/1.1\r\nhost: a\r\n\r\n");
            client.receive().expect("an answer to the canary")
        });
        assert_eq!((canary.status, &*canary.body), (200, "canary"), "after {request:?}");
    }
    drop(client);
    // Workers hand their lines over on their own: the first request's line may stand anywhere.
    let line = proxy.logged().into_iter().find(|line| line["path"] == "/");
    (answer, line.expect("a line of the first request"))
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn a_malformed_head_is_502_with_its_reason() {
    let many = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x-many: 1\r\n".repeat(200));
    let huge = format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(200_000));
    let faults = [
        ("SSH-2.0-OpenSSH_9.9\r\n", "bad_response"),
        ("HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n", "bad_response"),
        ("HTTP/1.1 ab OK\r\ncontent-length: 0\r\n\r\n", "bad_response"),
        ("HTTP/3.0 200 OK\r\ncontent-length: 0\r\n\r\n", "bad_response"),
        ("HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 0\r\n\r\n", "bad_response"),
        ("HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n", "bad_response"),
        ("HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\n", "bad_response"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "bad_response"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nokk", "bad_response"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nok", "bad_response"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "bad_response",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "bad_response",
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "bad_response"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "bad_response"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello", "bad_response"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "bad_response",
        ),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "bad_response"),
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", "bad_response"),
        (&*many, "response_headers_too_large"),
        (&*huge, "response_headers_too_large"),
    ];
    for (response, reason) in faults {
        for request in [GET, POST] {
            let (answer, log) = treated(request, response);
            let answer = answer.unwrap_or_else(|| panic!("no answer after {response:.80?}"));
            assert_eq!((answer.status, answer.reason()), (502, Some(reason)), "{response:.80?}");
            assert_eq!((&log["reason"], &log["retries"]), (&reason.into(), &0.into()), "{response:.80?}: {log:?}");
        }
    }
}

#[test]
fn a_malformed_body_is_an_abort() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in
        ["5\r\nhelloX\r\n0\r\n\r\n", "zz\r\nhello\r\n", "5\r\nhello\r\nfffffffffffffffff\r\n", "5\r\nhello\r\n-1\r\n"]
    {
        let (answer, log) = treated(GET, format!("{chunked}{body}"));
        assert!(answer.is_none(), "{body:?}: {answer:?}");
        assert_eq!((&log["status"], &log["reason"]), (&200.into(), &"response_incomplete".into()), "{log:?}");
    }
}

#[test]
fn what_follows_a_response_belongs_to_nobody() {
    let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled";
    for (request, response, body) in [
        (GET, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok"),
        (GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        (GET, "HTTP/1.1 204 No Content\r\n\r\n", ""),
        (GET, "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n", ""),
        (HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
    ] {
        let (answer, log) = treated(request, format!("{response}{smuggled}"));
        assert_eq!(answer.expect("an answer").body, body, "{response:?}");
        assert!(log["bytes_out"].as_u64() < Some(8) && log["reason"].is_null(), "{log:?}");
    }
}

/// The stray bytes come later, when the connection is idle.
#[test]
fn what_comes_unasked_belongs_to_nobody() {
    let origin = Origin::talking(|conversation, number| {
        conversation.request();
        conversation.send(ok("first"));
        if number == 0 {
            conversation.send(ok("smuggled"));
        }
        while conversation.request().is_some() {
            conversation.send(ok("next"));
        }
    });
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    client.send(GET);
    assert_eq!(client.receive().unwrap().body, "first");
    client.send(GET);
    assert_ne!(client.receive().unwrap().body, "smuggled");
}

#[test]
fn a_body_where_there_can_be_none_is_not_passed_on() {
    for (request, response, status) in [
        (HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbogus", 200),
        (HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbogus\r\n0\r\n\r\n", 200),
        (GET, "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nbogus", 204),
        (GET, "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbogus\r\n0\r\n\r\n", 204),
        (GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nbogus", 304),
    ] {
        let (answer, log) = treated(request, response);
        let answer = answer.unwrap_or_else(|| panic!("no answer after {response:?}"));
        assert_eq!(answer.status, status, "{response:?}");
        assert_eq!((&log["bytes_out"], &log["reason"]), (&0.into(), &Value::Null), "{log:?}");
        if status == 204 {
            assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (None, None));
        }
    }
}

#[test]
fn interim_responses_are_not_the_answer() {
    for interim in ["100 Continue", "102 Processing", "103 Early Hints"] {
        let response = format!("HTTP/1.1 {interim}\r\nlink: </a.css>\r\n\r\n").repeat(2)
            + "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        for request in [GET, POST, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"] {
            let answer = treated(request, &*response).0.expect("an answer");
            assert_eq!((answer.status, &*answer.body), (200, "ok"), "{interim}");
        }
    }
}

/// The endpoint's version was copied: a client of HTTP/1.1 got an answer of HTTP/1.0.
#[test]
fn an_endpoint_of_http_1_0_changes_nothing_for_the_client() {
    for fields in ["content-length: 2\r\n", "", "connection: keep-alive\r\ncontent-length: 2\r\n"] {
        let origin = Origin::closing(move |_, _| format!("HTTP/1.0 200 OK\r\n{fields}\r\nok").into_bytes());
        let proxy = Proxy::to(&[origin.address]);
        let mut client = Client::connect(proxy.address());
        for _ in 0..3 {
            client.send(GET);
            let answer = client.receive().unwrap();
            assert_eq!((&*answer.line, &*answer.body), ("HTTP/1.1 200 OK", "ok"), "{fields:?}");
        }
    }
}

#[test]
fn a_length_is_written_anew_for_the_client() {
    let (answer, _) = treated(GET, "HTTP/1.1 200 OK\r\ncontent-length: 010\r\n\r\n0123456789");
    let answer = answer.unwrap();
    assert_eq!(answer.header("content-length"), Some("10"));
}

/// Behind trailers hyper asks for nothing more: the connection was lost, and the client blamed.
#[test]
fn an_answer_in_single_bytes_is_an_answer() {
    let whole = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n";
    let origin = Origin::talking(move |conversation, _| {
        while conversation.request().is_some() {
            whole.bytes().all(|byte| conversation.send([byte]));
        }
    });
    let relay = Chaos::with(origin.address, |_| (Way::Pass, Way::Pass));
    let proxy = Proxy::to(&[relay.address]);
    let mut client = Client::connect(proxy.address());
    for _ in 0..3 {
        client.send(GET);
        assert_eq!(client.receive().unwrap().body, "hello");
    }
    drop(client);
    assert_eq!(relay.accepted(), 1, "the connection is kept");
    assert!(proxy.logged().iter().all(|line| line["reason"].is_null()));
}

/// Interim responses without end held the worker, and no timer rang.
#[test]
fn interim_responses_without_end_are_too_large() {
    let origin = Origin::talking(|conversation, _| {
        conversation.request();
        let many = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
        while conversation.send(&many) {}
    });
    let proxy = Proxy::to(&[origin.address]);
    let answer = answer_to(proxy.address(), "GET", "/");
    assert_eq!((answer.status, answer.reason()), (502, Some("response_headers_too_large")));
}

/// The limit between two pieces of a response ran while the request was still on its way.
#[test]
fn an_endpoint_that_begins_its_answer_and_then_listens_is_in_time() {
    let origin = Origin::talking(|conversation, _| {
        conversation.head_only();
        conversation.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        assert!(conversation.read_exactly(100_006).ends_with(b"abcdef"));
        conversation.send("whole");
    });
    let proxy = Proxy::tuned(&[origin.address], "", "timeouts.body = \"400ms\"", "");
    let mut client = Client::connect(proxy.address());
    // More than is held before it is sent.
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100006\r\n\r\n");
    client.send([b'x'; 100_000]);
    for piece in ["a", "b", "c", "d", "e", "f"] {
        await_later(Duration::from_millis(150));
        client.send(piece);
    }
    let answer = client.receive().expect("an answer");
    assert_eq!((answer.status, &*answer.body), (200, "whole"));
}

#[test]
fn an_endpoint_that_answers_early_and_closes_is_heard() {
    let origin = Origin::talking(|conversation, _| {
        conversation.head_only();
        conversation.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlarge");
        conversation.stream().shutdown(std::net::Shutdown::Write).unwrap();
        conversation.drain();
    });
    let proxy = Proxy::to(&[origin.address]);
    for length in [1000, 100_000, 5_000_000] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
        let answer = exchange(proxy.address(), request).unwrap_or_else(|| panic!("no answer to {length} bytes"));
        assert_eq!((answer.status, &*answer.body), (413, "large"), "{length}");
    }
}
