//! Where a pool's traffic goes when its endpoints fail, and when it comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headgate::base::clock;
use http::Request;

use crate::kit::{
    Answer, Ca, Chaos, Client, Content, Origin, Protocol, Proxy, Talker, answer_to, eventually, gate, ok,
};

const CHECK: &str = "health.tcp = { interval = \"30ms\", timeout = \"2s\", rise = 2, fall = 2 }";

/// Pools named by letters, the route to `a`.
fn config(pools: &[(&str, &[SocketAddr], &str)]) -> String {
    let mut text = "[access_log]\noutput = \"@FOLDER/access.log\"\n[admin]\naddress = \"127.0.0.1:0\"\n[metrics]\n\
                    address = \"127.0.0.1:0\"\n[listeners.http]\naddress = \"127.0.0.1:0\"\n[listeners.https]\naddress \
                    = \"127.0.0.1:0\"\ntls.certificates = [{ cert = \"@FOLDER/a.pem\", key = \"@FOLDER/a.key\" }]\n\
                    [routes.all]\nmatch.path = \"/*\"\npool = \"a\"\n"
        .to_owned();
    for (name, endpoints, more) in pools {
        let list: Vec<_> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
        text.push_str(&format!("[pools.{name}]\nendpoints = [{}]\n{CHECK}\n{more}\n", list.join(", ")));
    }
    text
}

fn start(text: &str) -> Proxy {
    let proxy = Proxy::prepared(text, |folder| _ = Ca::new().issue(&["a"]).write(folder, "a"));
    let pools = proxy.status()["pools"].as_array().unwrap().clone();
    for pool in pools {
        let name = pool["name"].as_str().unwrap().to_owned();
        let is_known = || {
            let pool = proxy.pool(&name);
            pool["endpoints"].as_array().unwrap().iter().all(|endpoint| endpoint["verdict"] != "unknown")
        };
        eventually("the endpoints are known", is_known);
    }
    proxy
}

/// A primary behind a relay and its backup in one pool.
fn pair(primary: &Chaos, backup: &Origin, more: &str) -> Proxy {
    let text = config(&[("a", &[primary.address], more)]).replace(
        &format!("[\"{}\"]", primary.address),
        &format!("[\"{}\", {{ address = \"{}\", backup = true }}]", primary.address, backup.address),
    );
    start(&text)
}

fn post(proxy: &Proxy) -> Answer {
    answer_to(proxy.address(), "POST", "/")
}

fn served_by(proxy: &Proxy) -> String {
    let answer = post(proxy);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

fn active(proxy: &Proxy) -> String {
    proxy.pool("a")["traffic"]["active"].as_str().unwrap().to_owned()
}

fn is_up(proxy: &Proxy, address: SocketAddr) -> bool {
    let pool = proxy.pool("a");
    let mut endpoints = pool["endpoints"].as_array().unwrap().iter();
    endpoints.any(|endpoint| endpoint["address"] == *address.to_string() && endpoint["verdict"] == "up")
}

/// F15: the first POST after the kill is served by the backup, over both protocols.
#[test]
fn the_backup_serves_the_first_post_after_a_kill() {
    for protocol in [Protocol::Http1, Protocol::Http2Tls] {
        let (one, two) = (Origin::named("one"), Origin::named("two"));
        let primary = Chaos::before(one.address);
        let proxy = pair(&primary, &two, "");
        let mut talker = Talker::connect(&proxy, protocol);
        let mut post = || talker.exchange(Request::post("/").body(Content::default()).unwrap()).unwrap();
        assert_eq!(post().text(), "one");
        primary.refuse();
        primary.sever();
        for _ in 0..10 {
            let reply = post();
            assert_eq!((reply.status, &*reply.text()), (200, "two"), "over {protocol:?}");
        }
        eventually("it is told", || active(&proxy) == "backups");
        let traffic = proxy.pool("a")["traffic"].clone();
        assert!(traffic["why"].as_str().unwrap().contains(&primary.address.to_string()), "{traffic}");
    }
}

/// F15 and F16 for chains: in order, named in logs and metrics, and back at once.
#[test]
fn the_next_pool_of_the_chain_takes_over_and_gives_back() {
    let (one, two, three) = (Origin::named("one"), Origin::named("two"), Origin::named("three"));
    let (a, b) = (Chaos::before(one.address), Chaos::before(two.address));
    let proxy = start(&config(&[
        ("a", &[a.address], "failover = [\"b\"]"),
        ("b", &[b.address], "failover = [\"c\"]"),
        ("c", &[three.address], ""),
    ]));
    assert_eq!(served_by(&proxy), "one");
    a.refuse();
    a.sever();
    (0..10).for_each(|_| assert_eq!(served_by(&proxy), "two", "at once"));
    b.refuse();
    b.sever();
    (0..10).for_each(|_| assert_eq!(served_by(&proxy), "three", "the chain of the chain"));
    eventually("it is told", || active(&proxy) == "c");
    eventually("it is counted", || proxy.metrics().contains("headgate_pool_stage{pool=\"a\"} 3"));
    a.listen_again();
    eventually("all goes back", || served_by(&proxy) == "one");
    eventually("it is told", || active(&proxy) == "primaries");
    let logged = proxy.logged();
    for (name, endpoint) in [("a", a.address), ("b", b.address), ("c", three.address)] {
        let lines: Vec<_> = logged.iter().filter(|line| line["pool"] == name).collect();
        let served = lines.iter().all(|line| line["endpoint"] == *endpoint.to_string());
        assert!(served && lines.len() >= if name == "a" { 2 } else { 10 }, "{name}: {lines:?}");
    }
}

#[test]
fn reads_go_down_their_chain_before_they_overflow_to_the_write_side() {
    let (one, two, writes) = (Origin::named("one"), Origin::named("two"), Origin::named("writes"));
    let (a, b) = (Chaos::before(one.address), Chaos::before(two.address));
    let text =
        config(&[("a", &[a.address], "failover = [\"b\"]"), ("b", &[b.address], ""), ("w", &[writes.address], "")]);
    let proxy = start(&text.replace("pool = \"a\"\n", "split = { read = \"a\", write = \"w\" }\n"));
    let get = || answer_to(proxy.address(), "GET", "/").body;
    assert_eq!((get(), served_by(&proxy)), ("one".to_owned(), "writes".to_owned()));
    a.refuse();
    a.sever();
    assert_eq!(get(), "two");
    b.refuse();
    b.sever();
    assert_eq!(get(), "writes");
    let question = serde_json::json!({ "method": "GET", "url": "http://a/" });
    let explained = proxy.explain(&question).unwrap();
    let names: Vec<_> = explained["pools"].as_array().unwrap().iter().map(|pool| pool["name"].clone()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names[2], "w");
    assert!(one.heard().iter().chain(&two.heard()).all(|heard| heard.line.starts_with("GET")), "no write went there");
}

/// F16: the active returns, and nothing goes back before it has been there for so long.
#[test]
fn traffic_goes_back_after_a_stable_time_and_what_runs_on_the_backup_ends_there() {
    let (one, (open, held)) = (Origin::named("one"), gate());
    let two = Origin::scripted(move |heard, _| {
        if heard.line.contains("/long") {
            held.pass();
        }
        ok("two")
    });
    let primary = Chaos::before(one.address);
    let proxy = pair(&primary, &two, "failback = { after_stable = \"700ms\" }");
    primary.refuse();
    primary.sever();
    eventually("the backup serves", || served_by(&proxy) == "two");
    let mut long = Client::connect(proxy.address());
    long.send("GET /long HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("it is on the backup", || two.heard().iter().any(|heard| heard.line.contains("/long")));
    eventually("the verdict", || !is_up(&proxy, primary.address));
    let before = clock::now();
    primary.listen_again();
    eventually("all goes back", || served_by(&proxy) == "one");
    let took = clock::now() - before;
    assert!(took >= Duration::from_millis(700), "{took:?}");
    (0..20).for_each(|_| assert_eq!(served_by(&proxy), "one"));
    open.send(()).unwrap();
    assert_eq!(long.receive().unwrap().body, "two");
}

#[test]
fn traffic_stays_where_an_operator_decides() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let primary = Chaos::before(one.address);
    let proxy = pair(&primary, &two, "failback = \"manual\"");
    assert_eq!(proxy.failback("a").unwrap_err(), "the traffic of `a` is at its primaries");
    assert_eq!(proxy.failback("z").unwrap_err(), "there is no pool `z`");
    primary.refuse();
    primary.sever();
    eventually("the backup serves", || served_by(&proxy) == "two");
    eventually("the verdict", || !is_up(&proxy, primary.address));
    assert_eq!(proxy.failback("a").unwrap_err(), "nothing better than where the traffic of `a` is can serve");
    primary.listen_again();
    eventually("the primary is up", || is_up(&proxy, primary.address));
    eventually("only an operator is waited for", || proxy.pool("a")["traffic"]["next"] == "`headgate failback a`");
    (0..20).for_each(|_| assert_eq!(served_by(&proxy), "two"));
    // A reload changes nothing of it.
    proxy.ask_reload().unwrap();
    (0..20).for_each(|_| assert_eq!(served_by(&proxy), "two"));
    proxy.failback("a").unwrap();
    eventually("all goes back", || served_by(&proxy) == "one");
    assert_eq!(proxy.pool("a")["traffic"]["why"], "an operator sent it back");
}

#[test]
fn a_held_backup_that_dies_gives_back_at_once() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let (primary, backup) = (Chaos::before(one.address), Chaos::before(two.address));
    let text =
        config(&[("a", &[primary.address], "failover = [\"b\"]\nfailback = \"manual\""), ("b", &[backup.address], "")]);
    let proxy = start(&text);
    primary.refuse();
    primary.sever();
    assert_eq!(served_by(&proxy), "two");
    eventually("the verdict", || !is_up(&proxy, primary.address));
    primary.listen_again();
    eventually("the primary is up", || is_up(&proxy, primary.address));
    assert_eq!(served_by(&proxy), "two");
    backup.refuse();
    backup.sever();
    (0..10).for_each(|_| assert_eq!(served_by(&proxy), "one", "within the request"));
}

#[test]
fn a_ramp_goes_back_in_shares() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let primary = Chaos::before(one.address);
    let proxy = pair(&primary, &two, "failback = { ramp = \"1500ms\" }");
    primary.refuse();
    primary.sever();
    eventually("the backup serves", || served_by(&proxy) == "two");
    eventually("the verdict", || !is_up(&proxy, primary.address));
    eventually("it is told", || active(&proxy) == "backups");
    primary.listen_again();
    let mut served = Vec::new();
    eventually("all goes back", || {
        served.push(served_by(&proxy));
        active(&proxy) == "primaries"
    });
    let first = served.iter().position(|name| name == "one").expect("the primary serves during the ramp");
    assert!(served[first..].iter().any(|name| name == "two"), "so does the backup: {served:?}");
    (0..20).for_each(|_| assert_eq!(served_by(&proxy), "one"));
}

/// F12: most of the pool fails its checks and would serve all the same, or would not.
#[test]
fn below_the_panic_threshold_all_are_used_and_it_is_told() {
    let ready = Arc::new(AtomicBool::new(false));
    let origins: Vec<_> = (0..5)
        .map(|at| {
            let ready = ready.clone();
            Origin::scripted(move |heard, _| {
                let is_sick = heard.line.contains("/readyz") && at < 3 && !ready.load(Ordering::SeqCst);
                if is_sick { b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_vec() } else { ok("app") }
            })
        })
        .collect();
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let check = "health.http = { path = \"/readyz\", interval = \"30ms\", timeout = \"2s\" }";
    let used = |proxy: &Proxy| {
        let before: Vec<_> = origins.iter().map(real).collect();
        (0..100).for_each(|_| assert_eq!(post(proxy).status, 200));
        origins.iter().zip(before).filter(|(origin, before)| real(origin) > *before).count()
    };
    for (threshold, panic, most) in [(0, false, 2), (40, false, 2), (50, true, 5)] {
        let pool = format!("panic_threshold = {threshold}");
        let text = config(&[("a", &addresses, &pool)]).replace(CHECK, check);
        let proxy = start(&text);
        eventually("the state says so", || proxy.pool("a")["traffic"]["panic"] == panic);
        assert_eq!(used(&proxy), most, "{threshold}");
        assert!(proxy.metrics().contains(&format!("headgate_pool_panic{{pool=\"a\"}} {}", u8::from(panic))));
        if panic {
            ready.store(true, Ordering::SeqCst);
            eventually("it is over", || proxy.pool("a")["traffic"]["panic"] == false);
        }
    }
}

fn real(origin: &Origin) -> usize {
    origin.heard().iter().filter(|heard| !heard.line.contains("/readyz")).count()
}

/// With a chain the threshold does not mean panic: the next pool has room.
#[test]
fn below_the_threshold_the_next_pool_takes_over_before_the_few_that_are_left() {
    let (one, other) = (Origin::named("one"), Origin::named("other"));
    let dead = [crate::kit::closed(), crate::kit::closed()];
    let b = Chaos::before(other.address);
    let proxy = start(&config(&[
        ("a", &[one.address, dead[0], dead[1]], "panic_threshold = 50\nfailover = [\"b\"]"),
        ("b", &[b.address], ""),
    ]));
    eventually("the next pool serves", || served_by(&proxy) == "other");
    (0..20).for_each(|_| assert_eq!(served_by(&proxy), "other"));
    assert_eq!((active(&proxy), proxy.pool("a")["traffic"]["panic"].clone()), ("b".to_owned(), false.into()));
    b.refuse();
    b.sever();
    (0..20).for_each(|_| assert_eq!(served_by(&proxy), "one", "few are better than none"));
}
