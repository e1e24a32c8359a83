//! One port for each listener, known to be free before anything starts.
//!
//! Free ports are looked for below the range the kernel takes outgoing connections' ports from
//! (`ip_local_port_range`, from 32768 up): a server that is killed and restarted during the tour must find its
//! port again, and the tour's own connections must not have taken it meanwhile.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

use crate::options::{Options, PortChoice};

const FREE_PORTS: std::ops::Range<u16> = 20000..32000;

/// Where everything listens.
#[derive(Debug, Clone)]
pub struct Ports {
    /// headgate, cleartext.
    pub http: SocketAddr,
    /// headgate, TLS.
    pub https: SocketAddr,
    /// headgate's own metrics and readiness.
    pub metrics: SocketAddr,
    /// The two read servers.
    pub read: [SocketAddr; 2],
    /// The active write server and its backup.
    pub write: [SocketAddr; 2],
    /// The database primary.
    pub primary: SocketAddr,
    /// The database replica.
    pub replica: SocketAddr,
}

/// A port somebody asked for, and what to say when it cannot be had.
struct Wanted {
    what: &'static str,
    flag: &'static str,
    ip: IpAddr,
    port: u16,
}

impl Ports {
    /// Takes the ports the options name, finds free ones for those that are 0, and checks that each can be bound.
    /// Database ports are not looked at when there is no database server to start.
    pub fn plan(options: &Options, with_database: bool) -> Result<Self> {
        let mut finder = Finder::new(options.ports);
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut take = |what, flag, ip, base: u16, offset: u16| {
            let port = if base == 0 { 0 } else { base.saturating_add(offset) };
            finder.take(&Wanted { what, flag, ip, port })
        };
        let (apps, db) = (options.base_port, options.db_port);
        let unused = SocketAddr::new(local, 0);
        Ok(Self {
            http: take("headgate http", "--http-port", options.bind, options.http_port, 0)?,
            https: take("headgate https", "--https-port", options.bind, options.https_port, 0)?,
            metrics: take("headgate metrics", "--metrics-port", local, options.metrics_port, 0)?,
            read: [
                take("app server read-1", "--base-port", local, apps, 0)?,
                take("app server read-2", "--base-port", local, apps, 1)?,
            ],
            write: [
                take("app server write-1", "--base-port", local, apps, 10)?,
                take("app server write-2", "--base-port", local, apps, 11)?,
            ],
            primary: if with_database { take("database primary", "--db-port", local, db, 0)? } else { unused },
            replica: if with_database { take("database replica", "--db-port", local, db, 1)? } else { unused },
        })
    }
}

/// Hands out ports; the listeners that prove them free stay open until all are chosen, so no two are the same.
struct Finder {
    choice: PortChoice,
    candidates: std::ops::Range<u16>,
    held: Vec<TcpListener>,
}

impl Finder {
    fn new(choice: PortChoice) -> Self {
        // Stacks that start at the same moment begin their search at different places.
        let span = u32::from(FREE_PORTS.end - FREE_PORTS.start - 1000);
        let offset = u16::try_from(std::process::id().wrapping_mul(97) % span).unwrap_or(0);
        Self { choice, candidates: FREE_PORTS.start + offset..FREE_PORTS.end, held: Vec::new() }
    }

    fn take(&mut self, wanted: &Wanted) -> Result<SocketAddr> {
        if self.choice == PortChoice::Auto || wanted.port == 0 {
            return self.free(wanted);
        }
        let address = SocketAddr::new(wanted.ip, wanted.port);
        match self.hold(address) {
            Ok(()) => Ok(address),
            Err(error) => {
                let why = match error.kind() {
                    ErrorKind::AddrInUse => "is in use".to_owned(),
                    ErrorKind::PermissionDenied => "may only be bound by root".to_owned(),
                    ErrorKind::AddrNotAvailable => "is on an address this machine does not have".to_owned(),
                    _ => format!("cannot be bound ({error})"),
                };
                bail!(
                    "port {address} ({what}) {why}; choose another with {flag} PORT, or take free ones with --ports auto",
                    what = wanted.what,
                    flag = wanted.flag,
                )
            }
        }
    }

    fn free(&mut self, wanted: &Wanted) -> Result<SocketAddr> {
        while let Some(port) = self.candidates.next() {
            let address = SocketAddr::new(wanted.ip, port);
            if self.hold(address).is_ok() {
                return Ok(address);
            }
        }
        bail!("no free port between {} and {} for {}", FREE_PORTS.start, FREE_PORTS.end, wanted.what)
    }

    fn hold(&mut self, address: SocketAddr) -> std::io::Result<()> {
        self.held.push(TcpListener::bind(address)?);
        Ok(())
    }
}
