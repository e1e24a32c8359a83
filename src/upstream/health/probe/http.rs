//! `health.http`: one request over HTTP/1.1 on a connection of its own.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::search::{Found, Search, shown};
use super::{ProbeResult, USER_AGENT, beside};
use crate::config::model::HttpProbe;
use crate::upstream::connection::EndpointStream;

/// Of a body that is looked at, in bytes.
const MOST_BODY: usize = 64 * 1024;
/// Of a response's head, in bytes.
const MOST_HEAD: usize = 64 * 1024;

pub(super) async fn ask(probe: &HttpProbe, host: &str, stream: EndpointStream) -> ProbeResult {
    let request = match request(probe, host) {
        Ok(request) => request,
        Err(error) => return ProbeResult::OwnFault(error.to_string()),
    };
    let made = http1::Builder::new().max_buf_size(MOST_HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = match made {
        Ok(made) => made,
        Err(error) => return ProbeResult::failed(&error),
    };
    let answer = async {
        match sender.send_request(request).await {
            Ok(response) => judge(probe, response).await,
            Err(error) => ProbeResult::failed(&error),
        }
    };
    beside(connection, answer).await
}

fn request(probe: &HttpProbe, host: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::builder().method(probe.method.clone()).uri(&probe.path).body(Empty::new())?;
    let fields = request.headers_mut();
    fields.insert(header::HOST, HeaderValue::from_str(host)?);
    fields.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    for (name, value) in &probe.headers {
        fields.insert(name, value.clone());
    }
    if probe.method == Method::POST {
        // RFC 9110 section 8.6; hyper leaves it out where there is no body.
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn judge(probe: &HttpProbe, response: Response<Incoming>) -> ProbeResult {
    let status = response.status();
    if !probe.expect_status.contains(status) {
        return ProbeResult::Unhealthy(format!("{status}, not {}", probe.expect_status));
    }
    let Some(wanted) = &probe.expect_body else { return ProbeResult::Healthy(status.to_string()) };
    let (mut search, mut body) = (Search::new(wanted, MOST_BODY), response.into_body());
    while let Some(frame) = body.frame().await {
        let data = match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => data,
            // Trailers.
            Ok(Err(_)) => continue,
            Err(error) => return ProbeResult::failed(&error),
        };
        match search.take(&data) {
            Found::Yes => return ProbeResult::Healthy(format!("{status}, body with `{}`", shown(wanted))),
            Found::NotYet => {}
            Found::No => {
                return ProbeResult::Unhealthy(format!("{status}, 64 KiB of body without `{}`", shown(wanted)));
            }
        }
    }
    ProbeResult::Unhealthy(format!("{status}, body without `{}`", shown(wanted)))
}
