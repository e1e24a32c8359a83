//! What a line looks like. Everything is appended to the worker's buffer; nothing is allocated per line.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::Version;

use crate::base::record::{ConnectionRecord, RequestRecord};
use crate::base::text::{push_ip, push_number};

/// The time of a line; its text is made once a second.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    /// Whether the texts are of `second`: there is none of the epoch itself at first.
    known: bool,
    second: u64,
    millis: u64,
    /// `2026-11-24T02:22:18`.
    rfc3339: String,
    /// `24/Nov/2026:02:22:18 +0000`.
    common: String,
}

impl Stamp {
    pub(super) fn advance(&mut self, unix_millis: u64) {
        self.millis = unix_millis % 1000;
        let second = unix_millis / 1000;
        if self.known && second == self.second {
            return;
        }
        (self.known, self.second) = (true, second);
        self.rfc3339.clear();
        self.common.clear();
        let time = jiff::Timestamp::from_second(second as i64).unwrap_or_default();
        // Writing to a string fails only by a wrong format, and these are right.
        let _ = write!(self.rfc3339, "{}", time.strftime("%Y-%m-%dT%H:%M:%S"));
        let _ = write!(self.common, "{}", time.strftime("%d/%b/%Y:%H:%M:%S +0000"));
    }
}

/// `,"key":` as one piece, ready to be copied.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

/// Likewise, with the quote that a text begins with.
macro_rules! text_key {
    ($name:literal) => {
        concat!(",\"", $name, "\":\"").as_bytes()
    };
}

/// One flat object; what does not apply is left out.
pub(super) fn json(out: &mut Vec<u8>, stamp: &Stamp, r: &RequestRecord<'_>) {
    json_start(out, stamp, r.client_ip, r.listener_name);
    plain(out, text_key!("method"), Some(r.method.as_str()));
    text(out, text_key!("host"), r.host);
    text(out, text_key!("path"), r.path);
    optional(out, text_key!("query"), r.query);
    plain(out, text_key!("proto"), Some(proto(r.version)));
    unsigned(out, key!("status"), r.status.into());
    unsigned(out, key!("bytes_in"), r.bytes_in);
    unsigned(out, key!("bytes_out"), r.bytes_out);
    millis(out, key!("duration_ms"), Some(r.duration));
    optional(out, text_key!("route"), r.route_name);
    optional(out, text_key!("pool"), r.pool_name);
    optional(out, text_key!("endpoint"), r.endpoint_name);
    plain(out, text_key!("side"), r.side.map(|side| side.as_str()));
    if let Some(status) = r.endpoint_status {
        unsigned(out, key!("endpoint_status"), status.into());
    }
    millis(out, key!("queued_ms"), r.queued);
    millis(out, key!("connect_ms"), r.connect);
    millis(out, key!("ttfb_ms"), r.first_byte);
    unsigned(out, key!("retries"), r.retries.into());
    plain(out, text_key!("cache"), r.cache.map(|cache| cache.as_str()));
    plain(out, text_key!("tls_version"), r.tls_version);
    optional(out, text_key!("sni"), r.sni);
    bytes(out, text_key!("referer"), r.referer);
    bytes(out, text_key!("user_agent"), r.user_agent);
    bytes(out, text_key!("request_id"), Some(r.id));
    plain(out, text_key!("reason"), r.reason.map(|reason| reason.as_str()));
    out.extend_from_slice(b"}\n");
}

/// A connection's trouble, with the keys that apply.
pub(super) fn json_connection(out: &mut Vec<u8>, stamp: &Stamp, r: &ConnectionRecord<'_>) {
    json_start(out, stamp, r.client_ip, r.listener_name);
    if let Some(status) = r.status {
        unsigned(out, key!("status"), status.into());
    }
    text(out, text_key!("reason"), r.reason.as_str());
    text(out, text_key!("detail"), r.detail);
    out.extend_from_slice(b"}\n");
}

fn json_start(out: &mut Vec<u8>, stamp: &Stamp, client: IpAddr, listener: &str) {
    out.extend_from_slice(b"{\"ts\":\"");
    out.extend_from_slice(stamp.rfc3339.as_bytes());
    out.push(b'.');
    padded(out, stamp.millis);
    out.extend_from_slice(b"Z\",\"client_ip\":\"");
    push_ip(out, client);
    out.push(b'"');
    text(out, text_key!("listener"), listener);
}

// Keys are written where they are known: copying a few bytes of a known length takes no call.

#[inline(always)]
fn text(out: &mut Vec<u8>, key: &[u8], value: &str) {
    out.extend_from_slice(key);
    escape_json(out, value);
    out.push(b'"');
}

#[inline(always)]
fn optional(out: &mut Vec<u8>, key: &[u8], value: Option<&str>) {
    if let Some(value) = value {
        text(out, key, value);
    }
}

/// A word of our own, or a method, which is a token (RFC 9110 §5.6.2): nothing in it has to be escaped.
#[inline(always)]
fn plain(out: &mut Vec<u8>, key: &[u8], value: Option<&str>) {
    let Some(value) = value else { return };
    out.extend_from_slice(key);
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

#[inline(always)]
fn bytes(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let Some(value) = value else { return };
    out.extend_from_slice(key);
    escape_bytes(out, value);
    out.push(b'"');
}

fn escape_bytes(out: &mut Vec<u8>, value: &[u8]) {
    if is_plain(value) {
        return out.extend_from_slice(value);
    }
    for chunk in value.utf8_chunks() {
        escape_json(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[inline(always)]
fn unsigned(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    push_number(out, value);
}

#[inline(always)]
fn millis(out: &mut Vec<u8>, key: &[u8], value: Option<Duration>) {
    let Some(value) = value else { return };
    out.extend_from_slice(key);
    decimal(out, value);
}

fn decimal(out: &mut Vec<u8>, value: Duration) {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    push_number(out, micros / 1000);
    out.push(b'.');
    padded(out, micros % 1000);
}

/// Nothing in it has to be escaped: all of it is printable ASCII but quotes and backslashes. Eight bytes at a time.
fn is_plain(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [b' '; 8];
    if let Some(last) = last.get_mut(..rest.len()) {
        last.copy_from_slice(rest);
    }
    let odd = words.iter().fold(0, |found, word| found | odd_bytes(u64::from_ne_bytes(*word)));
    odd | odd_bytes(u64::from_ne_bytes(last)) == 0
}

/// The high bit of a byte is set where that byte is odd, or one below it in the word is.
fn odd_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    /// Where a byte is below `least`, for a `least` of at most 0x80.
    const fn below(word: u64, least: u64) -> u64 {
        word.wrapping_sub(ONES * least) & !word
    }
    let quotes = below(word ^ (ONES * b'"' as u64), 1) | below(word ^ (ONES * b'\\' as u64), 1);
    // From 0x7f on one more sets the high bit, or it is set.
    (below(word, 0x20) | quotes | word.wrapping_add(ONES) | word) & HIGHS
}

/// Escapes what JSON asks for, and the control characters beyond ASCII: a terminal may obey those too.
fn escape_json(out: &mut Vec<u8>, value: &str) {
    let mut plain = 0;
    let bytes = value.as_bytes();
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    for (at, &byte) in bytes.iter().enumerate() {
        // U+0080 to U+009F are C2 80 to C2 9F.
        let c1 = byte == 0xc2 && bytes.get(at + 1).is_some_and(|&next| next < 0xa0);
        if byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0x7f && !c1 {
            continue;
        }
        out.extend_from_slice(bytes.get(plain..at).unwrap_or_default());
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let code = if c1 { bytes.get(at + 1).copied().unwrap_or_default() } else { byte };
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&hex(code, b"0123456789abcdef"));
                plain += usize::from(c1);
            }
        }
    }
    out.extend_from_slice(bytes.get(plain..).unwrap_or_default());
}

/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`.
pub(super) fn combined(out: &mut Vec<u8>, stamp: &Stamp, r: &RequestRecord<'_>) {
    combined_start(out, stamp, r.client_ip);
    escape_combined(out, r.method.as_str().as_bytes());
    out.push(b' ');
    escape_combined(out, r.path.as_bytes());
    if let Some(query) = r.query {
        out.push(b'?');
        escape_combined(out, query.as_bytes());
    }
    out.push(b' ');
    out.extend_from_slice(proto(r.version).as_bytes());
    out.extend_from_slice(b"\" ");
    padded(out, r.status.into());
    out.push(b' ');
    push_number(out, r.bytes_out);
    for field in [r.referer, r.user_agent] {
        out.extend_from_slice(b" \"");
        escape_combined(out, field.filter(|value| !value.is_empty()).unwrap_or(b"-"));
        out.push(b'"');
    }
    out.push(b'\n');
}

/// An answer of the protocol engine to what was no request.
pub(super) fn combined_connection(out: &mut Vec<u8>, stamp: &Stamp, r: &ConnectionRecord<'_>, status: u16) {
    combined_start(out, stamp, r.client_ip);
    out.extend_from_slice(b"-\" ");
    padded(out, status.into());
    out.extend_from_slice(b" 0 \"-\" \"-\"\n");
}

fn combined_start(out: &mut Vec<u8>, stamp: &Stamp, client: IpAddr) {
    push_ip(out, client);
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(stamp.common.as_bytes());
    out.extend_from_slice(b"] \"");
}

/// As nginx does: quotes, backslashes and what is outside printable ASCII become `\xHH`.
fn escape_combined(out: &mut Vec<u8>, value: &[u8]) {
    for &byte in value {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                out.extend_from_slice(b"\\x");
                out.extend_from_slice(&hex(byte, b"0123456789ABCDEF"));
            }
            _ => out.push(byte),
        }
    }
}

fn hex(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

fn proto(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// With three digits at least.
fn padded(out: &mut Vec<u8>, value: u64) {
    if value < 100 {
        out.push(b'0');
    }
    if value < 10 {
        out.push(b'0');
    }
    push_number(out, value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_in_every_place_is_judged_alike() {
        for length in [1, 7, 8, 9, 19] {
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    let mut text = vec![b'a'; length];
                    text[place] = byte;
                    let plain = (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
                    assert_eq!(is_plain(&text), plain, "{byte:#x} at {place} of {length}");
                }
            }
        }
        assert!(is_plain(b""));
    }

    use crate::base::id::ListenerIndex;
    use crate::base::reason::Reason;
    use crate::telemetry::access_log::tests::record;

    fn stamp() -> Stamp {
        let mut stamp = Stamp::default();
        stamp.advance(1_795_486_938_007);
        stamp
    }

    fn line(write: impl FnOnce(&mut Vec<u8>, &Stamp)) -> String {
        let mut out = Vec::new();
        write(&mut out, &stamp());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_json_line() {
        assert_eq!(
            line(|out, stamp| json(out, stamp, &record())),
            concat!(
                r#"{"ts":"2026-11-24T02:22:18.007Z","client_ip":"192.0.2.7","listener":"web","method":"GET","#,
                r#""host":"notes.localhost","path":"/notes","query":"q=a\"b","proto":"HTTP/1.1","status":200,"#,
                r#""bytes_in":0,"bytes_out":1024,"duration_ms":12.005,"route":"notes","pool":"app","#,
                r#""endpoint":"127.0.0.1:7001","side":"read","endpoint_status":200,"connect_ms":0.300,"#,
                r#""ttfb_ms":11.000,"retries":1,"cache":"miss","tls_version":"TLSv1.3","sni":"notes.localhost","#,
                r#""referer":"https://notes.localhost/","user_agent":"curl/8\\ ü","#,
                r#""request_id":"0192f0c1-2345-7000-8000-000000000001"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn the_time_in_a_queue_is_told_where_there_was_one() {
        let queued = RequestRecord { queued: Some(Duration::from_micros(7_250)), ..record() };
        let text = line(|out, stamp| json(out, stamp, &queued));
        assert!(text.contains(r#","endpoint_status":200,"queued_ms":7.250,"connect_ms":"#), "{text}");
        assert!(!line(|out, stamp| json(out, stamp, &record())).contains("queued_ms"));
    }

    #[test]
    fn a_combined_line() {
        assert_eq!(
            line(|out, stamp| combined(out, stamp, &record())),
            concat!(
                r#"192.0.2.7 - - [24/Nov/2026:02:22:18 +0000] "GET /notes?q=a\x22b HTTP/1.1" 200 1024 "#,
                r#""https://notes.localhost/" "curl/8\x5C \xC3\xBC""#,
                "\n"
            )
        );
    }

    #[test]
    fn lines_of_refused_connections() {
        let refused = ConnectionRecord {
            client_ip: "2001:db8::1".parse().unwrap(),
            listener: ListenerIndex(0),
            listener_name: "web",
            status: Some(400),
            reason: Reason::MalformedRequest,
            detail: "invalid HTTP version",
        };
        assert_eq!(
            line(|out, stamp| json_connection(out, stamp, &refused)),
            concat!(
                r#"{"ts":"2026-11-24T02:22:18.007Z","client_ip":"2001:db8::1","listener":"web","status":400,"#,
                r#""reason":"malformed_request","detail":"invalid HTTP version"}"#,
                "\n"
            )
        );
        assert_eq!(
            line(|out, stamp| combined_connection(out, stamp, &refused, 400)),
            "2001:db8::1 - - [24/Nov/2026:02:22:18 +0000] \"-\" 400 0 \"-\" \"-\"\n"
        );
    }

    #[test]
    fn a_stamp_follows_the_clock() {
        let mut stamp = Stamp::default();
        stamp.advance(0);
        assert_eq!(stamp.rfc3339, "1970-01-01T00:00:00");
        stamp.advance(1_000);
        assert_eq!(stamp.common, "01/Jan/1970:00:00:01 +0000");
    }

    proptest! {
        #[test]
        fn clients_cannot_forge_lines(
            path in any::<String>(),
            query in any::<String>(),
            referer in proptest::collection::vec(any::<u8>(), 0..64),
            agent in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let record = RequestRecord {
                path: &path,
                query: Some(&query),
                referer: Some(&referer),
                user_agent: Some(&agent),
                ..record()
            };
            let text = line(|out, stamp| json(out, stamp, &record));
            let body = text.strip_suffix('\n').unwrap();
            prop_assert!(!body.chars().any(char::is_control));
            let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
            prop_assert_eq!(parsed["path"].as_str(), Some(&*path));
            prop_assert_eq!(parsed["query"].as_str(), Some(&*query));
            let expected = String::from_utf8_lossy(&referer);
            prop_assert_eq!(parsed["referer"].as_str(), Some(&*expected));

            let text = line(|out, stamp| combined(out, stamp, &record));
            let body = text.strip_suffix('\n').unwrap();
            prop_assert!(body.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert_eq!(body.matches('"').count(), 6);
        }
    }
}
