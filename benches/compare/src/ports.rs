//! One free port of loopback for each listener.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Below the ports that Linux gives to outgoing connections: none of the load's may take one meanwhile.
const FIRST: u16 = 18_700;
const LAST: u16 = 19_900;

/// The ports.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// The origin's.
    pub origin: u16,
    /// The stand-in's.
    pub stand_in: u16,
    /// The relay's.
    pub relay: u16,
    /// nginx's, for HTTP and HTTPS; likewise below.
    pub nginx: [u16; 2],
    /// HAProxy's.
    pub haproxy: [u16; 2],
    /// headgate's.
    pub headgate: [u16; 2],
    /// headgate's metrics and admin API.
    pub control: [u16; 2],
}

// === impl Ports ===

impl Ports {
    /// Finds ports that nobody listens on.
    pub fn find() -> Result<Self> {
        let mut held = Vec::new();
        let mut candidates = FIRST..LAST;
        let mut next = || -> Result<u16> {
            for port in candidates.by_ref() {
                if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                    held.push(listener);
                    return Ok(port);
                }
            }
            bail!("no free port from {FIRST} to {LAST}")
        };
        Ok(Self {
            origin: next()?,
            stand_in: next()?,
            relay: next()?,
            nginx: [next()?, next()?],
            haproxy: [next()?, next()?],
            headgate: [next()?, next()?],
            control: [next()?, next()?],
        })
    }
}
