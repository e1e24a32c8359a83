//! Collects a response's body while it passes to the client. A body that is cut short must never be stored whole.

use bytes::Bytes;

use crate::base::memfile;

/// The space taken before the first byte is there; what a response merely announces costs nothing.
const FIRST_CAPACITY: u64 = 16 * 1024;

/// A copy of a body that is passing by, up to a limit. Dropping it is how an aborted response ends.
///
/// It holds at most the limit; N misses at a time hold N times that beside the zone's own memory.
#[derive(Debug)]
pub struct Recorder {
    limit: u64,
    content_length: Option<u64>,
    /// None once the body is known to be too large or longer than announced.
    body: Option<Vec<u8>>,
}

impl Recorder {
    /// For a body of at most `limit` bytes; `content_length` is what the response's head announces.
    pub fn new(limit: u64, content_length: Option<u64>) -> Self {
        let fits = content_length.is_none_or(|length| length <= limit);
        let capacity = content_length.unwrap_or(0).min(limit).min(FIRST_CAPACITY) as usize;
        Self { limit, content_length, body: fits.then(|| Vec::with_capacity(capacity)) }
    }

    /// Whether there is still something to collect for.
    pub fn is_recording(&self) -> bool {
        self.body.is_some()
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &Bytes) {
        let most = self.content_length.unwrap_or(self.limit).min(self.limit);
        let Some(body) = self.body.as_mut() else { return };
        if body.len() as u64 + piece.len() as u64 > most {
            self.body = None;
        } else {
            body.extend_from_slice(piece);
        }
    }

    /// The whole body, at the clean end of the response. None where it was too large or not what was announced.
    pub fn finish(self) -> Option<Bytes> {
        let body = self.body?;
        if self.content_length.is_some_and(|length| length != body.len() as u64) {
            return None;
        }
        // Boxed, so that spare capacity is given back: the store counts what is used.
        Some(memfile::store(&body).unwrap_or_else(|| Bytes::from(body.into_boxed_slice())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(limit: u64, length: Option<u64>, pieces: &[&'static str]) -> Option<Bytes> {
        let mut recorder = Recorder::new(limit, length);
        pieces.iter().for_each(|piece| recorder.push(&Bytes::from_static(piece.as_bytes())));
        recorder.finish()
    }

    #[test]
    fn a_whole_body_is_kept() {
        assert_eq!(record(10, Some(6), &["abc", "def"]).as_deref(), Some(&b"abcdef"[..]));
        assert_eq!(record(10, None, &["abc", "", "def"]).as_deref(), Some(&b"abcdef"[..]));
        assert_eq!(record(10, None, &[]).as_deref(), Some(&b""[..]));
        assert_eq!(record(6, Some(6), &["abcdef"]).as_deref(), Some(&b"abcdef"[..]));
    }

    #[test]
    fn a_truncated_or_overlong_body_is_not() {
        assert_eq!(record(10, Some(6), &["abc"]), None);
        assert_eq!(record(10, Some(6), &["abc", "defg"]), None);
    }

    #[test]
    fn a_body_over_the_limit_is_not_and_frees_what_it_held() {
        let mut recorder = Recorder::new(4, None);
        recorder.push(&Bytes::from_static(b"abc"));
        assert!(recorder.is_recording());
        recorder.push(&Bytes::from_static(b"de"));
        assert!(!recorder.is_recording());
        recorder.push(&Bytes::from_static(b"f"));
        assert_eq!(recorder.finish(), None);
        assert!(!Recorder::new(4, Some(5)).is_recording());
    }
}
