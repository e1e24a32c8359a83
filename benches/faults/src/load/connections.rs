//! The client's connections, and one request on them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::seen::{End, Sample};
use super::{Load, Protocol, locked, without_response};

/// HTTP/2 connections, used in turn.
const H2_CONNECTIONS: usize = 4;
/// How often a request that was never sent is tried on another connection.
const TRIES: usize = 4;

type Body = Full<Bytes>;

/// The client of one load.
pub struct Client {
    load: Rc<Load>,
    idle: RefCell<VecDeque<http1::SendRequest<Body>>>,
    shared: [RefCell<Option<http2::SendRequest<Body>>>; H2_CONNECTIONS],
    turn: Cell<usize>,
}

/// What a try came to, short of a response.
enum Miss {
    /// Nothing of the request was sent.
    Unsent,
    Ended(End),
}

#[derive(Clone, Copy)]
struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

// === impl Client ===

impl Client {
    /// Without connections yet.
    pub fn new(load: Rc<Load>) -> Self {
        Self { load, idle: RefCell::default(), shared: Default::default(), turn: Cell::new(0) }
    }

    /// Sends one request and waits for its end.
    pub async fn ask(&self, intended: Instant, method: &'static str, id: u64, fresh: bool) -> Sample {
        let exchange = async {
            for _ in 0..TRIES {
                let tried = match self.load.protocol {
                    Protocol::H1 => self.ask_http1(intended, method, id, fresh).await,
                    Protocol::H2 => self.ask_http2(intended, method, id, fresh).await,
                };
                match tried {
                    Ok(sample) => return sample,
                    Err(Miss::Ended(end)) => return without_response(intended, method, id, end),
                    Err(Miss::Unsent) => {}
                }
            }
            without_response(intended, method, id, End::Odd(format!("unsent {TRIES} times")))
        };
        match tokio::time::timeout(self.load.timeout, exchange).await {
            Ok(sample) => sample,
            Err(_) => without_response(intended, method, id, End::Timeout),
        }
    }

    async fn ask_http1(&self, intended: Instant, method: &'static str, id: u64, fresh: bool) -> Result<Sample, Miss> {
        let idle = if fresh { None } else { self.take_idle() };
        let mut sender = match idle {
            Some(sender) => sender,
            None => {
                let stream = self.connect().await.map_err(Miss::Ended)?;
                let started = http1::handshake(TokioIo::new(stream)).await;
                let (sender, connection) = started.map_err(|error| Miss::Ended(end_of(&error)))?;
                spawn_local(connection);
                sender
            }
        };
        let response = sender.try_send_request(self.request(method, id)).await.map_err(miss)?;
        let sample = receive(response, intended, method, id).await;
        // Ready where the response was the last of neither the connection nor the test.
        if !fresh && sender.ready().await.is_ok() {
            self.idle.borrow_mut().push_back(sender);
        }
        Ok(sample)
    }

    fn take_idle(&self) -> Option<http1::SendRequest<Body>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(sender) = idle.pop_back() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    async fn ask_http2(&self, intended: Instant, method: &'static str, id: u64, fresh: bool) -> Result<Sample, Miss> {
        let mut sender = if fresh {
            self.connect_http2().await?
        } else {
            let turn = self.turn.get();
            self.turn.set(turn + 1);
            let slot = &self.shared[turn % H2_CONNECTIONS];
            let kept = slot.borrow().clone().filter(|sender| !sender.is_closed());
            match kept {
                Some(sender) => sender,
                None => {
                    let sender = self.connect_http2().await?;
                    slot.replace(Some(sender.clone()));
                    sender
                }
            }
        };
        if sender.ready().await.is_err() {
            return Err(Miss::Unsent);
        }
        let response = sender.try_send_request(self.request(method, id)).await.map_err(miss)?;
        Ok(receive(response, intended, method, id).await)
    }

    async fn connect_http2(&self) -> Result<http2::SendRequest<Body>, Miss> {
        let stream = self.connect().await.map_err(Miss::Ended)?;
        let started = http2::handshake(Local, TokioIo::new(stream)).await;
        let (sender, connection) = started.map_err(|error| Miss::Ended(end_of(&error)))?;
        spawn_local(connection);
        Ok(sender)
    }

    async fn connect(&self) -> Result<TcpStream, End> {
        let address = *locked(&self.load.address);
        let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => End::Refused,
            ErrorKind::ConnectionReset => End::Reset("connect".to_owned()),
            _ => End::NotConnected(error.to_string()),
        })?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn request(&self, method: &'static str, id: u64) -> Request<Body> {
        let has_body = matches!(method, "POST" | "PUT" | "PATCH");
        let body = if has_body { Bytes::from(vec![b'x'; self.load.body]) } else { Bytes::new() };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::from_bytes(method.as_bytes()).unwrap_or_default();
        let path = self.load.path.replace("{id}", &id.to_string());
        let target = match self.load.protocol {
            Protocol::H1 => path,
            Protocol::H2 => format!("http://faults.test{path}"),
        };
        *request.uri_mut() = target.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if self.load.protocol == Protocol::H1 {
            headers.insert("host", http::HeaderValue::from_static("faults.test"));
        }
        headers.insert("x-fault-id", id.into());
        request
    }
}

/// Reads the response to its end.
async fn receive(response: Response<Incoming>, intended: Instant, method: &'static str, id: u64) -> Sample {
    let status = response.status().as_u16();
    let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let reason = text("proxy-status").map(|value| value.rsplit("details=").next().unwrap_or_default().replace('"', ""));
    let meant: Option<usize> = text("x-body-bytes").and_then(|value| value.parse().ok());
    let (origin, retry_after) = (text("x-origin"), text("retry-after").is_some());
    let mut body = response.into_body();
    let mut bytes = 0;
    let mut end = End::Status(status);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => {
                end = End::Cut;
                break;
            }
        }
    }
    if end != End::Cut && method != "HEAD" && meant.is_some_and(|meant| meant != bytes) {
        end = End::Truncated;
    }
    Sample { intended, ended: Instant::now(), method, id, end, reason, retry_after, origin }
}

fn miss<B>(mut error: TrySendError<B>) -> Miss {
    if error.take_message().is_some() {
        return Miss::Unsent;
    }
    let error = error.into_error();
    let refused = h2_of(&error).is_some_and(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM));
    // RFC 9113, section 8.7: it has not been processed.
    if refused { Miss::Unsent } else { Miss::Ended(end_of(&error)) }
}

fn h2_of(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

fn end_of(error: &hyper::Error) -> End {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return End::Closed;
    }
    if let Some(error) = h2_of(error) {
        if error.is_io() {
            return End::Closed;
        }
        return End::Reset(error.to_string());
    }
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match source.map(io::Error::kind) {
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => End::Reset("connection".to_owned()),
        _ => End::Odd(error.to_string()),
    }
}
