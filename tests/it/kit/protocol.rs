//! The same exchange over every protocol that a client may speak.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use headgate::base::task::spawn_local;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio_rustls::TlsConnector;

use crate::kit::Proxy;
use crate::kit::tls::client_config;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http1Tls,
    Http2,
    Http2Tls,
}

impl Protocol {
    pub(crate) const ALL: [Self; 4] = [Self::Http1, Self::Http1Tls, Self::Http2, Self::Http2Tls];

    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2Tls)
    }
}

/// A request's body, piece by piece.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pieces: VecDeque<Result<Bytes, HeaderMap>>,
    length: Option<u64>,
}

impl Content {
    /// Of known length.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { length: Some(bytes.len() as u64), pieces: [Ok(bytes)].into() }
    }

    /// Of unknown length.
    pub(crate) fn streamed(pieces: &[&'static str]) -> Self {
        Self { pieces: pieces.iter().map(|&piece| Ok(Bytes::from_static(piece.as_bytes()))).collect(), length: None }
    }

    pub(crate) fn with_trailer(mut self, name: &'static str, value: &str) -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert(name, value.parse().unwrap());
        self.pieces.push_back(Err(trailers));
        self
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.pieces.pop_front().map(|piece| piece.map_or_else(Frame::trailers, Frame::data));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) => SizeHint::with_exact(length),
            None if self.pieces.is_empty() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

/// A response as the client got it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

enum Sender {
    One(http1::SendRequest<Content>),
    Two(http2::SendRequest<Content>),
}

/// One connection to a proxy with listeners `http` and `https`, in a runtime of its own.
pub(crate) struct Talker {
    runtime: LocalRuntime,
    sender: Sender,
    protocol: Protocol,
}

impl Talker {
    pub(crate) fn connect(proxy: &Proxy, protocol: Protocol) -> Self {
        Self::named(proxy, protocol, "a")
    }

    /// Likewise with another name in the TLS handshake.
    pub(crate) fn named(proxy: &Proxy, protocol: Protocol, name: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        let sender = runtime.block_on(open(proxy, protocol, name.to_owned()));
        Self { runtime, sender, protocol }
    }

    /// Sends a request to its host (`a` without one) and takes the whole response; an error where it broke off.
    pub(crate) fn exchange(&mut self, mut request: Request<Content>) -> Result<Reply, hyper::Error> {
        let path = request.uri().path_and_query().unwrap().clone();
        let host = request.uri().host().unwrap_or("a").to_owned();
        if self.protocol.is_http2() {
            *request.uri_mut() = format!("https://{host}{path}").parse().unwrap();
        } else {
            *request.uri_mut() = path.as_str().parse().unwrap();
            request.headers_mut().insert("host", host.parse().unwrap());
        }
        self.runtime.block_on(async {
            let exchange = async {
                let response = match &mut self.sender {
                    Sender::One(sender) => sender.send_request(request).await,
                    Sender::Two(sender) => sender.send_request(request).await,
                };
                collect(response?).await
            };
            tokio::time::timeout(Duration::from_secs(20), exchange).await.expect("an answer within 20 s")
        })
    }
}

async fn collect(response: Response<Incoming>) -> Result<Reply, hyper::Error> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let body = collected.to_bytes().to_vec();
    Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

async fn open(proxy: &Proxy, protocol: Protocol, name: String) -> Sender {
    let tls = matches!(protocol, Protocol::Http1Tls | Protocol::Http2Tls);
    let socket = TcpStream::connect(proxy.address_of(if tls { "https" } else { "http" })).await.unwrap();
    if !tls {
        return speak(TokioIo::new(socket), protocol).await;
    }
    let alpn = if protocol.is_http2() { "h2" } else { "http/1.1" };
    let config = client_config(rustls::ALL_VERSIONS, &[alpn]);
    let stream = TlsConnector::from(Arc::new(config)).connect(name.try_into().unwrap(), socket).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
    speak(TokioIo::new(stream), protocol).await
}

async fn speak(io: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static, protocol: Protocol) -> Sender {
    match protocol.is_http2() {
        false => {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            spawn_local(connection);
            Sender::One(sender)
        }
        true => {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            spawn_local(connection);
            Sender::Two(sender)
        }
    }
}
