//! Requests on their way: kept-alive, retried, split, tunnelled, cached.

use crate::kit::{Client, Heard, Origin, Proxy, answer_to, closed, exchange, ok};

#[test]
fn one_connection_carries_many_requests_on_both_sides() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    for number in 0..50 {
        client.send(format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert_eq!(client.receive().unwrap().body, "app");
    }
    assert_eq!((origin.heard().len(), origin.connections()), (50, 1));
}

#[test]
fn a_refused_connection_costs_no_request_not_even_a_post() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[closed(), origin.address]);
    for _ in 0..20 {
        assert_eq!(answer_to(proxy.address(), "POST", "/").status, 200);
    }
    assert_eq!(origin.heard().len(), 20);
}

#[test]
fn a_lost_answer_is_fetched_elsewhere_for_get_and_never_for_post() {
    let broken = Origin::scripted(|_, _| Vec::new());
    let good = Origin::named("good");
    let config = Proxy::simple(&[broken.address, good.address], "")
        .replace("[pools.app]", "[pools.app]\nbalance = \"round-robin\"\nejection.enabled = false");
    let proxy = Proxy::start(&config);
    for _ in 0..10 {
        assert_eq!(answer_to(proxy.address(), "GET", "/").status, 200);
    }
    let before = broken.heard().len();
    // Each worker has a turn of its own: that both endpoints come up is sure, in which order is not.
    let lost = (0..8).filter(|_| answer_to(proxy.address(), "POST", "/").status == 502).count();
    assert!(lost > 0, "the broken endpoint was never used");
    assert_eq!(broken.heard().len() - before, lost, "each lost POST was sent exactly once");
}

#[test]
fn a_connection_closed_while_idle_is_never_the_clients_problem() {
    // Answers once per connection, then closes it without a word.
    let origin = Origin::closing(|_, _| ok("once"));
    let proxy = Proxy::to(&[origin.address]);
    for _ in 0..20 {
        assert_eq!(answer_to(proxy.address(), "POST", "/").status, 200);
    }
}

#[test]
fn no_endpoint_left_is_503_at_once_with_retry_after() {
    let proxy = Proxy::to(&[closed()]);
    let answer = answer_to(proxy.address(), "GET", "/");
    assert!(matches!(answer.status, 502 | 503), "{answer:?}");
    assert!(answer.header("proxy-status").unwrap().starts_with("headgate; error="), "{answer:?}");
}

#[test]
fn reads_and_writes_go_to_their_own_pools() {
    let (read, write) = (Origin::named("read"), Origin::named("write"));
    let proxy = Proxy::start(&format!(
        r#"
        [listeners.http]
        address = "127.0.0.1:0"
        [pools.reads]
        endpoints = ["{}"]
        [pools.writes]
        endpoints = ["{}"]
        [routes.api]
        match.path = "/api/*"
        split.read = "reads"
        split.write = "writes"
        split.overrides = [{{ method = "POST", path = "/api/search", side = "read" }}]
        "#,
        read.address, write.address
    ));
    for (method, path, side) in [
        ("GET", "/api/notes", "read"),
        ("OPTIONS", "/api", "read"),
        ("POST", "/api/notes", "write"),
        ("PUT", "/api/notes/1", "write"),
        ("DELETE", "/api/notes/1", "write"),
        ("POST", "/api/search", "read"),
    ] {
        assert_eq!(answer_to(proxy.address(), method, path).body, side, "{method} {path}");
    }
    assert_eq!(answer_to(proxy.address(), "GET", "/other").reason(), Some("no_route"));
}

#[test]
fn a_websocket_is_tunnelled_only_after_the_endpoints_101() {
    let switch = |heard: &Heard, _| match heard.header("upgrade") {
        Some("websocket") => {
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello".to_vec()
        }
        _ => ok("plain"),
    };
    let origin = Origin::scripted(switch);
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    client.send("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    let answer = client.receive().unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    assert_eq!(client.read_exactly(5), b"hello");

    let body =
        "POST /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n\r\nx";
    assert_eq!(exchange(proxy.address(), body).unwrap().status, 200, "with a body it is an ordinary request");
}

#[test]
fn a_cached_answer_is_served_without_the_endpoint() {
    let origin = Origin::scripted(|_, number| {
        format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 1\r\n\r\n{number}").into_bytes()
    });
    let proxy = Proxy::start(&Proxy::simple(&[origin.address], "cache = { zone = \"main\" }"));
    let first = answer_to(proxy.address(), "GET", "/style.css");
    let second = answer_to(proxy.address(), "GET", "/style.css");
    assert_eq!((&*first.body, &*second.body), ("0", "0"));
    assert!(first.header("cache-status").unwrap().contains("fwd=uri-miss"), "{first:?}");
    assert!(second.header("cache-status").unwrap().contains("hit"), "{second:?}");
    let post = answer_to(proxy.address(), "POST", "/style.css");
    assert_eq!(post.body, "1", "a write is never answered from the cache");
    assert_eq!(answer_to(proxy.address(), "GET", "/style.css").body, "2", "and what was stored is no longer true");
    assert_eq!(origin.heard().len(), 3);
}

#[test]
fn requests_with_credentials_a_range_or_an_unsafe_method_never_see_what_is_stored() {
    let origin = Origin::scripted(|_, number| {
        format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 1\r\n\r\n{number}").into_bytes()
    });
    let proxy = Proxy::start(&Proxy::simple(&[origin.address], "cache = { zone = \"main\" }"));
    answer_to(proxy.address(), "GET", "/");
    for field in ["authorization: Basic x", "range: bytes=0-1", "cache-control: no-store"] {
        let request = format!("GET / HTTP/1.1\r\nhost: notes.test\r\n{field}\r\n\r\n");
        let answer = exchange(proxy.address(), request).unwrap();
        assert!(answer.body != "0" && answer.header("cache-status").unwrap().contains("fwd="), "{field}: {answer:?}");
    }
    assert_eq!(answer_to(proxy.address(), "GET", "/").body, "0", "it is still there");
    let mut client = Client::connect(proxy.address());
    client.send("HEAD / HTTP/1.1\r\nhost: notes.test\r\n\r\n");
    assert!(client.receive_head().unwrap().header("cache-status").unwrap().contains("; hit"), "HEAD does");
    let post = answer_to(proxy.address(), "POST", "/");
    assert_eq!(post.body, "4");
}

#[test]
fn a_large_cached_body_is_whole_for_a_slow_reader_though_it_is_replaced() {
    let origin = Origin::scripted(|_, number| {
        let body = char::from(b'a' + number as u8).to_string().repeat(300_000);
        format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 300000\r\n\r\n{body}").into_bytes()
    });
    let proxy = Proxy::start(&Proxy::simple(&[origin.address], "cache = { zone = \"main\" }"));
    answer_to(proxy.address(), "GET", "/large");
    let mut readers: Vec<Client> = (0..4).map(|_| Client::slow(proxy.address())).collect();
    readers.iter_mut().for_each(|reader| reader.send("GET /large HTTP/1.1\r\nhost: notes.test\r\n\r\n".repeat(2)));
    // Each has begun to get the first of two.
    readers.iter_mut().for_each(|reader| assert_eq!(reader.read_exactly(15), b"HTTP/1.1 200 OK"));
    for number in 0..6 {
        answer_to(proxy.address(), "POST", "/large");
        let letter = char::from(b'c' + 2 * number);
        assert!(answer_to(proxy.address(), "GET", "/large").body.starts_with(letter), "it is replaced");
    }
    for reader in &mut readers {
        let rest = reader.read_exactly(300_000);
        let text = String::from_utf8_lossy(&rest);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("; hit"), "{head}");
        assert!(body.bytes().all(|byte| byte == b'a'), "the body that its head came with");
    }
}

#[test]
fn a_truncated_body_is_cut_for_the_client_too_and_never_stored() {
    let origin = Origin::closing(|_, number| match number {
        0 => b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 100\r\n\r\nshort".to_vec(),
        _ => ok("whole"),
    });
    let proxy = Proxy::start(&Proxy::simple(&[origin.address], "cache = { zone = \"main\" }"));
    let mut client = Client::connect(proxy.address());
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(client.receive().is_none(), "100 bytes were promised and 5 came: that is no whole answer");
    assert_eq!(answer_to(proxy.address(), "GET", "/").body, "whole");
}

#[test]
fn head_and_no_content_have_no_body() {
    let origin = Origin::scripted(|heard, _| match heard.line.starts_with("HEAD") {
        true => b"HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n".to_vec(),
        false => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
    });
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    client.send("DELETE / HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = client.receive().unwrap();
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let text = String::from_utf8(client.rest()).unwrap();
    assert!(text.contains("content-length: 42") && text.ends_with("\r\n\r\n"), "{text}");
}
