//! Where a child runs, and when it ends: pinned to cores, and told to end by the kernel when this program dies.
//!
//! The one place with `unsafe`: code that runs between fork and exec can only be given through `pre_exec`. The
//! closure makes three system calls and allocates nothing, which is what is allowed there (signal-safety(7)).

use std::io;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::Command;

/// Pins the child to `cores`, and has the kernel send it `end` when the thread that spawns it ends.
#[expect(unsafe_code, reason = "pre_exec is unsafe; the closure only makes async-signal-safe system calls")]
pub fn place(command: &mut Command, cores: &[usize], end: Signal) -> nix::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|core| set.set(*core))?;
    let parent: Pid = getpid();
    // SAFETY: the three system calls are async-signal-safe, and nothing here allocates or takes a lock.
    unsafe {
        command.pre_exec(move || {
            sched_setaffinity(Pid::from_raw(0), &set)?;
            set_pdeathsig(end)?;
            // The parent may have died before the call above took effect.
            if getppid() == parent { Ok(()) } else { Err(io::Error::from(Errno::ESRCH)) }
        });
    }
    Ok(())
}
