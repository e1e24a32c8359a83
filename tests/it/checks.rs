//! What endpoints are asked, when, and what becomes of the answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headgate::base::address::Address;
use rustls::ServerConfig;
use serde_json::Value;

use crate::kit::{
    Ca, Chaos, Client, NOT_SERVING, Origin, Proxy, RpcHealth, SERVING, answer_to, eventually, exchange, ok, tls_door,
};

/// Often, and patient enough for a loaded machine.
const OFTEN: &str = "interval = \"30ms\", timeout = \"2s\"";

fn config(endpoints: &[SocketAddr], pool: &str) -> String {
    format!("[admin]\naddress = \"127.0.0.1:0\"\n{}", Proxy::text(endpoints, "", pool, ""))
}

/// The one endpoint of the pool, with its history.
fn endpoint(proxy: &Proxy) -> Value {
    let Address::Tcp(admin) = proxy.admin() else { panic!("TCP") };
    let mut client = Client::connect(admin);
    client.send("GET /v1/pools/app HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let pool: Value = serde_json::from_str(&client.receive().expect("the pool").body).unwrap();
    pool["endpoints"][0].clone()
}

fn await_verdict(proxy: &Proxy, verdict: &str, detail: &str) {
    eventually(&format!("{verdict} by `{detail}`"), || {
        let endpoint = endpoint(proxy);
        endpoint["verdict"] == verdict && endpoint["evidence"]["detail"].as_str().is_some_and(|it| it.contains(detail))
    });
}

/// What is said, as a switch that an origin's script reads.
fn switch() -> (Arc<AtomicBool>, impl Fn() -> bool + Send + Sync + Clone + 'static) {
    let on = Arc::new(AtomicBool::new(true));
    let read = on.clone();
    (on, move || read.load(Ordering::SeqCst))
}

/// F47, first half: the check decides, whatever the traffic port would answer.
#[test]
fn an_endpoint_whose_health_port_says_no_leaves_though_it_serves() {
    let app = Origin::named("app");
    let (ready, is_ready) = switch();
    let health = Origin::scripted(move |_, _| ok(if is_ready() { "state: ready" } else { "state: starting" }));
    let check = format!(
        "health.http = {{ path = \"/state?deep=1\", host = \"app.internal\", headers.x-probe = \"1\", port = {}, \
         expect_status = [\"2xx\"], expect_body = \"ready\", {OFTEN} }}",
        health.address.port()
    );
    let proxy = Proxy::start(&config(&[app.address], &check));
    await_verdict(&proxy, "up", "200 OK, body with `ready`");
    assert_eq!(answer_to(proxy.address(), "GET", "/").body, "app");
    let asked = health.heard();
    assert_eq!(asked[0].line, "GET /state?deep=1 HTTP/1.1");
    assert_eq!((asked[0].header("host"), asked[0].header("x-probe")), (Some("app.internal"), Some("1")));
    assert!(app.heard().iter().all(|heard| !heard.line.contains("/state")), "the traffic port is not asked");

    ready.store(false, Ordering::SeqCst);
    await_verdict(&proxy, "down", "200 OK, body without `ready`");
    let answer = answer_to(proxy.address(), "GET", "/");
    assert_eq!((answer.status, answer.reason()), (503, Some("all_down")));
    assert_eq!(answer_to(app.address, "GET", "/").body, "app", "it would have served");

    ready.store(true, Ordering::SeqCst);
    await_verdict(&proxy, "up", "body with `ready`");
    assert_eq!(answer_to(proxy.address(), "GET", "/").body, "app");
}

#[test]
fn a_tcp_check_talks() {
    let app = Origin::named("app");
    let (loaded, is_loaded) = switch();
    let database = Origin::talking(move |conversation, _| {
        if conversation.read_if_any(6).as_deref() == Some(b"PING\r\n") {
            conversation.send(if is_loaded() { "+PONG\r\n" } else { "-LOADING\r\n" });
        }
    });
    let check = format!(
        "health.tcp = {{ send = \"PING\\r\\n\", expect = \"+PONG\", port = {}, {OFTEN} }}",
        database.address.port()
    );
    let proxy = Proxy::start(&config(&[app.address], &check));
    await_verdict(&proxy, "up", "said `+PONG`");
    loaded.store(false, Ordering::SeqCst);
    await_verdict(&proxy, "down", "closed without `+PONG`");
    loaded.store(true, Ordering::SeqCst);
    await_verdict(&proxy, "up", "said `+PONG`");
    assert_eq!(answer_to(proxy.address(), "GET", "/").body, "app");
}

#[test]
fn a_grpc_check_follows_the_serving_status() {
    let app = Origin::named("app");
    let rpc = RpcHealth::start(None);
    let check = format!(
        "health.grpc = {{ service = \"notes.v1.Notes\", host = \"rpc.internal\", port = {}, {OFTEN} }}",
        rpc.address.port()
    );
    let proxy = Proxy::start(&config(&[app.address], &check));
    await_verdict(&proxy, "up", "SERVING");
    let (url, message) = rpc.asked()[0].clone();
    assert_eq!(url, "http://rpc.internal/grpc.health.v1.Health/Check");
    assert_eq!(message, &b"\0\0\0\0\x10\x0a\x0enotes.v1.Notes"[..]);
    rpc.say(NOT_SERVING);
    await_verdict(&proxy, "down", "NOT_SERVING");
    assert_eq!(answer_to(proxy.address(), "GET", "/").reason(), Some("all_down"));
    rpc.say(SERVING);
    await_verdict(&proxy, "up", "SERVING");
    assert_eq!(answer_to(proxy.address(), "GET", "/").body, "app");
}

/// The same pool speaks HTTP/1.1 to its endpoints and HTTP/2 to their health service, both over its TLS.
#[test]
fn a_grpc_check_over_tls_needs_http2_by_alpn() {
    let ca = Ca::new();
    let pair = ca.issue(&["127.0.0.1"]);
    let (app, server) = (Origin::named("app"), pair.server_config());
    let door = tls_door(app.address, server.clone());
    let offering = |protocols: &[&[u8]]| {
        let mut config = ServerConfig::clone(&server);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        RpcHealth::start(Some(config))
    };
    for (protocols, verdict, detail) in
        [(&[&b"h2"[..]][..], "up", "SERVING"), (&[], "down", "TLS without HTTP/2"), (&[b"http/1.1"], "down", "rotocol")]
    {
        let rpc = offering(protocols);
        let check =
            format!("tls.ca_file = \"@FOLDER/ca.pem\"\nhealth.grpc = {{ port = {}, {OFTEN} }}", rpc.address.port());
        let proxy = Proxy::prepared(&config(&[door], &check), |folder| {
            std::fs::write(folder.join("ca.pem"), &ca.pem).unwrap();
        });
        await_verdict(&proxy, verdict, detail);
        let expected = if verdict == "up" { 200 } else { 503 };
        assert_eq!(answer_to(proxy.address(), "GET", "/").status, expected);
        assert!(rpc.asked().iter().all(|(url, _)| url.starts_with("https://127.0.0.1:")), "{:?}", rpc.asked());
    }
}

#[test]
fn a_reload_keeps_the_verdict_where_the_question_is_the_same() {
    let app = Origin::scripted(|heard, _| match heard.line.contains("/other") {
        true => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec(),
        false => ok("app"),
    });
    let asking = |path: &str, rhythm: &str| {
        config(&[app.address], &format!("health.http = {{ path = \"{path}\", fall = 100, {rhythm} }}"))
    };
    // Not so often that what is kept of the first probes is gone before it is compared.
    let proxy = Proxy::start(&asking("/readyz", "interval = \"300ms\", timeout = \"2s\""));
    await_verdict(&proxy, "up", "200 OK");
    let before = endpoint(&proxy);
    // So seldom that what is known can only be what was kept.
    proxy.reload(&asking("/readyz", "interval = \"1h\", timeout = \"3s\", rise = 5")).unwrap();
    let after = endpoint(&proxy);
    assert_eq!((&after["verdict"], &after["since_unix_ms"]), (&before["verdict"], &before["since_unix_ms"]));
    assert_eq!(after["history"][0], before["history"][0]);
    // And often again, though the next probe was an hour away.
    let probed = app.heard().len();
    proxy.reload(&asking("/readyz", OFTEN)).unwrap();
    eventually("it is probed in the new rhythm", || app.heard().len() > probed + 3);
    // Another question: its first answer decides, however many failures an endpoint that is up may have.
    proxy.reload(&asking("/other", OFTEN)).unwrap();
    await_verdict(&proxy, "down", "503 Service Unavailable, not 200-399");
    let anew = endpoint(&proxy);
    assert!(anew["history"].as_array().unwrap().iter().all(|probe| probe["healthy"] == false), "{anew}");
}

/// A failed request asks for a probe at once, and doubt is settled at its own pace: the next round was an hour away.
#[test]
fn a_suspected_endpoint_is_probed_at_once_and_fast() {
    let app = Origin::named("app");
    let relay = Chaos::before(app.address);
    let check = "health.tcp = { interval = \"1h\", interval_in_doubt = \"20ms\", interval_down = \"300ms\", \
                 timeout = \"2s\", fall = 5, rise = 3 }";
    let proxy = Proxy::start(&config(&[relay.address], check));
    await_verdict(&proxy, "up", "connected");
    relay.refuse();
    relay.sever();
    assert_eq!(
        exchange(proxy.address(), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").unwrap().status,
        502
    );
    await_verdict(&proxy, "down", "refused");
    let history = endpoint(&proxy)["history"].clone();
    let sources: Vec<_> = history.as_array().unwrap().iter().map(|entry| entry["source"].as_str().unwrap()).collect();
    let doubt = sources.iter().position(|source| *source == "traffic").expect("a request met it first");
    assert!(sources[doubt..].iter().filter(|source| **source == "probe").count() >= 5, "{sources:?}");
    relay.listen_again();
    await_verdict(&proxy, "up", "connected");
}
