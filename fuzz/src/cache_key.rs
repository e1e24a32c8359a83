//! Two requests share a key only where nothing but the case of the host differs.

use headgate::cache::CacheKey;
use headgate::config::model::Scheme;

pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Two lists of parts, cut where the input says.
    let (one, other) = text.split_once('\n').unwrap_or((&text, &text));
    let (one, other) = (parts(one), parts(other));
    let same = one == other;
    assert_eq!(same, key(&one) == key(&other), "{one:?} and {other:?}");
    // A part moved over its border is another key.
    let (space, scheme, host, target) = &one;
    if !target.is_empty() && host.is_ascii() {
        let moved = (space.clone(), *scheme, format!("{host}{target}").to_ascii_lowercase(), String::new());
        assert_ne!(key(&one), key(&moved), "{one:?}");
    }
    assert!(key(&one).to_string().contains("://"));
}

type Parts = (String, Scheme, String, String);

fn parts(text: &str) -> Parts {
    let mut parts = text.splitn(4, '|').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let (space, scheme, host, target) = (part(), part(), part(), part());
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    (space, scheme, host.to_ascii_lowercase(), target)
}

fn key((space, scheme, host, target): &Parts) -> CacheKey {
    CacheKey::in_space(space, *scheme, &host.to_ascii_uppercase(), target)
}
