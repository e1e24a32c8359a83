//! The flags of `notes`, parsed once into values that the rest of the program can trust.
//!
//! Every flag has an environment variable too, so that a database password need not stand in the
//! process list.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, ValueEnum};

/// A small note service: the reference app behind headgate.
#[derive(Debug, Parser)]
#[command(name = "notes", version)]
pub(crate) struct Options {
    /// Address to listen on; port 0 takes a free one. `listening on ADDR` on stdout says which.
    #[arg(long, env = "NOTES_LISTEN", default_value = "127.0.0.1:7001")]
    pub(crate) listen: SocketAddr,

    /// Name of this server in `X-Served-By`: letters, digits, `.`, `_` and `-`.
    #[arg(long, env = "NOTES_NAME", default_value = "notes")]
    pub(crate) name: ServerName,

    /// What this server answers; `write` and `all` also create the schema.
    #[arg(long, env = "NOTES_ROLE", value_enum, default_value_t = Role::All)]
    pub(crate) role: Role,

    /// Where the notes are: `sqlite:/path/to/file.db`, `sqlite::memory:` or
    /// `mysql://user:password@127.0.0.1:3306/notes` (also with `?socket=/path`).
    #[arg(long, env = "NOTES_STORE", default_value = "sqlite::memory:", hide_env_values = true)]
    pub(crate) store: StoreAddress,

    /// How long a stop waits for requests in flight.
    #[arg(long, env = "NOTES_DRAIN_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) drain_timeout: Duration,
}

/// Which requests a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Only reads; its database may be a replica, and it never creates or changes anything.
    Read,
    /// Reads and writes; in a split set-up the one that gets the writes.
    Write,
    /// Reads and writes; the only server of a small set-up.
    All,
}

/// The name of a server, safe to stand in a header.
#[derive(Debug, Clone)]
pub(crate) struct ServerName(String);

/// Where the notes are kept.
#[derive(Clone)]
pub(crate) enum StoreAddress {
    /// SQLite in this process's memory: gone with the process.
    Memory,
    /// A SQLite file, which several servers may share.
    File(PathBuf),
    /// A MySQL or MariaDB server.
    Mysql(mysql_async::Opts),
}

// === impl Role ===

impl Role {
    /// Whether this server may change notes.
    pub(crate) fn writes(self) -> bool {
        match self {
            Self::Read => false,
            Self::Write | Self::All => true,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::All => "all",
        })
    }
}

// === impl ServerName ===

impl FromStr for ServerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=64).contains(&text.len());
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if fits && plain {
            Ok(Self(text.to_owned()))
        } else {
            Err("1 to 64 letters, digits, '.', '_' or '-' are expected".to_owned())
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl StoreAddress ===

impl FromStr for StoreAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            return match path {
                "" => Err("a path is expected after 'sqlite:'".to_owned()),
                ":memory:" => Ok(Self::Memory),
                path => Ok(Self::File(PathBuf::from(path))),
            };
        }
        if !text.starts_with("mysql:") {
            return Err("'sqlite:PATH', 'sqlite::memory:' or 'mysql://..' is expected".to_owned());
        }
        let opts = mysql_async::Opts::from_url(text).map_err(|error| error.to_string())?;
        if opts.db_name().is_none() {
            return Err("a database name is expected: 'mysql://user@host/NAME'".to_owned());
        }
        Ok(Self::Mysql(opts))
    }
}

/// Without the password.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("sqlite::memory:"),
            Self::File(path) => write!(f, "sqlite:{}", path.display()),
            Self::Mysql(opts) => {
                let name = opts.db_name().unwrap_or_default();
                match opts.socket() {
                    Some(socket) => write!(f, "mysql: {name} at {socket}"),
                    None => write!(f, "mysql: {name} at {}:{}", opts.ip_or_hostname(), opts.tcp_port()),
                }
            }
        }
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_address_is_one_of_three_kinds() {
        let shown = |text: &str| text.parse::<StoreAddress>().map(|store| store.to_string());
        assert_eq!(shown("sqlite::memory:"), Ok("sqlite::memory:".to_owned()));
        assert_eq!(shown("sqlite:/var/n.db"), Ok("sqlite:/var/n.db".to_owned()));
        assert_eq!(shown("mysql://a:secret@127.0.0.1:3307/notes"), Ok("mysql: notes at 127.0.0.1:3307".to_owned()));
        assert_eq!(shown("mysql://a@localhost/notes?socket=/run/m.sock"), Ok("mysql: notes at /run/m.sock".to_owned()));
        for bad in ["", "sqlite:", "postgres://x/y", "mysql://", "mysql://a@b", "mysql://a@b/c?nonsense=1"] {
            assert!(bad.parse::<StoreAddress>().is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn a_server_name_cannot_break_a_header() {
        for bad in ["", "a b", "a\r\nb", "é"] {
            assert!(bad.parse::<ServerName>().is_err(), "{bad:?} must be refused");
        }
        assert!("write-1.local_2".parse::<ServerName>().is_ok());
    }
}
