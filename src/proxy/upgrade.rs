//! Upgrades: allowed by name, never with a body, tunnelled only after the endpoint's 101.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONNECTION, UPGRADE};

use crate::base::reason::Reason;
use crate::proxy::lease::Lease;
use crate::proxy::ledger::Ledger;
use crate::proxy::request_body::BodyMeter;
use crate::upstream::connection::EndpointStream;
use crate::upstream::connection::permit::Permit;

/// A tunnel that waits for the client's connection to be let go.
pub struct Tunnel {
    /// The endpoint's stream.
    pub endpoint: EndpointStream,
    /// What the endpoint sent behind its 101.
    pub early: Bytes,
    /// Ends when nothing has moved for so long.
    pub idle: Duration,
    #[expect(dead_code, reason = "held for its drop, which frees the connection's place")]
    pub(super) permit: Option<Permit>,
    #[expect(dead_code, reason = "held for its drop, which frees the endpoint")]
    pub(super) lease: Lease,
    pub(super) ledger: Box<Ledger>,
}

impl Tunnel {
    /// Writes the record: why it ended, where that was no good end, and what it carried.
    pub fn close(mut self, reason: Option<Reason>, from_client: u64, from_endpoint: u64) {
        self.ledger.body = Some(Rc::new(BodyMeter { bytes: Cell::new(from_client), ..BodyMeter::default() }));
        self.ledger.bytes_out = from_endpoint;
        if let Some(reason) = reason {
            self.ledger.fail(reason);
        }
    }
}

/// The protocol that a request asks to upgrade to, where the route allows it.
pub(super) fn wanted(headers: &HeaderMap, allowed: &[Box<str>]) -> Option<String> {
    let asks = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let mut protocols = headers.get_all(UPGRADE).iter();
    let protocol = protocols.next()?.to_str().ok()?.trim().to_ascii_lowercase();
    let one = protocols.next().is_none();
    (asks && one && allowed.iter().any(|name| **name == *protocol)).then_some(protocol)
}
