//! What an endpoint's `Keep-Alive` says: a hint that is understood as it stands or not at all.

use std::time::Duration;

use headgate::upstream::connection::lifetime::keep_alive_timeout;

pub fn target(data: &[u8]) {
    let told = keep_alive_timeout(data);
    if let Some(timeout) = told {
        assert!(timeout <= Duration::from_secs(86_400) && timeout.subsec_nanos() == 0);
        let number = timeout.as_secs().to_string();
        assert!(data.windows(number.len()).any(|part| part == number.as_bytes()), "{number} stands nowhere");
        assert!(data.to_ascii_lowercase().windows(7).any(|part| part == b"timeout"));
    }
    // What stands behind it changes nothing, and the first of several counts.
    for more in [&b", max=5"[..], b", timeout=7", b";x", b","] {
        let with = [data, more].concat();
        assert!(told.is_none() || keep_alive_timeout(&with) == told, "{}", with.escape_ascii());
    }
}
