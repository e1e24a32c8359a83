//! Looks at every pool a few times a second: who is out of line, whether too few are left, where traffic may go back to.
//!
//! The judgements are pure (`upstream::health::outlier`, `upstream::failback`); this loop feeds them what it sees and puts
//! into effect what they say. Nothing here is in a request's way: workers eject after errors in a row and go on to the
//! next stage by themselves.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::base::id::PoolIndex;
use crate::base::{clock, task};
use crate::config::model::{Ejection, Failback};
use crate::control::Handle;
use crate::snapshot::Snapshot;
use crate::snapshot::plane::Plane;
use crate::upstream::endpoint::Standing;
use crate::upstream::failback::{BACKUPS, Hold, PRIMARIES, Sight};
use crate::upstream::health::outlier::outliers;
use crate::upstream::pool::{Endpoint, Pool};
use crate::upstream::pool_state::{Notes, Traffic};

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
    let sights = sights(snapshot, pool, now);
    let below = is_below(pool, now);
    let low = below && !pool.chain.is_empty();
    // A backup that can serve is better than a primary that cannot.
    let panic = below && !low && !sights.get(BACKUPS).is_some_and(|sight| sight.usable);
    let was = rename(snapshot, pool, &mut notes);
    let released = state.take_release();
    let hold = match pool.has_stages {
        true => notes.keeper.step(spec.failback, &sights, was, released, now),
        false => Hold { held: PRIMARIES, target: PRIMARIES, share: 0.0 },
    };
    state.set(was, hold, panic, low);
    let view = View { pool, names: &notes.stages, sights: &sights, hold, now };
    let mut traffic = Traffic {
        active: view.name(hold.held),
        stage: hold.held,
        since_unix_ms: notes.traffic.since_unix_ms,
        why: notes.traffic.why.clone(),
        next: view.next(notes.keeper.calm_since(PRIMARIES)),
        ramp_percent: (hold.share > 0.0).then_some(hold.share * 100.0),
        panic,
        usable: pool.endpoints.iter().filter(|endpoint| can_serve(endpoint, now)).count(),
        ejected: pool.endpoints.iter().filter(|endpoint| endpoint.state.passive.is_ejected(now)).count(),
    };
    if traffic.active != notes.traffic.active {
        traffic.since_unix_ms = clock::unix_millis();
        traffic.why = view.why(notes.traffic.stage, released);
        if !notes.traffic.active.is_empty() {
            let (from, to, why) = (&notes.traffic.active, &traffic.active, &traffic.why);
            tracing::warn!(pool = %spec.name, "traffic goes from {from} to {to}: {why}");
        }
    }
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
    pool: &'a Pool,
    names: &'a [String],
    sights: &'a [Sight],
    hold: Hold,
    now: Instant,
}

impl View<'_> {
    fn name(&self, stage: usize) -> String {
        self.names.get(stage).cloned().unwrap_or_default()
    }

    /// Why traffic left the stage it was at.
    fn why(&self, before: usize, released: bool) -> String {
        if self.hold.held < before {
            let name = self.name(self.hold.held);
            return match self.pool.spec.failback {
                _ if released => "an operator sent it back".to_owned(),
                _ if !self.sights.get(before).is_some_and(|sight| sight.usable) => {
                    format!("{} can serve no more", self.name(before))
                }
                Failback::AtOnce => format!("{name} can serve again"),
                Failback::AfterStable(time) => format!("{name} could serve for {}", humantime::format_duration(time)),
                Failback::Ramp(time) => format!("the ramp of {} has ended", humantime::format_duration(time)),
                Failback::Manual => format!("{name} is where the config has it now"),
            };
        }
        if self.hold.held == PRIMARIES {
            return "it belongs there".to_owned();
        }
        let out = self.pool.endpoints.iter().filter(|endpoint| !can_serve(endpoint, self.now));
        let told: Vec<String> = out
            .take(MOST_NAMED)
            .map(|endpoint| {
                let newest = endpoint.state.evidence().pop().map(|evidence| format!(" ({})", evidence.detail));
                let state = match endpoint.standing(self.now) {
                    Standing::Out if endpoint.drain.is_some() => "draining",
                    Standing::Out => endpoint.state.verdict().as_str(),
                    Standing::Ejected => "ejected",
                    _ => "suspect",
                };
                format!("{} is {state}{}", endpoint.name, newest.unwrap_or_default())
            })
            .collect();
        if told.is_empty() { "requests could not be served there".to_owned() } else { told.join("; ") }
    }

    /// What would move traffic.
    fn next(&self, calm_since: Option<Instant>) -> String {
        let held = self.hold.held;
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
            Failback::Manual => "an operator".to_owned(),
        }
    }

    fn after_primaries(&self) -> String {
        let has_backup = self.pool.endpoints.iter().any(|endpoint| endpoint.spec.backup);
        let backups = has_backup.then(|| self.name(BACKUPS));
        let others = self.names.iter().skip(BACKUPS + 1).cloned();
        backups.into_iter().chain(others).collect::<Vec<_>>().join(", ")
    }
}
