//! The page for a person and its static files, compiled into the binary.
//!
//! Every file has a strong `ETag` made from its content at compile time, so all servers of one
//! build give the same one and a proxy may revalidate against any of them.

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::problem::{Code, Problem};

/// Only our own files, no inline code: what a note says can never run.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'; object-src 'none'";

static HOME: Asset = Asset::new("text/html; charset=utf-8", "no-cache", include_bytes!("../assets/index.html"));
static STYLE: Asset = Asset::new("text/css; charset=utf-8", STATIC_CACHE, include_bytes!("../assets/app.css"));
static SCRIPT: Asset = Asset::new("text/javascript; charset=utf-8", STATIC_CACHE, include_bytes!("../assets/app.js"));
static LOGO: Asset = Asset::new("image/svg+xml", STATIC_CACHE, include_bytes!("../assets/logo.svg"));

const STATIC_CACHE: &str = "public, max-age=60";

/// A file of the page.
struct Asset {
    media_type: &'static str,
    cache_control: &'static str,
    bytes: &'static [u8],
    /// 64 bits of content hash (FNV-1a) as hexadecimal digits between quotes.
    etag: [u8; 18],
}

/// `GET /`.
pub(crate) async fn home(headers: HeaderMap) -> Response {
    let mut response = HOME.answer(&headers);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    response
}

/// `GET /static/{file}`.
pub(crate) async fn asset(
    file: Result<Path<String>, axum::extract::rejection::PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(file) = file.map_err(|rejection| Problem::bad_input(rejection.body_text()))?;
    match file.as_str() {
        "app.css" => Ok(STYLE.answer(&headers)),
        "app.js" => Ok(SCRIPT.answer(&headers)),
        "logo.svg" => Ok(LOGO.answer(&headers)),
        _ => Err(Problem::new(Code::NoSuchPath, "there is no such file")),
    }
}

// === impl Asset ===

impl Asset {
    const fn new(media_type: &'static str, cache_control: &'static str, bytes: &'static [u8]) -> Self {
        Self { media_type, cache_control, bytes, etag: etag(bytes) }
    }

    /// The file, or 304 when the client has it already (RFC 9110 section 13.1.2).
    fn answer(&'static self, request: &HeaderMap) -> Response {
        let held = request.get_all(header::IF_NONE_MATCH).iter().any(|value| names_etag(value.as_bytes(), &self.etag));
        let mut response = if held { StatusCode::NOT_MODIFIED.into_response() } else { self.bytes.into_response() };
        let headers = response.headers_mut();
        if !held {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(self.cache_control));
        if let Ok(etag) = HeaderValue::from_bytes(&self.etag) {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}

/// Whether an `If-None-Match` value is `*` or lists this tag; `W/` does not matter here.
fn names_etag(value: &[u8], etag: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|item| {
        let item = item.trim_ascii();
        item == b"*" || item.strip_prefix(b"W/").unwrap_or(item) == etag
    })
}

const fn etag(bytes: &[u8]) -> [u8; 18] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        index += 1;
    }
    let mut tag = [b'"'; 18];
    let mut digit = 0;
    while digit < 16 {
        tag[1 + digit] = DIGITS[((hash >> (60 - 4 * digit)) & 0xf) as usize];
        digit += 1;
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_follows_the_content() {
        // The FNV-1a test vector for "a" (draft-eastlake-fnv).
        assert_eq!(&etag(b"a"), b"\"af63dc4c8601ec8c\"");
        assert_ne!(etag(b"a"), etag(b"b"));
    }

    #[test]
    fn if_none_match_is_a_list() {
        let tag = b"\"x\"";
        for held in ["\"x\"", "W/\"x\"", "\"y\", \"x\"", "*"] {
            assert!(names_etag(held.as_bytes(), tag), "{held}");
        }
        for other in ["", "\"y\"", "x", "\"xx\"", "\"y\",\"z\""] {
            assert!(!names_etag(other.as_bytes(), tag), "{other}");
        }
    }
}
