//! A day of flapping in seconds: the real pool, pick, lessons and looks in virtual time, beside what must hold of them.
//!
//! `HEADGATE_SEED=n cargo test simulation` tells a day again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::base::clock;
use crate::base::id::{EndpointIndex, PoolIndex};
use crate::base::random::Seed;
use crate::base::reason::Reason;
use crate::config::load::parse_text;
use crate::control::traffic::look;
use crate::snapshot::{Carried, Snapshot};
use crate::upstream::balance::{PickRequest, pick};
use crate::upstream::endpoint::{Standing, Verdict};
use crate::upstream::failback::BACKUPS;
use crate::upstream::lesson::Lesson;
use crate::upstream::pool::Pool;
use crate::upstream::retry::Progress;

/// What an endpoint does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Good,
    /// It passes its checks and answers 503.
    Broken,
    /// It refuses connections, and its checks see it after a second.
    Dead,
}

struct World {
    seed: u64,
    draws: u64,
    snapshot: Snapshot,
    now: Instant,
    truths: Vec<(Truth, Instant)>,
}

/// A request's end: the endpoint that had it last, on trial or not, and whether it was answered well.
struct Served {
    by: usize,
    on_trial: bool,
    is_good: bool,
}

impl World {
    fn new(pool: &str) -> Self {
        let seed = std::env::var("HEADGATE_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        println!("HEADGATE_SEED={seed}");
        let text = format!(
            "config_version = 1\nlisteners.a.address = \"127.0.0.1:0\"\nroutes.r.pool = \"app\"\n[pools.app]\n\
             health.tcp = {{}}\n{pool}"
        );
        let (config, _) = parse_text("t.toml", &text, &|_| None).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let snapshot = Snapshot::build(1, Arc::new(config), &Carried::new()).unwrap();
        let now = clock::now();
        let truths = vec![(Truth::Good, now); snapshot.pools[0].endpoints.len()];
        for endpoint in &snapshot.pools[0].endpoints {
            endpoint.state.set_verdict(Verdict::Up);
        }
        Self { seed, draws: 0, snapshot, now, truths }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.draws += 1;
        Seed(self.seed).below(self.draws, below)
    }

    fn pool(&self) -> &Pool {
        self.snapshot.pool(PoolIndex(0))
    }

    fn set(&mut self, at: usize, truth: Truth) {
        if self.truths[at].0 != truth {
            self.truths[at] = (truth, self.now);
        }
    }

    fn standing(&self, at: usize) -> Standing {
        self.pool().endpoints[at].state.standing(self.now)
    }

    /// Time goes on; a quarter of a second at most, as the control plane looks.
    fn pass(&mut self, time: Duration, turn: u64) {
        self.now += time;
        // Active checks: what changed is seen after a second.
        for (endpoint, (truth, since)) in self.pool().endpoints.iter().zip(&self.truths) {
            let verdict = if *truth == Truth::Dead { Verdict::Down } else { Verdict::Up };
            if self.now - *since >= Duration::from_secs(1) && endpoint.state.verdict() != verdict {
                endpoint.state.set_verdict(verdict);
            }
        }
        look(&self.snapshot, turn.is_multiple_of(4), self.now);
    }

    /// One request of at most three attempts, as the data plane makes them.
    fn request(&mut self) -> Option<Served> {
        let mut tried: Vec<EndpointIndex> = Vec::new();
        let mut last = None;
        for _ in 0..3 {
            let seed = Seed(self.draw(u64::MAX));
            let pool = self.pool();
            let trial = pool.is_trial_due(self.now).then(|| pool.take_trial(&tried, self.now)).flatten();
            let request = PickRequest {
                balance: &pool.spec.balance,
                sticky: None,
                tried: &tried,
                max_requests: None,
                key: 0,
                backups_first: pool.state.begin(|| seed.number(5)) == BACKUPS,
                now: self.now,
                seed,
            };
            let Some(index) = trial.or_else(|| pick(pool, &request).ok()) else { break };
            let endpoint = &pool.endpoints[index.at()];
            let stage = usize::from(endpoint.spec.backup);
            if stage > pool.state.held() && self.snapshot.is_lost(PoolIndex(0), stage, self.now) {
                pool.state.raise(stage);
            }
            endpoint.state.begin_request(None);
            let truth = self.truths[index.at()].0;
            let lesson = match truth {
                Truth::Good => Lesson::Answered { status: StatusCode::OK, after: Duration::ZERO },
                Truth::Broken => Lesson::Answered { status: StatusCode::SERVICE_UNAVAILABLE, after: Duration::ZERO },
                Truth::Dead => Lesson::Failed {
                    reason: Reason::ConnectRefused,
                    progress: Progress::NothingSent,
                    detail: &"refused",
                },
            };
            pool.learn(endpoint, lesson, self.now, || self.now);
            endpoint.state.end_request();
            let is_good = truth == Truth::Good;
            last = Some(Served { by: index.at(), on_trial: trial.is_some(), is_good });
            // What came is passed on, be it good or not.
            if truth != Truth::Dead {
                break;
            }
            tried.push(index);
        }
        last
    }
}

/// Endpoints that break, die and come back at random, for a day.
#[test]
fn a_day_of_flapping_ejects_within_its_limits() {
    let mut world = World::new("endpoints = [\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\", \"127.0.0.1:4\"]");
    let rule = world.pool().spec.ejection.unwrap();
    let (day, mut passed, mut turn) = (Duration::from_secs(24 * 3600), Duration::ZERO, 0);
    let (mut requests, mut bad, mut ejections) = (0_u64, 0_u64, 0_u64);
    // How many would be bad where nobody is ejected: who is dead is tried, and passed over.
    let mut blind = 0.0;
    while passed < day {
        // Something changes every minute or so, and quickly goes to and fro at times.
        if world.draw(240) == 0 || (turn / 2400 % 10 == 3 && world.draw(4) == 0) {
            let (at, truth) = (world.draw(4) as usize, world.draw(5));
            world.set(at, [Truth::Good, Truth::Good, Truth::Good, Truth::Broken, Truth::Dead][truth as usize]);
        }
        for _ in 0..world.draw(4) {
            let free = (0..4).any(|at| world.standing(at) == Standing::Usable && world.truths[at].0 == Truth::Good);
            let ejected: Vec<_> = (0..4).map(|at| world.standing(at) == Standing::Ejected).collect();
            requests += 1;
            let count = |which| world.truths.iter().filter(|(truth, _)| *truth == which).count() as f64;
            let (good, broken) = (count(Truth::Good), count(Truth::Broken));
            blind += broken / (good + broken).max(1.0);
            let Some(served) = world.request() else {
                let out = |at: usize| world.pool().pickable(&world.pool().endpoints[at], world.now) == Standing::Out;
                assert!((0..4).all(out), "nobody was tried");
                continue;
            };
            bad += u64::from(!served.is_good);
            assert!(served.on_trial || !ejected[served.by] || !free, "an ejected endpoint serves beside a usable one");
            let out = (0..4).filter(|&at| world.pool().endpoints[at].state.passive.is_ejected(world.now)).count();
            assert!(out <= rule.most(4), "{out} are out");
        }
        let step = Duration::from_millis(250);
        world.pass(step, turn);
        (passed, turn) = (passed + step, turn + 1);
    }
    for endpoint in &world.pool().endpoints {
        ejections += endpoint.state.passive.ejections();
    }
    println!("{requests} requests, {bad} bad, {blind:.0} without ejection, {ejections} ejections");
    assert!(ejections > 20, "{ejections}");
    // 0.31 with a deviation of 0.03, over 100 days.
    assert!((bad as f64) < 0.5 * blind, "{bad} of {blind:.0} that would be");
    // All are well: every one comes back, within the longest ejection and a trial.
    (0..4).for_each(|at| world.set(at, Truth::Good));
    for turn in 0..4 * 330 {
        world.pass(Duration::from_millis(250), turn);
        world.request();
    }
    assert!((0..4).all(|at| world.standing(at) == Standing::Usable), "all are in again");
}

/// Runs a pool of a primary that flaps and a backup that does not. Tells how often traffic went back, and checks each time.
fn day_of_failback(failback: &str, seconds: u64, mut may_go_back: impl FnMut(Duration, Duration)) -> u64 {
    let mut world = World::new(&format!(
        "endpoints = [\"127.0.0.1:1\", {{ address = \"127.0.0.1:2\", backup = true }}]\nfailback = {failback}"
    ));
    let (mut moves, mut usable_since, mut left) = (0, None, world.now);
    let mut flap_until = world.now;
    for turn in 0..seconds * 4 {
        if turn > 40 && world.draw(4800) == 0 {
            flap_until = world.now + Duration::from_secs(60 + world.draw(240));
        }
        // Up a second, down a second and more, for minutes; then up for long.
        let truth = if world.now < flap_until && turn % 16 < 8 { Truth::Dead } else { Truth::Good };
        world.set(0, truth);
        for _ in 0..2 {
            let before = world.pool().state.held();
            let served = world.request().expect("the backup is always there");
            assert!(served.is_good, "a request failed at the flapping primary");
            if before == BACKUPS && world.pool().state.traffic().ramp_percent.is_none() {
                assert_eq!(served.by, 1, "traffic is held at the backup");
            }
        }
        let held = world.pool().state.held();
        let was_usable = world.standing(0) == Standing::Usable;
        usable_since = if was_usable { usable_since.or(Some(world.now)) } else { None };
        world.pass(Duration::from_millis(250), turn);
        let now_held = world.pool().state.held();
        if held == BACKUPS && now_held != BACKUPS {
            moves += 1;
            let stayed = usable_since.map_or(Duration::ZERO, |since| world.now - since);
            may_go_back(stayed, world.now - left);
        }
        if held != BACKUPS {
            left = world.now;
        }
    }
    moves
}

#[test]
fn after_stable_never_goes_back_early() {
    let stable = Duration::from_secs(120);
    let slack = Duration::from_millis(500);
    let moves = day_of_failback("{ after_stable = \"2m\" }", 24 * 3600, |stayed, _| {
        assert!(stayed + slack >= stable, "back after {stayed:?}");
    });
    assert!(moves > 5, "{moves} moves");
}

#[test]
fn at_once_is_damped_while_it_flaps() {
    let mut quick = 0;
    let moves = day_of_failback("\"at-once\"", 24 * 3600, |_, away| quick += u64::from(away < Duration::from_secs(5)));
    // 72 spells of 3.5 minutes on the average, in each of which it comes back some fifty times.
    println!("{moves} moves, {quick} of them within 5 s");
    assert!(moves > 50 && moves < 1200, "{moves} moves");
}

#[test]
fn a_ramp_takes_its_time() {
    let time = Duration::from_secs(60);
    let moves = day_of_failback("{ ramp = \"1m\" }", 24 * 3600, |stayed, _| {
        assert!(stayed + Duration::from_millis(500) >= time, "the ramp was over after {stayed:?}");
    });
    assert!(moves > 5, "{moves} moves");
}

#[test]
fn a_ramps_share_grows_evenly() {
    let mut world = World::new(
        "endpoints = [\"127.0.0.1:1\", { address = \"127.0.0.1:2\", backup = true }]\nfailback = { ramp = \"100s\" }",
    );
    world.set(0, Truth::Dead);
    for turn in 0..20 {
        world.request();
        world.pass(Duration::from_millis(250), turn);
    }
    world.set(0, Truth::Good);
    let mut shares = Vec::new();
    for turn in 0..110 * 4 {
        world.pass(Duration::from_millis(250), turn);
        let at_primary = (0..50).filter(|_| world.request().is_some_and(|served| served.by == 0)).count();
        shares.push(at_primary as f64 / 50.0);
    }
    let mean = |from: usize| shares[from * 4..from * 4 + 40].iter().sum::<f64>() / 40.0;
    for (from, share) in [(1, 0.05), (21, 0.25), (46, 0.5), (71, 0.75)] {
        assert!((mean(from) - share).abs() < 0.06, "{share} is {} from second {from}", mean(from));
    }
    assert!(shares[104 * 4..].iter().all(|share| *share == 1.0), "it has ended");
}
