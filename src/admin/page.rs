//! The dashboard: three files that are part of the program. It shows what the API tells and changes nothing.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Nothing but its own files; no other site may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

/// `/` and what the page needs.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", include_str!("page/index.html")) }))
        .route("/page.css", get(|| async { file("text/css; charset=utf-8", include_str!("page/page.css")) }))
        .route("/page.js", get(|| async { file("text/javascript; charset=utf-8", include_str!("page/page.js")) }))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let fields: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // A newer program brings a newer page.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (fields, text).into_response()
}

#[cfg(test)]
mod tests {
    /// A page about what breaks must not need the world around it.
    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for text in [include_str!("page/index.html"), include_str!("page/page.css"), include_str!("page/page.js")] {
            let foreign = text
                .match_indices("//")
                .find(|(at, _)| text[..*at].ends_with(':') && !text[*at..].starts_with("//example.com"));
            assert_eq!(foreign, None);
            assert!(!text.contains("innerHTML"), "data is never markup");
        }
    }
}
