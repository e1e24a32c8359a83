//! Too much at once: bodies that are held, slow readers, and requests for endpoints that are down.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headgate::base::clock;
use http::Request;

use crate::kit::{Client, Content, Origin, Protocol, Proxy, Talker, eventually, exchange, gate, ok, timed};

const METRICS: &str = "[metrics]\naddress = \"127.0.0.1:0\"\n";

fn metric(proxy: &Proxy, series: &str) -> f64 {
    let text = proxy.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    line.unwrap_or(0.0)
}

#[test]
fn bodies_beyond_the_memory_for_them_are_streamed_and_nothing_fails() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (open, closed) = gate();
        let origin = Origin::scripted(move |heard, _| {
            closed.pass();
            ok(&heard.body.len().to_string())
        });
        let held = "[process]\nheld_bodies = \"100KiB\"\n";
        let proxy = Proxy::start(&format!("{METRICS}{held}{}", Proxy::simple(&[origin.address], "")));
        let bytes = |proxy: &Proxy| metric(proxy, "headgate_held_bodies_bytes");
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let body = Content::whole(vec![b'x'; 40 * 1024]);
                        let request = Request::builder().method("PUT").uri("/").body(body).unwrap();
                        let reply = Talker::connect(&proxy, protocol).exchange(request).unwrap();
                        assert_eq!((reply.status, reply.text()), (200, (40 * 1024).to_string()), "{protocol:?}");
                    })
                })
                .collect();
            origin.await_heard(4);
            assert_eq!(bytes(&proxy), 80.0 * 1024.0, "two of four");
            assert_eq!(metric(&proxy, "headgate_held_bodies_refused_total"), 2.0);
            (0..4).for_each(|_| open.send(()).unwrap());
            asking.into_iter().for_each(|asking| asking.join().unwrap());
        });
        eventually("their memory is free", || bytes(&proxy) == 0.0);
    }
}

/// A body that is kept while it passes takes room as it grows, for as long as it may be sent again.
#[test]
fn bodies_that_are_kept_while_they_pass_take_room_as_they_grow() {
    let (open, closed) = gate();
    let origin = Origin::scripted(move |heard, _| {
        closed.pass();
        ok(&heard.body.len().to_string())
    });
    let config = "[process]\nheld_bodies = \"300KiB\"\n";
    let route = "retry.body = \"1MiB\"";
    let proxy = Proxy::start(&format!("{METRICS}{config}{}", Proxy::text(&[origin.address], "", "", route)));
    let bytes = || metric(&proxy, "headgate_held_bodies_bytes");
    let refused = || metric(&proxy, "headgate_held_bodies_refused_total");
    let piece = "x".repeat(50 * 1024);
    let send = |client: &mut Client| client.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
    let begin = || {
        let mut client = Client::connect(proxy.address());
        client.send("PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        send(&mut client);
        client
    };
    let kib = |number: f64| number * 1024.0;
    let mut first = begin();
    eventually("room for the first piece", || bytes() == kib(64.0));
    send(&mut first);
    eventually("and for the next", || bytes() == kib(128.0));
    let mut second = begin();
    (0..2).for_each(|_| send(&mut second));
    eventually("the second gives its room back when there is no more", || refused() == 1.0 && bytes() == kib(128.0));
    for (client, pieces) in [(&mut first, 2), (&mut second, 3)] {
        client.send("0\r\n\r\n");
        open.send(()).unwrap();
        assert_eq!(client.receive().unwrap().body, (pieces * piece.len()).to_string(), "it is served all the same");
    }
    eventually("their room is free", || bytes() == 0.0);
}

/// What is held can be sent again; what was streamed for want of room is not, and its client is told.
#[test]
fn a_body_that_found_no_room_loses_its_retries_alone() {
    let held = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    let kept = "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for (room, status, request) in [("64KiB", 200, held), ("64KiB", 200, kept), ("1B", 502, held), ("1B", 502, kept)] {
        let origin = Origin::talking(|conversation, number| {
            let Some(_) = conversation.request() else { return };
            if number > 0 {
                conversation.send(ok("second"));
            }
        });
        let held = format!("[process]\nheld_bodies = \"{room}\"\n");
        let proxy = Proxy::start(&format!("{held}{}", Proxy::simple(&[origin.address], "")));
        assert_eq!(exchange(proxy.address(), request).unwrap().status, status, "{room}");
    }
}

/// An endpoint that refuses: connections are taken and closed at once, so that each try can be counted.
struct Refusing {
    address: std::net::SocketAddr,
    tries: Arc<Mutex<Vec<Instant>>>,
}

impl Refusing {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tries: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let counted = tries.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.lock().unwrap().push(clock::now());
                drop(stream);
            }
        });
        Self { address, tries }
    }
}

/// F13, the part of the 503: all endpoints are down, with and without checks. Every answer is quick and says when to
/// come back, and the endpoints are not stormed: one connection in 100 ms each, over all workers.
#[test]
fn while_all_are_down_answers_are_quick_and_nobody_is_stormed() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        // TLS that never comes to be: each try is seen by the endpoint, and fails as a refused one does.
        let down = [Refusing::new(), Refusing::new(), Refusing::new()];
        let endpoints: Vec<_> = down.iter().map(|down| down.address).collect();
        let pool = "tls.verify = false";
        let proxy = Proxy::start(&format!("{METRICS}{}", Proxy::text(&endpoints, "", pool, "")));
        let (stop, slow) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let (answers, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let began = clock::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut talker = Talker::connect(&proxy, protocol);
                    while !stop.load(Ordering::SeqCst) {
                        let request = Request::builder().uri("/").body(Content::default()).unwrap();
                        let (reply, took) = timed(|| talker.exchange(request).unwrap());
                        answers.fetch_add(1, Ordering::SeqCst);
                        slow.lock().unwrap().push(took);
                        match reply.status {
                            503 => assert_eq!(reply.header("retry-after"), Some("1")),
                            // Its own try was the one that failed.
                            502 => _ = refused.fetch_add(1, Ordering::SeqCst),
                            other => panic!("{other}: {}", reply.text()),
                        }
                    }
                });
            }
            eventually("two seconds of load", || began.elapsed() > Duration::from_secs(2));
            stop.store(true, Ordering::SeqCst);
        });
        let windows = began.elapsed().as_millis() as usize / 100 + 1;
        let mut slow = slow.into_inner().unwrap();
        slow.sort_unstable();
        let p99 = slow[slow.len() * 99 / 100];
        println!("{protocol:?}: {} answers, {} of them 502, p99 {p99:?}", slow.len(), refused.load(Ordering::SeqCst));
        assert!(answers.load(Ordering::SeqCst) > 100, "a load");
        // The bound is 50 ms; a loaded machine has three times as much.
        assert!(p99 <= Duration::from_millis(150), "{p99:?}");
        for endpoint in &down {
            let tries = endpoint.tries.lock().unwrap();
            println!("{} tries in {windows} windows", tries.len());
            // Before the first failure is known, each of those who came at once has tried.
            assert!(tries.len() <= windows + 8, "{} tries in {windows} windows of 100 ms", tries.len());
        }
        assert!(refused.load(Ordering::SeqCst) <= 3 * (windows + 8));
        // Who is sent away by another's try has made none: it is no attempt, no retry, and nothing that ejects.
        let tries: usize = down.iter().map(|down| down.tries.lock().unwrap().len()).sum();
        let sum = |prefix: &str| {
            let text = proxy.metrics();
            let lines = text.lines().filter(|line| line.starts_with(prefix));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as usize
        };
        let attempts = sum("headgate_endpoint_requests_total{");
        assert!(attempts <= tries, "{attempts} attempts, {tries} tries");
        let retries = sum("headgate_pool_retries_total{");
        assert!(retries < attempts, "{retries} retries of {attempts} attempts");
        assert_eq!(sum("headgate_endpoint_ejections_total{"), 0);
    }
}

#[test]
fn an_endpoint_that_comes_back_is_used_within_a_second() {
    let origin = Origin::named("app");
    let relay = crate::kit::Chaos::before(origin.address);
    let proxy = Proxy::to(&[relay.address]);
    relay.refuse();
    let ask = || exchange(proxy.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    eventually("it rests", || ask().reason() == Some("all_down"));
    relay.listen_again();
    let (_, took) = timed(|| eventually("it is back", || ask().status == 200));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!((0..20).all(|_| ask().status == 200));
}

/// Once a connection is there nobody is held back any more, however long the first answer takes.
#[test]
fn who_comes_back_gets_all_requests_before_its_first_answer() {
    let (open, closed) = gate();
    let origin = Origin::scripted(move |_, _| {
        closed.pass();
        ok("app")
    });
    let relay = crate::kit::Chaos::before(origin.address);
    let proxy = Proxy::to(&[relay.address]);
    relay.refuse();
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    eventually("it rests", || exchange(proxy.address(), request).unwrap().reason() == Some("all_down"));
    relay.listen_again();
    let ask = || {
        let mut client = Client::connect(proxy.address());
        client.send(request);
        client
    };
    let mut waiting = Vec::new();
    eventually("one is there", || {
        waiting.push(ask());
        origin.heard().len() == 1
    });
    let mut others: Vec<Client> = (0..10).map(|_| ask()).collect();
    origin.await_heard(11);
    (0..60).for_each(|_| open.send(()).unwrap());
    assert!(others.iter_mut().all(|client| client.receive().unwrap().status == 200));
}

/// F46 in short: readers that take nothing hold the endpoint back and little memory.
#[test]
fn slow_readers_hold_the_endpoint_back() {
    const READERS: usize = 60;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let origin = Origin::talking(move |conversation, _| {
        let Some(_) = conversation.request() else { return };
        let piece = vec![b'x'; 64 * 1024];
        let whole = 1024 * piece.len();
        conversation.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {whole}\r\n\r\n"));
        while conversation.send(&piece) {
            counted.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let proxy = Proxy::to(&[origin.address]);
    let readers: Vec<Client> = (0..READERS)
        .map(|_| {
            let mut client = Client::slow(proxy.address());
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            client
        })
        .collect();
    origin.await_heard(READERS);
    // Nothing moves any more: what is on its way lies in the kernel's buffers and in headgate's own.
    let (mut last, mut since) = (0, clock::now());
    eventually("the endpoint is held back", || {
        let now = sent.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, clock::now());
        }
        now > 0 && since.elapsed() > Duration::from_millis(500)
    });
    assert!(last < READERS * 12 * 1024 * 1024, "{last} bytes were taken for {READERS} readers that read nothing");
    drop(readers);
}

/// A busy worker lets requests begin a few at a time; those that only wait for their endpoints make none busy.
#[test]
fn requests_that_wait_for_slow_endpoints_keep_nobody_out() {
    const CLIENTS: usize = 120;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (open, closed) = gate();
        let origin = Origin::scripted(move |_, _| {
            closed.pass();
            ok("late")
        });
        let proxy = Proxy::start(&format!("[process]\nworkers = 1\n{}", Proxy::simple(&[origin.address], "")));
        // Nobody asks a second time before all have their first answer.
        let all = std::sync::Barrier::new(CLIENTS);
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut talker = Talker::connect(&proxy, protocol);
                        for _ in 0..2 {
                            let request = Request::get("/").body(Content::default()).unwrap();
                            assert_eq!(talker.exchange(request).unwrap().text(), "late", "{protocol:?}");
                            all.wait();
                        }
                    })
                })
                .collect();
            for turn in 1..=2 {
                origin.await_heard(turn * CLIENTS);
                (0..CLIENTS).for_each(|_| open.send(()).unwrap());
            }
            asking.into_iter().for_each(|asking| asking.join().unwrap());
        });
    }
}
