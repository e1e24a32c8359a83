//! The one form of a path: stable, clean, the same for every spelling, and made in linear time.

use std::borrow::Cow;
use std::time::Duration;

use headgate::base::clock;
use headgate::route::path::canonical;
use percent_encoding::percent_decode_str;

pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if data.len() <= 8 {
        linear(&text);
    }
    let Ok(form) = canonical(&text) else { return };
    assert!(form.starts_with('/') && form.bytes().all(|byte| byte.is_ascii_graphic()), "{form:?}");
    assert!(!form.contains("//") && !form.contains(['\\', '?', '#', '"', '<', '>', '`', '{', '}']), "{form:?}");
    assert!(matches!(canonical(&form), Ok(Cow::Borrowed(again)) if again == form), "{form:?} is not stable");
    // However often an application decodes it.
    let mut shown = form.clone().into_owned();
    for _ in 0..4 {
        for segment in shown.split(['/', '\\']) {
            assert!(!matches!(segment.split(';').next(), Some("." | "..")), "{form:?} shows {shown:?}");
        }
        shown = percent_decode_str(&shown).decode_utf8_lossy().into_owned();
    }
    // Unreserved letters encoded, and slashes doubled, are the same path.
    let mut other = String::new();
    let mut bytes = form.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => other
                .extend(['%'].into_iter().chain(bytes.by_ref().take(2).map(|b| char::from(b).to_ascii_lowercase()))),
            b'/' => other.push_str("//"),
            b'-' | b'.' | b'_' | b'~' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => other += &format!("%{byte:02x}"),
            byte => other.push(char::from(byte)),
        }
    }
    assert_eq!(canonical(&other).as_deref(), Ok(&*form), "from {other:?}");
}

fn linear(text: &str) {
    let long = format!("/{}", text.repeat(64 * 1024 / text.len().max(1)));
    let begin = clock::now();
    let _ = canonical(&long);
    // A millisecond or two; squared it would be minutes.
    assert!(begin.elapsed() < Duration::from_secs(5), "{text:?} repeated takes {:?}", begin.elapsed());
}
