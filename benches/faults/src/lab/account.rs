//! What a process uses, from `/proc`: time on a core, memory, descriptors, threads, half-closed connections.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Ticks of `/proc/PID/stat` in a second, as every Linux has them for user space (proc_pid_stat(5)).
const TICKS: f64 = 100.0;
/// The state of `/proc/net/tcp` (`TCP_CLOSE_WAIT` of `net/tcp_states.h`).
const CLOSE_WAIT: &str = "08";

/// One reading.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// When it was taken.
    pub at: Instant,
    /// User and system time so far.
    pub cpu: Duration,
    /// Memory in RAM, in bytes.
    pub resident: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

impl Account {
    /// Reads it.
    pub fn take(pid: u32) -> Result<Self> {
        let at = Instant::now();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("headgate has ended")?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
        };
        Ok(Self {
            at,
            cpu: Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS),
            resident: number("VmRSS").context("no VmRSS")? * 1024,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            threads: number("Threads").context("no Threads")? as usize,
        })
    }

    /// Time on a core since an earlier reading, in percent of one core.
    pub fn share_since(&self, before: &Self) -> f64 {
        let used = self.cpu.saturating_sub(before.cpu).as_secs_f64();
        used * 100.0 / self.at.duration_since(before.at).as_secs_f64().max(1e-3)
    }
}

/// Connections of a process whose peer has closed, and which it has not.
pub fn half_closed(pid: u32) -> Result<usize> {
    let own: HashSet<_> = fs::read_dir(format!("/proc/{pid}/fd"))?
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let is_half_closed = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(3) == Some(&CLOSE_WAIT) && fields.get(9).is_some_and(|inode| own.contains(*inode))
    };
    Ok(table.lines().filter(is_half_closed).count())
}
