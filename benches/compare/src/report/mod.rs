//! What is said at the end: on the terminal, as JSON, as a page with charts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::judgement::Verdict;
use crate::machine::Machine;
use crate::rows::Unit;
use crate::statistics::Summary;

pub mod chart;
pub mod markdown;
pub mod terminal;

/// Above this share of its core the load is the limit, unless the proxy is above [`PROXY_BUSY`].
const LOAD_BUSY: f64 = 0.95;
const PROXY_BUSY: f64 = 0.90;

/// The whole comparison.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The day, in UTC.
    pub date: String,
    /// What it ran on.
    pub machine: Machine,
    /// What was run.
    pub command: String,
    /// Rounds of each row.
    pub rounds: usize,
    /// Seconds of each turn.
    pub seconds: u32,
    /// The rows, in the order they ran.
    pub rows: Vec<RowReport>,
}

/// One row.
#[derive(Debug, Serialize)]
pub struct RowReport {
    /// Its short name.
    pub id: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// What its figures are.
    pub unit: Unit,
    /// What headgate is to reach.
    pub goal: String,
    /// What its ratio may not exceed.
    pub gate: Option<f64>,
    /// What the generator alone can do, per second.
    pub ceiling: Option<f64>,
    /// headgate's figure over that of the better peer.
    pub ratio: Option<f64>,
    /// headgate's figure over that of the relay.
    pub relay_ratio: Option<f64>,
    /// Where it stands.
    pub verdict: Verdict,
    /// Why there are no figures.
    pub refused: Option<String>,
    /// The proxies.
    pub proxies: Vec<ProxyReport>,
}

/// One proxy in a row.
#[derive(Debug, Serialize)]
pub struct ProxyReport {
    /// Its name.
    pub name: &'static str,
    /// The row's figure.
    pub figure: Summary,
    /// Median of the requests per second; likewise below. Latencies in microseconds.
    pub rate: Option<f64>,
    /// Half of the requests.
    pub p50: Option<f64>,
    /// 99 of 100.
    pub p99: Option<f64>,
    /// 999 of 1,000.
    pub p999: Option<f64>,
    /// Share of its core that the proxy used.
    pub proxy_busy: Option<f64>,
    /// Share of their core that load and origin used.
    pub load_busy: Option<f64>,
}

// === impl Report ===

impl Report {
    /// Whether a row is above its gate or refused.
    pub fn fails(&self) -> bool {
        self.rows.iter().any(|row| row.verdict.fails())
    }

    /// Writes the page, its charts and the figures.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let charts = directory.join("results");
        fs::create_dir_all(&charts).with_context(|| format!("cannot make {}", charts.display()))?;
        for row in self.rows.iter().filter(|row| row.refused.is_none()) {
            fs::write(charts.join(format!("{}.svg", row.id)), chart::svg(row)).context("cannot write a chart")?;
        }
        fs::write(directory.join("RESULTS.md"), markdown::page(self)).context("cannot write the page")?;
        self.write_json(&directory.join("results.json"))
    }

    /// Writes the figures as JSON.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

// === impl ProxyReport ===

impl ProxyReport {
    /// Whether the load was the limit, so that rate and latency say nothing of the proxy.
    pub fn is_load_bound(&self) -> bool {
        let (Some(load), Some(proxy)) = (self.load_busy, self.proxy_busy) else { return false };
        load >= LOAD_BUSY && proxy < PROXY_BUSY
    }

    /// Rate, p50, p99 and p99.9 as text.
    fn rate_and_latencies(&self) -> [String; 4] {
        if self.is_load_bound() {
            return ["load-bound"; 4].map(str::to_owned);
        }
        [number(self.rate, 0), number(self.p50, 0), number(self.p99, 0), number(self.p999, 0)]
    }

    fn busy(&self) -> [String; 2] {
        [self.proxy_busy, self.load_busy].map(percent)
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

/// With commas between thousands; a dash for nothing.
fn number(value: Option<f64>, decimals: usize) -> String {
    let Some(value) = value else { return "–".to_owned() };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

/// Decimals that a figure of this unit deserves.
fn decimals(unit: Unit) -> usize {
    if unit == Unit::CpuMicros { 2 } else { 0 }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A report of two rows, one of them refused.
    pub fn sample() -> Report {
        let proxy = |name, median, load_busy| ProxyReport {
            name,
            figure: Summary { median, min: median - 0.1, max: median + 0.1 },
            rate: Some(71_234.4),
            p50: Some(880.0),
            p99: Some(1400.0),
            p999: None,
            proxy_busy: Some(0.8),
            load_busy: Some(load_busy),
        };
        let row = |id, refused: Option<&str>, verdict, proxies| RowReport {
            id,
            title: "HTTP/1.1 keep-alive & more",
            unit: Unit::CpuMicros,
            goal: "≤ 0.95".to_owned(),
            gate: Some(1.05),
            ceiling: Some(100_000.0),
            ratio: refused.is_none().then_some(0.917),
            relay_ratio: None,
            verdict,
            refused: refused.map(str::to_owned),
            proxies,
        };
        Report {
            date: "2026-01-02".to_owned(),
            machine: Machine {
                processor: "Example CPU".to_owned(),
                cores: 2,
                kernel: "Linux 6.1".to_owned(),
                programs: vec!["headgate 0.1.0".to_owned(), "nginx version: nginx/1.22.1".to_owned()],
            },
            command: "compare --rounds 5 --seconds 3".to_owned(),
            rounds: 5,
            seconds: 3,
            rows: vec![
                row(
                    "h1",
                    None,
                    Verdict::Goal,
                    vec![proxy("headgate", 11.0, 0.7), proxy("nginx", 12.0, 0.96), proxy("HAProxy", 13.25, 0.7)],
                ),
                row("h2", Some("nginx: 3 read errors"), Verdict::Refused, Vec::new()),
            ],
        }
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(number(Some(1_234_567.0), 0), "1,234,567");
        assert_eq!((number(Some(999.0), 0), number(Some(1234.567), 2)), ("999".to_owned(), "1,234.57".to_owned()));
        assert_eq!((number(Some(-1234.0), 0), number(None, 0)), ("-1,234".to_owned(), "–".to_owned()));
    }

    #[test]
    fn rate_and_latency_are_not_told_when_the_load_was_the_limit() {
        let report = sample();
        let [headgate, nginx, _] = &report.rows[0].proxies[..] else { panic!("three proxies") };
        assert_eq!(headgate.rate_and_latencies(), ["71,234", "880", "1,400", "–"]);
        assert_eq!(nginx.rate_and_latencies(), ["load-bound"; 4]);
    }

    #[test]
    fn a_refused_row_fails_and_is_in_the_json() {
        let report = sample();
        assert!(report.fails());
        let file = tempfile::NamedTempFile::new().unwrap();
        report.write_json(file.path()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        assert_eq!(json["rows"][1]["refused"], "nginx: 3 read errors");
        assert_eq!(json["rows"][0]["proxies"][0]["figure"]["median"], 11.0);
    }

    #[test]
    fn all_files_are_written_below_one_directory() {
        let directory = tempfile::tempdir().unwrap();
        sample().write(directory.path()).unwrap();
        for name in ["RESULTS.md", "results.json", "results/h1.svg"] {
            assert!(directory.path().join(name).is_file(), "{name}");
        }
        assert!(!directory.path().join("results/h2.svg").exists());
    }
}
