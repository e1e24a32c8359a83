//! An entry of a list of endpoints is refused or comes in one form, and no name in it can be mistaken for an address.

use std::net::IpAddr;

use headgate::base::source::Source;

pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(source) = text.parse::<Source>() else { return };
    let written = source.to_string();
    assert_eq!(written.parse(), Ok(source.clone()), "{text:?} is not stable");
    let name = match &source {
        Source::Address(_) => return,
        Source::Host { name, port } => {
            assert_ne!(*port, 0, "{text:?}");
            name
        }
        Source::Service(name) => name,
    };
    assert!(name.len() <= 254 && !name.starts_with('.') && !name.contains(".."), "{text:?}");
    assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)), "{text:?}");
    assert!(name.trim_end_matches('.').parse::<IpAddr>().is_err(), "{text:?}");
    assert_eq!(text.to_ascii_uppercase().replace("SRV:", "srv:").parse(), Ok(source), "{text:?} in upper case");
}
