//! Idle connections that their endpoint closes: found, counted, learned from, and never the client's problem.

use std::net::SocketAddr;
use std::time::Duration;

use crate::kit::{Chaos, Client, Origin, Proxy, await_later, eventually, ok};

fn proxy(endpoint: SocketAddr, pool: &str) -> Proxy {
    Proxy::start(&format!("[metrics]\naddress = \"127.0.0.1:0\"\n{}", Proxy::text(&[endpoint], "", pool, "")))
}

fn ask(client: &mut Client, method: &str) {
    client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"));
    let answer = client.receive().expect("an answer");
    assert_eq!(answer.status, 200, "{method}: {answer:?}");
}

fn found_stale(proxy: &Proxy, endpoint: SocketAddr) -> u64 {
    let series = format!("headgate_endpoint_stale_connections_total{{pool=\"app\",endpoint=\"{endpoint}\"}}");
    proxy.metrics().lines().find_map(|line| line.strip_prefix(&series)?.trim().parse().ok()).unwrap_or(0)
}

/// F55 in short: requests come as often as the endpoint closes what is idle.
#[test]
fn an_idle_timeout_is_learned_and_undercut_so_that_no_request_meets_it() {
    const TIMEOUT: Duration = Duration::from_millis(600);
    let origin = Origin::talking(|conversation, _| {
        conversation.stream().set_read_timeout(Some(TIMEOUT)).unwrap();
        while conversation.request().is_some() {
            conversation.send(ok("app"));
        }
    });
    let proxy = proxy(origin.address, "");
    let mut client = Client::connect(proxy.address());
    let mut asked = 0;
    // No GET fails while it is learned. Once it is, a connection is let go that the endpoint would still serve.
    eventually("the timeout is learned", || {
        ask(&mut client, "GET");
        await_later(TIMEOUT * 21 / 20);
        ask(&mut client, "GET");
        await_later(TIMEOUT * 3 / 4);
        let connections = origin.connections();
        ask(&mut client, "GET");
        asked += 3;
        origin.connections() > connections
    });
    eventually("what was found closed is told", || found_stale(&proxy, origin.address) > 0);
    let connections = origin.connections();
    for method in ["POST", "GET", "POST", "PATCH"] {
        await_later(TIMEOUT);
        ask(&mut client, method);
    }
    assert_eq!(origin.heard().len(), asked + 4, "and none came twice");
    assert_eq!(origin.connections() - connections, 4, "a new connection for each");
}

#[test]
fn a_keep_alive_field_is_undercut() {
    let origin = Origin::scripted(|_, _| {
        b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=1, max=99\r\ncontent-length: 3\r\n\r\napp".to_vec()
    });
    let proxy = proxy(origin.address, "");
    let mut client = Client::connect(proxy.address());
    for connections in 1..=2 {
        ask(&mut client, "GET");
        ask(&mut client, "GET");
        assert_eq!(origin.connections(), connections);
        await_later(Duration::from_millis(760));
    }
}

#[test]
fn what_the_config_says_is_the_most_whatever_the_endpoint_says() {
    let origin =
        Origin::scripted(|_, _| b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=60\r\ncontent-length: 3\r\n\r\napp".to_vec());
    let proxy = proxy(origin.address, "timeouts.keep_alive = \"300ms\"");
    let mut client = Client::connect(proxy.address());
    ask(&mut client, "GET");
    await_later(Duration::from_millis(310));
    ask(&mut client, "GET");
    assert_eq!(origin.connections(), 2);
}

/// What not looking has saved is not paid by the client, nor by the budget.
#[test]
fn a_closed_idle_connection_costs_no_request_where_no_retry_is_allowed() {
    let origin = Origin::named("app");
    let relay = Chaos::before(origin.address);
    for (pool, route) in
        [("retry_budget = { percent = 0, min_per_second = 0 }", ""), ("", "retry.attempts = 1"), ("", "retry.on = []")]
    {
        let proxy = Proxy::tuned(&[relay.address], "", pool, route);
        let mut client = Client::connect(proxy.address());
        for round in 0..20 {
            let method = ["GET", "POST", "PUT"][round % 3];
            ask(&mut client, method);
            if round % 2 == 0 {
                relay.hang_up()
            } else {
                relay.sever()
            }
            ask(&mut client, method);
        }
    }
}

/// Sockets of this machine whose other side has ended its direction, and ours has not, by the other side's port.
fn in_close_wait(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let remote = format!(":{port:04X}");
    rows.filter(|fields| fields[2].ends_with(&remote) && fields[3] == "08").count()
}

/// F56 in short.
#[test]
fn endpoints_that_close_or_reset_behind_each_answer_cost_no_request_and_leave_no_pile() {
    let said = Origin::talking(|conversation, _| {
        conversation.request();
        conversation.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\napp");
    });
    let closing = Origin::talking(|conversation, _| {
        conversation.request();
        conversation.send(ok("app"));
    });
    let resetting = Origin::talking(|conversation, _| {
        conversation.request();
        conversation.send(ok("app"));
        conversation.end_with_reset();
    });
    // Who closes with a request unread in its kernel resets, and whether a reset that crosses a POST came before or
    // behind it nobody can tell: that one is not sent again.
    for (origin, methods) in [(said, &["GET", "POST"][..]), (closing, &["GET", "PUT"]), (resetting, &["GET", "PUT"])] {
        let proxy = proxy(origin.address, "");
        let address = proxy.address();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = Client::connect(address);
                    for number in 0..100 {
                        ask(&mut client, methods[number % methods.len()]);
                    }
                });
            }
        });
        eventually("no pile of closed connections", || in_close_wait(origin.address.port()) <= 10);
        eventually("the endpoint's connections are gone", || origin.open() == 0);
    }
}
