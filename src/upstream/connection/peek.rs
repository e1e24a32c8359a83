//! One non-blocking look at a socket that hyper owns.

use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

/// Nothing to read and not closed: the only state in which an idle connection may be used again.
#[expect(unsafe_code, reason = "the descriptor is owned by the driver beside which it is kept, so it is open")]
pub(super) fn is_quiet(descriptor: RawFd) -> bool {
    let mut byte = [0];
    // SAFETY: `Connection` keeps the descriptor together with the stream that owns it, and drops both at once.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(recv(std::os::fd::AsRawFd::as_raw_fd(&borrowed), &mut byte, flags), Err(Errno::EAGAIN))
}
