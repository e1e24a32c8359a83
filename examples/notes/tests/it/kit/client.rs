//! A small HTTP/1.1 client over a plain socket: what a test sends is what goes over the wire.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A connection that is kept for several requests.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

/// One request on a connection of its own.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Response> {
    let mut with_close = vec![("connection", "close")];
    with_close.extend_from_slice(headers);
    Connection::open(address)?.request(method, target, &with_close, body)
}

// === impl Connection ===

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        self.send(method, target, headers, body)?;
        self.receive(method)
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: notes.test\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        self.stream.get_mut().write_all(&message)
    }

    /// Sends a head that announces a body, and waits for the 100 that hyper gives when the handler
    /// asks for it: the request is then under way for sure, and stays so until the body is sent.
    pub(crate) fn begin(&mut self, target: &str, body_bytes: usize) -> std::io::Result<()> {
        let length = body_bytes.to_string();
        let headers = [("expect", "100-continue"), ("content-length", &length)];
        self.send("POST", target, &headers, b"")?;
        let (status_line, end_of_head) = (self.line()?, self.line()?);
        assert_eq!(status_line, "HTTP/1.1 100 Continue");
        assert_eq!(end_of_head, "");
        Ok(())
    }

    pub(crate) fn receive(&mut self, method: &str) -> std::io::Result<Response> {
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| std::io::Error::other(format!("no status in {status_line:?}")))?;
        let mut response = Response { status, headers: Vec::new(), body: Vec::new() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let field = (name.to_ascii_lowercase(), value.trim().to_owned());
            response.headers.push(field);
        }
        let bodyless = method == "HEAD" || status == 204 || status == 304;
        if !bodyless {
            let length = response
                .header("content-length")
                .and_then(|text| text.parse().ok())
                .expect("every answer of this app has a known length");
            response.body = vec![0; length];
            self.stream.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    /// Bytes as they are, for what is no plain request.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Whether the other side closed without a further byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.fill_buf(), Ok([]))
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

// === impl Response ===

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}) in {:?}", self.text()))
    }

    /// The body as a list of ids below a key.
    pub(crate) fn ids(&self, key: &str) -> Vec<i64> {
        self.json()[key].as_array().expect("a list").iter().map(|item| item["id"].as_i64().expect("an id")).collect()
    }

    /// Fails unless this is a problem detail of RFC 9457 with this status; gives its `code`.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["status"], status);
        assert!(problem["title"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()));
        problem["code"].as_str().expect("a code").to_owned()
    }
}
