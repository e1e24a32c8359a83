//! Units that config, pools and limits share.

use std::fmt;

use serde::Serialize;

/// An endpoint's share of a pool's traffic relative to the others; 1 unless said. 0 gets nothing that it is not bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Weight(pub u16);

impl Weight {
    /// The weight of an endpoint that names none.
    pub const ONE: Self = Self(1);

    /// The number itself.
    pub fn value(self) -> u32 {
        u32::from(self.0)
    }
}

/// A number of bytes, printed the way config files write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `count` KiB.
    pub const fn kib(count: u64) -> Self {
        Self(count * 1024)
    }

    /// `count` MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count * 1024 * 1024)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_in_the_largest_whole_unit() {
        assert_eq!(ByteSize::mib(16).to_string(), "16MiB");
        assert_eq!(ByteSize::kib(1536).to_string(), "1536KiB");
        assert_eq!(ByteSize(1000).to_string(), "1000B");
    }
}
