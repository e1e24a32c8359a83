//! What a process has used, read from `/proc`: time on a core, and memory.
//!
//! The scheduler's own account of each thread (`task/TID/schedstat`, nanoseconds) is summed over all threads of a
//! process and of its children: a proxy may be a master with workers. A thread that ends takes its account with it; then
//! the process' total in clock ticks, which keeps it, is taken instead.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Time on a core up to one moment, of a process with all its children.
#[derive(Debug, Clone, Default)]
pub struct CpuReading {
    processes: BTreeMap<i32, ProcessReading>,
}

/// The same of one process.
#[derive(Debug, Clone, Default)]
struct ProcessReading {
    /// Nanoseconds of each thread that lives.
    threads: BTreeMap<i32, u64>,
    /// User and system time of all threads that ever were, in clock ticks.
    ticks: u64,
}

/// The fields of `/proc/PID/stat` that matter.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: i32,
    ticks: u64,
}

// === impl CpuReading ===

impl CpuReading {
    /// Reads the account of a process and its children as it is now.
    pub fn take(pid: i32) -> Result<Self> {
        let mut processes = BTreeMap::new();
        for pid in family(pid)? {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("cannot read a process' account")?;
            let ticks = parse_stat(&stat).context("a process' account in an unknown form")?.ticks;
            processes.insert(pid, ProcessReading { threads: threads(pid)?, ticks });
        }
        Ok(Self { processes })
    }

    /// The time used since an earlier reading. What a process used that has ended since is lost: the proxies here end
    /// none that serves.
    pub fn since(&self, earlier: &Self, ticks_per_second: u64) -> Duration {
        let none = ProcessReading::default();
        let nanoseconds = self.processes.iter().map(|(pid, now)| {
            let before = earlier.processes.get(pid).unwrap_or(&none);
            now.since(before, ticks_per_second)
        });
        Duration::from_nanos(nanoseconds.sum())
    }
}

impl ProcessReading {
    fn since(&self, earlier: &Self, ticks_per_second: u64) -> u64 {
        if earlier.threads.keys().all(|thread| self.threads.contains_key(thread)) {
            let sum = |reading: &Self| reading.threads.values().sum::<u64>();
            sum(self).saturating_sub(sum(earlier))
        } else {
            self.ticks.saturating_sub(earlier.ticks) * 1_000_000_000 / ticks_per_second
        }
    }
}

/// Memory of a process and its children that is resident, in bytes.
pub fn resident_bytes(pid: i32) -> Result<u64> {
    let mut sum = 0;
    for pid in family(pid)? {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read a process' memory")?;
        sum += parse_resident(&status).context("a process without VmRSS")?;
    }
    Ok(sum)
}

/// The process itself and its children's children, parents first.
fn family(root: i32) -> Result<Vec<i32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // One that has just ended is not in the family any more.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(stat) = parse_stat(&stat) {
            parents.insert(pid, stat.parent);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(found)
}

fn threads(pid: i32) -> Result<BTreeMap<i32, u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).context("a process has ended")?.flatten() {
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
        if let Some(nanoseconds) = parse_schedstat(&text) {
            found.insert(thread, nanoseconds);
        }
    }
    Ok(found)
}

/// The first field: nanoseconds on a core.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// The name, second, may hold blanks and parentheses; what counts comes after the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(") ")?.1.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let mut times = fields.skip(9);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(Stat { parent, ticks: user + system })
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(threads: &[(i32, u64)], ticks: u64) -> ProcessReading {
        ProcessReading { threads: threads.iter().copied().collect(), ticks }
    }

    #[test]
    fn files_of_proc_are_read_as_the_kernel_writes_them() {
        let stat = "917 (nginx: (worker)) S 916 916 915 0 -1 4194368 300 0 1 0 123 45 0 0 20 0 1 0 88 1 2 3";
        assert_eq!(parse_stat(stat), Some(Stat { parent: 916, ticks: 168 }));
        assert_eq!(parse_schedstat("123456789 35013 1\n"), Some(123_456_789));
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2048 * 1024));
        assert_eq!((parse_stat("x"), parse_schedstat(""), parse_resident("")), (None, None, None));
    }

    #[test]
    fn threads_that_live_are_counted_in_nanoseconds() {
        let (before, after) = (reading(&[(1, 10), (2, 20)], 5), reading(&[(1, 15), (2, 20), (3, 7)], 6));
        assert_eq!(after.since(&before, 100), 12);
    }

    #[test]
    fn a_thread_that_ended_is_counted_in_ticks() {
        let (before, after) = (reading(&[(1, 10), (2, 20)], 5), reading(&[(1, 15)], 8));
        assert_eq!(after.since(&before, 100), 30_000_000);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = CpuReading::take(own).unwrap();
        let used = CpuReading::take(own).unwrap().since(&before, 100);
        assert!(used < Duration::from_secs(60), "{used:?}");
        assert!(resident_bytes(own).unwrap() > 100_000);
    }
}
