//! A gRPC health check's answer is a fault or one status, whatever stands around it.

use headgate::upstream::health::probe::health_v1::{ServingStatus, request, response};

pub fn target(data: &[u8]) {
    if let Ok(service) = std::str::from_utf8(data) {
        let framed = request(service);
        let length = u32::from_be_bytes(framed[1..5].try_into().unwrap()) as usize;
        assert!(framed[0] == 0 && framed.len() == 5 + length && framed.ends_with(service.as_bytes()), "{framed:?}");
        // Whoever reads it as an answer finds an unknown field of text: only the number differs.
        let mut as_other_field = framed;
        if let Some(key) = as_other_field.get_mut(5) {
            *key = 0x12;
        }
        assert_eq!(response(&as_other_field), Ok(ServingStatus::Unknown), "{service:?}");
    }
    let Ok(status) = response(data) else { return };
    let length = u32::from_be_bytes(data[1..5].try_into().unwrap()) as usize;
    assert!(data[0] == 0 && data.len() == 5 + length, "{data:?}");
    // A field put before it changes nothing, one put behind it decides.
    let with = |before: &[u8], behind: &[u8]| {
        let message = [before, &data[5..], behind].concat();
        response(&[&[0], &(message.len() as u32).to_be_bytes()[..], &message].concat())
    };
    assert_eq!(with(&[0x10, 7], &[]), Ok(status));
    assert_eq!(with(&[], &[8, 1]), Ok(ServingStatus::Serving));
    if let ServingStatus::Other(number) = status {
        assert!(!(0..=3).contains(&number), "{number}");
    }
}
