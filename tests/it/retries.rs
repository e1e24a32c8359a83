//! What is sent again, where to, and what never is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::kit::{Chaos, Client, Origin, Proxy, Way, answer_to, closed, exchange, ok};

const ROUND_ROBIN: &str = "balance = \"round-robin\"";

/// Hears requests whole and closes the connection without an answer.
fn mute() -> Origin {
    Origin::scripted(|_, _| Vec::new())
}

fn request(method: &str, body: &str) -> String {
    format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn what_was_never_sent_is_sent_elsewhere_whatever_its_method() {
    let origin = Origin::named("app");
    let large = "x".repeat(200_000);
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned();
    for request in [request("POST", ""), request("PATCH", "small"), request("POST", &large), chunked] {
        // Anew for each: where one endpoint has refused once, it is not asked first again.
        let proxy = Proxy::tuned(&[closed(), closed(), origin.address], "", ROUND_ROBIN, "");
        assert_eq!(exchange(proxy.address(), &request).unwrap().status, 200, "{:.60}", request);
    }
    let bodies: Vec<_> = origin.heard().iter().map(|heard| heard.body.len()).collect();
    assert_eq!(bodies, [0, 5, 200_000, 5]);
}

#[test]
fn an_idempotent_request_without_an_answer_is_sent_to_another() {
    for (method, body) in [("GET", ""), ("DELETE", ""), ("PUT", "held"), ("OPTIONS", "")] {
        let (broken, good) = (mute(), Origin::named("good"));
        let proxy = Proxy::tuned(&[broken.address, good.address], "", ROUND_ROBIN, "");
        for _ in 0..8 {
            assert_eq!(exchange(proxy.address(), request(method, body)).unwrap().body, "good", "{method}");
        }
        assert!(!broken.heard().is_empty(), "{method} was never tried on the broken one");
        assert_eq!(good.heard().len(), 8);
        assert!(good.heard().iter().chain(&broken.heard()).all(|heard| heard.body == body.as_bytes()));
        let log = proxy.logged();
        assert!(log.iter().all(|line| line["status"] == 200 && line["reason"].is_null()), "{log:?}");
    }
}

#[test]
fn a_post_that_was_sent_is_never_sent_again() {
    for method in ["POST", "PATCH"] {
        let (one, two) = (mute(), mute());
        let proxy = Proxy::to(&[one.address, two.address]);
        let answer = exchange(proxy.address(), request(method, "once")).unwrap();
        assert_eq!((answer.status, answer.reason()), (502, Some("endpoint_closed")));
        assert_eq!(one.heard().len() + two.heard().len(), 1, "{method}");
    }
}

#[test]
fn no_endpoint_is_asked_twice_while_another_is_left() {
    let origins = [mute(), mute(), mute(), mute()];
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    for balance in ["power-of-two", "round-robin", "least-requests", "random"] {
        let pool = format!("balance = \"{balance}\"");
        let proxy = Proxy::tuned(&addresses, "", &pool, "retry.attempts = 4");
        let before: Vec<_> = origins.iter().map(|origin| origin.heard().len()).collect();
        assert_eq!(answer_to(proxy.address(), "GET", "/").status, 502);
        for (origin, before) in origins.iter().zip(before) {
            assert_eq!(origin.heard().len() - before, 1, "{balance}");
        }
    }
}

#[test]
fn a_streamed_body_that_has_begun_is_not_sent_again() {
    // Takes the head and some of the body, then is gone.
    let broken = || {
        Origin::talking(|conversation, _| {
            conversation.head_only();
            conversation.read_exactly(1000);
            conversation.end_with_reset();
        })
    };
    let (one, two) = (broken(), broken());
    let proxy = Proxy::to(&[one.address, two.address]);
    let answer = exchange(proxy.address(), request("PUT", &"x".repeat(300_000))).unwrap();
    assert_eq!((answer.status, answer.reason()), (502, Some("endpoint_closed")));
    assert_eq!(one.heard().len() + two.heard().len(), 1);
}

#[test]
fn a_body_that_the_client_breaks_is_no_fault_of_the_endpoint() {
    let origin = Origin::named("app");
    let proxy =
        Proxy::start(&format!("[metrics]\naddress = \"127.0.0.1:0\"\n{}", Proxy::simple(&[origin.address], "")));
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for fault in
        ["zz\r\n", "5\nhello\r\n", "5\r\nhelloX\r\n", "-5\r\nhello\r\n", "fffffffffffffffff\r\n", "5 5\r\n", "\r\n"]
    {
        // The head goes ahead, so that the request is on its way to the endpoint when the fault comes.
        let mut client = Client::connect(proxy.address());
        client.send(chunked);
        client.send("3\r\nabc\r\n");
        client.send(fault);
        let answer = client.receive().unwrap_or_else(|| panic!("no answer to {fault:?}"));
        assert_eq!((answer.status, answer.reason()), (400, Some("bad_body")), "{fault:?}");
    }
    for begun in [format!("{chunked}5\r\nhel"), request("POST", &"x".repeat(100_000))[..90_000].to_owned()] {
        for orderly in [true, false] {
            let mut client = Client::connect(proxy.address());
            client.send(&begun);
            if orderly {
                client.finish();
                let answer = client.receive().unwrap();
                assert!([400, 499].contains(&answer.status), "{answer:?}");
            } else {
                client.reset();
            }
        }
    }
    assert_eq!(answer_to(proxy.address(), "POST", "/").status, 200);
    assert_eq!(origin.heard().len(), 1, "no whole request came but the last");
    crate::kit::eventually("eleven failures are counted", || {
        let counted = proxy.metrics();
        let failures = counted.lines().filter(|line| line.starts_with("headgate_http_failures_total"));
        failures.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).sum::<u32>() == 11
    });
    let metrics = proxy.metrics();
    let of_endpoint: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("headgate_endpoint_requests_total")).collect();
    assert!(
        matches!(of_endpoint[..], [line] if line.contains("code=\"200\"") && line.ends_with(" 1")),
        "{of_endpoint:?}"
    );
    assert!(!metrics.contains("blame=\"endpoint\""), "{metrics}");
    let log = proxy.logged();
    assert!(log.iter().all(|line| [200, 400, 499].contains(&line["status"].as_u64().unwrap())), "{log:?}");
}

/// F55 in short.
#[test]
fn an_endpoint_that_closes_behind_its_answer_costs_no_post() {
    let origin = Origin::closing(|_, _| ok("once"));
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    for number in 0..200 {
        client.send(request("POST", "body"));
        let answer = client.receive().unwrap();
        assert_eq!(answer.status, 200, "{number}: {answer:?}");
    }
    assert_eq!(origin.heard().len(), 200, "and none was sent twice");
}

/// Three of many idle connections that had gone stale used up a request's attempts.
#[test]
fn a_pile_of_stale_idle_connections_costs_no_request() {
    let gate = Arc::new(AtomicBool::new(false));
    let open = gate.clone();
    let origin = Origin::scripted(move |_, _| {
        crate::kit::eventually("all requests are under way", || open.load(Ordering::SeqCst));
        ok("app")
    });
    let relay = Chaos::before(origin.address);
    let proxy = Proxy::to(&[relay.address]);
    for (round, method) in ["GET", "POST", "PUT", "GET"].into_iter().enumerate() {
        gate.store(false, Ordering::SeqCst);
        let before = origin.heard().len();
        let mut clients: Vec<_> = (0..24).map(|_| Client::connect(proxy.address())).collect();
        for client in &mut clients {
            client.send(request("GET", ""));
        }
        origin.await_heard(before + 24);
        gate.store(true, Ordering::SeqCst);
        for client in &mut clients {
            assert_eq!(client.receive().unwrap().status, 200);
        }
        match round % 2 {
            0 => relay.hang_up(),
            _ => relay.sever(),
        }
        for client in &mut clients {
            client.send(request(method, ""));
            assert_eq!(client.receive().unwrap().status, 200, "{method}");
        }
    }
}

/// F02 in short: an endpoint dies under load, with requests on it.
#[test]
fn an_endpoint_that_dies_under_load_costs_no_get() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let relay = Chaos::before(one.address);
    let proxy = Proxy::to(&[relay.address, two.address]);
    let address = proxy.address();
    let load: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for number in 0..300 {
                    client.send(request("GET", ""));
                    let answer = client.receive().expect("an answer");
                    assert_eq!(answer.status, 200, "{number}: {answer:?}");
                }
            })
        })
        .collect();
    one.await_heard(100);
    relay.refuse();
    relay.sever();
    for client in load {
        client.join().unwrap();
    }
}

/// Whoever leaves in the middle of a response takes neither a place at the endpoint nor its connection with him.
#[test]
fn a_client_that_leaves_frees_the_endpoint() {
    let origin = Origin::talking(|conversation, _| {
        conversation.request();
        conversation.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        while conversation.send([b'x'; 1 << 16]) {}
    });
    let pool = "max_requests = 1\nqueue.size = 0";
    let proxy = Proxy::tuned(&[origin.address], "", pool, "");
    for orderly in [true, false] {
        let mut client = Client::connect(proxy.address());
        client.send(request("GET", ""));
        assert_eq!(client.receive_head().unwrap().status, 200);
        client.read_exactly(100_000);
        assert_eq!(answer_to(proxy.address(), "GET", "/").reason(), Some("pool_full"));
        if orderly {
            drop(client)
        } else {
            client.reset()
        }
        crate::kit::eventually("the endpoint's connection is closed", || origin.open() == 0);
    }
    let log = proxy.logged();
    let left: Vec<_> = log.iter().filter(|line| line["status"] == 200).map(|line| &line["reason"]).collect();
    assert_eq!(left, ["client_gone"; 2], "{log:?}");
}

#[test]
fn a_response_that_breaks_off_is_cut_for_the_client_and_never_stored() {
    let heads = ["content-length: 100000\r\n", "transfer-encoding: chunked\r\n", "connection: close\r\n"];
    for (at, head) in heads.into_iter().enumerate() {
        for way in [Way::Reset(500), Way::Close(500)] {
            if (at, way) == (2, Way::Close(500)) {
                // Where the end of the connection is the end of the body, nobody can tell.
                continue;
            }
            let origin = Origin::scripted(move |_, _| {
                let body = if head.starts_with('t') { "fffff\r\n" } else { "" };
                let body = format!("{body}{}", "x".repeat(50_000));
                format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n{head}\r\n{body}").into_bytes()
            });
            let relay = Chaos::with(origin.address, move |_| (Way::Pass, way));
            let proxy = Proxy::start(&Proxy::simple(&[relay.address], "cache = { zone = \"main\" }"));
            for _ in 0..2 {
                let mut client = Client::connect(proxy.address());
                client.send(request("GET", ""));
                // Where the fault comes with the head, not even that is passed on.
                let Some(head) = client.receive_head() else { continue };
                assert_eq!(head.status, 200);
                let framed = head.header("content-length").or(head.header("transfer-encoding"));
                assert!(framed.is_some(), "the client cannot tell that it is cut: {head:?}");
                let rest = String::from_utf8(client.rest()).unwrap();
                assert!(rest.len() < 600 && !rest.ends_with("0\r\n\r\n"), "{head:?} {rest}");
            }
            assert_eq!(origin.heard().len(), 2, "nothing of it was stored");
            let log = proxy.logged();
            assert!(log.iter().all(|line| line["reason"] == "response_incomplete"), "{log:?}");
        }
    }
}
