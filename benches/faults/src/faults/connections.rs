//! Connections that servers end in order: F55, F56.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::{Lab, POOL, account, origins, pass, simple};
use crate::load::Load;
use crate::origin::Behind;

/// F55: requests come just when servers close what was idle.
pub fn keep_alive_race(lab: &mut Lab) -> Result<()> {
    let [a, b] = origins(["a", "b"])?;
    for origin in [&a, &b] {
        origin.set(|script| script.behind = Behind::CloseAfter(Duration::from_secs(1)));
    }
    // Checks on connections of their own do not matter here; headgate's own idle timeout is the default.
    let headgate = lab.headgate(&simple(&[&a, &b], ""))?;
    let load = Load { burst: Some(50), methods: vec!["GET", "POST"], ..Load::new(headgate.address) };
    let running = load.start_both()?;
    lab.pass(1.0);
    let all = running.finish()?;
    let connects = a.record.connects_between(began(&all), std::time::Instant::now());
    ensure!(all.iter().all(|seen| seen.samples.len() > 100), "too few requests: nothing was tested");
    lab.none_failed(&all);
    lab.none_twice(&all, &[&a, &b]);
    lab.findings
        .note(format!("bursts of 50 in each protocol each second +- 2 ms; {connects} connections to one server"));
    lab.findings.note(format!("{} retries", headgate.metrics()?.sum("headgate_pool_retries_total", &[])));
    Ok(())
}

fn began(all: &[crate::load::seen::Seen]) -> std::time::Instant {
    let first = all.iter().flat_map(|seen| &seen.samples).map(|sample| sample.intended).min();
    first.unwrap_or_else(std::time::Instant::now)
}

/// F56: `Connection: close`, then resets behind responses.
pub fn closed_behind(lab: &mut Lab) -> Result<()> {
    let [a, b] = origins(["a", "b"])?;
    let headgate = lab.headgate(&simple(&[&a, &b], POOL))?;
    let load = Load { rate: 200, methods: vec!["GET", "GET", "GET", "POST"], ..Load::new(headgate.address) };
    let mut before = None;
    for (name, behind) in [("close", Behind::Close), ("reset", Behind::Reset)] {
        for origin in [&a, &b] {
            origin.set(|script| script.behind = behind);
        }
        let running = load.clone().start_both()?;
        lab.pass(0.25);
        let early = headgate.account()?;
        lab.pass(0.25);
        let half_closed = account::half_closed(headgate.pid())?;
        let late = headgate.account()?;
        let all = running.finish()?;
        for seen in &all {
            let what = format!("{} failed of {}, {name}", seen.protocol, seen.samples.len());
            lab.findings.none(what, seen.failed());
        }
        lab.findings.at_most(format!("half-closed connections, {name}"), half_closed, 10);
        let more = late.descriptors.saturating_sub(early.descriptors);
        lab.findings.at_most(format!("descriptors more, {name}"), more, 20);
        lab.none_twice(&all, &[&a, &b]);
        lab.note_failures(&all);
        pass(100);
        before = before.or(Some(early));
    }
    lab.findings.note("200 requests/s in each protocol");
    Ok(())
}
