//! Looks for bytes in what comes piece by piece, up to a cap. Pure.

/// What has come so far, and what is looked for in it.
pub(super) struct Search<'w> {
    wanted: &'w [u8],
    most: usize,
    read: Vec<u8>,
}

/// What a piece brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Yes,
    NotYet,
    /// Not within the cap.
    No,
}

impl<'w> Search<'w> {
    /// Looks for `wanted` in the first `most` bytes.
    pub(super) fn new(wanted: &'w str, most: usize) -> Self {
        Self { wanted: wanted.as_bytes(), most, read: Vec::new() }
    }

    pub(super) fn take(&mut self, piece: &[u8]) -> Found {
        // It may have begun in the piece before.
        let from = self.read.len().saturating_sub(self.wanted.len());
        let room = self.most - self.read.len();
        self.read.extend_from_slice(piece.get(..room).unwrap_or(piece));
        let new = self.read.get(from..).unwrap_or_default();
        match memchr::memmem::find(new, self.wanted) {
            Some(_) => Found::Yes,
            None if self.read.len() < self.most => Found::NotYet,
            None => Found::No,
        }
    }
}

/// What is looked for, as a person reads it: in one line, and not all of a long one.
pub(super) fn shown(wanted: &str) -> String {
    let mut shown: String = wanted.chars().take(40).flat_map(char::escape_debug).collect();
    if wanted.chars().nth(40).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Found exactly where the first bytes hold it, however they are cut into pieces.
        #[test]
        fn pieces_are_one_text(text in "[ab]{0,60}", wanted in "[ab]{1,5}", most in 1_usize..80, cut in 1_usize..9) {
            let mut search = Search::new(&wanted, most);
            let mut found = Found::NotYet;
            for piece in text.as_bytes().chunks(cut) {
                found = search.take(piece);
                if found != Found::NotYet {
                    break;
                }
            }
            let head = &text[..text.len().min(most)];
            prop_assert_eq!(found == Found::Yes, head.contains(&wanted));
            prop_assert!(found != Found::NotYet || text.len() < most);
            prop_assert!(search.read.len() <= most);
        }
    }

    #[test]
    fn what_is_looked_for_is_shown_in_one_line() {
        assert_eq!(shown("+PONG\r\n"), "+PONG\\r\\n");
        assert_eq!(shown(&"x".repeat(41)), format!("{}…", "x".repeat(40)));
    }
}
