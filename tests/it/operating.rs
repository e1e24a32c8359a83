//! What an operator does: reload, break the config, stop, read the log.

use headgate::app::ExitKind;

use crate::kit::{Client, Origin, Proxy, answer_to};

#[test]
fn a_reload_changes_routes_and_keeps_connections() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::to(&[one.address]);
    let mut client = Client::connect(proxy.address());
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.receive().expect("the connection stays").body
    };
    assert_eq!(ask(), "one");
    proxy.reload(&Proxy::simple(&[two.address], "")).unwrap();
    assert_eq!(ask(), "two");
}

#[test]
fn a_broken_config_is_refused_and_the_old_one_serves_on() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let faults = proxy.reload(&Proxy::simple(&[origin.address], "pol = \"app\"")).unwrap_err().join("\n");
    assert!(faults.contains("pol"), "{faults}");
    assert_eq!(answer_to(proxy.address(), "GET", "/").status, 200);
}

#[test]
fn stopping_lets_what_runs_finish_and_the_log_tells_all() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    for number in 0..5 {
        assert_eq!(answer_to(proxy.address(), "GET", &format!("/{number}")).status, 200);
    }
    assert_eq!(answer_to(proxy.address(), "GET", "/../x").status, 400);
    let (end, log) = proxy.stop();
    assert_eq!(end, ExitKind::Clean);
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6, "{log}");
    // Each worker hands its lines over on its own: their order is not told here.
    let (good, refused): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["status"] == 200);
    assert!(good.len() == 5 && good.iter().all(|line| line["route"] == "all" && line["pool"] == "app"), "{log}");
    assert_eq!((&refused[0]["status"], &refused[0]["reason"]), (&400.into(), &"bad_path".into()));
}

#[test]
fn a_full_listener_takes_no_more_connections_and_recovers() {
    let origin = Origin::named("app");
    let config = Proxy::simple(&[origin.address], "").replace("[caches.main]", "limits.connections = 1\n[caches.main]");
    let proxy = Proxy::start(&config);
    let mut first = Client::connect(proxy.address());
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(first.receive().is_some());
    let mut second = Client::connect(proxy.address());
    second.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(second.receive().is_none(), "one connection is the limit");
    first.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    first.rest();
    let again = || {
        let mut client = Client::connect(proxy.address());
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.receive().is_some()
    };
    assert!((0..1000).any(|_| again()), "the place is free again");
}
