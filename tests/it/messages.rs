//! The odd corners of HTTP/1: expectations, forms of targets, versions, pipelines, trailers, early ends.

use std::io::{Read, Write};
use std::sync::mpsc;

use crate::kit::{Client, Heard, Origin, Proxy, exchange, gate, ok};

#[test]
fn a_client_that_expects_continue_is_told_to_go_on() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    // Held from the start, and passed on as it comes.
    for length in [5, 100_000] {
        let mut client = Client::connect(proxy.address());
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"));
        assert_eq!(client.receive_head().unwrap().status, 100);
        client.send("x".repeat(length));
        let answer = client.receive().unwrap();
        assert_eq!((answer.status, &*answer.body), (200, "app"));
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.receive().expect("the connection goes on").status, 200);
    }
    assert!(origin.heard().iter().all(|heard| heard.header("expect").is_none()));
}

#[test]
fn a_client_that_does_not_wait_for_continue_is_served() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    for length in [5, 100_000] {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n");
        let mut client = Client::connect(proxy.address());
        client.send(format!("{head}{}GET /next HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(length)));
        let mut answer = client.receive_head().unwrap();
        if answer.status == 100 {
            answer = client.receive().unwrap();
        } else {
            client.read_exactly(3);
        }
        assert_eq!(answer.status, 200);
        assert_eq!(client.receive().unwrap().body, "app");
    }
    assert_eq!(origin.heard().len(), 4);
}

#[test]
fn a_refused_request_is_not_told_to_go_on() {
    let origin = Origin::named("app");
    let proxy = Proxy::start(&Proxy::simple(&[origin.address], "limits.body = \"1KiB\""));
    let mut client = Client::connect(proxy.address());
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2000\r\n\r\n");
    let answer = client.receive().unwrap();
    assert_eq!((answer.status, answer.reason()), (413, Some("body_too_large")));
    // The body that was held back could otherwise be read as a request.
    client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(client.rest().is_empty(), "the connection is closed");
    assert!(origin.heard().is_empty());
}

#[test]
fn an_endpoint_may_answer_before_it_has_the_body() {
    let (answered, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::talking(move |conversation, number| {
        conversation.head_only();
        if number > 0 {
            conversation.send(ok("next"));
            return;
        }
        conversation.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
        let _ = wait.lock().unwrap().recv();
    });
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 100000\r\n\r\n");
    let mut answer = client.receive_head().unwrap();
    if answer.status == 100 {
        answer = client.receive().unwrap();
    }
    assert_eq!(answer.status, 403);
    answered.send(()).unwrap();
    // Neither side's connection is used again: a part of the body may still be on its way.
    client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
    client.rest();
    let next = exchange(proxy.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert_eq!(next.body, "next");
    assert!(origin.heard().iter().all(|heard| !heard.line.contains("smuggled")), "{:?}", origin.heard());
}

/// The refusal was lost: a close with unread bytes is a reset, which takes back what the client has not read yet.
#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let origin = Origin::named("app");
    let proxy = Proxy::start(&Proxy::simple(&[origin.address], "limits.body = \"1KiB\""));
    for framing in ["content-length: 4000000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n3d0900\r\n"] {
        for _ in 0..10 {
            let mut client = Client::connect(proxy.address());
            // Sends all of it before it looks for an answer, as simple clients do.
            let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}{}", "x".repeat(4_000_000));
            client.second().write_all(request.as_bytes()).expect("the connection stays until all is sent");
            let answer = client.receive().expect("an answer");
            assert_eq!((answer.status, answer.reason()), (413, Some("body_too_large")));
        }
    }
}

/// Likewise with any other answer before the body's end: only refusals were heard out, and behind the others a reset took
/// back what the client had not read.
#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let (_open, closed) = gate();
    let origin = Origin::talking(move |conversation, _| {
        conversation.head_only();
        conversation.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 5\r\n\r\nlarge");
        // Reads no more, and stays.
        closed.pass();
    });
    let config = Proxy::simple(&[origin.address], "")
        + "\n[routes.moved]\nmatch.path = \"/moved\"\nredirect.to = \"/new\"\n\
           [routes.fixed]\nmatch.path = \"/fixed\"\nrespond = { status = 200, body = \"ok\" }\n";
    let proxy = Proxy::start(&config);
    for (path, status) in [("/", 413), ("/moved", 308), ("/fixed", 200)] {
        // More than all buffers on the way take.
        for framing in ["content-length: 20000000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n1312d00\r\n"] {
            let mut client = Client::connect(proxy.address());
            let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\n{framing}{}", "x".repeat(20_000_000));
            client.second().write_all(request.as_bytes()).expect("the connection stays until all is sent");
            let answer = client.receive().expect("an answer");
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{path}");
        }
    }
}

/// A proxy that answers everything by itself.
fn answering(body: &str) -> Proxy {
    Proxy::start(&format!(
        "[listeners.http]\naddress = \"127.0.0.1:0\"\n\
         [routes.all]\nmatch.path = \"/*\"\nrespond = {{ status = 200, body = \"{body}\" }}\n"
    ))
}

/// What is there with its head is read in passing, and its connection goes on.
#[test]
fn a_short_body_that_nobody_wants_costs_no_connection() {
    let proxy = answering("ok");
    let mut client = Client::connect(proxy.address());
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello");
        let answer = client.receive().expect("an answer");
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
}

/// It waits to be told, and is not: what it sends next would be taken for the body.
#[test]
fn an_answer_instead_of_continue_ends_the_connection() {
    let proxy = answering("ok");
    let mut client = Client::connect(proxy.address());
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    let answer = client.receive().expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
}

#[test]
fn a_client_of_http_1_0_that_has_its_answer_is_not_reset() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.header = \"300ms\"", "", "");
    let mut client = Client::connect(proxy.address());
    client.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
    assert_eq!(client.receive().expect("an answer").body, "app");
    // Its next head never becomes whole.
    client.send("GET / HT");
    let end = client.second().read_to_end(&mut Vec::new());
    assert_eq!(end.map_err(|error| error.kind()), Ok(0));
}

/// A client of HTTP/1.0 took the part for the whole: an end in good order is how such a body ends.
#[test]
fn a_response_that_breaks_off_is_no_whole_one_to_a_client_of_http_1_0() {
    let origin = Origin::talking(|conversation, _| {
        conversation.request();
        conversation.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    });
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    let mut all = Vec::new();
    let end = client.second().read_to_end(&mut all);
    assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset), "{all:?}");
    assert_eq!(proxy.logged()[0]["reason"], "response_incomplete");
}

/// Likewise where hyper refused by itself: its answer was followed by a close at once.
#[test]
fn what_hyper_refuses_is_told_to_a_client_that_is_still_sending() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let sent = "x".repeat(4_000_000);
    for (status, head) in
        [(431, "GET / HTTP/1.1\r\nhost: a\r\nx-big: "), (400, "GET / HTTP/1.1\r\nhost: a\r\nx y\r\n\r\n")]
    {
        for _ in 0..10 {
            let mut client = Client::connect(proxy.address());
            client
                .second()
                .write_all(format!("{head}{sent}").as_bytes())
                .expect("the connection stays until all is sent");
            assert_eq!(client.receive().expect("an answer").status, status);
        }
    }
    assert!(origin.heard().is_empty());
}

#[test]
fn forms_of_targets_reach_the_endpoint_in_origin_form() {
    let origin = Origin::scripted(|heard, _| match heard.line.starts_with("HEAD") {
        true => b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n".to_vec(),
        false => ok("app"),
    });
    let proxy = Proxy::start(&Proxy::simple(&[origin.address], "").replace("match.path = \"/*\"", ""));
    for (line, heard) in [
        ("GET http://a/x?q=1", "GET /x?q=1"),
        ("GET http://A:80", "GET /"),
        ("GET http://a?q", "GET /?q"),
        ("HEAD /x", "HEAD /x"),
        ("OPTIONS *", "OPTIONS *"),
        ("OPTIONS /x", "OPTIONS /x"),
    ] {
        let host = if line.contains("A:80") { "A:80" } else { "a" };
        let mut client = Client::connect(proxy.address());
        client.send(format!("{line} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(client.receive_head().unwrap().status, 200, "{line}");
        assert_eq!(origin.heard().last().unwrap().line, format!("{heard} HTTP/1.1"), "{line}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::scripted(|heard, _| ok(&heard.line));
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    let pipeline: String =
        (0..20).map(|number| format!("PUT /{number} HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello")).collect();
    client.send(format!("{pipeline}GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
    for number in 0..20 {
        assert_eq!(client.receive().unwrap().body, format!("PUT /{number} HTTP/1.1"));
    }
    assert_eq!(client.receive().unwrap().body, "GET /last HTTP/1.1");
    assert!(client.rest().is_empty());
}

#[test]
fn close_is_for_one_side_only() {
    // The client closes: the endpoint's connection is kept.
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "", "timeouts.keep_alive = \"30s\"", "");
    for _ in 0..8 {
        let mut client = Client::connect(proxy.address());
        client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = client.receive().unwrap();
        assert_eq!((answer.header("connection"), &*answer.body), (Some("close"), "app"));
        assert!(client.rest().is_empty());
    }
    assert!(origin.connections() <= 2, "one for each worker: {}", origin.connections());

    // The endpoint closes: the client's connection is kept.
    let origin =
        Origin::scripted(|_, _| b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok".to_vec());
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.receive().unwrap();
        assert_eq!((answer.header("connection"), &*answer.body), (None, "ok"));
    }
    assert_eq!(origin.connections(), 3);
}

/// Bytes that nobody reads had the close take back the answer before it.
#[test]
fn what_comes_behind_a_close_takes_no_answer_back() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::talking(move |conversation, _| {
        conversation.request().unwrap();
        wait.lock().unwrap().recv().unwrap();
        conversation.send(ok("app"));
    });
    let proxy = Proxy::to(&[origin.address]);
    for (number, more) in ["\r\n", "GET /more HTTP/1.1\r\nhost: a\r\n\r\n"].into_iter().enumerate() {
        let mut client = Client::connect(proxy.address());
        client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        origin.await_heard(number + 1);
        client.send(more);
        go.send(()).unwrap();
        assert_eq!(client.receive().expect("an answer").body, "app", "{more:?}");
        assert!(client.rest().is_empty());
    }
    assert_eq!(origin.heard().len(), 2);
}

#[test]
fn clients_of_http_1_0_are_served_their_way() {
    let origin = Origin::scripted(|heard, _| match heard.line.contains("chunked") {
        true => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\napp\r\n0\r\n\r\n".to_vec(),
        false => ok("app"),
    });
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    client.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
    let answer = client.receive().unwrap();
    assert_eq!((&*answer.line, answer.header("connection")), ("HTTP/1.0 200 OK", Some("keep-alive")));
    // Without keep-alive, and with a body whose length nobody knows: both end with the connection.
    client.send("GET /chunked HTTP/1.0\r\nhost: a\r\n\r\n");
    let text = String::from_utf8(client.rest()).unwrap();
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("\r\n\r\napp"), "{text}");
    assert!(!text.contains("transfer-encoding"), "{text}");
    let mut client = Client::connect(proxy.address());
    client.send("GET /chunked HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
    assert!(client.rest().ends_with(b"\r\n\r\napp"), "the end of the connection is the only end it can be told by");
    assert!(origin.heard().iter().all(|heard| heard.line.ends_with("HTTP/1.1")), "{:?}", origin.heard());
}

#[test]
fn trailers_pass_both_ways_without_what_they_may_not_carry() {
    let fields =
        "x-sum: 1\r\nx-forwarded-for: 203.0.113.9\r\nconnection: x-sum\r\ncontent-length: 3\r\nauthorization: x\r\n";
    let names = "trailer: x-sum, x-forwarded-for, connection, content-length, authorization\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\n{names}transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{fields}\r\n");
    let origin = Origin::scripted(move |_, _| answer.clone().into_bytes());
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n{names}transfer-encoding: chunked\r\n\r\n"
    );
    for _ in 0..2 {
        client.send(format!("{head}5\r\nhello\r\n0\r\n{fields}\r\n"));
        let answer = client.receive().unwrap();
        let owned = |fields: &[(String, String)]| fields.iter().any(|(name, _)| name != "x-sum");
        assert_eq!(answer.body, "ok");
        assert!(!owned(&answer.trailers), "{:?}", answer.trailers);
        let heard: Heard = origin.heard().pop().unwrap();
        assert_eq!(heard.body, b"hello");
        assert!(!owned(&heard.trailers), "{:?}", heard.trailers);
    }
    assert_eq!(origin.connections(), 1, "the endpoint's connection is kept behind trailers");
}

/// Where a request's body is left unread, hyper says that it is done when the answer lies in its buffer. It was thrown
/// away with the buffer where the client was slow to take it.
#[test]
fn an_answer_to_an_unread_body_reaches_a_client_that_is_slow_to_take_it() {
    const LENGTH: usize = 1 << 20;
    let proxy = answering(&"x".repeat(LENGTH));
    let mut client = Client::slow(proxy.address());
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nand no more");
    let answer = client.receive().expect("all of it");
    assert_eq!((answer.status, answer.body.len()), (200, LENGTH));
}
