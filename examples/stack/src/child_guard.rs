//! Ties a child's life to ours: when this program dies, by whatever means, the kernel kills the child.
//!
//! The one place with `unsafe`: code that runs between fork and exec can only be given through `pre_exec`. The
//! closure makes two system calls and allocates nothing, which is what is allowed there (signal-safety(7)).

use std::io;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::Command;

/// Makes the kernel kill the child when the thread that spawns it ends.
#[expect(unsafe_code, reason = "pre_exec is unsafe; the closure only makes async-signal-safe system calls")]
pub fn die_with_parent(command: &mut Command) {
    let parent: Pid = getpid();
    // SAFETY: prctl and getppid are async-signal-safe, and nothing here allocates or takes a lock.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the call above took effect.
            if getppid() == parent { Ok(()) } else { Err(io::Error::from(nix::errno::Errno::ESRCH)) }
        });
    }
}
