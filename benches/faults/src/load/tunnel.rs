//! WebSocket tunnels through the proxy, held open on one thread: how long each lives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

const REQUEST: &[u8] = b"GET /tunnel HTTP/1.1\r\nHost: faults.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// From one message to the next.
const EVERY: Duration = Duration::from_millis(200);

/// Tunnels that run.
#[derive(Debug)]
pub struct Tunnels {
    open: Arc<AtomicU64>,
    thread: JoinHandle<Result<Vec<Instant>>>,
}

impl Tunnels {
    /// Opens so many; each echoes a message every 200 ms until it is closed.
    pub fn open(address: SocketAddr, count: usize) -> Result<Self> {
        let open = Arc::new(AtomicU64::new(0));
        let opened = open.clone();
        let thread = std::thread::Builder::new().name("tunnels".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, async {
                let tunnels: Vec<_> =
                    (0..count).map(|_| tokio::task::spawn_local(tunnel(address, opened.clone()))).collect();
                let mut ends = Vec::new();
                for tunnel in tunnels {
                    ends.push(tunnel.await.context("a tunnel has panicked")??);
                }
                Ok(ends)
            })
        })?;
        Ok(Self { open, thread })
    }

    /// How many are open.
    pub fn count(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// When each was closed; waits for the last.
    pub fn ends(self) -> Result<Vec<Instant>> {
        self.thread.join().map_err(|_| anyhow!("the tunnels have panicked"))?
    }
}

async fn tunnel(address: SocketAddr, open: Arc<AtomicU64>) -> Result<Instant> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(REQUEST).await?;
    let mut head = Vec::new();
    while memmem::find(&head, b"\r\n\r\n").is_none() {
        ensure!(stream.read_buf(&mut head).await? > 0, "closed before the answer to an upgrade");
    }
    ensure!(head.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(&head));
    open.fetch_add(1, Relaxed);
    let mut echo = [0; 5];
    loop {
        let exchanged = async {
            stream.write_all(b"hello").await?;
            stream.read_exact(&mut echo).await
        };
        if exchanged.await.is_err() {
            open.fetch_sub(1, Relaxed);
            return Ok(Instant::now());
        }
        // An end between two messages must not wait for the next one.
        if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(EVERY, stream.peek(&mut echo)).await {
            open.fetch_sub(1, Relaxed);
            return Ok(Instant::now());
        }
    }
}
