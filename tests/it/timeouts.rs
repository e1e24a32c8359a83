//! Each timer: with its status, its word in the log, and about when it was to fire.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use headgate::base::clock;
use serde_json::Value;

use crate::kit::{Chaos, Client, Conversation, Origin, Proxy, Way, answer_to, ok, timed};

/// What is configured in most stories here.
const LIMIT: Duration = Duration::from_millis(300);

/// Not early, and not much later, for a loaded machine. What was timed began before the timer did.
fn assert_in_time(what: &str, took: Duration) {
    // Timers count in whole milliseconds.
    let early = LIMIT - Duration::from_millis(5);
    assert!(took >= early && took < LIMIT + Duration::from_secs(4), "{what} took {took:?}");
}

/// The log's reasons, in order.
fn reasons(log: &[Value]) -> Vec<&str> {
    log.iter().filter_map(|line| line["reason"].as_str()).collect()
}

/// An address where connections are neither accepted nor refused, as long as the guard lives.
fn unanswering() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    // The queue is full when one of these waits.
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let queued = (0..8).map_while(connect).collect();
    (address, queued, listener)
}

/// Reads a request, then never says anything.
fn silent() -> Origin {
    Origin::talking(|conversation, _| {
        conversation.request();
        conversation.drain();
    })
}

#[test]
fn connect() {
    let (address, _queued, _listener) = unanswering();
    let proxy = Proxy::tuned(&[address], "", "timeouts.connect = \"300ms\"", "retry.attempts = 1");
    let (answer, took) = timed(|| answer_to(proxy.address(), "POST", "/"));
    assert_eq!((answer.status, answer.reason()), (504, Some("connect_timeout")));
    assert_in_time("connect", took);
    let log = proxy.logged();
    assert_eq!((&log[0]["status"], reasons(&log)), (&504.into(), vec!["connect_timeout"]));
}

#[test]
fn response_header() {
    let origin = silent();
    let proxy = Proxy::tuned(&[origin.address], "", "timeouts.response = \"300ms\"", "");
    let (answer, took) = timed(|| answer_to(proxy.address(), "POST", "/"));
    assert_eq!((answer.status, answer.reason()), (504, Some("response_timeout")));
    assert_in_time("response", took);
    assert_eq!(origin.heard().len(), 1, "a POST is sent once");
    let log = proxy.logged();
    assert_eq!((&log[0]["status"], reasons(&log)), (&504.into(), vec!["response_timeout"]));
}

#[test]
fn response_header_counts_from_the_requests_end() {
    // Each of eight pieces takes a while; together they take longer than the response may.
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.body = \"5s\"", "timeouts.response = \"300ms\"", "");
    let chaos = Chaos::with(proxy.address(), |_| (Way::Delay(Duration::from_millis(100)), Way::Pass));
    let mut client = Client::connect(chaos.address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    let (answer, took) = timed(|| {
        for _ in 0..8 {
            client.send(format!("10000\r\n{}\r\n", "x".repeat(0x10000)));
        }
        client.send("0\r\n\r\n");
        client.receive().unwrap()
    });
    assert_eq!((answer.status, &*answer.body), (200, "app"));
    assert!(took > LIMIT, "the upload took {took:?}: too short to prove anything");
}

/// The client sends on and the endpoint takes nothing: nobody's idle limit ran, and the request hung for an hour.
#[test]
fn an_endpoint_that_stops_reading_is_given_up() {
    let (done, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::talking(move |conversation, _| {
        conversation.head_only();
        let _ = wait.lock().unwrap().recv();
    });
    let proxy = Proxy::tuned(
        &[origin.address],
        "timeouts.body = \"5s\"",
        "timeouts.response = \"300ms\"",
        "limits.body = \"1GiB\"",
    );
    let mut client = Client::connect(proxy.address());
    let mut writer = client.second();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n");
    // Sends until the proxy takes no more.
    let sender = std::thread::spawn(move || {
        let piece = vec![0; 1 << 16];
        while std::io::Write::write_all(&mut writer, &piece).is_ok() {}
    });
    let answer = client.receive().expect("an answer, and no hanging");
    assert_eq!((answer.status, answer.reason()), (504, Some("response_timeout")));
    drop((done, client));
    sender.join().unwrap();
    let log = proxy.logged();
    assert_eq!(reasons(&log), ["response_timeout"]);
}

#[test]
fn total_before_the_response() {
    let origin = silent();
    let proxy = Proxy::tuned(&[origin.address], "", "timeouts.response = \"9s\"", "timeouts.total = \"300ms\"");
    let (answer, took) = timed(|| answer_to(proxy.address(), "GET", "/"));
    assert_eq!((answer.status, answer.reason()), (504, Some("total_timeout")));
    assert_in_time("total", took);
    assert_eq!(origin.heard().len(), 1, "no time is left for another attempt");
    assert_eq!(reasons(&proxy.logged()), ["total_timeout"]);
}

/// Sends a piece of a response body every 20 ms, as long as somebody takes it.
fn trickling(conversation: &mut Conversation) {
    conversation.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
    let (_never, tick) = mpsc::channel::<()>();
    while conversation.send("x") {
        let _ = tick.recv_timeout(Duration::from_millis(20));
    }
}

#[test]
fn total_within_the_response() {
    let origin = Origin::talking(|conversation, _| {
        conversation.request();
        trickling(conversation);
    });
    let proxy = Proxy::tuned(&[origin.address], "", "", "timeouts.total = \"300ms\"");
    let (answer, took) = timed(|| crate::kit::exchange(proxy.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
    assert!(answer.is_none(), "{answer:?}");
    assert_in_time("total", took);
    assert_eq!(reasons(&proxy.logged()), ["total_timeout"]);
}

/// A body that is held from the start was read without looking at the total time.
#[test]
fn total_while_the_request_trickles_in() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.body = \"5s\"", "", "timeouts.total = \"300ms\"");
    let mut client = Client::connect(proxy.address());
    let mut writer = client.second();
    let began = clock::now();
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000\r\n\r\n");
    let sender = std::thread::spawn(move || {
        let (_never, tick) = mpsc::channel::<()>();
        while std::io::Write::write_all(&mut writer, b"x").is_ok() {
            let _ = tick.recv_timeout(Duration::from_millis(20));
        }
    });
    let answer = client.receive().expect("an answer");
    assert_eq!((answer.status, answer.reason()), (504, Some("total_timeout")));
    assert_in_time("total", clock::now() - began);
    drop(client);
    sender.join().unwrap();
    assert!(origin.heard().is_empty());
    assert_eq!(reasons(&proxy.logged()), ["total_timeout"]);
}

#[test]
fn body_idle_from_the_client() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.body = \"300ms\"", "", "");
    for framing in ["content-length: 10", "content-length: 1000000", "transfer-encoding: chunked"] {
        let mut client = Client::connect(proxy.address());
        let (answer, took) = timed(|| {
            client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n5\r\n"));
            client.receive().expect("an answer")
        });
        assert_eq!((answer.status, answer.reason()), (408, Some("request_body_timeout")), "{framing}");
        assert_in_time(framing, took);
        assert!(client.rest().is_empty(), "the connection is closed");
    }
    assert!(origin.heard().is_empty(), "no whole request came: {:?}", origin.heard());
    assert_eq!(answer_to(proxy.address(), "POST", "/").status, 200, "the endpoint is not to blame");
    assert_eq!(reasons(&proxy.logged()), ["request_body_timeout"; 3]);
}

#[test]
fn response_body_idle() {
    let origin = Origin::talking(|conversation, _| {
        conversation.request();
        conversation.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        conversation.drain();
    });
    let proxy = Proxy::tuned(
        &[origin.address],
        "",
        "timeouts.body = \"300ms\"",
        "cache = { zone = \"main\", default_ttl = \"1m\" }",
    );
    let (answer, took) = timed(|| crate::kit::exchange(proxy.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
    assert!(answer.is_none(), "{answer:?}");
    assert_in_time("response body", took);
    crate::kit::eventually("the endpoint's connection is closed", || origin.open() == 0);
    let log = proxy.logged();
    assert_eq!((&log[0]["status"], reasons(&log)), (&200.into(), vec!["response_body_timeout"]));
}

#[test]
fn send() {
    let origin = Origin::scripted(|_, _| ok(&"x".repeat(30 << 20)));
    let proxy = Proxy::tuned(&[origin.address], "timeouts.send = \"300ms\"", "", "");
    let mut client = Client::slow(proxy.address());
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    origin.await_heard(1);
    // Nothing is read until the proxy has given up; a second request tells when that is.
    let log = {
        crate::kit::eventually("the slow reader's connection is closed", || proxy.log_text().contains("\"reason\""));
        assert!(client.rest().len() < 30 << 20, "it was cut off");
        proxy.logged()
    };
    assert_eq!(reasons(&log), ["send_timeout"], "{log:?}");
}

#[test]
fn keep_alive_idle() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.keep_alive = \"300ms\"", "", "");
    let mut client = Client::connect(proxy.address());
    let (rest, took) = timed(|| {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.receive().unwrap().status, 200);
        client.rest()
    });
    assert!(rest.is_empty());
    assert_in_time("keep-alive", took);
    let log = proxy.logged();
    assert_eq!((log.len(), reasons(&log)), (1, vec![]), "an idle connection's end is nobody's fault");
}

#[test]
fn header() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.header = \"300ms\"", "", "");
    // A first head, a first head whose first byte is late, and a second head.
    for (before, bytes) in [("", "GET / HT"), ("", ""), ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GET / HT")] {
        let (rest, took) = timed(|| {
            let mut client = Client::connect(proxy.address());
            client.send(before);
            if !before.is_empty() {
                assert_eq!(client.receive().unwrap().status, 200);
            }
            client.send(bytes);
            client.rest()
        });
        assert!(rest.is_empty(), "{before:?} {bytes:?}");
        assert_in_time("header", took);
    }
    let log = proxy.logged();
    assert_eq!(reasons(&log), ["header_timeout"; 3], "{log:?}");
}

#[test]
fn an_endpoints_idle_connection_is_let_go_in_time() {
    let origin = Origin::talking(|conversation, _| {
        while conversation.request().is_some() {
            conversation.send(ok("app"));
        }
    });
    let proxy = Proxy::tuned(&[origin.address], "", "timeouts.keep_alive = \"300ms\"", "");
    let mut client = Client::connect(proxy.address());
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.receive().unwrap().status, 200);
    };
    let ((), took) = timed(|| {
        ask();
        crate::kit::eventually("the endpoint's connection is closed", || origin.open() == 0);
    });
    assert_in_time("keep-alive", took);
    assert_eq!(origin.connections(), 1);
    ask();
    assert_eq!(origin.connections(), 2);
}
