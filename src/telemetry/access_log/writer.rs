//! The thread that writes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::config::model::{self, AccessLogOutput};
use crate::telemetry::access_log::{Message, Shared};

/// Where lines go.
pub(super) enum Output {
    /// The log is off.
    Nowhere,
    /// A stream that was open before: standard output.
    Stream(File),
    /// A file, which is reopened by its name.
    File(PathBuf, File),
}

impl Output {
    pub(super) fn open(settings: &model::AccessLog) -> io::Result<Self> {
        if settings.format.is_none() {
            return Ok(Self::Nowhere);
        }
        match &settings.output {
            // A descriptor of our own: std's stdout would search each buffer for line ends.
            AccessLogOutput::Stdout => Ok(Self::Stream(io::stdout().as_fd().try_clone_to_owned()?.into())),
            AccessLogOutput::File(path) => Ok(Self::File(path.clone(), append(path)?)),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// What the control plane asks of the writer.
pub(super) enum Control {
    /// Open the file by its name again.
    Reopen,
    /// Write there from now on.
    Use(Output),
    /// Write what is queued, then end.
    Stop,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    output: Output,
    queue: Receiver<Message>,
    /// The output ends in part of a line.
    torn: bool,
    /// The last write failed, and was told of.
    failing: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, output: Output, queue: Receiver<Message>) -> Self {
        Self { shared, output, queue, torn: false, failing: false }
    }

    pub(super) fn run(mut self) {
        // Ends too when the log and all workers are gone.
        while let Ok(message) = self.queue.recv() {
            let stop = self.obey();
            self.take(message);
            if stop {
                while let Ok(message) = self.queue.try_recv() {
                    self.take(message);
                }
                break;
            }
        }
        let shared = self.shared.clone();
        // The queue goes first, so that what comes later is counted by whoever sends it.
        drop(self);
        *shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        shared.end.notify_all();
    }

    /// True if it is time to stop.
    fn obey(&mut self) -> bool {
        let controls = std::mem::take(&mut *self.shared.controls.lock().unwrap_or_else(PoisonError::into_inner));
        let mut stop = false;
        for control in controls {
            match control {
                Control::Stop => stop = true,
                Control::Use(output) => {
                    self.output = output;
                    self.torn = false;
                }
                Control::Reopen => self.reopen(),
            }
        }
        stop
    }

    fn reopen(&mut self) {
        if let Output::File(path, file) = &mut self.output {
            match append(path) {
                Ok(new) => {
                    *file = new;
                    self.torn = false;
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "access log cannot be reopened; the old file is kept");
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        let Message::Lines { bytes, count } = message else { return };
        let file = match &mut self.output {
            Output::Nowhere => return,
            Output::Stream(file) | Output::File(_, file) => file,
        };
        match write(file, &bytes, &mut self.torn) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("access log is written again");
                }
            }
            Err((error, written)) => {
                let whole = memchr::memchr_iter(b'\n', bytes.get(..written).unwrap_or_default()).count() as u64;
                self.shared.drop_lines(count.saturating_sub(whole));
                // Once per trouble: a full disk must not fill the other log.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "access log cannot be written; lines are dropped and counted");
                }
            }
        }
    }
}

/// Writes all of `bytes`, or says how many were.
fn write(file: &mut File, bytes: &[u8], torn: &mut bool) -> Result<(), (io::Error, usize)> {
    if *torn {
        // Ends the half line that a full disk left, so that the next one stays whole.
        file.write_all(b"\n").map_err(|error| (error, 0))?;
        *torn = false;
    }
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), written)),
            Ok(count) => {
                written += count;
                *torn = bytes.get(written - 1) != Some(&b'\n');
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else made the terminal or pipe non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err((error, written)),
        }
    }
    Ok(())
}
