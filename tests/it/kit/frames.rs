//! An HTTP/2 client that sends exactly the frames it is given (RFC 9113), with prior knowledge.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// The largest frame that every peer takes.
const FRAME: usize = 16 * 1024;

/// Settings that stories change.
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A whole response: status and body.
    Answer(u16, String),
    /// RST_STREAM with its code.
    Reset(u32),
    /// GOAWAY with a code other than 0.
    Goaway(u32),
    /// The connection ended.
    Closed,
}

impl End {
    /// The reason that headgate gives for an answer of its own.
    pub(crate) fn reason(&self) -> Option<&str> {
        let Self::Answer(_, body) = self else { return None };
        body.lines().find_map(|line| line.strip_prefix("reason: "))
    }
}

/// A frame as it came.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// One connection.
pub(crate) struct Frames {
    stream: TcpStream,
    next: u32,
    /// What came while something else was waited for.
    kept: VecDeque<Frame>,
    /// What the server announced.
    pub(crate) settings: Vec<(u16, u32)>,
}

impl Frames {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::with(address, &[])
    }

    /// Connects with settings of its own, and waits for the server's.
    pub(crate) fn with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut frames = Self { stream, next: 1, kept: VecDeque::new(), settings: Vec::new() };
        frames.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // Without a dynamic table the server's fields can be read without a memory.
        let payload: Vec<u8> = [(1, 0)]
            .iter()
            .chain(settings)
            .flat_map(|(key, value): &(u16, u32)| [&key.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        frames.send(SETTINGS, 0, 0, &payload);
        while let Some(frame) = frames.receive() {
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, &byte| (sum << 8) | u32::from(byte));
                let pairs = frame.payload.chunks(6).map(|pair| (number(&pair[..2]) as u16, number(&pair[2..])));
                frames.settings = pairs.collect();
                frames.send(SETTINGS, ACK, 0, &[]);
                break;
            }
        }
        frames
    }

    fn write(&mut self, bytes: &[u8]) {
        // The proxy may have closed already: then what was received tells.
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.write(&frame);
    }

    /// Opens a stream with these fields, just as they are.
    pub(crate) fn open(&mut self, fields: &[(&str, &str)], end: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.fields(stream, fields, end);
        stream
    }

    /// Opens a stream with a GET or POST and more fields.
    pub(crate) fn request(&mut self, method: &str, path: &str, more: &[(&str, &str)], end: bool) -> u32 {
        let mut fields = vec![(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)];
        fields.extend(more);
        self.open(&fields, end)
    }

    /// A field section; also for trailers.
    pub(crate) fn fields(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                integer(&mut block, text.len());
                block.extend(text.as_bytes());
            }
        }
        let mut pieces = block.chunks(FRAME).peekable();
        let mut kind = HEADERS;
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            let ends = if end && kind == HEADERS { END_STREAM } else { 0 };
            self.send(kind, last | ends, stream, piece);
            kind = CONTINUATION;
        }
    }

    pub(crate) fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        self.send(DATA, u8::from(end), stream, bytes);
    }

    pub(crate) fn reset(&mut self, stream: u32) {
        self.send(RESET, 0, stream, &8_u32.to_be_bytes());
    }

    pub(crate) fn window(&mut self, stream: u32, more: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    }

    /// Sends a PING and waits for its answer; false where the connection ended.
    pub(crate) fn ping(&mut self) -> bool {
        self.send(PING, 0, 0, &[7; 8]);
        while let Some(frame) = self.read() {
            if frame.kind == PING && frame.flags & ACK != 0 {
                return true;
            }
            self.kept.push_back(frame);
        }
        false
    }

    /// The next frame; none where the connection ended.
    pub(crate) fn receive(&mut self) -> Option<Frame> {
        self.kept.pop_front().or_else(|| self.read())
    }

    fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// How the request on `stream` ended.
    pub(crate) fn end(&mut self, stream: u32) -> End {
        let (mut code, mut body) = (0, Vec::new());
        while let Some(frame) = self.receive() {
            let number = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
            match frame.kind {
                GOAWAY if number(4) != 0 => return End::Goaway(number(4)),
                RESET if frame.stream == stream => return End::Reset(number(0)),
                HEADERS if frame.stream == stream && code == 0 => code = status(&frame.payload),
                DATA if frame.stream == stream => body.extend(&frame.payload),
                PING if frame.flags & ACK == 0 => self.send(PING, ACK, 0, &frame.payload),
                _ => {}
            }
            let ends = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
            if ends && frame.stream == stream {
                return End::Answer(code, String::from_utf8_lossy(&body).into_owned());
            }
        }
        End::Closed
    }

    /// Whether the server says goodbye (GOAWAY without an error) before the connection ends.
    pub(crate) fn says_goodbye(&mut self) -> bool {
        let mut said = false;
        while let Some(frame) = self.receive() {
            match frame.kind {
                GOAWAY => said |= frame.payload[4..8] == [0; 4],
                PING if frame.flags & ACK == 0 => self.send(PING, ACK, 0, &frame.payload),
                _ => {}
            }
        }
        said
    }
}

/// An integer with a prefix of 7 bits (RFC 7541 §5.1).
fn integer(block: &mut Vec<u8>, mut number: usize) {
    if number < 127 {
        return block.push(number as u8);
    }
    block.push(127);
    number -= 127;
    while number >= 128 {
        block.push((number % 128 + 128) as u8);
        number /= 128;
    }
    block.push(number as u8);
}

/// The first field, which is `:status`: from the static table, or literal digits (RFC 7541 appendix A and B).
fn status(mut block: &[u8]) -> u16 {
    while block[0] >> 5 == 1 {
        block = &block[1..];
    }
    if block[0] & 0x80 != 0 {
        return [200, 204, 206, 304, 400, 404, 500][usize::from(block[0] & 0x7f) - 8];
    }
    let text = &block[2..2 + usize::from(block[1] & 0x7f)];
    if block[1] & 0x80 == 0 {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut take = |count| (0..count).fold(0, |sum, _| sum << 1 | bits.next().unwrap_or(1));
    (0..3).fold(0, |sum, _| {
        // `0` to `2` have five bits, the others six.
        let five = take(5);
        sum * 10 + if five < 3 { five } else { (five << 1 | take(1)) - 0b011001 + 3 }
    })
}
