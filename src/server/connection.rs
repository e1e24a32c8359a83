//! One client connection: its handshake, which protocol it speaks, and what they have in common.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryFutureExt as _;
use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;

use crate::base::boxed::pinned;
use crate::base::clock;
use crate::base::id::ListenerIndex;
use crate::base::reason::Reason;
use crate::base::record::ConnectionRecord;
use crate::base::text::push_ip;
use crate::config;
use crate::config::model::{ListenerLimits, ListenerTimeouts, Name};
use crate::proxy::{self, ConnectionInfo, ResponseBody, TlsInfo, WorkerContext, WorkerSnapshot};
use crate::server::phase::{Phase, Phases};
use crate::server::room::Room;
use crate::server::socket::Socket;
use crate::server::stream::{ClientStream, Transport};
use crate::server::streams::Streams;
use crate::server::watch::Watch;
use crate::server::{http1, http2};
use crate::snapshot::Listener;

/// What every HTTP/2 client begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The room for what tells the protocol.
const FIRST_READ: usize = 1024;

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// A connection that was just accepted.
pub(super) struct Accepted {
    pub socket: Cell<Option<Socket>>,
    pub peer: SocketAddr,
    pub listener: Name,
    pub index: ListenerIndex,
    pub snapshot: Rc<WorkerSnapshot>,
    pub worker: Rc<WorkerContext>,
    pub phases: Rc<Phases>,
    #[expect(dead_code, reason = "held for its drop, which counts the connection out")]
    pub open: Open,
}

/// A connection whose protocol is known.
struct Begun {
    protocol: Protocol,
    stream: ClientStream,
    info: Rc<ConnectionInfo>,
    watch: Rc<Watch>,
}

/// A connection that is ready for its first head.
struct Opened {
    transport: Transport,
    protocol: Protocol,
    /// What was read already.
    ahead: Bytes,
    tls: Option<TlsInfo>,
}

/// Counts a connection from its acceptance for as long as it is open.
pub(super) struct Open {
    worker: Rc<WorkerContext>,
    listener: Name,
    /// Counted out behind the metrics.
    _room: Room,
}

impl Open {
    pub(super) fn new(worker: &Rc<WorkerContext>, listener: &Listener, room: Room) -> Self {
        worker.metrics.connection_opened(&listener.spec.name);
        Self { worker: worker.clone(), listener: listener.spec.name.clone(), _room: room }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.metrics.connection_closed(&self.listener);
    }
}

impl Accepted {
    fn listener(&self) -> &config::model::Listener {
        &self.snapshot.listeners[self.index.at()].spec
    }

    pub(super) fn limits(&self) -> ListenerLimits {
        self.listener().limits
    }

    pub(super) fn timeouts(&self) -> ListenerTimeouts {
        self.listener().timeouts
    }

    /// Serves the connection to its end. What is over before the next step begins is boxed: an idle connection would
    /// keep room for it.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps room for its argument and for what it is moved to")]
    pub(super) fn serve(self) -> impl Future<Output = ()> {
        async move {
            let Some(Begun { protocol, stream, info, watch }) = Box::pin(self.begin()).await else { return };
            match protocol {
                Protocol::Http1 => http1::serve(&self, stream, info, watch).await,
                Protocol::Http2 => Box::pin(http2::serve(&self, stream, info, watch)).await,
            }
        }
    }

    /// Waits for the first bytes and shakes hands, in the time there is for that.
    async fn begin(&self) -> Option<Begun> {
        let listener = self.snapshot.listener(self.index)?;
        let timeouts = listener.spec.timeouts;
        let accepted = clock::now();
        // In clear the first bytes belong to the first head, so one deadline holds from here to its end.
        let (limit, slow) = match &listener.tls {
            Some(_) => (timeouts.handshake, Reason::HandshakeTimeout),
            None => (timeouts.header, Reason::HeaderTimeout),
        };
        let mut timer = self.worker.timers.timer();
        let opened = tokio::select! {
            biased;
            // First, since mostly the request is there with the connection; who goes on looks at the phase again.
            opened = self.open(listener.tls.as_ref().map(|tls| tls.config.clone())) => opened,
            () = self.phases.reached(Phase::Stop) => return None,
            () = poll_fn(|context| timer.poll(accepted + limit, context)) => {
                Err((slow, "nothing came in time".to_owned()))
            }
        };
        let Opened { transport, protocol, ahead, tls } = match opened {
            Ok(opened) => opened?,
            Err((reason, detail)) => {
                self.complain(reason, &detail);
                return None;
            }
        };
        let watch = Rc::new(match &listener.tls {
            Some(_) => Watch::new(timeouts),
            None => Watch::from_first_byte(timeouts, accepted),
        });
        let peer = self.peer.ip().to_canonical();
        let info = Rc::new(ConnectionInfo {
            listener: self.listener.clone(),
            peer,
            peer_field: field(peer),
            tls,
            accepted_under: self.snapshot.clone(),
            authority: RefCell::default(),
            running: Cell::new(0),
            on_change: Cell::new(false),
            closed_for: Cell::new(None),
            lingers: Cell::new(false),
            unread: Cell::new(false),
            ends_by_close: Cell::new(false),
            last_request: Cell::new(false),
            last_response: Cell::new(false),
            tunnel: RefCell::new(None),
        });
        let stream = ClientStream::new(transport, ahead, watch.clone(), info.clone());
        Some(Begun { protocol, stream, info, watch })
    }

    /// TLS where the listener has it, then which protocol is spoken. None where the client went without a word: that
    /// is how load balancers look whether somebody listens.
    async fn open(&self, tls: Option<Arc<rustls::ServerConfig>>) -> Result<Option<Opened>, (Reason, String)> {
        let mut socket = self.socket.take().ok_or((Reason::Internal, "the socket was taken twice".to_owned()))?;
        let Some(config) = tls else {
            let told = detect(&mut socket).await.map_err(|error| (Reason::ClientGone, error.to_string()))?;
            let transport = Transport::Clear(socket);
            return Ok(told.map(|(protocol, ahead)| Opened { transport, protocol, ahead, tls: None }));
        };
        // Until its first byte a client costs a socket, and no state of TLS.
        if !poll_fn(|context| socket.poll_arrival(context)).await {
            return Ok(None);
        }
        let stream = Box::pin(TlsAcceptor::from(config).accept(socket))
            .await
            .map_err(|error| (Reason::HandshakeFailed, error.to_string()))?;
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        };
        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        self.worker.metrics.handshake(&self.listener, version, resumed);
        let server_name = session.server_name().map(str::to_owned);
        let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        let (transport, tls) = (Transport::Tls(Box::new(stream)), Some(TlsInfo { version, server_name }));
        Ok(Some(Opened { transport, protocol, ahead: Bytes::new(), tls }))
    }

    /// Logs and counts what never became a request.
    fn complain(&self, reason: Reason, detail: &str) {
        let record = ConnectionRecord {
            client_ip: self.peer.ip().to_canonical(),
            listener: self.index,
            listener_name: &self.listener,
            status: None,
            reason,
            detail,
        };
        self.worker.metrics.connection(&record);
        self.worker.log.connection(&record);
    }

    /// Closes the connection for a timer that the client let run out: its requests' own records tell so, if any.
    pub(super) fn expire(&self, info: &ConnectionInfo, reason: Reason) {
        info.closed_for.set(Some(reason));
        if info.running.get() == 0 {
            self.complain(reason, "closed by its timer");
        }
    }

    /// What hyper refused by itself never reached our code: it is told from hyper's error.
    pub(super) fn explain(&self, error: &hyper::Error) {
        let reason = match error {
            error if error.is_parse_too_large() => Reason::HeadersTooLarge,
            error if error.is_parse() => Reason::MalformedRequest,
            error if error.is_user() => Reason::ResponseIncomplete,
            _ => return,
        };
        // The body's own record has said why, where a response broke off.
        if reason != Reason::ResponseIncomplete {
            let mut record_detail = error.to_string();
            if let Some(source) = std::error::Error::source(error) {
                record_detail = format!("{record_detail}: {source}");
            }
            self.complain(reason, &record_detail);
        }
    }
}

/// Hands a connection's requests to the proxy.
pub(super) struct Requests {
    worker: Rc<WorkerContext>,
    info: Rc<ConnectionInfo>,
    /// HTTP/2's, which none other has.
    streams: Option<Streams>,
}

impl Requests {
    pub(super) fn of(accepted: &Accepted, info: &Rc<ConnectionInfo>, streams: Option<Streams>) -> Self {
        Self { worker: accepted.worker.clone(), info: info.clone(), streams }
    }
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    // Boxed, because taking a connection apart after a 101 needs a future that can be moved.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (worker, info) = (self.worker.clone(), self.info.clone());
        let Some(streams) = &self.streams else {
            info.last_request.set(is_last(&request));
            return pinned(|| proxy::handle(worker, info, request));
        };
        let flow = streams.begin();
        let with_flow = |response: Response<ResponseBody>| response.map(|body| body.with_flow(flow));
        pinned(|| proxy::handle(worker, info, request).map_ok(with_flow))
    }
}

/// Whether the client has sent all that it will: a request without a body that asks for the connection's close
/// (RFC 9112 §9.6).
fn is_last(request: &Request<Incoming>) -> bool {
    let closes = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
    request.headers().get(header::CONNECTION).is_some_and(closes) && request.body().is_end_stream()
}

/// Tells HTTP/2 with prior knowledge from HTTP/1.1 by the first bytes, if any; what was read comes first later on.
async fn detect(socket: &mut Socket) -> std::io::Result<Option<(Protocol, Bytes)>> {
    // Most heads come whole in the first read.
    let mut start = BytesMut::with_capacity(FIRST_READ);
    loop {
        if socket.read_buf(&mut start).await? == 0 {
            return Ok((!start.is_empty()).then(|| (Protocol::Http1, start.freeze())));
        }
        if !start.iter().zip(PREFACE).all(|(sent, preface)| sent == preface) {
            return Ok(Some((Protocol::Http1, start.freeze())));
        }
        if start.len() >= PREFACE.len() {
            return Ok(Some((Protocol::Http2, start.freeze())));
        }
    }
}

/// An address as a field's value.
fn field(ip: IpAddr) -> HeaderValue {
    let mut text = Vec::with_capacity(40);
    push_ip(&mut text, ip);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// It is what an idle connection costs: what is busy is boxed.
    #[test]
    fn a_parked_connection_stays_small() {
        let size = size(Accepted::serve);
        assert!(size <= 1024, "{size} bytes");
    }
}
