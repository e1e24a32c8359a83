//! One request to the admin API of a running headgate.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::base::address::Address;

const TIME_LIMIT: Duration = Duration::from_secs(15);

/// The status and the JSON of the answer.
pub(super) fn call(address: &Address, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
    let unreachable = || format!("no headgate answers at {address}: is it running, and is this its admin.address?");
    match address {
        Address::Tcp(tcp) => {
            let stream = TcpStream::connect_timeout(tcp, TIME_LIMIT).with_context(unreachable)?;
            stream.set_read_timeout(Some(TIME_LIMIT))?;
            exchange(stream, &tcp.to_string(), method, path, body)
        }
        Address::Unix(socket) => {
            let stream = UnixStream::connect(socket).with_context(unreachable)?;
            stream.set_read_timeout(Some(TIME_LIMIT))?;
            exchange(stream, "localhost", method, path, body)
        }
    }
}

fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<(u16, Value)> {
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
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let Some(status) = head.split(' ').nth(1).and_then(|code| code.parse().ok()) else {
        bail!("the answer is no HTTP");
    };
    Ok((status, serde_json::from_str(body).with_context(|| format!("the answer is no JSON: {body}"))?))
}
