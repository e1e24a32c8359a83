//! Looks at every pool a few times a second: who is out of line, whether too few are left, where traffic may go back to.
//!
//! The judgements are pure (`upstream::health::outlier`, `upstream::failback`); this loop feeds them what it sees and puts
//! into effect what they say. Nothing here is in a request's way: workers eject after errors in a row and go on to the
//! next stage by themselves.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::base::id::PoolIndex;
use crate::base::{clock, task};
use crate::config::model::{Action, Ejection, Failback, WhenReadsDown};
use crate::control::Handle;
use crate::snapshot::Snapshot;
use crate::snapshot::plane::Plane;
use crate::upstream::endpoint::{Standing, Verdict};
use crate::upstream::failback::{BACKUPS, Hold, PRIMARIES, Sight};
use crate::upstream::health::outlier::outliers;
use crate::upstream::pool::{Endpoint, Pool};
use crate::upstream::pool_state::{Cause, Notes, Traffic};

/// From one look to the next.
const GAP: Duration = Duration::from_millis(250);
/// Windows are judged at each of so many looks: once a second.
const LOOKS_PER_JUDGEMENT: u64 = 4;
/// Endpoints that are named where a reason is told.
const MOST_NAMED: usize = 3;

/// Why traffic cannot be sent back by hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailbackRefused {
    /// There is no such pool.
    #[error("there is no pool `{0}`")]
    NoPool(String),
    /// Traffic is where it belongs.
    #[error("the traffic of `{0}` is at its primaries")]
    NotAway(String),
    /// Nothing better could serve it.
    #[error("nothing better than where the traffic of `{0}` is can serve")]
    NothingBetter(String),
}

impl Handle {
    /// Lets a pool's traffic go back to the best stage that can serve, whatever `failback` says. Takes effect at the next
    /// look, within 250 ms.
    ///
    /// # Errors
    /// [`FailbackRefused`] where there is nothing to go back from or to.
    pub fn failback(&self, pool: &str) -> Result<(), FailbackRefused> {
        let snapshot = self.plane.snapshot.load();
        let found = snapshot.pools.iter().position(|found| *found.spec.name == *pool);
        let at = found.ok_or_else(|| FailbackRefused::NoPool(pool.to_owned()))?;
        let found = &snapshot.pools[at];
        let held = found.state.held();
        if held == PRIMARIES {
            return Err(FailbackRefused::NotAway(pool.to_owned()));
        }
        if !sights(&snapshot, found, clock::now()).iter().take(held).any(|sight| sight.usable) {
            return Err(FailbackRefused::NothingBetter(pool.to_owned()));
        }
        found.state.release();
        Ok(())
    }
}

/// Starts the loop.
pub(super) fn watch(plane: &Arc<Plane>) {
    let plane = plane.clone();
    task::spawn_local(async move {
        let mut looks = tokio::time::interval(GAP);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in 0_u64.. {
            looks.tick().await;
            look(&plane.snapshot.load_full(), turn.is_multiple_of(LOOKS_PER_JUDGEMENT), clock::now());
        }
    });
}

/// One look at every pool.
pub(crate) fn look(snapshot: &Snapshot, judge: bool, now: Instant) {
    for pool in &snapshot.pools {
        for endpoint in &pool.endpoints {
            let is_usable = endpoint.standing(now) == Standing::Usable;
            let mut observed = endpoint.state.passive.observed.lock().unwrap_or_else(PoisonError::into_inner);
            observed.flaps.observe(is_usable, now);
        }
        match &pool.spec.ejection {
            Some(rule) if rule.max_ejected > 0 => {
                if judge {
                    judge_windows(pool, rule, now);
                }
                pool.plan_trial(now);
            }
            // It was switched off: nobody stays out by what no longer holds.
            _ => pool.endpoints.iter().for_each(|endpoint| endpoint.state.passive.forget()),
        }
    }
    // What takes over is looked at by whom it takes over from, so it has to be up to date.
    for pool in &snapshot.pools {
        follow(snapshot, pool, now);
    }
}

/// Ejects who is out of line in the window so far; begins a new window where this one has ended.
fn judge_windows(pool: &Pool, rule: &Ejection, now: Instant) {
    let mut over = Vec::new();
    let mut window = |endpoint: &Endpoint| {
        let state = &endpoint.state;
        let counts = state.passive.counts(state.requests());
        let mut observed = state.passive.observed.lock().unwrap_or_else(PoisonError::into_inner);
        // What an ejected endpoint did is history, and so is what it did before.
        let begun = observed.window.filter(|_| endpoint.standing(now) <= Standing::Suspect);
        let (began, before) = *observed.window.insert(begun.unwrap_or((now, counts)));
        over.push(now.saturating_duration_since(began) >= rule.interval);
        Some(counts.since(before))
    };
    let windows: Vec<_> = pool.endpoints.iter().map(&mut window).collect();
    for (at, why) in outliers(&windows, rule) {
        if let Some(endpoint) = pool.endpoints.get(at) {
            pool.eject(rule, endpoint, now, &why.to_string());
        }
    }
    for (endpoint, _) in pool.endpoints.iter().zip(over).filter(|(_, over)| *over) {
        let mut observed = endpoint.state.passive.observed.lock().unwrap_or_else(PoisonError::into_inner);
        observed.window = None;
    }
}

fn can_serve(endpoint: &Endpoint, now: Instant) -> bool {
    endpoint.standing(now) <= Standing::Unknown
}

/// Percent of the primaries that the usable endpoints come to, backups included. What an operator drains is no failure.
fn usable_percent(pool: &Pool, now: Instant) -> usize {
    let is_primary = |endpoint: &&Endpoint| !endpoint.spec.backup && endpoint.drain.is_none();
    let primaries = pool.endpoints.iter().filter(is_primary).count();
    let usable = pool.endpoints.iter().filter(|endpoint| can_serve(endpoint, now)).count();
    usable * 100 / primaries.max(1)
}

fn is_below(pool: &Pool, now: Instant) -> bool {
    let threshold = pool.spec.panic_threshold as usize;
    threshold > 0 && usable_percent(pool, now) < threshold
}

/// Whether a pool itself has an endpoint that stands so well or better, for requests that no cookie binds.
fn has(pool: &Pool, worst: Standing, now: Instant) -> bool {
    pool.endpoints.iter().any(|endpoint| endpoint.spec.weight.value() > 0 && pool.standing(endpoint, now) <= worst)
}

/// A pool and those that take over from it.
fn with_chain<'s>(snapshot: &'s Snapshot, pool: &'s Pool) -> impl Iterator<Item = &'s Pool> {
    std::iter::once(pool).chain(pool.chain.iter().map(move |index| snapshot.pool(*index)))
}

/// What becomes of a pool's requests where none of its own endpoints is usable: in the order of their course
/// ([`Snapshot::course`]), and what is usable anywhere comes before a last resort.
pub(super) fn instead(snapshot: &Snapshot, pool: &Pool, now: Instant) -> String {
    if let Some(next) = with_chain(snapshot, pool).skip(1).find(|other| has(other, Standing::Unknown, now)) {
        return format!("`{}` takes over", next.spec.name);
    }
    let has_last_resort = with_chain(snapshot, pool).any(|own| has(own, Standing::Ejected, now));
    let (rest, worst) = match has_last_resort {
        true => ("are tried on endpoints that are not usable", Standing::Unknown),
        false => ("get 503", Standing::Ejected),
    };
    let is_this = |index: PoolIndex| std::ptr::eq(snapshot.pool(index), pool);
    let (mut targets, mut others): (Vec<&Pool>, bool) = (Vec::new(), false);
    for route in &snapshot.config.routes {
        match &route.action {
            Action::Pool(index) => others |= is_this(*index),
            Action::Split(split) => {
                others |= is_this(split.write);
                if is_this(split.read) {
                    let write = snapshot.pool(split.write);
                    let may = split.when_reads_down == WhenReadsDown::Write && split.write != split.read;
                    match may && with_chain(snapshot, write).any(|target| has(target, worst, now)) {
                        true => targets.push(write),
                        false => others = true,
                    }
                }
            }
            Action::Redirect(_) | Action::Respond(_) => {}
        }
    }
    if targets.is_empty() {
        return match others {
            true => format!("its requests {rest}"),
            false => "no route leads to it, and it can take over from no other pool".to_owned(),
        };
    }
    let half = targets.iter().any(|target| target.spec.most_requests().is_some());
    let mut names: Vec<String> = targets.iter().map(|target| format!("`{}`", target.spec.name)).collect();
    names.sort();
    names.dedup();
    let names = names.join(" and ");
    let half = if half { ", up to half of its max_requests" } else { "" };
    let others = if others { format!("; its other requests {rest}") } else { String::new() };
    format!("its reads go to {names}{half}{others}")
}

/// What can serve, stage by stage.
fn sights(snapshot: &Snapshot, pool: &Pool, now: Instant) -> Vec<Sight> {
    let sight = |endpoints: &mut dyn Iterator<Item = &Endpoint>| {
        let serving: Vec<_> = endpoints.filter(|endpoint| can_serve(endpoint, now)).collect();
        let is_calm = |endpoint: &&Endpoint| {
            endpoint.state.passive.observed.lock().unwrap_or_else(PoisonError::into_inner).flaps.is_calm(now)
        };
        Sight { usable: !serving.is_empty(), calm: serving.iter().any(is_calm) }
    };
    let own = |backup: bool| sight(&mut pool.endpoints.iter().filter(|endpoint| endpoint.spec.backup == backup));
    let is_low = !pool.chain.is_empty() && is_below(pool, now);
    let mut sights = if is_low { vec![Sight::default(); 2] } else { vec![own(false), own(true)] };
    sights.extend(pool.chain.iter().map(|index| {
        let other = snapshot.pool(*index);
        if is_below(other, now) { Sight::default() } else { sight(&mut other.endpoints.iter()) }
    }));
    sights
}

/// Keeps a pool's state: panic, and where traffic is held.
fn follow(snapshot: &Snapshot, pool: &Pool, now: Instant) {
    let (spec, state) = (&pool.spec, &pool.state);
    let mut notes = state.notes();
    let notes = &mut *notes;
    let sights = sights(snapshot, pool, now);
    let below = is_below(pool, now);
    let low = below && !pool.chain.is_empty();
    // A backup that can serve is better than a primary that cannot.
    let panic = below && !low && !sights.get(BACKUPS).is_some_and(|sight| sight.usable);
    let was = rename(snapshot, pool, notes);
    let released = state.take_release();
    let hold = match pool.has_stages {
        true => notes.keeper.step(spec.failback, &sights, was, released, now),
        false => Hold { held: PRIMARIES, target: PRIMARIES, share: 0.0 },
    };
    state.set(was, hold, panic, low);
    let is_usable = |endpoint: &Endpoint| endpoint.spec.weight.value() > 0 && can_serve(endpoint, now);
    let nobody = !with_chain(snapshot, pool).any(|own| own.endpoints.iter().any(is_usable));
    let view = View { snapshot, pool, names: &notes.stages, sights: &sights, hold, nobody, now };
    let mut traffic = Traffic {
        active: view.name(hold.held),
        stage: hold.held,
        since_unix_ms: notes.traffic.since_unix_ms,
        why: String::new(),
        next: view.next(notes.keeper.calm_since(PRIMARIES)),
        ramp_percent: (hold.share > 0.0).then_some(hold.share * 100.0),
        panic,
        usable: pool.endpoints.iter().filter(|endpoint| can_serve(endpoint, now)).count(),
        ejected: pool.endpoints.iter().filter(|endpoint| endpoint.state.passive.is_ejected(now)).count(),
    };
    if traffic.active != notes.traffic.active {
        traffic.since_unix_ms = clock::unix_millis();
        notes.causes = view.causes(notes.traffic.stage, released);
        if !notes.traffic.active.is_empty() {
            let (from, to, why) = (&notes.traffic.active, &traffic.active, view.told(&notes.causes));
            tracing::warn!(pool = %spec.name, "traffic goes from {from} to {to}: {why}");
        }
    }
    traffic.why = if nobody { view.nobody() } else { view.told(&notes.causes) };
    match (notes.traffic.panic, panic) {
        (false, true) => tracing::warn!(
            pool = %spec.name,
            "panic: fewer than {} % of the primaries are usable, so all are used", spec.panic_threshold
        ),
        (true, false) => tracing::info!(pool = %spec.name, "no panic any more: the usable endpoints are used"),
        _ => {}
    }
    notes.traffic = traffic;
}

/// The stage that traffic is held at; after a reload, the one that has its name now.
fn rename(snapshot: &Snapshot, pool: &Pool, notes: &mut Notes) -> usize {
    let chain = pool.chain.iter().map(|index: &PoolIndex| snapshot.pool(*index).spec.name.to_string());
    let stages: Vec<String> = ["primaries".to_owned(), "backups".to_owned()].into_iter().chain(chain).collect();
    let held = pool.state.held();
    if notes.stages == stages {
        return held;
    }
    let name = notes.stages.get(held);
    let place = name.and_then(|name| stages.iter().position(|stage| stage == name)).unwrap_or(PRIMARIES);
    if place != held {
        pool.state.set(held, Hold { held: place, target: place, share: 0.0 }, false, false);
    }
    notes.keeper = crate::upstream::failback::Keeper::default();
    notes.stages = stages;
    pool.state.held()
}

/// One pool at one look, for words about it.
struct View<'a> {
    snapshot: &'a Snapshot,
    pool: &'a Pool,
    names: &'a [String],
    sights: &'a [Sight],
    hold: Hold,
    /// No stage has an endpoint that is usable.
    nobody: bool,
    now: Instant,
}

impl View<'_> {
    fn name(&self, stage: usize) -> String {
        self.names.get(stage).cloned().unwrap_or_default()
    }

    /// Why traffic left the stage it was at.
    fn causes(&self, before: usize, released: bool) -> Vec<Cause> {
        if self.hold.held < before {
            let name = self.name(self.hold.held);
            let back = match self.pool.spec.failback {
                _ if released => "an operator sent it back".to_owned(),
                _ if !self.sights.get(before).is_some_and(|sight| sight.usable) => {
                    format!("{} can serve no more", self.name(before))
                }
                Failback::AtOnce => format!("{name} can serve again"),
                Failback::AfterStable(time) => format!("{name} could serve for {}", humantime::format_duration(time)),
                Failback::Ramp(time) => format!("the ramp of {} has ended", humantime::format_duration(time)),
                Failback::Manual => format!("{name} is where the config has it now"),
            };
            return vec![Cause::Other(back)];
        }
        if self.hold.held == PRIMARIES {
            return vec![Cause::Other("it belongs there".to_owned())];
        }
        let out = self.out();
        if out.is_empty() { vec![Cause::Other("requests could not be served there".to_owned())] } else { out }
    }

    /// Who of the pool's own endpoints cannot serve, and what speaks against each.
    fn out(&self) -> Vec<Cause> {
        let out = self.pool.endpoints.iter().filter(|endpoint| !can_serve(endpoint, self.now));
        let told = out.map(|endpoint| {
            let newest = endpoint.state.evidence().pop().map(|evidence| format!(" ({})", evidence.detail));
            let (state, detail) = match endpoint.standing(self.now) {
                // What its probes say has nothing to do with it.
                _ if endpoint.drain.is_some() => ("draining", None),
                Standing::Out => (endpoint.state.verdict().as_str(), newest),
                Standing::Ejected => ("ejected", newest),
                _ => ("suspect", newest),
            };
            Cause::Out { endpoint: endpoint.name.to_string(), state, detail: detail.unwrap_or_default() }
        });
        let unknown = self.pool.names.iter().filter_map(|name| {
            let (fault, _) = name.down()?;
            Some(Cause::Other(format!("{} has no address ({})", name.text, fault.as_str())))
        });
        told.chain(unknown).take(MOST_NAMED).collect()
    }

    /// What becomes of requests while nothing is usable, and why that is so.
    fn nobody(&self) -> String {
        let (instead, out) = (instead(self.snapshot, self.pool, self.now), self.told(&self.out()));
        let out = if out.is_empty() { out } else { format!(": {out}") };
        format!("no endpoint is usable, so {instead}{out}")
    }

    /// Causes as they read now: who has come back since was out then, and is no longer.
    fn told(&self, causes: &[Cause]) -> String {
        let serves = |name: &str| {
            let mut named = self.pool.endpoints.iter().filter(|endpoint| *endpoint.name == *name);
            named.any(|endpoint| can_serve(endpoint, self.now))
        };
        let told = causes.iter().map(|cause| match cause {
            Cause::Out { endpoint, state, detail } if serves(endpoint) => {
                format!("{endpoint} was {state} when traffic left{detail}")
            }
            Cause::Out { endpoint, state, detail } => format!("{endpoint} is {state}{detail}"),
            Cause::Other(words) => words.clone(),
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// What would make the pool serve again.
    fn rescue(&self) -> String {
        let pools = || with_chain(self.snapshot, self.pool);
        let all = || pools().flat_map(|own| own.endpoints.iter().map(move |endpoint| (own, endpoint)));
        let waits = all().find(|(_, endpoint)| endpoint.drain.is_some() && endpoint.state.verdict() != Verdict::Down);
        let undrain = waits.map(|(own, endpoint)| format!("`headgate undrain {}/{}`", own.spec.name, endpoint.name));
        let comes_up = all().any(|(_, endpoint)| !can_serve(endpoint, self.now) && endpoint.drain.is_none())
            || pools().any(|own| own.names.iter().any(|name| name.is_empty));
        let comes_up = comes_up.then(|| "an endpoint that comes up".to_owned());
        let told: Vec<String> = undrain.into_iter().chain(comes_up).collect();
        if told.is_empty() { "an endpoint that is up and has a weight".to_owned() } else { told.join(", or ") }
    }

    /// What would move traffic.
    fn next(&self, calm_since: Option<Instant>) -> String {
        let held = self.hold.held;
        if self.nobody {
            return self.rescue();
        }
        if held == PRIMARIES {
            return match self.pool.has_stages {
                false => "nothing: there is no backup and no failover pool".to_owned(),
                true => format!("no usable primary: then {}", self.after_primaries()),
            };
        }
        let name = self.name(PRIMARIES);
        if self.sights.iter().take(held).all(|sight| !sight.usable) {
            return format!("a usable endpoint of {name}");
        }
        if self.sights.iter().take(held).all(|sight| !sight.calm) {
            return "what came back has flapped: it must stay usable for longer first".to_owned();
        }
        let stayed = calm_since.map_or(Duration::ZERO, |since| self.now.saturating_duration_since(since)).as_secs();
        match self.pool.spec.failback {
            Failback::AtOnce => "the next look".to_owned(),
            Failback::AfterStable(time) => {
                format!("{name} usable for {}; it is {stayed}s so far", humantime::format_duration(time))
            }
            Failback::Ramp(time) => format!("the ramp over {}; {stayed}s are over", humantime::format_duration(time)),
            Failback::Manual => format!("`headgate failback {}`", self.pool.spec.name),
        }
    }

    fn after_primaries(&self) -> String {
        let has_backup = self.pool.endpoints.iter().any(|endpoint| endpoint.spec.backup);
        let backups = has_backup.then(|| self.name(BACKUPS));
        let others = self.names.iter().skip(BACKUPS + 1).cloned();
        backups.into_iter().chain(others).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse_text;
    use crate::snapshot::Carried;

    fn snapshot(more: &str) -> Snapshot {
        let text = format!("config_version = 1\nlisteners.a.address = \"127.0.0.1:0\"\n{more}");
        let (config, _) = parse_text("t.toml", &text, &|_| None).unwrap_or_else(|faults| panic!("{faults:#?}"));
        Snapshot::build(1, Arc::new(config), &Carried::new()).unwrap()
    }

    fn pool<'s>(snapshot: &'s Snapshot, name: &str) -> &'s Pool {
        snapshot.pools.iter().find(|pool| *pool.spec.name == *name).unwrap()
    }

    fn told(snapshot: &Snapshot, name: &str) -> (String, String) {
        look(snapshot, false, clock::now());
        let traffic = pool(snapshot, name).state.traffic();
        (traffic.why, traffic.next)
    }

    fn both(why: &str, next: &str) -> (String, String) {
        (why.to_owned(), next.to_owned())
    }

    const SPLIT: &str = "routes.r.split = { read = \"a\", write = \"w\" }\n\
        pools.a.endpoints = [{ address = \"127.0.0.1:1\", drain = true }]\n\
        pools.w.endpoints = [\"127.0.0.1:2\"]\npools.w.max_requests = 8\n";

    #[test]
    fn a_pool_that_serves_nobody_says_so_and_what_would_end_it() {
        let snapshot = snapshot(SPLIT);
        let undrain = "`headgate undrain a/127.0.0.1:1`";
        let why =
            "no endpoint is usable, so its reads go to `w`, up to half of its max_requests: 127.0.0.1:1 is draining";
        assert_eq!(told(&snapshot, "a"), both(why, undrain));
        let write = &pool(&snapshot, "w").endpoints[0].state;
        write.set_verdict(Verdict::Down);
        let why = "no endpoint is usable, so its requests get 503: 127.0.0.1:1 is draining";
        assert_eq!(told(&snapshot, "a"), both(why, undrain));
        let why = "no endpoint is usable, so its requests get 503: 127.0.0.1:2 is down";
        assert_eq!(told(&snapshot, "w"), both(why, "an endpoint that comes up"));
        write.set_verdict(Verdict::Up);
        let next = "nothing: there is no backup and no failover pool";
        assert_eq!(told(&snapshot, "w"), both("it belongs there", next));
    }

    #[test]
    fn reads_that_may_not_overflow_get_503_and_a_pool_that_takes_over_is_named() {
        let failing = SPLIT.replace("write = \"w\" }", "write = \"w\", when_reads_down = \"fail\" }");
        let chained = format!("{failing}pools.a.failover = [\"b\"]\npools.b.endpoints = [\"127.0.0.1:3\"]\n");
        let shared = format!("{SPLIT}routes.s.pool = \"a\"\nroutes.s.match.host = \"s.test\"\n");
        for (text, says) in [
            (failing, "its requests get 503"),
            (chained, "`b` takes over"),
            (shared, "its reads go to `w`, up to half of its max_requests; its other requests get 503"),
        ] {
            let snapshot = snapshot(&text);
            assert_eq!(instead(&snapshot, pool(&snapshot, "a"), clock::now()), says);
        }
    }

    #[test]
    fn a_primary_that_is_back_was_down_and_the_command_that_sends_traffic_back_is_named() {
        let snapshot = snapshot(
            "routes.r.pool = \"a\"\n[pools.a]\nfailback = \"manual\"\nendpoints = [\"127.0.0.1:1\", { address = \
             \"127.0.0.1:2\", backup = true }]\n",
        );
        let primary = &pool(&snapshot, "a").endpoints[0].state;
        primary.set_verdict(Verdict::Down);
        assert_eq!(told(&snapshot, "a"), both("127.0.0.1:1 is down", "a usable endpoint of primaries"));
        primary.set_verdict(Verdict::Up);
        let now = both("127.0.0.1:1 was down when traffic left", "`headgate failback a`");
        assert_eq!(told(&snapshot, "a"), now);
        assert_eq!(told(&snapshot, "a"), now, "at the next look as well");
    }
}
