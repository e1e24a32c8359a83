//! The access log: each worker fills a buffer of its own, one thread writes them all.
//!
//! Worker and writer meet in a bounded queue. Where it is full, the worker throws its buffer away and counts the
//! lines: a log that cannot be written never holds up a request.

mod line;
mod writer;

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock;
use crate::base::record::{ConnectionRecord, RequestRecord};
use crate::config::model::{self, AccessLogFormat};
use crate::telemetry::access_log::line::Stamp;
use crate::telemetry::access_log::writer::{Control, Output, Writer};

/// A buffer's room. Each that is handed over wakes the writer, which costs as much as some requests do.
const BUFFER_BYTES: usize = 128 * 1024;
/// A buffer that is filled so far is handed over before its time: the rest of its room is for its last line.
const FULL_BYTES: usize = 112 * 1024;
/// Buffers that wait for the writer; with [`BUFFER_BYTES`], 14 MiB.
const QUEUE_BUFFERS: usize = 112;

/// What a worker hands over.
enum Message {
    /// Whole lines.
    Lines {
        /// Their bytes.
        bytes: Vec<u8>,
        /// How many they are.
        count: u64,
    },
    /// There is a [`Control`] to fetch.
    Wake,
}

/// What workers, writer and control plane share.
#[derive(Default)]
struct Shared {
    format: AtomicU8,
    dropped: AtomicU64,
    controls: Mutex<Vec<Control>>,
    ended: Mutex<bool>,
    end: Condvar,
}

const OFF: u8 = 0;
const JSON: u8 = 1;
const COMBINED: u8 = 2;

impl Shared {
    fn set_format(&self, format: Option<AccessLogFormat>) {
        let format = match format {
            None => OFF,
            Some(AccessLogFormat::Json) => JSON,
            Some(AccessLogFormat::Combined) => COMBINED,
        };
        self.format.store(format, Relaxed);
    }

    fn drop_lines(&self, count: u64) {
        self.dropped.fetch_add(count, Relaxed);
    }
}

/// The access log of the process.
pub struct AccessLog {
    shared: Arc<Shared>,
    queue: SyncSender<Message>,
}

impl AccessLog {
    /// Opens the output and starts the writer, the one thread of the log.
    pub fn start(settings: &model::AccessLog) -> io::Result<Arc<Self>> {
        Self::start_with(settings, Output::open(settings)?, QUEUE_BUFFERS)
    }

    fn start_with(settings: &model::AccessLog, output: Output, buffers: usize) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        shared.set_format(settings.format);
        let (queue, receiver) = mpsc::sync_channel(buffers);
        let writer = Writer::new(shared.clone(), output, receiver);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?;
        Ok(Arc::new(Self { shared, queue }))
    }

    /// One worker's side.
    pub fn worker(&self) -> WorkerLog {
        WorkerLog {
            shared: self.shared.clone(),
            queue: self.queue.clone(),
            buffer: RefCell::new(Buffer { bytes: Vec::new(), count: 0, stamp: Stamp::default() }),
        }
    }

    /// Closes the file and opens it by its name again, after a rotation.
    pub fn reopen(&self) {
        self.control(Control::Reopen);
    }

    /// Changes output and format. Where the new output cannot be opened, everything stays.
    pub fn reconfigure(&self, settings: &model::AccessLog) -> io::Result<()> {
        let output = Output::open(settings)?;
        self.shared.set_format(settings.format);
        self.control(Control::Use(output));
        Ok(())
    }

    /// Lines that could not be written since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Writes what was handed over and ends the writer, or leaves it behind at the deadline.
    ///
    /// Workers end first: dropping a [`WorkerLog`] hands over its buffer. Lines that come later are counted as dropped.
    pub fn flush_and_stop(&self, deadline: Duration) {
        self.control(Control::Stop);
        let ended = self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // A poisoned or late end is the same to whoever stops: there is nothing left to wait for.
        drop(self.shared.end.wait_timeout_while(ended, deadline, |ended| !*ended));
    }

    fn control(&self, control: Control) {
        self.shared.controls.lock().unwrap_or_else(PoisonError::into_inner).push(control);
        // A full queue wakes the writer just as well: it looks for controls before each buffer.
        drop(self.queue.try_send(Message::Wake));
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

struct Buffer {
    bytes: Vec<u8>,
    count: u64,
    stamp: Stamp,
}

/// One worker's side of the access log. Owned by its thread; nothing here waits.
pub struct WorkerLog {
    shared: Arc<Shared>,
    queue: SyncSender<Message>,
    buffer: RefCell<Buffer>,
}

impl WorkerLog {
    /// Logs one request.
    pub fn record(&self, record: &RequestRecord<'_>) {
        self.line(|format, out, stamp| {
            match format {
                JSON => line::json(out, stamp, record),
                _ => line::combined(out, stamp, record),
            }
            true
        });
    }

    /// Logs a connection that failed without a request. The combined format has words only for answered ones.
    pub fn connection(&self, record: &ConnectionRecord<'_>) {
        self.line(|format, out, stamp| match (format, record.status) {
            (JSON, _) => {
                line::json_connection(out, stamp, record);
                true
            }
            (_, Some(status)) => {
                line::combined_connection(out, stamp, record, status);
                true
            }
            (_, None) => false,
        });
    }

    /// Hands the buffer over. The worker calls it every 200 ms.
    pub fn tick(&self) {
        self.hand_over(&mut self.buffer.borrow_mut());
    }

    fn line(&self, write: impl FnOnce(u8, &mut Vec<u8>, &Stamp) -> bool) {
        let format = self.shared.format.load(Relaxed);
        if format == OFF {
            return;
        }
        let buffer = &mut *self.buffer.borrow_mut();
        if buffer.bytes.capacity() == 0 {
            // One allocation for some hundred lines.
            buffer.bytes.reserve(BUFFER_BYTES);
        }
        buffer.stamp.advance(clock::recent_unix_millis());
        if write(format, &mut buffer.bytes, &buffer.stamp) {
            buffer.count += 1;
        }
        if buffer.bytes.len() >= FULL_BYTES {
            self.hand_over(buffer);
        }
    }

    fn hand_over(&self, buffer: &mut Buffer) {
        if buffer.bytes.is_empty() {
            return;
        }
        let (bytes, count) = (std::mem::take(&mut buffer.bytes), std::mem::take(&mut buffer.count));
        if let Err(error) = self.queue.try_send(Message::Lines { bytes, count }) {
            self.shared.drop_lines(count);
            if let TrySendError::Full(Message::Lines { mut bytes, .. }) = error {
                bytes.clear();
                buffer.bytes = bytes;
            }
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.tick();
    }
}

impl std::fmt::Debug for WorkerLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerLog").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
