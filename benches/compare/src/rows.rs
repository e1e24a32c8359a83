//! The rows: what each one sends, and what headgate is held to.

use serde::Serialize;

use crate::load::tls::Version;
use crate::load::{h2load, wrk};

/// Idle connections of the idle rows.
pub const IDLE_CONNECTIONS: usize = 10_000;
/// WebSockets of the tunnel row.
pub const TUNNELS: usize = 1000;
/// Handshakes at the same time.
pub const HANDSHAKE_SLOTS: usize = 32;
/// Connections of the open-loop rows.
pub const OPEN_CONNECTIONS: usize = 64;
/// No ratio may be above this.
const GATE: f64 = 1.05;
/// But for handshakes by ticket, which are rarer than requests by far.
const GATE_RESUMED: f64 = 1.15;

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its short name.
    pub id: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// What is sent.
    pub generator: Generator,
    /// What headgate is to reach.
    pub goal: Goal,
    /// What headgate's ratio may not exceed, where there is a gate.
    pub gate: Option<f64>,
    /// Whether the plain relay takes part.
    pub relay: bool,
    /// What headgate is to reach beside the relay, as a ratio.
    pub relay_goal: Option<f64>,
    /// Whether `make bench-quick` runs it.
    pub headline: bool,
}

/// What is sent, and by which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generator {
    /// wrk.
    Wrk(wrk::Plan),
    /// h2load.
    H2load(h2load::Plan),
    /// A TLS handshake for each request.
    Handshake { version: Version, resumed: bool },
    /// WebSockets that echo.
    Tunnels,
    /// Idle connections.
    Idle { tls: bool },
    /// A fixed rate, in requests per second.
    Open { rate: u32 },
}

/// What headgate is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// So many times the better peer, at most.
    Ratio(f64),
    /// So many bytes, at most.
    Bytes(f64),
}

/// What a row's figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Time of the proxy on a core for each request, in microseconds.
    CpuMicros,
    /// Resident memory for each connection, in bytes.
    Bytes,
    /// Latency that 99 of 100 requests do not exceed, in microseconds.
    P99Micros,
}

// === impl Row ===

impl Row {
    /// What its figure is.
    pub fn unit(&self) -> Unit {
        match self.generator {
            Generator::Idle { .. } => Unit::Bytes,
            Generator::Open { .. } => Unit::P99Micros,
            Generator::Wrk(_) | Generator::H2load(_) | Generator::Handshake { .. } | Generator::Tunnels => {
                Unit::CpuMicros
            }
        }
    }

    /// Whether the load comes over TLS.
    pub fn tls(&self) -> bool {
        match self.generator {
            Generator::Wrk(plan) => plan.tls,
            Generator::Idle { tls } => tls,
            Generator::H2load(_) | Generator::Handshake { .. } => true,
            Generator::Tunnels | Generator::Open { .. } => false,
        }
    }

    /// Whether every response is to come from the proxy's cache.
    pub fn cached(&self) -> bool {
        let path = match self.generator {
            Generator::Wrk(plan) => plan.path,
            Generator::H2load(plan) => plan.path,
            _ => "",
        };
        path.starts_with("/cached/")
    }

    /// Goals as text.
    pub fn goals(&self) -> String {
        let relay = self.relay_goal.map(|goal| format!(" and ≤ {goal:.2} × relay")).unwrap_or_default();
        format!("{}{relay}", self.goal)
    }

    /// Threads or processes that serve, in each proxy.
    pub fn workers(&self) -> usize {
        if matches!(self.generator, Generator::Open { .. }) { 2 } else { 1 }
    }
}

// === impl Goal ===

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ratio(ratio) => write!(f, "≤ {ratio:.2}"),
            Self::Bytes(bytes) => write!(f, "≤ {:.0} KiB", bytes / 1024.0),
        }
    }
}

// === impl Unit ===

impl Unit {
    /// For the head of a column.
    pub fn label(self) -> &'static str {
        match self {
            Self::CpuMicros => "CPU µs/request",
            Self::Bytes => "bytes/connection",
            Self::P99Micros => "p99 µs",
        }
    }
}

/// A row about time on a core, held to the general gate.
const fn row(id: &'static str, title: &'static str, generator: Generator, goal: f64) -> Row {
    Row {
        id,
        title,
        generator,
        goal: Goal::Ratio(goal),
        gate: Some(GATE),
        relay: false,
        relay_goal: None,
        headline: false,
    }
}

const fn handshake(id: &'static str, title: &'static str, version: Version, resumed: bool) -> Row {
    let (goal, gate) = if resumed { (0.80, GATE_RESUMED) } else { (0.60, GATE) };
    Row { gate: Some(gate), ..row(id, title, Generator::Handshake { version, resumed }, goal) }
}

const fn idle(id: &'static str, title: &'static str, tls: bool, kibibytes: f64) -> Row {
    Row { goal: Goal::Bytes(kibibytes * 1024.0), gate: None, ..row(id, title, Generator::Idle { tls }, 0.0) }
}

const fn open(id: &'static str, title: &'static str, rate: u32) -> Row {
    Row { gate: None, ..row(id, title, Generator::Open { rate }, 1.0) }
}

const KIB: u64 = 1024;
const H1: wrk::Plan = wrk::Plan::get("/1k", KIB, 64);

/// All rows, in the order they run.
pub const ROWS: [Row; 20] = [
    Row {
        relay: true,
        relay_goal: Some(1.15),
        headline: true,
        ..row("h1", "HTTP/1.1 keep-alive, 1 KiB proxied, 64 connections", Generator::Wrk(H1), 0.95)
    },
    Row {
        relay: true,
        ..row(
            "h1-1000",
            "HTTP/1.1 keep-alive, 1 KiB proxied, 1,000 connections",
            Generator::Wrk(wrk::Plan { connections: 1000, ..H1 }),
            0.95,
        )
    },
    row(
        "h1-close",
        "HTTP/1.1, a new connection for each request, 1 KiB proxied, 64 at a time",
        Generator::Wrk(wrk::Plan { close: true, ..H1 }),
        0.95,
    ),
    Row {
        headline: true,
        ..row(
            "tls",
            "TLS 1.3 keep-alive, 1 KiB proxied, 64 connections",
            Generator::Wrk(wrk::Plan { tls: true, ..H1 }),
            0.85,
        )
    },
    handshake("tls13-full", "TLS 1.3, a full handshake for each request", Version::Tls13, false),
    handshake("tls12-full", "TLS 1.2, a full handshake for each request", Version::Tls12, false),
    handshake("tls13-resumed", "TLS 1.3, a resumed handshake for each request", Version::Tls13, true),
    handshake("tls12-resumed", "TLS 1.2, a resumed handshake for each request", Version::Tls12, true),
    Row {
        headline: true,
        ..row(
            "h2",
            "HTTP/2 over TLS, 1 KiB proxied, 16 connections with 10 streams",
            Generator::H2load(h2load::Plan { path: "/1k", body: KIB }),
            1.0,
        )
    },
    row(
        "h2-cached",
        "HTTP/2 over TLS, cached 1 KiB, 16 connections with 10 streams",
        Generator::H2load(h2load::Plan { path: "/cached/1k", body: KIB }),
        0.75,
    ),
    Row {
        headline: true,
        ..row(
            "cached-1k",
            "Cached 1 KiB, HTTP/1.1, 64 connections",
            Generator::Wrk(wrk::Plan::get("/cached/1k", KIB, 64)),
            0.70,
        )
    },
    row(
        "cached-100k",
        "Cached 100 KiB, HTTP/1.1, 64 connections",
        Generator::Wrk(wrk::Plan::get("/cached/100k", 100 * KIB, 64)),
        0.85,
    ),
    row(
        "body-1m",
        "1 MiB body proxied, HTTP/1.1, 64 connections",
        Generator::Wrk(wrk::Plan::get("/1m", KIB * KIB, 64)),
        0.70,
    ),
    row(
        "post-16k",
        "POST of 16 KiB proxied, HTTP/1.1, 64 connections",
        Generator::Wrk(wrk::Plan { path: "/1k", body: 2, post: true, ..H1 }),
        0.95,
    ),
    row("websocket", "WebSocket echo, 1,000 tunnels, 128-byte messages", Generator::Tunnels, 1.0),
    idle("idle-plain", "Memory of 10,000 idle connections, plain", false, 3.0),
    idle("idle-tls", "Memory of 10,000 idle connections, TLS 1.3", true, 14.0),
    open("open-5k", "Latency at 5,000 requests/s, 2 workers", 5000),
    open("open-10k", "Latency at 10,000 requests/s, 2 workers", 10_000),
    open("open-20k", "Latency at 20,000 requests/s, 2 workers", 20_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_apart_and_fit_a_file_name() {
        let mut ids: Vec<_> = ROWS.iter().map(|row| row.id).collect();
        assert!(ids.iter().all(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROWS.len());
    }

    #[test]
    fn only_rows_about_time_on_a_core_have_a_gate() {
        for row in &ROWS {
            assert_eq!(row.gate.is_some(), row.unit() == Unit::CpuMicros, "{}", row.id);
        }
        assert_eq!(ROWS.iter().filter(|row| row.headline).count(), 4);
    }
}
