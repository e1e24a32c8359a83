//! Endpoints in a fixed order, by weight: what dice are thrown on, and what round-robin turns.

use crate::base::id::EndpointIndex;
use crate::base::units::Weight;

/// Endpoints in an order that gives each its share over one turn, as evenly spread as it can be.
#[derive(Clone, Debug, Default)]
pub struct Wheel {
    pub(super) slots: Vec<EndpointIndex>,
    heaviest: u32,
}

/// A wheel is no longer than this, or than the number of endpoints where those are more.
const LONGEST_WHEEL: u64 = 4096;

impl Wheel {
    /// Spreads endpoints by weight, those of weight 0 left out (smooth weighted round-robin, as nginx does it, unrolled once).
    pub fn new(members: impl Iterator<Item = (EndpointIndex, Weight)>) -> Self {
        let mut members: Vec<(EndpointIndex, i64)> = members
            .filter(|(_, weight)| weight.value() > 0)
            .map(|(index, weight)| (index, i64::from(weight.value())))
            .collect();
        let heaviest = members.iter().map(|&(_, weight)| weight as u32).max().unwrap_or(0);
        let divisor = members.iter().fold(0, |divisor, &(_, weight)| greatest_common_divisor(divisor, weight)).max(1);
        let total: i64 = members.iter().map(|&(_, weight)| weight / divisor).sum();
        let scale = (total as u64).div_ceil(LONGEST_WHEEL).max(1) as i64;
        for (_, weight) in &mut members {
            *weight = (*weight / divisor / scale).max(1);
        }
        let total: i64 = members.iter().map(|&(_, weight)| weight).sum();
        if members.iter().all(|&(_, weight)| weight == 1) {
            let slots = members.into_iter().map(|(index, _)| index).collect();
            return Self { slots, heaviest };
        }
        let mut current = vec![0_i64; members.len()];
        let mut slots = Vec::with_capacity(total as usize);
        for _ in 0..total {
            let mut best = 0;
            for at in 0..members.len() {
                current[at] += members[at].1;
                if current[at] > current[best] {
                    best = at;
                }
            }
            current[best] -= total;
            slots.push(members[best].0);
        }
        Self { slots, heaviest }
    }

    pub(super) fn slot(&self, at: u64) -> Option<EndpointIndex> {
        self.slots.get(at as usize).copied()
    }

    pub(super) fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The largest weight on it.
    pub(crate) fn heaviest(&self) -> u32 {
        self.heaviest
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
