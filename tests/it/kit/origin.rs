//! An endpoint of the test's own: plain threads and raw bytes, so that it can be as wrong as a story needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A request as the endpoint got it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

type Script = dyn Fn(&mut Conversation, usize) + Send + Sync;

/// One connection, as an endpoint that keeps no rules may lead it. It ends when dropped.
pub(crate) struct Conversation {
    reader: BufReader<TcpStream>,
    heard: Arc<Log>,
}

#[derive(Default)]
struct Log {
    requests: Mutex<Vec<Heard>>,
    grown: Condvar,
}

impl Conversation {
    /// The next request with its body; none where the connection ended.
    pub(crate) fn request(&mut self) -> Option<Heard> {
        self.numbered().map(|(request, _)| request)
    }

    fn numbered(&mut self) -> Option<(Heard, usize)> {
        let mut request = read_head(&mut self.reader)?;
        read_body(&mut self.reader, &mut request)?;
        let number = self.note(&request);
        Some((request, number))
    }

    /// The next request's head, noted at once; its body is left where it is.
    pub(crate) fn head_only(&mut self) -> Option<Heard> {
        let request = read_head(&mut self.reader)?;
        self.note(&request);
        Some(request)
    }

    /// Gives the request its number.
    fn note(&self, request: &Heard) -> usize {
        let mut requests = self.heard.requests.lock().unwrap();
        requests.push(request.clone());
        self.heard.grown.notify_all();
        requests.len() - 1
    }

    /// Sends bytes; tells whether there was someone to take them.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    pub(crate) fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Likewise; none where the other side has ended its direction.
    pub(crate) fn read_if_any(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    /// Reads until the other side ends its direction, and tells how much came.
    pub(crate) fn drain(&mut self) -> u64 {
        std::io::copy(&mut self.reader, &mut std::io::sink()).unwrap_or_default()
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// When it ends, it ends with a reset.
    pub(crate) fn end_with_reset(&self) {
        socket2::SockRef::from(self.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// An endpoint on port 0. A script that answers with nothing closes the connection.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    heard: Arc<Log>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Origin {
    /// Answers every request with 200 and its own name.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::scripted(move |_, _| ok(name))
    }

    /// Answers as the script says; it gets the request and its number.
    pub(crate) fn scripted(script: impl Fn(&Heard, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::talking(move |conversation, _| while conversation.answer(&script) {})
    }

    /// Likewise, and closes each connection behind its first answer, without having said so: the end comes with the
    /// answer's last bytes, so that no request can slip in between.
    pub(crate) fn closing(script: impl Fn(&Heard, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::talking(move |conversation, _| {
            socket2::SockRef::from(conversation.stream()).set_tcp_cork(true).unwrap();
            conversation.answer(&script);
        })
    }

    /// Hands each connection over as it is.
    pub(crate) fn raw(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Self { address, heard: Arc::default(), connections: Arc::default(), open: Arc::default() };
        let (connections, serve) = (origin.connections.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream));
            }
        });
        origin
    }

    /// Leads each connection (they are numbered from 0) as the script does.
    pub(crate) fn talking(script: impl Fn(&mut Conversation, usize) + Send + Sync + 'static) -> Self {
        Self::talking_on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    /// Likewise [`Origin::named`], at an address of the story's choice.
    pub(crate) fn named_at(name: &'static str, address: impl std::net::ToSocketAddrs) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        Self::talking_on(listener, move |conversation, _| while conversation.answer(&|_, _| ok(name)) {})
    }

    fn talking_on(listener: TcpListener, script: impl Fn(&mut Conversation, usize) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let origin = Self { address, heard: Arc::default(), connections: Arc::default(), open: Arc::default() };
        let (heard, connections, open) = (origin.heard.clone(), origin.connections.clone(), origin.open.clone());
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let (heard, script, open) = (heard.clone(), script.clone(), open.clone());
                std::thread::spawn(move || {
                    script(&mut Conversation { reader: BufReader::new(stream), heard }, number);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        origin
    }

    /// What it has heard so far, health checks left out.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.requests.lock().unwrap().clone()
    }

    /// Waits until it has heard so many.
    pub(crate) fn await_heard(&self, count: usize) {
        let requests = self.heard.requests.lock().unwrap();
        let few = |requests: &mut Vec<Heard>| requests.len() < count;
        let (requests, waited) = self.heard.grown.wait_timeout_while(requests, Duration::from_secs(10), few).unwrap();
        assert!(!waited.timed_out(), "{count} requests were to come, and {requests:?} did");
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Connections that were ever open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A whole 200 response.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Conversation {
    fn answer(&mut self, script: &impl Fn(&Heard, usize) -> Vec<u8>) -> bool {
        let Some((request, number)) = self.numbered() else { return false };
        let answer = script(&request, number);
        !answer.is_empty() && self.send(answer)
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<Heard> {
    let mut request = Heard::default();
    reader.read_line(&mut request.line).ok().filter(|&count| count > 0)?;
    request.line = request.line.trim_end().to_owned();
    request.headers = read_fields(reader)?;
    Some(request)
}

fn read_fields(reader: &mut impl BufRead) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Some(fields) };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_body(reader: &mut impl BufRead, request: &mut Heard) -> Option<()> {
    if request.header("transfer-encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            if size == 0 {
                request.trailers = read_fields(reader)?;
                return Some(());
            }
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            request.body.extend_from_slice(&chunk[..size]);
        }
    }
    if let Some(length) = request.header("content-length") {
        let mut body = vec![0; length.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        request.body = body;
    }
    Some(())
}
