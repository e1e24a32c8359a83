//! The two ends of a measured request: an origin and a client, plain threads and blocking sockets, so that each request
//! costs the proxy between them the same turns.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use headgate::base::clock;

use crate::scenario::{Protocol, Scenario};

/// The body of each response.
const BODY_BYTES: usize = 1024;
/// valgrind takes its time; whoever waits longer waits for something that never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers everything with the same 1 KiB.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl Origin {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let origin = Self { address: listener.local_addr()?, requests: Arc::default() };
        let requests = origin.requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let requests = requests.clone();
                // It ends with the proxy's end of the connection.
                std::thread::spawn(move || serve(stream, &requests));
            }
        });
        Ok(origin)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, requests: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ndate: {}\r\ncontent-type: text/css\r\n\
         cache-control: public, max-age=3600\r\netag: \"5f3c-1\"\r\ncontent-length: {BODY_BYTES}\r\n\r\n{}",
        // Of now: what is an hour old is not served from a cache.
        httpdate::fmt_http_date(clock::wall()),
        "x".repeat(BODY_BYTES)
    );
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        head.extend_from_slice(&piece[..count]);
        // Requests here have no body, and the next one waits for this answer.
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            requests.fetch_add(1, Ordering::SeqCst);
            stream.write_all(answer.as_bytes())?;
        }
    }
}

/// One connection that sends the same request again and again, each when the one before is answered.
pub(crate) enum Client {
    Http1 { stream: TcpStream, request: Vec<u8>, received: Vec<u8> },
    Http2 { stream: TcpStream, fields: Vec<u8>, next: u32 },
}

/// What a browser sends with each request.
const FIELDS: [(&str, &str); 5] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
];
const HOST: &str = "notes.example.com";

impl Client {
    pub(crate) fn connect(address: SocketAddr, scenario: &Scenario) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        match scenario.protocol {
            Protocol::Http1 => {
                let fields: String = FIELDS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let request = format!("GET {} HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n", scenario.path);
                Ok(Self::Http1 { stream, request: request.into_bytes(), received: Vec::new() })
            }
            Protocol::Http2 => http2::connect(stream, scenario.path),
        }
    }

    /// Sends so many requests and takes their answers.
    pub(crate) fn exchange(&mut self, count: u64) -> anyhow::Result<()> {
        for at in 0..count {
            match self {
                Self::Http1 { stream, request, received } => {
                    stream.write_all(request)?;
                    receive(stream, received)
                }
                Self::Http2 { stream, fields, next } => http2::exchange(stream, fields, next),
            }
            .with_context(|| format!("request {at} of {count}"))?;
        }
        Ok(())
    }
}

/// One whole response, which must be a good one.
fn receive(stream: &mut TcpStream, received: &mut Vec<u8>) -> anyhow::Result<()> {
    received.clear();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "the connection ended: {}", String::from_utf8_lossy(received));
        received.extend_from_slice(&piece[..count]);
        let Some(head) = received.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        if !received.starts_with(b"HTTP/1.1 200 ") {
            bail!("not the answer: {}", String::from_utf8_lossy(received));
        }
        if received.len() == head + 4 + BODY_BYTES {
            return Ok(());
        }
    }
}

/// As much of HTTP/2 (RFC 9113) as one request after the other takes, on cleartext with prior knowledge.
mod http2 {
    use super::{BODY_BYTES, Client, Context, FIELDS, HOST, Read, TcpStream, Write, bail, ensure};

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const WINDOW_UPDATE: u8 = 8;
    /// END_STREAM of a frame with content, ACK of settings.
    const END_OR_ACK: u8 = 1;
    const END_HEADERS: u8 = 4;

    pub(super) fn connect(mut stream: TcpStream, path: &str) -> anyhow::Result<Client> {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        // The whole connection's responses fit in its window: updates would be frames at other moments each time.
        stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes()))?;
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", path)];
        let mut fields = Vec::new();
        for (name, value) in pseudo.iter().chain(&FIELDS) {
            // Literal, not indexed (RFC 7541 §6.2.2): each request is the same bytes.
            fields.push(0);
            for text in [name, value] {
                fields.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).context("a long field")?);
                fields.extend_from_slice(text.as_bytes());
            }
        }
        Ok(Client::Http2 { stream, fields, next: 1 })
    }

    pub(super) fn exchange(stream: &mut TcpStream, fields: &[u8], next: &mut u32) -> anyhow::Result<()> {
        stream.write_all(&frame(HEADERS, END_OR_ACK | END_HEADERS, *next, fields))?;
        let mut body = 0;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head)?;
            let [_, _, _, kind, flags, id @ ..] = head;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload)?;
            match kind {
                SETTINGS if flags & END_OR_ACK == 0 => stream.write_all(&frame(SETTINGS, END_OR_ACK, 0, &[]))?,
                // `:status: 200` of the static table, the first field behind changes of the table's size.
                HEADERS => ensure!(payload.iter().find(|byte| *byte >> 5 != 1) == Some(&0x88), "not the answer"),
                DATA => body += length,
                RESET | GOAWAY => bail!("the stream was ended: {payload:?}"),
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_OR_ACK != 0 && u32::from_be_bytes(id) == *next {
                ensure!(body == BODY_BYTES, "{body} bytes came");
                *next += 2;
                return Ok(());
            }
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }
}
