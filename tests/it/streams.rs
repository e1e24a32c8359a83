//! The streams of an HTTP/2 connection: how many there may be, how long they may stall, and when the connection ends.

use std::time::Duration;

use headgate::base::clock;

use crate::kit::{
    End, Frames, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, Origin, Proxy, RESET, answer_to, eventually, ok,
};

/// What an implicit reset says (RFC 9113 §7).
const CANCEL: u32 = 8;
const REFUSED_STREAM: u32 = 7;

#[test]
fn more_streams_than_announced_are_refused() {
    let origin = Origin::scripted(|heard, _| match heard.line.contains("held") {
        true => hold(),
        false => ok("app"),
    });
    let proxy = Proxy::tuned(&[origin.address], "limits.streams = 3", "", "");
    let mut frames = Frames::connect(proxy.address());
    assert!(frames.settings.contains(&(MAX_CONCURRENT_STREAMS, 3)), "{:?}", frames.settings);
    for _ in 0..3 {
        frames.request("GET", "/held", &[], true);
    }
    let stream = frames.request("GET", "/", &[], true);
    assert_eq!(frames.end(stream), End::Reset(REFUSED_STREAM));
    assert!(origin.heard().iter().all(|heard| heard.line.contains("held")), "{:?}", origin.heard());
}

/// A response whose end never comes.
fn hold() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec()
}

fn large(bytes: usize) -> Vec<u8> {
    ok(&"x".repeat(bytes))
}

/// The access log's line for a path.
fn line_of(log: &str, path: &str) -> serde_json::Value {
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.into_iter().find(|line| line["path"] == path).unwrap_or_else(|| panic!("no {path} in {log}"))
}

/// A GET of it.
const STYLE: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/style.css"), (":authority", "notes.test")];

/// A proxy that holds so many bytes in its cache as `/style.css`, and their origin.
fn with_cached(listener: &str, length: usize) -> (Origin, Proxy) {
    let body = "x".repeat(length);
    let answer = format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: {length}\r\n\r\n{body}");
    let origin = Origin::scripted(move |_, _| answer.clone().into_bytes());
    let proxy = Proxy::tuned(&[origin.address], listener, "", "cache = { zone = \"main\" }");
    assert_eq!(answer_to(proxy.address(), "GET", "/style.css").status, 200);
    (origin, proxy)
}

#[test]
fn a_client_that_opens_no_window_does_not_hold_its_stream() {
    let origin = Origin::scripted(|heard, _| if heard.line.contains("large") { large(1 << 20) } else { ok("app") });
    let proxy = Proxy::tuned(&[origin.address], "timeouts.send = \"1s\"", "", "");
    let mut frames = Frames::with(proxy.address(), &[(INITIAL_WINDOW_SIZE, 0)]);
    let began = clock::now();
    let stalled = frames.request("GET", "/large", &[], true);
    assert_eq!(frames.end(stalled), End::Reset(CANCEL));
    assert!(began.elapsed() < Duration::from_secs(8));
    // Other streams of the connection are not to blame.
    let next = frames.request("GET", "/", &[], true);
    frames.window(next, 1000);
    assert_eq!(frames.end(next), End::Answer(200, "app".to_owned()));
    drop(frames);
    let (_, log) = proxy.stop();
    assert_eq!(line_of(&log, "/large")["reason"], "send_timeout", "{log}");
}

/// CVE-2019-9511: for one byte of window h2 took all that it was given, and a response that it had whole was watched by
/// nobody.
#[test]
fn a_window_of_one_byte_does_not_hold_a_stream() {
    const STREAMS: usize = 50;
    let (_origin, proxy) = with_cached("timeouts.send = \"1s\"", 60_000);
    let mut frames = Frames::with(proxy.address(), &[(INITIAL_WINDOW_SIZE, 1)]);
    for _ in 0..STREAMS {
        frames.open(&STYLE, true);
    }
    let mut resets = 0;
    while resets < STREAMS {
        resets += usize::from(frames.receive().expect("the connection stays").kind == RESET);
    }
    drop(frames);
    let log = proxy.logged();
    // Two pieces: h2 asks for the second with the first in its hand.
    let is_stalled = |line: &serde_json::Value| {
        line["reason"] == "send_timeout" && line["bytes_out"].as_u64().is_some_and(|bytes| bytes <= 32 * 1024)
    };
    assert_eq!(log.iter().filter(|line| is_stalled(line)).count(), STREAMS, "{:?}", log.last());
}

#[test]
fn a_stalled_stream_of_a_cached_answer_ends_too() {
    let (origin, proxy) = with_cached("timeouts.send = \"1s\"", 300_000);
    let mut frames = Frames::with(proxy.address(), &[(INITIAL_WINDOW_SIZE, 10_000)]);
    let stream = frames.open(&STYLE, true);
    assert_eq!(frames.end(stream), End::Reset(CANCEL));
    assert_eq!(origin.heard().len(), 1, "the second came from the cache");
}

#[test]
fn a_slow_reader_of_a_cached_answer_is_not_taken_for_an_idle_connection() {
    let (_origin, proxy) = with_cached("timeouts.keep_alive = \"1s\"", 300_000);
    let mut frames = Frames::with(proxy.address(), &[(INITIAL_WINDOW_SIZE, 10_000)]);
    let stream = frames.open(&STYLE, true);
    // It takes longer than an idle connection lives, and then wants the rest.
    let began = clock::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert!(frames.ping(), "the connection ended while a response was on its way");
    }
    frames.window(0, 400_000);
    frames.window(stream, 400_000);
    assert!(matches!(frames.end(stream), End::Answer(200, _)));
}

#[test]
fn little_of_a_response_is_taken_ahead_of_a_stalled_client() {
    let origin = Origin::scripted(|_, _| large(4 << 20));
    let proxy = Proxy::tuned(&[origin.address], "timeouts.send = \"1s\"", "", "");
    let mut frames = Frames::connect(proxy.address());
    let stream = frames.request("GET", "/large", &[], true);
    assert!(matches!(frames.end(stream), End::Reset(_)));
    drop(frames);
    let (_, log) = proxy.stop();
    let taken = line_of(&log, "/large")["bytes_out"].as_u64().unwrap();
    // The client's window of 64 KiB, the send buffer of 64 KiB, and a read.
    assert!(taken <= 256 * 1024, "{taken} bytes");
}

#[test]
fn pings_and_windows_do_not_end_an_idle_connection_as_a_slow_head() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.header = \"1s\"", "", "");
    let mut frames = Frames::connect(proxy.address());
    let stream = frames.request("GET", "/", &[], true);
    assert!(matches!(frames.end(stream), End::Answer(200, _)));
    let began = clock::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert!(frames.ping(), "an idle connection ended after {:?}", began.elapsed());
    }
    let stream = frames.request("GET", "/", &[], true);
    assert_eq!(frames.end(stream), End::Answer(200, "app".to_owned()));
}

#[test]
fn pings_do_not_keep_a_connection_without_requests() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.keep_alive = \"1s\"", "", "");
    let mut frames = Frames::connect(proxy.address());
    let stream = frames.request("GET", "/", &[], true);
    assert!(matches!(frames.end(stream), End::Answer(200, _)));
    let began = clock::now();
    while frames.ping() {
        assert!(began.elapsed() < Duration::from_secs(15), "pings keep it alive");
    }
}

#[test]
fn an_idle_connection_ends_with_a_goodbye() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.keep_alive = \"1s\"", "", "");
    let mut frames = Frames::connect(proxy.address());
    let stream = frames.request("GET", "/", &[], true);
    assert!(matches!(frames.end(stream), End::Answer(200, _)));
    assert!(frames.says_goodbye(), "the client must know which requests were not taken");
}

#[test]
fn one_deadline_runs_from_accept_to_the_first_head() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.header = \"2s\"\ntimeouts.handshake = \"2s\"", "", "");
    let began = clock::now();
    let mut frames = Frames::connect(proxy.address());
    // Ever more bytes, and no request.
    while frames.ping() {
        assert!(began.elapsed() < Duration::from_secs(12), "pings put off the deadline");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(frames);
    let (_, log) = proxy.stop();
    assert!(log.contains("header_timeout"), "{log}");
}

#[test]
fn a_preface_that_never_ends_has_the_same_deadline() {
    use std::io::{Read, Write};
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.header = \"1s\"", "", "");
    let began = clock::now();
    let mut stream = std::net::TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
    assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let (_, log) = proxy.stop();
    assert!(log.contains("header_timeout"), "{log}");
}

#[test]
fn a_client_that_cancels_its_upload_is_gone_and_not_malformed() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let mut frames = Frames::connect(proxy.address());
    let stream = frames.request("POST", "/upload", &[("content-length", "100000")], false);
    frames.data(stream, &[b'x'; 16_000], false);
    // A reset in the same segment would take the stream away before it becomes a request.
    eventually("the upload is on its way", || origin.connections() > 0);
    frames.reset(stream);
    let next = frames.request("GET", "/", &[], true);
    assert_eq!(frames.end(next), End::Answer(200, "app".to_owned()));
    drop(frames);
    let (_, log) = proxy.stop();
    assert_eq!(line_of(&log, "/upload")["reason"], "client_gone", "{log}");
}
