//! An endpoint of the test's own: plain threads and raw bytes, so that it can be as wrong as a story needs.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A request as the endpoint got it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

type Script = dyn Fn(&Heard, usize) -> Vec<u8> + Send + Sync;

/// An endpoint on port 0. A script that answers with nothing closes the connection.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    connections: Arc<AtomicUsize>,
}

impl Origin {
    /// Answers every request with 200 and its own name.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::scripted(move |_, _| ok(name))
    }

    /// Answers as the script says; it gets the request and its number.
    pub(crate) fn scripted(script: impl Fn(&Heard, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(script, false)
    }

    /// Likewise, and closes each connection behind its first answer, without having said so.
    pub(crate) fn closing(script: impl Fn(&Heard, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(script, true)
    }

    fn start(script: impl Fn(&Heard, usize) -> Vec<u8> + Send + Sync + 'static, once: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Self { address, heard: Arc::default(), connections: Arc::default() };
        let (heard, connections) = (origin.heard.clone(), origin.connections.clone());
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (heard, script) = (heard.clone(), script.clone());
                std::thread::spawn(move || serve(stream, &heard, &*script, once));
            }
        });
        origin
    }

    /// What it has heard so far, health checks left out.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A whole 200 response.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn serve(stream: TcpStream, heard: &Mutex<Vec<Heard>>, script: &Script, once: bool) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let number = {
            let mut heard = heard.lock().unwrap();
            heard.push(request.clone());
            heard.len() - 1
        };
        let answer = script(&request, number);
        if answer.is_empty() || writer.write_all(&answer).is_err() || once {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Heard> {
    let mut request = Heard::default();
    reader.read_line(&mut request.line).ok().filter(|&count| count > 0)?;
    request.line = request.line.trim_end().to_owned();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if request.header("transfer-encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            request.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = request.header("content-length") {
        let mut body = vec![0; length.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        request.body = body;
    }
    Some(request)
}
