//! A host is refused or comes in one form, whatever its spelling.

use headgate::route::host::canonical_host;

pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok((host, port)) = canonical_host(text) else { return };
    assert!(!host.is_empty() && host.is_ascii() && !host.bytes().any(|byte| byte.is_ascii_uppercase()), "{host:?}");
    assert!(!host.contains(['/', '@', '?', '#', ' ', '%', '\\', ',']) && !host.ends_with('.'), "{host:?}");
    assert_ne!(port, Some(0));
    assert_eq!(canonical_host(&host), Ok((host.clone(), None)), "{text:?} is not stable");
    assert_eq!(canonical_host(&text.to_ascii_uppercase()), Ok((host.clone(), port)), "{text:?} in upper case");
    if !host.starts_with('[') {
        assert_eq!(canonical_host(&format!("{host}.")), Ok((host.clone(), None)), "{host:?} with its root");
    }
    let whole = port.map_or(host.to_string(), |port| format!("{host}:{port}"));
    assert_eq!(canonical_host(&whole), Ok((host, port)));
    let uri = http::Uri::builder().scheme("http").authority(&*whole).path_and_query("/").build().unwrap();
    assert_eq!(uri.port_u16(), port, "{whole:?}");
}
