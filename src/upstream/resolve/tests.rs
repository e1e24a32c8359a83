use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::source::Source;
use crate::base::units::Weight;
use crate::config::model::EndpointSpec;

const TTL: Duration = Duration::from_secs(30);
const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SIX: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 6);

fn some<T>(records: impl Into<Vec<T>>) -> Lookup<T> {
    Ok((records.into(), TTL))
}

fn none<T>() -> Lookup<T> {
    Err(LookupFault::NoRecords)
}

fn source(text: &str) -> Source {
    text.parse().unwrap()
}

fn entry(text: &str, weight: u16) -> EndpointSpec<Source> {
    EndpointSpec { address: source(text), weight: Weight(weight), backup: false, drain: false }
}

/// (address, weight, backup) of what an entry comes to.
fn expanded(entry: &EndpointSpec<Source>, known: &Known) -> Vec<(String, u32, bool)> {
    let endpoints = endpoints(entry, &known.targets);
    endpoints.into_iter().map(|one| (one.address.to_string(), one.weight.value(), one.backup)).collect()
}

fn key(name: &str, port: u16) -> (Arc<str>, u16) {
    (name.into(), port)
}

#[test]
fn each_address_of_a_host_is_an_endpoint_with_the_entrys_weight() {
    let (mut known, entry) = (Known::default(), entry("app.internal.:80", 3));
    let learned = known.hosts.entry(key("app.internal.", 80)).or_default().learn(some([TWO, ONE, TWO]), none());
    assert_eq!(learned, Learned { ttl: Some(TTL), fault: None });
    assert!(known.close(&entry.address, learned, 7).moved);
    assert_eq!(expanded(&entry, &known), [("10.0.0.1:80".into(), 3, false), ("10.0.0.2:80".into(), 3, false)]);
    assert_eq!(&*known.targets[0].host, "app.internal", "a certificate has no dot at its end");
    // The order that servers turn with each answer is no change.
    let learned = known.hosts.entry(key("app.internal.", 80)).or_default().learn(some([ONE, TWO]), none());
    assert_eq!(known.close(&entry.address, learned, 8), News { moved: false, turned: false });
}

#[test]
fn a_failed_look_up_takes_nothing_away() {
    let (mut known, app) = (Known::default(), source("app:80"));
    let learn = |known: &mut Known, v4, v6| {
        let learned = known.hosts.entry(key("app", 80)).or_default().learn(v4, v6);
        known.close(&app, learned, 1)
    };
    assert_eq!(learn(&mut known, Err(LookupFault::Timeout), none()), News { moved: false, turned: true });
    assert!(known.targets.is_empty() && known.fault == Some(LookupFault::Timeout));
    assert_eq!(learn(&mut known, some([ONE]), none()), News { moved: true, turned: true });
    let good = known.targets.clone();
    for (v4, v6, fault) in [
        (Err(LookupFault::Timeout), Err(LookupFault::Timeout), LookupFault::Timeout),
        (Err(LookupFault::ServerFailure), none(), LookupFault::ServerFailure),
        (none(), Err(LookupFault::ServerFailure), LookupFault::ServerFailure),
        (none(), none(), LookupFault::NoRecords),
        (Err(LookupFault::NoSuchName), Err(LookupFault::NoSuchName), LookupFault::NoSuchName),
    ] {
        let news = learn(&mut known, v4, v6);
        assert_eq!((news.moved, known.fault, &known.targets), (false, Some(fault), &good));
    }
    assert_eq!((known.failures, known.failed.values().sum::<u64>()), (5, 6));
    assert_eq!(learn(&mut known, some([TWO]), none()), News { moved: true, turned: true });
    assert_eq!((known.failures, known.fault), (0, None));
}

#[test]
fn of_two_families_one_is_used_and_each_keeps_its_last_good_answer() {
    let mut host = Host::default();
    host.learn(some([ONE]), some([SIX]));
    assert!(host.is_dual());
    assert_eq!(host.addresses(), [SIX], "IPv6 until the race has said otherwise");
    host.family = Some(Family::V4);
    assert_eq!(host.addresses(), [ONE]);
    let learned = host.learn(some([TWO]), Err(LookupFault::Timeout));
    assert_eq!(learned, Learned { ttl: Some(TTL), fault: Some(LookupFault::Timeout) });
    assert_eq!((host.of(Family::V6), host.addresses()), (vec![SIX.into()], vec![TWO.into()]));
    // The A records are gone and the AAAA records are not: that is believed.
    host.learn(none(), some([SIX]));
    assert_eq!(host.addresses(), [SIX]);
}

#[test]
fn srv_records_bring_ports_weights_and_backups() {
    let (mut known, entry) = (Known::default(), entry("srv:_http._tcp.app", 1));
    let record = |priority, weight, port, target: &str| Service { priority, weight, port, target: target.into() };
    let records = [
        record(20, 5, 7003, "c."),
        record(10, 0, 7001, "a."),
        record(10, 40, 7002, "b."),
        record(10, 1, 7009, "gone."),
    ];
    let learned = known.learn_services(some(records));
    for (name, port, address) in [("a.", 7001, ONE), ("b.", 7002, ONE), ("c.", 7003, TWO)] {
        known.hosts.entry(key(name, port)).or_default().learn(some([address]), none());
    }
    known.hosts.entry(key("gone.", 7009)).or_default().learn(none(), none());
    known.close(&entry.address, learned, 1);
    let told = |known: &Known| expanded(&entry, known);
    assert_eq!(
        told(&known),
        [("10.0.0.1:7001".into(), 1, false), ("10.0.0.1:7002".into(), 40, false), ("10.0.0.2:7003".into(), 5, true)]
    );
    assert_eq!(&*known.targets[0].host, "a");
    // RFC 2782: the target `.` says that there is no such service. The last good answer goes on.
    let learned = known.learn_services(some([record(0, 0, 0, ".")]));
    assert_eq!(learned.fault, Some(LookupFault::NoRecords));
    known.close(&entry.address, learned, 2);
    assert_eq!(told(&known).len(), 3);
    // Only the second priority can be found: then it is the first.
    let learned = known.learn_services(some([record(20, 5, 7003, "c."), record(10, 1, 7009, "gone.")]));
    known.close(&entry.address, learned, 3);
    assert_eq!(told(&known), [("10.0.0.2:7003".into(), 5, false)]);
    assert_eq!(known.hosts.len(), 2, "hosts that no record names are forgotten");
}

#[test]
fn a_ttl_has_a_floor_and_a_ceiling_and_failures_wait_longer_each_time() {
    let good = |seconds| Learned { ttl: Some(Duration::from_secs(seconds)), fault: None };
    let failed = |ttl: Option<u64>| Learned { ttl: ttl.map(Duration::from_secs), fault: Some(LookupFault::Timeout) };
    let seconds = |learned, failures| until_next(learned, failures, 0.0).as_secs();
    assert_eq!([good(0), good(30), good(86_400)].map(|learned| seconds(learned, 0)), [1, 30, 300]);
    assert_eq!([1, 2, 3, 4, 5, 6, 100].map(|failures| seconds(failed(None), failures)), [1, 2, 4, 8, 15, 15, 15]);
    // One family fails for ever: the other one's TTL holds.
    assert_eq!((seconds(failed(Some(3)), 100), seconds(failed(Some(300)), 100)), (3, 15));
    assert_eq!(until_next(good(10), 0, 1.0), Duration::from_secs(11));
}

/// F21 and F23 in virtual time: a day of a name that moves now and then, and of name servers that are dead now and
/// then, each time for up to ten minutes.
#[test]
fn a_day_of_outages_and_moves_is_lived_through() {
    for seed in 1..=20 {
        day(seed);
    }
}

fn day(seed: u64) {
    const TTL: Duration = Duration::from_secs(5);
    let mut dice = fastrand::Rng::with_seed(seed);
    let minute = |n: u64| Duration::from_secs(60 * n);
    // (from, to) of each outage, and (from, address) of each move.
    let mut outages = Vec::new();
    let mut at = minute(5);
    while at < minute(24 * 60) {
        let end = at + Duration::from_secs(dice.u64(1..=600));
        outages.push((at, end));
        at = end + Duration::from_secs(dice.u64(60..3600));
    }
    let mut moves = vec![(Duration::ZERO, Ipv4Addr::new(10, 0, 0, 0))];
    while moves[moves.len() - 1].0 < minute(24 * 60) {
        let after = moves[moves.len() - 1].0 + Duration::from_secs(dice.u64(1..1800));
        moves.push((after, Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + moves.len() as u32)));
    }
    let truth = |at: Duration| moves[moves.partition_point(|(from, _)| *from <= at) - 1].1;
    let outage = |at: Duration| outages.iter().any(|(from, to)| (*from..*to).contains(&at));
    let ends = |before: Duration| outages.iter().map(|(_, to)| *to).rfind(|to| *to <= before).unwrap_or_default();

    let (app, mut known, mut now) = (source("app:80"), Known::default(), Duration::ZERO);
    let (mut failures, mut last_good, mut was_dead) = (0_u64, Duration::ZERO, false);
    while now < minute(24 * 60) {
        let is_dead = outage(now);
        let v4 = if is_dead { Err(LookupFault::Timeout) } else { Ok((vec![truth(now)], TTL)) };
        let v6 = if is_dead { Err(LookupFault::Timeout) } else { none() };
        let learned = known.hosts.entry(key("app", 80)).or_default().learn(v4, v6);
        known.close(&app, learned, 1);
        failures += u64::from(is_dead);
        if !is_dead {
            // A move is followed within a TTL and its jitter; the first one after an outage, within a wait for a retry.
            let (since, most) = match was_dead {
                true => (ends(now), LONGEST_RETRY),
                false => (last_good, TTL),
            };
            assert!(now - since <= most.mul_f64(1.1), "seed {seed}: {:?} late at {now:?}", now - since);
            last_good = now;
        }
        was_dead = is_dead;
        let told: Vec<String> = known.targets.iter().map(|target| target.address.ip().to_string()).collect();
        assert_eq!(told, [truth(last_good).to_string()], "seed {seed} at {now:?}");
        now += until_next(learned, known.failures, dice.f64());
    }
    assert!(failures > 0 && known.failed[&LookupFault::Timeout] == failures, "seed {seed}");
    // A dead name server is not hammered: four looks in the first 15 s, then one in 15 s.
    let dead: u64 = outages.iter().map(|(from, to)| (*to - *from).as_secs() / 15 + 6).sum();
    assert!(failures <= dead, "seed {seed}: {failures} look-ups failed, and {dead} were to be");
}

proptest! {
    /// Whatever answers come: once there were addresses there are some for ever, in order, each once, and one family.
    #[test]
    fn a_name_that_was_known_stays_known(answers in proptest::collection::vec((0_u8..6, 0_u8..6, any::<bool>()), 1..40)) {
        let lookup = |kind: u8| match kind {
            0 => Err(LookupFault::Timeout),
            1 => Err(LookupFault::NoRecords),
            2 => Err(LookupFault::NoSuchName),
            many => Ok(((0..many - 2).rev().collect::<Vec<u8>>(), Duration::from_secs(many.into()))),
        };
        let (app, mut known, mut was_known) = (source("app:80"), Known::default(), false);
        for (v4, v6, is_v4) in answers {
            let v4 = lookup(v4).map(|(all, ttl)| (all.into_iter().map(|n| Ipv4Addr::from([10, 0, 0, n])).collect(), ttl));
            let v6 = lookup(v6).map(|(all, ttl)| (all.into_iter().map(|n| Ipv6Addr::from(u128::from(n) + 1)).collect(), ttl));
            let host = known.hosts.entry(key("app", 80)).or_default();
            let learned = host.learn(v4, v6);
            host.family = Some(if is_v4 { Family::V4 } else { Family::V6 });
            let before = known.targets.clone();
            let news = known.close(&app, learned, 1);
            prop_assert_eq!(news.moved, before != known.targets);
            was_known |= !known.targets.is_empty();
            prop_assert_eq!(was_known, !known.targets.is_empty());
            prop_assert!(known.targets.windows(2).all(|pair| pair[0].address < pair[1].address
                && pair[0].address.is_ipv4() == pair[1].address.is_ipv4()));
            prop_assert_eq!(known.fault.is_some(), known.failures > 0);
        }
    }
}
