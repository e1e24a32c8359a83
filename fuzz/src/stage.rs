//! A whole headgate between a client of raw bytes and an origin that takes nothing which is not strictly HTTP/1.1.
//!
//! The origin reads by its own parser, not by hyper's: what both misread would go unseen. Each client has an address
//! of its own in 127.0.0.0/8, which `X-Forwarded-For` carries to the origin: so requests find back to their case.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use headgate::app::{Options, start};
use socket2::{Domain, Socket, Type};

/// A request as the origin got it, without what differs each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) line: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What the client got and the origin heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) statuses: Vec<u16>,
    /// Its connection did not end in good order.
    pub(super) was_reset: bool,
    pub(super) heard: Vec<Heard>,
}

/// How the bytes are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    AtOnce,
    ByteByByte,
}

pub(super) struct Stage {
    headgate: SocketAddr,
    origin: SocketAddr,
    heard: Mutex<HashMap<IpAddr, Vec<Heard>>>,
    /// What no origin should ever see, and the bytes.
    faults: Mutex<Vec<String>>,
    clients: AtomicU32,
}

/// The one stage of the process.
pub(super) fn stage() -> &'static Stage {
    static STAGE: OnceLock<Arc<Stage>> = OnceLock::new();
    STAGE.get_or_init(Stage::set)
}

impl Stage {
    fn set() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = listener.local_addr().unwrap();
        // The config is read once: its folder goes with the end of this.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headgate.toml");
        let config = format!(
            "config_version = 1\n[access_log]\nformat = \"off\"\n[listeners.a]\naddress = \"127.0.0.1:0\"\n\
             [pools.p]\nendpoints = [\"{origin}\"]\n[routes.r]\npool = \"p\"\nretry.attempts = 1\n"
        );
        std::fs::write(&path, config).unwrap();
        let running = start(Options { config: path, workers: Some(2) }).unwrap();
        let headgate = running.listeners[0].1;
        // It runs as long as the process.
        Box::leak(Box::new(running));
        let (heard, faults) = (Mutex::default(), Mutex::default());
        let stage = Arc::new(Self { headgate, origin, heard, faults, clients: AtomicU32::new(0) });
        let shared = stage.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let stage = shared.clone();
                std::thread::spawn(move || stage.serve(stream));
            }
        });
        stage
    }

    /// Sends the bytes, ends its side, and reads to the end.
    pub(super) fn run(&self, data: &[u8], pace: Pace) -> Outcome {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let ip = Ipv4Addr::from(0x7f01_0000 + number % 0x00fe_0000);
        let mut stream = self.connect(ip);
        // headgate may refuse and close before the last byte.
        let sent = match pace {
            Pace::AtOnce => stream.write_all(data),
            Pace::ByteByByte => data.iter().try_for_each(|byte| stream.write_all(&[*byte])),
        };
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let was_reset = sent.is_err() || ended.is_err();
        let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "neither answered nor closed: {}", data.escape_ascii());
        let faults = std::mem::take(&mut *self.faults.lock().unwrap());
        assert!(faults.is_empty(), "{faults:#?}");
        let heard = self.heard.lock().unwrap().remove(&IpAddr::V4(ip)).unwrap_or_default();
        Outcome { statuses: statuses(&answer), was_reset, heard }
    }

    /// A request of its own must get its own answer, whatever happened before.
    pub(super) fn canary(&self) {
        let name = self.clients.fetch_add(1, Ordering::Relaxed);
        let mut stream = self.connect(Ipv4Addr::LOCALHOST);
        write!(stream, "GET /canary-{name} HTTP/1.1\r\nhost: canary\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let whole = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("\r\n\r\nGET /canary-{name}"));
        assert!(whole, "the canary got {answer:?}");
    }

    fn connect(&self, from: Ipv4Addr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&self.headgate.into()).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.into()
    }

    fn serve(&self, stream: TcpStream) {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = Strict { reader: BufReader::new(stream), seen: Vec::new() };
        loop {
            let (client, heard) = match reader.request() {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(fault) => {
                    self.faults.lock().unwrap().push(format!("{fault}: {}", reader.seen.escape_ascii()));
                    return;
                }
            };
            let (method, target) = heard.line.split_once(' ').unwrap_or_default();
            // So that heads can be counted in what the client gets.
            let body = format!("{method} {}", target.trim_end_matches(" HTTP/1.1")).replace("HTTP/", "http/");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let answer = if method == "HEAD" { head } else { head + &body };
            self.heard.lock().unwrap().entry(client).or_default().push(heard);
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Whether the origin takes these bytes, sent to it past headgate: what judges is judged by this.
pub fn origin_takes(data: &[u8]) -> bool {
    let stage = Stage::set();
    let mut stream = TcpStream::connect(stage.origin).unwrap();
    stream.write_all(data).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    stage.faults.lock().unwrap().is_empty()
}

/// Of every final response in what a client got.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let heads = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    heads.filter(|status| *status >= 200).collect()
}

struct Strict {
    reader: BufReader<TcpStream>,
    /// The bytes of the request so far.
    seen: Vec<u8>,
}

impl Strict {
    /// The next request; none where the connection ends, in the middle of one too: then headgate gave it up.
    fn request(&mut self) -> Result<Option<(IpAddr, Heard)>, String> {
        self.seen.clear();
        let Some(line) = self.line()? else { return Ok(None) };
        request_line(&line)?;
        let mut fields = Vec::new();
        loop {
            match self.line()?.as_deref() {
                None => return Ok(None),
                Some("") => break,
                Some(line) => fields.push(field(line)?),
            }
        }
        let client = judged(&fields)?;
        let Some(body) = self.body(&fields)? else { return Ok(None) };
        fields.retain(|(name, _)| name != "x-request-id" && name != "x-forwarded-for");
        Ok(Some((client, Heard { line, fields, body })))
    }

    fn body(&mut self, fields: &[(String, String)]) -> Result<Option<Vec<u8>>, String> {
        let value = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        if let Some(length) = value("content-length") {
            return Ok(self.bytes(length.parse().map_err(|_| "a length that is none")?));
        }
        let mut body = Vec::new();
        while value("transfer-encoding").is_some() {
            let Some(size) = self.line()? else { return Ok(None) };
            let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
            let size = usize::from_str_radix(&size, 16).ok().filter(|_| digits).ok_or("a chunk size that is none")?;
            if size == 0 {
                loop {
                    match self.line()?.as_deref() {
                        None => return Ok(None),
                        Some("") => return Ok(Some(body)),
                        Some(line) => drop(field(line)?),
                    }
                }
            }
            let Some(chunk) = self.bytes(size + 2) else { return Ok(None) };
            let chunk = chunk.strip_suffix(b"\r\n").ok_or("a chunk without its end")?;
            body.extend_from_slice(chunk);
        }
        Ok(Some(body))
    }

    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).ok()?;
        self.seen.extend_from_slice(&bytes);
        Some(bytes)
    }

    /// A line without its CRLF; none at the end of the connection.
    fn line(&mut self) -> Result<Option<String>, String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            match self.bytes(1).as_deref() {
                Some([byte]) => line.push(*byte),
                _ => return Ok(None),
            }
        }
        line.truncate(line.len() - 2);
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err("CR, LF or NUL within a line".to_owned());
        }
        // Values may hold bytes beyond ASCII (obs-text); as Latin-1 each stays one letter.
        Ok(Some(line.into_iter().map(char::from).collect()))
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn request_line(line: &str) -> Result<(), String> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err("no request line".to_owned()) };
    let origin_form = target.starts_with('/') && !target.contains('#');
    let form = origin_form || (method, target) == ("OPTIONS", "*");
    match is_token(method) && form && target.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(()),
        false => Err("no request line".to_owned()),
    }
}

fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or("a field without a colon")?;
    let plain = value.chars().all(|c| c == '\t' || !c.is_ascii_control());
    match is_token(name) && plain {
        true => Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned())),
        false => Err("no field".to_owned()),
    }
}

/// One framing, one Host, headgate's own marks; the client that it names.
fn judged(fields: &[(String, String)]) -> Result<IpAddr, String> {
    let all = |wanted: &str| -> Vec<&str> {
        fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).collect()
    };
    match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) | ([], ["chunked"]) => {}
        ([length], []) if length.parse::<u64>().is_ok_and(|number| number.to_string() == *length) => {}
        framing => return Err(format!("framed as {framing:?}")),
    }
    if all("host").len() != 1 {
        return Err("not one Host".to_owned());
    }
    if !all("via").last().is_some_and(|via| via.ends_with(" headgate")) {
        return Err("smuggled: headgate did not pass it on".to_owned());
    }
    let [forwarded] = all("x-forwarded-for")[..] else { return Err("not one X-Forwarded-For".to_owned()) };
    // headgate trusts no one here: a client's own word must not be in it.
    forwarded.parse().map_err(|_| format!("X-Forwarded-For is {forwarded:?}"))
}
