//! Servers that die: F01, F02, F03, F06, F54.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::lab::{Lab, POOL, ask, eventually, origins, pass, pool, simple};
use crate::load::Load;
use crate::load::seen::{End, Seen};
use crate::origin::{Behind, Origin};
use crate::verdict::show;

const PATIENCE: Duration = Duration::from_secs(15);
/// GET to POST as 10 to 1.
const MOSTLY_GET: [&str; 11] = ["GET", "GET", "GET", "GET", "GET", "POST", "GET", "GET", "GET", "GET", "GET"];

/// F01: killed while its connections lie idle.
pub fn while_idle(lab: &mut Lab) -> Result<()> {
    let [mut a, b, c] = origins(["a", "b", "c"])?;
    let headgate = lab.headgate(&simple(&[&a, &b, &c], POOL))?;
    let load = Load { rate: 300, methods: MOSTLY_GET.to_vec(), ..Load::new(headgate.address) };
    let rounds = if lab.quick { 3 } else { 10 };
    let mut all: Vec<Seen> = Vec::new();
    for _ in 0..rounds {
        let usable = || headgate.standing("app", a.address) == "usable";
        ensure!(eventually(PATIENCE, usable).is_some(), "a server that is back is not used again");
        for phase in ["before", "after"] {
            let running = load.clone().start_both()?;
            // Connections come into the pool before, and are needed after.
            lab.pass(0.5 / f64::from(rounds));
            merge(&mut all, running.finish()?);
            if phase == "before" {
                ensure!(a.record.open() > 0, "no connection lies idle");
                a.kill();
            }
        }
        a.start_again()?;
    }
    lab.findings.note("300 requests/s in each protocol; HARDENING: 1,100. The load pauses for each kill, so that nothing is in flight");
    lab.none_failed(&all);
    lab.none_twice(&all, &[&a, &b, &c]);
    Ok(())
}

/// F02: killed under load, its requests in flight.
pub fn under_load(lab: &mut Lab) -> Result<()> {
    let [mut a, b, c] = origins(["a", "b", "c"])?;
    for origin in [&a, &b, &c] {
        origin.set(|script| script.delay = Duration::from_millis(20));
    }
    let headgate = lab.headgate(&simple(&[&a, &b, &c], POOL))?;
    let methods = vec!["GET", "PUT", "HEAD", "POST", "DELETE"];
    let load = Load { rate: 300, methods, ..Load::new(headgate.address) };
    let rounds = if lab.quick { 2 } else { 8 };
    let (mut in_flight, mut out) = (0, Duration::ZERO);
    let running = load.start_both()?;
    for _ in 0..rounds {
        let usable = || headgate.standing("app", a.address) == "usable";
        ensure!(eventually(PATIENCE, usable).is_some(), "a server that is back is not used again");
        lab.pass(1.0 / f64::from(rounds));
        // More may come between the count and the kill; a killed one's own count is what it had then.
        let (running_then, at) = (a.record.in_flight(), a.kill());
        in_flight += running_then as usize + 2;
        let gone = eventually(PATIENCE, || headgate.standing("app", a.address) != "usable");
        out = out.max(gone.map_or(PATIENCE, |_| at.elapsed()));
        pass(300);
        a.start_again()?;
    }
    let all = running.finish()?;
    for seen in &all {
        let failed = seen.count(|sample| !sample.is_good() && sample.method != "POST");
        lab.findings.none(format!("{} failed GET, HEAD, PUT, DELETE", seen.protocol), failed);
    }
    let posts: usize = all.iter().map(|seen| seen.of("POST").failed()).sum();
    lab.findings.at_most(format!("failed POST, in flight at {rounds} kills"), posts, in_flight);
    lab.none_twice(&all, &[&a, &b, &c]);
    lab.findings.within("out of rotation", Some(out), Duration::from_secs(1));
    lab.findings.note("300 requests/s in each protocol, 20 ms each; HARDENING: 1,000");
    lab.note_failures(&all);
    Ok(())
}

/// F03: killed within bodies.
pub fn within_bodies(lab: &mut Lab) -> Result<()> {
    let [mut a, b] = origins(["a", "b"])?;
    for origin in [&a, &b] {
        origin.set(|script| {
            (script.body, script.pace, script.max_age) = (900_000, Duration::from_secs(1), Some(60));
        });
    }
    let config =
        format!("[caches.main]\nmax_body = \"2MiB\"\n{}cache = {{ zone = \"main\" }}\n", simple(&[&a, &b], POOL));
    let headgate = lab.headgate(&config)?;
    let load = Load { rate: 20, path: "/big/{id}".to_owned(), ..Load::new(headgate.address) };
    let running = load.start_both()?;
    lab.pass(0.5);
    let in_flight = a.record.in_flight();
    a.kill();
    lab.pass(0.5);
    let all = running.finish()?;
    let cut: Vec<u64> = all.iter().flat_map(|seen| &seen.samples).filter(|s| s.end == End::Cut).map(|s| s.id).collect();
    for seen in &all {
        let truncated = seen.count(|sample| sample.end == End::Truncated);
        lab.findings.none(format!("{} silent truncations", seen.protocol), truncated);
        let other = seen.count(|sample| !sample.is_good() && sample.end != End::Cut && sample.end != End::Truncated);
        lab.findings.none(format!("{} failed otherwise than by an abort", seen.protocol), other);
    }
    ensure!(!cut.is_empty(), "no body was cut: nothing was tested");
    lab.findings.at_most("aborted, in flight at the kill", cut.len(), in_flight as usize + 1);
    let hits = || headgate.metrics().map(|metrics| metrics.sum("headgate_cache_requests_total", &["result=\"hit\""]));
    let before = hits()?;
    b.set(|script| script.pace = Duration::ZERO);
    for id in &cut {
        ask::tcp(headgate.address, "GET", &format!("/big/{id}"))?;
    }
    lab.findings.none("of the aborted that were cached", (hits()? - before) as usize);
    lab.findings.note("bodies of 0.9 MB that take 1 s; HARDENING: 10 MB");
    lab.note_failures(&all);
    Ok(())
}

/// F06: the port is closed, and only traffic finds that out.
pub fn port_closed(lab: &mut Lab) -> Result<()> {
    let [mut a, b, c] = origins(["a", "b", "c"])?;
    a.kill();
    // Without checks, which would find it out before the first request.
    let headgate = lab.headgate(&simple(&[&a, &b, &c], "timeouts.connect = \"250ms\"\n"))?;
    let load = Load { rate: 300, methods: MOSTLY_GET.to_vec(), ..Load::new(headgate.address) };
    let began = Instant::now();
    let running = load.start_both()?;
    pass(800);
    let refused = headgate.metrics()?.sum("headgate_endpoint_requests_total", &["code=\"connect_refused\""]);
    lab.pass(1.0);
    let all = running.finish()?;
    lab.none_failed(&all);
    lab.findings.at_most("failures until it is out of rotation", refused as usize, 3);
    let retried = headgate.metrics()?.sum("headgate_pool_retries_total", &[]);
    for seen in &all {
        // The first requests open connections, and so does the one that is refused.
        let usual = seen.between(began + Duration::from_secs(1), Instant::now()).quantile(0.99);
        let p99 = seen.quantile(0.99);
        let added = p99.zip(usual).map(|(p99, usual)| p99.saturating_sub(usual));
        lab.findings.within(format!("{} added latency (p99)", seen.protocol), added, Duration::from_millis(5));
    }
    lab.findings.note(format!("{retried} requests were tried twice, over the whole run"));
    Ok(())
}

/// F54: each server is drained, restarted, and taken back.
pub fn rolling_deploy(lab: &mut Lab) -> Result<()> {
    let [a, b, c, d] = origins(["a", "b", "c", "d"])?;
    let mut four = [a, b, c, d];
    let interval = if lab.quick { "300ms" } else { "1s" };
    let keys = POOL.replace("interval = \"1s\"", &format!("interval = \"{interval}\""));
    let config = {
        let all: Vec<&Origin> = four.iter().collect();
        simple(&all, &keys)
    };
    let headgate = lab.headgate(&config)?;
    let load = Load { rate: 200, methods: MOSTLY_GET.to_vec(), fresh_every: 10, ..Load::new(headgate.address) };
    let running = load.start_both()?;
    pass(500);
    for (at, origin) in four.iter_mut().enumerate() {
        // Half of them say so themselves, half are taken out by the operator.
        let by_order = at % 2 == 1;
        let address = origin.address;
        match by_order {
            true => headgate.command(&["drain", &format!("app/{address}")])?,
            false => origin.set(|script| (script.health, script.behind) = (503, Behind::Close)),
        }
        let out = eventually(PATIENCE, || headgate.standing("app", address) != "usable");
        ensure!(out.is_some(), "a server that is drained stays in rotation");
        let quiet = eventually(PATIENCE, || origin.record.in_flight() == 0);
        ensure!(quiet.is_some(), "a drained server still has requests");
        origin.kill();
        lab.pass(0.3);
        origin.start_again()?;
        origin.set(|script| (script.health, script.behind) = (200, Behind::Keep));
        if by_order {
            let up = || headgate.endpoint("app", address).is_ok_and(|endpoint| endpoint["verdict"] == "up");
            ensure!(eventually(PATIENCE, up).is_some(), "a drained server that is back is not called up");
            headgate.command(&["undrain", &format!("app/{address}")])?;
        }
        let back = eventually(PATIENCE, || headgate.standing("app", address) == "usable");
        ensure!(back.is_some(), "a server that is back is not used again");
        lab.pass(0.7);
    }
    let all = running.finish()?;
    lab.none_failed(&all);
    let all_origins: Vec<&Origin> = four.iter().collect();
    lab.none_twice(&all, &all_origins);
    lab.findings.note(format!(
        "two say 503 to checks, two are drained by `headgate drain`; 200 requests/s in each protocol; {} apart",
        show(lab.length)
    ));
    Ok(())
}

/// Puts what was seen behind what was seen before.
fn merge(all: &mut Vec<Seen>, more: Vec<Seen>) {
    if all.is_empty() {
        *all = more;
        return;
    }
    for (seen, more) in all.iter_mut().zip(more) {
        seen.samples.extend(more.samples);
    }
}

/// For the families that split.
pub fn split(reads: &[&Origin], writes: &str, keys: &str) -> String {
    format!(
        "{}{writes}{keys}[routes.all]\nsplit.read = \"readers\"\nsplit.write = \"writers\"\n",
        pool("readers", reads, keys)
    )
}
