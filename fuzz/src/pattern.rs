//! Routes from any text: what the checker takes can match, and the table finds what a naive matcher finds.
//!
//! A line is a route, `host|path|method` (each may be empty, several by commas), or behind `>` a request of that shape.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use headgate::base::id::ListenerIndex;
use headgate::config::load::parse_text;
use headgate::config::model::{HostPattern, PathPattern, PathSegment, PathTail, Route, RouteMatch, Scheme};
use headgate::route::host::canonical_host;
use headgate::route::path::canonical;
use headgate::route::table::{RequestView, RouteTable};
use http::{HeaderMap, Method};

/// The most routes and requests of one input.
const MOST: usize = 16;

pub fn target(data: &[u8]) {
    let (requests, routes): (Vec<&str>, Vec<&str>) = super::lines(data).partition(|line| line.starts_with('>'));
    let routes: Vec<Arc<Route>> = routes.into_iter().take(MOST).filter_map(route).collect();
    let table = RouteTable::build(&routes);
    for request in requests.into_iter().take(MOST) {
        let mut parts = request[1..].split('|').map(str::trim);
        let mut part = || parts.next().unwrap_or_default();
        let (host, path, method) = (part(), part(), part());
        let (Ok((host, _)), Ok(path)) = (canonical_host(host), canonical(path)) else { continue };
        let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
        let view = RequestView {
            listener: ListenerIndex(0),
            scheme: Scheme::Http,
            method: &method,
            host: &host,
            path: &path,
            query: None,
            headers: &HeaderMap::new(),
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let found = table.find(&view).map(|found| found.index.at());
        assert_eq!(found, naive(&routes, &view), "{method} {host} {path} among {routes:#?}");
    }
}

fn route(line: &str) -> Option<Arc<Route>> {
    let mut text =
        "config_version = 1\nlisteners.a.address = \"127.0.0.1:80\"\n[routes.r]\nrespond.status = 200\n".to_owned();
    for (key, part) in ["host", "path", "method"].into_iter().zip(line.split('|')) {
        let values: Vec<String> =
            part.split(',').map(str::trim).filter(|value| !value.is_empty()).map(super::quoted).collect();
        if !values.is_empty() {
            text += &format!("match.{key} = [{}]\n", values.join(", "));
        }
    }
    let (config, _) = parse_text("f.toml", &text, &|_| None).ok()?;
    let route = config.routes.first()?.clone();
    for segment in route.matches.paths.iter().flat_map(|path| &path.segments) {
        if let PathSegment::Literal(literal) = segment {
            let path = format!("/{literal}");
            assert_eq!(canonical(&path).as_deref(), Ok(&*path), "{line:?} can never match");
        }
    }
    for host in &route.matches.hosts {
        let (HostPattern::Exact(name) | HostPattern::Suffix(name)) = host;
        let name = if matches!(host, HostPattern::Suffix(_)) { format!("a.{name}") } else { name.clone() };
        assert_eq!(canonical_host(&name).map(|(host, _)| host.into_owned()), Ok(name), "{line:?} can never match");
    }
    Some(route)
}

/// The documented order as one sort key, over every pair of host and path of every route.
fn naive(routes: &[Arc<Route>], request: &RequestView<'_>) -> Option<usize> {
    let keys = routes.iter().enumerate().flat_map(|(at, route)| {
        let RouteMatch { hosts, paths, methods, .. } = &route.matches;
        let holds = methods.is_empty() || methods.contains(request.method);
        let any_host = hosts.is_empty().then_some((2, Reverse(0)));
        let any_path = paths.is_empty().then(|| vec![2]);
        let hosts =
            hosts.iter().filter_map(|host| host_rank(host, request.host)).chain(any_host).filter(move |_| holds);
        let paths: Vec<_> = paths.iter().filter_map(|path| path_rank(path, request.path)).chain(any_path).collect();
        let conditions = Reverse(usize::from(!methods.is_empty()));
        hosts.flat_map(move |host| paths.clone().into_iter().map(move |path| (host, path, conditions, at)))
    });
    keys.min().map(|key| key.3)
}

fn host_rank(pattern: &HostPattern, host: &str) -> Option<(u8, Reverse<usize>)> {
    match pattern {
        HostPattern::Exact(name) => (name == host).then_some((0, Reverse(0))),
        HostPattern::Suffix(name) => {
            host.ends_with(&format!(".{name}")).then_some((1, Reverse(name.split('.').count())))
        }
    }
}

fn path_rank(pattern: &PathPattern, path: &str) -> Option<Vec<u8>> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let full = parts.len() - usize::from(parts.last().is_some_and(|last| last.is_empty()));
    let mut rank = Vec::new();
    for (at, segment) in pattern.segments.iter().enumerate() {
        match (segment, parts[..full].get(at)?) {
            (PathSegment::Literal(text), part) => (text == part).then(|| rank.push(0))?,
            (PathSegment::Parameter(_), _) => rank.push(1),
        }
    }
    match pattern.tail {
        PathTail::None { trailing_slash } => {
            let same = path == "/" || trailing_slash == path.ends_with('/');
            (full == pattern.segments.len() && same).then_some(rank)
        }
        PathTail::Anonymous | PathTail::Named(_) => Some([rank, vec![2]].concat()),
    }
}
