//! What waits where endpoints are at their limit: in order, for a time, in a bound, over all workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use http::Request;

use crate::kit::{
    Client, Content, Frames, Origin, Protocol, Proxy, Talker, answer_to, closed, eventually, gate, ok, timed,
};

const METRICS: &str = "[metrics]\naddress = \"127.0.0.1:0\"\n";

/// Lets requests through one by one, and knows how many it has had at the same time.
struct Door {
    origin: Origin,
    open: Sender<()>,
    most: Arc<AtomicUsize>,
}

impl Door {
    fn new() -> Self {
        let (open, closed) = gate();
        let most = Arc::new(AtomicUsize::new(0));
        let (peak, now) = (most.clone(), AtomicUsize::new(0));
        let origin = Origin::scripted(move |heard, _| {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            closed.pass();
            now.fetch_sub(1, Ordering::SeqCst);
            ok(heard.line.split(' ').nth(1).unwrap())
        });
        Self { origin, open, most }
    }

    fn let_through(&self, count: usize) {
        (0..count).for_each(|_| self.open.send(()).unwrap());
    }
}

fn ask(proxy: &Proxy, path: &str) -> Client {
    let mut client = Client::connect(proxy.address());
    client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
    client
}

fn metric(proxy: &Proxy, series: &str) -> f64 {
    let text = proxy.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    line.unwrap_or(0.0)
}

fn waiting(proxy: &Proxy) -> f64 {
    metric(proxy, "headgate_pool_queue_length{pool=\"app\"}")
}

fn start(endpoints: &[SocketAddr], pool: &str, routes: &str) -> Proxy {
    Proxy::start(&format!("{METRICS}{}", Proxy::text(endpoints, "", pool, routes)))
}

#[test]
fn requests_wait_their_turn_by_priority_and_first_come_first_served() {
    let door = Door::new();
    let routes = "[routes.high]\nmatch.path = \"/high/*\"\npool = \"app\"\npriority = \"high\"\n\
                  [routes.low]\nmatch.path = \"/low/*\"\npool = \"app\"\npriority = \"low\"\n";
    let proxy = start(&[door.origin.address], "max_requests = 1\nqueue.timeout = \"20s\"", routes);
    let mut clients = vec![ask(&proxy, "/first")];
    door.origin.await_heard(1);
    for (at, path) in ["/low/1", "/normal/1", "/high/1", "/low/2", "/high/2", "/normal/2"].into_iter().enumerate() {
        clients.push(ask(&proxy, path));
        eventually("it waits", || waiting(&proxy) == (at + 1) as f64);
    }
    door.let_through(7);
    for client in &mut clients {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    let order: Vec<String> = door.origin.heard().iter().map(|heard| heard.line.clone()).collect();
    let expected = ["/first", "/high/1", "/high/2", "/normal/1", "/normal/2", "/low/1", "/low/2"];
    assert_eq!(order, expected.map(|path| format!("GET {path} HTTP/1.1")));
    assert_eq!(door.most.load(Ordering::SeqCst), 1, "the limit held all the time");
    assert_eq!(metric(&proxy, "headgate_pool_queued_total{pool=\"app\"}"), 6.0);
    assert_eq!(metric(&proxy, "headgate_pool_queue_seconds_count{pool=\"app\"}"), 6.0);
    assert_eq!(waiting(&proxy), 0.0);
    let lines = proxy.logged();
    assert_eq!(lines.iter().filter(|line| line["queued_ms"].is_number()).count(), 6);
}

#[test]
fn beyond_the_size_the_newest_of_the_lowest_priority_is_refused_at_once() {
    let door = Door::new();
    let routes = "[routes.high]\nmatch.path = \"/high\"\npool = \"app\"\npriority = \"high\"\n";
    let proxy = start(&[door.origin.address], "max_requests = 1\nqueue = { size = 2, timeout = \"20s\" }", routes);
    let mut first = ask(&proxy, "/0");
    door.origin.await_heard(1);
    let mut older = ask(&proxy, "/1");
    eventually("one waits", || waiting(&proxy) == 1.0);
    let mut newer = ask(&proxy, "/2");
    eventually("two wait", || waiting(&proxy) == 2.0);
    let (answer, took) = timed(|| answer_to(proxy.address(), "GET", "/3"));
    assert_eq!((answer.status, answer.reason()), (503, Some("queue_full")));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(took < Duration::from_secs(5), "{took:?}");
    let mut high = ask(&proxy, "/high");
    let answer = newer.receive().unwrap();
    assert_eq!((answer.status, answer.reason()), (503, Some("queue_full")), "it makes room");
    door.let_through(3);
    for client in [&mut first, &mut high, &mut older] {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    assert_eq!(metric(&proxy, "headgate_pool_queue_refused_total{pool=\"app\",reason=\"queue_full\"}"), 2.0);
}

#[test]
fn who_has_waited_long_enough_is_told_so() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let door = Door::new();
        let proxy = start(&[door.origin.address], "max_requests = 1\nqueue.timeout = \"200ms\"", "");
        let mut first = ask(&proxy, "/0");
        door.origin.await_heard(1);
        let mut talker = Talker::connect(&proxy, protocol);
        let request = Request::builder().uri("/1").body(Content::default()).unwrap();
        let (reply, took) = timed(|| talker.exchange(request).unwrap());
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{protocol:?}");
        assert!(reply.text().contains("reason: queue_timeout"), "{}", reply.text());
        assert!(took >= Duration::from_millis(200), "{took:?}");
        door.let_through(1);
        assert_eq!(first.receive().unwrap().status, 200);
        assert_eq!(door.origin.heard().len(), 1, "it was never sent");
        assert_eq!(metric(&proxy, "headgate_pool_queue_refused_total{pool=\"app\",reason=\"queue_timeout\"}"), 1.0);
        assert_eq!(waiting(&proxy), 0.0);
    }
}

#[test]
fn a_client_that_goes_away_gives_its_place_on() {
    let door = Door::new();
    let proxy = start(&[door.origin.address], "max_requests = 1\nqueue.timeout = \"20s\"", "");
    let mut first = ask(&proxy, "/0");
    door.origin.await_heard(1);
    let mut frames = Frames::connect(proxy.address());
    let gone = frames.request("GET", "/gone", &[], true);
    eventually("it waits", || waiting(&proxy) == 1.0);
    let mut next = ask(&proxy, "/next");
    eventually("both wait", || waiting(&proxy) == 2.0);
    frames.reset(gone);
    eventually("it has left", || waiting(&proxy) == 1.0);
    door.let_through(2);
    assert_eq!(first.receive().unwrap().body, "/0");
    assert_eq!(next.receive().unwrap().body, "/next");
    assert_eq!(door.origin.heard().len(), 2);
}

/// Many clients over two workers, far more than the limit: all are served, and the endpoint never has one too many.
#[test]
fn a_burst_waits_and_nobody_is_lost() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let peak = most.clone();
        let origin = Origin::scripted(move |_, _| {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
            ok("app")
        });
        let proxy = start(&[origin.address], "max_requests = 2\nqueue.timeout = \"20s\"", "");
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let mut talker = Talker::connect(&proxy, protocol);
                    for _ in 0..60 {
                        let request = Request::builder().uri("/").body(Content::default()).unwrap();
                        assert_eq!(talker.exchange(request).unwrap().status, 200);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert!(metric(&proxy, "headgate_pool_queued_total{pool=\"app\"}") > 0.0, "somebody waited");
        assert_eq!(waiting(&proxy), 0.0);
    }
}

#[test]
fn when_all_endpoints_fail_those_who_wait_are_told_at_once() {
    let (open, shut) = gate();
    let origin = Origin::scripted(move |_, _| {
        shut.pass();
        Vec::new()
    });
    let relay = crate::kit::Chaos::before(origin.address);
    let proxy = start(&[relay.address], "max_requests = 1\nqueue.timeout = \"60s\"", "retry.attempts = 1");
    let mut first = Client::connect(proxy.address());
    first.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    origin.await_heard(1);
    let mut others: Vec<Client> = (0..5).map(|_| ask(&proxy, "/")).collect();
    eventually("they wait", || waiting(&proxy) == 5.0);
    relay.refuse();
    open.send(()).unwrap();
    assert_eq!(first.receive().unwrap().status, 502);
    for client in &mut others {
        let answer = client.receive().expect("an answer before the queue's time is over");
        assert!([502, 503].contains(&answer.status), "{answer:?}");
    }
}

/// Full is not down: a pool that may be relieved by another waits all the same, and when it goes down those who wait go
/// on to the other, and wait there.
#[test]
fn who_waits_goes_on_to_the_next_pool_only_when_its_own_goes_down() {
    let (open, shut) = gate();
    let origin = Origin::scripted(move |_, _| {
        shut.pass();
        Vec::new()
    });
    let relay = crate::kit::Chaos::before(origin.address);
    let relief = Door::new();
    let pool = "max_requests = 1\nqueue.timeout = \"60s\"\nfailover = [\"relief\"]";
    let other = format!(
        "[pools.relief]\nendpoints = [\"{}\"]\nmax_requests = 1\nqueue.timeout = \"60s\"\n",
        relief.origin.address
    );
    let proxy = start(&[relay.address], pool, &other);
    let mut first = Client::connect(proxy.address());
    first.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    origin.await_heard(1);
    let mut others: Vec<Client> = (0..3).map(|_| ask(&proxy, "/")).collect();
    eventually("they wait", || waiting(&proxy) == 3.0);
    assert_eq!(relief.origin.heard().len(), 0, "nobody spills over");
    relay.refuse();
    open.send(()).unwrap();
    assert_eq!(first.receive().unwrap().status, 502);
    relief.origin.await_heard(1);
    let elsewhere = || metric(&proxy, "headgate_pool_queue_length{pool=\"relief\"}");
    eventually("they wait there", || elsewhere() == 2.0 && waiting(&proxy) == 0.0);
    relief.let_through(3);
    for client in &mut others {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    assert_eq!(relief.most.load(Ordering::SeqCst), 1);
}

/// Who has an answer, if not the best, does not wait for a better one.
#[test]
fn a_status_is_not_waited_away() {
    let full = Origin::scripted(|_, _| b"HTTP/1.1 503 Full\r\ncontent-length: 4\r\n\r\nfull".to_vec());
    let door = Door::new();
    let pool = "max_requests = 1\nqueue.timeout = \"60s\"\nejection.enabled = false";
    let text = Proxy::text(&[door.origin.address], "", pool, "retry.status = [503]");
    let backup = format!(", {{ address = \"{}\", backup = true }}]", full.address);
    let primary = format!("[\"{}\"", door.origin.address);
    let proxy =
        Proxy::start(&format!("{METRICS}{}", text.replace(&format!("{primary}]"), &format!("{primary}{backup}"))));
    let mut held = ask(&proxy, "/held");
    door.origin.await_heard(1);
    let (answer, took) = timed(|| answer_to(proxy.address(), "GET", "/"));
    assert_eq!((answer.status, answer.body.as_str()), (503, "full"));
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(metric(&proxy, "headgate_pool_retries_denied_total{pool=\"app\",reason=\"endpoints\"}"), 1.0);
    assert_eq!(metric(&proxy, "headgate_pool_queued_total{pool=\"app\"}"), 0.0);
    door.let_through(1);
    assert_eq!(held.receive().unwrap().status, 200);
}

/// Idle connections of the one worker must not starve the other.
#[test]
fn max_connections_is_a_cap_over_all_workers_and_starves_none() {
    let origin = Origin::scripted(|_, _| ok("app"));
    let pool = "max_connections = 2\ntimeouts.keep_alive = \"60s\"\nqueue.timeout = \"20s\"";
    let proxy = start(&[origin.address], pool, "");
    let most = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                most.fetch_max(metric(&proxy, &connections(&origin)) as usize, Ordering::SeqCst);
            }
        });
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..40 {
                        // Each on a connection of its own: now this worker, now that one.
                        assert_eq!(answer_to(proxy.address(), "GET", "/").status, 200);
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        done.store(true, Ordering::SeqCst);
        watch.join().unwrap();
    });
    assert!(most.load(Ordering::SeqCst) <= 2, "{most:?} connections");
    eventually("the endpoint sees no more than two", || origin.open() <= 2);
    let (answer, took) = timed(|| answer_to(proxy.address(), "GET", "/"));
    assert_eq!(answer.status, 200);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

fn connections(origin: &Origin) -> String {
    format!("headgate_endpoint_connections{{pool=\"app\",endpoint=\"{}\"}}", origin.address)
}

#[test]
fn a_tunnel_keeps_its_place_under_max_connections() {
    let origin = Origin::talking(|conversation, _| {
        let Some(heard) = conversation.request() else { return };
        if heard.header("upgrade").is_some() {
            conversation.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
            conversation.drain();
        } else {
            conversation.send(ok("plain"));
        }
    });
    let proxy = start(&[origin.address], "max_connections = 1\nqueue.timeout = \"200ms\"", "");
    let mut tunnel = Client::connect(proxy.address());
    tunnel.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(tunnel.receive_head().unwrap().status, 101);
    assert_eq!(answer_to(proxy.address(), "GET", "/").reason(), Some("queue_timeout"));
    assert_eq!(metric(&proxy, &connections(&origin)), 1.0);
    drop(tunnel);
    eventually("its place is free", || answer_to(proxy.address(), "GET", "/").body == "plain");
}

#[test]
fn a_cap_that_a_reload_raises_lets_those_in_who_wait() {
    let door = Door::new();
    let config = |most: u32| {
        let pool = format!("max_requests = {most}\nqueue.timeout = \"60s\"");
        format!("{METRICS}{}", Proxy::text(&[door.origin.address], "", &pool, ""))
    };
    let proxy = Proxy::start(&config(1));
    let mut clients = vec![ask(&proxy, "/0")];
    door.origin.await_heard(1);
    clients.push(ask(&proxy, "/1"));
    eventually("it waits", || waiting(&proxy) == 1.0);
    proxy.reload(&config(2)).unwrap();
    // It keeps the limit that it began with; who comes now does not.
    clients.push(ask(&proxy, "/2"));
    door.origin.await_heard(2);
    door.let_through(3);
    for client in &mut clients {
        assert_eq!(client.receive().unwrap().status, 200);
    }
}

/// F12 in short: six of ten are gone, and the four others are never overloaded; what is too much is refused quickly.
#[test]
fn the_endpoints_that_are_left_are_not_overloaded() {
    let doors: Vec<Door> = (0..4).map(|_| Door::new()).collect();
    let gone: Vec<SocketAddr> = (0..6).map(|_| closed()).collect();
    let endpoints: Vec<_> = gone.iter().copied().chain(doors.iter().map(|door| door.origin.address)).collect();
    let pool = "max_requests = 2\nqueue = { size = 4, timeout = \"20s\" }\n\
                health.tcp = { interval = \"30ms\", timeout = \"2s\" }";
    let proxy = start(&endpoints, pool, "");
    let up = || {
        proxy.metrics().lines().filter(|line| line.starts_with("headgate_endpoint_up{") && line.ends_with(" 1")).count()
    };
    eventually("six are down", || up() == 4);
    let mut held: Vec<Client> = (0..12).map(|_| ask(&proxy, "/")).collect();
    eventually("they are full", || waiting(&proxy) == 4.0);
    for _ in 0..20 {
        let (answer, took) = timed(|| answer_to(proxy.address(), "GET", "/"));
        assert_eq!((answer.status, answer.reason()), (503, Some("queue_full")));
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    doors.iter().for_each(|door| door.let_through(12));
    for client in &mut held {
        assert_eq!(client.receive().unwrap().status, 200, "none of those that were let in is lost");
    }
    assert!(doors.iter().all(|door| door.most.load(Ordering::SeqCst) <= 2));
}
