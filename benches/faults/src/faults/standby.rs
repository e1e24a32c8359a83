//! One that works and one that waits: F15, F16.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::death::split;
use crate::lab::{Lab, POOL, eventually, origins, pass};
use crate::load::Load;
use crate::load::seen::Sample;
use crate::origin::Origin;

const PATIENCE: Duration = Duration::from_secs(15);
/// From the kill to the last failed write.
const WINDOW: Duration = Duration::from_millis(1500);

fn config(reader: &Origin, active: &Origin, passive: &Origin) -> String {
    let writes = format!(
        "[pools.writers]\nendpoints = [\"{}\", {{ address = \"{}\", backup = true }}]\n",
        active.address, passive.address
    );
    split(&[reader], &writes, POOL)
}

/// F15: the active is killed under writes.
pub fn failover(lab: &mut Lab) -> Result<()> {
    let [reader, mut active, passive] = origins(["reader", "active", "passive"])?;
    for origin in [&active, &passive] {
        origin.set(|script| script.delay = Duration::from_millis(10));
    }
    let headgate = lab.headgate(&config(&reader, &active, &passive))?;
    let load = Load { rate: 100, methods: vec!["POST"], ..Load::new(headgate.address) };
    let reads = Load { rate: 50, ..Load::new(headgate.address) }.start_both()?;
    let running = load.start_both()?;
    pass(1500);
    let killed = active.kill();
    lab.pass(1.0);
    let all = running.finish()?;
    let reads = reads.finish()?;
    let mut wanted = 0;
    for seen in &all {
        let late = seen.between(killed + WINDOW, Instant::now());
        let elsewhere = late.count(|sample| sample.origin.as_deref() != Some("passive"));
        lab.findings.none(format!("{} writes not on the passive after {WINDOW:?}", seen.protocol), elsewhere);
        let failed = seen.samples.iter().filter(|sample| !sample.is_good());
        let window = failed.map(|sample| sample.ended.saturating_duration_since(killed)).max().unwrap_or_default();
        lab.findings.within(format!("{} last failed write after the kill", seen.protocol), Some(window), WINDOW);
        wanted += seen.count(|sample| reader.record.times(sample.id) > 0);
    }
    lab.findings.none("writes on readers", wanted);
    lab.none_twice(&all, &[&reader, &active, &passive]);
    lab.none_failed(&reads);
    lab.findings.note("100 POST/s in each protocol, 10 ms each");
    lab.note_failures(&all);
    Ok(())
}

/// F16: the active returns.
pub fn failback(lab: &mut Lab) -> Result<()> {
    let [reader, mut active, passive] = origins(["reader", "active", "passive"])?;
    // Where there is a hold time, it counts from when the active is usable.
    let hold = if lab.knows("failback.after_stable") { Duration::from_secs(3) } else { Duration::ZERO };
    let failback = if hold.is_zero() { String::new() } else { format!("failback.after_stable = \"{hold:?}\"\n") };
    let config =
        config(&reader, &active, &passive).replacen("[pools.writers]\n", &format!("[pools.writers]\n{failback}"), 1);
    let headgate = lab.headgate(&config)?;
    let usable = |origin: &Origin| headgate.standing("writers", origin.address) == "usable";
    ensure!(eventually(PATIENCE, || usable(&active) && usable(&passive)).is_some(), "the servers are not used");
    active.kill();
    ensure!(eventually(PATIENCE, || headgate.standing("writers", active.address) == "out").is_some(), "it stays");
    // Each takes a second, so that some run on the passive at any time.
    passive.set(|script| script.delay = Duration::from_secs(1));
    let load = Load { rate: 50, methods: vec!["POST", "PUT"], ..Load::new(headgate.address) };
    let running = load.start_both()?;
    pass(1500);
    let returned = Instant::now();
    active.start_again()?;
    let back = eventually(PATIENCE, || active.record.first_asked_since(returned).is_some());
    let first = active.record.first_asked_since(returned).unwrap_or(returned);
    let checks = active.record.probes_between(returned, first);
    let on_passive = passive.record.in_flight();
    lab.pass(0.5);
    let all = running.finish()?;
    lab.none_failed(&all);
    ensure!(back.is_some(), "it is not used again");
    lab.findings.at_least("good checks before it is used (rise = 2)", checks, 2);
    if !hold.is_zero() {
        let back = back.unwrap_or_default();
        lab.findings.hard(
            "held back for failback.after_stable",
            format!(">= {hold:?}"),
            format!("{back:.1?}"),
            back >= hold,
        );
    }
    let running = all.iter().map(|seen| {
        seen.count(|sample: &Sample| {
            let on_passive = sample.origin.as_deref() == Some("passive");
            on_passive && sample.ended > returned + back.unwrap_or_default() && sample.is_good()
        })
    });
    lab.findings.at_least("finished on the passive after the return", running.sum(), 1);
    lab.findings.none("left running on the passive", passive.record.in_flight() as usize);
    lab.none_twice(&all, &[&reader, &active, &passive]);
    lab.findings
        .note(format!("back after {:.1?}; {on_passive} requests ran on the passive then", back.unwrap_or_default()));
    Ok(())
}
