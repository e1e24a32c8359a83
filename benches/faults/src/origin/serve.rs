//! An origin's connections: as much of HTTP/1.1 as headgate speaks to it, written by hand so that it can misbehave.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::{Answer, Behind, Record, Script};
use crate::load::locked;

/// Heads are small here, and so are the bodies of requests.
const MAX_REQUEST: usize = 1024 * 1024;
/// Pieces of a body that takes its time.
const PIECES: u32 = 100;
/// What bodies are made of.
static PIECE: [u8; 32 * 1024] = [b'x'; 32 * 1024];

/// A request, read to its end.
struct Asked {
    id: Option<u64>,
    is_probe: bool,
    is_head: bool,
    upgrades: bool,
}

/// Accepts until it is dropped.
pub(super) async fn accept(listener: TcpListener, name: String, record: Arc<Record>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        locked(&record.connects).push(Instant::now());
        let (name, record) = (name.clone(), record.clone());
        spawn_local(async move {
            record.open.fetch_add(1, Relaxed);
            // An error ends the connection; what it means shows at the client.
            let _ = serve(stream, &name, &record).await;
            // A killed origin has set it to nothing.
            let _ = record.open.fetch_update(Relaxed, Relaxed, |open| open.checked_sub(1));
        });
    }
}

async fn serve(mut stream: TcpStream, name: &str, record: &Record) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let idle = match record.script().behind {
            Behind::CloseAfter(idle) => idle,
            Behind::Keep | Behind::Close | Behind::Reset => Duration::MAX,
        };
        let read = tokio::time::timeout(idle, read_request(&mut stream, &mut buffer));
        // Without a request in time the connection is closed: FIN, as a server does.
        let Ok(asked) = read.await else { return Ok(()) };
        let Some(asked) = asked? else { return Ok(()) };
        if asked.upgrades {
            return echo(stream, buffer).await;
        }
        let script = record.script();
        if asked.is_probe {
            locked(&record.probes).push(Instant::now());
        } else if let Some(id) = asked.id {
            record.count(id);
        }
        let real = u64::from(!asked.is_probe);
        let running = record.running.fetch_add(real, Relaxed) + real;
        record.peak.fetch_max(running, Relaxed);
        let answered = answer(&mut stream, name, &script, &asked, record).await;
        let _ = record.running.fetch_update(Relaxed, Relaxed, |running| running.checked_sub(real));
        answered?;
        match script.behind {
            Behind::Keep | Behind::CloseAfter(_) => {}
            Behind::Close => return Ok(stream.shutdown().await?),
            Behind::Reset => return Ok(SockRef::from(&stream).set_linger(Some(Duration::ZERO))?),
        }
    }
}

async fn answer(stream: &mut TcpStream, name: &str, script: &Script, asked: &Asked, record: &Record) -> Result<()> {
    let status = if asked.is_probe { script.health } else { script.status };
    let (closes, cache) = (!matches!(script.behind, Behind::Keep | Behind::CloseAfter(_)), script.max_age);
    let close = if closes { "Connection: close\r\n" } else { "" };
    let cache = cache.map_or("no-store".to_owned(), |seconds| format!("max-age={seconds}"));
    let length = if asked.is_probe { 2 } else { script.body };
    let head = format!(
        "HTTP/1.1 {status} Scripted\r\nContent-Type: text/plain\r\nCache-Control: {cache}\r\nX-Origin: {name}\r\n\
         X-Body-Bytes: {length}\r\nContent-Length: {length}\r\n{close}\r\n"
    );
    if !asked.is_probe {
        tokio::time::sleep(script.delay).await;
        match script.answer {
            Answer::Whole => {}
            Answer::HeadOnly => {
                stream.write_all(head.as_bytes()).await?;
                return pending_until_gone(stream).await;
            }
        }
    }
    let mut left = if asked.is_head { 0 } else { length };
    if left <= PIECE.len() && (script.pace.is_zero() || asked.is_probe) {
        stream.write_all(&[head.as_bytes(), &PIECE[..left]].concat()).await?;
        return Ok(());
    }
    stream.write_all(head.as_bytes()).await?;
    let most = if script.pace.is_zero() { PIECE.len() } else { left.div_ceil(PIECES as usize).max(1) };
    while left > 0 {
        if !script.pace.is_zero() {
            tokio::time::sleep(script.pace / PIECES).await;
        }
        let piece = &PIECE[..left.min(most).min(PIECE.len())];
        stream.write_all(piece).await?;
        record.written.fetch_add(piece.len() as u64, Relaxed);
        left -= piece.len();
    }
    Ok(())
}

/// Holds the connection for as long as the peer does.
async fn pending_until_gone(stream: &mut TcpStream) -> Result<()> {
    let mut more = [0; 1024];
    while stream.read(&mut more).await? > 0 {}
    bail!("the peer has gone")
}

/// Reads one request with its body; nothing at the connection's end.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Asked>> {
    loop {
        if let Some(end) = memmem::find(buffer, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let field = |name: &str| {
                head.lines().skip(1).find_map(|line| {
                    let (found, value) = line.split_once(':')?;
                    found.eq_ignore_ascii_case(name).then(|| value.trim())
                })
            };
            ensure!(field("transfer-encoding").is_none(), "chunked requests are not spoken here");
            let body = field("content-length").map_or(Ok(0), str::parse::<usize>).context("a length")?;
            if buffer.len() >= end + 4 + body {
                let asked = Asked {
                    id: field("x-fault-id").and_then(|id| id.parse().ok()),
                    is_probe: head.split(' ').nth(1).is_some_and(|target| target.starts_with("/healthz")),
                    is_head: head.starts_with("HEAD "),
                    upgrades: field("upgrade").is_some(),
                };
                buffer.drain(..end + 4 + body);
                return Ok(Some(asked));
            }
        }
        ensure!(buffer.len() < MAX_REQUEST, "more than {MAX_REQUEST} bytes that are no whole request");
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// A tunnel that gives back what it gets. What goes through it is no WebSocket, and headgate does not look.
async fn echo(mut stream: TcpStream, early: Vec<u8>) -> Result<()> {
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await?;
    stream.write_all(&early).await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    pending().await
}
