//! One request to the admin API of a running headgate.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::base::address::Address;

/// An answer of the admin API.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    from: String,
}

impl Answer {
    /// The body of a success, which has `field`; else what the admin API says is wrong.
    pub(super) fn expect(self, field: &str) -> anyhow::Result<Value> {
        let Self { status, body, from } = self;
        match (status, body["error"].as_str()) {
            (200, _) if body.get(field).is_some() => Ok(body),
            (201.., Some(error)) => bail!("{error}"),
            _ => bail!("{from} answers {status}, but is no admin API of headgate: see admin.address in its config"),
        }
    }
}

/// Asks, and waits at most so long for each piece of the answer.
pub(super) fn call(
    address: &Address,
    method: &str,
    path: &str,
    body: Option<&Value>,
    limit: Duration,
) -> anyhow::Result<Answer> {
    let answer = match address {
        Address::Tcp(tcp) => TcpStream::connect_timeout(tcp, limit).and_then(|stream| {
            stream.set_read_timeout(Some(limit))?;
            exchange(stream, &tcp.to_string(), method, path, body)
        }),
        Address::Unix(socket) => UnixStream::connect(socket).and_then(|stream| {
            stream.set_read_timeout(Some(limit))?;
            exchange(stream, "localhost", method, path, body)
        }),
    };
    let answer = answer.map_err(|error| anyhow::anyhow!("{}", unreachable(address, &error)))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{address} does not speak HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("{address} does not speak HTTP"))?;
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    Ok(Answer { status, body, from: address.to_string() })
}

/// Why nobody answers, and what to do.
fn unreachable(address: &Address, error: &io::Error) -> String {
    let why = match (error.kind(), address) {
        (ErrorKind::NotFound, _) => "there is no such socket: is headgate running, and is this its admin.address?",
        (ErrorKind::ConnectionRefused, Address::Unix(_)) => {
            "nobody listens there: headgate is not running, and an earlier one left the file behind"
        }
        (ErrorKind::ConnectionRefused, _) => {
            "nobody listens there: is headgate running, and is this its admin.address?"
        }
        (ErrorKind::PermissionDenied, _) => "it is for the user that headgate runs as: ask as that user, or as root",
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, _) => "it does not answer in time",
        _ => return format!("cannot ask {address}: {error}"),
    };
    format!("cannot ask {address}: {why}")
}

fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> io::Result<String> {
    let body = body.map(Value::to_string).unwrap_or_default();
    // One write: the server may answer and close before a later one.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
