//! Where a pool's endpoints come from, as it is written: an address, a host name with a port, or SRV records.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::base::address::{Address, AddressError};

/// What stands in a list of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// One endpoint.
    Address(Address),
    /// `app.internal:8080`: an endpoint for each address of the name, from A and AAAA records.
    Host {
        /// In lower case; a dot at its end keeps the resolver from trying search domains.
        name: Arc<str>,
        /// Of every endpoint.
        port: u16,
    },
    /// `srv:_http._tcp.app.internal`: endpoints from SRV records (RFC 2782), which bring ports and weights.
    Service(Arc<str>),
}

/// Why a text is no [`Source`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No address, and not meant as a name.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No name of the DNS.
    #[error("`{0}` is no DNS name: labels of 1 to 63 letters, digits, `-` and `_` with dots between, 253 in all")]
    Name(String),
    /// An IPv4 address that is not written in full.
    #[error("`{0}` ends in a number: an IP address is written in full, as `127.0.0.1`")]
    Number(String),
    /// A port behind the name of a service.
    #[error("SRV records bring the port: write `srv:{0}`")]
    ServicePort(String),
}

impl Source {
    /// The address, where it is one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Address(address) => Some(address),
            Self::Host { .. } | Self::Service(_) => None,
        }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if let Some(service) = text.strip_prefix("srv:") {
            if let Some((name, _)) = service.rsplit_once(':') {
                return Err(SourceError::ServicePort(name.to_owned()));
            }
            return name(service).map(Self::Service);
        }
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(AddressError::Name(host)) => {
                let port = text.get(host.len() + 1..).and_then(|port| port.parse().ok());
                let port = port.filter(|port| *port != 0).ok_or(AddressError::Port)?;
                Ok(Self::Host { name: name(&host)?, port })
            }
            Err(other) => Err(other.into()),
        }
    }
}

/// A name in lower case. Underscores are no letters of host names and yet in use.
fn name(text: &str) -> Result<Arc<str>, SourceError> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let mut labels = bare.split('.');
    let fine = labels.all(|label| (1..=63).contains(&label.len()) && label.bytes().all(letters));
    if !fine || bare.len() > 253 {
        return Err(SourceError::Name(text.to_owned()));
    }
    if bare.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err(SourceError::Number(text.to_owned()));
    }
    Ok(text.to_ascii_lowercase().into())
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Service(name) => write!(f, "srv:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_read_and_print_alike() {
        for text in [
            "127.0.0.1:7001",
            "[::1]:7001",
            "unix:/run/app.sock",
            "app:80",
            "app.internal:8080",
            "a_b.x-1.internal.:1",
            "srv:_http._tcp.app.internal",
            "srv:app.",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!("App.Internal:80".parse::<Source>().unwrap().to_string(), "app.internal:80");
        assert_eq!("localhost:80".parse::<Source>().unwrap().to_string(), "127.0.0.1:80");
    }

    #[test]
    fn faulty_sources_say_what_is_wrong() {
        let told = |text: &str| text.parse::<Source>().unwrap_err().to_string();
        for text in ["app..internal:80", "-é:80", "a b:80", &format!("{}:80", "a".repeat(64)), "srv:", "srv:.", "*:1"]
        {
            assert!(told(text).contains("no DNS name"), "{text}: {}", told(text));
        }
        let long = format!("{}:80", vec!["abcdefg"; 32].join("."));
        assert!(told(&long).contains("no DNS name"));
        for text in ["127.1:80", "300.0.0.1:80", "app.1:80"] {
            assert!(told(text).contains("ends in a number"), "{text}: {}", told(text));
        }
        for text in ["app", "app:", "app:0", "app:65536", "app.internal"] {
            assert!(told(text).contains("needs a port from 1 to 65535"), "{text}: {}", told(text));
        }
        assert!(told("srv:_http._tcp.app:80").contains("write `srv:_http._tcp.app`"));
        assert!(told("http://app:80/").contains("no scheme"));
    }
}
