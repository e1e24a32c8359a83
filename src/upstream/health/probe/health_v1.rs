//! The two messages of `grpc.health.v1.Health/Check`, by hand: a code generator and a gRPC stack for one string and one
//! number were refused. Pure.
//!
//! Sources: grpc/grpc `doc/health-checking.md` (the service), `doc/PROTOCOL-HTTP2.md` (Length-Prefixed-Message), and
//! the Protocol Buffers encoding guide (wire types, varints; of a field that comes twice the last one counts).

/// What the service answers of itself: `HealthCheckResponse.ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingStatus {
    /// 0, which is also a status that was left out.
    Unknown,
    /// 1: the only healthy one.
    Serving,
    /// 2.
    NotServing,
    /// 3: for `Watch` alone.
    ServiceUnknown,
    /// A number that the service may get later.
    Other(i32),
}

/// Why bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageFault {
    /// Fewer bytes than announced, or more.
    #[error("the message has another length than announced")]
    Length,
    /// It is compressed, and nothing was offered.
    #[error("the message is compressed")]
    Compressed,
    /// No Protocol Buffers.
    #[error("the message is malformed")]
    Malformed,
}

/// A `HealthCheckRequest` as a Length-Prefixed-Message.
pub fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    // A field with its default is left out.
    if !service.is_empty() {
        // Field 1, length-delimited.
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.append(&mut message);
    framed
}

/// Reads a Length-Prefixed-Message with a `HealthCheckResponse`: all of a response's body.
///
/// # Errors
/// [`MessageFault`], where the bytes are not exactly one such message.
pub fn response(body: &[u8]) -> Result<ServingStatus, MessageFault> {
    let ([compressed, length @ ..], message) = body.split_first_chunk::<5>().ok_or(MessageFault::Length)?;
    match compressed {
        0 => {}
        1 => return Err(MessageFault::Compressed),
        _ => return Err(MessageFault::Malformed),
    }
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err(MessageFault::Length);
    }
    let mut fields = Fields(message);
    let mut status = 0;
    while !fields.0.is_empty() {
        // Only the low 32 bits of an enumeration count, and of a field's key there are no others.
        let key = u32::try_from(fields.varint()?).map_err(|_| MessageFault::Malformed)?;
        match (key >> 3, key & 7) {
            (0, _) => return Err(MessageFault::Malformed),
            (1, 0) => status = fields.varint()? as i32,
            (_, 0) => drop(fields.varint()?),
            (_, 1) => fields.skip(8)?,
            (_, 2) => {
                let length = usize::try_from(fields.varint()?).map_err(|_| MessageFault::Malformed)?;
                fields.skip(length)?;
            }
            (_, 5) => fields.skip(4)?,
            // Groups, which proto3 has not, and what is no wire type.
            _ => return Err(MessageFault::Malformed),
        }
    }
    Ok(match status {
        0 => ServingStatus::Unknown,
        1 => ServingStatus::Serving,
        2 => ServingStatus::NotServing,
        3 => ServingStatus::ServiceUnknown,
        other => ServingStatus::Other(other),
    })
}

/// What is left of a message.
struct Fields<'m>(&'m [u8]);

impl Fields<'_> {
    /// At most ten bytes, of which the last brings one bit.
    fn varint(&mut self) -> Result<u64, MessageFault> {
        let mut value = 0;
        for at in 0..10 {
            let (&byte, rest) = self.0.split_first().ok_or(MessageFault::Malformed)?;
            self.0 = rest;
            if at == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(MessageFault::Malformed)
    }

    fn skip(&mut self, count: usize) -> Result<(), MessageFault> {
        self.0 = self.0.get(count..).ok_or(MessageFault::Malformed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    #[test]
    fn messages_are_those_of_the_encoding_guide() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        assert_eq!(response(&framed(&[])), Ok(ServingStatus::Unknown));
        assert_eq!(response(&framed(&[8, 1])), Ok(ServingStatus::Serving));
        assert_eq!(response(&framed(&[8, 2])), Ok(ServingStatus::NotServing));
        assert_eq!(response(&framed(&[8, 3])), Ok(ServingStatus::ServiceUnknown));
        assert_eq!(response(&framed(&[8, 1, 8, 2])), Ok(ServingStatus::NotServing), "the last one counts");
        let minus_one = [&[8][..], &varint(u64::MAX)].concat();
        assert_eq!(response(&framed(&minus_one)), Ok(ServingStatus::Other(-1)));
    }

    #[test]
    fn what_is_no_message_is_told() {
        assert_eq!(response(&[]), Err(MessageFault::Length));
        assert_eq!(response(&[0, 0, 0, 0, 3, 8, 1]), Err(MessageFault::Length));
        assert_eq!(response(&[0, 0, 0, 0, 1, 8, 1]), Err(MessageFault::Length));
        assert_eq!(response(&[1, 0, 0, 0, 2, 8, 1]), Err(MessageFault::Compressed));
        assert_eq!(response(&[2, 0, 0, 0, 2, 8, 1]), Err(MessageFault::Malformed));
        let endless = [0xff; 11];
        let malformed: [&[u8]; 8] =
            [&[8], &[8, 0x80], &[0, 1], &[11], &[14], &[18, 5, 0], &[21, 0, 0, 0], &[&[8], &endless[..]].concat()];
        for message in malformed {
            assert_eq!(response(&framed(message)), Err(MessageFault::Malformed), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn a_request_is_read_back(service in "[a-zA-Z0-9._/-]{1,300}") {
            let framed = request(&service);
            prop_assert_eq!(&framed[..5], &[&[0][..], &(framed.len() as u32 - 5).to_be_bytes()].concat()[..]);
            let mut fields = Fields(&framed[5..]);
            prop_assert_eq!(fields.varint(), Ok(0x0a));
            prop_assert_eq!(fields.varint(), Ok(service.len() as u64));
            prop_assert_eq!(fields.0, service.as_bytes());
        }

        /// Whatever fields a later version puts around it, the status is found.
        #[test]
        fn fields_that_are_not_known_are_passed_over(
            status in 0_u64..9, number in 2_u64..5000, value in any::<u64>(),
            bytes in prop::collection::vec(any::<u8>(), 0..300), first in any::<bool>(),
        ) {
            let own = [vec![8], varint(status)].concat();
            let strangers = [
                [varint(number << 3), varint(value)].concat(),
                [varint(number << 3 | 1), value.to_le_bytes().to_vec()].concat(),
                [varint(number << 3 | 2), varint(bytes.len() as u64), bytes].concat(),
                [varint(number << 3 | 5), value.to_le_bytes()[..4].to_vec()].concat(),
            ].concat();
            let message = if first { [own, strangers].concat() } else { [strangers, own].concat() };
            let alone = response(&framed(&[vec![8], varint(status)].concat()));
            prop_assert!(alone.is_ok());
            prop_assert_eq!(response(&framed(&message)), alone);
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = response(&body);
            let _ = response(&framed(&body));
        }
    }
}
