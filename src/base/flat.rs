//! A message in several pieces as one, where that is cheaper: the kernel takes a small copy faster than a list.

use std::io::IoSlice;
use std::ops::Deref;

use smallvec::SmallVec;

/// Up to this the copy costs less than the list.
const SMALL: usize = 2048;

/// All pieces in one, borrowed where there is only one.
#[expect(clippy::large_enum_variant, reason = "it lives on the stack, for one call")]
pub enum Flat<'a> {
    /// The only piece that is not empty.
    One(&'a [u8]),
    /// A copy of all.
    Joined(SmallVec<[u8; SMALL]>),
}

impl<'a> Flat<'a> {
    /// None where the pieces together are too large to copy.
    pub fn of(pieces: &'a [IoSlice<'_>]) -> Option<Self> {
        let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
        let first: &[u8] = filled.next().map_or(&[], |piece| piece);
        let Some(second) = filled.next() else { return Some(Self::One(first)) };
        let rest: usize = filled.clone().map(|piece| piece.len()).sum();
        if first.len() + second.len() + rest > SMALL {
            return None;
        }
        let mut joined = SmallVec::new();
        joined.extend_from_slice(first);
        joined.extend_from_slice(second);
        filled.for_each(|piece| joined.extend_from_slice(piece));
        Some(Self::Joined(joined))
    }
}

impl Deref for Flat<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::One(piece) => piece,
            Self::Joined(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_are_joined_and_large_ones_left() {
        let (head, body, large) = ([1; 100], [2; 1000], [3; 4000]);
        let flat = |pieces: &[&[u8]]| {
            let pieces: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            Flat::of(&pieces).map(|flat| (matches!(flat, Flat::One(_)), flat.to_vec()))
        };
        assert_eq!(flat(&[]), Some((true, Vec::new())));
        assert_eq!(flat(&[&[], &large, &[]]), Some((true, large.to_vec())));
        assert_eq!(flat(&[&head, &[], &body, &head]), Some((false, [&head[..], &body, &head].concat())));
        assert_eq!(flat(&[&head, &large]), None);
    }
}
