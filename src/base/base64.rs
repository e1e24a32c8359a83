//! Base64 and hexadecimal text of a few bytes (RFC 4648), for secrets and cookies.

const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// In the URL-safe alphabet, without padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0_u32, |group, (at, byte)| group | u32::from(*byte) << (16 - 8 * at));
        for at in 0..=chunk.len() {
            text.push(char::from(URL_SAFE[(group >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

/// The `N` bytes that `text` stands for, in either alphabet, with padding or without; none where it stands for anything
/// else. Each bytes have one text per alphabet: bits that are left over must be 0.
pub fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digits = (N * 8).div_ceil(6);
    let (text, padding) = text.split_at_checked(digits)?;
    let padded =
        padding.is_empty() || (padding.len() == (4 - digits % 4) % 4 && padding.iter().all(|&byte| byte == b'='));
    if !padded {
        return None;
    }
    let mut bytes = [0; N];
    let (mut group, mut bits, mut at) = (0_u32, 0, 0);
    for &letter in text {
        let digit = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        (group, bits) = (group << 6 | u32::from(digit), bits + 6);
        if bits >= 8 {
            bits -= 8;
            *bytes.get_mut(at)? = (group >> bits) as u8;
            (group, at) = (group & ((1 << bits) - 1), at + 1);
        }
    }
    (group == 0 && at == N).then_some(bytes)
}

/// The `N` bytes that `text` writes in hexadecimal; none where it writes anything else.
pub fn decode_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        let [high, low] = pair else { return None };
        let digit = |letter: u8| char::from(letter).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    (text.len() == 2 * N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vectors_of_the_rfc() {
        assert_eq!(["f", "fo", "foo", "foob"].map(|text| encode(text.as_bytes())), ["Zg", "Zm8", "Zm9v", "Zm9vYg"]);
        assert_eq!(decode(b"Zm9vYg=="), Some(*b"foob"));
        assert_eq!(decode_hex(b"666F6f"), Some(*b"foo"));
        for wrong in ["Zm9vYh", "Zm9vYg=", "Zm9vYg===", "Zm9vYgA", "Zm9v", "Zm9v!g", ""] {
            assert_eq!(decode::<4>(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!([&b"66"[..], b"6666666", b"6666666g", b"666666666"].map(decode_hex::<4>), [None; 4]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes: [u8; 32], other: [u8; 45]) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
            prop_assert_eq!(decode(encode(&other).as_bytes()), Some(other));
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(decode_hex(hex.as_bytes()), Some(bytes));
        }
    }
}
