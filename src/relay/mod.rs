//! Floor 2: bytes both ways between two streams, with half-close and an idle limit, for upgrades and TCP.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::clock;
use crate::base::timer::Timer;

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides closed.
    Closed,
    /// Neither side sent anything for the idle limit.
    Idle,
    /// The client was lost.
    ClientLost,
    /// The endpoint was lost.
    EndpointLost,
}

/// What a tunnel has carried; to be read also where the tunnel is given up in the middle.
#[derive(Debug, Default)]
pub struct Carried {
    /// Bytes that came from the client.
    pub from_client: Cell<u64>,
    /// Bytes that came from the endpoint.
    pub from_endpoint: Cell<u64>,
}

/// The most that is carried at once, and that a direction keeps for a side which takes it slowly.
const PIECE: usize = 16 * 1024;

thread_local! {
    /// What every tunnel of a worker reads into: one that is silent holds no buffer of its own.
    static PASSING: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into());
}

/// Carries bytes until both sides have closed, one is lost, or nothing moves for `idle`.
pub async fn relay<A, B>(
    mut client: A,
    mut endpoint: B,
    idle: Duration,
    mut timer: Timer,
    carried: &Carried,
) -> TunnelEnd
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut upwards, mut downwards) = (Way::new(&carried.from_client), Way::new(&carried.from_endpoint));
    let mut moved = clock::now();
    poll_fn(|context| {
        let up = upwards.poll(&mut client, &mut endpoint, context);
        let down = downwards.poll(&mut endpoint, &mut client, context);
        match (up, down) {
            (Poll::Ready(Err(Lost::From)), _) | (_, Poll::Ready(Err(Lost::To))) => {
                return Poll::Ready(TunnelEnd::ClientLost);
            }
            (Poll::Ready(Err(Lost::To)), _) | (_, Poll::Ready(Err(Lost::From))) => {
                return Poll::Ready(TunnelEnd::EndpointLost);
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(TunnelEnd::Closed),
            _ => {}
        }
        // Both are asked, so that neither keeps its word for the next turn.
        if upwards.has_moved() | downwards.has_moved() {
            moved = clock::now();
        }
        timer.poll(moved + idle, context).map(|()| TunnelEnd::Idle)
    })
    .await
}

/// Which side of a direction was lost.
enum Lost {
    From,
    To,
}

/// One direction of a tunnel.
struct Way<'a> {
    count: &'a Cell<u64>,
    /// What the other side has not taken yet.
    waiting: Vec<u8>,
    taken: usize,
    /// Something was written that may lie in a buffer of TLS.
    unflushed: bool,
    moved: bool,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// One side has ended its direction; the other must hear of it.
    Ending,
    Ended,
}

impl<'a> Way<'a> {
    fn new(count: &'a Cell<u64>) -> Self {
        Self { count, waiting: Vec::new(), taken: 0, unflushed: false, moved: false, stage: Stage::Open }
    }

    fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Ready when this direction has ended in good order.
    fn poll<F, T>(&mut self, from: &mut F, to: &mut T, context: &mut Context<'_>) -> Poll<Result<(), Lost>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.poll_waiting(to, context)).map_err(|_| Lost::To)?;
            match self.stage {
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(context)).map_err(|_| Lost::To)?;
                    self.stage = Stage::Ended;
                }
                Stage::Open => match PASSING.with_borrow_mut(|piece| self.poll_piece(from, to, piece, context)) {
                    Poll::Ready(carried) => carried?,
                    Poll::Pending => {
                        if self.unflushed {
                            ready!(Pin::new(&mut *to).poll_flush(context)).map_err(|_| Lost::To)?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Reads a piece and writes as much of it as is taken at once. Pending where there is none.
    fn poll_piece<F, T>(
        &mut self,
        from: &mut F,
        to: &mut T,
        piece: &mut [u8],
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Lost>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let mut piece = ReadBuf::new(piece);
        ready!(Pin::new(from).poll_read(context, &mut piece)).map_err(|_| Lost::From)?;
        let piece = piece.filled();
        self.moved = true;
        if piece.is_empty() {
            self.stage = Stage::Ending;
            return Poll::Ready(Ok(()));
        }
        self.count.set(self.count.get() + piece.len() as u64);
        let taken = match Pin::new(to).poll_write(context, piece) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Lost::To)),
            Poll::Ready(Ok(taken)) => taken,
            Poll::Pending => 0,
        };
        self.unflushed = true;
        self.waiting.extend_from_slice(&piece[taken..]);
        Poll::Ready(Ok(()))
    }

    /// Writes what waits; the room for it is given back behind it.
    fn poll_waiting<T: AsyncWrite + Unpin>(&mut self, to: &mut T, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.taken..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *to).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.taken += count,
            }
            // One side that takes what it gets bit by bit is not idle, though nothing is read meanwhile.
            self.moved = true;
        }
        if self.taken > 0 {
            (self.waiting, self.taken) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use std::rc::Rc;

    use super::*;
    use crate::base::timer::Timers;

    fn timer() -> Timer {
        Rc::new(Timers::default()).timer()
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_a_half_close_is_carried_over() {
        let (mut client, near) = duplex(64);
        let (far, mut endpoint) = duplex(64);
        let endpoint = async move {
            let mut asked = String::new();
            endpoint.read_to_string(&mut asked).await.unwrap();
            endpoint.write_all(asked.to_uppercase().as_bytes()).await.unwrap();
        };
        let client = async move {
            client.write_all(b"hello").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let carried = Carried::default();
        let (end, (), answer) =
            tokio::join!(relay(near, far, Duration::from_secs(5), timer(), &carried), endpoint, client);
        assert_eq!((end, answer.as_str()), (TunnelEnd::Closed, "HELLO"));
        assert_eq!((carried.from_client.get(), carried.from_endpoint.get()), (5, 5));
    }

    #[tokio::test]
    async fn a_silent_tunnel_ends() {
        let (_client, near) = duplex(64);
        let (far, _endpoint) = duplex(64);
        assert_eq!(relay(near, far, Duration::from_millis(20), timer(), &Carried::default()).await, TunnelEnd::Idle);
    }

    #[tokio::test]
    async fn much_passes_whole_to_a_side_that_takes_it_bit_by_bit() {
        let (mut client, near) = duplex(1024);
        let (far, mut endpoint) = duplex(100);
        let sent: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        let sending = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut nothing = Vec::new();
            client.read_to_end(&mut nothing).await.unwrap();
            nothing
        };
        let taking = async {
            let mut all = Vec::new();
            endpoint.read_to_end(&mut all).await.unwrap();
            endpoint.shutdown().await.unwrap();
            all
        };
        let carried = Carried::default();
        let relaying = relay(near, far, Duration::from_secs(5), timer(), &carried);
        let (end, nothing, got) = tokio::join!(relaying, sending, taking);
        assert!(end == TunnelEnd::Closed && nothing.is_empty() && got == sent);
        assert_eq!(carried.from_client.get(), sent.len() as u64);
    }

    #[tokio::test]
    async fn the_side_that_was_lost_is_told() {
        for lost in [TunnelEnd::ClientLost, TunnelEnd::EndpointLost] {
            let (mut client, near) = duplex(64);
            let (far, mut endpoint) = duplex(64);
            match lost {
                TunnelEnd::ClientLost => {
                    drop(client);
                    endpoint.write_all(&[0; 64]).await.unwrap();
                }
                _ => {
                    drop(endpoint);
                    client.write_all(&[0; 64]).await.unwrap();
                }
            }
            assert_eq!(relay(near, far, Duration::from_secs(5), timer(), &Carried::default()).await, lost);
        }
    }
}
