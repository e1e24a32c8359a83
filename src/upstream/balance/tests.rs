use std::cell::Cell;
use std::collections::HashMap;
use std::num::NonZeroU16;

use proptest::prelude::*;

use super::*;
use crate::base::clock;
use crate::config::model::HashKey;

struct Fake {
    views: Vec<EndpointView>,
    wheels: [Wheel; 2],
    looks: Cell<u32>,
}

impl Fake {
    fn new(views: Vec<EndpointView>) -> Self {
        let wheel = |backup| {
            let of_kind = views.iter().enumerate().filter(|(_, view)| view.backup == backup);
            Wheel::new(of_kind.map(|(at, view)| (EndpointIndex(at as u32), view.weight)))
        };
        Self { wheels: [wheel(false), wheel(true)], views, looks: Cell::new(0) }
    }
}

impl Members for Fake {
    fn count(&self) -> u32 {
        self.views.len() as u32
    }
    fn wheel(&self, backup: bool) -> &Wheel {
        &self.wheels[usize::from(backup)]
    }
    fn view(&self, index: EndpointIndex, _: Instant) -> EndpointView {
        self.looks.set(self.looks.get() + 1);
        self.views[index.at()]
    }
}

fn view(weight: u16, standing: Standing, backup: bool) -> EndpointView {
    let weight = Weight(NonZeroU16::new(weight).unwrap());
    EndpointView { weight, backup, standing, in_flight: 0, hash: fastrand::u64(..) }
}

fn ask(balance: &Balance, seed: u64) -> PickRequest<'_> {
    PickRequest {
        balance,
        tried: &[],
        max_requests: None,
        key: seed,
        backups_first: false,
        now: clock::now(),
        seed: Seed(seed),
    }
}

const EVERY: [Balance; 5] = [
    Balance::PowerOfTwo,
    Balance::RoundRobin,
    Balance::LeastRequests,
    Balance::Random,
    Balance::Hash(HashKey::ClientIp),
];

/// All are idle, as most pools are at night: there the heaviest took everything of the two that count requests.
#[test]
fn shares_follow_weights_within_two_percent() {
    let pool = Fake::new(vec![
        view(1, Standing::Usable, false),
        view(2, Standing::Usable, false),
        view(5, Standing::Usable, false),
    ]);
    for balance in EVERY {
        let mut counts = [0_u32; 3];
        for seed in 0..100_000 {
            let mut request = ask(&balance, seed);
            request.key = Seed(seed).number(9);
            counts[pick(&pool, &request).unwrap().at()] += 1;
        }
        for (count, weight) in counts.iter().zip([1.0, 2.0, 5.0]) {
            let share = f64::from(*count) / 100_000.0;
            assert!((share - weight / 8.0).abs() < 0.02, "{balance:?} {counts:?}");
        }
    }
}

#[test]
fn round_robin_spreads_a_heavy_endpoint_evenly() {
    let wheel = Wheel::new(
        [(0, 3), (1, 1), (2, 1)]
            .map(|(at, weight)| (EndpointIndex(at), Weight(NonZeroU16::new(weight).unwrap())))
            .into_iter(),
    );
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
    let balance = Balance::Hash(HashKey::ClientIp);
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
    let balance = Balance::Hash(HashKey::ClientIp);
    let pool = Fake::new((0..50).map(|at| view(1 + at % 7 * 50, Standing::Usable, false)).collect());
    for key in 0..10_000 {
        let whole = |view: &EndpointView| rendezvous(Seed(key ^ view.hash).number(0), view.weight, f64::INFINITY);
        let least = (0..50).min_by(|&a, &b| whole(&pool.views[a]).total_cmp(&whole(&pool.views[b]))).unwrap();
        assert_eq!(pick(&pool, &ask(&balance, key)).unwrap().at(), least, "{key}");
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

/// What a pick costs in endpoints looked at, while all are usable. A hash must ask all of them for the nearest.
#[test]
fn a_pick_looks_at_no_more_of_three_thousand_than_of_three() {
    for count in [3, 30, 3000] {
        let pool = Fake::new((0..count).map(|_| view(1, Standing::Usable, false)).collect());
        for (balance, most) in EVERY.iter().zip([3, 1, 1, 1, count]) {
            for seed in 0..100 {
                pool.looks.set(0);
                pick(&pool, &ask(balance, seed)).unwrap();
                assert!(pool.looks.get() <= most, "{balance:?} of {count}: {}", pool.looks.get());
            }
        }
    }
}

fn any_pool() -> impl Strategy<Value = Vec<EndpointView>> {
    let standing = prop::sample::select(vec![
        Standing::Usable,
        Standing::Unknown,
        Standing::Suspect,
        Standing::Ejected,
        Standing::Out,
    ]);
    let endpoint = (1..2000_u16, standing, any::<bool>(), 0..4_u32, any::<u64>()).prop_map(
        |(weight, standing, backup, in_flight, hash)| EndpointView {
            in_flight,
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
            let standing = Some(view.standing).filter(|standing| *standing < Standing::Out);
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
}
