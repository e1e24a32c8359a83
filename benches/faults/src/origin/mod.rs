//! A scripted server: one thread, which can be killed, frozen and started again on its port.
//!
//! Killed is what a kill -9 is to its peers: the kernel closes the listening socket and every connection at once, with a
//! reset where something lay unread. Here all of them are dropped with the thread's runtime. Frozen is SIGSTOP: the
//! kernel goes on accepting and confirming, and nobody reads.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::lab::namespace::Island;
use crate::load::locked;

mod script;
mod serve;

pub use script::{Answer, Behind, Script};

const BACKLOG: i32 = 4096;
/// How often a frozen origin looks whether it still is, and a live one whether it should be.
const LOOK: Duration = Duration::from_millis(2);

/// A server.
#[derive(Debug)]
pub struct Origin {
    /// Its name, which its answers carry.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it was asked.
    pub record: Arc<Record>,
    /// The network it runs in, if not this thread's.
    island: Option<Arc<Island>>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What an origin was asked, over all its lives.
#[derive(Debug, Default)]
pub struct Record {
    script: Mutex<Script>,
    frozen: AtomicBool,
    /// It stands still.
    rests: AtomicBool,
    /// How often each numbered request was read to its end.
    asked: Mutex<HashMap<u64, (u32, Instant)>>,
    /// When numbered requests were read to their end.
    times: Mutex<Vec<Instant>>,
    /// Connections that came, with their times.
    connects: Mutex<Vec<Instant>>,
    /// Open connections.
    open: AtomicU64,
    /// Requests read and not yet answered.
    running: AtomicU64,
    /// The most of them at once.
    peak: AtomicU64,
    /// Bytes of bodies that were written.
    written: AtomicU64,
    /// Probes that came, with their times.
    probes: Mutex<Vec<Instant>>,
}

// === impl Record ===

impl Record {
    /// The knobs as they are.
    pub fn script(&self) -> Script {
        *locked(&self.script)
    }

    /// Turns knobs, for requests from now on.
    pub fn set(&self, turn: impl FnOnce(&mut Script)) {
        turn(&mut locked(&self.script));
    }

    /// How often a request was read to its end.
    pub fn times(&self, id: u64) -> u32 {
        locked(&self.asked).get(&id).map_or(0, |(times, _)| *times)
    }

    /// When numbered requests came in a window of time.
    pub fn asked_between(&self, from: Instant, to: Instant) -> Vec<Instant> {
        locked(&self.times).iter().filter(|at| (from..to).contains(*at)).copied().collect()
    }

    /// When the first numbered request after `from` came.
    pub fn first_asked_since(&self, from: Instant) -> Option<Instant> {
        locked(&self.asked).values().map(|(_, last)| *last).filter(|last| *last >= from).min()
    }

    /// Connections that came in a window of time.
    pub fn connects_between(&self, from: Instant, to: Instant) -> usize {
        locked(&self.connects).iter().filter(|at| (from..to).contains(*at)).count()
    }

    /// Open connections.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Requests it is working on.
    pub fn in_flight(&self) -> u64 {
        self.running.load(Relaxed)
    }

    /// The most requests that it worked on at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Bytes of bodies that the kernel took from it.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Probes that came in a window of time.
    pub fn probes_between(&self, from: Instant, to: Instant) -> usize {
        locked(&self.probes).iter().filter(|at| (from..to).contains(*at)).count()
    }

    fn count(&self, id: u64) {
        let now = Instant::now();
        let mut asked = locked(&self.asked);
        let (times, last) = asked.entry(id).or_insert((0, now));
        (*times, *last) = (*times + 1, now);
        drop(asked);
        locked(&self.times).push(now);
    }
}

// === impl Origin ===

impl Origin {
    /// Starts one on a port of its own.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_at(name, (Ipv4Addr::LOCALHOST, 0).into(), None)
    }

    /// Starts one at an address, here or on an island.
    pub fn start_at(name: &str, address: SocketAddr, island: Option<Arc<Island>>) -> Result<Self> {
        let mut origin = Self { name: name.to_owned(), address, record: Arc::default(), island, running: None };
        origin.start_again()?;
        Ok(origin)
    }

    /// Starts it anew at its address, after a kill.
    pub fn start_again(&mut self) -> Result<()> {
        let (end, ended) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (name, address, record) = (self.name.clone(), self.address, self.record.clone());
        let island = self.island.clone();
        self.record.frozen.store(false, Relaxed);
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
            let set_up = || -> Result<_> {
                island.map_or(Ok(()), |island| island.visit())?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let within = runtime.enter();
                let listener = listen(address)?;
                drop(within);
                Ok((runtime, listener))
            };
            let (runtime, listener) = match set_up() {
                Ok(made) => made,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let bound = listener.local_addr().map_err(Into::into);
            if ready.send(bound).is_err() {
                return;
            }
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    _ = ended => {}
                    () = serve::accept(listener, name, record.clone()) => {}
                    () = stand_still(&record) => {}
                }
            });
            // Connections end here, with the set and the runtime.
            record.open.store(0, Relaxed);
            record.running.store(0, Relaxed);
        })?;
        self.address = is_ready.recv().map_err(|_| anyhow!("an origin ended at once"))??;
        self.running = Some(Running { end, thread });
        Ok(())
    }

    /// Ends it as kill -9 ends a process. Gives when that was.
    pub fn kill(&mut self) -> Instant {
        self.record.frozen.store(false, Relaxed);
        let at = Instant::now();
        if let Some(Running { end, thread }) = self.running.take() {
            let _ = end.send(());
            let _ = thread.join();
        }
        at
    }

    /// Stops it as SIGSTOP does; returns when it stands still.
    pub fn freeze(&self) {
        self.record.frozen.store(true, Relaxed);
        while !self.record.rests.load(Relaxed) && self.running.is_some() {
            std::thread::sleep(LOOK);
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.record.frozen.store(false, Relaxed);
    }

    /// Turns knobs.
    pub fn set(&self, turn: impl FnOnce(&mut Script)) {
        self.record.set(turn);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).with_context(|| format!("an origin cannot listen on {address}"))?;
    socket.listen(BACKLOG)?;
    Ok(tokio::net::TcpListener::from_std(socket.into())?)
}

/// Holds the whole thread while it is to be frozen.
async fn stand_still(record: &Record) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        while record.frozen.load(Relaxed) {
            record.rests.store(true, Relaxed);
            std::thread::sleep(LOOK);
        }
        record.rests.store(false, Relaxed);
    }
}
