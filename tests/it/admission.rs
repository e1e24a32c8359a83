//! What must never get through. Each story is one of the ten findings, or of what was confirmed by running.

use crate::kit::{Client, Origin, Proxy, exchange};

/// Sends each request; all must be refused with `status` and `reason`, and the endpoint must hear nothing.
fn all_refused(status: u16, reason: &str, requests: &[&str]) {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    for request in requests {
        let mut client = Client::connect(proxy.address());
        client.send(request);
        let answer = client.receive().unwrap_or_else(|| panic!("no answer to {request:?}"));
        assert_eq!((answer.status, answer.reason()), (status, Some(reason)), "{request:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
        assert!(client.rest().is_empty(), "more than one answer to {request:?}");
    }
    assert!(origin.heard().is_empty(), "{:?}", origin.heard());
}

#[test]
fn host_is_exactly_one_valid_name() {
    all_refused(
        400,
        "bad_host",
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost:\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: u@h\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h:99999\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
        ],
    );
}

#[test]
fn rootless_targets_do_not_become_the_root() {
    all_refused(
        400,
        "bad_target",
        &[
            "GET admin HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET h.test:80 HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET ftp://a/x HTTP/1.1\r\nhost: a\r\n\r\n",
        ],
    );
}

#[test]
fn paths_that_slip_past_prefix_rules_are_refused() {
    all_refused(
        400,
        "bad_path",
        &[
            "GET /public/../admin HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /public/%2e%2e/admin HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /public/..%2fadmin HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /./admin HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /public\\..\\admin HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /a%00 HTTP/1.1\r\nhost: a\r\n\r\n",
        ],
    );
}

#[test]
fn transfer_encoding_is_exactly_chunked() {
    all_refused(
        400,
        "bad_transfer_encoding",
        &[
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: ,chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
    );
}

#[test]
fn expectations_other_than_continue_are_refused() {
    all_refused(417, "bad_expect", &["POST / HTTP/1.1\r\nhost: a\r\nexpect: tea\r\ncontent-length: 1\r\n\r\nx"]);
}

#[test]
fn connect_and_trace_are_not_served() {
    all_refused(
        405,
        "method_refused",
        &["CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n"],
    );
}

#[test]
fn a_loop_ends() {
    let via = "via: 1.1 headgate, 1.1 headgate, 1.1 headgate\r\nvia: 2 headgate, 1.1 headgate\r\n";
    all_refused(508, "loop_detected", &[&format!("GET / HTTP/1.1\r\nhost: a\r\n{via}\r\n")]);
}

#[test]
fn length_beside_chunks_never_smuggles_a_request() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
    client.rest();
    assert!(origin.heard().iter().all(|heard| !heard.line.contains("smuggled")), "{:?}", origin.heard());
}

#[test]
fn content_length_is_written_anew() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let answer =
        exchange(proxy.address(), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 010\r\n\r\n0123456789").unwrap();
    assert_eq!(answer.status, 200);
    let heard = origin.heard();
    assert_eq!((heard[0].header("content-length"), heard[0].body.len()), (Some("10"), 10));
}

#[test]
fn a_chunked_get_keeps_its_body_and_framing() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let request = "GET /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(exchange(proxy.address(), request).unwrap().status, 200);
    let heard = origin.heard();
    assert_eq!((heard[0].header("transfer-encoding"), &*heard[0].body), (Some("chunked"), &b"hello"[..]));
}

#[test]
fn broken_chunks_are_the_clients_fault() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let request = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n";
    let answer = exchange(proxy.address(), request).unwrap();
    assert_eq!((answer.status, answer.reason()), (400, Some("bad_body")));
    // The endpoint is as good as before.
    assert_eq!(crate::kit::answer_to(proxy.address(), "GET", "/").status, 200);
}

#[test]
fn a_clients_forwarding_fields_and_hop_fields_do_not_pass() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let request = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.9\r\nx_forwarded_for: 203.0.113.9\r\n\
        x.forwarded.proto: https\r\nconnection: host, x-secret\r\nx-secret: 1\r\nupgrade: h2c\r\nhttp2-settings: x\r\n\r\n";
    assert_eq!(exchange(proxy.address(), request).unwrap().status, 200);
    let heard = &origin.heard()[0];
    assert_eq!(heard.header("host"), Some("a"));
    assert_eq!(heard.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(heard.header("x-forwarded-proto"), Some("http"));
    assert_eq!(heard.header("via"), Some("1.1 headgate"));
    for gone in ["x_forwarded_for", "x.forwarded.proto", "x-secret", "upgrade", "http2-settings", "connection"] {
        assert_eq!(heard.header(gone), None, "{gone}");
    }
}

#[test]
fn the_endpoint_sees_the_path_that_rules_saw() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    for (sent, heard) in [("//a///b", "/a/b"), ("/%61dmin?q=%61//", "/admin?q=%61//"), ("/a#b", "/a")] {
        let request = format!("GET {sent} HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(exchange(proxy.address(), request).unwrap().status, 200, "{sent}");
        assert_eq!(origin.heard().last().unwrap().line, format!("GET {heard} HTTP/1.1"));
    }
}

#[test]
fn an_upgrade_that_no_route_names_is_an_ordinary_request() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    for protocol in ["h2c", "TLS/1.0", "anything"] {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n");
        assert_eq!(exchange(proxy.address(), request).unwrap().status, 200);
    }
    assert!(origin.heard().iter().all(|heard| heard.header("upgrade").is_none()));
}

#[test]
fn limits_answer_with_their_own_status() {
    let origin = Origin::named("app");
    let proxy = Proxy::start(&Proxy::simple(&[origin.address], "limits.body = \"1KiB\""));
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(9_000));
    assert_eq!(exchange(proxy.address(), long).unwrap().status, 414);
    let body = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\n";
    assert_eq!(exchange(proxy.address(), body).unwrap().status, 413);
    let fields = format!("GET / HTTP/1.1\r\nhost: a\r\nx-big: {}\r\n\r\n", "x".repeat(70_000));
    assert_eq!(exchange(proxy.address(), fields).unwrap().status, 431);
    assert!(origin.heard().is_empty());
}
