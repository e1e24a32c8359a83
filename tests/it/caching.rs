//! What the cache gives to whom, with real endpoints behind it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kit::{Answer, Client, Heard, Origin, Proxy, exchange};

fn cached(origin: &Origin, listener: &str) -> Proxy {
    Proxy::start(&Proxy::text(&[origin.address], listener, "", "cache.zone = \"main\"\ncache.default_ttl = \"1m\""))
}

fn answer(fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn ask(proxy: &Proxy, fields: &str) -> Answer {
    exchange(proxy.address(), format!("GET /a HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).expect("an answer")
}

fn is_hit(answer: &Answer) -> bool {
    answer.header("cache-status").is_some_and(|status| status.contains("headgate; hit"))
}

/// The page that was stored is another after a write.
fn assert_made_new(proxy: &Proxy, method: &str) {
    let before = ask(proxy, "").body;
    assert_eq!(ask(proxy, "").body, before);
    let write = format!("{method} /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx");
    exchange(proxy.address(), write).expect("an answer");
    assert_ne!(ask(proxy, "").body, before);
}

/// The endpoint did not see the field that the response was then stored under.
#[test]
fn a_field_that_connection_takes_away_poisons_no_variant() {
    let origin = Origin::scripted(|heard: &Heard, _| {
        answer("cache-control: max-age=60\r\nvary: origin\r\n", heard.header("origin").unwrap_or("none"))
    });
    let proxy = cached(&origin, "");
    let poisoned = ask(&proxy, "origin: https://app.test\r\nconnection: Origin\r\n");
    assert_eq!(
        (&*poisoned.body, poisoned.header("cache-status")),
        ("none", Some("headgate; fwd=bypass; detail=connection"))
    );
    assert_eq!(ask(&proxy, "origin: https://app.test\r\n").body, "https://app.test");
    assert!(is_hit(&ask(&proxy, "origin: https://app.test\r\nconnection: keep-alive\r\n")));
}

#[test]
fn a_response_that_varies_by_client_is_nobody_elses() {
    let origin = Origin::scripted(|_, _| answer("cache-control: max-age=60\r\nvary: X-Forwarded-For\r\n", "secret"));
    let proxy = cached(&origin, "");
    assert!(!is_hit(&ask(&proxy, "")) && !is_hit(&ask(&proxy, "")));
    assert_eq!(origin.heard().len(), 2);
}

/// Post/Redirect/Get led back to the page of before.
#[test]
fn a_write_that_answers_with_a_redirect_makes_the_page_new() {
    let origin = Origin::scripted(|heard: &Heard, number| match heard.line.starts_with("POST") {
        true => b"HTTP/1.1 303 See Other\r\nlocation: /a\r\ncontent-length: 0\r\n\r\n".to_vec(),
        false => answer("cache-control: max-age=60\r\n", &number.to_string()),
    });
    let proxy = cached(&origin, "");
    assert_made_new(&proxy, "POST");
}

#[test]
fn a_write_by_another_route_makes_the_page_new() {
    let origin = Origin::scripted(|_, number| answer("cache-control: max-age=60\r\n", &number.to_string()));
    let text = Proxy::text(&[origin.address], "", "", "match.method = [\"GET\"]\ncache.zone = \"main\"");
    let proxy = Proxy::start(&format!("{text}\n[routes.writes]\nmatch.path = \"/*\"\npool = \"app\"\n"));
    assert_made_new(&proxy, "PUT");
}

/// The client got the 304, and so did everybody after it.
#[test]
fn a_304_of_something_else_is_no_answer() {
    let asked = AtomicUsize::new(0);
    let origin = Origin::scripted(move |heard: &Heard, _| match heard.header("if-none-match") {
        Some(_) => b"HTTP/1.1 304 Not Modified\r\netag: \"b\"\r\n\r\n".to_vec(),
        None => {
            let body = ["old", "new"][asked.fetch_add(1, Ordering::Relaxed).min(1)];
            answer("cache-control: max-age=0\r\netag: \"a\"\r\n", body)
        }
    });
    let proxy = cached(&origin, "");
    assert_eq!(ask(&proxy, "").body, "old");
    for _ in 0..2 {
        let anew = ask(&proxy, "");
        assert_eq!((anew.status, &*anew.body), (200, "new"));
    }
}

/// A redirect to HTTPS was given to who had come by it.
#[test]
fn what_a_trusted_proxy_says_of_the_url_is_part_of_its_name() {
    let origin = Origin::scripted(|heard: &Heard, _| answer("", heard.header("x-forwarded-proto").unwrap_or("none")));
    let proxy = cached(&origin, "trusted_proxies = [\"127.0.0.1\"]");
    for scheme in ["http", "https", "http", "https"] {
        assert_eq!(ask(&proxy, &format!("x-forwarded-proto: {scheme}\r\n")).body, scheme);
    }
    assert_eq!(origin.heard().len(), 2, "each was stored");
}

#[test]
fn a_stored_response_says_when_it_came_and_what_a_cache_behind_said_is_told_once() {
    let origin = Origin::scripted(|_, _| answer("cache-status: inner; hit\r\n", "a"));
    let proxy = cached(&origin, "");
    let mut client = Client::connect(proxy.address());
    let mut next = || {
        client.send("GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
        client.receive().unwrap()
    };
    let told = |answer: &Answer| {
        let fields = answer.headers.iter().filter(|(name, _)| name == "cache-status").map(|(_, value)| value.clone());
        fields.collect::<Vec<_>>().join(", ")
    };
    let (first, second) = (next(), next());
    assert!(told(&first).starts_with("inner; hit, headgate; fwd="), "{first:?}");
    assert!(told(&second).starts_with("headgate; hit"), "{second:?}");
    assert!(second.header("date").is_some());
}

#[test]
fn who_takes_only_what_is_stored_is_told_where_nothing_is() {
    let origin = Origin::scripted(|_, _| answer("cache-control: max-age=60\r\n", "a"));
    let proxy = cached(&origin, "");
    let only = "cache-control: only-if-cached\r\n";
    let none = ask(&proxy, only);
    assert_eq!((none.status, none.reason(), origin.heard().len()), (504, Some("not_stored"), 0));
    ask(&proxy, "");
    assert!(is_hit(&ask(&proxy, only)));
}
