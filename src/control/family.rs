//! Which family of a host with both is used: the one that a connection opens in first (RFC 8305 in spirit).
//!
//! The race is the control plane's, before addresses are handed to the data plane, so that no request waits for a
//! family that leads nowhere. The connections carry no byte and are closed at once.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

use crate::upstream::resolve::{Family, Host};

/// The head start of the family in use (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Nobody came in by then: the family in use stays.
const LONGEST_RACE: Duration = Duration::from_secs(1);
/// Addresses that are tried in each family: one server that is down is no dead family.
const TRIED: usize = 4;

/// The family to use for `host` at `port`; none where nothing answered.
pub(super) async fn race(host: &Host, port: u16) -> Option<Family> {
    let (first, second) = match host.family.unwrap_or(Family::V6) {
        Family::V6 => (Family::V6, Family::V4),
        Family::V4 => (Family::V4, Family::V6),
    };
    let run = async {
        let mut ahead = std::pin::pin!(opens(host, first, port));
        match tokio::time::timeout(HEAD_START, &mut ahead).await {
            Ok(true) => return Some(first),
            // Refused: nothing to wait for.
            Ok(false) => return opens(host, second, port).await.then_some(second),
            Err(_) => {}
        }
        let mut behind = std::pin::pin!(opens(host, second, port));
        tokio::select! {
            biased;
            opened = &mut ahead => match opened {
                true => Some(first),
                false => behind.await.then_some(second),
            },
            opened = &mut behind => match opened {
                true => Some(second),
                false => ahead.await.then_some(first),
            },
        }
    };
    tokio::time::timeout(LONGEST_RACE, run).await.unwrap_or(None)
}

/// Whether any address of the family takes a connection.
async fn opens(host: &Host, family: Family, port: u16) -> bool {
    let addresses = host.of(family).into_iter().take(TRIED).map(|ip| SocketAddr::new(ip, port));
    let mut dials: FuturesUnordered<_> = addresses.map(TcpStream::connect).collect();
    while let Some(dialled) = dials.next().await {
        if dialled.is_ok() {
            return true;
        }
    }
    false
}
