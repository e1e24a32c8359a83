//! HTTP/2 towards clients: what HTTP/1.1 could not say must not reach an endpoint.

use crate::kit::{End, Frames, Origin, Proxy};

/// A request's own fields beside the four that HTTP/2 needs.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// Sends each on a connection of its own; the endpoint must hear of none, and serve on.
fn none_heard(requests: &[Fields<'_>]) -> Vec<End> {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let ends = requests
        .iter()
        .map(|fields| {
            let mut frames = Frames::connect(proxy.address());
            let stream = frames.open(fields, true);
            frames.end(stream)
        })
        .collect();
    assert!(origin.heard().is_empty(), "{:?}", origin.heard());
    let mut frames = Frames::connect(proxy.address());
    let stream = frames.request("GET", "/", &[], true);
    assert_eq!(frames.end(stream), End::Answer(200, "app".to_owned()));
    ends
}

/// Each is answered with a status and a reason.
fn all_refused(status: u16, reason: &str, requests: &[Fields<'_>]) {
    for (end, fields) in none_heard(requests).iter().zip(requests) {
        assert!(matches!(end, End::Answer(got, _) if *got == status), "{fields:?}: {end:?}");
        assert_eq!(end.reason(), Some(reason), "{fields:?}");
    }
}

/// Each is a stream error or a connection error.
fn all_malformed(requests: &[Fields<'_>]) {
    for (end, fields) in none_heard(requests).iter().zip(requests) {
        assert!(matches!(end, End::Reset(1) | End::Goaway(1)), "{fields:?}: {end:?}");
    }
}

/// The four pseudo-header fields of a GET, then these.
macro_rules! get {
    ($($field:expr),* $(,)?) => {
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), $($field),*][..]
    };
}

#[test]
fn content_lengths_that_are_empty_or_differ_are_malformed() {
    all_malformed(&[
        get!(("content-length", "0"), ("content-length", "5")),
        get!(("content-length", "5")),
        get!(("content-length", "-1")),
        get!(("content-length", "1, 1")),
        get!(("content-length", "99999999999999999999")),
    ]);
    all_refused(400, "bad_content_length", &[get!(("content-length", ""))]);
}

#[test]
fn a_small_body_that_is_not_as_long_as_announced_reaches_no_endpoint() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    for (announced, sent) in [("5", "1234"), ("5", "123456"), ("0", "1")] {
        let mut frames = Frames::connect(proxy.address());
        let stream = frames.request("POST", "/", &[("content-length", announced)], false);
        frames.data(stream, sent.as_bytes(), true);
        let end = frames.end(stream);
        assert!(matches!(end, End::Reset(1) | End::Goaway(1)), "{announced} {sent}: {end:?}");
    }
    assert!(origin.heard().is_empty(), "{:?}", origin.heard());
}

#[test]
fn a_large_body_that_is_cut_short_is_never_whole_for_the_endpoint() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let mut frames = Frames::connect(proxy.address());
    // Too large to be held: the endpoint has its head before the body's end is known.
    let stream = frames.request("POST", "/", &[("content-length", "100000")], false);
    for _ in 0..4 {
        frames.data(stream, &[b'x'; 16_000], false);
    }
    frames.data(stream, b"x", true);
    assert_eq!(frames.end(stream), End::Reset(1));
    let next = frames.request("GET", "/", &[], true);
    assert_eq!(frames.end(next), End::Answer(200, "app".to_owned()));
    assert!(origin.heard().iter().all(|heard| heard.line.starts_with("GET")), "{:?}", origin.heard());
}

#[test]
fn the_host_field_says_what_the_authority_says() {
    all_refused(
        400,
        "bad_host",
        &[
            get!(("host", "b")),
            get!(("host", "a"), ("host", "b")),
            get!(("host", "a:81")),
            &[(":method", "GET"), (":scheme", "http"), (":path", "/")],
            &[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a/b")],
        ],
    );
}

#[test]
fn values_do_not_begin_or_end_with_whitespace() {
    all_refused(
        400,
        "bad_header",
        &[get!(("x-a", " 1")), get!(("x-a", "1 ")), get!(("x-a", "\t1")), get!(("x-a", " "))],
    );
}

#[test]
fn control_bytes_and_capitals_do_not_become_header_lines() {
    all_malformed(&[
        get!(("x-a", "1\r\nx-b: 2")),
        get!(("x-a", "1\n")),
        get!(("x-a", "1\0")),
        get!(("x-a: 1\r\nx-b", "2")),
        get!(("X-A", "1")),
        get!(("x a", "1")),
        get!(("", "1")),
    ]);
}

#[test]
fn a_target_is_a_path() {
    let path = |path| [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    let ends = none_heard(&[
        &path("admin"),
        &path("http://b/"),
        &path("*"),
        &path(""),
        &path("/a b"),
        &path("/a\r\nx: y"),
        &path("?q"),
        &[(":method", "GET"), (":scheme", "ftp"), (":authority", "a"), (":path", "/")],
        &[(":method", "GET"), (":scheme", "http"), (":authority", "u@a"), (":path", "/")],
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a/b"), (":path", "/")],
        &[(":method", "GET /x HTTP/1.1"), (":scheme", "http"), (":authority", "a"), (":path", "/")],
    ]);
    for end in ends {
        assert!(matches!(end, End::Answer(400, _) | End::Reset(1) | End::Goaway(1)), "{end:?}");
    }
    all_refused(400, "bad_path", &[&path("/a/../b"), &path("/a/%2e%2e/b"), &path("/a\\b")]);
}

#[test]
fn pseudo_header_fields_come_first_and_once() {
    all_malformed(&[
        get!((":path", "/b")),
        get!((":authority", "b")),
        get!((":status", "200")),
        get!((":other", "1")),
        &[(":method", "GET"), (":scheme", "http"), ("x-a", "1"), (":path", "/"), (":authority", "a")],
        &[(":method", "GET"), (":authority", "a"), (":path", "/")],
        &[(":scheme", "http"), (":authority", "a"), (":path", "/")],
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a")],
    ]);
}

#[test]
fn fields_of_one_connection_are_malformed() {
    all_malformed(&[
        get!(("connection", "close")),
        get!(("transfer-encoding", "chunked")),
        get!(("upgrade", "websocket")),
        get!(("keep-alive", "timeout=5")),
        get!(("proxy-connection", "keep-alive")),
        get!(("te", "gzip")),
        get!(("te", "trailers, gzip")),
    ]);
}

#[test]
fn connect_is_not_served_and_its_extension_is_unknown() {
    all_refused(405, "method_refused", &[&[(":method", "CONNECT"), (":authority", "a:80")]]);
    all_malformed(&[&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a"),
    ]]);
}

#[test]
fn a_hundred_fields_are_the_most() {
    let many: Vec<(String, &str)> = (0..101).map(|number| (format!("x-{number}"), "1")).collect();
    let mut fields = get!().to_vec();
    fields.extend(many.iter().map(|(name, value)| (&**name, *value)));
    all_refused(431, "headers_too_large", &[&fields]);
}

#[test]
fn fields_are_no_larger_than_the_listeners_limit() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "limits.header_bytes = \"8KiB\"", "", "");
    let large = "x".repeat(9_000);
    let mut frames = Frames::connect(proxy.address());
    let stream = frames.request("GET", "/", &[("x-large", &large)], true);
    assert!(matches!(frames.end(stream), End::Answer(431, _)));
    // Far beyond it the connection ends, whatever the fields are.
    let mut frames = Frames::connect(proxy.address());
    let larger = "x".repeat(200_000);
    let stream = frames.request("GET", "/", &[("x-larger", &larger)], true);
    let end = frames.end(stream);
    assert!(matches!(end, End::Answer(431, _) | End::Goaway(_) | End::Reset(_) | End::Closed), "{end:?}");
    assert!(origin.heard().is_empty(), "{:?}", origin.heard());
}

#[test]
fn crumbs_of_a_cookie_become_one_field() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let mut frames = Frames::connect(proxy.address());
    let stream = frames.request("GET", "/", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")], true);
    assert!(matches!(frames.end(stream), End::Answer(200, _)));
    let heard = &origin.heard()[0];
    let cookies: Vec<&str> =
        heard.headers.iter().filter(|(name, _)| name == "cookie").map(|(_, value)| &**value).collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}

#[test]
fn options_of_the_whole_server_is_an_asterisk() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let mut frames = Frames::connect(proxy.address());
    let stream = frames.request("OPTIONS", "*", &[], true);
    assert_eq!(frames.end(stream), End::Answer(200, "app".to_owned()));
    assert_eq!(origin.heard()[0].line, "OPTIONS * HTTP/1.1");
}

#[test]
fn trailers_carry_no_pseudo_fields_and_none_that_headgate_owns() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let mut frames = Frames::connect(proxy.address());
    let declared = [("trailer", "x-sum, x-forwarded-for"), ("te", "trailers")];
    let stream = frames.request("POST", "/", &declared, false);
    frames.data(stream, b"body", false);
    frames.fields(stream, &[("x-sum", "4"), ("x-forwarded-for", "203.0.113.9")], true);
    assert!(matches!(frames.end(stream), End::Answer(200, _)));
    assert_eq!(origin.heard()[0].trailers, [("x-sum".to_owned(), "4".to_owned())]);

    let stream = frames.request("POST", "/", &declared, false);
    frames.data(stream, b"body", false);
    frames.fields(stream, &[(":path", "/admin")], true);
    frames.end(stream);
    // h2 drops it unseen: what counts is that the endpoint gets none.
    assert!(origin.heard().iter().all(|heard| !heard.trailers.iter().any(|(name, _)| name.contains("path"))));
    assert!(origin.heard().iter().all(|heard| heard.line == "POST / HTTP/1.1"), "{:?}", origin.heard());
}
