//! As much of WebSocket (RFC 6455) as an echo needs: the handshake's answer, and frames of one kind.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What a client asks with; the nonce is the RFC's own example, so the accept value is known.
pub const EXAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// What to do after frames were echoed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Read on; so many bytes were used up.
    Read(usize),
    /// A close frame was answered.
    Close,
}

/// The value of Sec-WebSocket-Accept for a key (section 4.2.2).
pub fn accept(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    STANDARD.encode(digest)
}

/// A final binary frame (section 5.2), masked as clients have to.
pub fn frame(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = vec![FINAL | 0x2];
    push_length(&mut frame, payload.len(), if mask.is_some() { MASKED } else { 0 });
    if let Some(mask) = mask {
        frame.extend_from_slice(&mask);
    }
    let start = frame.len();
    frame.extend_from_slice(payload);
    apply_mask(&mut frame[start..], mask.unwrap_or_default());
    frame
}

/// Echoes every whole client frame in `input` to `output`, unmasked.
pub fn echo(input: &[u8], output: &mut Vec<u8>) -> Next {
    let mut used = 0;
    while let Some((first, mask, payload)) = parse(&input[used..]) {
        let start = used + payload.start;
        let length = payload.len();
        let opcode = if first & OPCODE == PING { PONG } else { first & OPCODE };
        output.push((first & FINAL) | opcode);
        push_length(output, length, 0);
        let copied = output.len();
        output.extend_from_slice(&input[start..start + length]);
        apply_mask(&mut output[copied..], mask);
        used = start + length;
        if opcode == CLOSE {
            return Next::Close;
        }
    }
    Next::Read(used)
}

/// First byte, mask and place of the payload of a whole masked frame.
fn parse(input: &[u8]) -> Option<(u8, [u8; 4], std::ops::Range<usize>)> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    let (length, start) = match second & !MASKED {
        126 => (usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let (mask, start) =
        if second & MASKED == 0 { ([0; 4], start) } else { (input.get(start..start + 4)?.try_into().ok()?, start + 4) };
    let end = start.checked_add(length)?;
    (input.len() >= end).then_some((first, mask, start..end))
}

fn push_length(frame: &mut Vec<u8>, length: usize, masked: u8) {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => frame.push(masked | short),
        (_, Ok(middle)) => {
            frame.push(masked | 126);
            frame.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            frame.push(masked | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    if mask != [0; 4] {
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_the_one_of_rfc_6455_section_1_3() {
        assert_eq!(accept(EXAMPLE_KEY.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_masked_frame_is_the_one_of_rfc_6455_section_5_7() {
        let mut text = frame(b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
        text[0] = FINAL | 0x1;
        assert_eq!(text, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn whole_frames_are_echoed_and_the_rest_waits() {
        let payload: Vec<u8> = (0..128).collect();
        let one = frame(&payload, Some([1, 2, 3, 4]));
        let (mut input, mut output) = ([one.clone(), one.clone()].concat(), Vec::new());
        input.truncate(one.len() + 50);
        assert_eq!(echo(&input, &mut output), Next::Read(one.len()));
        assert_eq!(output, frame(&payload, None));
    }

    #[test]
    fn a_close_is_answered() {
        let mut output = Vec::new();
        assert_eq!(echo(&[0x88, 0x80, 1, 2, 3, 4], &mut output), Next::Close);
        assert_eq!(output, [0x88, 0]);
    }

    #[test]
    fn a_long_payload_has_a_long_length() {
        let mut output = Vec::new();
        let payload = vec![7; 70_000];
        let one = frame(&payload, Some([9, 9, 9, 9]));
        assert_eq!(echo(&one, &mut output), Next::Read(one.len()));
        assert_eq!(output, frame(&payload, None));
    }
}
