//! The only endpoint goes away: for a moment requests wait for it to come back, and no longer.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kit::{Chaos, Origin, Proxy, answer_to, eventually};

/// A pool whose only endpoint is not there yet; what headgate answers then, and what it answers later.
fn away(pool: &str) -> (Proxy, Chaos, Origin) {
    let origin = Origin::named("app");
    let relay = Chaos::before(origin.address);
    let text = format!("[metrics]\naddress = \"127.0.0.1:0\"\n{}", Proxy::text(&[relay.address], "", pool, ""));
    let proxy = Proxy::start(&text);
    (proxy, relay, origin)
}

/// Of all series that begin and end like this.
fn sum(proxy: &Proxy, begin: &str, end: &str) -> f64 {
    let text = proxy.metrics();
    let series = text.lines().filter_map(|line| line.rsplit_once(' '));
    let wanted = series.filter(|(series, _)| series.starts_with(begin) && series.ends_with(end));
    wanted.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

fn refused(proxy: &Proxy) -> f64 {
    sum(proxy, "headgate_endpoint_requests_total{", "code=\"connect_refused\"}")
}

fn waited(proxy: &Proxy) -> f64 {
    sum(proxy, "headgate_pool_queued_total{", "}")
}

#[test]
fn a_restart_of_the_only_endpoint_fails_nobody_and_runs_nothing_twice() {
    let (proxy, relay, origin) = away("outage_wait = \"20s\"");
    assert_eq!(answer_to(proxy.address(), "GET", "/before").status, 200);
    relay.refuse();
    relay.hang_up();
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..12)
            .map(|number| {
                let method = if number % 2 == 0 { "GET" } else { "POST" };
                let at = proxy.address();
                scope.spawn(move || answer_to(at, method, &format!("/{number}")))
            })
            .collect();
        // Nobody gives up by trying: that there are many tries takes a while of being refused.
        eventually("it is tried again and again", || refused(&proxy) >= 16.0);
        relay.listen_again();
        let answers: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap().status).collect();
        assert_eq!(answers, [200; 12]);
    });
    let mut lines: Vec<_> = origin.heard().into_iter().map(|heard| heard.line).collect();
    let all = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!((all, lines.len()), (13, 13), "each ran once");
    assert!(waited(&proxy) > 0.0);
    assert!(proxy.logged().iter().any(|line| line["queued_ms"].is_number()), "the log tells that they waited");
}

#[test]
fn in_an_outage_that_lasts_the_answer_comes_at_once() {
    let (proxy, relay, _origin) = away("outage_wait = \"100ms\"");
    relay.refuse();
    let first = answer_to(proxy.address(), "GET", "/");
    assert!(matches!(first.status, 502 | 503) && waited(&proxy) > 0.0, "{}", first.status);
    eventually("the loss is no longer fresh", || {
        let before = waited(&proxy);
        let answer = answer_to(proxy.address(), "GET", "/");
        answer.reason() == Some("all_down") && waited(&proxy) == before
    });
    // Once it has answered, the next loss is a new one.
    relay.listen_again();
    eventually("it is back", || answer_to(proxy.address(), "GET", "/").status == 200);
    relay.refuse();
    relay.hang_up();
    let before = waited(&proxy);
    eventually("who meets it waits again", || {
        answer_to(proxy.address(), "GET", "/");
        waited(&proxy) > before
    });
}

#[test]
fn no_more_wait_for_an_endpoint_than_the_queue_has_places() {
    let (proxy, relay, _origin) = away("outage_wait = \"20s\"\nqueue.size = 2");
    relay.refuse();
    let (failed, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| match answer_to(proxy.address(), "GET", "/").status {
                200 => served.fetch_add(1, Ordering::SeqCst),
                502 | 503 => failed.fetch_add(1, Ordering::SeqCst),
                other => panic!("{other}"),
            });
        }
        eventually("all others are answered", || failed.load(Ordering::SeqCst) == 6);
        relay.listen_again();
    });
    assert_eq!(served.load(Ordering::SeqCst), 2);
}

#[test]
fn switched_off_nobody_waits() {
    let (proxy, relay, _origin) = away("outage_wait = \"0s\"");
    relay.refuse();
    eventually("it rests", || answer_to(proxy.address(), "GET", "/").reason() == Some("all_down"));
    assert_eq!(waited(&proxy), 0.0);
}
