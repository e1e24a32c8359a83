//! A client that sends exactly the bytes it is given.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A response as the client got it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The reason that headgate gives for an answer of its own.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.body.lines().find_map(|line| line.strip_prefix("reason: "))
    }
}

/// One connection.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The proxy may have closed already: then the answer tells.
        let _ = self.reader.get_mut().write_all(bytes.as_ref());
    }

    /// The next response; none where the connection ended before one.
    pub(crate) fn receive(&mut self) -> Option<Answer> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        let mut answer = Answer { status: line.split(' ').nth(1)?.parse().ok()?, ..Answer::default() };
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut body = Vec::new();
        if answer.header("transfer-encoding").is_some() {
            loop {
                let mut size = String::new();
                self.reader.read_line(&mut size).ok()?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                let mut chunk = vec![0; size + 2];
                self.reader.read_exact(&mut chunk).ok()?;
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = answer.header("content-length").filter(|_| answer.status != 304) {
            body = vec![0; length.parse().ok()?];
            self.reader.read_exact(&mut body).ok()?;
        }
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Some(answer)
    }

    /// Reads until the other side closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }

    pub(crate) fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }
}

/// Sends raw bytes on a new connection and takes the first response.
pub(crate) fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Option<Answer> {
    let mut client = Client::connect(address);
    client.send(bytes);
    client.receive()
}

/// A well-formed request's answer.
pub(crate) fn answer_to(address: SocketAddr, method: &str, target: &str) -> Answer {
    let request = format!("{method} {target} HTTP/1.1\r\nhost: notes.test\r\ncontent-length: 0\r\n\r\n");
    exchange(address, request).expect("an answer")
}
