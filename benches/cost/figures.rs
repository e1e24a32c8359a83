//! Figures per scenario: the committed ones, the measured ones, and what to say of the difference.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// More than this above the expected is told.
const WARN: f64 = 0.03;
/// More than this fails.
const FAIL: f64 = 0.10;

/// What one request costs the worker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    /// None where they could not be counted.
    pub(crate) instructions: Option<u64>,
    pub(crate) allocations: f64,
}

/// By scenario.
pub(crate) type Table = BTreeMap<String, Figures>;

/// How a figure stands to the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It could not be counted here.
    NotCounted,
    /// Worth a new expected figure.
    Better,
    Same,
    Warn,
    /// Or there is nothing to compare it with.
    Fail,
}

/// The comparison, for people.
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) verdicts: Vec<Verdict>,
}

const HEADER: &str = "\
# What one request costs the worker's thread, from its first byte to its last: instructions of the release on x86-64, and
# allocations. `make cost` compares: more than 3 % above is told, more than 10 % fails. `make cost UPDATE=1` writes it.
";

/// The file of expected figures.
pub(crate) fn written(table: &Table) -> Result<String, toml::ser::Error> {
    Ok(format!("{HEADER}\n{}", toml::to_string(table)?))
}

/// The measured figures, with the instructions that stood there where none could be counted.
pub(crate) fn updated(expected: &Table, measured: &Table) -> Table {
    let kept = |name: &String| expected.get(name).and_then(|figures| figures.instructions);
    let figures = |(name, figures): (&String, &Figures)| {
        let instructions = figures.instructions.or_else(|| kept(name));
        (name.clone(), Figures { instructions, ..*figures })
    };
    measured.iter().map(figures).collect()
}

/// Compares each scenario's figures with what is expected of it.
pub(crate) fn compare(expected: &Table, measured: &Table) -> Report {
    let mut report = Report { text: String::new(), verdicts: Vec::new() };
    let mut row = |[name, instructions, beside, allocations, beside_those]: [&str; 5]| {
        let _ = writeln!(report.text, "{name:16}{instructions:>13} {beside:<24}{allocations:>11} {beside_those}");
    };
    row(["one request", "instructions", "(expected)", "allocations", "(expected)"]);
    for (name, figures) in measured {
        let wanted = expected.get(name);
        let number = |count: u64| count as f64;
        let wanted_instructions = wanted.and_then(|figures| figures.instructions).map(number);
        let one = Cell::new(figures.instructions.map(number), wanted_instructions, 0);
        let other = Cell::new(Some(figures.allocations), wanted.map(|figures| figures.allocations), 1);
        row([name, &one.figure, &one.beside, &other.figure, &other.beside]);
        report.verdicts.extend([one.verdict, other.verdict]);
    }
    report
}

/// One figure, the words beside it, and how it stands.
struct Cell {
    figure: String,
    beside: String,
    verdict: Verdict,
}

impl Cell {
    fn new(measured: Option<f64>, expected: Option<f64>, decimals: usize) -> Self {
        let cell = |figure: String, beside: String, verdict| Self { figure, beside, verdict };
        let Some(measured) = measured else {
            return cell("-".to_owned(), "NOT COUNTED".to_owned(), Verdict::NotCounted);
        };
        let figure = format!("{measured:.decimals$}");
        let Some(expected) = expected else {
            return cell(figure, "(none) FAILED".to_owned(), Verdict::Fail);
        };
        let verdict = verdict(measured, expected);
        let word = match verdict {
            Verdict::Fail => " FAILED",
            Verdict::Warn => " MORE",
            Verdict::Better => " better",
            Verdict::Same | Verdict::NotCounted => "",
        };
        let change = (measured / expected - 1.0) * 100.0;
        cell(figure, format!("({expected:.decimals$} {change:+.1} %){word}"), verdict)
    }
}

fn verdict(measured: f64, expected: f64) -> Verdict {
    match measured / expected - 1.0 {
        change if change > FAIL => Verdict::Fail,
        change if change > WARN => Verdict::Warn,
        change if change <= -WARN => Verdict::Better,
        _ => Verdict::Same,
    }
}
