//! One request of a row's kind before the row is measured: a fast wrong answer is not to win.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::http1::{Response, read_response};
use crate::load::tls::{self, Version};
use crate::load::{handshake, tunnels, wrk};
use crate::proxies::Proxy;
use crate::rows::{Generator, Row};

const LIMIT: Duration = Duration::from_secs(5);

/// Sends what the row sends, once, and looks at the answer. HTTP/2 is looked at by its own generator in the first
/// round; here the same target is asked for over HTTP/1.1.
pub async fn check(row: &Row, proxy: &Proxy, origin: SocketAddr) -> Result<()> {
    let address = proxy.address(row.tls());
    match row.generator {
        Generator::Wrk(plan) => {
            let body = if plan.post { vec![b'x'; wrk::POST_BYTES] } else { Vec::new() };
            let method = if plan.post { "POST" } else { "GET" };
            let response = ask(address, plan.tls, method, plan.path, &body).await?;
            expect(&response, plan.body)?;
        }
        Generator::H2load(plan) => expect(&ask(address, true, "GET", plan.path, &[]).await?, plan.body)?,
        Generator::Handshake { version, resumed } => {
            let plan = handshake::Plan { address, version, resumed, slots: 1, seconds: 0.0 };
            handshake::check(&plan).await?;
        }
        Generator::Tunnels => tunnels::check(address).await?,
        Generator::Idle { tls } => expect(&ask(address, tls, "GET", "/1k", &[]).await?, 1024)?,
        Generator::Open { .. } => expect(&ask(address, false, "GET", "/1k", &[]).await?, 1024)?,
    }
    if row.cached() { check_cached(row, proxy, origin).await } else { Ok(()) }
}

/// How often the origin was asked for what may be cached.
pub async fn cached_asked(origin: SocketAddr) -> Result<u64> {
    let response = get(origin, "/count").await?;
    str::from_utf8(&response.body)?.parse().context("the origin's count is no number")
}

/// Asks for a target in plain HTTP/1.1.
pub async fn get(address: SocketAddr, path: &str) -> Result<Response> {
    ask(address, false, "GET", path, &[]).await
}

/// The first request has put it into the cache; the next ones may not reach the origin.
async fn check_cached(row: &Row, proxy: &Proxy, origin: SocketAddr) -> Result<()> {
    let path = match row.generator {
        Generator::Wrk(plan) => plan.path,
        Generator::H2load(plan) => plan.path,
        _ => return Ok(()),
    };
    let before = cached_asked(origin).await?;
    for _ in 0..3 {
        let response = ask(proxy.address(row.tls()), row.tls(), "GET", path, &[]).await?;
        ensure!(response.status == 200, "status {}", response.status);
    }
    let asked = cached_asked(origin).await? - before;
    ensure!(asked == 0, "{asked} of 3 requests for what is cached reached the origin");
    Ok(())
}

async fn ask(address: SocketAddr, tls: bool, method: &str, path: &str, body: &[u8]) -> Result<Response> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.context("cannot connect")?;
        if tls {
            let connector = TlsConnector::from(Arc::clone(&tls::config(Version::Tls13, false)?));
            let stream = connector.connect(tls::server_name()?, stream).await.context("no handshake")?;
            send(stream, address, method, path, body).await
        } else {
            send(stream, address, method, path, body).await
        }
    };
    timeout(LIMIT, exchange).await.context("no answer within 5 s")?
}

async fn send(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Response> {
    // The same Host as wrk and h2load send: it is part of what a cache goes by.
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{length}\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    stream.flush().await?;
    read_response(&mut stream).await
}

fn expect(response: &Response, body: u64) -> Result<()> {
    let found = response.body.len() as u64;
    ensure!(response.status == 200 && found == body, "status {}, {found} bytes of {body}", response.status);
    Ok(())
}

/// Whether somebody takes connections on a port of loopback.
pub async fn listens(port: u16) -> bool {
    TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.is_ok()
}
