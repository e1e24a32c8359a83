//! wrk, told by a script to give its figures in a form that is not rounded.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Outcome;

/// Bytes of a posted body.
pub const POST_BYTES: usize = 16 * 1024;

const MARK: &str = "compare ";
/// Runs once, after the load: latency in microseconds, duration likewise.
const REPORT: &str = r#"
done = function(summary, latency)
    local e = summary.errors
    io.write(string.format("compare requests=%d bytes=%d duration=%d connect=%d read=%d write=%d status=%d timeout=%d p50=%d p99=%d p999=%d\n",
        summary.requests, summary.bytes, summary.duration, e.connect, e.read, e.write, e.status, e.timeout,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"#;

/// What to request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The target.
    pub path: &'static str,
    /// Bytes of the body that is to come.
    pub body: u64,
    /// Connections.
    pub connections: u32,
    /// Whether over TLS.
    pub tls: bool,
    /// Whether each request has a connection of its own.
    pub close: bool,
    /// Whether it is a POST of [`POST_BYTES`].
    pub post: bool,
}

// === impl Plan ===

impl Plan {
    /// GET over kept-alive connections.
    pub const fn get(path: &'static str, body: u64, connections: u32) -> Self {
        Self { path, body, connections, tls: false, close: false, post: false }
    }

    /// The arguments, for a proxy on that port of loopback.
    pub fn arguments(&self, port: u16, seconds: u32, directory: &Path) -> Result<Vec<String>> {
        let scheme = if self.tls { "https" } else { "http" };
        let mut arguments = ["-t1", &format!("-c{}", self.connections), &format!("-d{seconds}s"), "--timeout", "5s"]
            .map(str::to_owned)
            .to_vec();
        arguments.extend(["-s".to_owned(), self.write_script(directory)?.display().to_string()]);
        if self.close {
            arguments.extend(["-H".to_owned(), "Connection: close".to_owned()]);
        }
        arguments.push(format!("{scheme}://127.0.0.1:{port}{}", self.path));
        Ok(arguments)
    }

    fn write_script(&self, directory: &Path) -> Result<PathBuf> {
        let post = format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {POST_BYTES})\n");
        let path = directory.join(if self.post { "post.lua" } else { "get.lua" });
        fs::write(&path, [if self.post { &post } else { "" }, REPORT].concat()).context("cannot write a script")?;
        Ok(path)
    }

    /// Reads what it printed.
    pub fn outcome(&self, output: &str) -> Result<Outcome> {
        let line = output.lines().find_map(|line| line.strip_prefix(MARK));
        let line = line.with_context(|| format!("wrk gave no figures: {}", output.trim()))?;
        let figure = |name: &str| -> Result<u64> {
            let word = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|value| value.parse().ok()).with_context(|| format!("wrk gave no {name}"))
        };
        let requests = figure("requests")?;
        let mut errors = Vec::new();
        for kind in ["connect", "read", "write", "status", "timeout"] {
            match figure(kind)? {
                0 => {}
                count => errors.push((count, format!("{count} {kind} errors"))),
            }
        }
        ensure!(requests > 0 || !errors.is_empty(), "wrk made no request");
        if figure("bytes")? < requests * self.body {
            errors.push((1, format!("less than {} bytes for each response", self.body)));
        }
        let texts: Vec<_> = errors.iter().map(|(_, text)| text.as_str()).collect();
        Ok(Outcome {
            requests,
            errors: errors.iter().map(|(count, _)| count).sum(),
            first_error: (!texts.is_empty()).then(|| texts.join(", ")),
            seconds: figure("duration")? as f64 / 1e6,
            p50: Some(figure("p50")? as f64),
            p99: Some(figure("p99")? as f64),
            p999: Some(figure("p999")? as f64),
            send_lag: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 3s test @ http://127.0.0.1:18702/1k\n  1 threads and 64 connections\n\
        Requests/sec:  71234.56\nTransfer/sec:     80.12MB\n\
        compare requests=213703 bytes=252169540 duration=3000123 connect=0 read=0 write=0 status=0 timeout=0 \
        p50=880 p99=1400 p999=2100\n";

    #[test]
    fn figures_are_read_from_the_line_of_the_script() {
        let outcome = Plan::get("/1k", 1024, 64).outcome(OUTPUT).unwrap();
        assert_eq!((outcome.requests, outcome.errors), (213_703, 0));
        assert_eq!((outcome.p50, outcome.p99, outcome.p999), (Some(880.0), Some(1400.0), Some(2100.0)));
        assert_eq!(outcome.rate().round(), 71_231.0);
    }

    #[test]
    fn errors_and_short_bodies_are_told() {
        let failed = OUTPUT.replace("read=0", "read=3").replace("status=0", "status=2");
        let outcome = Plan::get("/1k", 1024, 64).outcome(&failed).unwrap();
        assert_eq!(outcome.errors, 5);
        assert_eq!(outcome.first_error.as_deref(), Some("3 read errors, 2 status errors"));
        let short = Plan::get("/1m", 1_048_576, 64).outcome(OUTPUT).unwrap();
        assert!(short.first_error.unwrap().starts_with("less than 1048576 bytes"));
        assert!(Plan::get("/1k", 1024, 64).outcome("unable to connect").is_err());
    }
}
