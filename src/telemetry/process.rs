//! What the kernel tells of this process, from `/proc`. What cannot be read is left out.

use std::fs;

use crate::telemetry::exposition::GaugeSink;
use crate::telemetry::names;

/// Clock ticks a second in `/proc`: part of the kernel's ABI, 100 everywhere.
const TICKS: f64 = 100.0;

pub(super) fn collect(sink: &mut GaugeSink) {
    // Fields after the command's closing parenthesis, so that a name with spaces does no harm (proc_pid_stat(5)).
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        sink.set(&names::PROCESS_CPU, &[], (user + system) / TICKS);
    }
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    if let (Some(start), Some(boot)) = (field(22), number(&system, "btime")) {
        sink.set(&names::PROCESS_START, &[], boot + start / TICKS);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (metric, key, unit) in [
        (&names::PROCESS_RESIDENT, "VmRSS:", 1024.0),
        (&names::PROCESS_VIRTUAL, "VmSize:", 1024.0),
        (&names::PROCESS_THREADS, "Threads:", 1.0),
    ] {
        if let Some(value) = number(&status, key) {
            sink.set(metric, &[], value * unit);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory being read.
        sink.set(&names::PROCESS_FDS, &[], open.count().saturating_sub(1) as f64);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(limit) = number(&limits, "Max open files") {
        sink.set(&names::PROCESS_MAX_FDS, &[], limit);
    }
}

/// The number after `key` at the start of a line.
fn number(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}
