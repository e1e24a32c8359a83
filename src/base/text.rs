//! Numbers and addresses as text, appended: `fmt` takes several times as long, and these are of each connection or line.

use std::io::Write as _;
use std::net::IpAddr;

/// In decimal.
pub fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - used..).unwrap_or_default());
}

/// As `Display` writes it.
pub fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (at, part) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                push_number(out, part.into());
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_written_as_display_writes_them(number in any::<u64>(), ip in any::<IpAddr>()) {
            let mut out = b"x".to_vec();
            push_number(&mut out, number);
            out.push(b' ');
            push_ip(&mut out, ip);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("x{number} {ip}"));
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        let text = |number| {
            let mut out = Vec::new();
            push_number(&mut out, number);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            (text(0), text(9), text(10), text(u64::MAX)),
            ("0".into(), "9".into(), "10".into(), u64::MAX.to_string())
        );
    }
}
