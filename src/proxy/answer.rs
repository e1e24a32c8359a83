//! Answers that headgate makes itself: one table from reason to status, `Proxy-Status` and public text.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::base::reason::Reason;
use crate::config::model::{HeaderEdits, Respond};
use crate::proxy::headers;
use crate::proxy::ledger::Ledger;
use crate::proxy::response_body::ResponseBody;

/// Seconds after which a client may try again when nothing can serve it now.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Status, RFC 9209 error type, and what a stranger may read.
const fn row(reason: Reason) -> (u16, &'static str, &'static str) {
    match reason {
        Reason::MalformedRequest => (400, "http_request_error", "The request is not valid HTTP."),
        Reason::BadHost => (400, "http_request_error", "The Host of the request is missing or not valid."),
        Reason::BadTarget => (400, "http_request_error", "The request target is not valid here."),
        Reason::BadPath => (400, "http_request_error", "The path holds dot segments or characters that are refused."),
        Reason::BadTransferEncoding => (400, "http_request_error", "The Transfer-Encoding is not supported."),
        Reason::BadContentLength => (400, "http_request_error", "The Content-Length is not valid."),
        Reason::BadHeader => (400, "http_request_error", "A header field is not valid."),
        Reason::BadExpect => (417, "http_request_error", "Only 100-continue can be expected."),
        Reason::MethodRefused => (405, "http_request_denied", "The method is not allowed."),
        Reason::HeadersTooLarge => (431, "http_request_error", "The header fields are too large."),
        Reason::TargetTooLong => (414, "http_request_error", "The request target is too long."),
        Reason::BodyTooLarge => (413, "http_request_denied", "The body is too large."),
        Reason::BadBody => (400, "http_request_error", "The body is malformed."),
        Reason::HeaderTimeout | Reason::HandshakeTimeout | Reason::RequestBodyTimeout | Reason::SendTimeout => {
            (408, "http_request_error", "The request took too long to arrive.")
        }
        Reason::HandshakeFailed => (400, "tls_protocol_error", "The TLS handshake failed."),
        Reason::TunnelIdle => (408, "http_request_error", "The tunnel carried nothing for too long."),
        Reason::ClientGone => (499, "http_request_error", "The client went away."),
        Reason::LoopDetected => (508, "proxy_loop_detected", "The request goes round in a loop."),
        Reason::NoRoute => (404, "destination_not_found", "No route matches this request."),
        Reason::NotStored => (504, "http_request_denied", "Only a stored response was asked for, and there is none."),
        Reason::Misdirected => (421, "http_request_denied", "This connection is not for that host."),
        Reason::ConnectRefused => (502, "connection_refused", "The server behind refused the connection."),
        Reason::ConnectTimeout => (504, "connection_timeout", "The server behind did not accept in time."),
        Reason::ConnectFailed => (502, "destination_unavailable", "The server behind could not be reached."),
        Reason::EndpointTls => (502, "tls_certificate_error", "The TLS connection to the server behind failed."),
        Reason::EndpointClosed => (502, "connection_terminated", "The server behind closed the connection."),
        Reason::ResponseTimeout => (504, "http_response_timeout", "The server behind did not answer in time."),
        Reason::BadResponse => (502, "http_protocol_error", "The server behind sent a malformed response."),
        Reason::ResponseHeadersTooLarge => {
            (502, "http_response_header_section_size", "The response's header fields are too large.")
        }
        Reason::ResponseIncomplete => (502, "http_response_incomplete", "The response was cut off."),
        Reason::ResponseBodyTimeout => (504, "http_response_timeout", "The response stalled."),
        Reason::AllDown => (503, "destination_unavailable", "No server is available."),
        Reason::PoolFull => (503, "connection_limit_reached", "The servers are at their limit."),
        Reason::QueueFull => (503, "connection_limit_reached", "Too many requests wait already."),
        Reason::QueueTimeout => (503, "connection_limit_reached", "The servers stayed at their limit for too long."),
        Reason::TotalTimeout => (504, "http_response_timeout", "The request took too long in all."),
        Reason::ConnectionLimit => (503, "connection_limit_reached", "Too many connections."),
        Reason::OutOfResources => (503, "proxy_internal_error", "The proxy is out of resources."),
        Reason::Draining => (503, "proxy_internal_response", "The proxy is stopping."),
        Reason::Internal => (500, "proxy_internal_error", "The proxy failed."),
    }
}

/// The status that a reason is answered with.
pub fn early_status(reason: Reason) -> u16 {
    row(reason).0
}

/// Answers with a failure.
pub(super) fn refusal(reason: Reason, mut ledger: Box<Ledger>) -> Response<ResponseBody> {
    ledger.fail(reason);
    ledger.connection.lingers.set(true);
    ledger.status = early_status(reason);
    let body = format!("{}request: {}\n", text(reason), ledger.client.request_id.as_str());
    failure(reason, ResponseBody::full(Bytes::from(body), ledger))
}

/// Answers where a fault of our own has taken the request's ledger with it.
pub(super) fn fault() -> Response<ResponseBody> {
    failure(Reason::Internal, ResponseBody::unrecorded(Bytes::from(text(Reason::Internal))))
}

/// What a person reads of a failure.
fn text(reason: Reason) -> String {
    let (status, _, text) = row(reason);
    format!("{status} {}\n{text}\nreason: {reason}\n", title(status_of(reason)))
}

fn status_of(reason: Reason) -> StatusCode {
    StatusCode::from_u16(early_status(reason)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn failure(reason: Reason, body: ResponseBody) -> Response<ResponseBody> {
    let (status, error) = (status_of(reason), row(reason).1);
    let proxy_status = HeaderValue::try_from(format!("headgate; error={error}; details=\"{reason}\""));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = proxy_status {
        headers.insert("proxy-status", value);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"));
    }
    response
}

fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Client Closed Request")
}

/// Answers with a redirect.
pub(super) fn redirect(status: StatusCode, location: &str, mut ledger: Box<Ledger>) -> Response<ResponseBody> {
    let Ok(location) = HeaderValue::from_str(location) else {
        return refusal(Reason::BadPath, ledger);
    };
    ledger.status = status.as_u16();
    let mut response = Response::new(ResponseBody::full(Bytes::new(), ledger));
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Answers with a route's fixed response.
pub(super) fn fixed(respond: &Respond, mut ledger: Box<Ledger>) -> Response<ResponseBody> {
    ledger.status = respond.status.as_u16();
    let mut response = Response::new(ResponseBody::full(respond.body.clone(), ledger));
    *response.status_mut() = respond.status;
    if !respond.body.is_empty() {
        response.headers_mut().insert(header::CONTENT_TYPE, respond.content_type.clone());
    }
    response
}

/// Answers with a stored response.
pub(super) fn stored(stored: Response<Bytes>, edits: &HeaderEdits, mut ledger: Box<Ledger>) -> Response<ResponseBody> {
    let (mut parts, body) = stored.into_parts();
    ledger.status = parts.status.as_u16();
    headers::edit(&mut parts.headers, edits);
    Response::from_parts(parts, ResponseBody::full(body, ledger))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::reason::Blame;

    #[test]
    fn the_status_says_who_is_to_blame() {
        for &reason in Reason::ALL {
            let status = early_status(reason);
            match reason.blame() {
                // RFC 9111 §5.2.1.7, RFC 5842 §7.2.
                Blame::Client => assert!((400..500).contains(&status) || matches!(status, 504 | 508), "{reason}"),
                Blame::Endpoint => assert!((502..=504).contains(&status), "{reason}"),
                Blame::Headgate => assert!((500..=504).contains(&status), "{reason}"),
            }
        }
    }
}
