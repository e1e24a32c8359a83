//! WebSockets that echo: each tunnel sends a message, waits for it, and sends the next.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Outcome, Tally, child};
use crate::http1::read_response;
use crate::websocket::{EXAMPLE_KEY, frame};

const MESSAGE: [u8; 128] = [b'm'; 128];
const LIMIT: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The proxy.
    pub address: SocketAddr,
    /// How many, all open before the first message.
    pub tunnels: usize,
    /// How long.
    pub seconds: f64,
}

/// Runs the load.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let mut streams = Vec::with_capacity(plan.tunnels);
    for _ in 0..plan.tunnels {
        streams.push(timeout(LIMIT, open(plan.address)).await.context("no tunnel within 10 s")??);
    }
    child::wait_for_go()?;

    let start = Instant::now();
    let deadline = start + Duration::from_secs_f64(plan.seconds);
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(chat(stream, deadline));
    }
    let mut tally = Tally::new();
    while let Some(tunnel) = tasks.join_next().await {
        let (latencies, end) = tunnel?;
        latencies.into_iter().for_each(|latency| tally.latencies.record(latency));
        if let Err(error) = end {
            tally.fail(format_args!("{error:#}"));
        }
    }
    Ok(tally.outcome(start.elapsed().as_secs_f64()))
}

/// Opens one tunnel and sends one message.
pub async fn check(address: SocketAddr) -> Result<()> {
    let stream = timeout(LIMIT, open(address)).await.context("no tunnel within 10 s")??;
    chat(stream, Instant::now() + Duration::from_millis(1)).await.1
}

async fn open(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {EXAMPLE_KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let response = read_response(&mut stream).await?;
    ensure!(response.status == 101, "status {} instead of 101", response.status);
    Ok(stream)
}

async fn chat(mut stream: TcpStream, deadline: Instant) -> (Vec<Duration>, Result<()>) {
    let sent = frame(&MESSAGE, Some([0x12, 0x34, 0x56, 0x78]));
    let expected = frame(&MESSAGE, None);
    let mut received = vec![0; expected.len()];
    let mut latencies = Vec::new();
    while Instant::now() < deadline {
        let begun = Instant::now();
        let end = async {
            stream.write_all(&sent).await.context("cannot send")?;
            timeout(LIMIT, stream.read_exact(&mut received)).await.context("no echo within 10 s")??;
            ensure!(received == expected, "another message came back");
            Ok(())
        };
        if let Err(error) = end.await {
            return (latencies, Err(error));
        }
        latencies.push(begun.elapsed());
    }
    (latencies, Ok(()))
}
