//! What the load saw: one sample for each request, and what they come to in a window of time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A response, whole.
    Status(u16),
    /// The connection was refused.
    Refused,
    /// No connection for another reason.
    NotConnected(String),
    /// The connection ended before a byte of the response.
    Closed,
    /// Likewise by a reset, or the stream was reset.
    Reset(String),
    /// The response broke off, and the client was told.
    Cut,
    /// The response was shorter than the origin meant, and looked whole.
    Truncated,
    /// No end in time.
    Timeout,
    /// Something else.
    Odd(String),
}

/// One request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was meant to be sent; latency counts from here.
    pub intended: Instant,
    /// When it ended.
    pub ended: Instant,
    /// Its method.
    pub method: &'static str,
    /// Its number, which the origin keeps.
    pub id: u64,
    /// How it ended.
    pub end: End,
    /// The reason that headgate gave, where it answered by itself.
    pub reason: Option<String>,
    /// `Retry-After` was there.
    pub retry_after: bool,
    /// The origin that answered.
    pub origin: Option<String>,
}

/// All of one load.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `h1` or `h2`.
    pub protocol: &'static str,
    /// In the order of their ends.
    pub samples: Vec<Sample>,
}

// === impl Sample ===

impl Sample {
    /// It was answered by an origin as it should be.
    pub fn is_good(&self) -> bool {
        matches!(self.end, End::Status(200..=299)) && self.reason.is_none()
    }

    /// From when it was meant to be sent to its end.
    pub fn latency(&self) -> Duration {
        self.ended.saturating_duration_since(self.intended)
    }

    /// Method and end in a few words.
    pub fn kind(&self) -> String {
        let end = match &self.end {
            End::Status(status) => status.to_string(),
            End::Refused => "refused".to_owned(),
            End::NotConnected(why) => format!("not connected ({why})"),
            End::Closed => "closed".to_owned(),
            End::Reset(why) => format!("reset ({why})"),
            End::Cut => "cut".to_owned(),
            End::Truncated => "TRUNCATED".to_owned(),
            End::Timeout => "timeout".to_owned(),
            End::Odd(why) => format!("odd ({why})"),
        };
        match &self.reason {
            Some(reason) => format!("{} {end} {reason}", self.method),
            None => format!("{} {end}", self.method),
        }
    }
}

// === impl Seen ===

impl Seen {
    /// Those that were meant for a window of time.
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        let samples = self.samples.iter().filter(|sample| (from..to).contains(&sample.intended)).cloned();
        Self { protocol: self.protocol, samples: samples.collect() }
    }

    /// Those of one method.
    pub fn of(&self, method: &str) -> Self {
        let samples = self.samples.iter().filter(|sample| sample.method == method).cloned();
        Self { protocol: self.protocol, samples: samples.collect() }
    }

    /// How many there are.
    pub fn count(&self, of: impl Fn(&Sample) -> bool) -> usize {
        self.samples.iter().filter(|sample| of(sample)).count()
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.count(|sample| !sample.is_good())
    }

    /// The failures by kind, most frequent kinds and all.
    pub fn failures(&self) -> Vec<(String, usize)> {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| !sample.is_good()) {
            *kinds.entry(sample.kind()).or_default() += 1;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kinds
    }

    /// Latency that the given share of the good ones did not exceed.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut latencies: Vec<_> = self.samples.iter().filter(|s| s.is_good()).map(Sample::latency).collect();
        latencies.sort_unstable();
        let at = (share * latencies.len() as f64).ceil() as usize;
        latencies.get(at.saturating_sub(1)).copied()
    }

    /// The share that one origin answered.
    pub fn share_of(&self, origin: &str) -> f64 {
        let of = self.count(|sample| sample.origin.as_deref() == Some(origin));
        of as f64 / self.samples.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, millis: u64, end: End) -> Sample {
        Sample {
            intended: at,
            ended: at + Duration::from_millis(millis),
            method: "GET",
            id: 0,
            end,
            reason: None,
            retry_after: false,
            origin: None,
        }
    }

    #[test]
    fn failures_are_told_by_kind_and_only_good_ones_have_a_latency() {
        let start = Instant::now();
        let mut samples: Vec<_> = (1..=100).map(|millis| sample(start, millis, End::Status(200))).collect();
        samples.push(sample(start, 9000, End::Timeout));
        samples.push(sample(start, 9000, End::Status(502)));
        samples.push(sample(start, 9000, End::Status(502)));
        let seen = Seen { protocol: "h1", samples };
        assert_eq!(seen.failed(), 3);
        assert_eq!(seen.failures(), [("GET 502".to_owned(), 2), ("GET timeout".to_owned(), 1)]);
        assert_eq!(seen.quantile(0.99), Some(Duration::from_millis(99)));
        assert_eq!(seen.between(start + Duration::from_millis(1), start + Duration::from_secs(1)).samples.len(), 0);
    }
}
