//! What operators order of single endpoints while it runs: drain, undrain, another weight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::kit::{Answer, Client, Origin, Proxy, answer_to, eventually, gate, ok};

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

/// Two endpoints behind a listener, in turn.
fn proxy(one: &Origin, two: &Origin) -> Proxy {
    Proxy::start(&config(one, two))
}

fn config(one: &Origin, two: &Origin) -> String {
    format!("{ADMIN}{}", Proxy::text(&[one.address, two.address], "", "balance = \"round-robin\"", ""))
}

fn order(proxy: &Proxy, origin: &Origin, what: Value) -> Answer {
    let mut order = json!({ "pool": "app", "endpoint": origin.address.to_string() });
    order.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    post(proxy, &order)
}

fn post(proxy: &Proxy, order: &Value) -> Answer {
    let headgate::base::address::Address::Tcp(admin) = proxy.admin() else { panic!("TCP") };
    let mut client = Client::connect(admin);
    let body = order.to_string();
    let head = "POST /v1/orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json";
    client.send(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    client.receive().expect("an answer")
}

fn followed(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// How many of 12 requests each answers. On one connection: each worker has turns of its own.
fn spread(proxy: &Proxy) -> (usize, usize) {
    let mut client = Client::connect(proxy.address());
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.receive().expect("an answer").body
    };
    let bodies: Vec<String> = (0..12).map(|_| ask()).collect();
    let of = |name: &str| bodies.iter().filter(|body| *body == name).count();
    assert_eq!(of("one") + of("two"), 12, "{bodies:?}");
    (of("one"), of("two"))
}

#[test]
fn a_drained_endpoint_gets_nothing_new_finishes_what_runs_and_stays_drained_over_reloads() {
    let (open, closed) = gate();
    let one = Origin::scripted(move |heard, _| {
        if heard.line.contains("/slow") {
            closed.pass();
        }
        ok("one")
    });
    let two = Origin::named("two");
    let proxy = proxy(&one, &two);
    assert_eq!(spread(&proxy), (6, 6));
    let mut client = Client::connect(proxy.address());
    let slow = std::thread::spawn(move || {
        let mut ask = || {
            client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
            client.receive().expect("an answer").body
        };
        [ask(), ask()]
    });
    eventually("a request runs on it", || proxy.status()["pools"][0]["endpoints"][0]["in_flight"] == 1);
    let told = followed(&order(&proxy, &one, json!({ "order": "drain" })));
    assert_eq!((&told["draining"], &told["in_flight"], &told["warnings"]), (&json!("operator"), &json!(1), &json!([])));
    assert_eq!(spread(&proxy), (0, 12));
    proxy.reload(&config(&one, &two).replace("round-robin", "random")).unwrap();
    assert_eq!(spread(&proxy), (0, 12));
    let shown = proxy.status()["pools"][0]["endpoints"][0].clone();
    assert_eq!((&shown["drain"]["by"], &shown["standing"]), (&json!("operator"), &json!("draining")));
    open.send(()).unwrap();
    assert!(slow.join().unwrap().contains(&"one".to_owned()), "what ran was answered");
    followed(&order(&proxy, &one, json!({ "order": "undrain" })));
    proxy.reload(&config(&one, &two)).unwrap();
    assert_eq!(spread(&proxy), (6, 6));
    assert!(proxy.logged().iter().all(|line| line["status"] == 200));
}

#[test]
fn the_config_can_drain_and_the_operator_outranks_it() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let drained = |text: &str| {
        let entry = format!("\"{}\"", two.address);
        text.replacen(&entry, &format!("{{ address = {entry}, drain = true }}"), 1)
    };
    let proxy = Proxy::start(&drained(&config(&one, &two)));
    assert_eq!(spread(&proxy), (12, 0));
    assert_eq!(proxy.status()["pools"][0]["endpoints"][1]["drain"]["by"], "config");
    let told = followed(&order(&proxy, &two, json!({ "order": "undrain" })));
    assert!(told["draining"].is_null() && told["warnings"][0].as_str().unwrap().contains("after a restart"), "{told}");
    assert_eq!(spread(&proxy), (6, 6));
    followed(&order(&proxy, &two, json!({ "order": "drain" })));
    let told = followed(&order(&proxy, &one, json!({ "order": "drain" })));
    assert!(told["warnings"][0].as_str().unwrap().contains("no endpoint left"), "{told}");
    let answer = answer_to(proxy.address(), "GET", "/");
    assert_eq!((answer.status, answer.reason()), (503, Some("all_down")));
}

#[test]
fn a_weight_holds_over_reloads_until_it_is_given_back_to_the_config() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = proxy(&one, &two);
    let weight = |weight: Value| order(&proxy, &one, json!({ "order": "set-weight", "weight": weight }));
    let told = followed(&weight(json!(3)));
    assert_eq!((&told["weight"], &told["configured_weight"]), (&json!(3), &json!(1)));
    assert_eq!(spread(&proxy), (9, 3));
    proxy.reload(&config(&one, &two).replace("1MiB", "2MiB")).unwrap();
    assert_eq!(spread(&proxy), (9, 3));
    let shown = proxy.status()["pools"][0]["endpoints"][0].clone();
    assert_eq!((&shown["weight"], &shown["configured_weight"]), (&json!(3), &json!(1)));
    followed(&weight(Value::Null));
    assert_eq!(spread(&proxy), (6, 6));
}

#[test]
fn no_request_fails_while_endpoints_are_drained_in_turn() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = proxy(&one, &two);
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (done, address) = (done.clone(), proxy.address());
            std::thread::spawn(move || {
                let mut answers = 0;
                while !done.load(Ordering::Relaxed) {
                    let mut client = Client::connect(address);
                    for method in ["GET", "POST"] {
                        client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"));
                        assert_eq!(client.receive().expect("an answer").status, 200);
                        answers += 1;
                    }
                }
                answers
            })
        })
        .collect();
    for _ in 0..15 {
        for origin in [&one, &two] {
            for what in ["drain", "undrain"] {
                followed(&order(&proxy, origin, json!({ "order": what })));
                let heard = one.heard().len() + two.heard().len();
                eventually("traffic goes on", || one.heard().len() + two.heard().len() > heard);
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    assert!(clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>() > 60);
}

#[test]
fn an_order_for_what_is_not_there_is_told_what_is() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = proxy(&one, &two);
    let address = one.address.to_string();
    for (order, status, words) in [
        (json!({ "pool": "nap", "endpoint": address, "order": "drain" }), 404, "no pool `nap`; there are: app"),
        (json!({ "pool": "app", "endpoint": "1.2.3.4:5", "order": "drain" }), 404, "it has: 127.0.0.1:"),
        (json!({ "pool": "app", "endpoint": address, "order": "set-weight", "weight": 70000 }), 422, "70000"),
        (json!({ "pool": "app", "endpoint": address, "order": "burn" }), 422, "burn"),
        (json!({ "pool": "app" }), 422, "endpoint"),
        (json!({ "pool": "app", "endpoint": address, "order": "set-weight", "wieght": 4 }), 422, "wieght"),
        (json!({ "pool": "app", "endpoint": address, "order": "set-weight" }), 422, "takes a `weight`"),
        (json!({ "pool": "app", "endpoint": address, "order": "drain", "weight": 4 }), 422, "only `set-weight`"),
    ] {
        let answer = post(&proxy, &order);
        assert_eq!(answer.status, status, "{order}: {}", answer.body);
        assert!(answer.body.contains(words), "{order}: {}", answer.body);
    }
    assert_eq!(spread(&proxy), (6, 6));
}
