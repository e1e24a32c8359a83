//! What streaming costs: a headgate of its own process, fast senders, slow readers, and its resident memory.
//!
//! `HEADGATE_STREAM_MB=200` makes it the full run.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use headgate::base::clock;

const MEGABYTE: usize = 1_000_000;
/// What a reader takes in a second.
const RATE: usize = 10 * MEGABYTE;
/// What may be added to the resident memory.
const ALLOWED: u64 = 4 << 20;

/// The binary, until dropped.
struct Process {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Process {
    fn start(origin: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("headgate.toml");
        let text = format!(
            "config_version = 1\n[process]\nworkers = 1\n[access_log]\nformat = \"off\"\n\
             [listeners.http]\naddress = \"127.0.0.1:0\"\n[pools.app]\nendpoints = [\"{origin}\"]\n\
             [routes.all]\nmatch.path = \"/*\"\npool = \"app\"\nlimits.body = \"1GiB\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_headgate"))
            .args(["run", "--config"])
            .arg(&config)
            .env("HEADGATE_LOG", "info")
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.find(|line| line.as_ref().unwrap().contains("listener http on ")).unwrap().unwrap();
        let address = line.rsplit(' ').next().unwrap().parse().unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address, _folder: folder }
    }

    /// Resident memory, in bytes.
    fn resident(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Reads so much and no faster than [`RATE`]; looks at something ten times a megabyte.
fn read_slowly(mut stream: impl Read, count: usize, mut look: impl FnMut()) {
    let began = clock::now();
    let mut piece = vec![0; MEGABYTE / 10];
    for at in 1..=count / piece.len() {
        stream.read_exact(&mut piece).unwrap();
        look();
        let due = began + Duration::from_secs_f64((at * piece.len()) as f64 / RATE as f64);
        while let Some(early) = due.checked_duration_since(clock::now()).filter(|early| !early.is_zero()) {
            std::thread::park_timeout(early);
        }
    }
}

fn write_fast(stream: &mut TcpStream, count: usize) {
    let piece = vec![b'x'; MEGABYTE / 10];
    for _ in 0..count / piece.len() {
        stream.write_all(&piece).unwrap();
    }
}

fn skip_head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    head
}

/// Gives as many bytes as the path says, or takes as many, slowly.
fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut writer = stream;
                let head = skip_head(&mut reader);
                let count: usize = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
                if head.starts_with("GET") {
                    write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {count}\r\n\r\n").unwrap();
                    write_fast(&mut writer, count);
                } else {
                    read_slowly(reader, count, || ());
                    write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    address
}

fn ask(process: &Process, method: &str, count: usize) -> (BufReader<TcpStream>, TcpStream) {
    let mut stream = TcpStream::connect(process.address).unwrap();
    let length = if method == "PUT" { count } else { 0 };
    write!(stream, "{method} /{count} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n").unwrap();
    (BufReader::new(stream.try_clone().unwrap()), stream)
}

fn download(process: &Process, count: usize, look: impl FnMut()) {
    let (mut reader, _stream) = ask(process, "GET", count);
    assert!(skip_head(&mut reader).starts_with("HTTP/1.1 200"));
    read_slowly(reader, count, look);
}

fn upload(process: &Process, count: usize, mut look: impl FnMut()) {
    let (mut reader, mut stream) = ask(process, "PUT", count);
    for _ in 0..count / MEGABYTE {
        write_fast(&mut stream, MEGABYTE);
        look();
    }
    assert!(skip_head(&mut reader).starts_with("HTTP/1.1 200"));
    look();
}

#[test]
fn streaming_to_slow_readers_takes_no_memory() {
    let full = std::env::var("HEADGATE_STREAM_MB").ok().and_then(|text| text.parse::<usize>().ok());
    let count = full.unwrap_or(24) * MEGABYTE;
    let process = Process::start(endpoint());
    // One worker, so that it has done each thing before.
    for _ in 0..4 {
        download(&process, MEGABYTE, || ());
        upload(&process, MEGABYTE, || ());
    }
    let base = process.resident();
    let mut most = [base; 2];
    download(&process, count, || most[0] = most[0].max(process.resident()));
    upload(&process, count, || most[1] = most[1].max(process.resident()));
    let [down, up] = most.map(|most| most - base);
    println!("{} MB each way: {base} bytes resident before; grown by {down} down, {up} up", count / MEGABYTE);
    assert!(down <= ALLOWED && up <= ALLOWED, "{base} bytes, grown by {down} down and {up} up");
}
