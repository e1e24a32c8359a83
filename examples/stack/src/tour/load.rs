//! Load on headgate: clients that keep their connection, clients that make a new one for each request, and
//! clients that write at a steady rate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::client::{Answer, Client, Connection};

/// Clients that keep their connection.
const KEEPING_CLIENTS: usize = 8;
/// Clients that make a new connection for each request.
const FRESH_CLIENTS: usize = 4;
/// A breath between two requests: the load must leave the machine to those who answer it.
const PAUSE: Duration = Duration::from_millis(3);
/// Clients that write.
pub const WRITERS: u32 = 8;
/// Writes a second, all writers together.
const WRITE_RATE: u32 = 100;

/// Reads until it is told to stop.
pub struct Reads {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Tally>,
}

/// What readers have seen.
#[derive(Debug, Default)]
pub struct Tally {
    /// Good answers on kept connections.
    pub kept: u64,
    /// Good answers on new connections.
    pub fresh: u64,
    /// Everything else.
    pub failed: u64,
    /// The first failure.
    pub first_failure: Option<String>,
    /// Good answers by the server that gave them.
    pub by_server: BTreeMap<String, u64>,
    /// The longest a good answer took.
    pub slowest: Duration,
}

/// Writes until it is told to stop.
pub struct Writes {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Vec<Write>>,
}

/// One write.
#[derive(Debug)]
pub struct Write {
    /// The note's content, by which it is known in the database. Not a client id: of those the database refuses
    /// a second one, and a write that was sent twice is just what must be seen.
    pub content: String,
    /// When it was sent.
    pub sent: Instant,
    /// When its outcome was known.
    pub done: Instant,
    /// The server that acknowledged it, or why it was not.
    pub outcome: Result<String, String>,
}

// === impl Reads ===

impl Reads {
    /// Starts reading `path`.
    pub fn start(client: &Client, path: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..KEEPING_CLIENTS + FRESH_CLIENTS {
            let keeps = number < KEEPING_CLIENTS;
            clients.spawn(read(client.clone(), path.to_owned(), keeps, Arc::clone(&stop)));
        }
        Self { stop, clients }
    }

    /// Stops, and sums up.
    pub async fn finish(mut self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        while let Some(tally) = self.clients.join_next().await {
            sum.add(tally.context("a reader broke")?);
        }
        Ok(sum)
    }
}

async fn read(client: Client, path: String, keeps: bool, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        match exchange(&client, &mut connection, Method::GET, &path, None).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                let count = if keeps { &mut tally.kept } else { &mut tally.fresh };
                *count += 1;
                *tally.by_server.entry(answer.server().to_owned()).or_default() += 1;
                tally.slowest = tally.slowest.max(sent.elapsed());
            }
            Ok(answer) => tally.fail(format!("{} {}", answer.status, answer.text())),
            Err(error) => tally.fail(format!("{error:#}")),
        }
        if !keeps {
            connection = None;
        }
        tokio::time::sleep(PAUSE).await;
    }
    tally
}

/// One exchange on the connection at hand, or on a new one when there is none or it was closed. Whatever fails
/// after that counts: a request that was sent and not answered is lost to whoever sent it.
async fn exchange(
    client: &Client,
    slot: &mut Option<Connection>,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Answer> {
    let mut connection = match slot.take() {
        Some(connection) => connection,
        None => client.connect_http1().await?,
    };
    if !connection.is_open().await {
        connection = client.connect_http1().await?;
    }
    let answer = connection.send(method, path, body).await?;
    *slot = Some(connection);
    Ok(answer)
}

// === impl Tally ===

impl Tally {
    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(why);
    }

    fn add(&mut self, other: Self) {
        let Self { kept, fresh, failed, first_failure, by_server, slowest } = other;
        self.kept += kept;
        self.fresh += fresh;
        self.failed += failed;
        self.first_failure = self.first_failure.take().or(first_failure);
        self.slowest = self.slowest.max(slowest);
        for (server, count) in by_server {
            *self.by_server.entry(server).or_default() += count;
        }
    }

    /// "read-1 512, read-2 498".
    pub fn servers(&self) -> String {
        let counts: Vec<String> = self.by_server.iter().map(|(server, count)| format!("{server} {count}")).collect();
        counts.join(", ")
    }

    /// Fails when a request failed.
    pub fn expect_no_failure(&self) -> Result<()> {
        match &self.first_failure {
            None => Ok(()),
            Some(why) => Err(anyhow!("{} requests failed, the first with: {why}", self.failed)),
        }
    }
}

// === impl Writes ===

impl Writes {
    /// Starts writing notes of `user`, whose contents begin with `prefix`.
    pub fn start(client: &Client, user: u64, prefix: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..WRITERS {
            let (client, prefix) = (client.clone(), prefix.to_owned());
            clients.spawn(write(client, user, prefix, Arc::clone(&next), Arc::clone(&stop)));
        }
        Self { stop, clients }
    }

    /// Stops; every write, in the order of their sending.
    pub async fn finish(mut self) -> Result<Vec<Write>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut writes = Vec::new();
        while let Some(some) = self.clients.join_next().await {
            writes.extend(some.context("a writer broke")?);
        }
        writes.sort_by_key(|write| write.sent);
        Ok(writes)
    }
}

async fn write(client: Client, user: u64, prefix: String, next: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut connection = None;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * WRITERS / WRITE_RATE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let content = format!("{prefix}{}", next.fetch_add(1, Ordering::Relaxed));
        let note = json!({ "user_id": user, "content": &content });
        let sent = Instant::now();
        let answer = exchange(&client, &mut connection, Method::POST, "/api/notes", Some(&note)).await;
        let outcome = match answer {
            Ok(answer) if answer.status == StatusCode::CREATED => Ok(answer.server().to_owned()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(format!("{error:#}")),
        };
        writes.push(Write { content, sent, done: Instant::now(), outcome });
    }
    writes
}
