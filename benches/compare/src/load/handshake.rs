//! A TLS handshake for each request: all full, or all resumed by ticket.
//!
//! Each slot has a session store of its own and begins with one full handshake, which is not counted. A handshake of
//! the other kind, another group than X25519, or anything but the expected answer is an error.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConfig, HandshakeKind, NamedGroup};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::tls::{self, Version};
use super::{Outcome, Tally, child};
use crate::http1::Head;

const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const BODY_BYTES: usize = 1024;
const LIMIT: Duration = Duration::from_secs(5);
/// A slot that failed so often stops: the row is lost anyway.
const MAX_ERRORS: u64 = 20;

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The proxy.
    pub address: SocketAddr,
    /// The version of TLS.
    pub version: Version,
    /// Whether by ticket.
    pub resumed: bool,
    /// Handshakes at the same time.
    pub slots: usize,
    /// How long.
    pub seconds: f64,
}

/// Runs the load.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let mut slots = Vec::new();
    for _ in 0..plan.slots {
        let config = tls::config(plan.version, plan.resumed)?;
        exchange(&config, plan.address, HandshakeKind::Full).await.context("the first handshake failed")?;
        slots.push(config);
    }
    child::wait_for_go()?;

    let kind = if plan.resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
    let start = Instant::now();
    let deadline = start + Duration::from_secs_f64(plan.seconds);
    let address = plan.address;
    let mut tasks = JoinSet::new();
    for config in slots {
        tasks.spawn(async move {
            let mut tally = Vec::new();
            let mut errors = Vec::new();
            while Instant::now() < deadline && (errors.len() as u64) < MAX_ERRORS {
                let begun = Instant::now();
                match exchange(&config, address, kind).await {
                    Ok(()) => tally.push(begun.elapsed()),
                    Err(error) => errors.push(error),
                }
            }
            (tally, errors)
        });
    }
    let mut tally = Tally::new();
    while let Some(slot) = tasks.join_next().await {
        let (latencies, errors) = slot?;
        latencies.into_iter().for_each(|latency| tally.latencies.record(latency));
        errors.into_iter().for_each(|error| tally.fail(format_args!("{error:#}")));
    }
    Ok(tally.outcome(start.elapsed().as_secs_f64()))
}

/// Makes one handshake of each kind that the plan needs.
pub async fn check(plan: &Plan) -> Result<()> {
    let config = tls::config(plan.version, plan.resumed)?;
    exchange(&config, plan.address, HandshakeKind::Full).await?;
    if plan.resumed {
        exchange(&config, plan.address, HandshakeKind::Resumed).await?;
    }
    Ok(())
}

async fn exchange(config: &Arc<ClientConfig>, address: SocketAddr, kind: HandshakeKind) -> Result<()> {
    timeout(LIMIT, exchange_unbounded(config, address, kind)).await.context("no answer within 5 s")?
}

async fn exchange_unbounded(config: &Arc<ClientConfig>, address: SocketAddr, kind: HandshakeKind) -> Result<()> {
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::clone(config));
    let mut stream = connector.connect(tls::server_name()?, stream).await.context("no handshake")?;
    stream.write_all(REQUEST).await?;
    stream.flush().await?;
    // To the end: with TLS 1.3 the tickets come after the handshake, and a proxy sees an orderly client.
    let mut buffer = Vec::with_capacity(2048);
    while stream.read_buf(&mut buffer).await.context("cannot read")? > 0 {}

    let connection = stream.get_ref().1;
    let found = connection.handshake_kind();
    ensure!(found == Some(kind), "a handshake of kind {found:?} instead of {kind:?}");
    if let Some(group) = connection.negotiated_key_exchange_group() {
        ensure!(group.name() == NamedGroup::X25519, "a handshake with {:?}", group.name());
    }
    let Some(head) = Head::find(&buffer) else { bail!("no whole head before the end") };
    let body = buffer.len() - head.len();
    ensure!(head.status()? == 200 && body == BODY_BYTES, "status {}, {body} bytes of body", head.status()?);
    Ok(())
}
