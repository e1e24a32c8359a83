//! A message in several pieces as one, where that is cheaper: the kernel takes a small copy faster than a list.

use std::io::IoSlice;

use smallvec::SmallVec;

/// Up to this the copy costs less than the list.
pub const SMALL: usize = 2048;

/// Hands all pieces to `send` as one. None, and nothing sent, where they are together too large to copy.
pub fn as_one<T>(pieces: &[IoSlice<'_>], send: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
    let first: &[u8] = filled.next().map_or(&[], |piece| piece);
    let Some(second) = filled.next() else { return Some(send(first)) };
    let rest: usize = filled.clone().map(|piece| piece.len()).sum();
    if first.len() + second.len() + rest > SMALL {
        return None;
    }
    // On the stack, and filled where it stays.
    let mut joined: SmallVec<[u8; SMALL]> = SmallVec::new();
    joined.extend_from_slice(first);
    joined.extend_from_slice(second);
    filled.for_each(|piece| joined.extend_from_slice(piece));
    Some(send(&joined))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_are_joined_and_large_ones_left() {
        let (head, body, large) = ([1; 100], [2; 1000], [3; 4000]);
        let sent = |pieces: &[&[u8]]| {
            let pieces: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            as_one(&pieces, <[u8]>::to_vec)
        };
        assert_eq!(sent(&[]), Some(Vec::new()));
        assert_eq!(sent(&[&[], &large, &[]]), Some(large.to_vec()));
        assert_eq!(sent(&[&head, &[], &body, &head]), Some([&head[..], &body, &head].concat()));
        assert_eq!(sent(&[&head, &large]), None);
    }
}
