//! Non-blocking looks at the socket of a connection.

use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

/// Nothing to read and not closed: the only state in which an idle connection may be used again.
#[expect(unsafe_code, reason = "the descriptor is owned by the stream beside which it is kept, so it is open")]
pub(super) fn is_quiet(descriptor: RawFd) -> bool {
    let mut byte = [0];
    // SAFETY: `Connection` keeps the descriptor together with the stream that owns it, and drops both at once.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(recv(std::os::fd::AsRawFd::as_raw_fd(&borrowed), &mut byte, flags), Err(Errno::EAGAIN))
}

/// Where the kernel's `tcp_info` has `tcpi_bytes_acked`, a `u64`; Linux has had it since 4.1.
const BYTES_ACKED: usize = 120;

/// How many of the bytes sent so far the other side's kernel has confirmed. None where it is no TCP socket.
#[expect(unsafe_code, reason = "nix knows no TCP_INFO; the kernel writes no more than the length it is given")]
pub(super) fn acknowledged(descriptor: RawFd) -> Option<u64> {
    use nix::libc::{IPPROTO_TCP, TCP_INFO, getsockopt, socklen_t};

    let mut info = [0_u8; BYTES_ACKED + 8];
    let mut length = info.len() as socklen_t;
    // SAFETY: the descriptor is open as above; buffer and length belong together and outlive the call.
    let failed = unsafe {
        getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, info.as_mut_ptr().cast(), std::ptr::from_mut(&mut length))
    };
    let whole = failed == 0 && length as usize == info.len();
    let bytes = info[BYTES_ACKED..].try_into().ok()?;
    whole.then(|| u64::from_ne_bytes(bytes))
}
