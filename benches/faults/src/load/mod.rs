//! The load: requests at a fixed rate, whether answers come or not ("open loop"), each with a number of its own.
//!
//! Latency counts from the moment a request was *meant* to be sent, so that a proxy that falls behind cannot hide it.
//! A request that the client itself knows was never sent is sent again on another connection, as every client does; one
//! that was sent never is: what goes wrong then is what this counts.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::task::{LocalSet, spawn_local};

pub mod connections;
pub mod seen;
pub mod tunnel;

use connections::Client;
use seen::{End, Sample, Seen};

/// Which HTTP the load speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 in clear, with prior knowledge.
    H2,
}

/// Numbers are unique in this process, over all loads.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What to send.
#[derive(Debug, Clone)]
pub struct Load {
    /// The proxy; may change while it runs, as behind a virtual address.
    pub address: Arc<Mutex<SocketAddr>>,
    /// HTTP/1.1 or HTTP/2.
    pub protocol: Protocol,
    /// Requests per second.
    pub rate: u32,
    /// Methods in turn.
    pub methods: Vec<&'static str>,
    /// The target of all of them; `{id}` stands for a request's number.
    pub path: String,
    /// Every so many requests take a connection of their own; 0: none.
    pub fresh_every: u64,
    /// Instead of even times: so many at once, each second, give or take 2 ms.
    pub burst: Option<u32>,
    /// Bytes of a body of POST and PUT.
    pub body: usize,
    /// The most that a request may take.
    pub timeout: Duration,
}

/// A load that runs.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

/// Both protocols beside each other.
#[derive(Debug)]
pub struct Pair(Vec<Running>);

// === impl Protocol ===

impl Protocol {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }
}

// === impl Load ===

impl Load {
    /// GET at 100 requests per second, by HTTP/1.1.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address: Arc::new(Mutex::new(address)),
            protocol: Protocol::H1,
            rate: 100,
            methods: vec!["GET"],
            path: "/".to_owned(),
            fresh_every: 0,
            burst: None,
            body: 64,
            timeout: Duration::from_secs(20),
        }
    }

    /// Starts it on a thread of its own.
    pub fn start(self) -> Result<Running> {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let name = format!("load-{}", self.protocol.name());
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(LocalSet::new().block_on(&runtime, self.run(&until)))
        })?;
        Ok(Running { stop, thread })
    }

    /// Starts the same in both protocols.
    pub fn start_both(self) -> Result<Pair> {
        let other = Self { protocol: Protocol::H2, ..self.clone() };
        Ok(Pair(vec![Self { protocol: Protocol::H1, ..self }.start()?, other.start()?]))
    }

    /// When the request of that number, from 0, is meant to be sent, from the start.
    fn due(&self, number: u64) -> Duration {
        match self.burst {
            None => Duration::from_secs(1) / self.rate.max(1) * number as u32,
            Some(burst) => {
                let turn = number / u64::from(burst.max(1));
                // Steps that are prime to the range reach all of it, from 0 to 4 ms.
                Duration::from_secs(turn) + Duration::from_micros(turn * 1_237 % 4_000)
            }
        }
    }

    async fn run(self, stop: &AtomicBool) -> Seen {
        let protocol = self.protocol.name();
        let load = Rc::new(self);
        let client = Rc::new(Client::new(load.clone()));
        let samples: Rc<RefCell<Vec<Sample>>> = Rc::default();
        let open = Rc::new(Cell::new(0_usize));
        let start = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        let mut sent: u64 = 0;
        while !stop.load(Ordering::Relaxed) {
            tick.tick().await;
            while start + load.due(sent) <= Instant::now() {
                let intended = start + load.due(sent);
                let method = load.methods.get(sent as usize % load.methods.len().max(1)).copied().unwrap_or("GET");
                let fresh = load.fresh_every != 0 && sent.is_multiple_of(load.fresh_every);
                sent += 1;
                open.set(open.get() + 1);
                let (client, samples, open) = (client.clone(), samples.clone(), open.clone());
                spawn_local(async move {
                    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
                    let sample = client.ask(intended, method, id, fresh).await;
                    samples.borrow_mut().push(sample);
                    open.set(open.get() - 1);
                });
            }
        }
        // Each request ends by its own timeout at the latest.
        while open.get() > 0 {
            tick.tick().await;
        }
        Seen { protocol, samples: samples.take() }
    }
}

// === impl Running ===

impl Running {
    /// Ends the load and gives what it saw, when the last request has ended.
    pub fn finish(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the load has panicked"))?.context("the load could not run")
    }
}

// === impl Pair ===

impl Pair {
    /// Ends both and gives what they saw, HTTP/1.1 first.
    pub fn finish(self) -> Result<Vec<Seen>> {
        for running in &self.0 {
            running.stop.store(true, Ordering::Relaxed);
        }
        self.0.into_iter().map(Running::finish).collect()
    }
}

/// What a lock holds, whoever has panicked with it.
pub fn locked<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sample of what never came to a response.
fn without_response(intended: Instant, method: &'static str, id: u64, end: End) -> Sample {
    let ended = Instant::now();
    Sample { intended, ended, method, id, end, reason: None, retry_after: false, origin: None }
}
