//! Configs that change under load, for good or ill: F27, F28, F57.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::headgate::Headgate;
use crate::lab::{Control, Lab, POOL, eventually, origins, pass, simple};
use crate::load::Load;
use crate::origin::Origin;

/// Memory and descriptors are looked at so long after the storm, in milliseconds: connections that a reload retired
/// live for `timeouts.keep_alive`.
const REST: u64 = 4500;

/// F27: valid ones.
pub fn valid_storm(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = origins(["a", "b", "c"])?;
    let turn = |number: u32| changed(number, &[&a, &b, &c]);
    let headgate = lab.headgate(&turn(0))?;
    let load = Load { rate: 200, methods: vec!["GET", "GET", "POST"], fresh_every: 5, ..Load::new(headgate.address) };
    // The first reloads come before the first reading: what they leave is kept for the next. No load runs while it is
    // read, so that no client's connection is counted.
    let warm = load.clone().start_both()?;
    pass(1000);
    for number in 1..=4 {
        reload(&headgate, &turn(number))?;
    }
    let mut all_of_it = warm.finish()?;
    pass(REST);
    let before = headgate.account()?;
    let control = Control::start()?;
    let start = Instant::now();
    let running = load.start_both()?;
    pass(1500);
    let quiet_until = Instant::now();
    let reloads = if lab.quick { 40 } else { 100 };
    let storm = Instant::now();
    for number in 1..=reloads {
        reload(&headgate, &turn(number))?;
        lab.pass(1.0 / f64::from(reloads));
    }
    let storm_end = Instant::now();
    reload(&headgate, &turn(0))?;
    let all = running.finish()?;
    pass(REST);
    let after = headgate.account()?;
    for (whole, seen) in all_of_it.iter_mut().zip(&all) {
        whole.samples.extend_from_slice(&seen.samples);
    }
    lab.none_failed(&all_of_it);
    lab.p99_beside(&all, &control.finish()?, (start, quiet_until), (storm, storm_end), 2.0);
    let grown = (after.resident as f64 - before.resident as f64) * 100.0 / before.resident as f64;
    lab.findings.about("memory grown", grown, 10.0, "%");
    lab.findings.at_most("descriptors more or less", after.descriptors.abs_diff(before.descriptors), 5);
    lab.findings.at_most("threads more or less", after.threads.abs_diff(before.threads), 0);
    lab.findings.note(format!("{reloads} reloads in {:.1?}; 200 requests/s in each protocol", storm_end - storm));
    Ok(())
}

/// A config that differs from the one before in a weight, an endpoint, a timeout, a route or a header.
fn changed(number: u32, origins: &[&Origin; 3]) -> String {
    let some = if number % 5 == 1 { &origins[..2] } else { &origins[..] };
    let keys = format!("{POOL}timeouts.body = \"{}s\"\nmax_idle = {}\n", 20 + number % 5, 500 + number);
    let more = match number % 5 {
        2 => "[routes.more]\nmatch.path = \"/more\"\nrespond = { status = 200, body = \"more\" }\n",
        3 => "[routes.old]\nmatch.path = \"/old/{*rest}\"\nredirect = { to = \"/new/{rest}\" }\n",
        _ => "",
    };
    format!("{}response_headers.set.x-turn = \"{number}\"\n{more}", simple(some, &keys))
}

/// Writes a config and has it loaded.
fn reload(headgate: &Headgate, config: &str) -> Result<()> {
    headgate.write(config)?;
    let (status, receipt) = headgate.admin("POST", "/v1/reload")?;
    ensure!(status == 200, "a valid reload is refused: {receipt}");
    Ok(())
}

/// F28: invalid ones.
pub fn invalid_storm(lab: &mut Lab) -> Result<()> {
    let [a, b] = origins(["a", "b"])?;
    let config = simple(&[&a, &b], POOL);
    let headgate = lab.headgate(&config)?;
    let load = Load { rate: 200, methods: vec!["GET", "GET", "POST"], fresh_every: 5, ..Load::new(headgate.address) };
    let running = load.start_both()?;
    pass(500);
    let generation = headgate.generation()?;
    let failed =
        || headgate.metrics().map(|metrics| metrics.sum("headgate_config_reloads_total", &["result=\"failure\""]));
    let before = failed()?;
    let reloads = if lab.quick { 16 } else { 100 };
    let (mut taken, mut unplaced) = (0, 0);
    for number in 0..reloads {
        let broken = match number % 4 {
            0 => format!("{config}[pools.more]\nendpoint = [\"127.0.0.1:1\"]\n"),
            1 => format!("{config}[routes.lost]\nmatch.path = \"/lost\"\npool = \"nowhere\"\n"),
            2 => format!("{config}this is no TOML\n"),
            _ => format!(
                "{config}[listeners.bare]\naddress = \"127.0.0.1:0\"\ntls.certificates = [{{ cert = \"no.pem\", key = \"no.key\" }}]\n"
            ),
        };
        headgate.write(&broken)?;
        let logged = headgate.log().len();
        let (status, _) = headgate.admin("POST", "/v1/reload")?;
        taken += usize::from(status == 200);
        let placed = || headgate.log().get(logged..).is_some_and(|log| log.contains("headgate.toml:"));
        unplaced += usize::from(eventually(Duration::from_secs(2), placed).is_none());
        lab.pass(1.0 / f64::from(reloads));
    }
    headgate.write(&config)?;
    let counted = failed()? - before;
    let all = running.finish()?;
    lab.none_failed(&all);
    lab.findings.none("invalid configs that were taken", taken);
    lab.findings.none("of them without file:line in the log", unplaced);
    lab.findings.at_least("refusals counted", counted as usize, reloads as usize);
    lab.findings.hard(
        "generation",
        generation.to_string(),
        headgate.generation()?,
        headgate.generation()? == generation,
    );
    lab.findings.note(format!(
        "{reloads} by the admin API, each seen by the file watch as well; 200 requests/s in each protocol"
    ));
    Ok(())
}

/// F57: written in place, in two halves with 500 ms between them.
pub fn half_written(lab: &mut Lab) -> Result<()> {
    let [a, b] = origins(["a", "b"])?;
    // Half of it would be a config too: one without its last route.
    let config = |turn: u32| {
        format!(
            "{}response_headers.set.x-turn = \"{turn}\"\n[routes.last]\nmatch.path = \"/last\"\nrespond = {{ status = 200 }}\n",
            simple(&[&a, &b], POOL)
        )
    };
    let headgate = lab.headgate(&config(0))?;
    let load = Load { rate: 200, fresh_every: 5, ..Load::new(headgate.address) };
    let running = load.start_both()?;
    pass(500);
    let routes = || -> Result<usize> {
        let (_, status) = headgate.admin("GET", "/v1/status")?;
        Ok(status["routes"].as_array().context("no routes")?.len())
    };
    let before = headgate.generation()?;
    let turns = (lab.length.as_secs_f64() / 0.9) as u32;
    let (mut partial, mut active) = (0, 0);
    for turn in 1..=turns {
        let text = headgate.text(&config(turn));
        let cut = if turn % 2 == 0 { text.find("[routes.last]").unwrap_or(10) } else { text.len() * 2 / 3 };
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(headgate.config_file())?;
        std::io::Write::write_all(&mut file, &text.as_bytes()[..cut])?;
        let until = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until {
            partial += usize::from(routes()? != 2);
            pass(50);
        }
        std::io::Write::write_all(&mut file, &text.as_bytes()[cut..])?;
        drop(file);
        let loaded = eventually(Duration::from_secs(3), || {
            headgate.generation().is_ok_and(|now| now >= before + u64::from(turn))
        });
        active += usize::from(loaded.is_some());
    }
    let (_, reloads) = headgate.admin("GET", "/v1/reloads")?;
    let faulty = reloads.as_array().map_or(0, |all| all.iter().filter(|one| one["ok"] == false).count());
    let all = running.finish()?;
    lab.none_failed(&all);
    lab.findings.none("looks at which a partial config was active", partial);
    let generations = headgate.generation()? - before;
    lab.findings.hard("generations", turns.to_string(), generations, generations == u64::from(turns));
    lab.findings.hard("whole configs that became active", turns.to_string(), active, active == turns as usize);
    lab.findings.note(format!("{faulty} half configs were looked at and refused; 200 requests/s in each protocol"));
    Ok(())
}
