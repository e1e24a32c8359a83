use std::cell::Cell;
use std::collections::HashMap;

use proptest::prelude::*;

use super::scan::{rendezvous, scan};
use super::*;
use crate::base::clock;
use crate::config::model::{BoundedLoad, HashKey, Hashing};

struct Fake {
    views: Vec<EndpointView>,
    wheels: [Wheel; 2],
    tables: [Maglev; 2],
    looks: Cell<u32>,
}

impl Fake {
    fn new(views: Vec<EndpointView>) -> Self {
        let wheel = |backup| {
            let of_kind = views.iter().enumerate().filter(|(_, view)| view.backup == backup);
            Wheel::new(of_kind.map(|(at, view)| (EndpointIndex(at as u32), view.weight)))
        };
        let table = |backup| {
            let of_kind = views.iter().enumerate().filter(|(_, view)| view.backup == backup);
            Maglev::new(of_kind.map(|(at, view)| (EndpointIndex(at as u32), view.weight, view.hash)))
        };
        let (wheels, tables) = ([wheel(false), wheel(true)], [table(false), table(true)]);
        Self { wheels, tables, views, looks: Cell::new(0) }
    }
}

impl Members for Fake {
    fn count(&self) -> u32 {
        self.views.len() as u32
    }
    fn wheel(&self, backup: bool) -> &Wheel {
        &self.wheels[usize::from(backup)]
    }
    fn table(&self, backup: bool) -> Option<&Maglev> {
        Some(&self.tables[usize::from(backup)])
    }
    fn view(&self, index: EndpointIndex, _: Instant) -> EndpointView {
        self.looks.set(self.looks.get() + 1);
        self.views[index.at()]
    }
}

fn view(weight: u16, standing: Standing, backup: bool) -> EndpointView {
    EndpointView {
        weight: Weight(weight),
        share: Share::WHOLE,
        backup,
        standing,
        in_flight: 0,
        latency: None,
        hash: fastrand::u64(..),
    }
}

fn ask(balance: &Balance, seed: u64) -> PickRequest<'_> {
    PickRequest {
        balance,
        sticky: None,
        tried: &[],
        max_requests: None,
        key: seed,
        backups_first: false,
        now: clock::now(),
        seed: Seed(seed),
    }
}

const HASH: Balance = Balance::Hash(Hashing { key: HashKey::ClientIp, bounded_load: BoundedLoad::DEFAULT });

const EVERY: [Balance; 6] =
    [Balance::PowerOfTwo, Balance::RoundRobin, Balance::LeastRequests, Balance::Random, Balance::PeakEwma, HASH];

/// What each of these got of 100,000 picks.
fn shares(pool: &Fake, balance: &Balance) -> Vec<f64> {
    let mut counts = vec![0_u32; pool.views.len()];
    for seed in 0..100_000 {
        let mut request = ask(balance, seed);
        request.key = Seed(seed).number(9);
        counts[pick(pool, &request).unwrap().at()] += 1;
    }
    counts.into_iter().map(|count| f64::from(count) / 100_000.0).collect()
}

/// All are idle, as most pools are at night: there the heaviest took everything of the two that count requests.
#[test]
fn shares_follow_weights_within_two_percent() {
    let pool = Fake::new(vec![
        view(1, Standing::Usable, false),
        view(2, Standing::Usable, false),
        view(5, Standing::Usable, false),
    ]);
    for balance in EVERY {
        let shares = shares(&pool, &balance);
        for (share, weight) in shares.iter().zip([1.0, 2.0, 5.0]) {
            assert!((share - weight / 8.0).abs() < 0.02, "{balance:?} {shares:?}");
        }
    }
}

#[test]
fn round_robin_spreads_a_heavy_endpoint_evenly() {
    let wheel =
        Wheel::new([(0, 3), (1, 1), (2, 1)].map(|(at, weight)| (EndpointIndex(at), Weight(weight))).into_iter());
    assert_eq!(wheel.slots.iter().map(|slot| slot.0).collect::<Vec<_>>(), [0, 1, 0, 2, 0]);
}

#[test]
fn least_requests_and_power_of_two_avoid_the_busy_one() {
    let mut pool = Fake::new(vec![view(1, Standing::Usable, false), view(1, Standing::Usable, false)]);
    pool.views[0].in_flight = 10;
    for balance in [Balance::LeastRequests, Balance::PowerOfTwo] {
        let busy = (0..1000).filter(|&seed| pick(&pool, &ask(&balance, seed)) == Ok(EndpointIndex(0))).count();
        // Both throws may fall on the same endpoint: a quarter squared at most.
        assert!(busy < 200, "{balance:?} {busy}");
    }
}

#[test]
fn only_the_keys_of_a_leaving_endpoint_move() {
    let balance = HASH;
    let mut pool = Fake::new((0..5).map(|_| view(1, Standing::Usable, false)).collect());
    let before: Vec<_> = (0..10_000).map(|key| pick(&pool, &ask(&balance, key)).unwrap()).collect();
    pool.views[2].standing = Standing::Out;
    for (key, before) in before.into_iter().enumerate() {
        let after = pick(&pool, &ask(&balance, key as u64)).unwrap();
        assert!(before == EndpointIndex(2) || after == before);
    }
}

/// The short cut round the logarithm changes no pick.
#[test]
fn a_hash_picks_the_least_of_all_logarithms() {
    let balance = HASH;
    let pool = Fake::new((0..50).map(|at| view(1 + at % 7 * 50, Standing::Usable, false)).collect());
    for key in 0..10_000 {
        let whole = |view: &EndpointView| rendezvous(Seed(key ^ view.hash).number(0), view.weight_now(), f64::INFINITY);
        let least = (0..50).min_by(|&a, &b| whole(&pool.views[a]).total_cmp(&whole(&pool.views[b]))).unwrap();
        assert_eq!(scan(&pool, &ask(&balance, key), TIERS[0]).unwrap().at(), least, "{key}");
    }
}

#[test]
fn tiers_are_used_in_order() {
    let order = [
        view(1, Standing::Usable, false),
        view(1, Standing::Usable, true),
        view(1, Standing::Unknown, false),
        view(1, Standing::Suspect, false),
    ];
    for balance in &EVERY {
        let mut pool = Fake::new(order.to_vec());
        for expected in 0..4 {
            assert_eq!(pick(&pool, &ask(balance, 7)), Ok(EndpointIndex(expected)), "{balance:?}");
            pool.views[expected as usize].standing = Standing::Out;
        }
        assert_eq!(pick(&pool, &ask(balance, 7)), Err(NoPick::AllDown));
    }
}

#[test]
fn full_and_tried_are_told_apart() {
    let mut pool = Fake::new(vec![view(1, Standing::Usable, false), view(1, Standing::Usable, false)]);
    pool.views.iter_mut().for_each(|view| view.in_flight = 4);
    let mut request = ask(&Balance::PowerOfTwo, 1);
    request.max_requests = Some(4);
    assert_eq!(pick(&pool, &request), Err(NoPick::Full));
    request.max_requests = Some(5);
    assert!(pick(&pool, &request).is_ok());
    request.tried = &[EndpointIndex(0), EndpointIndex(1)];
    assert_eq!(pick(&pool, &request), Err(NoPick::AllTried));
}

/// What a pick costs in endpoints looked at, while all are usable and idle.
#[test]
fn a_pick_looks_at_no_more_of_three_thousand_than_of_three() {
    for count in [3, 30, 3000] {
        let pool = Fake::new((0..count).map(|_| view(1, Standing::Usable, false)).collect());
        for (balance, most) in EVERY.iter().zip([2, 1, 1, 1, 2, 1]) {
            for seed in 0..100 {
                pool.looks.set(0);
                pick(&pool, &ask(balance, seed)).unwrap();
                assert!(pool.looks.get() <= most, "{balance:?} of {count}: {}", pool.looks.get());
            }
        }
    }
}

fn any_pool() -> impl Strategy<Value = Vec<EndpointView>> {
    let standing = prop_oneof![
        Just(Standing::Usable),
        Just(Standing::Unknown),
        Just(Standing::Suspect),
        Just(Standing::Ejected),
        Just(Standing::Draining),
        Just(Standing::Out)
    ];
    let weight = prop_oneof![1 => Just(0_u16), 5 => 1..2000_u16];
    let share = prop_oneof![Just(Share::WHOLE), (0..1000_u16).prop_map(Share::new)];
    let latency = proptest::option::of(1e-6..10.0_f64);
    let endpoint = (weight, share, standing, any::<bool>(), 0..4_u32, latency, any::<u64>()).prop_map(
        |(weight, share, standing, backup, in_flight, latency, hash)| EndpointView {
            share,
            in_flight,
            latency,
            hash,
            ..view(weight, standing, backup)
        },
    );
    proptest::collection::vec(endpoint, 0..12)
}

proptest! {
    /// A pick is always from the best tier that has a free endpoint, and there is one whenever that exists.
    #[test]
    fn picks_come_from_the_best_tier(views in any_pool(), seed: u64, backups_first: bool, tried in proptest::collection::vec(0..12_u32, 0..6), limit in proptest::option::of(1..5_u32)) {
        let tried: Vec<_> = tried.into_iter().map(EndpointIndex).collect();
        let pool = Fake::new(views);
        let mut tiers: HashMap<usize, Vec<EndpointIndex>> = HashMap::new();
        for (at, view) in pool.views.iter().enumerate() {
            let index = EndpointIndex(at as u32);
            // Of the usable, those come first whose turn it is; of the others always the primaries.
            let first = backups_first && view.standing == Standing::Usable;
            let standing = Some(view.standing).filter(|standing| *standing < Standing::Draining && view.weight.value() > 0);
            let rank = standing.map(|standing| 2 * standing as usize + usize::from(view.backup != first));
            if let Some(rank) = rank && !tried.contains(&index) && limit.is_none_or(|limit| view.in_flight < limit) {
                tiers.entry(rank).or_default().push(index);
            }
        }
        let best = (0..8).find_map(|rank| tiers.get(&rank));
        for balance in &EVERY {
            let mut request = ask(balance, seed);
            (request.tried, request.max_requests, request.backups_first) = (&tried, limit, backups_first);
            match (pick(&pool, &request), best) {
                (Ok(index), Some(best)) => prop_assert!(best.contains(&index)),
                (Err(_), None) => {}
                (picked, best) => prop_assert!(false, "{balance:?}: {picked:?} of {best:?}"),
            }
        }
    }

    /// Whoever is bound to an endpoint gets it as long as it may be used, whatever the algorithm, and else a free one.
    #[test]
    fn a_bound_client_stays_with_its_endpoint(views in any_pool(), seed: u64, bound in 0..12_u32, is_tried: bool, limit in proptest::option::of(1..5_u32)) {
        prop_assume!((bound as usize) < views.len());
        let pool = Fake::new(views);
        let index = EndpointIndex(bound);
        let tried = [index];
        let view = pool.views[index.at()];
        let may = !is_tried
            && limit.is_none_or(|limit| view.in_flight < limit)
            && ![Standing::Suspect, Standing::Ejected, Standing::Out].contains(&view.standing);
        for balance in &EVERY {
            let mut request = ask(balance, seed);
            request.max_requests = limit;
            request.tried = if is_tried { &tried } else { &[] };
            let without = pick(&pool, &request);
            request.sticky = Some(index);
            prop_assert_eq!(pick(&pool, &request), if may { Ok(index) } else { without });
        }
    }

    /// No endpoint that a hash has picked goes above ceil(c × average per weight × weight), however the keys fall.
    #[test]
    fn the_load_of_a_hash_is_bounded(
        weights in proptest::collection::vec(1..10_u16, 1..12),
        keys in proptest::collection::vec(0..20_u64, 1..300),
        factor in 100..200_u32,
    ) {
        let balance = Balance::Hash(Hashing { key: HashKey::Uri, bounded_load: BoundedLoad(factor) });
        let mut pool = Fake::new(weights.iter().map(|&weight| view(weight, Standing::Usable, false)).collect());
        let total: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
        for (running, key) in (1..).zip(keys) {
            let index = pick(&pool, &ask(&balance, key)).unwrap().at();
            pool.views[index].in_flight += 1;
            let average = f64::from(running) / f64::from(total);
            let most = f64::from(factor) / 100.0 * average * f64::from(weights[index]);
            prop_assert!(f64::from(pool.views[index].in_flight) <= (most - 1e-6).ceil(), "{index} of {:?}", pool.views);
        }
    }
}

/// A key moves when its endpoint is at its bound, and comes home when that is over.
#[test]
fn a_key_leaves_a_crowded_endpoint_and_comes_back() {
    let mut pool = Fake::new((0..5).map(|_| view(1, Standing::Usable, false)).collect());
    let home = pick(&pool, &ask(&HASH, 7)).unwrap();
    pool.views[home.at()].in_flight = 10;
    let elsewhere = pick(&pool, &ask(&HASH, 7)).unwrap();
    assert_ne!(elsewhere, home);
    assert_eq!(pick(&pool, &ask(&HASH, 7)).unwrap(), elsewhere, "the same each time");
    pool.views.iter_mut().for_each(|view| view.in_flight = 10);
    assert_eq!(pick(&pool, &ask(&HASH, 7)).unwrap(), home, "all are as busy");
}

#[test]
fn a_rising_endpoint_gets_its_share_of_its_weight() {
    for (weights, thousandths) in [([1, 1, 1], 100), ([1, 1, 1], 500), ([1, 2, 5], 250), ([5, 2, 1], 250)] {
        for balance in &EVERY {
            let mut pool = Fake::new(weights.map(|weight| view(weight, Standing::Usable, false)).to_vec());
            pool.views[0].share = Share::new(thousandths);
            let part = f64::from(weights[0]) * f64::from(thousandths) / 1000.0;
            let wanted = match balance {
                // Its keys come home one by one, and the others' stay.
                Balance::Hash(_) => part / f64::from(weights.iter().sum::<u16>()),
                _ => part / (part + f64::from(weights[1] + weights[2])),
            };
            let share = shares(&pool, balance)[0];
            assert!((share - wanted).abs() < 0.02, "{balance:?} {weights:?} {thousandths}: {share}, not {wanted}");
        }
    }
}

/// With requests running, too: being idle is what a cold endpoint is, and no reason to send it everything.
#[test]
fn a_rising_endpoint_is_not_flooded_while_the_others_are_busy() {
    for balance in [Balance::PowerOfTwo, Balance::LeastRequests, Balance::PeakEwma] {
        let mut pool = Fake::new((0..10).map(|_| view(1, Standing::Usable, false)).collect());
        pool.views.iter_mut().for_each(|view| (view.in_flight, view.latency) = (5, Some(0.01)));
        (pool.views[0].in_flight, pool.views[0].share) = (0, Share::FLOOR);
        let share = shares(&pool, &balance)[0];
        assert!(share < 0.03, "{balance:?}: {share}");
        assert!(share > 0.001, "{balance:?} starves it: {share}");
    }
}

#[test]
fn weight_zero_gets_only_who_is_bound_to_it() {
    let pool = Fake::new(vec![view(0, Standing::Usable, false), view(1, Standing::Usable, false)]);
    for balance in &EVERY {
        assert_eq!(shares(&pool, balance), [0.0, 1.0], "{balance:?}");
        let mut request = ask(balance, 1);
        request.sticky = Some(EndpointIndex(0));
        assert_eq!(pick(&pool, &request), Ok(EndpointIndex(0)));
    }
    assert!(has_usable(&pool, clock::now()));
    let nobody = Fake::new(vec![view(0, Standing::Usable, false)]);
    assert!(!has_usable(&nobody, clock::now()));
    assert_eq!(pick(&nobody, &ask(&EVERY[0], 1)), Err(NoPick::AllDown));
}

mod peak_ewma {
    use std::time::Duration;

    use super::*;
    use crate::upstream::latency::{Latency, penalty};

    /// Endpoints with a latency each, and clients that each have one request running; in virtual time.
    struct Simulation {
        pool: Fake,
        latencies: Vec<Latency>,
        now: Instant,
        ends: Vec<(Instant, usize)>,
        counts: Vec<u32>,
    }

    impl Simulation {
        fn new(count: usize) -> Self {
            let pool = Fake::new((0..count).map(|_| view(1, Standing::Usable, false)).collect());
            let latencies = (0..count).map(|_| Latency::default()).collect();
            Self { pool, latencies, now: clock::now(), ends: Vec::new(), counts: vec![0; count] }
        }

        /// Runs a request each millisecond. `answer` says how long an endpoint takes and whether it fails; none hangs.
        fn run(&mut self, requests: u64, seed: u64, answer: impl Fn(usize) -> Option<(Duration, bool)>) {
            for number in 0..requests {
                self.now += Duration::from_millis(1);
                let (ended, running) = self.ends.iter().partition(|(end, _)| *end <= self.now);
                self.ends = running;
                for (_, at) in ended {
                    self.end(at, &answer);
                }
                for (view, latency) in self.pool.views.iter_mut().zip(&self.latencies) {
                    view.latency = latency.seconds(self.now, view.in_flight);
                }
                let at = pick(&self.pool, &ask(&Balance::PeakEwma, Seed(seed).number(number))).unwrap().at();
                self.counts[at] += 1;
                self.pool.views[at].in_flight += 1;
                if let Some((took, _)) = answer(at) {
                    self.ends.push((self.now + took, at));
                }
            }
        }

        fn end(&mut self, at: usize, answer: &impl Fn(usize) -> Option<(Duration, bool)>) {
            let Some((took, fails)) = answer(at) else { return };
            self.pool.views[at].in_flight -= 1;
            let others = self.pool.views.iter().enumerate().filter(|(other, _)| *other != at);
            let slowest = others.map(|(_, view)| cost(view, 1)).fold(0.0, f64::max);
            let sample = if fails { penalty(took, slowest) } else { took.as_secs_f64() };
            self.latencies[at].observe(sample, self.now);
        }
    }

    #[test]
    fn the_quicker_gets_more_and_nobody_starves() {
        let mut simulation = Simulation::new(3);
        simulation.run(20_000, 1, |at| Some((Duration::from_millis([10, 10, 50][at]), false)));
        let [a, b, slow] = simulation.counts[..] else { unreachable!() };
        assert!(a.abs_diff(b) < 2_000, "{:?}", simulation.counts);
        assert!(slow < a / 2 && slow > 100, "{:?}", simulation.counts);
    }

    /// It answers in a tenth of the time, with an error.
    #[test]
    fn one_that_fails_fast_attracts_nothing() {
        for slow in [2, 20, 500, 5_000] {
            let mut simulation = Simulation::new(4);
            let answers = |at| {
                Some(if at == 0 { (Duration::from_millis(1), true) } else { (Duration::from_millis(slow), false) })
            };
            simulation.run(60_000, 2, answers);
            // A fair share were a quarter.
            assert!(simulation.counts[0] < 3_000, "{slow} ms: {:?}", simulation.counts);
            assert!(simulation.counts[0] > 0);
            // It is well again: found out by the few that it is still asked.
            let before = simulation.counts.clone();
            simulation.run(60_000, 3, |_| Some((Duration::from_millis(slow), false)));
            let since: Vec<_> = simulation.counts.iter().zip(before).map(|(now, before)| now - before).collect();
            assert!(since[0] > 500, "{slow} ms: {since:?}");
        }
    }

    /// No sample comes of it, so nothing but what it has running tells of it.
    #[test]
    fn one_that_hangs_is_not_flooded() {
        let mut simulation = Simulation::new(3);
        let well = |_| Some((Duration::from_millis(10), false));
        simulation.run(10_000, 4, well);
        let before = simulation.counts[0];
        simulation.run(30_000, 5, |at| if at == 0 { None } else { well(at) });
        let since = simulation.counts[0] - before;
        assert!(since < 100, "{since} requests were sent to who never answered one");
    }

    #[test]
    fn a_new_one_is_asked_and_not_flooded_before_it_has_answered() {
        let mut simulation = Simulation::new(3);
        for latency in &simulation.latencies[1..] {
            latency.observe(0.010, simulation.now);
        }
        simulation.run(10_000, 6, |at| if at == 0 { None } else { Some((Duration::from_millis(10), false)) });
        assert_eq!(simulation.counts[0], 1, "one request tells enough");
    }
}
