//! `health.tcp`: the connection opens, and answers what it is sent where the config says so.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ProbeResult;
use super::search::{Found, Search, shown};
use crate::config::model::TcpProbe;
use crate::upstream::connection::EndpointStream;

/// Of what the endpoint says, in bytes.
const MOST_READ: usize = 16 * 1024;

pub(super) async fn ask(probe: &TcpProbe, mut stream: EndpointStream) -> ProbeResult {
    if let Some(text) = &probe.send {
        let sent = async {
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await
        };
        if let Err(error) = sent.await {
            return ProbeResult::failed(&error);
        }
    }
    let Some(wanted) = &probe.expect else { return ProbeResult::Healthy("connected".to_owned()) };
    let (mut search, mut piece) = (Search::new(wanted, MOST_READ), [0; 2048]);
    loop {
        let count = match stream.read(&mut piece).await {
            Ok(0) => return ProbeResult::Unhealthy(format!("closed without `{}`", shown(wanted))),
            Ok(count) => count,
            Err(error) => return ProbeResult::failed(&error),
        };
        match search.take(piece.get(..count).unwrap_or_default()) {
            Found::Yes => return ProbeResult::Healthy(format!("said `{}`", shown(wanted))),
            Found::NotYet => {}
            Found::No => return ProbeResult::Unhealthy(format!("16 KiB without `{}`", shown(wanted))),
        }
    }
}
