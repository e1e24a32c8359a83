//! Servers that lie about themselves, or change their minds: F11, F14, F47.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::lab::{Lab, POOL, eventually, origins, pass, route, simple};
use crate::load::Load;
use crate::load::seen::{End, Seen};

const PATIENCE: Duration = Duration::from_secs(15);
/// Errors in a row that eject, by default.
const ERRORS: usize = 5;
/// Requests that may be on their way to a server when the last of these comes.
const ON_THEIR_WAY: usize = 4;

/// F11: checks pass, and every real request is answered with 503.
pub fn only_checks_pass(lab: &mut Lab) -> Result<()> {
    if !(lab.has("ejection.base_time") && lab.has("retry.status")) {
        return Ok(());
    }
    let [a, b, c] = origins(["a", "b", "c"])?;
    // The main phase is three first ejections long: the first, and the second, which is twice as long.
    let base = lab.length / 4;
    let keys = format!("{POOL}ejection.base_time = \"{}ms\"\n", base.as_millis());
    let retry = "retry.status = [500, 503]\n";
    let headgate = lab.headgate(&format!("{}{retry}", simple(&[&a, &b, &c], &keys)))?;
    let running = Load { rate: 200, ..Load::new(headgate.address) }.start_both()?;
    pass(1500);
    a.set(|script| script.status = 503);
    let from = Instant::now();
    let ejected = eventually(PATIENCE, || headgate.standing("app", a.address) != "usable");
    lab.pass(1.0);
    let all = running.finish()?;
    lab.none_failed(&all);
    lab.findings.within("ejected", ejected, Duration::from_secs(1));
    // Bursts of requests that it got, with the rests between them.
    let asked = a.record.asked_between(from, Instant::now());
    let mut bursts = vec![0];
    let mut rests = Vec::new();
    for (at, time) in asked.iter().enumerate() {
        if at > 0 && time.duration_since(asked[at - 1]) > base / 2 {
            rests.push(time.duration_since(asked[at - 1]));
            bursts.push(0);
        }
        *bursts.last_mut().unwrap_or(&mut 0) += 1;
    }
    lab.findings.at_most("errors until it is ejected", bursts[0], ERRORS + ON_THEIR_WAY);
    let trials = bursts[1..].iter().max().copied().unwrap_or_default();
    lab.findings.at_most("requests that try it again, each time", trials, 1 + ON_THEIR_WAY);
    let short = |rest: Option<&Duration>, wanted: Duration| rest.is_none_or(|rest| *rest < wanted.mul_f64(0.9));
    let doubles = !short(rests.first(), base) && !short(rests.get(1), base * 2);
    lab.findings.hard(
        "rests until it is tried again double",
        format!(">= {base:.1?}, twice that"),
        format!("{rests:.1?}"),
        doubles,
    );
    lab.findings.note(format!("200 requests/s in each protocol; the first ejection lasts {base:.1?}; HARDENING: 30 s"));
    Ok(())
}

/// F14: up for a second, down for a second.
pub fn flapping(lab: &mut Lab) -> Result<()> {
    if lab.quick {
        lab.findings.skip("all of it", "the shortened run is the simulation in virtual time, among the unit tests");
        return Ok(());
    }
    let [mut a, b, c] = origins(["a", "b", "c"])?;
    let headgate = lab.headgate(&simple(&[&a, &b, &c], POOL))?;
    let load = Load { rate: 100, methods: vec!["GET", "PUT", "GET", "DELETE"], ..Load::new(headgate.address) };
    let running = load.start_both()?;
    let until = Instant::now() + lab.length;
    let address = a.address.to_string();
    let before = headgate.log().lines().filter(|line| line.contains(&address)).count();
    while Instant::now() < until {
        pass(1000);
        a.kill();
        pass(1000);
        a.start_again()?;
    }
    let all = running.finish()?;
    lab.none_failed(&all);
    let log = headgate.log();
    let lines = log.lines().filter(|line| line.contains(&address)).count() - before;
    let is_change = |line: &&str| line.contains(&address) && line.contains("endpoint is ");
    let changes = log.lines().filter(is_change).count().saturating_sub(1);
    // (fall + rise) x interval.
    let allowed = (lab.length.as_secs_f64() / 5.0).ceil() as usize + 1;
    lab.findings.at_most("changes of the verdict", changes, allowed);
    lab.findings.at_most("log lines, two for each change", lines, 2 * changes.max(1) + 2);
    lab.findings.note("100 requests/s in each protocol");
    Ok(())
}

/// F47: the check fails and the traffic does not; then the other way round.
pub fn halves(lab: &mut Lab) -> Result<()> {
    let [a, b] = origins(["a", "b"])?;
    let headgate = lab.headgate(&simple(&[&a, &b], POOL))?;
    let load = Load { rate: 200, methods: vec!["GET", "GET", "POST"], ..Load::new(headgate.address) };
    let running = load.clone().start_both()?;
    pass(500);
    a.set(|script| script.health = 503);
    let out = eventually(PATIENCE, || headgate.standing("app", a.address) == "out");
    // What runs when it leaves is let finish.
    pass(200);
    let from = Instant::now();
    lab.pass(0.5);
    let late = a.record.asked_between(from, Instant::now()).len();
    let all = running.finish()?;
    lab.none_failed(&all);
    // fall x interval, and one interval until the first look.
    lab.findings.within("only its check fails: out", out, Duration::from_secs(4));
    lab.findings.none("requests to it after that", late);
    a.set(|script| script.health = 200);
    ensure!(eventually(PATIENCE, || headgate.standing("app", a.address) == "usable").is_some(), "it stays out");
    if !lab.knows("ejection.consecutive_errors") {
        lab.findings.skip("only its traffic fails: ejected", "this headgate has no key ejection.consecutive_errors");
        return Ok(());
    }
    let running = load.start_both()?;
    pass(500);
    a.set(|script| script.status = 503);
    let ejected = eventually(PATIENCE, || headgate.standing("app", a.address) != "usable");
    lab.pass(0.5);
    let all = running.finish()?;
    let errors: usize = all.iter().map(|seen: &Seen| seen.count(|sample| sample.end == End::Status(503))).sum();
    let other: usize = all.iter().map(Seen::failed).sum::<usize>() - errors;
    lab.findings.none("only its traffic fails: failed otherwise than by its 503", other);
    lab.findings.at_most("its errors until it is ejected", errors, ERRORS + ON_THEIR_WAY);
    lab.findings.within("ejected", ejected, Duration::from_secs(1));
    lab.findings.note("either is enough to take a server out; 200 requests/s in each protocol");
    Ok(())
}

/// F42 needs the same route.
pub fn retrying(attempts: u32) -> String {
    route(&format!("retry.attempts = {attempts}\nretry.status = [503]\n"))
}
