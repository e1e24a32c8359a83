//! A connection that speaks HTTP/1.1: busy under hyper, parked while it is idle, or a tunnel after an upgrade.
//!
//! An idle connection is taken apart: what waits for the next request is the bare socket in a small future, where
//! hyper's buffers and state would take ten times the room. It is taken apart only between two requests: no request
//! runs, no byte of a head has come, nothing waits to be sent. What hyper has read beyond is served on.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use crate::base::boxed::pinned;
use crate::base::reason::Reason;
use crate::base::timer::Timer;
use crate::proxy::{ConnectionInfo, Tunnel};
use crate::relay::{self, Carried, TunnelEnd};
use crate::server::connection::{Accepted, Requests};
use crate::server::drive::{End, Engine, drive};
use crate::server::leave::{LINGER, leave};
use crate::server::phase::Phase;
use crate::server::stream::ClientStream;
use crate::server::watch::{Expired, Watch};

/// What hyper reads of a request at once, at most, and below which what waits of a response has it fetch the next piece:
/// were it a piece's length, a slow reader would hold three (F46).
const BUFFER: usize = 32 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve(accepted: &Accepted, mut stream: ClientStream, info: Rc<ConnectionInfo>, watch: Rc<Watch>) {
    let mut timer = accepted.worker.timers.timer();
    // Boxed, so that a parked connection keeps no room for a busy one.
    while let Some(idle) = pinned(|| busy(accepted, stream, &info, &watch, &mut timer)).await {
        stream = idle;
        // Of its requests it keeps nothing.
        info.authority.take();
        if !stream.has_ahead() && !park(accepted, &mut stream, &watch, &mut timer).await {
            return end(accepted, stream, false).await;
        }
    }
}

struct Http1<'a> {
    connection: http1::Connection<TokioIo<ClientStream>, Requests>,
    info: &'a ConnectionInfo,
    watch: &'a Watch,
}

impl Engine for Http1<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match ready!(self.connection.poll_without_shutdown(context)) {
            // Where a request's body was left unread, hyper is done when the answer lies in its buffer. It has tried to send
            // it, and will by the next poll.
            Ok(()) if self.watch.is_blocked() => Poll::Pending,
            ended => Poll::Ready(ended),
        }
    }

    /// The next response says that it is the last; who asks nothing more is closed by the watch. hyper's own way would
    /// close an idle connection at once, and a request that is just on its way would be reset (F30).
    fn drain(&mut self) {
        self.info.last_response.set(true);
        self.watch.drain();
    }
}

/// Serves requests until the connection ends, or has nothing to do: then it comes back.
async fn busy(
    accepted: &Accepted,
    stream: ClientStream,
    info: &Rc<ConnectionInfo>,
    watch: &Watch,
    timer: &mut Timer,
) -> Option<ClientStream> {
    let limit = accepted.limits().header_bytes.bytes() as usize;
    let connection = http1::Builder::new()
        .half_close(true)
        .max_header_size(limit)
        .max_buf_size(BUFFER.max(limit))
        .serve_connection(TokioIo::new(stream), Requests::of(accepted, info, None));
    let mut engine = Http1 { connection, info, watch };
    let (mut parks, mut ends_badly, mut breaks_off) = (false, false, false);
    match drive(&mut engine, accepted, info, watch, timer).await {
        // An idle connection loses nothing, but over TLS its client is told that this is the end and no cut.
        End::Closed | End::Expired(Expired::KeepAlive) => {}
        End::Expired(Expired::Idle) => parks = true,
        End::Failed(error) => {
            accepted.explain(&error);
            ends_badly = !error.is_parse();
            breaks_off = error.is_user();
            // hyper has answered by itself, and the client may still be sending: as with a refusal of ours.
            info.lingers.set(true);
        }
        End::Expired(Expired::Fault(reason)) => {
            accepted.expire(info, reason);
            ends_badly = true;
        }
        End::Stopped => {
            info.closed_for.set(Some(Reason::Draining));
            ends_badly = true;
        }
    }
    // A body that ends with the connection would seem whole.
    breaks_off |= info.running.get() > 0 || watch.is_blocked();
    let parts = engine.connection.into_parts();
    let stream = parts.io.into_inner().with_ahead(parts.read_buf);
    if ends_badly {
        if breaks_off && info.ends_by_close.get() {
            stream.abort();
        }
        return None;
    }
    let tunnel = info.tunnel.borrow_mut().take();
    match tunnel {
        Some(tunnel) => Box::pin(carry(accepted, stream, tunnel)).await,
        None if parks => return Some(stream),
        None => end(accepted, stream, info.lingers.get() || info.unread.get()).await,
    }
    None
}

/// Waits for the client with nothing but the socket. False where it waited too long, or the worker is on its way out.
async fn park(accepted: &Accepted, stream: &mut ClientStream, watch: &Watch, timer: &mut Timer) -> bool {
    let mut follower = accepted.phases.follow();
    std::future::poll_fn(|context| {
        let phase = follower.look(context);
        if phase == Phase::Stop {
            return Poll::Ready(false);
        }
        if let Poll::Ready(arrived) = stream.poll_arrival(context) {
            return Poll::Ready(arrived);
        }
        if phase == Phase::Drain {
            // The kernel may hold a request that the runtime has not told of yet: its word is still to come, and wakes us.
            return if stream.has_arrived() { Poll::Pending } else { Poll::Ready(false) };
        }
        timer.poll(watch.keep_alive_ends(), context).map(|()| false)
    })
    .await
}

/// Ends our direction; where the client may still be sending, hears it to its end.
async fn end(accepted: &Accepted, mut stream: ClientStream, lingers: bool) {
    // In clear the close says as much.
    if !lingers && !stream.is_clear() {
        let _ = tokio::time::timeout(LINGER, Box::pin(stream.shutdown())).await;
    }
    // Bytes behind what was to be the last request have been read by nobody: the close would take its answer back.
    if lingers || stream.has_arrived() {
        Box::pin(leave(&mut stream, accepted.timeouts().send)).await;
    }
}

/// Carries bytes both ways after an upgrade.
async fn carry(accepted: &Accepted, mut stream: ClientStream, mut tunnel: Tunnel) {
    let carried = Carried::default();
    let timer = accepted.worker.timers.timer();
    let carry = async {
        carried.from_endpoint.set(tunnel.early.len() as u64);
        match tokio::time::timeout(tunnel.idle, stream.write_all(&tunnel.early)).await {
            Ok(Ok(())) => relay::relay(&mut stream, &mut tunnel.endpoint, tunnel.idle, timer, &carried).await,
            Ok(Err(_)) => TunnelEnd::ClientLost,
            Err(_) => TunnelEnd::Idle,
        }
    };
    let reason = tokio::select! {
        biased;
        end = carry => match end {
            TunnelEnd::Closed => None,
            TunnelEnd::Idle => Some(Reason::TunnelIdle),
            TunnelEnd::ClientLost => Some(Reason::ClientGone),
            TunnelEnd::EndpointLost => Some(Reason::ResponseIncomplete),
        },
        () = accepted.phases.reached(Phase::Stop) => Some(Reason::Draining),
    };
    tunnel.close(reason, carried.from_client.get(), carried.from_endpoint.get());
}
