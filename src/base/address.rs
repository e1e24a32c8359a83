//! Addresses that headgate dials or binds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Where an endpoint listens, or where the admin API does: TCP or a unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a stream socket, written `unix:/path`.
    Unix(PathBuf),
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// `unix:` with nothing behind it.
    #[error("a unix address needs a path: `unix:/run/app.sock`")]
    EmptyPath,
    /// No port, or one outside 1 to 65535.
    #[error("an address needs a port from 1 to 65535: `127.0.0.1:7001` or `[::1]:7001`")]
    Port,
    /// A URL.
    #[error("an address has no scheme and no path: write `{0}`")]
    Scheme(String),
    /// Only a port.
    #[error("the IP address is missing: `0.0.0.0:{0}` is every interface, `127.0.0.1:{0}` this machine alone")]
    Host(u16),
    /// A host name where only IP addresses are understood.
    #[error("`{0}` is a name: this version takes IP addresses (and `localhost`), so write `127.0.0.1:7001`")]
    Name(String),
}

impl Address {
    /// The TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(AddressError::EmptyPath),
                path => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        if let Some((_, rest)) = text.split_once("://") {
            return Err(AddressError::Scheme(rest.split('/').next().unwrap_or_default().to_owned()));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Tcp(address));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(AddressError::Port);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::Port)?;
        let port: u16 = port.parse().map_err(|_| AddressError::Port)?;
        match host {
            // RFC 6761 §6.3: the name localhost is always loopback.
            "localhost" => Ok(Self::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
            "" => Err(AddressError::Host(port)),
            _ => Err(AddressError::Name(host.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print_alike() {
        for text in ["127.0.0.1:7001", "[::1]:7001", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("localhost:80".parse::<Address>().unwrap().to_string(), "127.0.0.1:80");
    }

    #[test]
    fn faulty_addresses_say_what_is_wrong() {
        assert_eq!("unix:".parse::<Address>(), Err(AddressError::EmptyPath));
        for text in ["127.0.0.1", "::1", "127.0.0.1:99999", "app", ""] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Port), "{text}");
        }
        assert_eq!("app.internal:80".parse::<Address>(), Err(AddressError::Name("app.internal".into())));
        assert_eq!("http://127.0.0.1:80/x".parse::<Address>(), Err(AddressError::Scheme("127.0.0.1:80".into())));
        assert_eq!(":8080".parse::<Address>(), Err(AddressError::Host(8080)));
    }
}
