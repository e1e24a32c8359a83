//! The end in good order, as SIGTERM begins it: what runs finishes, nothing new begins, nothing is cut before its time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use headgate::app::ExitKind;
use headgate::base::clock;
use headgate::base::task::spawn_local;

use crate::kit::{Client, Origin, Proxy, answer_to, await_parked, eventually, gate, ok};

const METRICS: &str = "[metrics]\naddress = \"127.0.0.1:0\"\n";

/// One route to one pool, in a process with these keys.
fn process(origin: SocketAddr, keys: &str) -> Proxy {
    Proxy::start(&format!("[process]\n{keys}\n{METRICS}{}", Proxy::simple(&[origin], "")))
}

/// A drain lasts at most so long.
fn proxy(origin: SocketAddr, timeout: &str) -> Proxy {
    process(origin, &format!("drain.timeout = \"{timeout}\""))
}

/// Likewise, with one worker: what one connection shows of the drain holds for all.
fn one_worker(origin: SocketAddr, timeout: &str) -> Proxy {
    process(origin, &format!("workers = 1\ndrain.timeout = \"{timeout}\""))
}

fn is_draining(proxy: &Proxy) -> bool {
    answer_to(proxy.metrics_address(), "GET", "/readyz").status == 503
}

/// Reads a request's head, byte by byte: what follows is not taken.
fn skip_head(stream: &mut TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
}

#[test]
fn a_drain_shows_in_readyz_within_100_ms() {
    let origin = Origin::named("app");
    // A delay, so that nothing but the readiness changes yet.
    let proxy = process(origin.address, "drain = { delay = \"3s\", timeout = \"5s\" }");
    assert_eq!(answer_to(proxy.metrics_address(), "GET", "/readyz").status, 200);
    let began = clock::now();
    proxy.drain();
    eventually("readyz says 503", || is_draining(&proxy));
    let took = began.elapsed();
    assert!(took < Duration::from_millis(100), "{took:?}");
    // Whoever has not noticed yet is served.
    let answer = answer_to(proxy.address(), "GET", "/");
    assert_eq!(answer.status, 200, "{answer:?}");
    let alive = answer_to(proxy.metrics_address(), "GET", "/livez");
    assert_eq!(alive.status, 200, "{alive:?}");
}

#[test]
fn a_slow_response_finishes_and_its_connection_closes_behind_it() {
    let (open, closed) = gate();
    let origin = Origin::scripted(move |_, _| {
        closed.pass();
        ok("late")
    });
    let proxy = proxy(origin.address, "20s");
    let mut idle = Client::connect(proxy.address());
    let mut busy = Client::connect(proxy.address());
    open.send(()).unwrap();
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(idle.receive().expect("an answer").header("connection").is_none());
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the origin has the request", || origin.heard().len() == 2);
    proxy.drain();
    assert!(idle.rest().is_empty(), "a connection with nothing on it is closed");
    let refused = || TcpStream::connect(proxy.address()).is_err();
    eventually("nobody is let in any more", refused);
    open.send(()).unwrap();
    let answer = busy.receive().expect("the answer is whole");
    assert_eq!((answer.status, answer.body.as_str()), (200, "late"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(busy.rest().is_empty());
    assert_eq!(proxy.stop().0, ExitKind::Clean);
}

#[test]
fn a_request_whose_first_byte_comes_after_the_drain_began_is_answered() {
    let origin = Origin::named("app");
    let proxy = proxy(origin.address, "20s");
    let mut client = Client::connect(proxy.address());
    let open = || {
        answer_to(proxy.metrics_address(), "GET", "/metrics").body.contains("headgate_connections{listener=\"http\"} 1")
    };
    eventually("the connection is accepted", open);
    proxy.drain();
    eventually("nobody is let in any more", || TcpStream::connect(proxy.address()).is_err());
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = client.receive().expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(proxy.stop().0, ExitKind::Clean);
}

/// The runtime polls some sixty connections in a turn, and a stop gave them one: the others were recorded as if their
/// clients had left.
#[test]
fn whoever_is_cut_by_the_deadline_is_recorded_so() {
    const CLIENTS: usize = 200;
    let (open, closed) = gate();
    let origin = Origin::scripted(move |_, _| {
        closed.pass();
        ok("late")
    });
    let proxy = one_worker(origin.address, "300ms");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::connect(proxy.address());
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            client
        })
        .collect();
    origin.await_heard(CLIENTS);
    let log = proxy.logged();
    drop((clients, open));
    assert_eq!(log.iter().filter(|line| line["reason"] == "draining").count(), CLIENTS);
}

/// F30: a request that crossed the close of its idle connection was reset, and its client could not know whether it ran.
#[test]
fn a_client_that_has_just_asked_may_ask_once_more_in_a_drain() {
    let origin = Origin::named("app");
    let proxy = one_worker(origin.address, "20s");
    let (mut quiet, mut asking) = (Client::connect(proxy.address()), Client::connect(proxy.address()));
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
    quiet.send(post);
    let first = quiet.receive().expect("an answer");
    assert_eq!((first.status, first.header("connection")), (200, None));
    // Idle for longer than a second: nothing is to be expected of it.
    await_parked();
    asking.send(post);
    assert_eq!(asking.receive().expect("an answer").header("connection"), None);
    proxy.drain();
    assert!(quiet.rest().is_empty(), "closed at once, so the drain is under way");
    asking.send(post);
    let last = asking.receive().expect("an answer");
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(asking.rest().is_empty());
    assert_eq!((proxy.stop().0, origin.heard().len()), (ExitKind::Clean, 3));
}

/// A worker that had not heard yet of what had come took its connections up and put them aside again without an end.
#[test]
fn requests_that_cross_the_begin_of_a_drain_hold_nothing_up() {
    const CLIENTS: usize = 300;
    let origin = Origin::named("app");
    let proxy = one_worker(origin.address, "15s");
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::connect(proxy.address())).collect();
    for client in &mut clients {
        client.send(get);
        assert_eq!(client.receive().expect("an answer").status, 200);
    }
    await_parked();
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(get);
        if at == CLIENTS / 10 {
            proxy.drain();
        }
    }
    for client in &mut clients {
        // Some came too late: their connections are closed.
        assert!(client.receive().is_none_or(|answer| answer.status == 200));
    }
    drop(clients);
    assert_eq!(proxy.stop().0, ExitKind::Clean);
}

/// It was granted "close, keep-alive".
#[test]
fn the_last_answer_to_an_http_1_0_client_grants_no_keep_alive() {
    let origin = Origin::named("app");
    let proxy = proxy(origin.address, "20s");
    let mut client = Client::connect(proxy.address());
    let get = "GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n";
    client.send(get);
    assert_eq!(client.receive().expect("an answer").header("connection"), Some("keep-alive"));
    proxy.drain();
    let last = loop {
        client.send(get);
        let answer = client.receive().expect("an answer");
        if answer.header("connection") != Some("keep-alive") {
            break answer;
        }
    };
    assert_eq!(last.header("connection"), Some("close"));
    assert!(client.rest().is_empty());
}

/// What the proxy answers by itself begins and ends in one turn, and is told of the drain no less.
#[test]
fn an_answer_of_the_proxys_own_is_the_last_in_a_drain() {
    let route =
        "[listeners.http]\naddress = \"127.0.0.1:0\"\n[routes.all]\nrespond = { status = 200, body = \"ok\" }\n";
    let proxy = Proxy::start(&format!("{METRICS}{route}"));
    let mut client = Client::connect(proxy.address());
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.receive().expect("an answer").header("connection"), None);
    proxy.drain();
    eventually("the drain is under way", || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.receive().expect("an answer").header("connection") == Some("close")
    });
    assert!(client.rest().is_empty());
    assert_eq!(proxy.stop().0, ExitKind::Clean);
}

#[test]
fn streams_of_http2_complete_behind_a_goaway() {
    let (open, closed) = gate();
    let origin = Origin::scripted(move |_, _| {
        closed.pass();
        ok("late")
    });
    let proxy = proxy(origin.address, "20s");
    let address = proxy.address();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = spawn_local(connection);
        let request = || http::Request::get(format!("http://{address}/")).body(()).unwrap();
        let (first, _) = client.send_request(request(), true).unwrap();
        let (second, _) = client.send_request(request(), true).unwrap();
        tokio::task::spawn_blocking(move || {
            eventually("the origin has both requests", || origin.heard().len() == 2);
        })
        .await
        .unwrap();
        proxy.drain();
        let refusal = loop {
            match client.clone().ready().await {
                Err(refusal) => break refusal,
                Ok(_) => tokio::task::yield_now().await,
            }
        };
        assert!(refusal.is_go_away() && refusal.reason() == Some(h2::Reason::NO_ERROR), "{refusal}");
        for _ in 0..2 {
            open.send(()).unwrap();
        }
        for answer in [first, second] {
            let mut answer = answer.await.expect("the stream completes");
            assert_eq!(answer.status(), 200);
            let body = answer.body_mut().data().await.unwrap().unwrap();
            assert_eq!(&body[..], b"late");
        }
        connection.await.unwrap().expect("the connection ends in good order");
    });
    assert_eq!(proxy.stop().0, ExitKind::Clean);
}

#[test]
fn a_tunnel_stays_until_the_deadline_and_not_longer() {
    let origin = Origin::raw(|mut stream| {
        skip_head(&mut stream);
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(switch.as_bytes()).unwrap();
        let mut echo = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut echo);
    });
    let proxy = proxy(origin.address, "1s");
    let mut client = Client::connect(proxy.address());
    client.send("GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(client.receive().expect("an answer").status, 101);
    client.send("before");
    assert_eq!(client.read_exactly(6), b"before");
    let began = clock::now();
    proxy.drain();
    eventually("nobody is let in any more", || TcpStream::connect(proxy.address()).is_err());
    client.send("during");
    assert_eq!(client.read_exactly(6), b"during");
    assert!(client.rest().is_empty());
    let lasted = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&lasted), "{lasted:?}");
    assert_eq!(proxy.stop().0, ExitKind::Forced);
}

#[test]
fn a_download_is_cut_only_at_the_deadline_and_as_a_fault() {
    let (open, closed) = gate();
    let origin = Origin::raw(move |mut stream| {
        skip_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\none").unwrap();
        closed.pass();
        stream.write_all(b"two").unwrap();
        // The rest never comes.
        closed.pass();
    });
    let proxy = proxy(origin.address, "1s");
    let mut client = Client::connect(proxy.address());
    client.send("GET /big HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\none") {
        head.extend(client.read_exactly(1));
    }
    let began = clock::now();
    proxy.drain();
    eventually("nobody is let in any more", || TcpStream::connect(proxy.address()).is_err());
    open.send(()).unwrap();
    assert_eq!(client.read_exactly(3), b"two");
    assert!(client.rest().is_empty(), "997 bytes are missing, and the connection ends: the client can tell");
    let lasted = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&lasted), "{lasted:?}");
    let (end, log) = proxy.stop();
    assert_eq!(end, ExitKind::Forced);
    let line = log.lines().find(|line| line.contains("/big")).expect("it is logged");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["bytes_out"], &line["reason"]), (&6.into(), &"draining".into()), "{log}");
}
