//! h2load, for HTTP/2; its log of each request gives the percentiles.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Outcome;
use crate::histogram::Histogram;

/// Connections, and streams on each.
pub const CONNECTIONS: u32 = 16;
const STREAMS: u32 = 10;
const LOG: &str = "h2load.log";

/// What to request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The target.
    pub path: &'static str,
    /// Bytes of the body that is to come.
    pub body: u64,
}

// === impl Plan ===

impl Plan {
    /// The arguments, for a proxy on that port of loopback.
    pub fn arguments(&self, port: u16, seconds: u32, directory: &Path) -> Vec<String> {
        // An existing log would be appended to.
        let _ = fs::remove_file(log(directory));
        vec![
            "-t1".to_owned(),
            format!("-c{CONNECTIONS}"),
            format!("-m{STREAMS}"),
            format!("-D{seconds}"),
            format!("--log-file={}", log(directory).display()),
            format!("https://127.0.0.1:{port}{}", self.path),
        ]
    }

    /// Reads what it printed, and its log.
    pub fn outcome(&self, output: &str, seconds: u32, directory: &Path) -> Result<Outcome> {
        let log = fs::read_to_string(log(directory)).context("h2load left no log")?;
        self.read(output, seconds, &log)
    }

    fn read(&self, output: &str, seconds: u32, log: &str) -> Result<Outcome> {
        let line = |name: &str| output.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let requests = figure(line("requests: "), "succeeded")?;
        let codes = line("status codes: ");
        let mut errors = Vec::new();
        for (text, word) in
            [("requests: ", "failed"), ("requests: ", "errored"), ("requests: ", "timeout"), ("status codes: ", "3xx")]
        {
            match figure(line(text), word)? {
                0 => {}
                count => errors.push((count, format!("{count} {word}"))),
            }
        }
        ensure!(requests > 0 || !errors.is_empty(), "h2load made no request: {}", output.trim());
        ensure!(output.contains("Application protocol: h2"), "h2load did not speak HTTP/2");
        if figure(codes, "2xx")? + figure(codes, "3xx")? < requests {
            errors.push((1, format!("status codes: {codes}")));
        }
        if data_bytes(line("traffic: ")).context("h2load told no traffic")? < requests * self.body {
            errors.push((1, format!("less than {} bytes for each response", self.body)));
        }
        let texts: Vec<_> = errors.iter().map(|(_, text)| text.as_str()).collect();
        let latencies = latencies(log);
        Ok(Outcome {
            requests,
            errors: errors.iter().map(|(count, _)| count).sum(),
            first_error: (!texts.is_empty()).then(|| texts.join(", ")),
            seconds: f64::from(seconds),
            p50: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
            p999: latencies.quantile(0.999),
            send_lag: None,
        })
    }
}

fn log(directory: &Path) -> PathBuf {
    directory.join(LOG)
}

/// The number before a word, in a list such as `12 failed, 0 errored`.
fn figure(list: &str, word: &str) -> Result<u64> {
    let item = list.split(", ").find_map(|item| item.trim().strip_suffix(word));
    item.and_then(|number| number.trim().parse().ok()).with_context(|| format!("h2load told no {word}"))
}

/// The bytes before the word "data".
fn data_bytes(traffic: &str) -> Option<u64> {
    traffic.strip_suffix(") data")?.rsplit_once('(')?.1.parse().ok()
}

/// Lines of start time, status and duration, the times in microseconds.
fn latencies(log: &str) -> Histogram {
    let mut histogram = Histogram::new();
    for line in log.lines() {
        if let Some(micros) = line.split('\t').nth(2).and_then(|field| field.parse().ok()) {
            histogram.record(Duration::from_micros(micros));
        }
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "starting benchmark...\nApplication protocol: h2\n\nfinished in 1.00s, 73140.00 req/s, 2.09MB/s\n\
        requests: 73140 total, 73300 started, 73140 done, 73140 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 73140 2xx, 0 3xx, 0 4xx, 0 5xx\n\
        traffic: 2.09MB (2196120) total, 501.00KB (513020) headers (space savings 92.62%), 357.13KB (365700) data\n";
    const LOG: &str = "1795640664459957\t200\t4000\n1795640664459959\t200\t5000\n1795640664459959\t200\t6000\n";

    #[test]
    fn figures_are_read_from_output_and_log() {
        let outcome = Plan { path: "/", body: 5 }.read(OUTPUT, 1, LOG).unwrap();
        assert_eq!((outcome.requests, outcome.errors, outcome.rate()), (73_140, 0, 73_140.0));
        assert!((outcome.p50.unwrap() - 5000.0).abs() < 50.0);
    }

    #[test]
    fn errors_and_short_bodies_are_told() {
        let plan = Plan { path: "/", body: 5 };
        let failed = OUTPUT.replace("0 errored", "4 errored");
        assert_eq!(plan.read(&failed, 1, LOG).unwrap().first_error.as_deref(), Some("4 errored"));
        let wrong = OUTPUT.replace("73140 2xx, 0 3xx, 0 4xx", "73000 2xx, 0 3xx, 140 4xx");
        assert!(plan.read(&wrong, 1, LOG).unwrap().first_error.unwrap().contains("140 4xx"));
        assert_eq!(Plan { path: "/", body: 6 }.read(OUTPUT, 1, LOG).unwrap().errors, 1);
        assert!(plan.read("connection refused", 1, "").is_err());
    }
}
