//! A gRPC health service of the test's own: HTTP/2 in clear or over TLS, and what it says may change at any time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use headgate::base::task::spawn_local;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio_rustls::TlsAcceptor;

/// `ServingStatus` of grpc.health.v1.
pub(crate) const SERVING: u8 = 1;
pub(crate) const NOT_SERVING: u8 = 2;

/// Runs in a thread of its own for as long as the test does.
pub(crate) struct RpcHealth {
    pub(crate) address: SocketAddr,
    status: Arc<AtomicU8>,
    asked: Arc<Mutex<Vec<(String, Bytes)>>>,
}

impl RpcHealth {
    /// Says SERVING until told otherwise.
    pub(crate) fn start(tls: Option<ServerConfig>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let health = Self { address, status: Arc::new(AtomicU8::new(SERVING)), asked: Arc::default() };
        let (status, asked) = (health.status.clone(), health.asked.clone());
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
                while let Ok((stream, _)) = listener.accept().await {
                    let (status, asked, acceptor) = (status.clone(), asked.clone(), acceptor.clone());
                    spawn_local(async move {
                        match acceptor {
                            None => serve(stream, status, asked).await,
                            Some(acceptor) => {
                                let Ok(stream) = acceptor.accept(stream).await else { return };
                                serve(stream, status, asked).await;
                            }
                        }
                    });
                }
            });
        });
        health
    }

    pub(crate) fn say(&self, status: u8) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The URL of each call, and its message with the prefix.
    pub(crate) fn asked(&self) -> Vec<(String, Bytes)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    status: Arc<AtomicU8>,
    asked: Arc<Mutex<Vec<(String, Bytes)>>>,
) {
    let answer = |request: Request<Incoming>| {
        let (status, asked) = (status.clone(), asked.clone());
        async move {
            let url = request.uri().to_string();
            let message = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            asked.lock().unwrap().push((url, message.unwrap_or_default()));
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let message = vec![0, 0, 0, 0, 2, 8, status.load(Ordering::SeqCst)];
            let body = Full::new(Bytes::from(message)).with_trailers(std::future::ready(Some(Ok(trailers))));
            Ok::<_, Infallible>(Response::new(body))
        }
    };
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}
