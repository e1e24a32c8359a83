//! Who gets a request: checks over real sockets, fail-over and fail-back, caps, sides, shares.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::kit::{Chaos, Client, Origin, Proxy, Way, answer_to, closed, eventually, exchange, ok, timed};

const TCP_CHECK: &str = "health.tcp = { interval = \"30ms\", timeout = \"2s\" }";

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

fn has_verdict(proxy: &Proxy, endpoint: SocketAddr, verdict: &str) -> bool {
    let status = proxy.status();
    let mut endpoints =
        status["pools"].as_array().unwrap().iter().flat_map(|pool| pool["endpoints"].as_array().unwrap());
    let found = endpoints.find(|entry| entry["address"] == *endpoint.to_string()).expect("the endpoint is in a pool");
    found["verdict"] == verdict
}

fn is_up(proxy: &Proxy, endpoint: SocketAddr) -> bool {
    has_verdict(proxy, endpoint, "up")
}

fn is_down(proxy: &Proxy, endpoint: SocketAddr) -> bool {
    has_verdict(proxy, endpoint, "down")
}

fn watched(config: &str) -> Proxy {
    Proxy::start(&format!("{ADMIN}{config}"))
}

/// Holds every request but health checks until opened.
struct Gate {
    origin: Origin,
    open: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
}

impl Gate {
    fn new() -> Self {
        let (open, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_open, peak, now) = (open.clone(), most.clone(), AtomicUsize::new(0));
        let origin = Origin::scripted(move |_, _| {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            eventually("the gate is opened", || is_open.load(Ordering::SeqCst));
            now.fetch_sub(1, Ordering::SeqCst);
            ok("app")
        });
        Self { origin, open, most }
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

fn ask(proxy: &Proxy, method: &str) -> Client {
    let mut client = Client::connect(proxy.address());
    client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"));
    client
}

#[test]
fn http_checks_turn_the_verdict_after_fall_and_rise() {
    // Probe by probe. Two failures in a row are too few, three turn it; one success is too few, two turn it.
    const PROBES: &[u8] = b"uduuddudduddd.";
    const BACK: &[u8] = b"ududuu.";
    let (turn, probes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (turned, probed) = (turn.clone(), probes.clone());
    let sick = Origin::scripted(move |heard, _| {
        if !heard.line.contains("/readyz") {
            return ok("sick");
        }
        let script = if turned.load(Ordering::SeqCst) { BACK } else { PROBES };
        match script[probed.fetch_add(1, Ordering::SeqCst).min(script.len() - 1)] {
            b'u' => ok("ready"),
            b'd' => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec(),
            // From here on as the last before it.
            _ if turned.load(Ordering::SeqCst) => ok("ready"),
            _ => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec(),
        }
    });
    let good = Origin::named("good");
    let check = "health.http = { path = \"/readyz\", interval = \"30ms\", timeout = \"2s\", fall = 3, rise = 2 }";
    let proxy = watched(&Proxy::text(&[sick.address, good.address], "", check, ""));
    eventually("both are up", || is_up(&proxy, sick.address) && is_up(&proxy, good.address));
    eventually("it is down", || is_down(&proxy, sick.address));
    assert!(probes.load(Ordering::SeqCst) >= PROBES.len() - 1, "down after {} probes", probes.load(Ordering::SeqCst));
    for _ in 0..20 {
        assert_eq!(answer_to(proxy.address(), "POST", "/").body, "good");
    }
    turn.store(true, Ordering::SeqCst);
    probes.store(0, Ordering::SeqCst);
    eventually("it is up", || is_up(&proxy, sick.address));
    assert!(probes.load(Ordering::SeqCst) >= BACK.len() - 1, "up after {} probes", probes.load(Ordering::SeqCst));
    eventually("it is used again", || answer_to(proxy.address(), "GET", "/").body == "sick");
}

#[test]
fn tcp_checks_follow_an_endpoint_down_and_up() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let relay = Chaos::before(one.address);
    let proxy = watched(&Proxy::text(&[relay.address, two.address], "", TCP_CHECK, ""));
    eventually("both are up", || is_up(&proxy, relay.address) && is_up(&proxy, two.address));
    relay.refuse();
    eventually("it is down", || is_down(&proxy, relay.address));
    let before = one.heard().len();
    for _ in 0..20 {
        assert_eq!(answer_to(proxy.address(), "POST", "/").body, "two");
    }
    assert_eq!(one.heard().len(), before, "not even on a connection that is still open");
    relay.listen_again();
    eventually("it is up", || is_up(&proxy, relay.address));
    eventually("it is used again", || answer_to(proxy.address(), "GET", "/").body == "one");
}

#[test]
fn a_new_endpoint_waits_until_it_is_known() {
    let (known, new) = (Origin::named("known"), Origin::named("new"));
    let hangs = Chaos::with(new.address, |_| (Way::Swallow(0), Way::Pass));
    let check = "health.http = { path = \"/readyz\", interval = \"30ms\", timeout = \"9s\" }";
    let config = |endpoints: &[SocketAddr]| format!("{ADMIN}{}", Proxy::text(endpoints, "", check, ""));
    let proxy = Proxy::start(&config(&[known.address]));
    eventually("the first is up", || is_up(&proxy, known.address));
    proxy.reload(&config(&[hangs.address, known.address])).unwrap();
    eventually("the new one is probed", || hangs.accepted() > 0);
    for _ in 0..20 {
        assert_eq!(answer_to(proxy.address(), "POST", "/").body, "known");
    }
    assert_eq!(hangs.accepted(), 1, "the probe and nobody else");
}

#[test]
fn an_endpoint_that_refused_once_is_skipped_at_once() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[closed(), origin.address], "", "balance = \"round-robin\"", "");
    let mut client = Client::connect(proxy.address());
    for _ in 0..30 {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(client.receive().unwrap().status, 200);
    }
    drop(client);
    let retries: u64 = proxy.logged().iter().map(|line| line["retries"].as_u64().unwrap()).sum();
    assert_eq!(retries, 1, "half of 30 requests met it before");
}

#[test]
fn a_backup_takes_over_and_gives_back() {
    let (primary, backup) = (Origin::named("primary"), Origin::named("backup"));
    let relay = Chaos::before(primary.address);
    let text = Proxy::text(&[relay.address], "", TCP_CHECK, "").replace(
        &format!("[\"{}\"]", relay.address),
        &format!("[\"{}\", {{ address = \"{}\", backup = true }}]", relay.address, backup.address),
    );
    let proxy = watched(&text);
    eventually("both are up", || is_up(&proxy, relay.address) && is_up(&proxy, backup.address));
    let mut client = Client::connect(proxy.address());
    let mut served_by = || {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        let answer = client.receive().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    for _ in 0..20 {
        assert_eq!(served_by(), "primary");
    }
    relay.refuse();
    relay.sever();
    for _ in 0..20 {
        assert_eq!(served_by(), "backup", "at once, without a verdict");
    }
    eventually("the verdict", || is_down(&proxy, relay.address));
    relay.listen_again();
    eventually("the primary is back", || served_by() == "primary");
    for _ in 0..20 {
        assert_eq!(served_by(), "primary");
    }
}

#[test]
fn with_all_endpoints_down_the_answer_is_503_at_once() {
    let endpoints = [closed(), closed(), closed()];
    let proxy = watched(&Proxy::text(&endpoints, "", TCP_CHECK, ""));
    eventually("the verdict", || answer_to(proxy.address(), "GET", "/").reason() == Some("all_down"));
    for method in ["GET", "POST"] {
        let (answer, took) = timed(|| answer_to(proxy.address(), method, "/"));
        assert_eq!((answer.status, answer.reason()), (503, Some("all_down")));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
}

#[test]
fn max_requests_is_a_cap_over_all_workers() {
    let gate = Gate::new();
    let proxy = Proxy::tuned(&[gate.origin.address], "", "max_requests = 3\nqueue.size = 0", "");
    let mut held: Vec<_> = (0..3).map(|_| ask(&proxy, "GET")).collect();
    gate.origin.await_heard(3);
    for method in ["GET", "POST"] {
        let (answer, took) = timed(|| answer_to(proxy.address(), method, "/"));
        assert_eq!((answer.status, answer.reason()), (503, Some("pool_full")));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
    gate.open();
    for client in &mut held {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    eventually("there is room again", || answer_to(proxy.address(), "GET", "/").status == 200);
}

/// Two workers that looked at the same moment both found room for one.
#[test]
fn max_requests_holds_when_many_come_at_once() {
    let gate = Gate::new();
    gate.open();
    let proxy = Proxy::tuned(&[gate.origin.address], "", "max_requests = 1\nqueue.size = 0", "");
    let address = proxy.address();
    let load: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for _ in 0..300 {
                    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
                    assert!([200, 503].contains(&client.receive().unwrap().status));
                }
            })
        })
        .collect();
    for client in load {
        client.join().unwrap();
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), 1);
}

fn split(reads: &[SocketAddr], write: SocketAddr, pools: &str, route: &str) -> Proxy {
    let reads: Vec<_> = reads.iter().map(|address| format!("\"{address}\"")).collect();
    Proxy::start(&format!(
        r#"
        {ADMIN}
        [listeners.http]
        address = "127.0.0.1:0"
        [pools.reads]
        endpoints = [{}]
        {pools}
        [pools.writes]
        endpoints = ["{write}"]
        {pools}
        [routes.all]
        match.path = "/*"
        split.read = "reads"
        split.write = "writes"
        {route}
        "#,
        reads.join(", ")
    ))
}

#[test]
fn reads_that_overflow_take_at_most_half_of_the_write_side() {
    for check in [TCP_CHECK, ""] {
        let gate = Gate::new();
        // More endpoints than a request has attempts.
        let reads = [closed(), closed(), closed(), closed()];
        let proxy = split(&reads, gate.origin.address, &format!("max_requests = 4\nqueue.size = 0\n{check}"), "");
        if !check.is_empty() {
            eventually("the write side is up", || is_up(&proxy, gate.origin.address));
            eventually("the read side is down", || reads.iter().all(|read| is_down(&proxy, *read)));
        }
        gate.open();
        eventually("reads overflow", || answer_to(proxy.address(), "GET", "/").status == 200);
        gate.open.store(false, Ordering::SeqCst);
        let before = gate.origin.heard().len();
        let mut held: Vec<_> = (0..2).map(|_| ask(&proxy, "GET")).collect();
        gate.origin.await_heard(before + 2);
        let answer = answer_to(proxy.address(), "GET", "/");
        // Without a verdict, those that refused may be asked once more before the read is given up.
        let reason = answer.reason().unwrap();
        assert!(reason == "pool_full" || check.is_empty() && reason == "connect_refused", "{check}: {reason}");
        assert_eq!(gate.origin.heard().len(), before + 2, "two of four are for reads");
        held.extend((0..2).map(|_| ask(&proxy, "POST")));
        gate.origin.await_heard(before + 4);
        assert_eq!(answer_to(proxy.address(), "POST", "/").reason(), Some("pool_full"));
        gate.open();
        for client in &mut held {
            assert_eq!(client.receive().unwrap().status, 200, "{check}");
        }
    }
}

#[test]
fn reads_fail_where_the_route_says_so() {
    let write = Origin::named("write");
    let proxy = split(&[closed()], write.address, TCP_CHECK, "split.when_reads_down = \"fail\"");
    eventually("the write side is up", || is_up(&proxy, write.address));
    eventually("the verdict", || answer_to(proxy.address(), "GET", "/").reason() == Some("all_down"));
    assert_eq!(answer_to(proxy.address(), "GET", "/").status, 503);
    assert_eq!(answer_to(proxy.address(), "POST", "/").body, "write");
    assert!(write.heard().iter().all(|heard| heard.line.starts_with("POST")));
}

#[test]
fn writes_never_go_to_the_read_side() {
    for check in [TCP_CHECK, ""] {
        let read = Origin::named("read");
        let proxy = split(&[read.address], closed(), check, "");
        for method in ["POST", "PUT", "DELETE", "PATCH", "MADEUP"] {
            let answer = answer_to(proxy.address(), method, "/");
            assert!([502, 503].contains(&answer.status), "{method}: {answer:?}");
        }
        assert!(read.heard().is_empty(), "{:?}", read.heard());
        eventually("reads go on", || answer_to(proxy.address(), "GET", "/").body == "read");
    }
}

fn weighted(origins: &[(&Origin, u16)], listener: &str, pool: &str) -> Proxy {
    let endpoints: Vec<_> = origins
        .iter()
        .map(|(origin, weight)| format!("{{ address = \"{}\", weight = {weight} }}", origin.address))
        .collect();
    Proxy::start(
        &Proxy::text(&[], listener, pool, "")
            .replace("endpoints = []", &format!("endpoints = [{}]", endpoints.join(", "))),
    )
}

#[test]
fn traffic_follows_the_weights() {
    let addresses: Vec<_> = (0..400).map(|at| format!("198.51.{}.{}", at / 200, at % 200)).collect();
    for balance in ["\"round-robin\"", "\"random\"", "{ hash = \"client-ip\" }"] {
        let (one, three) = (Origin::named("one"), Origin::named("three"));
        let trust = "trusted_proxies = [\"127.0.0.0/8\"]";
        let proxy = weighted(&[(&one, 1), (&three, 3)], trust, &format!("balance = {balance}"));
        let mut client = Client::connect(proxy.address());
        for address in &addresses {
            let ask = format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {address}\r\n\r\n");
            let mut bodies = (0..2).map(|_| {
                client.send(&ask);
                client.receive().unwrap().body
            });
            let (first, second) = (bodies.next().unwrap(), bodies.next().unwrap());
            assert!(!balance.contains("hash") || first == second, "{address} stays where it is");
        }
        let share = one.heard().len() as f64 / 800.0;
        assert!((share - 0.25).abs() < 0.08, "{balance}: {share}");
    }
}

#[test]
fn load_follows_the_weights() {
    for (balance, slack) in [("least-requests", 0), ("power-of-two", 4)] {
        let (one, three) = (Gate::new(), Gate::new());
        let proxy = weighted(&[(&one.origin, 1), (&three.origin, 3)], "", &format!("balance = \"{balance}\""));
        let mut held = Vec::new();
        for count in 1..=16 {
            held.push(ask(&proxy, "GET"));
            eventually("it is under way", || one.origin.heard().len() + three.origin.heard().len() == count);
        }
        let light = one.origin.heard().len();
        assert!(light.abs_diff(4) <= slack, "{balance}: {light} of 16 on a quarter of the weight");
        for gate in [&one, &three] {
            gate.open();
        }
        for client in &mut held {
            assert_eq!(client.receive().unwrap().status, 200);
        }
    }
}

/// F04 in short: an endpoint that hangs costs a read one attempt's time and no more.
#[test]
fn a_read_is_fetched_elsewhere_when_an_endpoint_hangs() {
    let (hung, good) = (Origin::named("hung"), Origin::named("good"));
    let relay = Chaos::before(hung.address);
    let pool = "timeouts.response = \"300ms\"\nbalance = \"round-robin\"";
    let proxy = Proxy::tuned(&[relay.address, good.address], "", pool, "");
    relay.rule(|_| (Way::Pass, Way::Swallow(0)));
    for _ in 0..6 {
        let (answer, took) = timed(|| exchange(proxy.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap());
        assert_eq!(answer.body, "good");
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
    assert!(!hung.heard().is_empty(), "it was never tried");
}
