//! A response as an endpoint writes it (RFC 9112): its head, and where its body ends. Pure: bytes in, frames out.
//!
//! Strict where a client behind us could see another end of a body than we do: one way of framing, one length, chunks
//! whose lines end in CRLF alone.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use smallvec::SmallVec;

use crate::base::field;

/// Fields that a head, or the trailers, may have.
const MOST_FIELDS: usize = 100;
/// Room for what is added to them on their way, also to each copy that the cache gives out.
const ADDED_FIELDS: usize = 4;
/// The longest line before a chunk, extensions included, and the most that all trailers may take, in bytes.
const MOST_AROUND: usize = 16 * 1024;

/// Why it is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The head cannot be read.
    #[error("its head is no HTTP/1.1 ({0})")]
    Head(httparse::Error),
    /// The head is too long, or has too many fields.
    #[error("its head is too large")]
    TooLarge,
    /// A status that is none.
    #[error("its status is no number from 100 to 999")]
    Status,
    /// More than one way to find the body's end, or none that is certain (RFC 9112 §6.3).
    #[error("its fields do not say for certain where its body ends")]
    Framing,
    /// Chunks that cannot be read.
    #[error("its chunks cannot be read")]
    Chunks,
    /// Trailers that cannot be read.
    #[error("its trailers cannot be read")]
    Trailers,
}

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    /// Status, phrase and fields.
    pub response: Response<()>,
    /// Of its body.
    pub body: BodyReader,
    /// The endpoint will take another request on the connection, when the body has come.
    pub persists: bool,
}

impl Head {
    /// A response that another follows (RFC 9110 §15.2). After a 101 no HTTP follows at all.
    pub fn is_interim(&self) -> bool {
        self.response.status().is_informational() && self.response.status() != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Where in the head a field lies.
struct Field {
    name: (usize, usize),
    value: (usize, usize),
}

/// Takes the head of a response from the front of `input`, where all of it is there. `to_head` says that it answers a
/// HEAD: no body follows, whatever its fields say.
///
/// # Errors
/// [`Malformed`]; the connection is of no use any more.
pub fn take_head(input: &mut BytesMut, to_head: bool) -> Result<Option<Head>, Malformed> {
    let mut space = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, input, &mut space) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
        Err(error) => return Err(Malformed::Head(error)),
    };
    let status = StatusCode::from_u16(parsed.code.unwrap_or(0)).map_err(|_| Malformed::Status)?;
    let is_old = parsed.version == Some(0);
    let phrase = parsed.reason.filter(|phrase| Some(*phrase) != status.canonical_reason() && !phrase.is_empty());
    let phrase = phrase.and_then(|phrase| ReasonPhrase::try_from(phrase.as_bytes()).ok());
    let begin = input.as_ptr().addr();
    let place = |part: &[u8]| (part.as_ptr().addr() - begin, part.as_ptr().addr() - begin + part.len());
    let fields: SmallVec<[Field; 24]> = parsed
        .headers
        .iter()
        .map(|field| Field { name: place(field.name.as_bytes()), value: place(field.value) })
        .collect();
    let bytes = input.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(fields.len() + ADDED_FIELDS);
    for Field { name, value } in &fields {
        let name = HeaderName::from_bytes(&bytes[name.0..name.1]);
        let name = name.map_err(|_| Malformed::Head(httparse::Error::HeaderName))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(value.0..value.1));
        headers.append(name, value.map_err(|_| Malformed::Head(httparse::Error::HeaderValue))?);
    }
    // To who speaks HTTP/1.0 another request would have to be of HTTP/1.0 as well.
    let mut persists = !is_old && persists(&headers);
    let body = framing(status, &mut headers, is_old, to_head)?;
    if status == StatusCode::NO_CONTENT {
        // It may send what it announces, and that is no answer to the next request.
        let has_length = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        persists &= !has_length && !headers.contains_key(TRANSFER_ENCODING);
        // Nor may it be passed on (RFC 9110 §8.6).
        headers.remove(CONTENT_LENGTH);
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    // A response has the version of who sends it (RFC 9110 §2.5), and for the client that is us.
    *response.version_mut() = Version::HTTP_11;
    *response.headers_mut() = headers;
    if let Some(phrase) = phrase {
        response.extensions_mut().insert(phrase);
    }
    Ok(Some(Head { response, body, persists }))
}

/// RFC 9112 §9.3.
fn persists(headers: &HeaderMap) -> bool {
    !field::list(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case(b"close"))
}

/// Where the body ends (RFC 9112 §6.3).
fn framing(status: StatusCode, headers: &mut HeaderMap, is_old: bool, to_head: bool) -> Result<BodyReader, Malformed> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let framed = match (codings.next(), codings.next()) {
        (None, _) => match one_length(headers)? {
            Some(length) => BodyReader::Length(length),
            None => BodyReader::UntilClose,
        },
        // Nothing else is taken off here, and HTTP/1.0 knows of none.
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            if is_old || headers.contains_key(CONTENT_LENGTH) {
                return Err(Malformed::Framing);
            }
            BodyReader::Chunked(Chunk::Line)
        }
        (Some(_), _) => return Err(Malformed::Framing),
    };
    let has_none =
        to_head || status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    Ok(if has_none { BodyReader::Length(0) } else { framed })
}

/// The one number that all `Content-Length` fields say. It is written anew where its text was another: there are clients
/// for whom `010` is eight.
fn one_length(headers: &mut HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut fields = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = fields.next() else { return Ok(None) };
    let is_alone = fields.next().is_none();
    if is_alone && let Some(length) = number(first.as_bytes()) {
        if first.len() > 1 && first.as_bytes().starts_with(b"0") {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        return Ok(Some(length));
    }
    let mut numbers = field::list(headers, &CONTENT_LENGTH);
    let length = numbers.next().and_then(number).ok_or(Malformed::Framing)?;
    if numbers.any(|other| number(other) != Some(length)) {
        return Err(Malformed::Framing);
    }
    drop(numbers);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(Some(length))
}

/// Digits alone.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// What is left of a body, by how its end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyReader {
    /// So many bytes.
    Length(u64),
    /// Chunks, of which this comes next.
    Chunked(Chunk),
    /// Whatever comes until the connection's end.
    UntilClose,
    /// It has ended.
    Ended,
}

/// What comes next of a chunked body (RFC 9112 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The line with its size.
    Line,
    /// So many bytes of its data.
    Data(u64),
    /// The line's end behind its data.
    End,
    /// The trailers, or the end without them.
    Trailers,
}

impl BodyReader {
    /// Nothing more will come.
    pub fn is_at_end(&self) -> bool {
        matches!(self, Self::Ended | Self::Length(0))
    }

    /// What is known of how much is left.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Ended => SizeHint::with_exact(0),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }

    /// How many bytes of it are certain to come yet.
    pub fn certain(&self) -> u64 {
        match self {
            Self::Length(left) | Self::Chunked(Chunk::Data(left)) => *left,
            Self::Chunked(_) | Self::UntilClose | Self::Ended => 0,
        }
    }

    /// The next frame of what is there. None where that is used up; whether it was the last frame, [`Self::is_at_end`]
    /// knows.
    ///
    /// # Errors
    /// [`Malformed`]; no more of the body can be read.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Malformed> {
        match self {
            Self::Ended => Ok(None),
            Self::Length(left) => Ok(take_bytes(left, input).map(Frame::data)),
            Self::UntilClose if input.is_empty() => Ok(None),
            Self::UntilClose => Ok(Some(Frame::data(input.split().freeze()))),
            Self::Chunked(chunk) => {
                let mut chunk = *chunk;
                let taken = take_chunk(&mut chunk, input);
                *self = match &taken {
                    Ok(Taken::Last(_)) => Self::Ended,
                    _ => Self::Chunked(chunk),
                };
                taken.map(|taken| match taken {
                    Taken::Nothing => None,
                    Taken::Data(data) => Some(Frame::data(data)),
                    Taken::Last(trailers) => trailers.map(Frame::trailers),
                })
            }
        }
    }

    /// The connection's end has come. False where that is before the body's end.
    pub fn close(&mut self) -> bool {
        let whole = self.is_at_end() || *self == Self::UntilClose;
        *self = Self::Ended;
        whole
    }
}

fn take_bytes(left: &mut u64, input: &mut BytesMut) -> Option<Bytes> {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    if count == 0 {
        return None;
    }
    *left -= count as u64;
    Some(input.split_to(count).freeze())
}

enum Taken {
    Nothing,
    Data(Bytes),
    Last(Option<HeaderMap>),
}

fn take_chunk(chunk: &mut Chunk, input: &mut BytesMut) -> Result<Taken, Malformed> {
    loop {
        match chunk {
            Chunk::Line => match httparse::parse_chunk_size(input) {
                Ok(httparse::Status::Complete((length, size))) => {
                    let line = input.get(..length.saturating_sub(2)).unwrap_or_default();
                    // httparse takes a line without a digit for the last one. And what ends a line for others must not be
                    // within one for us, in an extension.
                    let has_size = line.first().is_some_and(u8::is_ascii_hexdigit);
                    if !has_size || length > MOST_AROUND || memchr::memchr2(b'\n', b'\r', line).is_some() {
                        return Err(Malformed::Chunks);
                    }
                    input.advance(length);
                    *chunk = if size == 0 { Chunk::Trailers } else { Chunk::Data(size) };
                }
                Ok(httparse::Status::Partial) if input.len() <= MOST_AROUND => return Ok(Taken::Nothing),
                Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed::Chunks),
            },
            Chunk::Data(left) => {
                let data = take_bytes(left, input);
                if *left == 0 {
                    *chunk = Chunk::End;
                }
                return Ok(data.map_or(Taken::Nothing, Taken::Data));
            }
            Chunk::End => {
                let end = input.get(..2).unwrap_or(input);
                if !b"\r\n".starts_with(end) {
                    return Err(Malformed::Chunks);
                }
                if end.len() < 2 {
                    return Ok(Taken::Nothing);
                }
                input.advance(2);
                *chunk = Chunk::Line;
            }
            Chunk::Trailers => return take_trailers(input),
        }
    }
}

fn take_trailers(input: &mut BytesMut) -> Result<Taken, Malformed> {
    let mut space = [httparse::EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(input, &mut space) {
        Ok(httparse::Status::Complete((length, fields))) if length <= MOST_AROUND => {
            // httparse takes a lone LF for an end.
            let taken = input.get(..length).unwrap_or_default();
            if memchr::memchr_iter(b'\n', taken).any(|at| at == 0 || taken.get(at - 1) != Some(&b'\r')) {
                return Err(Malformed::Trailers);
            }
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Trailers)?;
                trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Malformed::Trailers)?);
            }
            input.advance(length);
            Ok(Taken::Last((!trailers.is_empty()).then_some(trailers)))
        }
        Ok(httparse::Status::Partial) if input.len() <= MOST_AROUND => Ok(Taken::Nothing),
        Ok(_) | Err(_) => Err(Malformed::Trailers),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Result<Option<Head>, Malformed> {
        take_head(&mut BytesMut::from(text), false)
    }

    fn framed(fields: &str) -> Result<BodyReader, Malformed> {
        head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).map(|head| head.unwrap().body)
    }

    /// What comes of a body that arrives in these pieces: its bytes, its trailers, and whether it has ended.
    fn read(mut reader: BodyReader, pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<HeaderMap>, bool), Malformed> {
        let (mut input, mut all, mut trailers) = (BytesMut::new(), Vec::new(), None);
        for piece in pieces {
            input.extend_from_slice(piece);
            while let Some(frame) = reader.take(&mut input)? {
                match frame.into_data() {
                    Ok(data) => all.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
        }
        Ok((all, trailers, reader.is_at_end()))
    }

    #[test]
    fn the_length_is_one_number_however_it_is_written() {
        assert_eq!(framed(""), Ok(BodyReader::UntilClose));
        for fields in ["content-length: 10\r\n", "content-length: 010\r\n", "Content-Length: 10, 10\r\n"] {
            let head = head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).unwrap().unwrap();
            assert_eq!(head.body, BodyReader::Length(10));
            let passed: Vec<_> = head.response.headers().get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(passed, ["10"], "{fields}");
        }
        let twice = "content-length: 10\r\ncontent-length: 10\r\n";
        assert_eq!(framed(twice), Ok(BodyReader::Length(10)));
        for value in ["", "-1", "+1", "1 0", "0x10", "10, 11", "10,", "99999999999999999999", "1.0"] {
            assert_eq!(framed(&format!("content-length: {value}\r\n")), Err(Malformed::Framing), "{value}");
        }
    }

    #[test]
    fn some_responses_have_no_body_whatever_they_say() {
        for status in [100, 103, 204, 304] {
            let head = head(&format!("HTTP/1.1 {status} x\r\ncontent-length: 10\r\n\r\n")).unwrap().unwrap();
            assert_eq!((head.body, head.is_interim()), (BodyReader::Length(0), status < 200), "{status}");
        }
        let mut to_head = BytesMut::from("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
        assert_eq!(take_head(&mut to_head, true).unwrap().unwrap().body, BodyReader::Length(0));
        assert!(!head("HTTP/1.1 101 x\r\n\r\n").unwrap().unwrap().is_interim());
    }

    #[test]
    fn a_phrase_of_its_own_is_passed_on() {
        let phrase = |text: &str| head(text).unwrap().unwrap().response.extensions().get::<ReasonPhrase>().cloned();
        assert_eq!(phrase("HTTP/1.1 200 Fine\r\n\r\n").unwrap().as_bytes(), b"Fine");
        assert!(phrase("HTTP/1.1 200 OK\r\n\r\n").is_none() && phrase("HTTP/1.1 200 \r\n\r\n").is_none());
    }

    #[test]
    fn heads_are_bounded_in_fields() {
        let with = |count: usize| head(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count)));
        assert_eq!(with(MOST_FIELDS).unwrap().unwrap().response.headers().len(), MOST_FIELDS);
        assert_eq!(with(MOST_FIELDS + 1).err(), Some(Malformed::TooLarge));
        assert!(head("HTTP/1.1 200 OK\r\na: b\r\n").unwrap().is_none(), "it is not whole");
    }

    #[test]
    fn what_is_around_chunks_is_bounded() {
        let chunked = BodyReader::Chunked(Chunk::Line);
        let line = format!("1;{}", "x".repeat(MOST_AROUND));
        assert_eq!(read(chunked, &[line.as_bytes()]), Err(Malformed::Chunks));
        let trailers = format!("0\r\nx: {}", "x".repeat(MOST_AROUND));
        assert_eq!(read(chunked, &[trailers.as_bytes()]), Err(Malformed::Trailers));
        assert_eq!(read(chunked, &[b"fffffffffffffffff\r\n"]), Err(Malformed::Chunks), "more than 64 bits");
    }

    /// A chunk that is longer than its line says would else end the body, and what follows be another response.
    #[test]
    fn a_line_without_a_size_is_no_end() {
        for wire in ["5\r\nhello\r\n\r\n\r\n", "\r\n\r\n", ";a\r\n\r\n", " \r\n\r\n"] {
            let got = read(BodyReader::Chunked(Chunk::Line), &[wire.as_bytes()]);
            assert_eq!(got, Err(Malformed::Chunks), "{wire:?}");
        }
        for wire in ["0\r\n\n", "0\r\na: b\n\r\n", "0\r\na: b\r\n\n"] {
            let got = read(BodyReader::Chunked(Chunk::Line), &[wire.as_bytes()]);
            assert_eq!(got, Err(Malformed::Trailers), "{wire:?}");
        }
    }

    #[test]
    fn a_close_ends_only_what_has_no_other_end() {
        for (mut reader, whole) in [
            (BodyReader::UntilClose, true),
            (BodyReader::Length(0), true),
            (BodyReader::Length(1), false),
            (BodyReader::Chunked(Chunk::Line), false),
            (BodyReader::Chunked(Chunk::Trailers), false),
        ] {
            assert_eq!(reader.close(), whole, "{reader:?}");
            assert!(reader.is_at_end());
        }
    }

    #[test]
    fn a_204_that_announces_a_body_is_the_last_on_its_connection() {
        let persists =
            |fields: &str| head(&format!("HTTP/1.1 204 No Content\r\n{fields}\r\n")).unwrap().unwrap().persists;
        assert!(persists("") && persists("content-length: 0\r\n"));
        let announced = head("HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n").unwrap().unwrap();
        assert!(!announced.response.headers().contains_key("content-length"), "and none is passed on (RFC 9110 §8.6)");
        assert!(!persists("content-length: 2\r\n") && !persists("transfer-encoding: chunked\r\n"));
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_in_whatever_pieces_it_comes(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            extension in "(;[a-z]{1,4}(=[a-z]{1,4})?)?",
            trailer in proptest::option::of("[a-z]{1,8}"),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            let trailers = trailer.as_ref().map_or(String::new(), |value| format!("x: {value}\r\n"));
            wire.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
            let (all, got, ended) = read(BodyReader::Chunked(Chunk::Line), &pieces).unwrap();
            prop_assert_eq!(all, chunks.concat());
            prop_assert_eq!(got.and_then(|map| map.get("x").cloned()), trailer.map(|text| text.parse().unwrap()));
            prop_assert!(ended);
            let (all, _, ended) = read(BodyReader::Length(wire.len() as u64), &pieces).unwrap();
            prop_assert!(all == wire && ended);
        }
    }
}
