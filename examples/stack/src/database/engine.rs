//! Which database server is installed, and how its kind is installed into a directory, served and followed.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::database::{mariadb, mysql};

/// Directories of server programs that an ordinary user's PATH lacks.
const SERVER_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin"];

/// An installed database server.
#[derive(Debug, Clone)]
pub struct Engine {
    kind: Kind,
    server: PathBuf,
    /// Major and minor: a data directory of one is not given to another.
    version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    MariaDb,
    MySql,
}

/// One server of the pair.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name among the processes.
    pub name: &'static str,
    /// The name of the step that makes its directory.
    pub install_name: &'static str,
    /// Primary or replica.
    pub role: Role,
    /// Its data directory.
    pub directory: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a server of the pair is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes writes, and keeps the binary log.
    Primary,
    /// Follows, and refuses writes.
    Replica,
}

// === impl Engine ===

impl Engine {
    /// The installed server: MariaDB when there is one.
    pub fn find() -> Result<Option<Self>> {
        let Some(server) = find_program("mariadbd").or_else(|| find_program("mysqld")) else {
            return Ok(None);
        };
        let output = Command::new(&server)
            .args(["--no-defaults", "--version"])
            .output()
            .with_context(|| format!("cannot ask {} for its version", server.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let kind = if text.contains("MariaDB") { Kind::MariaDb } else { Kind::MySql };
        Ok(Some(Self { kind, server, version: short_version(&text) }))
    }

    /// The server program.
    pub fn server(&self) -> &Path {
        &self.server
    }

    /// Kind and version, as the name of the directory its data is in.
    pub fn label(&self) -> String {
        let kind = match self.kind {
            Kind::MariaDb => "mariadb",
            Kind::MySql => "mysql",
        };
        format!("{kind}-{}", self.version)
    }

    /// The program and arguments that fill an empty data directory.
    pub(super) fn install(&self, member: &Member) -> Result<(PathBuf, Vec<OsString>)> {
        match self.kind {
            Kind::MariaDb => mariadb::install(member),
            Kind::MySql => Ok((self.server.clone(), mysql::install(member))),
        }
    }

    /// The arguments that serve a data directory.
    pub(super) fn serve(&self, member: &Member) -> Vec<OsString> {
        let mut arguments = common_arguments(member);
        arguments.extend(match self.kind {
            Kind::MariaDb => mariadb::serve(member.role),
            Kind::MySql => mysql::serve(member.role),
        });
        arguments
    }

    /// The statements that make a replica follow the primary at `primary`.
    pub(super) fn follow(&self, primary: SocketAddr) -> Vec<String> {
        match self.kind {
            Kind::MariaDb => mariadb::follow(primary),
            Kind::MySql => mysql::follow(primary),
        }
    }

    /// The query that tells how replication goes.
    pub(super) fn status_query(&self) -> &'static str {
        match self.kind {
            Kind::MariaDb => mariadb::STATUS_QUERY,
            Kind::MySql => mysql::STATUS_QUERY,
        }
    }
}

// === impl Member ===

impl Member {
    /// The primary, in its directory below `place`.
    pub fn primary(place: &Path, address: SocketAddr) -> Self {
        Self {
            name: "primary",
            install_name: "primary-install",
            role: Role::Primary,
            directory: place.join("primary"),
            address,
        }
    }

    /// The replica, in its directory below `place`.
    pub fn replica(place: &Path, address: SocketAddr) -> Self {
        Self {
            name: "replica",
            install_name: "replica-install",
            role: Role::Replica,
            directory: place.join("replica"),
            address,
        }
    }

    /// The statements the server runs before it takes connections.
    pub fn init_file(&self) -> PathBuf {
        self.directory.join("init.sql")
    }
}

// === impl Role ===

impl Role {
    /// For the table.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Primary => "database, primary",
            Self::Replica => "database, read-only replica",
        }
    }
}

/// A program on the PATH or where servers are usually installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(SERVER_DIRECTORIES.iter().map(PathBuf::from));
    directories.map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// What every server of every kind is given. `--no-defaults` comes first: no file of the system's is read.
///
/// Commits are handed to the operating system and not forced to the disk: the pair outlives the death of its
/// processes, which the tour is about, and a machine that loses its power loses a demonstration.
fn common_arguments(member: &Member) -> Vec<OsString> {
    let mut arguments = no_defaults(member);
    arguments.extend(words(&[
        &format!("--port={}", member.address.port()),
        &format!("--bind-address={}", member.address.ip()),
        // Below the data directory, which the server makes its working directory: the path cannot be too long.
        "--socket=db.sock",
        "--pid-file=db.pid",
        "--skip-name-resolve",
        "--character-set-server=utf8mb4",
        "--max-connections=200",
        "--innodb-buffer-pool-size=64M",
        "--innodb-flush-log-at-trx-commit=2",
        // Asynchronous I/O is refused in many containers, and a demonstration does not miss it.
        "--innodb-use-native-aio=0",
        "--performance-schema=0",
        "--loose-skip-slave-start",
    ]));
    arguments.push(with_path("--init-file=", &member.init_file()));
    arguments
}

/// The arguments that name the data directory and, when we are root, keep the server from refusing to run.
pub(super) fn no_defaults(member: &Member) -> Vec<OsString> {
    let mut arguments = words(&["--no-defaults"]);
    arguments.push(with_path("--datadir=", &member.directory));
    if nix::unistd::geteuid().is_root() {
        arguments.extend(words(&["--user=root"]));
    }
    arguments
}

pub(super) fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn with_path(option: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(path);
    argument
}

/// `10.11` of "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for …".
fn short_version(text: &str) -> String {
    let version = text.split_whitespace().skip_while(|word| *word != "Ver").nth(1).unwrap_or("unknown");
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::short_version;

    #[test]
    fn the_version_is_major_and_minor() {
        let cases = [
            ("/usr/sbin/mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)", "10.11"),
            ("/usr/sbin/mysqld  Ver 8.0.43 for Linux on x86_64 (MySQL Community Server - GPL)", "8.0"),
            ("nonsense", "unknown"),
        ];
        for (text, version) in cases {
            assert_eq!(short_version(text), version);
        }
    }
}
