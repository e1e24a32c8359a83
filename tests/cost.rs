//! The arithmetic of `make cost`: what callgrind wrote is read, and figures are compared with the committed ones. It stands
//! in a bench, which has no test harness, so it is taken in from there.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

#[path = "../benches/cost/callgrind.rs"]
mod callgrind;
#[path = "../benches/cost/figures.rs"]
mod figures;

use callgrind::executed;
use figures::{Figures, Table, Verdict, compare, updated, written};

#[test]
fn thread_and_total_are_read() {
    let text = "# callgrind format\nversion: 1\npid: 7\nthread: 3\n\npositions: line\nevents: Ir\nsummary: 812345\n\
                fn=(1) main\n16 2\n\ntotals: 812345\n";
    assert_eq!(executed(text), Some((3, 812_345)));
    assert_eq!(executed(&text.replace("summary: 812345\n", "")), Some((3, 812_345)));
    assert_eq!(executed(&text.replace("thread: 3\n", "")), None);
    assert_eq!(executed(""), None);
}

fn table(instructions: Option<u64>, allocations: f64) -> Table {
    Table::from([("proxied".to_owned(), Figures { instructions, allocations })])
}

#[test]
fn three_percent_more_is_told_and_ten_fail() {
    use Verdict::{Better, Fail, Same, Warn};
    for (instructions, expected) in
        [(969, Better), (971, Same), (1000, Same), (1029, Same), (1031, Warn), (1099, Warn), (1101, Fail)]
    {
        let report = compare(&table(Some(1000), 20.0), &table(Some(instructions), 20.0));
        assert_eq!(report.verdicts, [expected, Same], "{instructions}\n{}", report.text);
    }
    let report = compare(&table(Some(1000), 20.0), &table(Some(1000), 23.0));
    assert_eq!(report.verdicts, [Same, Fail]);
    assert!(report.text.contains("23.0 (20.0 +15.0 %) FAILED"), "{}", report.text);
}

#[test]
fn what_was_not_counted_or_has_no_figure_never_passes_as_the_same() {
    use Verdict::{Fail, NotCounted, Same};
    let report = compare(&table(Some(1000), 20.0), &table(None, 20.0));
    assert_eq!(report.verdicts, [NotCounted, Same]);
    assert!(report.text.contains("NOT COUNTED"), "{}", report.text);
    assert_eq!(compare(&table(None, 20.0), &table(Some(1), 20.0)).verdicts, [Fail, Same]);
    assert_eq!(compare(&Table::new(), &table(Some(1), 20.0)).verdicts, [Fail, Fail]);
}

#[test]
fn the_file_reads_back_and_keeps_what_could_not_be_counted() {
    let (old, new) = (table(Some(1000), 20.0), table(None, 18.5));
    let text = written(&updated(&old, &new)).unwrap();
    assert_eq!(toml::from_str::<Table>(&text).unwrap(), table(Some(1000), 18.5));
    assert!(toml::from_str::<Table>("[proxied]\nallocations = 1.0\ninstruction = 1\n").is_err());
}

#[test]
fn the_committed_file_is_readable() {
    let text = std::fs::read_to_string("benches/cost/expected.toml").unwrap();
    let table = toml::from_str::<Table>(&text).unwrap();
    assert!(["proxied", "cached"].iter().all(|name| table.contains_key(*name)), "{text}");
}
