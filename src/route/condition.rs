//! The conditions of a route beside host and path: how many there are, and which one fails.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use http::{HeaderName, Method};
use percent_encoding::percent_decode_str;

use crate::config::model::{RouteMatch, Scheme, ValueMatch};
use crate::route::table::RequestView;

/// The condition that failed. Words are made only where somebody reads them: failing is common on the way to a route.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failed<'a> {
    Listener,
    Scheme(Scheme),
    Method(&'a Method),
    ClientIp(IpAddr),
    Header(&'a HeaderName),
    Query(&'a str),
}

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener => f.write_str("match.listener names another listener"),
            Self::Scheme(scheme) => write!(f, "match.scheme is {}", scheme.as_str()),
            Self::Method(method) => write!(f, "match.method does not name {method}"),
            Self::ClientIp(ip) => write!(f, "match.client_ip does not hold {ip}"),
            Self::Header(name) => write!(f, "match.header.{name} does not fit"),
            Self::Query(name) => write!(f, "match.query.{name} does not fit"),
        }
    }
}

/// How many conditions a route has beside host and path.
pub(super) fn count(matches: &RouteMatch) -> usize {
    let RouteMatch { listeners, scheme, hosts: _, paths: _, methods, client_ips, headers, queries } = matches;
    usize::from(!listeners.is_empty())
        + usize::from(scheme.is_some())
        + usize::from(!methods.is_empty())
        + usize::from(!client_ips.is_empty())
        + headers.len()
        + queries.len()
}

/// The first condition beside host and path that fails.
pub(super) fn failed<'a>(matches: &'a RouteMatch, request: &RequestView<'a>) -> Option<Failed<'a>> {
    let RouteMatch { listeners, scheme, hosts: _, paths: _, methods, client_ips, headers, queries } = matches;
    if !listeners.is_empty() && !listeners.contains(&request.listener) {
        return Some(Failed::Listener);
    }
    if let Some(scheme) = scheme.filter(|scheme| *scheme != request.scheme) {
        return Some(Failed::Scheme(scheme));
    }
    if !methods.is_empty() && !methods.contains(request.method) {
        return Some(Failed::Method(request.method));
    }
    if !client_ips.is_empty() && !client_ips.iter().any(|net| net.contains(&request.client_ip)) {
        return Some(Failed::ClientIp(request.client_ip));
    }
    let header = headers.iter().find(|header| {
        let values = request.headers.get_all(&header.name);
        !holds(&header.value, values.iter().map(|value| value.as_bytes()))
    });
    if let Some(header) = header {
        return Some(Failed::Header(&header.name));
    }
    let query = queries.iter().find(|query| {
        let values = parameters(request.query).filter(|(name, _)| *name == query.name).map(|(_, value)| value);
        !holds(&query.value, values)
    });
    query.map(|query| Failed::Query(&query.name))
}

fn holds<T: AsRef<[u8]>>(wanted: &ValueMatch, mut values: impl Iterator<Item = T>) -> bool {
    match wanted {
        ValueMatch::Equals(text) => values.any(|value| value.as_ref() == text.as_bytes()),
        ValueMatch::Present => values.next().is_some(),
        ValueMatch::Absent => values.next().is_none(),
    }
}

/// Names and values, as bytes: a value that is no UTF-8 equals no text.
pub(crate) fn parameters(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, [u8]>)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = match decoded(name) {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        };
        (name, decoded(value))
    })
}

fn decoded(text: &str) -> Cow<'_, [u8]> {
    match text.contains('+') {
        true => Cow::Owned(percent_decode_str(&text.replace('+', " ")).collect()),
        false => percent_decode_str(text).into(),
    }
}
