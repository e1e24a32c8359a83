//! Servers that say nothing, or not enough: F04, F05.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::{self, Lab, POOL, eventually, origins, pass, simple};
use crate::load::Load;
use crate::load::seen::{End, Sample};
use crate::origin::Answer;

const PATIENCE: Duration = Duration::from_secs(15);
/// Of `lab::PER_TRY`.
const PER_TRY: Duration = Duration::from_secs(1);

/// F04: frozen as by SIGSTOP.
pub fn frozen(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = origins(["a", "b", "c"])?;
    let headgate = lab.headgate(&simple(&[&a, &b, &c], &format!("{POOL}{}", lab::PER_TRY)))?;
    let load = Load { rate: 100, ..Load::new(headgate.address) };
    let running = load.start_both()?;
    pass(1500);
    a.freeze();
    let sent = || headgate.endpoint("app", a.address).map(|endpoint| endpoint["requests"].as_u64().unwrap_or_default());
    let timeouts = || {
        let metrics = headgate.metrics()?;
        let labels = [&*format!("endpoint=\"{}\"", a.address), "code=\"response_timeout\""];
        anyhow::Ok(metrics.sum("headgate_endpoint_requests_total", &labels) as usize)
    };
    // Five timeouts are there as soon as the first requests have waited their time, unless its checks, which are asked
    // sooner while in doubt, or its success rate have taken it out before.
    let standing = || headgate.endpoint("app", a.address).map(|endpoint| endpoint["standing"].clone());
    let is_out = || standing().is_ok_and(|standing| standing == "ejected" || standing == "out");
    let five = eventually(PATIENCE, || is_out() || timeouts().is_ok_and(|count| count >= 5));
    pass(50);
    let sent_by_then = sent()?;
    lab.pass(1.0);
    let more = sent()? - sent_by_then;
    a.thaw();
    let all = running.finish()?;
    for seen in &all {
        lab.findings.none(format!("{} failed GET of {}", seen.protocol, seen.samples.len()), seen.failed());
        let longest = seen.samples.iter().filter(|sample| sample.is_good()).map(Sample::latency).max();
        lab.findings.within(format!("{} longest", seen.protocol), longest, PER_TRY + Duration::from_millis(200));
    }
    ensure!(five.is_some(), "no request waited for the frozen server: nothing was tested");
    lab.findings.at_most("requests sent to it after five timeouts, trials", more as usize, 5);
    let running = || headgate.metrics().map_or(1.0, |metrics| metrics.sum("headgate_http_requests_in_flight", &[]));
    let rests = eventually(Duration::from_secs(3), || running() == 0.0);
    lab.findings.none("requests still running at the end", rests.map_or(running() as usize, |_| 0));
    let five = five.unwrap_or_default();
    lab.findings
        .note(format!("five timeouts {five:.1?} after it froze, {} in all; 100 requests/s in each", timeouts()?));
    lab.note_failures(&all);
    Ok(())
}

/// F05: heads without bodies.
pub fn head_only(lab: &mut Lab) -> Result<()> {
    let [a] = origins(["a"])?;
    // The main phase's length is the idle timeout of a response's body.
    let idle = lab.length;
    let keys = format!("{POOL}timeouts.body = \"{}ms\"\n", idle.as_millis());
    let headgate = lab.headgate(&simple(&[&a], &keys))?;
    // So that fewer hang at a time than the load's four HTTP/2 connections have streams: 400.
    let load = Load { rate: 60, timeout: Duration::from_secs(20), ..Load::new(headgate.address) };
    let warm = load.clone().start_both()?;
    pass(500);
    warm.finish()?;
    // Three times, since what the first ones leave is memory kept for the next.
    let mut before = headgate.account()?;
    let mut seen = Vec::new();
    for _ in 0..3 {
        before = headgate.account()?;
        a.set(|script| script.answer = Answer::HeadOnly);
        let running = load.clone().start_both()?;
        pass(if lab.quick { 1500 } else { 5000 });
        seen = running.finish()?;
        a.set(|script| script.answer = Answer::Whole);
        load.clone().start_both().and_then(|running| {
            pass(300);
            running.finish()
        })?;
        pass(300);
    }
    let open = eventually(Duration::from_secs(6), || a.record.open() <= 20).is_some();
    let after = headgate.account()?;
    for seen in &seen {
        let whole = seen.count(|sample| sample.end != End::Cut);
        lab.findings.none(format!("{} not aborted of {}", seen.protocol, seen.samples.len()), whole);
        let off = seen.samples.iter().map(|sample| sample.latency().abs_diff(idle)).max();
        lab.findings.within(format!("{} off the idle timeout", seen.protocol), off, Duration::from_millis(500));
    }
    let connections = a.record.open();
    lab.findings.hard("connections left to the server", "<= 20", connections, open);
    let descriptors = after.descriptors.abs_diff(before.descriptors);
    lab.findings.at_most("descriptors more or less", descriptors, 20);
    let grown = (after.resident as f64 - before.resident as f64) * 100.0 / before.resident as f64;
    lab.findings.about("memory grown", grown, 5.0, "%");
    lab.note_failures(&seen);
    Ok(())
}
