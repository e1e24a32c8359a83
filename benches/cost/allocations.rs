//! Counts what a worker takes from the allocator: headgate in this process, on its own allocator with a counter round it.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use anyhow::{Context, ensure};
use headgate::app::{self, Options};
use mimalloc::MiMalloc;
use nix::unistd::gettid;

use crate::load::{Client, Origin};
use crate::scenario::{COUNTED, Scenario, WARM_UP, config};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The thread that is counted, by the kernel's number; 0 is none.
static THREAD: AtomicI32 = AtomicI32::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread's number, once it is known: no syscall for each allocation. Without a destructor, which would allocate.
    static OWN: Cell<i32> = const { Cell::new(0) };
}

/// What `headgate` allocates with, counted on one thread.
struct Counting;

fn count() {
    OWN.with(|own| {
        if own.get() == 0 {
            own.set(gettid().as_raw());
        }
        if own.get() == THREAD.load(Relaxed) {
            COUNT.fetch_add(1, Relaxed);
        }
    });
}

#[expect(unsafe_code, reason = "an allocator can be wrapped in no other way; each call goes on with what it was given")]
// SAFETY: the contract of each method is the one of mimalloc's, which gets the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

/// Allocations per request on the worker's thread, to a tenth: what a turn of the log's buffer adds is below that.
pub(crate) fn per_request(scenario: &Scenario) -> anyhow::Result<f64> {
    let origin = Origin::start()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("headgate.toml");
    fs::write(&path, config(folder.path(), origin.address))?;
    let running = app::start(Options { config: path, workers: None })?;
    let mut client = Client::connect(running.listeners.first().context("a listener")?.1, scenario)?;
    client.exchange(WARM_UP)?;
    let heard = origin.requests();
    THREAD.store(worker()?, Relaxed);
    let before = COUNT.load(Relaxed);
    client.exchange(COUNTED)?;
    let count = COUNT.load(Relaxed) - before;
    THREAD.store(0, Relaxed);
    let forwarded = origin.requests() - heard;
    let expected = if scenario.is_cached { 0 } else { COUNTED };
    ensure!(forwarded == expected, "{}: the origin heard {forwarded} requests, not {expected}", scenario.name);
    drop(client);
    running.shutdown();
    Ok((count as f64 * 10.0 / COUNTED as f64).round() / 10.0)
}

/// The kernel's number of the one worker's thread.
fn worker() -> anyhow::Result<i32> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        if fs::read_to_string(task.path().join("comm"))?.trim_end() == "worker-0" {
            return Ok(task.file_name().to_string_lossy().parse()?);
        }
    }
    anyhow::bail!("no thread is called worker-0")
}
