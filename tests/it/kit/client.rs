//! A client that sends exactly the bytes it is given.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A response as the client got it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) line: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) trailers: Vec<(String, String)>,
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
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    /// Keeps little of what it does not read, so that the proxy soon sees that it reads nothing.
    pub(crate) fn slow(address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    /// The same connection once more, for a thread that sends while this one reads.
    pub(crate) fn second(&self) -> TcpStream {
        self.reader.get_ref().try_clone().unwrap()
    }

    /// Ends its own direction and goes on listening.
    pub(crate) fn finish(&mut self) {
        self.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Goes away without a word of farewell.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(self.reader.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The proxy may have closed already: then the answer tells.
        let _ = self.reader.get_mut().write_all(bytes.as_ref());
    }

    /// The next response; none where the connection ended before one.
    pub(crate) fn receive(&mut self) -> Option<Answer> {
        let mut answer = self.receive_head()?;
        answer.body = String::from_utf8_lossy(&self.receive_body(&mut answer)?).into_owned();
        Some(answer)
    }

    /// The next response's head; what follows is left where it is.
    pub(crate) fn receive_head(&mut self) -> Option<Answer> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        let mut answer = Answer { status: line.split(' ').nth(1)?.parse().ok()?, ..Answer::default() };
        answer.line = line.trim_end().to_owned();
        answer.headers = self.receive_fields()?;
        Some(answer)
    }

    fn receive_fields(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { return Some(fields) };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn receive_body(&mut self, answer: &mut Answer) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        if answer.header("transfer-encoding").is_some() {
            loop {
                let mut size = String::new();
                self.reader.read_line(&mut size).ok()?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                if size == 0 {
                    answer.trailers = self.receive_fields()?;
                    break;
                }
                let mut chunk = vec![0; size + 2];
                self.reader.read_exact(&mut chunk).ok()?;
                body.extend_from_slice(&chunk[..size]);
            }
        } else if let Some(length) = answer.header("content-length").filter(|_| answer.status != 304) {
            body = vec![0; length.parse().ok()?];
            self.reader.read_exact(&mut body).ok()?;
        }
        Some(body)
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
