//! Connections that were used once and are then held.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::tls::{self, Version};
use super::{Outcome, Tally, child};
use crate::http1::read_response;

const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// So many are being opened at a time.
const OPENING: usize = 32;
const LIMIT: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The proxy.
    pub address: SocketAddr,
    /// Whether over TLS 1.3.
    pub tls: bool,
    /// How many.
    pub connections: usize,
    /// Requests on each.
    pub requests: usize,
}

/// A plain or a TLS connection, held by keeping it.
trait Held: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Held for T {}

/// Opens the connections, says so, and holds them until the parent has looked.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let config = tls::config(Version::Tls13, false)?;
    let start = Instant::now();
    let mut tally = Tally::new();
    let mut held = Vec::with_capacity(plan.connections);
    let mut opening = JoinSet::new();
    for _ in 0..plan.connections {
        if opening.len() == OPENING
            && let Some(opened) = opening.join_next().await
        {
            held.push(opened??);
        }
        let (config, plan) = (Arc::clone(&config), plan.clone());
        opening.spawn(async move { timeout(LIMIT, open(&config, &plan)).await.context("not open within 10 s")? });
    }
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    held.iter().for_each(|_| tally.latencies.record(Duration::ZERO));
    let outcome = tally.outcome(start.elapsed().as_secs_f64());
    child::wait_for_go()?;
    Ok(outcome)
}

async fn open(config: &Arc<ClientConfig>, plan: &Plan) -> Result<Box<dyn Held>> {
    let stream = TcpStream::connect(plan.address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Held> = if plan.tls {
        let connector = TlsConnector::from(Arc::clone(config));
        Box::new(connector.connect(tls::server_name()?, stream).await.context("no handshake")?)
    } else {
        Box::new(stream)
    };
    for _ in 0..plan.requests {
        stream.write_all(REQUEST).await?;
        stream.flush().await?;
        let response = read_response(&mut stream).await?;
        ensure!(response.status == 200, "status {}", response.status);
    }
    Ok(stream)
}
