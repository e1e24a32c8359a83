//! Which failures and which responses are followed by another attempt, and what is sent in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;

use crate::kit::{
    Client, Content, Conversation, Heard, Origin, Protocol, Proxy, Talker, answer_to, closed, exchange, ok, timed,
};

const METRICS: &str = "[metrics]\naddress = \"127.0.0.1:0\"\n";
const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

fn proxy(endpoints: &[std::net::SocketAddr], pool: &str, route: &str) -> Proxy {
    let pool = format!("balance = \"round-robin\"\n{pool}");
    Proxy::start(&format!("{METRICS}{}", Proxy::text(endpoints, "", &pool, route)))
}

/// The first connection goes wrong, the others do not.
fn once_wrong(wrong: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Origin {
    Origin::talking(move |conversation, number| {
        if number == 0 {
            return wrong(conversation);
        }
        while conversation.request().is_some() {
            conversation.send(ok("good"));
        }
    })
}

fn get() -> Request<Content> {
    Request::get("/").body(Content::default()).unwrap()
}

fn post(body: &'static str, key: Option<&str>) -> Request<Content> {
    let request = key.into_iter().fold(Request::post("/"), |request, key| request.header("idempotency-key", key));
    request.body(Content::whole(body)).unwrap()
}

/// The value of a counter's one series with these labels; 0 where there is none.
fn counted(proxy: &Proxy, series: &str) -> u64 {
    let metrics = proxy.metrics();
    metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn each_condition_is_followed_by_another_attempt_where_it_is_named_and_only_there() {
    let conditions = ["connect-failure", "reset-before-response", "timeout"];
    let reasons = ["connect_refused", "endpoint_closed", "response_timeout"];
    for protocol in BOTH {
        for (at, reason) in reasons.into_iter().enumerate() {
            for named in [true, false] {
                let origin = match at {
                    0 => Origin::named("good"),
                    1 => once_wrong(|conversation| _ = conversation.request()),
                    _ => once_wrong(|conversation| {
                        conversation.request();
                        conversation.drain();
                    }),
                };
                let endpoints = if at == 0 { vec![closed(), origin.address] } else { vec![origin.address] };
                let on: Vec<_> = conditions.iter().enumerate().filter(|(other, _)| (*other == at) == named).collect();
                let on: Vec<_> = on.iter().map(|(_, condition)| format!("\"{condition}\"")).collect();
                let route = format!("retry.on = [{}]", on.join(", "));
                let proxy = proxy(&endpoints, "timeouts.response = \"300ms\"", &route);
                let mut talker = Talker::connect(&proxy, protocol);
                let replies: Vec<_> = (0..3).map(|_| talker.exchange(get()).unwrap()).collect();
                let failed: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
                let series = |name, why| format!("headgate_pool_{name}_total{{pool=\"app\",reason=\"{why}\"}}");
                if named {
                    assert!(failed.is_empty(), "{protocol:?} {reason}: {failed:?}");
                    assert_eq!(counted(&proxy, &series("retries", reason)), 1, "{protocol:?} {reason}");
                } else {
                    assert_eq!(failed.len(), 1, "{protocol:?} {reason}: {replies:?}");
                    assert!(failed[0].text().contains(reason), "{failed:?}");
                    assert_eq!(counted(&proxy, &series("retries_denied", "condition")), 1, "{protocol:?} {reason}");
                }
            }
        }
    }
}

fn failing(body: &'static str) -> Origin {
    Origin::scripted(move |_, _| {
        format!("HTTP/1.1 503 Full\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    })
}

#[test]
fn a_status_is_followed_by_an_attempt_on_another_endpoint() {
    for protocol in BOTH {
        let (full, good) = (failing("full"), Origin::named("good"));
        let pool = "ejection.enabled = false";
        let proxy = proxy(&[full.address, good.address], pool, "retry.status = [502, 503]");
        let mut talker = Talker::connect(&proxy, protocol);
        for _ in 0..10 {
            assert_eq!(talker.exchange(get()).unwrap().text(), "good", "{protocol:?}");
        }
        assert!(full.heard().len() >= 3, "{protocol:?}");
        assert_eq!(full.connections(), 1, "what was small and whole is read, and its connection used again");
        // What may have run is not sent twice: the client gets what the endpoint said.
        let replies: Vec<_> = (0..2).map(|_| talker.exchange(post("x", None)).unwrap()).collect();
        let said: Vec<_> = replies.iter().map(|reply| (reply.status, reply.text())).collect();
        assert!(said.contains(&(503, "full".to_owned())), "{protocol:?}: {said:?}");
        let log = proxy.logged();
        assert!(log.iter().all(|line| line["reason"].is_null()), "{log:?}");
        let reads: Vec<_> = log.iter().filter(|line| line["method"] == "GET").collect();
        assert!(reads.iter().all(|line| line["endpoint_status"] == 200), "{reads:?}");
    }
}

#[test]
fn the_last_response_is_passed_on_as_it_came() {
    for protocol in BOTH {
        let (one, two) = (failing("one"), failing("two"));
        let proxy = proxy(&[one.address, two.address], "", "retry.status = [503]");
        let mut talker = Talker::connect(&proxy, protocol);
        for round in 1..=4 {
            let reply = talker.exchange(get()).unwrap();
            assert_eq!((reply.status, reply.header("retry-after")), (503, Some("7")), "{protocol:?}: {reply:?}");
            assert!(["one", "two"].contains(&&*reply.text()), "{reply:?}");
            assert_eq!((one.heard().len(), two.heard().len()), (round, round), "each was asked once");
        }
        let denied = "headgate_pool_retries_denied_total{pool=\"app\",reason=\"endpoints\"}";
        assert_eq!(counted(&proxy, denied), 4);
    }
}

/// A response that was held back is better than a failure.
#[test]
fn where_the_other_attempt_fails_the_response_before_it_is_passed_on() {
    // Accepts and closes, so that nobody suspects it before it is picked.
    let (full, broken) = (failing("full"), Origin::talking(|conversation, _| _ = conversation.request()));
    let proxy = proxy(&[full.address, broken.address], "", "retry = { status = [503], attempts = 2 }");
    for _ in 0..6 {
        let answer = answer_to(proxy.address(), "GET", "/");
        assert!((answer.status, &*answer.body) == (503, "full"), "{answer:?}");
    }
    assert!(!broken.heard().is_empty());
    let log = proxy.logged();
    let full = full.address.to_string();
    assert!(log.iter().all(|line| line["endpoint"] == *full && line["endpoint_status"] == 503), "{log:?}");
}

#[test]
fn a_large_response_that_is_not_passed_on_costs_its_connection_and_no_wait() {
    let large = "x".repeat(1 << 20);
    let full = Origin::talking(move |conversation, _| {
        while conversation.request().is_some() {
            conversation.send(format!("HTTP/1.1 503 Full\r\ncontent-length: {}\r\n\r\n{large}", large.len()));
        }
    });
    let good = Origin::named("good");
    let proxy = proxy(&[full.address, good.address], "", "retry.status = [503]");
    for _ in 0..6 {
        assert_eq!(answer_to(proxy.address(), "GET", "/").body, "good");
    }
    assert!(full.heard().len() > 1 && full.connections() == full.heard().len(), "{}", full.connections());
    crate::kit::eventually("its connections are closed", || full.open() == 0);
}

/// F04 in short: an endpoint that hangs costs a GET no more than one attempt.
#[test]
fn an_attempt_is_given_up_after_its_time_where_another_may_follow() {
    for protocol in BOTH {
        let hanging = Origin::talking(|conversation, _| _ = (conversation.request(), conversation.drain()));
        let good = Origin::named("good");
        let proxy = proxy(&[hanging.address, good.address], "", "retry.per_try_timeout = \"300ms\"");
        let mut talker = Talker::connect(&proxy, protocol);
        for _ in 0..4 {
            let (reply, took) = timed(|| talker.exchange(get()).unwrap());
            assert_eq!(reply.text(), "good", "{protocol:?}");
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
        assert!(!hanging.heard().is_empty());
        crate::kit::eventually("what was given up is closed", || hanging.open() == 0);
        assert_ne!(counted(&proxy, "headgate_pool_retries_total{pool=\"app\",reason=\"response_timeout\"}"), 0);
    }
}

#[test]
fn what_may_not_run_twice_is_not_given_up_early() {
    let (open, gate) = crate::kit::gate();
    let slow = Origin::scripted(move |_, _| {
        gate.pass();
        ok("late")
    });
    let proxy = proxy(&[slow.address], "", "retry = { attempts = 2, per_try_timeout = \"200ms\" }");
    let mut client = Client::connect(proxy.address());
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx");
    slow.await_heard(1);
    // Two attempts of a GET are over before the POST is answered.
    assert_eq!(answer_to(proxy.address(), "GET", "/").reason(), Some("response_timeout"));
    (0..3).for_each(|_| open.send(()).unwrap());
    assert_eq!(client.receive().unwrap().body, "late");
}

#[test]
fn a_post_runs_twice_by_the_routes_word_or_a_trusted_key_alone() {
    let word = "retry.non_idempotent = true";
    let key = "retry.idempotency_key = true";
    for (route, given, retried) in [
        (word, None, true),
        (key, Some("\"8e03978e\""), true),
        (key, None, false),
        (key, Some(""), false),
        ("", Some("\"8e03978e\""), false),
    ] {
        for protocol in BOTH {
            let origin = once_wrong(|conversation| _ = conversation.request());
            let proxy = proxy(&[origin.address], "", route);
            let reply = Talker::connect(&proxy, protocol).exchange(post("twice", given)).unwrap();
            assert_eq!(reply.status, if retried { 200 } else { 502 }, "{protocol:?} {route} {given:?}");
            assert_eq!(origin.heard().len(), 1 + usize::from(retried), "{protocol:?} {route} {given:?}");
            assert!(origin.heard().iter().all(|heard| heard.body == b"twice"));
            if !retried {
                let denied = "headgate_pool_retries_denied_total{pool=\"app\",reason=\"method\"}";
                assert_eq!(counted(&proxy, denied), 1);
            }
        }
    }
}

fn whole_and_trailer(heard: &Heard, body: &str) -> bool {
    heard.body == body.as_bytes() && heard.trailers == [("x-sum".to_owned(), "7".to_owned())]
}

#[test]
fn a_small_body_of_unknown_length_is_sent_again_with_its_trailers() {
    for protocol in BOTH {
        let origin = once_wrong(|conversation| _ = conversation.request());
        let proxy = proxy(&[origin.address], "", "");
        let request = Request::put("/").header("trailer", "x-sum");
        let content = Content::streamed(&["hello, ", "world"]).with_trailer("x-sum", "7");
        let reply = Talker::connect(&proxy, protocol).exchange(request.body(content).unwrap()).unwrap();
        assert_eq!(reply.text(), "good", "{protocol:?}");
        let heard = origin.heard();
        assert!(heard.len() == 2 && heard.iter().all(|heard| whole_and_trailer(heard, "hello, world")), "{heard:?}");
    }
}

/// Held where it was read, where it came whole; put together, where it came in pieces.
#[test]
fn a_held_body_is_sent_again_as_it_came() {
    for protocol in BOTH {
        for length in [100, 8 * 1024 - 1, 8 * 1024, 16_000, 60_000] {
            let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            // The third request is lost: by then the buffers it is read into have grown to the size of what comes.
            let origin = Origin::talking(|conversation, number| {
                let (mut served, lost) = (0, 2);
                while conversation.request().is_some() && (number > 0 || served != lost) {
                    conversation.send(ok("good"));
                    served += 1;
                }
            });
            let proxy = proxy(&[origin.address], "", "");
            let mut talker = Talker::connect(&proxy, protocol);
            for _ in 0..4 {
                let request = Request::put("/").body(Content::whole(body.clone())).unwrap();
                assert_eq!(talker.exchange(request).unwrap().text(), "good", "{protocol:?} {length}");
            }
            let heard = origin.heard();
            assert_eq!(heard.len(), 5, "{protocol:?} {length}");
            assert!(heard.iter().all(|heard| heard.body == body), "{protocol:?} {length}");
        }
    }
    let origin = once_wrong(|conversation| _ = conversation.request());
    let proxy = proxy(&[origin.address], "", "");
    let mut client = Client::connect(proxy.address());
    client.send("PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 16000\r\n\r\n");
    assert_eq!(client.receive().unwrap().status, 100);
    client.send("a".repeat(9_000));
    client.send("b".repeat(7_000));
    assert_eq!(client.receive().unwrap().body, "good");
    let body = ["a".repeat(9_000), "b".repeat(7_000)].concat();
    assert!(origin.heard().iter().all(|heard| heard.body == body.as_bytes()) && origin.heard().len() == 2);
}

/// Nothing is held back for a retry: an attempt that fails in the middle of an upload goes on on another connection.
#[test]
fn an_upload_that_has_begun_goes_on_in_the_next_attempt() {
    let served = Arc::new(AtomicUsize::new(0));
    let serving = served.clone();
    let origin = Origin::talking(move |conversation, number| {
        if number == 0 {
            conversation.head_only();
            conversation.read_exactly("6\r\nbefore\r\n".len());
            return conversation.end_with_reset();
        }
        serving.fetch_add(1, Ordering::SeqCst);
        while conversation.request().is_some() {
            conversation.send(ok("good"));
        }
    });
    let proxy = proxy(&[origin.address], "", "");
    let mut client = Client::connect(proxy.address());
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("6\r\nbefore\r\n");
    crate::kit::eventually("the next attempt is under way", || served.load(Ordering::SeqCst) == 1);
    client.send("6\r\n after\r\n0\r\nx-sum: 7\r\n\r\n");
    assert_eq!(client.receive().unwrap().body, "good");
    let heard = origin.heard();
    assert!(whole_and_trailer(heard.last().unwrap(), "before after"), "{heard:?}");
}

#[test]
fn the_cap_of_a_route_says_how_much_of_a_body_is_kept() {
    let upload =
        |length: usize| format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
    let chunked = |length: usize| {
        let body = "x".repeat(length);
        format!("PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
    };
    let cases = [
        ("", chunked(60_000), true),
        ("", chunked(70_000), false),
        ("", upload(70_000), false),
        ("retry.body = \"1MiB\"", upload(300_000), true),
        ("retry.body = \"1MiB\"", chunked(300_000), true),
        ("retry.body = \"0B\"", upload(10), false),
        ("retry.body = \"0B\"", chunked(10), false),
        ("retry.body = \"10B\"", upload(10), true),
    ];
    for (route, request, kept) in cases {
        let origin = once_wrong(|conversation| _ = conversation.request());
        let proxy = proxy(&[origin.address], "", route);
        let answer = exchange(proxy.address(), &request).unwrap();
        assert_eq!(answer.status, if kept { 200 } else { 502 }, "{route} {:.70}", request);
        let denied = counted(&proxy, "headgate_pool_retries_denied_total{pool=\"app\",reason=\"body\"}");
        assert_eq!(denied, u64::from(!kept), "{route} {:.70}", request);
        let heard = origin.heard();
        assert!(heard.iter().all(|other| other.body == heard[0].body), "the same each time");
    }
}
