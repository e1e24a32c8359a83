//! A table from hashes to endpoints that hardly changes when an endpoint comes or leaves: Maglev hashing (Eisenbud et
//! al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4), with weights.
//!
//! Each endpoint has a permutation of all slots, from a hash of its address; in turn, and as often as its weight says,
//! each takes the first free slot of its own. Built when the pool is; a look-up is one division.

use crate::base::id::EndpointIndex;
use crate::base::random::Seed;
use crate::base::units::Weight;

/// Sizes: primes, so that every step visits every slot. The last two are the paper's.
const SIZES: [u32; 5] = [1021, 4099, 16_411, 65_537, 655_373];
/// Slots per endpoint of the least weight, so that shares are right within 1 %.
const SLOTS_EACH: u64 = 100;

/// Endpoints by slot.
#[derive(Clone, Debug, Default)]
pub struct Maglev {
    slots: Vec<EndpointIndex>,
}

/// One endpoint while the table is filled.
struct Candidate {
    index: EndpointIndex,
    weight: u64,
    next: u64,
    skip: u64,
    /// Turns that it has coming, in parts of the heaviest weight.
    credit: u64,
}

impl Maglev {
    /// A table of endpoints, their weights and the hashes of their addresses. Their order does not matter: two
    /// headgates with the same endpoints have the same table.
    pub fn new(members: impl Iterator<Item = (EndpointIndex, Weight, u64)>) -> Self {
        let mut members: Vec<_> = members.filter(|(_, weight, _)| weight.value() > 0).collect();
        members.sort_by_key(|&(_, _, hash)| hash);
        let weights = || members.iter().map(|(_, weight, _)| u64::from(weight.value()));
        let (Some(least), Some(heaviest)) = (weights().min(), weights().max()) else { return Self::default() };
        let wanted = SLOTS_EACH * weights().sum::<u64>().div_ceil(least);
        let largest = SIZES[SIZES.len() - 1];
        let size = SIZES.into_iter().find(|size| u64::from(*size) >= wanted).unwrap_or(largest);
        let size = u64::from(size);
        let candidate = |&(index, weight, hash): &(EndpointIndex, Weight, u64)| Candidate {
            index,
            weight: u64::from(weight.value()),
            next: Seed(hash).below(0, size),
            skip: Seed(hash).below(1, size - 1) + 1,
            credit: 0,
        };
        let mut candidates: Vec<Candidate> = members.iter().map(candidate).collect();
        let mut slots: Vec<Option<EndpointIndex>> = vec![None; size as usize];
        let mut free = size;
        while free > 0 {
            for candidate in &mut candidates {
                candidate.credit += candidate.weight;
                if candidate.credit < heaviest || free == 0 {
                    continue;
                }
                candidate.credit -= heaviest;
                while slots[candidate.next as usize].is_some() {
                    candidate.next = (candidate.next + candidate.skip) % size;
                }
                slots[candidate.next as usize] = Some(candidate.index);
                free -= 1;
            }
        }
        Self { slots: slots.into_iter().flatten().collect() }
    }

    /// Where a key's `probe`th look falls; none where the table is empty.
    pub(super) fn look_up(&self, key: u64, probe: u64) -> Option<EndpointIndex> {
        self.slots.get(Seed(key).below(probe, self.slots.len() as u64) as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(members: &[(u32, u16)]) -> Maglev {
        let hash = |index: u32| Seed(u64::from(index)).number(7);
        Maglev::new(members.iter().map(|&(index, weight)| (EndpointIndex(index), Weight(weight), hash(index))))
    }

    fn moved(before: &Maglev, after: &Maglev, from_or_to: u32) -> f64 {
        let keys = 20_000;
        let differs = |key: &u64| {
            let (before, after) = (before.look_up(*key, 0).unwrap(), after.look_up(*key, 0).unwrap());
            before != after && before.0 != from_or_to && after.0 != from_or_to
        };
        (0..keys).filter(differs).count() as f64 / keys as f64
    }

    /// The paper's figure 12: with 100 slots for each endpoint, hardly any but the leaving one's keys move; the bound
    /// here is what a table of that size gave there.
    #[test]
    fn an_endpoint_that_leaves_or_comes_moves_few_other_keys() {
        for count in [3, 10, 100, 1000] {
            let members: Vec<_> = (0..count).map(|index| (index, 1)).collect();
            let whole = table(&members);
            let without: Vec<_> = members.iter().copied().filter(|&(index, _)| index != count / 2).collect();
            let less = table(&without);
            assert_eq!(whole.slots.len(), less.slots.len());
            let moved = moved(&whole, &less, count / 2);
            assert!(moved < 0.03, "{count}: {moved}");
        }
    }

    #[test]
    fn a_table_does_not_depend_on_the_order() {
        let (one, two) = (table(&[(0, 1), (1, 2), (2, 3)]), table(&[(2, 3), (0, 1), (1, 2)]));
        assert_eq!(one.slots, two.slots);
        assert_eq!(table(&[]).look_up(7, 0), None);
        assert_eq!(table(&[(0, 0)]).look_up(7, 0), None);
    }

    /// Every size of table is a prime: else a permutation could miss free slots, and building never end.
    #[test]
    fn sizes_are_primes() {
        for size in SIZES {
            assert!((2..).take_while(|n| n * n <= size).all(|n| size % n != 0), "{size}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn slots_follow_weights(weights in proptest::collection::vec(0..50_u16, 1..20)) {
            let members: Vec<_> = weights.iter().enumerate().map(|(at, &weight)| (at as u32, weight)).collect();
            let table = table(&members);
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for (index, weight) in members {
                let slots = table.slots.iter().filter(|slot| slot.0 == index).count() as f64;
                if total > 0.0 {
                    let wanted = f64::from(weight) / total * table.slots.len() as f64;
                    prop_assert!((slots - wanted).abs() <= 2.0 + wanted / 100.0, "{index}: {slots}, not {wanted}");
                }
            }
        }
    }
}
