//! A connection that speaks HTTP/2.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::base::reason::Reason;
use crate::proxy::{ConnectionInfo, WorkerContext};
use crate::server::connection::{Accepted, Requests};
use crate::server::drive::{End, Engine, drive};
use crate::server::gather::Gather;
use crate::server::leave::leave;
use crate::server::stream::ClientStream;
use crate::server::streams::Streams;
use crate::server::watch::{Expired, Watch};

/// What h2 holds of one stream's response before its client has taken some of it.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve(accepted: &Accepted, stream: ClientStream, info: Rc<ConnectionInfo>, watch: Rc<Watch>) {
    let limits = accepted.limits();
    let streams = Streams::new(accepted.timeouts().send, &accepted.worker.timers);
    watch.speaks_frames();
    let mut io = Gather::new(stream);
    let connection = http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes.bytes() as u32)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(io.clone()), Requests::of(accepted, &info, Some(streams.clone())));
    let mut timer = accepted.worker.timers.timer();
    let mut engine = Http2 { connection, io: io.clone(), streams, worker: &accepted.worker, leaves: false };
    let leaves = match drive(&mut engine, accepted, &info, &watch, &mut timer).await {
        // A GOAWAY may wait that tells the client why.
        End::Failed(error) => {
            accepted.explain(&error);
            true
        }
        End::Closed => true,
        End::Expired(Expired::Fault(reason)) => {
            accepted.expire(&info, reason);
            false
        }
        End::Stopped => {
            info.closed_for.set(Some(Reason::Draining));
            false
        }
        End::Expired(Expired::KeepAlive | Expired::Idle) => false,
    };
    // Its streams with it: nobody polls them any more.
    drop(engine);
    if leaves {
        leave(&mut io, accepted.timeouts().send).await;
    }
}

struct Http2<'a> {
    connection: http2::Connection<TokioIo<Gather<ClientStream>>, Requests, Streams>,
    io: Gather<ClientStream>,
    streams: Streams,
    worker: &'a WorkerContext,
    leaves: bool,
}

impl Engine for Http2<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let mut polled = Pin::new(&mut self.connection).poll(context);
        if polled.is_pending() && std::mem::take(&mut self.leaves) {
            // Only behind a turn: where hyper has seen no byte yet it closes at once, and a request whose bytes are here
            // already (it waited in the kernel's queue, say) would go unanswered.
            Pin::new(&mut self.connection).graceful_shutdown();
            polled = Pin::new(&mut self.connection).poll(context);
        }
        self.streams.poll(context, |fault| fault.tell(self.worker, "stream"));
        // What cannot leave yet wakes this again when it can; an error reaches the engine by its next write or read.
        let _ = self.io.poll_drain(context);
        polled
    }

    /// By a GOAWAY.
    fn drain(&mut self) {
        self.leaves = true;
    }
}
