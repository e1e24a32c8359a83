use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;
use crate::base::reason::Reason;
use crate::config::model::{GrpcProbe, HttpProbe, ServerVerification, StatusSet, TcpProbe};

/// Leads one connection.
fn origin(serve: impl FnOnce(&mut TcpStream) + Send + 'static) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        serve(&mut stream);
    });
    Address::Tcp(address)
}

/// Hears one request's head, answers in pieces, and gives what it heard.
fn answering(pieces: Vec<Vec<u8>>) -> (Address, Receiver<String>) {
    let (tell, told) = channel();
    let address = origin(move |stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        tell.send(String::from_utf8(head).unwrap().to_ascii_lowercase()).unwrap();
        for piece in pieces {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    (address, told)
}

fn ask(kind: ProbeKind, address: &Address) -> ProbeResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let what = HealthProbe { port: None, kind };
    tokio::task::LocalSet::new().block_on(&runtime, probe(&what, address, None))
}

fn get() -> HttpProbe {
    HttpProbe {
        method: Method::GET,
        path: "/healthz?deep=1".to_owned(),
        host: None,
        headers: Vec::new(),
        expect_status: StatusSet::success_or_redirect(),
        expect_body: None,
    }
}

fn ask_http(probe: HttpProbe, answer: &[&str]) -> ProbeResult {
    let (address, _told) = answering(answer.iter().map(|piece| piece.as_bytes().to_vec()).collect());
    ask(ProbeKind::Http(probe), &address)
}

fn healthy(detail: &str) -> ProbeResult {
    ProbeResult::Healthy(detail.to_owned())
}

fn unhealthy(detail: &str) -> ProbeResult {
    ProbeResult::Unhealthy(detail.to_owned())
}

#[test]
fn the_status_decides() {
    let found = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask_http(get(), &[found]), healthy("302 Found"));
    let sick = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask_http(get(), &[sick]), unhealthy("503 Service Unavailable, not 200-399"));
    let only = |ranges| HttpProbe { expect_status: StatusSet::new(ranges).unwrap(), ..get() };
    assert_eq!(ask_http(only(vec![200..=204]), &[found]), unhealthy("302 Found, not 200-204"));
    assert_eq!(ask_http(only(vec![200..=200, 503..=503]), &[sick]), healthy("503 Service Unavailable"));
    assert_eq!(ask_http(get(), &["HTTP/1.1 103 Early Hints\r\n\r\n", found]), healthy("302 Found"));
    for silent in [&[][..], &["nonsense\r\n\r\n"], &["HTTP/1.1 200 OK\r\nConte"]] {
        assert!(matches!(ask_http(get(), silent), ProbeResult::Unhealthy(_)), "{silent:?}");
    }
}

#[test]
fn a_request_is_as_configured() {
    let heard = |probe: HttpProbe| {
        let (address, told) = answering(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()]);
        assert_eq!(ask(ProbeKind::Http(probe), &address), healthy("200 OK"));
        (told.recv().unwrap(), address.to_string())
    };
    let (plain, address) = heard(get());
    assert!(plain.starts_with("get /healthz?deep=1 http/1.1\r\n"), "{plain}");
    assert!(plain.contains(&format!("host: {address}\r\n")) && plain.contains("connection: close\r\n"), "{plain}");
    assert!(plain.contains("user-agent: headgate/") && !plain.contains("content-length"), "{plain}");
    let (own, _) = heard(HttpProbe {
        method: Method::POST,
        host: Some("app.internal".to_owned()),
        headers: vec![
            (HeaderName::from_static("x-probe"), HeaderValue::from_static("1")),
            (HeaderName::from_static("user-agent"), HeaderValue::from_static("mine")),
        ],
        ..get()
    });
    assert!(own.starts_with("post ") && own.contains("host: app.internal\r\n"), "{own}");
    assert!(own.contains("x-probe: 1\r\n") && own.contains("user-agent: mine\r\n"), "{own}");
    assert!(own.contains("content-length: 0\r\n"), "{own}");
    let (head, _) = heard(HttpProbe { method: Method::HEAD, ..get() });
    assert!(head.starts_with("head "), "{head}");
}

#[test]
fn the_body_must_hold_the_text() {
    let wanted = || HttpProbe { expect_body: Some("ready".to_owned()), ..get() };
    let chunked = ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nI rea\r\n", "4\r\ndy!\n\r\n0\r\n\r\n"];
    assert_eq!(ask_http(wanted(), &chunked), healthy("200 OK, body with `ready`"));
    let other = ["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "READY"];
    assert_eq!(ask_http(wanted(), &other), unhealthy("200 OK, body without `ready`"));
    let cut = ["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "I am"];
    assert!(matches!(ask_http(wanted(), &cut), ProbeResult::Unhealthy(_)));
    let sick = ["HTTP/1.1 500 Internal Server Error\r\ncontent-length: 5\r\n\r\nready"];
    assert_eq!(ask_http(wanted(), &sick), unhealthy("500 Internal Server Error, not 200-399"));
    // Found before the end of a body that has none, and given up where it is not.
    for (text, result) in [("ready", true), ("unready later", true), ("r", false)] {
        let endless = std::iter::once(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())
            .chain([text.as_bytes().to_vec()])
            .chain(std::iter::repeat_n(vec![b'.'; 4096], 100));
        let (address, _told) = answering(endless.collect());
        let found = ask(ProbeKind::Http(wanted()), &address);
        let expected = if result {
            healthy("200 OK, body with `ready`")
        } else {
            unhealthy("200 OK, 64 KiB of body without `ready`")
        };
        assert_eq!(found, expected, "{text}");
    }
}

fn ask_tcp(
    send: Option<&str>,
    expect: Option<&str>,
    serve: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> ProbeResult {
    let own = |text: Option<&str>| text.map(str::to_owned);
    ask(ProbeKind::Tcp(TcpProbe { send: own(send), expect: own(expect) }), &origin(serve))
}

/// Reads until it has `wanted`, then says each piece.
fn converse(wanted: &'static str, pieces: &'static [&str]) -> impl FnOnce(&mut TcpStream) {
    move |stream| {
        let mut heard = vec![0; wanted.len()];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, wanted.as_bytes());
        for piece in pieces {
            stream.write_all(piece.as_bytes()).unwrap();
        }
    }
}

#[test]
fn a_connection_may_have_to_answer() {
    let ping = "PING\r\n";
    assert_eq!(ask_tcp(None, None, |_| {}), healthy("connected"));
    assert_eq!(ask_tcp(Some(ping), Some("+PONG"), converse(ping, &["+PO", "NG\r\n"])), healthy("said `+PONG`"));
    assert_eq!(ask_tcp(None, Some("220 "), converse("", &["220 mail ready\r\n"])), healthy("said `220 `"));
    let loading = ask_tcp(Some(ping), Some("+PONG"), converse(ping, &["-LOADING\r\n"]));
    assert_eq!(loading, unhealthy("closed without `+PONG`"));
    let endless = ask_tcp(None, Some("b"), |stream| while stream.write_all(&[b'a'; 999]).is_ok() {});
    assert_eq!(endless, unhealthy("16 KiB without `b`"));
}

#[test]
fn a_closed_port_is_unhealthy() {
    let address = Address::Tcp(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    for kind in [ProbeKind::Http(get()), ProbeKind::Tcp(TcpProbe::default()), ProbeKind::Grpc(GrpcProbe::default())] {
        let found = ask(kind, &address);
        assert!(matches!(&found, ProbeResult::Unhealthy(detail) if detail.contains("refused")), "{found:?}");
    }
}

#[test]
fn a_fault_of_ours_is_no_result() {
    let error = |reason| DialError { reason, source: std::io::Error::other("x") };
    assert!(matches!(ProbeResult::not_opened(&error(Reason::OutOfResources)), ProbeResult::OwnFault(_)));
    for reason in [Reason::ConnectRefused, Reason::ConnectTimeout, Reason::ConnectFailed, Reason::EndpointTls] {
        assert!(matches!(ProbeResult::not_opened(&error(reason)), ProbeResult::Unhealthy(_)), "{reason}");
    }
    // TLS to a socket without a name to verify can not even begin.
    let spec = PoolTls { verify: ServerVerification::Off, server_name: None };
    let config = crate::tls::client::client_config(&spec).unwrap();
    let what = HealthProbe { port: None, kind: ProbeKind::Tcp(TcpProbe::default()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(probe(&what, &"unix:/nowhere".parse().unwrap(), Some((&spec, &config))));
    assert!(matches!(found, ProbeResult::OwnFault(_)), "{found:?}");
}

#[test]
fn a_failure_that_comes_far_too_late_is_ours() {
    let [soon, late] = [150, 201].map(Duration::from_millis);
    let weighed = |result, took| ProbeResult::weighed(result, took, Duration::from_millis(100));
    assert_eq!(weighed(None, soon), unhealthy("no answer within 100ms"));
    assert!(matches!(weighed(None, late), ProbeResult::OwnFault(_)));
    assert_eq!(weighed(Some(unhealthy("reset")), soon), unhealthy("reset"));
    assert!(matches!(weighed(Some(unhealthy("reset")), late), ProbeResult::OwnFault(_)));
    assert_eq!(weighed(Some(healthy("200 OK")), late), healthy("200 OK"), "an answer is an answer");
}

/// A gRPC server for one connection: its response's status, head, body and trailers.
fn rpc(status: u16, head: &'static [(&str, &str)], body: &'static [u8], trailers: &'static [(&str, &str)]) -> Address {
    let fields = |pairs: &[(&'static str, &'static str)]| {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect::<HeaderMap>()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |request: ::http::Request<Incoming>| async move {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.uri().authority().map(|authority| authority.as_str()), Some("rpc.internal"));
        assert_eq!(
            (request.method(), &request.headers()["content-type"]),
            (&Method::POST, &"application/grpc".parse().unwrap())
        );
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.into_body().collect().await?.to_bytes(), health_v1::request("a.B"));
        let body = Full::new(Bytes::from_static(body));
        let mut response = Response::new(body.with_trailers(std::future::ready(match trailers {
            [] => None,
            trailers => Some(Ok(fields(trailers))),
        })));
        *response.status_mut() = status.try_into().unwrap();
        response.headers_mut().extend(fields(head));
        Ok::<_, hyper::Error>(response)
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (stream, _) = tokio::net::TcpListener::from_std(listener).unwrap().accept().await.unwrap();
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
        });
    });
    Address::Tcp(address)
}

fn ask_grpc(address: &Address) -> ProbeResult {
    ask(ProbeKind::Grpc(GrpcProbe { service: "a.B".to_owned(), host: Some("rpc.internal".to_owned()) }), address)
}

#[test]
fn a_service_that_says_serving_is_healthy() {
    const OK: &[(&str, &str)] = &[("grpc-status", "0")];
    let said = |message| ask_grpc(&rpc(200, &[("content-type", "application/grpc")], message, OK));
    assert_eq!(said(&[0, 0, 0, 0, 2, 8, 1]), healthy("SERVING"));
    assert_eq!(said(&[0, 0, 0, 0, 2, 8, 2]), unhealthy("NOT_SERVING"));
    assert_eq!(said(&[0, 0, 0, 0, 0]), unhealthy("UNKNOWN"));
    assert_eq!(said(&[0, 0, 0, 0, 2, 8]), unhealthy("the message has another length than announced"));
    assert_eq!(said(&[0; 17 * 1024]), unhealthy("more than 16 KiB of message"));
    let serving = &[0, 0, 0, 0, 2, 8, 1];
    assert_eq!(ask_grpc(&rpc(200, &[], serving, &[])), unhealthy("a response without `grpc-status`"));
    assert_eq!(ask_grpc(&rpc(200, &[], serving, &[("grpc-status", "14")])), unhealthy("UNAVAILABLE"));
    assert_eq!(ask_grpc(&rpc(200, &[], serving, &[("grpc-status", "99")])), unhealthy("grpc-status 99"));
    let alone = ask_grpc(&rpc(200, &[("grpc-status", "12")], &[], &[]));
    assert_eq!(alone, unhealthy("UNIMPLEMENTED: the server has no `grpc.health.v1.Health`"));
    let unknown = ask_grpc(&rpc(200, &[("grpc-status", "5")], &[], &[]));
    assert_eq!(unknown, unhealthy("NOT_FOUND: the server knows no such `service`"));
    assert_eq!(ask_grpc(&rpc(404, &[], &[], &[])), unhealthy("HTTP 404 Not Found, no gRPC"));
}

#[test]
fn who_speaks_no_http2_is_unhealthy() {
    let (address, _told) = answering(vec![b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec()]);
    assert!(matches!(ask_grpc(&address), ProbeResult::Unhealthy(_)));
}
