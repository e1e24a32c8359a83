//! The comparison: row by row, round by round, proxy by proxy.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::judgement::{Judgement, Verdict, judge};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::measure::{self, Turn};
use crate::options::Comparison;
use crate::proxies::{Kind, Proxy};
use crate::report::{ProxyReport, Report, RowReport, markdown, terminal};
use crate::rows::{Generator, ROWS, Row, Unit};
use crate::statistics::Summary;
use crate::{ceiling, memory, probe};

/// Memory varies little, and opening 10,000 connections takes long.
const MAX_IDLE_ROUNDS: usize = 3;
/// Turns at a fixed rate are long.
const MAX_OPEN_ROUNDS: usize = 5;
/// Several short rounds say more than a few long ones: the machine changes within seconds.
const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
/// So many more where a row's ratio lies within this part of its gate: there noise would decide.
const MORE_ROUNDS: usize = 4;
const CLOSE: f64 = 0.1;
/// At least this long at a fixed rate, in seconds: p99.9 of 5,000 requests/s needs as much.
const MIN_OPEN_SECONDS: u32 = 5;
/// Of the requests for what is cached, one in so many may reach the origin.
const CACHED_SHARE: u64 = 1000;
/// Seconds around a turn, around a row and for a turn of an idle row; only for the estimate.
const TURN_EXTRA: f64 = 0.4;
const ROW_EXTRA: f64 = 4.0;
const IDLE_TURN: f64 = 16.0;

/// What one turn of one proxy gave.
struct Sample {
    figure: f64,
    turn: Option<Turn>,
}

/// Runs it until it is done or a signal ends it. Whatever was started ends with the lab.
pub async fn run(options: &Comparison) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        outcome = compare(options) => outcome,
        _ = interrupt.recv() => bail!("interrupted; everything is stopped"),
        _ = terminate.recv() => bail!("told to end; everything is stopped"),
        _ = hangup.recv() => bail!("the terminal is gone; everything is stopped"),
    }
}

async fn compare(options: &Comparison) -> Result<ExitCode> {
    let rows = chosen(options)?;
    let rounds = options.rounds.unwrap_or(if options.quick { QUICK_ROUNDS } else { ROUNDS });
    ensure!(rounds > 0 && options.seconds > 0, "rounds and seconds are at least 1");
    let lab = Lab::prepare(options).await?;
    let machine = Machine::look(&lab).await?;
    println!("{}; {}", machine.programs.join("; "), machine.processor);
    let minutes = rows.iter().map(|row| estimate(row, rounds, options.seconds)).sum::<f64>() / 60.0;
    println!("{} rows, {rounds} rounds of {} s: about {minutes:.0} minutes", rows.len(), options.seconds);

    let mut reports = Vec::new();
    for row in rows {
        reports.push(measure_row(&lab, row, rounds, options.seconds).await);
    }
    let report = Report {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        machine,
        command: command(options, rounds),
        rounds,
        seconds: options.seconds,
        rows: reports,
    };
    println!("\n{}", terminal::table(&report));
    if let Some(directory) = place(options) {
        report.write(&directory)?;
        println!("\nFor the README:\n\n{}", markdown::headline_table(&report));
    }
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    Ok(if report.fails() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One row; what goes wrong in it is its refusal, and the others go on.
async fn measure_row(lab: &Lab, row: &Row, rounds: usize, seconds: u32) -> RowReport {
    println!("\n{}: {}", row.id, row.title);
    let mut report = RowReport {
        id: row.id,
        title: row.title,
        unit: row.unit(),
        goal: row.goals(),
        gate: row.gate,
        ceiling: None,
        ratio: None,
        relay_ratio: None,
        verdict: Verdict::Refused,
        refused: None,
        proxies: Vec::new(),
    };
    let seconds = if row.unit() == Unit::P99Micros { seconds.max(MIN_OPEN_SECONDS) } else { seconds };
    let outcome = async {
        report.ceiling = ceiling::of(lab, row, seconds).await.context("load alone")?;
        check_ceiling(row, report.ceiling)?;
        match row.generator {
            Generator::Idle { tls } => idle_rounds(lab, tls, most_rounds(row, rounds)).await,
            _ => load_rounds(lab, row, rounds, seconds).await,
        }
    };
    match outcome.await {
        Ok(samples) => summarize(row, &samples, &mut report),
        Err(error) => {
            let reason = format!("{error:#}");
            println!("  refused: {reason}");
            report.refused = Some(reason);
        }
    }
    report
}

fn check_ceiling(row: &Row, ceiling: Option<f64>) -> Result<()> {
    let Generator::Open { rate } = row.generator else { return Ok(()) };
    let ceiling = ceiling.unwrap_or_default();
    ensure!(f64::from(rate) <= ceiling, "the load generator keeps its schedule up to {ceiling:.0} requests/s only");
    Ok(())
}

/// All proxies run; each has its turn in every round. Where that leaves it close to the gate, there are a few more.
async fn load_rounds(lab: &Lab, row: &Row, rounds: usize, seconds: u32) -> Result<Vec<(Kind, Vec<Sample>)>> {
    let (mut proxies, mut all) = (Vec::new(), Vec::new());
    for kind in kinds(row.relay) {
        let proxy = lab.setting.start(kind, row.workers()).await?;
        probe::check(row, &proxy, lab.origin_address()).await.with_context(|| kind.name())?;
        proxies.push(proxy);
        all.push((kind, Vec::new()));
    }
    let rounds = most_rounds(row, rounds);
    for round in 1..=rounds + MORE_ROUNDS {
        if round > rounds && !is_close(row.gate, judgement(row, &all).ratio) {
            break;
        }
        for (proxy, (_, samples)) in proxies.iter_mut().zip(&mut all) {
            let name = proxy.kind.name();
            let turn = take_turn(lab, row, proxy, seconds).await.context(name)?;
            let figure =
                if row.unit() == Unit::P99Micros { turn.outcome.p99.context("no latency")? } else { turn.cpu_micros() };
            println!(
                "  round {round}  {name:<9} {figure:>9.2} {}  {:>7.0}/s  proxy {:>3.0} %  load {:>3.0} %",
                row.unit().label(),
                turn.outcome.rate(),
                turn.proxy_busy() * 100.0,
                turn.load_busy() * 100.0
            );
            samples.push(Sample { figure, turn: Some(turn) });
        }
    }
    Ok(all)
}

/// So many of these are worth their time.
fn most_rounds(row: &Row, rounds: usize) -> usize {
    match row.unit() {
        Unit::Bytes => rounds.min(MAX_IDLE_ROUNDS),
        Unit::P99Micros => rounds.min(MAX_OPEN_ROUNDS),
        Unit::CpuMicros => rounds,
    }
}

/// Whether a few more rounds might judge otherwise.
fn is_close(gate: Option<f64>, ratio: Option<f64>) -> bool {
    gate.zip(ratio).is_some_and(|(gate, ratio)| (ratio / gate - 1.0).abs() < CLOSE)
}

/// One turn, which is an error when the proxy made one.
async fn take_turn(lab: &Lab, row: &Row, proxy: &mut Proxy, seconds: u32) -> Result<Turn> {
    let asked_before = if row.cached() { probe::cached_asked(lab.origin_address()).await? } else { 0 };
    let turn = measure::run(lab, row, proxy.port(row.tls()), Some(proxy.process.pid()), seconds).await?;
    proxy.process.check_runs()?;
    proxy.truncate_log()?;
    if turn.outcome.errors > 0 {
        bail!("{} errors: {}", turn.outcome.errors, turn.outcome.first_error.as_deref().unwrap_or("unknown"));
    }
    ensure!(turn.outcome.requests > 0, "no request was answered");
    if row.cached() {
        let asked = probe::cached_asked(lab.origin_address()).await?.saturating_sub(asked_before);
        ensure!(
            asked <= turn.outcome.requests / CACHED_SHARE,
            "{asked} requests for what is cached reached the origin"
        );
    }
    Ok(turn)
}

/// One proxy at a time, each time a new process.
async fn idle_rounds(lab: &Lab, tls: bool, rounds: usize) -> Result<Vec<(Kind, Vec<Sample>)>> {
    let mut all: Vec<_> = kinds(false).map(|kind| (kind, Vec::new())).collect();
    for round in 1..=rounds {
        for (kind, samples) in &mut all {
            let proxy = lab.setting.start(*kind, 1).await?;
            let figure = memory::per_connection(lab, &proxy, tls).await.with_context(|| kind.name())?;
            println!("  round {round}  {:<9} {figure:>7.0} bytes/connection", kind.name());
            samples.push(Sample { figure, turn: None });
        }
    }
    Ok(all)
}

fn summarize(row: &Row, all: &[(Kind, Vec<Sample>)], report: &mut RowReport) {
    for (kind, samples) in all {
        let Some(figure) = Summary::of(samples.iter().map(|sample| sample.figure)) else { continue };
        let median = |of: &dyn Fn(&Turn) -> Option<f64>| {
            let figures = samples.iter().filter_map(|sample| sample.turn.as_ref().and_then(of));
            Summary::of(figures).map(|summary| summary.median)
        };
        report.proxies.push(ProxyReport {
            name: kind.name(),
            figure,
            rate: median(&|turn| Some(turn.outcome.rate())),
            p50: median(&|turn| turn.outcome.p50),
            p99: median(&|turn| turn.outcome.p99),
            p999: median(&|turn| turn.outcome.p999),
            proxy_busy: median(&|turn| Some(turn.proxy_busy())),
            load_busy: median(&|turn| Some(turn.load_busy())),
        });
    }
    let Judgement { ratio, relay_ratio, verdict } = judgement(row, all);
    (report.ratio, report.relay_ratio, report.verdict) = (ratio, relay_ratio, verdict);
}

fn judgement(row: &Row, all: &[(Kind, Vec<Sample>)]) -> Judgement {
    let of = |kind: Kind| {
        let (_, samples) = all.iter().find(|(found, _)| *found == kind)?;
        Some(samples.iter().map(|sample| sample.figure).collect::<Vec<_>>())
    };
    let peers: Vec<_> = [Kind::Nginx, Kind::Haproxy].into_iter().filter_map(of).collect();
    let peers: Vec<&[f64]> = peers.iter().map(Vec::as_slice).collect();
    judge(row, &of(Kind::Headgate).unwrap_or_default(), &peers, of(Kind::Relay).as_deref())
}

fn kinds(relay: bool) -> impl Iterator<Item = Kind> {
    [Kind::Headgate, Kind::Nginx, Kind::Haproxy].into_iter().chain(relay.then_some(Kind::Relay))
}

fn chosen(options: &Comparison) -> Result<Vec<&'static Row>> {
    if let Some(unknown) = options.rows.iter().find(|id| !ROWS.iter().any(|row| row.id == id.as_str())) {
        let known: Vec<_> = ROWS.iter().map(|row| row.id).collect();
        bail!("no row {unknown:?}; there are {}", known.join(", "));
    }
    let is_chosen = |row: &&Row| {
        if options.rows.is_empty() {
            row.headline || !options.quick
        } else {
            options.rows.iter().any(|id| id == row.id)
        }
    };
    Ok(ROWS.iter().filter(is_chosen).collect())
}

/// Where the report goes: part of the rows is not to take the place of the whole.
fn place(options: &Comparison) -> Option<PathBuf> {
    let whole = !options.quick && options.rows.is_empty();
    options.out.clone().or_else(|| whole.then(|| PathBuf::from("benches/compare")))
}

/// Seconds that a row takes.
fn estimate(row: &Row, rounds: usize, seconds: u32) -> f64 {
    let turns = (most_rounds(row, rounds) * kinds(row.relay).count()) as f64;
    match row.unit() {
        Unit::Bytes => turns * IDLE_TURN,
        Unit::P99Micros => turns * (f64::from(seconds.max(MIN_OPEN_SECONDS)) + TURN_EXTRA) + ROW_EXTRA + 7.0,
        Unit::CpuMicros => (turns + 1.0) * (f64::from(seconds) + TURN_EXTRA) + ROW_EXTRA,
    }
}

/// What a person would type to have the same.
fn command(options: &Comparison, rounds: usize) -> String {
    let rows = if options.rows.is_empty() { String::new() } else { format!(" --rows {}", options.rows.join(",")) };
    let target = if options.quick { "bench-quick" } else { "bench" };
    format!("make {target} ARGS=\"--rounds {rounds} --seconds {}{rows}\"", options.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Options, SECONDS};
    use clap::Parser;

    fn options(arguments: &[&str]) -> Comparison {
        Options::parse_from([&["compare"], arguments].concat()).comparison
    }

    #[test]
    fn rows_are_chosen_by_id_or_as_headlines() {
        assert_eq!(chosen(&options(&[])).unwrap().len(), ROWS.len());
        let ids =
            |arguments: &[&str]| -> Vec<_> { chosen(&options(arguments)).unwrap().iter().map(|row| row.id).collect() };
        assert_eq!(ids(&["--quick"]), ["h1", "tls", "h2", "cached-1k"]);
        assert_eq!(ids(&["--rows", "tls,h1"]), ["h1", "tls"]);
        assert!(chosen(&options(&["--rows", "h3"])).unwrap_err().to_string().contains("no row \"h3\""));
    }

    #[test]
    fn what_is_close_to_its_gate_is_looked_at_for_longer() {
        assert!([0.96, 1.05, 1.15].iter().all(|ratio| is_close(Some(1.05), Some(*ratio))));
        assert!([0.7, 0.94, 1.2].iter().all(|ratio| !is_close(Some(1.05), Some(*ratio))));
        assert!(!is_close(None, Some(1.0)) && !is_close(Some(1.05), None));
    }

    #[test]
    fn the_command_is_one_to_type() {
        assert_eq!(command(&options(&[]), 7), "make bench ARGS=\"--rounds 7 --seconds 2\"");
        let quick = options(&["--quick", "--rows", "h1"]);
        assert_eq!(command(&quick, 3), "make bench-quick ARGS=\"--rounds 3 --seconds 2 --rows h1\"");
    }

    #[test]
    fn a_part_does_not_take_the_place_of_the_whole() {
        assert_eq!(place(&options(&[])), Some(PathBuf::from("benches/compare")));
        assert_eq!(place(&options(&["--quick"])), None);
        assert_eq!(place(&options(&["--rows", "h1"])), None);
        assert_eq!(place(&options(&["--rows", "h1", "--out", "x"])), Some(PathBuf::from("x")));
    }

    #[test]
    fn all_of_it_takes_no_more_than_half_an_hour_and_the_headlines_three_minutes() {
        let all: f64 = ROWS.iter().map(|row| estimate(row, ROUNDS, SECONDS)).sum();
        // Half of the gated rows may be close.
        let more = |row: &Row| estimate(row, ROUNDS + MORE_ROUNDS, SECONDS) - estimate(row, ROUNDS, SECONDS);
        let more: f64 = ROWS.iter().filter(|row| row.gate.is_some()).map(more).sum();
        assert!(all + more / 2.0 < 29.0 * 60.0, "{all} and {more}");
        let headlines: f64 =
            ROWS.iter().filter(|row| row.headline).map(|row| estimate(row, QUICK_ROUNDS, SECONDS)).sum();
        assert!(headlines < 170.0, "{headlines}");
    }
}
