//! Upgrades: what becomes a tunnel, what stays HTTP, and how a tunnel ends.

use std::time::Duration;

use serde_json::Value;

use crate::kit::{Chaos, Client, Conversation, Origin, Proxy, Way, eventually, exchange, ok, timed};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// Takes the upgrade, then goes on as the story says; other requests get 200.
fn switching(then: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Origin {
    Origin::talking(move |conversation, _| {
        while let Some(request) = conversation.request() {
            if request.header("upgrade") == Some("websocket") {
                conversation.send(SWITCH);
                return then(conversation);
            }
            conversation.send(ok("plain"));
        }
    })
}

/// Gives back five bytes at a time.
fn echo(conversation: &mut Conversation) {
    while let Some(bytes) = conversation.read_if_any(5) {
        conversation.send(bytes);
    }
}

fn tunnel(proxy: &Proxy) -> Client {
    let mut client = Client::connect(proxy.address());
    client.send(UPGRADE);
    assert_eq!(client.receive_head().unwrap().status, 101);
    client
}

/// The line of the tunnel, which is written when it ends.
fn record(proxy: Proxy) -> Value {
    eventually("the tunnel's record", || proxy.log_text().contains("\"status\":101"));
    proxy.logged().into_iter().find(|line| line["status"] == 101).unwrap()
}

#[test]
fn bytes_sent_early_by_either_side_arrive() {
    let origin = Origin::talking(|conversation, _| {
        conversation.request();
        conversation.send(format!("{SWITCH}from the endpoint"));
        assert_eq!(conversation.read_exactly(15), b"from the client");
        echo(conversation);
    });
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    client.send(format!("{UPGRADE}from the client"));
    assert_eq!(client.receive_head().unwrap().status, 101);
    assert_eq!(client.read_exactly(17), b"from the endpoint");
    for _ in 0..100 {
        client.send("hello");
        assert_eq!(client.read_exactly(5), b"hello");
    }
    client.finish();
    assert!(client.rest().is_empty());
    let line = record(proxy);
    assert_eq!((&line["bytes_in"], &line["bytes_out"], &line["reason"]), (&515.into(), &517.into(), &Value::Null));
    assert_eq!((&line["route"], &line["pool"]), (&"all".into(), &"app".into()));
}

#[test]
fn either_side_may_end_its_direction_first() {
    let origin = switching(|conversation| {
        assert_eq!(conversation.drain(), 5, "the client's end is seen");
        conversation.send("goodbye");
    });
    let proxy = Proxy::to(&[origin.address]);
    let mut client = tunnel(&proxy);
    client.send("hello");
    client.finish();
    assert_eq!(client.rest(), b"goodbye");

    let origin = switching(|conversation| {
        conversation.send("goodbye");
        conversation.stream().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(conversation.drain(), 5);
    });
    let proxy = Proxy::to(&[origin.address]);
    let mut client = tunnel(&proxy);
    assert_eq!(client.rest(), b"goodbye");
    client.send("hello");
    client.finish();
    eventually("the endpoint has got it all", || origin.open() == 0);
    let line = record(proxy);
    assert_eq!((&line["bytes_in"], &line["bytes_out"], &line["reason"]), (&5.into(), &7.into(), &Value::Null));
}

#[test]
fn an_upgrade_that_the_endpoint_does_not_take_stays_http() {
    for status in ["200 OK", "426 Upgrade Required"] {
        let origin = Origin::scripted(move |heard, _| match heard.header("upgrade") {
            Some(_) => {
                format!("HTTP/1.1 {status}\r\nupgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nno")
                    .into_bytes()
            }
            None => ok("plain"),
        });
        let proxy = Proxy::to(&[origin.address]);
        let mut client = Client::connect(proxy.address());
        // The second request is there before the endpoint has said no.
        client.send(format!("{UPGRADE}GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
        let answer = client.receive().unwrap();
        assert_eq!((&status[..3], &*answer.body), (&*answer.status.to_string(), "no"));
        assert_eq!(client.receive().expect("the connection goes on").body, "plain");
        assert_eq!(origin.heard().len(), 2);
    }
}

#[test]
fn another_protocol_than_was_asked_for_is_no_tunnel() {
    for fields in ["upgrade: h2c\r\nconnection: upgrade\r\n", "connection: upgrade\r\n", ""] {
        let origin = Origin::scripted(move |_, _| {
            format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nsmuggled").into_bytes()
        });
        let proxy = Proxy::to(&[origin.address]);
        let answer = exchange(proxy.address(), UPGRADE).unwrap();
        assert_eq!((answer.status, answer.reason()), (502, Some("bad_response")), "{fields:?}");
    }
}

#[test]
fn what_is_no_upgrade_reaches_the_endpoint_as_a_plain_request() {
    let origin = switching(echo);
    let proxy = Proxy::to(&[origin.address]);
    let websocket = "connection: upgrade\r\nupgrade: websocket\r\n";
    for request in [
        format!("GET / HTTP/1.0\r\nhost: a\r\n{websocket}\r\n"),
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket, h2c\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\nhost: a\r\n{websocket}content-length: 2\r\n\r\nhi"),
        format!("POST / HTTP/1.1\r\nhost: a\r\n{websocket}transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ] {
        assert_eq!(exchange(proxy.address(), &request).unwrap().status, 200, "{request}");
    }
    for heard in origin.heard() {
        for field in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(heard.header(field), None, "{heard:?}");
        }
    }
}

#[test]
fn a_silent_tunnel_ends_and_one_that_carries_does_not() {
    let origin = switching(echo);
    let proxy = Proxy::tuned(&[origin.address], "", "", "timeouts.tunnel = \"1s\"");
    // Each piece is late, and together they take longer than a tunnel may be silent.
    let relay = Chaos::with(proxy.address(), |_| (Way::Delay(Duration::from_millis(150)), Way::Pass));
    let mut client = Client::connect(relay.address);
    client.send(UPGRADE);
    assert_eq!(client.receive_head().unwrap().status, 101);
    for _ in 0..9 {
        client.send("hello");
        assert_eq!(client.read_exactly(5), b"hello");
    }
    let (rest, took) = timed(|| {
        client.send("hello");
        client.rest()
    });
    assert_eq!(rest, b"hello");
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
    eventually("the endpoint's side is closed", || origin.open() == 0);
    let line = record(proxy);
    assert_eq!((&line["reason"], &line["bytes_out"]), (&"tunnel_idle".into(), &50.into()));
}

#[test]
fn a_tunnel_that_is_lost_says_by_whom() {
    let origin = switching(|conversation| {
        conversation.read_exactly(5);
        conversation.end_with_reset();
    });
    let proxy = Proxy::to(&[origin.address]);
    let mut client = tunnel(&proxy);
    client.send("hello");
    assert!(client.rest().is_empty());
    assert_eq!(record(proxy)["reason"], "response_incomplete");

    let origin = switching(echo);
    let proxy = Proxy::to(&[origin.address]);
    let client = tunnel(&proxy);
    client.reset();
    eventually("the endpoint's side is closed", || origin.open() == 0);
    assert_eq!(record(proxy)["reason"], "client_gone");
}

#[test]
fn a_tunnel_outlives_reloads_and_ends_with_the_process() {
    let (origin, other) = (switching(echo), Origin::named("other"));
    let config =
        |origin: &Origin| format!("[process]\ndrain.timeout = \"300ms\"\n{}", Proxy::simple(&[origin.address], ""));
    let proxy = Proxy::start(&config(&origin));
    let mut client = tunnel(&proxy);
    for config in [config(&other), config(&other).replace("[routes.all]", "[routes.every]")] {
        proxy.reload(&config).unwrap();
        client.send("hello");
        assert_eq!(client.read_exactly(5), b"hello");
    }
    assert_eq!(exchange(proxy.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap().body, "other");
    let (_, log) = proxy.stop();
    let line = log.lines().find(|line| line.contains("\"status\":101")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("\"reason\":\"draining\"") && line.contains("\"route\":\"all\""), "{line}");
    assert!(client.rest().is_empty());
}
