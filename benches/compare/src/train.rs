//! Work for an instrumented headgate: what it does most is what its build then makes fast (`.ci/release`).
//!
//! A share of each kind of request that the rows measure, and a few that they do not; so many of each and not for so
//! long, which keeps a profile from depending on the machine. What is not answered rightly ends it: a build that learned
//! from refusals would be fast at refusing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::http1::read_response;
use crate::lab::Ground;
use crate::load::tls::{self, Version};
use crate::load::tunnels;
use crate::proxies::Kind;

/// One kind of request.
#[derive(Debug, Clone, Copy)]
struct Ask {
    path: &'static str,
    /// Bytes that are sent; a POST when there are any.
    sent: usize,
    /// Bytes that are to come.
    body: usize,
}

/// Where, and how.
#[derive(Debug, Clone)]
struct Way {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    clients: usize,
}

const SMALL: Ask = Ask { path: "/1k", sent: 0, body: 1024 };
const LARGE: Ask = Ask { path: "/1m", sent: 0, body: 1024 * 1024 };
const CACHED: Ask = Ask { path: "/cached/1k", sent: 0, body: 1024 };
const CACHED_LARGE: Ask = Ask { path: "/cached/100k", sent: 0, body: 100 * 1024 };
const POST: Ask = Ask { path: "/notes", sent: 16 * 1024, body: 2 };
const SHORT_POST: Ask = Ask { path: "/notes", sent: 200, body: 2 };

/// Streams on each HTTP/2 connection.
const STREAMS: usize = 10;
const TUNNELS: usize = 64;

/// Starts headgate with the config of the comparison, sends it the work, and ends it, at which it writes its profile.
pub async fn train(headgate: &Path) -> Result<()> {
    let ground = Ground::prepare(headgate).await?;
    let proxy = ground.setting.start(Kind::Headgate, 1).await?;
    let secure = |protocol: &[u8], version, clients| -> Result<Way> {
        Ok(Way { address: proxy.address(true), tls: Some(tls::config_for(protocol, version, true)?), clients })
    };
    let plain = Way { address: proxy.address(false), tls: None, clients: 64 };

    for (ask, each) in [(SMALL, 600), (CACHED, 600), (POST, 150), (SHORT_POST, 150), (CACHED_LARGE, 60), (LARGE, 10)] {
        http1(&plain, ask, each, each).await?;
    }
    for ask in [SMALL, CACHED, POST] {
        http1(&plain, ask, 100, 1).await?;
    }
    http1(&Way { clients: 1000, ..plain }, SMALL, 20, 20).await?;
    for version in [Version::Tls13, Version::Tls12] {
        let way = secure(b"http/1.1", version, 64)?;
        for (ask, each, on_each) in [(SMALL, 150, 150), (CACHED, 150, 150), (LARGE, 3, 3), (SMALL, 20, 1)] {
            http1(&way, ask, each, on_each).await?;
        }
    }
    let way = secure(b"h2", Version::Tls13, 16)?;
    for (ask, each) in [(SMALL, 250), (CACHED, 250), (POST, 30), (SHORT_POST, 30), (CACHED_LARGE, 10), (LARGE, 2)] {
        http2(&way, ask, each).await?;
    }
    for _ in 0..20 {
        let mut open = JoinSet::new();
        (0..TUNNELS).for_each(|_| drop(open.spawn(tunnels::check(proxy.address(false)))));
        finish(open).await?;
    }
    // At its end it writes what it has counted.
    proxy.process.end().await
}

/// `each` requests of each client, `on_each` on one connection.
async fn http1(way: &Way, ask: Ask, each: usize, on_each: usize) -> Result<()> {
    let mut clients = JoinSet::new();
    for _ in 0..way.clients {
        let way = way.clone();
        clients.spawn(async move {
            for _ in 0..each / on_each {
                let stream = connect(&way).await?;
                match &way.tls {
                    None => ask.over(stream, on_each).await?,
                    Some(config) => {
                        let connector = TlsConnector::from(Arc::clone(config));
                        ask.over(connector.connect(tls::server_name()?, stream).await?, on_each).await?;
                    }
                }
            }
            Ok(())
        });
    }
    finish(clients).await
}

/// `each` requests of each stream.
async fn http2(way: &Way, ask: Ask, each: usize) -> Result<()> {
    let mut streams = JoinSet::new();
    let connector = TlsConnector::from(Arc::clone(way.tls.as_ref().context("HTTP/2 is spoken over TLS here")?));
    for _ in 0..way.clients {
        let stream = connector.connect(tls::server_name()?, connect(way).await?).await?;
        let (send, connection) = h2::client::Builder::new().handshake::<_, Bytes>(stream).await?;
        // It ends when its last stream is gone.
        tokio::spawn(connection);
        for _ in 0..STREAMS {
            let send = send.clone();
            streams.spawn(async move {
                for _ in 0..each {
                    ask.over_http2(send.clone().ready().await?).await?;
                }
                Ok(())
            });
        }
    }
    finish(streams).await
}

async fn connect(way: &Way) -> Result<TcpStream> {
    let stream = TcpStream::connect(way.address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn finish(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

// === impl Ask ===

impl Ask {
    fn method(self) -> &'static str {
        if self.sent > 0 { "POST" } else { "GET" }
    }

    /// Asks so often on one connection, and says in the last request that it is the last.
    async fn over(self, mut stream: impl AsyncRead + AsyncWrite + Unpin, count: usize) -> Result<()> {
        for left in (0..count).rev() {
            let close = if left == 0 { "Connection: close\r\n" } else { "" };
            let length = if self.sent > 0 { format!("Content-Length: {}\r\n", self.sent) } else { String::new() };
            let head = format!("{} {} HTTP/1.1\r\nHost: localhost\r\n{length}{close}\r\n", self.method(), self.path);
            stream.write_all(&[head.into_bytes(), vec![b'x'; self.sent]].concat()).await?;
            stream.flush().await?;
            let response = read_response(&mut stream).await.with_context(|| format!("{self:?}"))?;
            self.expect(response.status, response.body.len())?;
        }
        Ok(())
    }

    async fn over_http2(self, mut send: h2::client::SendRequest<Bytes>) -> Result<()> {
        let uri = format!("https://localhost{}", self.path);
        let mut request = http::Request::builder().method(self.method()).uri(uri);
        if self.sent > 0 {
            request = request.header("content-length", self.sent);
        }
        let request = request.body(())?;
        let (response, mut body) = send.send_request(request, self.sent == 0)?;
        if self.sent > 0 {
            body.send_data(Bytes::from(vec![b'x'; self.sent]), true)?;
        }
        let (head, mut body) = response.await.with_context(|| format!("{self:?}"))?.into_parts();
        let mut received = 0;
        while let Some(piece) = body.data().await {
            let length = piece?.len();
            body.flow_control().release_capacity(length)?;
            received += length;
        }
        self.expect(head.status.as_u16(), received)
    }

    fn expect(self, status: u16, body: usize) -> Result<()> {
        ensure!(status == 200 && body == self.body, "{self:?}: status {status}, {body} bytes");
        Ok(())
    }
}
