//! Who gets a request by latency and by hash, and how an endpoint comes up, with real endpoints.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::kit::{Chaos, Client, Origin, Proxy, eventually};

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";
const TCP_CHECK: &str = "health.tcp = { interval = \"30ms\", timeout = \"2s\" }";

fn start(endpoints: &[SocketAddr], pool: &str) -> Proxy {
    Proxy::start(&format!("{ADMIN}{}", Proxy::text(endpoints, "", pool, "")))
}

/// How often each answered.
fn served(proxy: &Proxy, requests: usize) -> HashMap<String, usize> {
    let mut client = Client::connect(proxy.address());
    let mut served = HashMap::new();
    for _ in 0..requests {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.receive().unwrap();
        *served.entry(answer.body).or_insert(0) += 1;
    }
    served
}

fn endpoint(status: &Value, address: SocketAddr) -> Value {
    let endpoints = status["pools"][0]["endpoints"].as_array().unwrap();
    endpoints.iter().find(|endpoint| endpoint["address"] == *address.to_string()).unwrap().clone()
}

/// To who counts requests it is the best of all: it is always idle.
#[test]
fn by_latency_one_that_fails_fast_gets_next_to_nothing() {
    let broken =
        Origin::scripted(|_, _| b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 6\r\n\r\nbroken".to_vec());
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = start(&[broken.address, one.address, two.address], "balance = \"peak-ewma\"");
    let served = served(&proxy, 600);
    // A fair share were 200.
    assert!(served.get("broken").copied().unwrap_or(0) <= 20, "{served:?}");
    assert!(served["one"] > 100 && served["two"] > 100, "{served:?}");
}

#[test]
fn a_key_keeps_its_endpoint_and_only_the_keys_of_a_lost_one_move() {
    let origins = ["one", "two", "three"].map(Origin::named);
    for (hash, path, field) in [
        ("{ header = \"x-user\" }", "/", "x-user: u@"),
        ("{ cookie = \"session\" }", "/", "cookie: a=1; session=s@"),
        ("{ query = \"user\" }", "/?a=b&user=@", "x-a: 1"),
        ("\"uri\"", "/page/@", "x-a: 1"),
    ] {
        let relay = Chaos::before(origins[0].address);
        let endpoints = [relay.address, origins[1].address, origins[2].address];
        let proxy = start(&endpoints, &format!("balance = {{ hash = {hash}, bounded_load = 100 }}\n{TCP_CHECK}"));
        let verdict = |wanted: &str| endpoint(&proxy.status(), relay.address)["verdict"] == wanted;
        eventually("all are up", || {
            let status = proxy.status();
            endpoints.iter().all(|address| endpoint(&status, *address)["verdict"] == "up")
        });
        let ask = |client: &mut Client, key: usize| {
            let (path, field) = (path.replace('@', &key.to_string()), field.replace('@', &key.to_string()));
            client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n"));
            client.receive().unwrap().body
        };
        let mut client = Client::connect(proxy.address());
        let homes: Vec<String> = (0..60).map(|key| ask(&mut client, key)).collect();
        assert!(["one", "two", "three"].iter().all(|name| homes.iter().any(|home| home == name)), "{hash}: {homes:?}");
        for (key, home) in homes.iter().enumerate() {
            assert_eq!(ask(&mut client, key), *home, "{hash}: key {key}");
        }
        relay.refuse();
        relay.sever();
        eventually("it is down", || verdict("down"));
        for (key, home) in homes.iter().enumerate() {
            let now = ask(&mut client, key);
            assert!(now == *home || home == "one", "{hash}: key {key} went from {home} to {now}");
            assert_ne!(now, "one");
        }
        relay.listen_again();
        eventually("it is up", || verdict("up"));
        for (key, home) in homes.iter().enumerate() {
            assert_eq!(ask(&mut client, key), *home, "{hash}: key {key} is home again");
        }
    }
}

#[test]
fn who_joins_a_running_process_begins_with_a_small_share() {
    let origins = ["one", "two"].map(Origin::named);
    let [a, b] = [0, 1].map(|at| origins[at].address);
    for balance in ["power-of-two", "round-robin", "least-requests", "random", "peak-ewma"] {
        let pool = format!("slow_start = \"1h\"\nbalance = \"{balance}\"");
        let proxy = start(&[a], &pool);
        assert!(endpoint(&proxy.status(), a)["rising"].is_null(), "not at the process's start");
        proxy.reload(&format!("{ADMIN}{}", Proxy::text(&[a, b], "", &pool, ""))).unwrap();
        let status = proxy.status();
        assert_eq!(endpoint(&status, b)["rising"], 10.0);
        assert!(endpoint(&status, a)["rising"].is_null());
        // A tenth beside a whole: one in eleven. By latency it is compared in one of five, and may be the quicker.
        let most = if balance == "peak-ewma" { 250 } else { 150 };
        let served = served(&proxy, 1000);
        let risen = served.get("two").copied().unwrap_or(0);
        assert!((30..=most).contains(&risen) || (balance == "peak-ewma" && risen < 30), "{balance}: {served:?}");
        let explained = proxy.explain(&json!({ "method": "GET", "url": "http://a/" })).unwrap();
        assert_eq!(explained["pools"][0]["endpoints"][1]["rising"], 10.0, "{explained:#}");
    }
}

#[test]
fn who_comes_back_rises_again_and_all_of_it_comes_in_time() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let relay = Chaos::before(one.address);
    let proxy = start(&[relay.address, two.address], &format!("slow_start = \"500ms\"\n{TCP_CHECK}"));
    let rising = || endpoint(&proxy.status(), relay.address)["rising"].as_f64();
    let verdict = |wanted: &str| endpoint(&proxy.status(), relay.address)["verdict"] == wanted;
    eventually("it is up", || verdict("up"));
    assert_eq!(rising(), None, "all came up with the process");
    relay.refuse();
    relay.sever();
    eventually("it is down", || verdict("down"));
    relay.listen_again();
    eventually("it rises", || rising().is_some_and(|percent| (10.0..100.0).contains(&percent)));
    eventually("it has risen", || verdict("up") && rising().is_none());
}
