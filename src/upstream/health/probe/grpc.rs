//! `health.grpc`: one call of `grpc.health.v1.Health/Check` over HTTP/2, with prior knowledge in clear or by ALPN.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use super::health_v1::{self, ServingStatus};
use super::{ProbeResult, USER_AGENT, beside};
use crate::base::task;
use crate::config::model::GrpcProbe;
use crate::upstream::connection::EndpointStream;

/// What TLS must have agreed on.
pub(super) const PROTOCOL: &[u8] = b"h2";
const METHOD: &str = "/grpc.health.v1.Health/Check";
/// Of a response's body, in bytes: its message has two.
const MOST_BODY: usize = 16 * 1024;
/// Of a response's head or trailers, in bytes.
const MOST_HEAD: u32 = 64 * 1024;

/// Names of `grpc-status`, by number (grpc/grpc `doc/statuscodes.md`).
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What hyper runs for one connection. A clone is what hyper gets.
#[derive(Clone, Default)]
struct Tasks(Rc<RefCell<Vec<AbortOnDropHandle<()>>>>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.0.borrow_mut().push(AbortOnDropHandle::new(task::spawn_local(future)));
    }
}

/// Ends them with the probe: they hold a clone of the list, so that it would never be dropped.
struct Ended(Tasks);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.0.take());
    }
}

pub(super) async fn ask(probe: &GrpcProbe, host: &str, stream: EndpointStream, encrypted: bool) -> ProbeResult {
    if encrypted && stream.agreed_protocol() != Some(PROTOCOL) {
        return ProbeResult::Unhealthy("TLS without HTTP/2 (`h2` by ALPN)".to_owned());
    }
    let request = match request(probe, host, encrypted) {
        Ok(request) => request,
        Err(error) => return ProbeResult::OwnFault(error.to_string()),
    };
    let tasks = Tasks::default();
    let _ended = Ended(tasks.clone());
    let made = http2::Builder::new(tasks).max_header_list_size(MOST_HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = match made {
        Ok(made) => made,
        Err(error) => return ProbeResult::failed(&error),
    };
    let answer = async {
        match sender.send_request(request).await {
            Ok(response) => judge(response).await,
            Err(error) => ProbeResult::failed(&error),
        }
    };
    beside(connection, answer).await
}

fn request(probe: &GrpcProbe, host: &str, encrypted: bool) -> Result<Request<Full<Bytes>>, http::Error> {
    let scheme = if encrypted { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(METHOD).build()?;
    Request::post(uri)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(health_v1::request(&probe.service).into()))
}

async fn judge(response: Response<Incoming>) -> ProbeResult {
    if response.status() != StatusCode::OK {
        return ProbeResult::Unhealthy(format!("HTTP {}, no gRPC", response.status()));
    }
    // An error may come as trailers alone, which are then the head.
    let mut status = grpc_status(response.headers());
    let (mut body, mut message) = (response.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return ProbeResult::failed(&error),
        };
        match frame.into_data() {
            Ok(data) if message.len() + data.len() > MOST_BODY => {
                return ProbeResult::Unhealthy("more than 16 KiB of message".to_owned());
            }
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => status = frame.trailers_ref().and_then(grpc_status).or(status),
        }
    }
    let status = status.as_ref().map(HeaderValue::as_bytes);
    match status {
        Some(b"0") => {}
        None => return ProbeResult::Unhealthy("a response without `grpc-status`".to_owned()),
        Some(other) => return ProbeResult::Unhealthy(told(other)),
    }
    match health_v1::response(&message) {
        Ok(ServingStatus::Serving) => ProbeResult::Healthy("SERVING".to_owned()),
        Ok(ServingStatus::NotServing) => ProbeResult::Unhealthy("NOT_SERVING".to_owned()),
        Ok(ServingStatus::Unknown) => ProbeResult::Unhealthy("UNKNOWN".to_owned()),
        Ok(ServingStatus::ServiceUnknown) => ProbeResult::Unhealthy("SERVICE_UNKNOWN".to_owned()),
        Ok(ServingStatus::Other(other)) => ProbeResult::Unhealthy(format!("serving status {other}")),
        Err(fault) => ProbeResult::Unhealthy(fault.to_string()),
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<HeaderValue> {
    fields.get("grpc-status").cloned()
}

fn told(status: &[u8]) -> String {
    let number = std::str::from_utf8(status).ok().and_then(|text| text.parse::<usize>().ok());
    match number.and_then(|number| STATUSES.get(number)) {
        Some(&"UNIMPLEMENTED") => "UNIMPLEMENTED: the server has no `grpc.health.v1.Health`".to_owned(),
        Some(&"NOT_FOUND") => "NOT_FOUND: the server knows no such `service`".to_owned(),
        Some(name) => (*name).to_owned(),
        None => format!("grpc-status {}", status.get(..20).unwrap_or(status).escape_ascii()),
    }
}
