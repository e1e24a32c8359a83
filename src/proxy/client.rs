//! The client's side of a request: the connection it came on, and who is behind it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use crate::base::id::ListenerIndex;
use crate::base::reason::Reason;
use crate::base::record::RequestIdText;
use crate::config::model::{Name, Scheme};
use crate::proxy::admit::Authority;
use crate::proxy::upgrade::Tunnel;
use crate::proxy::worker::{WorkerContext, WorkerSnapshot};

/// What is known of a connection's TLS.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The name that the client asked for.
    pub server_name: Option<String>,
}

/// One client connection, as its requests see it.
pub struct ConnectionInfo {
    /// The listener that accepted it.
    pub listener: Name,
    /// The peer's address (not what a header claims).
    pub peer: IpAddr,
    /// The same as a field's value, made once.
    pub peer_field: HeaderValue,
    /// TLS, where it is used.
    pub tls: Option<TlsInfo>,
    /// The snapshot it was accepted under: where its listener is gone from newer ones, requests use this.
    pub accepted_under: Rc<WorkerSnapshot>,
    /// The host that its last request named.
    pub authority: RefCell<Option<Rc<Authority>>>,
    /// Requests that run on it now.
    pub running: Cell<u32>,
    /// Set by each change of `running`, for the driver's timers.
    pub on_change: Cell<bool>,
    /// Why the connection was closed under its requests, where it was not the client who did it.
    pub closed_for: Cell<Option<Reason>>,
    /// The last request was refused, so the client may still be sending when the connection is closed.
    pub lingers: Cell<bool>,
    /// Likewise: the body of the last request has not been read to its end. HTTP/1.1 only.
    pub unread: Cell<bool>,
    /// The close may be all that tells a client of HTTP/1.0 that it has the whole response.
    pub ends_by_close: Cell<bool>,
    /// The client has asked for the close behind this request, and sends nothing more. HTTP/1.1 only.
    pub last_request: Cell<bool>,
    /// The connection is on its way out: its next response tells so. HTTP/1.1 only.
    pub last_response: Cell<bool>,
    /// A tunnel that an upgrade has set up; the driver takes it when hyper lets go of the connection.
    pub tunnel: RefCell<Option<Tunnel>>,
}

/// One running request: counts itself out when dropped.
pub struct RequestGuard(Rc<ConnectionInfo>);

impl ConnectionInfo {
    /// Cleartext or TLS.
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// Why a response cannot be brought to its end.
    pub(super) fn gone(&self) -> Reason {
        self.closed_for.get().unwrap_or(Reason::ClientGone)
    }

    /// Counts a request in.
    pub(super) fn begin_request(self: &Rc<Self>) -> RequestGuard {
        self.running.set(self.running.get() + 1);
        self.on_change.set(true);
        self.lingers.set(false);
        RequestGuard(self.clone())
    }

    /// The newest snapshot and this connection's listener in it.
    pub(super) fn snapshot(&self, worker: &WorkerContext) -> (Rc<WorkerSnapshot>, ListenerIndex) {
        let newest = worker.snapshot();
        match newest.listener_named(&self.listener) {
            Some(index) => (newest, index),
            None => {
                let index = self.accepted_under.listener_named(&self.listener).unwrap_or(ListenerIndex(0));
                (self.accepted_under.clone(), index)
            }
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get().saturating_sub(1));
        self.0.on_change.set(true);
    }
}

/// Who is behind a request, after `trusted_proxies`.
pub(super) struct Client {
    /// The first address from the right that is no trusted proxy.
    pub ip: IpAddr,
    /// The peer's forwarding headers are believed, and kept.
    pub trusted: bool,
    /// A trusted peer's `X-Request-Id`, or a new one.
    pub request_id: RequestIdText,
}

/// Finds out who is behind a request.
pub(super) fn identify(headers: &HeaderMap, peer: IpAddr, trusted_proxies: &[IpNet]) -> Client {
    let Some(ip) = behind(headers, peer, trusted_proxies) else {
        return Client { ip: peer, trusted: false, request_id: RequestIdText::generate() };
    };
    let peers_id = headers
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= 128);
    let request_id = peers_id.map_or_else(RequestIdText::generate, |id| RequestIdText::Peer(id.into()));
    Client { ip, trusted: true, request_id }
}

/// The first address from the right that is no trusted proxy, as far as it can be read; none where the peer itself is
/// not trusted.
#[doc(hidden)]
pub fn behind(headers: &HeaderMap, peer: IpAddr, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |ip: &IpAddr| trusted_proxies.iter().any(|net| net.contains(ip));
    is_trusted(&peer).then_some(())?;
    let mut ip = peer;
    let lines: Vec<&[u8]> = headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes()).collect();
    // As bytes: to pass over a line because of one byte in it would believe the one before, which anybody may have sent.
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        let hop = std::str::from_utf8(hop.trim_ascii()).ok().and_then(|hop| hop.parse::<IpAddr>().ok());
        let Some(hop) = hop else { break };
        ip = hop;
        if !is_trusted(&hop) {
            break;
        }
    }
    Some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_beyond_ascii_does_not_hide_the_line_that_a_trusted_proxy_added_to() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "203.0.113.9".parse().unwrap());
        headers.append("x-forwarded-for", http::HeaderValue::from_bytes(b"\xff, 198.51.100.7").unwrap());
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let ip = identify(&headers, "10.0.0.1".parse().unwrap(), &trusted).ip;
        assert_eq!(ip.to_string(), "198.51.100.7");
    }

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        identify(&headers, peer.parse().unwrap(), &trusted).ip.to_string()
    }

    #[test]
    fn the_client_is_the_first_untrusted_hop_from_the_right() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.9, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["203.0.113.9", "198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["203.0.113.9, junk"]), "10.0.0.1");
    }
}
