//! Dice from a seed: pure code takes the seed, drivers draw it from a worker's own generator.

/// One draw of dice for one decision. Not for secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// A seed from the calling thread's generator: no syscall, no lock.
    pub fn draw() -> Self {
        Self(fastrand::u64(..))
    }

    /// The `n`th number that this seed stands for (SplitMix64).
    pub fn number(self, n: u64) -> u64 {
        let mut z = self.0.wrapping_add((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The `n`th number, evenly below `bound`; 0 where `bound` is 0.
    pub fn below(self, n: u64, bound: u64) -> u64 {
        ((u128::from(self.number(n)) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_spread_evenly() {
        let mut counts = [0_u32; 10];
        for seed in 0..100_000 {
            counts[Seed(seed).below(0, 10) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (9_500..10_500).contains(&count)), "{counts:?}");
    }
}
