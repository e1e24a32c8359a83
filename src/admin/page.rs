//! The page at `/`: one file, which asks the same API as everybody else.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

const PAGE: &str = include_str!("page.html");
/// Where the page has the nonce that its own script and style are known by.
const PLACE: &str = "NONCE";

/// The page. Nothing that it shows can run as a script: only what carries this answer's nonce does.
pub(super) async fn page() -> Response {
    let mut random = [0; 16];
    if rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut random).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no randomness\n").into_response();
    }
    let nonce = format!("{:032x}", u128::from_ne_bytes(random));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut answer = Html(PAGE.replace(PLACE, &nonce)).into_response();
    let fields: [(HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, &policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}
