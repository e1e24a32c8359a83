//! Endpoints that pass their checks and fail real requests: who is taken out, for how long, and who never is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headgate::base::clock;
use http::Request;

use crate::kit::{Ca, Client, Content, Heard, Origin, Protocol, Proxy, Talker, answer_to, eventually, ok};

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

/// Two listeners and one pool of these endpoints.
fn start(endpoints: &[SocketAddr], pool: &str) -> Proxy {
    let text = Proxy::text(endpoints, "", pool, "");
    let https = "[listeners.https]\naddress = \"127.0.0.1:0\"\n\
                 tls.certificates = [{ cert = \"@FOLDER/a.pem\", key = \"@FOLDER/a.key\" }]\n";
    Proxy::prepared(&format!("{ADMIN}{text}{https}"), |folder| _ = Ca::new().issue(&["a"]).write(folder, "a"))
}

fn status_line(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

fn is_check(heard: &Heard) -> bool {
    heard.line.contains("/readyz")
}

fn real(origin: &Origin) -> usize {
    origin.heard().iter().filter(|heard| !is_check(heard)).count()
}

fn endpoint(proxy: &Proxy, address: SocketAddr) -> serde_json::Value {
    let pool = proxy.pool("app");
    let mut endpoints = pool["endpoints"].as_array().unwrap().iter();
    endpoints.find(|endpoint| endpoint["address"] == *address.to_string()).expect("the endpoint").clone()
}

fn is_ejected(proxy: &Proxy, address: SocketAddr) -> bool {
    endpoint(proxy, address)["standing"] == "ejected"
}

fn told(proxy: &Proxy, address: SocketAddr) -> Vec<String> {
    let endpoint = endpoint(proxy, address);
    let history = endpoint["history"].as_array().unwrap().iter();
    let traffic = history.filter(|evidence| evidence["source"] == "traffic");
    traffic.map(|evidence| evidence["detail"].as_str().unwrap().to_owned()).collect()
}

/// F11 and the second half of F47: what traffic says wins over what the health endpoint says.
#[test]
fn five_gateway_errors_in_a_row_eject_what_passes_its_checks() {
    for protocol in [Protocol::Http1, Protocol::Http2Tls] {
        let sick = Origin::scripted(|heard, _| if is_check(heard) { ok("ready") } else { status_line(503) });
        let good = Origin::named("good");
        let check = "health.http = { path = \"/readyz\", interval = \"30ms\", timeout = \"2s\" }";
        let pool = format!("balance = \"round-robin\"\n{check}");
        let proxy = start(&[sick.address, good.address], &pool);
        eventually("both are up", || {
            [sick.address, good.address].iter().all(|address| endpoint(&proxy, *address)["verdict"] == "up")
        });
        let mut talker = Talker::connect(&proxy, protocol);
        let mut get = || talker.exchange(Request::get("/").body(Content::default()).unwrap()).unwrap().status;
        let statuses: Vec<_> = (0..40).map(|_| get()).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 5, "{statuses:?}");
        assert_eq!(real(&sick), 5);
        let sick = endpoint(&proxy, sick.address);
        assert_eq!((&sick["verdict"], &sick["standing"]), (&"up".into(), &"ejected".into()), "over {protocol:?}");
        let history = sick["history"].as_array().unwrap();
        let why = history.iter().find(|evidence| evidence["source"] == "traffic").unwrap();
        let why = why["detail"].as_str().unwrap();
        assert_eq!(why, "ejected for 30s: 5 errors in a row, the last: 503 Service Unavailable");
    }
}

/// F11: one request tries it, each time after twice as long; once it is well, it is in again.
#[test]
fn one_request_at_a_time_tries_it_after_twice_as_long_each_time() {
    let (well, times) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::<Instant>::new())));
    let (is_well, at) = (well.clone(), times.clone());
    let sick = Origin::scripted(move |_, _| {
        at.lock().unwrap().push(clock::now());
        if is_well.load(Ordering::SeqCst) { ok("well") } else { status_line(502) }
    });
    let good = Origin::named("good");
    let base = Duration::from_millis(200);
    let proxy = start(
        &[sick.address, good.address],
        "ejection = { base_time = \"200ms\", max_time = \"10m\", consecutive_errors = 3 }\nbalance = \"round-robin\"",
    );
    let mut client = Client::connect(proxy.address());
    let mut get = || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.receive().unwrap()
    };
    eventually("three trials have failed", || {
        get();
        times.lock().unwrap().len() >= 6
    });
    let gaps: Vec<_> = times.lock().unwrap()[2..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, factor) in gaps.iter().zip([1, 2, 4]) {
        // The times are taken at the endpoint.
        assert!(*gap + Duration::from_millis(50) >= base * factor, "{gaps:?}");
    }
    well.store(true, Ordering::SeqCst);
    eventually("it is in again", || {
        get();
        !is_ejected(&proxy, sick.address)
    });
    assert_eq!(told(&proxy, sick.address).last().unwrap(), "in again: answered the trial with 200 OK");
    let before = times.lock().unwrap().len();
    (0..20).for_each(|_| assert_eq!(get().status, 200));
    assert!(times.lock().unwrap().len() >= before + 9, "it has its share");
}

/// F04: it takes requests and never answers.
#[test]
fn an_endpoint_that_hangs_is_ejected_within_five_timeouts_and_no_get_is_lost() {
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    let hung = Origin::talking(move |conversation, _| {
        while conversation.request().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let good = Origin::named("good");
    let proxy = start(&[hung.address, good.address], "timeouts.response = \"150ms\"\nbalance = \"round-robin\"");
    for _ in 0..30 {
        assert_eq!(answer_to(proxy.address(), "GET", "/").body, "good");
    }
    assert_eq!(heard.load(Ordering::SeqCst), 5);
    assert!(is_ejected(&proxy, hung.address));
}

/// All fail alike: an error in the code that all run must not leave nobody.
#[test]
fn no_more_than_max_ejected_are_out_and_never_all() {
    let sick: Vec<_> = (0..5).map(|_| Origin::scripted(|_, _| status_line(503))).collect();
    let addresses: Vec<_> = sick.iter().map(|origin| origin.address).collect();
    let proxy = start(&addresses, "ejection.max_ejected = 60");
    let out = || addresses.iter().filter(|address| is_ejected(&proxy, **address)).count();
    let load: Vec<_> = (0..8)
        .map(|_| {
            let address = proxy.address();
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for _ in 0..100 {
                    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
                    assert_eq!(client.receive().unwrap().status, 503);
                }
            })
        })
        .collect();
    while load.iter().any(|client| !client.is_finished()) {
        assert!(out() <= 3);
    }
    load.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(out(), 3);
}

#[test]
fn what_clients_do_wrong_never_counts() {
    let picky = Origin::scripted(|heard, _| {
        let status = heard.line.split('/').nth(1).and_then(|path| path.split(' ').next()).unwrap();
        status.parse().map_or_else(|_| Vec::new(), status_line)
    });
    let good = Origin::named("good");
    let proxy = start(&[picky.address, good.address], "ejection.consecutive_errors = 1\nejection.success_rate = 1");
    for status in [400, 401, 404, 409, 413, 422, 429] {
        for _ in 0..10 {
            answer_to(proxy.address(), "GET", &format!("/{status}"));
        }
    }
    // Clients that break off while they send.
    for _ in 0..10 {
        let mut client = Client::connect(proxy.address());
        client.send("POST /200 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        drop(client);
    }
    for _ in 0..10 {
        let mut client = Client::connect(proxy.address());
        client.send("POST /200 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nno chunk");
        assert_eq!(client.receive().unwrap().status, 400);
    }
    eventually("all is over", || endpoint(&proxy, picky.address)["in_flight"] == 0);
    assert!(!is_ejected(&proxy, picky.address), "{:?}", told(&proxy, picky.address));
    assert_eq!(answer_to(proxy.address(), "GET", "/503").status % 303, 200);
}

/// F11 with 500: one such answer may be the request's fault, so it takes a comparison.
#[test]
fn an_endpoint_far_below_the_others_is_ejected() {
    let sick = Origin::scripted(|_, number| if number % 5 == 4 { ok("sick") } else { status_line(500) });
    let good: Vec<_> = (0..2).map(|_| Origin::named("good")).collect();
    let proxy = start(&[sick.address, good[0].address, good[1].address], "balance = \"round-robin\"");
    let mut client = Client::connect(proxy.address());
    eventually("it is out", || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.receive().unwrap();
        is_ejected(&proxy, sick.address)
    });
    let why = told(&proxy, sick.address).pop().unwrap();
    assert!(why.contains("% of its answers are no 5xx, 100 % of the others'"), "{why}");
}

#[test]
fn a_slow_endpoint_is_ejected_where_the_config_asks_for_it() {
    let slow = Origin::scripted(|_, _| {
        std::thread::park_timeout(Duration::from_millis(60));
        ok("slow")
    });
    let good = Origin::named("good");
    let proxy = start(
        &[slow.address, good.address],
        "balance = \"round-robin\"\nejection = { latency = 3, minimum_requests = 5 }",
    );
    eventually("it is out", || {
        answer_to(proxy.address(), "GET", "/");
        is_ejected(&proxy, slow.address)
    });
    let why = told(&proxy, slow.address).pop().unwrap();
    assert!(why.contains("ms, the others in"), "{why}");
}

#[test]
fn nobody_is_ejected_where_it_is_switched_off() {
    let sick = Origin::scripted(|_, _| status_line(503));
    let good = Origin::named("good");
    let config = |pool: &str| Proxy::text(&[sick.address, good.address], "", pool, "");
    let proxy = Proxy::start(&format!("{ADMIN}{}", config("balance = \"round-robin\"")));
    let bad = || (0..40).filter(|_| answer_to(proxy.address(), "GET", "/").status == 503).count();
    assert_eq!(bad(), 5);
    proxy.reload(&format!("{ADMIN}{}", config("balance = \"round-robin\"\nejection.enabled = false"))).unwrap();
    eventually("it is in again", || !is_ejected(&proxy, sick.address));
    let bad = bad();
    assert!(bad > 10, "{bad} of 40: every other one, but for the turns of two workers");
}
