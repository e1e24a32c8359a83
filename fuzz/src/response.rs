//! Responses of endpoints: however they are cut, the same comes of them, and nothing of them passes for more.

use bytes::BytesMut;
use headgate::upstream::connection::response::{BodyReader, Malformed, take_head};
use http::{HeaderMap, StatusCode};

/// What came: statuses with the length that their fields tell, bodies, trailers, and whether the last body has ended.
type Came = (Vec<(StatusCode, HeaderMap)>, Vec<u8>, Option<HeaderMap>, bool);

/// The first byte says whether it answers a HEAD, and where it is cut.
pub fn target(data: &[u8]) {
    let Some((first, wire)) = data.split_first() else { return };
    let to_head = first & 1 == 1;
    let whole = read(wire, wire.len().max(1), to_head);
    let cut = read(wire, usize::from(first >> 1).max(1), to_head);
    assert_eq!(whole.is_ok(), cut.is_ok(), "{whole:?}, and in pieces {cut:?}");
    if let (Ok(whole), Ok(cut)) = (&whole, &cut) {
        assert_eq!(whole, cut);
        told_and_true(whole);
    }
}

/// One response, and those before it that announce it.
fn read(wire: &[u8], piece: usize, to_head: bool) -> Result<Came, Malformed> {
    let mut input = BytesMut::new();
    let (mut heads, mut body, mut trailers) = (Vec::new(), Vec::new(), None);
    let mut reader: Option<BodyReader> = None;
    for piece in wire.chunks(piece) {
        input.extend_from_slice(piece);
        while reader.is_none() && !input.is_empty() {
            let Some(head) = take_head(&mut input, to_head)? else { break };
            if !head.is_interim() {
                reader = Some(head.body);
            }
            heads.push((head.response.status(), head.response.headers().clone()));
        }
        if let Some(reader) = &mut reader {
            while let Some(frame) = reader.take(&mut input)? {
                match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
        }
    }
    Ok((heads, body, trailers, reader.is_some_and(|reader| reader.is_at_end())))
}

/// A length that the client is told is the body's.
fn told_and_true((heads, body, _, ended): &Came) {
    let Some((_, headers)) = heads.last() else { return };
    let mut told = headers.get_all("content-length").iter();
    if let Some(length) = told.next() {
        assert!(told.next().is_none() && !headers.contains_key("transfer-encoding"), "{headers:?}");
        let text = length.to_str().expect("digits");
        let length: u64 = text.parse().expect("a number");
        assert_eq!(text, length.to_string(), "its plain form");
        assert!(body.len() as u64 <= length && (!ended || body.is_empty() || body.len() as u64 == length));
    }
}
