//! One probe of one endpoint: an HTTP request, a connection and what is said on it, or a gRPC health check. The
//! caller bounds the time; what is read is bounded here.

mod grpc;
pub mod health_v1;
mod http;
mod search;
mod tcp;

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::base::address::Address;
use crate::base::reason::Blame;
use crate::config::model::{HealthProbe, PoolTls, ProbeKind};
use crate::tls::client::{for_protocol, server_name};
use crate::upstream::connection::dial::{DialError, dial};

/// Sent with every probe over HTTP.
const USER_AGENT: &str = concat!("headgate/", env!("CARGO_PKG_VERSION"), " (health check)");

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The endpoint is well.
    Healthy(String),
    /// The endpoint is not.
    Unhealthy(String),
    /// headgate itself lacked something, or was late: says nothing of the endpoint.
    OwnFault(String),
}

impl ProbeResult {
    /// What a probe came to that ended after `took`; none where it had not ended when its timer fired.
    ///
    /// A failure that comes much later than the timer was set to tells of this machine, not of the endpoint.
    pub fn weighed(result: Option<Self>, took: Duration, timeout: Duration) -> Self {
        match result {
            None | Some(Self::Unhealthy(_)) if took > timeout * 2 => {
                Self::OwnFault(format!("its timer was set to {timeout:?} and fired after {took:?}"))
            }
            None => Self::Unhealthy(format!("no answer within {}", humantime::format_duration(timeout))),
            Some(result) => result,
        }
    }

    fn not_opened(error: &DialError) -> Self {
        match error.reason.blame() {
            Blame::Headgate => Self::OwnFault(error.to_string()),
            Blame::Client | Blame::Endpoint => Self::Unhealthy(error.to_string()),
        }
    }

    fn failed(error: &dyn Error) -> Self {
        match error.source() {
            Some(source) => Self::Unhealthy(format!("{error}: {source}")),
            None => Self::Unhealthy(error.to_string()),
        }
    }
}

/// The pool's TLS with what the probe speaks in it.
pub fn tls_config(kind: &ProbeKind, pool: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    match kind {
        ProbeKind::Http(_) | ProbeKind::Tcp(_) => pool.clone(),
        ProbeKind::Grpc(_) => for_protocol(pool, grpc::PROTOCOL),
    }
}

/// Asks the endpoint at `endpoint` once; `tls` has gone through [`tls_config`]. Needs a local set to run in.
pub async fn probe(what: &HealthProbe, endpoint: &Address, tls: Option<(&PoolTls, &Arc<ClientConfig>)>) -> ProbeResult {
    let address = &what.address(endpoint);
    let tls = match tls.map(|(spec, config)| server_name(spec, address).map(|name| (config, name))).transpose() {
        Ok(tls) => tls,
        Err(error) => return ProbeResult::OwnFault(error.to_string()),
    };
    let encrypted = tls.is_some();
    let stream = match dial(address, tls).await {
        Ok(stream) => stream,
        Err(error) => return ProbeResult::not_opened(&error),
    };
    match &what.kind {
        ProbeKind::Tcp(probe) => tcp::ask(probe, stream).await,
        ProbeKind::Http(probe) => http::ask(probe, &authority(probe.host.as_deref(), address), stream).await,
        ProbeKind::Grpc(probe) => grpc::ask(probe, &authority(probe.host.as_deref(), address), stream, encrypted).await,
    }
}

fn authority(host: Option<&str>, address: &Address) -> String {
    match (host, address) {
        (Some(host), _) => host.to_owned(),
        (None, Address::Tcp(address)) => address.to_string(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
    }
}

/// Waits for `answer` while `connection` moves the bytes. An ended connection is dropped: hyper keeps what it never
/// sent until then.
async fn beside<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    let moving = async move {
        drop(connection.await);
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        never = moving => match never {},
    }
}

#[cfg(test)]
mod tests;
