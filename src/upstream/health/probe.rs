//! One probe of one endpoint: a GET, or a connection that opens. The caller bounds the time.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;

use crate::base::address::Address;
use crate::base::reason::Blame;
use crate::config::model::{HealthProbe, PoolTls};
use crate::tls::client::server_name;
use crate::upstream::connection::EndpointStream;
use crate::upstream::connection::dial::dial;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The endpoint is well.
    Healthy(String),
    /// The endpoint is not.
    Unhealthy(String),
    /// headgate itself lacked something: says nothing of the endpoint.
    OwnFault(String),
}

/// Asks the endpoint at `address` once.
pub async fn probe(what: &HealthProbe, address: &Address, tls: Option<(&PoolTls, &Arc<ClientConfig>)>) -> ProbeResult {
    let tls = match tls.map(|(spec, config)| server_name(spec, address).map(|name| (config, name))).transpose() {
        Ok(tls) => tls,
        Err(error) => return ProbeResult::OwnFault(error.to_string()),
    };
    let stream = match dial(address, tls).await {
        Ok(stream) => stream,
        Err(error) if error.reason.blame() == Blame::Headgate => return ProbeResult::OwnFault(error.to_string()),
        Err(error) => return ProbeResult::Unhealthy(error.to_string()),
    };
    match what {
        HealthProbe::Tcp => ProbeResult::Healthy("connected".to_owned()),
        HealthProbe::Http { path, host } => {
            let host = host.clone().unwrap_or_else(|| match address {
                Address::Tcp(address) => address.to_string(),
                Address::Unix(_) => "localhost".to_owned(),
            });
            get(stream, path, &host).await
        }
    }
}

async fn get(stream: EndpointStream, path: &str, host: &str) -> ProbeResult {
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("headgate/", env!("CARGO_PKG_VERSION"), " (health check)"))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return ProbeResult::OwnFault(error.to_string()),
    };
    let (mut sender, connection) = match http1::handshake(TokioIo::new(stream)).await {
        Ok(made) => made,
        Err(error) => return ProbeResult::Unhealthy(error.to_string()),
    };
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    match answer {
        Ok(response) if (200..400).contains(&response.status().as_u16()) => {
            ProbeResult::Healthy(response.status().to_string())
        }
        Ok(response) => ProbeResult::Unhealthy(response.status().to_string()),
        Err(error) => ProbeResult::Unhealthy(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn origin(answer: &'static str) -> Address {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 1024];
            assert!(stream.read(&mut buffer).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        Address::Tcp(address)
    }

    fn ask(address: &Address) -> ProbeResult {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let what = HealthProbe::Http { path: "/healthz".into(), host: None };
        runtime.block_on(probe(&what, address, None))
    }

    #[test]
    fn two_and_three_hundreds_are_healthy() {
        let ok = origin("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n");
        assert!(matches!(ask(&ok), ProbeResult::Healthy(_)));
        let sick = origin("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        assert!(matches!(ask(&sick), ProbeResult::Unhealthy(_)));
        let silent = origin("");
        assert!(matches!(ask(&silent), ProbeResult::Unhealthy(_)));
    }

    #[test]
    fn a_closed_port_is_unhealthy() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        drop(listener);
        assert!(matches!(ask(&address), ProbeResult::Unhealthy(_)));
    }
}
