//! Operational logs: on stderr, for people and collectors.
//!
//! One thread writes them. Whoever has something to say never waits for who reads it: a collector that stops would
//! otherwise hold up the control plane, and with it checks, reloads, metrics and the drain.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Names the levels: `debug`, or `headgate::upstream=debug,info`.
const VARIABLE: &str = "HEADGATE_LOG";
/// Lines that wait to be written; those beyond are dropped and counted.
const QUEUE_LINES: usize = 1024;

static QUEUE: OnceLock<SyncSender<Message>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    /// All before it is written.
    Flushed(SyncSender<()>),
}

/// Starts operational logs; a second call does nothing.
pub fn init() {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let (filter, fault) = match builder.parse(&text) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let started = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Queue).with_ansi(colour).try_init();
    if started.is_ok() {
        start_writer();
        // The usual hook writes to stderr by itself, and waits for it.
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = Backtrace::capture();
            match backtrace.status() {
                BacktraceStatus::Captured => tracing::error!("{panic}\n{backtrace}"),
                _ => tracing::error!("{panic}"),
            }
        }));
    }
    if let (Ok(()), Some(error)) = (started, fault) {
        tracing::warn!(%error, "{VARIABLE} is not understood; logging at info");
    }
}

/// Lines that could not be written since the start.
pub fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

/// Waits until what was logged is written, or for as long as `limit`.
pub fn flush(limit: Duration) {
    let (done, flushed) = mpsc::sync_channel(1);
    if QUEUE.get().is_some_and(|queue| queue.try_send(Message::Flushed(done)).is_ok()) {
        // Who reads no more does not keep the process.
        let _ = flushed.recv_timeout(limit);
    }
}

/// Without a thread, lines are written where they arise.
fn start_writer() {
    let (queue, lines) = mpsc::sync_channel(QUEUE_LINES);
    let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&lines));
    if thread.is_ok() {
        drop(QUEUE.set(queue));
    }
}

fn write(lines: &Receiver<Message>) {
    while let Ok(message) = lines.recv() {
        match message {
            // Nobody can be told that stderr is closed.
            Message::Line(line) => drop(io::stderr().write_all(&line)),
            Message::Flushed(done) => drop(done.try_send(())),
        }
    }
}

/// Takes one whole line by each write, as tracing makes them.
struct Queue;

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(queue) = QUEUE.get() else { return io::stderr().write(line) };
        if queue.try_send(Message::Line(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
