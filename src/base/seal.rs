//! Sealed texts: what a client carries for headgate, and can neither read nor make.
//!
//! AES-256-GCM-SIV (RFC 8452), for keys live for years and nonces are random: one that repeats tells no more than that
//! two texts are the same, where with AES-GCM it would give the key away.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;

/// What sealing adds: the nonce in front, the tag behind.
pub const OVERHEAD: usize = NONCE_LEN + 16;

/// Keys in order: the first seals, all open.
#[derive(Debug)]
pub struct KeyRing(Vec<LessSafeKey>);

impl KeyRing {
    /// A ring of these; none where there is none of them.
    pub fn new(secrets: impl IntoIterator<Item = [u8; 32]>) -> Option<Self> {
        let key = |secret: [u8; 32]| UnboundKey::new(&AES_256_GCM_SIV, &secret).ok().map(LessSafeKey::new);
        let keys: Vec<_> = secrets.into_iter().map(key).collect::<Option<_>>()?;
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// A ring of one key that nobody else has; none where the system gives no random bytes.
    pub fn random() -> Option<Self> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).ok()?;
        Self::new([secret])
    }

    /// Seals `plain` for who opens it with the same `about`; none where the system gives no random bytes.
    pub fn seal(&self, plain: &[u8], about: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let key = self.0.first()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), &mut sealed).ok()?;
        sealed.splice(..0, nonce);
        Some(sealed)
    }

    /// Opens what one of the keys has sealed about the same; none where it is anything else.
    pub fn open<const N: usize>(&self, sealed: &[u8], about: &[u8]) -> Option<[u8; N]> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        if sealed.len() != N + OVERHEAD {
            return None;
        }
        self.0.iter().find_map(|key| {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let mut body = body.to_vec();
            let plain = key.open_in_place(nonce, Aad::from(about), &mut body).ok()?;
            <[u8; N]>::try_from(&*plain).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_rotated_from_the_front() {
        let (old, new) = (KeyRing::new([[1; 32]]).unwrap(), KeyRing::new([[2; 32], [1; 32]]).unwrap());
        let (before, after) = (old.seal(b"12345678", b"x").unwrap(), new.seal(b"12345678", b"x").unwrap());
        assert_eq!(new.open(&before, b"x"), Some(*b"12345678"));
        assert_eq!(new.open(&after, b"x"), Some(*b"12345678"));
        assert_eq!(old.open::<8>(&after, b"x"), None);
        assert!(KeyRing::new([]).is_none());
    }

    proptest! {
        #[test]
        fn nothing_but_the_whole_opens(plain: [u8; 16], at in 0..44_usize, bit in 0..8_u8, about: [u8; 4], other: [u8; 4]) {
            let (ring, foreign) = (KeyRing::random().unwrap(), KeyRing::random().unwrap());
            let sealed = ring.seal(&plain, &about).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(ring.open(&sealed, &about), Some(plain));
            prop_assert_eq!(foreign.open::<16>(&sealed, &about), None);
            prop_assert_eq!(ring.open::<16>(&sealed, &other).is_some(), other == about);
            prop_assert_eq!(ring.open::<16>(&sealed[..at], &about), None);
            let mut tampered = sealed;
            tampered[at] ^= 1_u8 << bit;
            prop_assert_eq!(ring.open::<16>(&tampered, &about), None);
        }
    }
}
