//! Floor 6: one request, from its head to its answer.
//!
//! `answer_to` is the conductor: admit → decide → cache → { pick → attempt } → answer. The stages are functions that
//! take what they need and return a value; every branch stands in the conductor.

mod admit;
mod affinity;
mod answer;
mod attempt;
mod body;
mod body_room;
mod cached;
mod client;
mod error;
mod fault;
mod fetch;
mod flow;
mod forward;
mod headers;
mod intake;
mod lease;
mod ledger;
mod outage;
mod pick;
mod queue;
mod replay;
mod request_body;
mod response_body;
mod retrying;
#[cfg(debug_assertions)]
mod sabotage;
mod upgrade;
mod worker;

use std::convert::Infallible;
use std::rc::Rc;

use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;

pub use admit::Authority;
#[doc(hidden)]
pub use affinity::strip_cookie;
pub use answer::early_status;
pub use client::{ConnectionInfo, RequestGuard, TlsInfo, behind};
pub use error::{ProxyError, Stage};
pub use fault::{Contained, Fault};
pub use flow::Flow;
#[doc(hidden)]
pub use headers::for_endpoint_of_get;
pub use intake::{Intake, Ticket};
pub use response_body::ResponseBody;
pub use upgrade::Tunnel;
pub use worker::{WorkerContext, WorkerSnapshot};

use crate::base::reason::Reason;
use crate::decide::{DecideInput, Decision, decide};
use crate::proxy::admit::Admitted;
use crate::proxy::ledger::Ledger;
use crate::snapshot;

/// The longest body, in bytes, that hyper may find in its buffer where nobody has read it: such a connection goes on.
const SHORT: u64 = 16 * 1024;

/// Handles one request. Always answers: what goes wrong becomes an answer with a reason.
pub fn handle(
    worker: Rc<WorkerContext>,
    connection: Rc<ConnectionInfo>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    // Taken apart before the future begins, which would keep room for the whole beside its parts.
    let (mut parts, incoming) = request.into_parts();
    let of = worker.clone();
    // In it, and nothing before it: what is done before a future is made has the whole of it copied.
    let answering = async move {
        let version = parts.version;
        connection.ends_by_close.set(version == Version::HTTP_10);
        connection.unread.set(!incoming.is_end_stream());
        // A client that waits to be told to go on has not sent it.
        let is_short = connection.unread.get()
            && incoming.size_hint().exact().is_some_and(|length| length <= SHORT)
            && !parts.headers.contains_key(header::EXPECT);
        let mut answer = answer_to(&worker, &connection, &mut parts, incoming).await;
        // hyper ends a connection behind an answer to a body that it would have to wait for.
        let ends = connection.unread.get() && !is_short && version < Version::HTTP_2;
        if (connection.last_response.get() || ends) && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            // What its client sends behind it is not to reset the connection before it is read.
            connection.lingers.set(true);
            close_after(&mut answer, version);
        }
        Ok(answer)
    };
    // The ledger goes down with the fault, and writes its record then.
    Contained::new(answering, of, "request", || Ok(answer::fault()))
}

/// Marks an answer as the last on its connection.
fn close_after(answer: &mut Response<ResponseBody>, version: Version) {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    // Where an HTTP/1.0 client asks for keep-alive, hyper would grant it behind our back to an answer of HTTP/1.1.
    if version == Version::HTTP_10 {
        *answer.version_mut() = version;
    }
}

/// The conductor.
async fn answer_to(
    worker: &Rc<WorkerContext>,
    connection: &Rc<ConnectionInfo>,
    parts: &mut Parts,
    incoming: Incoming,
) -> Response<ResponseBody> {
    let (snapshot, listener) = connection.snapshot(worker);
    let snapshot::Listener { spec, tls, .. } = &snapshot.listeners[listener.at()];
    let name = connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    let client = client::identify(&parts.headers, connection.peer, &spec.trusted_proxies);
    let (admitted, fault) =
        match admit::admit(parts, spec, tls.as_ref().map(|tls| &*tls.resolver).zip(name), &connection.authority) {
            Ok(admitted) => (admitted.with_body_of(&incoming), None),
            Err(reason) => (Admitted::refused(&parts.uri), Some(reason)),
        };
    let mut ledger = Ledger::open(worker, &snapshot, connection, listener, client, admitted, parts);
    if let Some(reason) = fault {
        // What follows on this connection cannot be trusted to begin where we think it does.
        let mut answer = answer::refusal(reason, ledger);
        close_after(&mut answer, parts.version);
        return answer;
    }
    #[cfg(debug_assertions)]
    sabotage::request();
    let decision = { decide(&DecideInput::of(&snapshot), &ledger.view(parts)) };
    match decision {
        Decision::HttpsRedirect { location } => answer::redirect(StatusCode::PERMANENT_REDIRECT, &location, ledger),
        Decision::NoRoute => answer::refusal(Reason::NoRoute, ledger),
        Decision::BadPath => answer::refusal(Reason::BadPath, ledger),
        Decision::Redirect { index, status, location } => {
            ledger.routed(index);
            answer::redirect(status, &location, ledger)
        }
        Decision::Respond { index, respond } => {
            ledger.routed(index);
            answer::fixed(respond, ledger)
        }
        Decision::Forward(plan) => {
            ledger.routed(plan.index);
            forward::Forward { worker, snapshot: &snapshot, connection, listener: spec, plan: &plan }
                .run(parts, incoming, ledger)
                .await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Each request has one on the heap, made where it lies: what is rare (a body to read, a connection to open, a tunnel)
    /// is boxed where it is needed.
    #[test]
    fn a_requests_future_stays_small() {
        let size = size(handle);
        assert!(size <= 2752, "{size} bytes");
    }
}
