//! The origin behind every proxy: one thread, answers made beforehand, a count of what it was asked.
//!
//! | target | answer |
//! |---|---|
//! | `/1k`, `/1m` | so many bytes, not to be cached |
//! | `/cached/1k`, `/cached/100k` | likewise, for an hour |
//! | `/ws` | a WebSocket that echoes |
//! | `/ready` | 200 |
//! | `/count` | how often `/cached/` was asked for: a cache hit does not come here |
//! | a POST | the body is read, and a short one answered |

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::http1::Head;
use crate::websocket::{self, Next};

const BACKLOG: u32 = 4096;
const BUFFER: usize = 32 * 1024;
/// No request here has a head or a frame that is longer, in bytes.
const MAX_PENDING: usize = 256 * 1024;

/// The answers, made once.
#[derive(Debug)]
pub struct Site {
    one_kib: Vec<u8>,
    one_mib: Vec<u8>,
    cached_one_kib: Vec<u8>,
    cached_hundred_kib: Vec<u8>,
    short: Vec<u8>,
    not_found: Vec<u8>,
    cached_asked: Cell<u64>,
}

/// What is to be written for a request.
enum Answer<'a> {
    Made(&'a [u8]),
    Written(Vec<u8>),
    Tunnel(Vec<u8>),
}

// === impl Site ===

impl Site {
    /// The answers.
    pub fn new() -> Self {
        let plain = "Cache-Control: no-store\r\n";
        let cached = "Cache-Control: public, max-age=3600\r\n";
        Self {
            one_kib: response("200 OK", plain, &[b'x'; 1024]),
            one_mib: response("200 OK", plain, &vec![b'x'; 1024 * 1024]),
            cached_one_kib: response("200 OK", cached, &[b'x'; 1024]),
            cached_hundred_kib: response("200 OK", cached, &vec![b'x'; 100 * 1024]),
            short: response("200 OK", plain, b"ok"),
            not_found: response("404 Not Found", plain, b""),
            cached_asked: Cell::new(0),
        }
    }

    fn answer(&self, head: Head<'_>) -> Answer<'_> {
        Answer::Made(match head.request_line() {
            (b"POST", _) | (_, b"/ready") => &self.short,
            (_, b"/1k") => &self.one_kib,
            (_, b"/1m") => &self.one_mib,
            (_, b"/cached/1k") => self.count(&self.cached_one_kib),
            (_, b"/cached/100k") => self.count(&self.cached_hundred_kib),
            (_, b"/count") => {
                let count = self.cached_asked.get().to_string();
                return Answer::Written(response("200 OK", "Cache-Control: no-store\r\n", count.as_bytes()));
            }
            (_, b"/ws") => match head.field("sec-websocket-key") {
                Some(key) => return Answer::Tunnel(switch(key)),
                None => &self.not_found,
            },
            _ => &self.not_found,
        })
    }

    fn count<'a>(&self, answer: &'a Vec<u8>) -> &'a Vec<u8> {
        self.cached_asked.set(self.cached_asked.get() + 1);
        answer
    }
}

/// Serves until it is ended.
pub async fn serve(listen: SocketAddr) -> Result<()> {
    serve_each(listen, async |stream, site| serve_connection(stream, &site).await).await
}

/// Accepts until it is ended, and serves each connection as `serve` does.
pub async fn serve_each<S>(listen: SocketAddr, serve: S) -> Result<()>
where
    S: AsyncFn(TcpStream, Rc<Site>) -> Result<()> + Clone + 'static,
{
    let listener = bind(listen)?;
    let site = Rc::new(Site::new());
    LocalSet::new()
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await.context("cannot accept")?;
                stream.set_nodelay(true)?;
                let (serve, site) = (serve.clone(), Rc::clone(&site));
                // An error ends one connection; what it means shows at the client.
                spawn_local(async move { serve(stream, site).await });
            }
        })
        .await
}

/// A socket that takes a burst of 10,000 new connections.
fn bind(listen: SocketAddr) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    Ok(socket.listen(BACKLOG)?)
}

/// Answers the requests of one connection until it ends.
pub async fn serve_connection(mut stream: impl AsyncRead + AsyncWrite + Unpin, site: &Site) -> Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let Some(head) = Head::find(&buffer) else {
            if !read_more(&mut stream, &mut buffer).await? {
                return Ok(());
            }
            continue;
        };
        ensure!(head.field("transfer-encoding").is_none(), "chunked requests are not spoken here");
        let body = head.content_length()?.unwrap_or(0);
        let closes = head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        let used = head.len() + body;
        if buffer.len() < used {
            if !read_more(&mut stream, &mut buffer).await? {
                bail!("closed within a request");
            }
            continue;
        }
        match site.answer(head) {
            Answer::Made(bytes) if closes => stream.write_all(&closing(bytes)).await?,
            Answer::Made(bytes) => stream.write_all(bytes).await?,
            Answer::Written(bytes) => stream.write_all(&bytes).await?,
            Answer::Tunnel(bytes) => {
                stream.write_all(&bytes).await?;
                buffer.drain(..used);
                return echo(stream, buffer).await;
            }
        }
        // A TLS stream holds back what it was given until it is asked.
        stream.flush().await?;
        buffer.drain(..used);
        if closes {
            return Ok(stream.shutdown().await?);
        }
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, mut input: Vec<u8>) -> Result<()> {
    let mut output = Vec::new();
    loop {
        output.clear();
        let next = websocket::echo(&input, &mut output);
        stream.write_all(&output).await?;
        match next {
            Next::Close => return Ok(()),
            Next::Read(used) => input.drain(..used),
        };
        if !read_more(&mut stream, &mut input).await? {
            return Ok(());
        }
    }
}

/// Whether there was more before the end.
async fn read_more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Result<bool> {
    ensure!(buffer.len() < MAX_PENDING, "more than {MAX_PENDING} bytes that are no whole request");
    Ok(stream.read_buf(buffer).await? > 0)
}

fn response(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The same response with the word that it is the last one.
fn closing(response: &[u8]) -> Vec<u8> {
    let line = memchr::memchr(b'\n', response).map_or(0, |end| end + 1);
    [&response[..line], b"Connection: close\r\n", &response[line..]].concat()
}

fn switch(key: &[u8]) -> Vec<u8> {
    let accept = websocket::accept(key);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::read_response;

    async fn ask(site: &Site, request: &[u8]) -> (u16, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(4096);
        let (response, _) = tokio::join!(
            async {
                client.write_all(request).await.unwrap();
                let response = read_response(&mut client).await.unwrap();
                drop(client);
                response
            },
            serve_connection(server, site)
        );
        (response.status, response.body)
    }

    #[tokio::test]
    async fn bodies_have_the_size_their_name_says() {
        let site = Site::new();
        for (target, size) in [("/1k", 1024), ("/cached/100k", 102_400), ("/1m", 1_048_576), ("/ready", 2)] {
            let (status, body) = ask(&site, format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes()).await;
            assert_eq!((status, body.len()), (200, size), "{target}");
        }
        assert_eq!(ask(&site, b"GET /else HTTP/1.1\r\n\r\n").await.0, 404);
    }

    #[tokio::test]
    async fn the_last_response_says_so() {
        assert_eq!(
            closing(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nx"),
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nA: b\r\n\r\nx"
        );
        assert_eq!(ask(&Site::new(), b"GET /1k HTTP/1.1\r\nConnection: close\r\n\r\n").await.0, 200);
    }

    #[tokio::test]
    async fn it_counts_what_a_cache_asks() {
        let site = Site::new();
        ask(&site, b"GET /cached/1k HTTP/1.1\r\n\r\n").await;
        ask(&site, b"GET /1k HTTP/1.1\r\n\r\n").await;
        assert_eq!(ask(&site, b"GET /count HTTP/1.1\r\n\r\n").await, (200, b"1".to_vec()));
    }

    #[tokio::test]
    async fn a_post_is_answered_when_its_body_is_there() {
        let mut request = b"POST /1k HTTP/1.1\r\nContent-Length: 20000\r\n\r\n".to_vec();
        request.extend_from_slice(&[b'x'; 20_000]);
        assert_eq!(ask(&Site::new(), &request).await, (200, b"ok".to_vec()));
    }

    #[tokio::test]
    async fn a_tunnel_echoes() {
        let (mut client, server) = tokio::io::duplex(4096);
        let site = Site::new();
        let story = async {
            let request = format!("GET /ws HTTP/1.1\r\nSec-WebSocket-Key: {}\r\n\r\n", websocket::EXAMPLE_KEY);
            client.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(read_response(&mut client).await.unwrap().status, 101);
            client.write_all(&websocket::frame(b"hello", Some([1, 2, 3, 4]))).await.unwrap();
            let mut echo = [0; 7];
            client.read_exact(&mut echo).await.unwrap();
            assert_eq!(&echo[..], websocket::frame(b"hello", None));
            drop(client);
        };
        let ((), end) = tokio::join!(story, serve_connection(server, &site));
        end.unwrap();
    }
}
