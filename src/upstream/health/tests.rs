//! Judge and schedule together, in virtual time.

use std::time::Duration;

use proptest::prelude::*;

use super::judge::{Judge, LONGEST_HOLD};
use super::schedule::pause;
use crate::base::clock;
use crate::base::random::Seed;
use crate::config::model::{HealthCheck, HealthProbe, ProbeKind, TcpProbe};
use crate::upstream::endpoint::Verdict;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn check(rise: u32, fall: u32, [interval, interval_in_doubt, interval_down]: [u64; 3]) -> HealthCheck {
    HealthCheck {
        probe: HealthProbe { port: None, kind: ProbeKind::Tcp(TcpProbe::default()) },
        interval: Duration::from_millis(interval),
        interval_in_doubt: Duration::from_millis(interval_in_doubt),
        interval_down: Duration::from_millis(interval_down),
        timeout: Duration::from_millis(500),
        rise,
        fall,
    }
}

/// What the config makes of `health.tcp = {}`.
fn as_by_default() -> HealthCheck {
    check(2, 2, [1000, 500, 1000])
}

#[derive(Default)]
struct Course {
    /// When each probe began, and what it said.
    probes: Vec<(Duration, bool)>,
    /// When each change came.
    changes: Vec<(Duration, Verdict)>,
}

/// Probes until `end` an endpoint that is up when `is_up` says so; a probe that fails takes `hang`.
fn course(
    check: &HealthCheck,
    end: Duration,
    seed: u64,
    hang: Duration,
    mut is_up: impl FnMut(Duration) -> bool,
) -> Course {
    let (start, mut judge, mut course, mut at) =
        (clock::now(), Judge::new(Verdict::Unknown), Course::default(), Duration::ZERO);
    while at < end {
        let healthy = is_up(at);
        let took = if healthy { Duration::from_millis(1) } else { hang };
        course.probes.push((at, healthy));
        let turned = judge.observe(healthy, check, start + at + took);
        course.changes.extend(turned.map(|verdict| (at + took, verdict)));
        at += pause(check, &judge, false, Seed(seed ^ (course.probes.len() as u64) << 32)).max(took);
    }
    course
}

/// Up and down in turns of any length: blinks, outages, and long quiet times.
fn flapping(seed: u64) -> impl FnMut(Duration) -> bool {
    let (mut up, mut until, mut turn) = (true, Duration::ZERO, 0);
    move |at| {
        while until <= at {
            turn += 1;
            let [shortest, longest] =
                [[20, 500], [200, 2_000], [1_000, 10_000], [5_000, 600_000]][Seed(seed).below(turn * 2, 4) as usize];
            until += Duration::from_millis(shortest + Seed(seed).below(turn * 2 + 1, longest - shortest));
            up = !up;
        }
        up
    }
}

/// F14, as long as it likes. Each change is one line in the log.
fn assert_calm(check: &HealthCheck, seed: u64, is_up: impl FnMut(Duration) -> bool, end: Duration) -> usize {
    let course = course(check, end, seed, Duration::from_millis(1), is_up);
    let round = (check.interval * 2 * (check.fall + check.rise)).min(LONGEST_HOLD);
    let most = 2.0 * end.as_secs_f64() / round.as_secs_f64() + 3.0;
    assert!(course.changes.len() as f64 <= most, "seed {seed}: {} changes, {most} allowed", course.changes.len());
    // The first time up is not a return.
    let returns: Vec<_> =
        course.changes.iter().skip(1).filter(|change| change.1 == Verdict::Up).map(|change| change.0).collect();
    for pair in returns.windows(2) {
        assert!(pair[1] - pair[0] >= round, "seed {seed}: returned at {:?} and at {:?}", pair[0], pair[1]);
    }
    course.changes.len()
}

#[test]
fn a_day_of_flapping_changes_the_verdict_seldom() {
    for seed in 0..6 {
        let changes = assert_calm(&as_by_default(), seed, flapping(seed), DAY);
        assert!(changes > 100, "seed {seed}: {changes} changes are no flapping");
    }
    // Up 1 s, down 1 s for 5 minutes; probed fast, so that each second is seen.
    let blinking = |at: Duration| at.as_secs().is_multiple_of(2);
    for seed in 0..20 {
        let changes = assert_calm(&check(2, 2, [1000, 100, 100]), seed, blinking, DAY / 288);
        assert!(changes > 10, "seed {seed}: {changes}");
    }
}

#[test]
fn verdicts_turn_after_rise_and_fall() {
    let (now, check) = (clock::now(), check(2, 3, [1000, 500, 1000]));
    let mut judge = Judge::new(Verdict::Unknown);
    assert_eq!(judge.observe(true, &check, now), Some(Verdict::Up));
    let results = [false, false, true, false, false, false, true, false, true, true];
    let turned: Vec<_> = results.iter().map(|&healthy| judge.observe(healthy, &check, now)).collect();
    assert_eq!(turned[5], Some(Verdict::Down));
    assert_eq!(turned[9], Some(Verdict::Up));
    assert_eq!(turned.iter().flatten().count(), 2);
}

#[test]
fn the_first_result_decides_an_unknown_endpoint() {
    let check = check(3, 3, [1000, 500, 1000]);
    for (healthy, verdict) in [(true, Verdict::Up), (false, Verdict::Down)] {
        assert_eq!(Judge::new(Verdict::Unknown).observe(healthy, &check, clock::now()), Some(verdict));
    }
}

#[test]
fn who_falls_soon_after_a_return_waits_for_the_next_one() {
    let (mut now, check) = (clock::now(), as_by_default());
    let mut judge = Judge::new(Verdict::Up);
    let mut probe = |healthy, after| {
        now += Duration::from_secs(after);
        (judge.observe(healthy, &check, now), judge.held_for(&check, now).map(|left| left.as_secs()))
    };
    assert_eq!([probe(false, 1), probe(false, 1)], [(None, None), (Some(Verdict::Down), None)]);
    assert_eq!([probe(true, 1), probe(true, 1)], [(None, None), (Some(Verdict::Up), None)], "the first is not held");
    assert_eq!([probe(false, 1), probe(false, 1)], [(None, None), (Some(Verdict::Down), Some(6))]);
    assert_eq!([probe(true, 1), probe(true, 1), probe(true, 3)], [(None, Some(5)), (None, Some(4)), (None, Some(1))]);
    assert_eq!(probe(true, 1), (Some(Verdict::Up), None));
}

#[test]
fn probes_are_seldom_in_peace_and_frequent_in_doubt() {
    let check = check(2, 2, [1000, 100, 5000]);
    let rest = |judge: &Judge, suspected| pause(&check, judge, suspected, Seed(1)).as_millis();
    let observed = |from, healthy| {
        let mut judge = Judge::new(from);
        judge.observe(healthy, &check, clock::now());
        judge
    };
    let quiet = [observed(Verdict::Up, true), observed(Verdict::Down, false)];
    let [up, down] = quiet.map(|judge| rest(&judge, false));
    assert!((900..=1000).contains(&up) && (4500..=5000).contains(&down), "{up} and {down}");
    for judge in [observed(Verdict::Up, false), observed(Verdict::Down, true), Judge::new(Verdict::Unknown)] {
        assert!((90..=100).contains(&rest(&judge, false)), "{judge:?}");
    }
    assert!((90..=100).contains(&rest(&observed(Verdict::Up, true), true)), "a worker suspects it");
}

proptest! {
    /// An outage is seen within an interval, and decided within `fall` fast ones, or as many timeouts.
    #[test]
    fn a_fall_is_decided_in_time(
        seed in any::<u64>(), fall in 1_u32..=100, interval in 10_u64..5000, share in 1_u64..=100,
        hang in 1_u64..=500, fails_at in 0_u64..20_000,
    ) {
        let check = check(2, fall, [interval, (interval * share / 100).max(10), interval]);
        let (fails_at, hang) = (Duration::from_millis(fails_at), Duration::from_millis(hang));
        let end = fails_at + check.interval * (fall + 2) + hang * fall + Duration::from_secs(1);
        let course = course(&check, end, seed, hang, |at| at < fails_at);
        let (first, _) = *course.probes.iter().find(|(_, healthy)| !healthy).unwrap();
        prop_assert!(first <= fails_at + check.interval, "seen at {first:?}");
        let decided = course.changes.iter().find(|(_, verdict)| *verdict == Verdict::Down);
        let within = check.interval_in_doubt.max(hang) * fall;
        prop_assert!(decided.is_some_and(|(at, _)| *at <= first + within), "{decided:?}, seen at {first:?}");
        // Never before there were as many failures as that.
        let failures = course.probes.iter().filter(|(at, healthy)| !healthy && *at < decided.unwrap().0).count();
        let needed = if fails_at.is_zero() { 1 } else { fall as usize };
        prop_assert!(failures >= needed, "{failures} of {needed}");
    }

    /// The rest is the one that is configured, less at most a tenth.
    #[test]
    fn jitter_only_shortens(seed in any::<u64>(), intervals in [10_u64..100_000, 10..100_000, 10..100_000]) {
        let check = check(2, 2, intervals);
        for (verdict, suspected, whole) in [
            (Verdict::Up, false, check.interval),
            (Verdict::Up, true, check.interval_in_doubt),
            (Verdict::Unknown, false, check.interval_in_doubt),
            (Verdict::Down, false, check.interval_down),
        ] {
            let rest = pause(&check, &Judge::new(verdict), suspected, Seed(seed));
            prop_assert!(rest <= whole && rest >= whole.mul_f64(0.9), "{rest:?} of {whole:?}");
        }
    }

    #[test]
    fn any_flapping_is_calmed(
        seed in any::<u64>(), rise in 1_u32..6, fall in 1_u32..6, interval in 100_u64..3000, share in 1_u64..=100,
    ) {
        let check = check(rise, fall, [interval, (interval * share / 100).max(10), interval]);
        assert_calm(&check, seed, flapping(seed), DAY / 24);
    }
}
