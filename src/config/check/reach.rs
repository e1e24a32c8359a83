//! Routes that never apply: no listener serves what they want, or others take all of it first.

use std::collections::HashMap;

use super::cross;
use crate::config::document::Table;
use crate::config::model::{
    Config, HostPattern, Listener, PathPattern, PathSegment, PathTail, Route, RouteMatch, Scheme,
};

pub(super) fn warn(root: &Table<'_>, config: &Config) {
    let mut taken: HashMap<Place<'_>, Vec<&Route>> = HashMap::new();
    for ((_, item), route) in cross::items(root, "routes").iter().zip(&config.routes) {
        if !config.listeners.iter().enumerate().any(|(at, listener)| serves(at, listener, &route.matches)) {
            item.warn(
                format!("the route `{}` never applies: no listener serves what it matches", route.name),
                "look at `match.listener`, `match.scheme`, and which listeners redirect everything to HTTPS",
            );
        }
        let places = places(&route.matches);
        let first = |place| taken.get(place)?.iter().copied().find(|first| covers(&first.matches, &route.matches));
        let firsts: Option<Vec<&Route>> = places.iter().map(first).collect();
        if let Some(mut firsts) = firsts {
            firsts.dedup_by_key(|first| &first.name);
            let names: Vec<String> = firsts.iter().map(|first| format!("`{}`", first.name)).collect();
            item.warn(
                format!("the route `{}` never applies: {} takes all of it first", route.name, names.join(" with ")),
                "of routes that are equally specific the first in the file wins",
            );
        }
        for place in places {
            taken.entry(place).or_default().push(route);
        }
    }
}

/// Whether requests on this listener come to routes, and such as the conditions ask for.
fn serves(at: usize, listener: &Listener, matches: &RouteMatch) -> bool {
    let named = matches.listeners.is_empty() || matches.listeners.iter().any(|index| index.at() == at);
    let scheme = matches.scheme.is_none_or(|scheme| (scheme == Scheme::Https) == listener.tls.is_some());
    named && scheme && listener.redirect.is_none()
}

/// A host and the shape of a path: where the route table looks, whatever captures are called.
type Place<'r> = (Option<&'r HostPattern>, Vec<Option<&'r str>>, PathEnd);

#[derive(PartialEq, Eq, Hash)]
enum PathEnd {
    Here,
    Slash,
    Anything,
}

fn places(matches: &RouteMatch) -> Vec<Place<'_>> {
    let hosts: Vec<_> = match matches.hosts.as_slice() {
        [] => vec![None],
        hosts => hosts.iter().map(Some).collect(),
    };
    let shapes = || -> Vec<_> {
        match matches.paths.as_slice() {
            [] => vec![(Vec::new(), PathEnd::Anything)],
            paths => paths.iter().map(shape).collect(),
        }
    };
    hosts.into_iter().flat_map(|host| shapes().into_iter().map(move |(path, end)| (host, path, end))).collect()
}

fn shape(path: &PathPattern) -> (Vec<Option<&str>>, PathEnd) {
    let end = match path.tail {
        PathTail::None { trailing_slash: false } => PathEnd::Here,
        PathTail::None { trailing_slash: true } => PathEnd::Slash,
        PathTail::Anonymous | PathTail::Named(_) => PathEnd::Anything,
    };
    (path.segments.iter().map(literal).collect(), end)
}

fn literal(segment: &PathSegment) -> Option<&str> {
    match segment {
        PathSegment::Literal(text) => Some(text),
        PathSegment::Parameter(_) => None,
    }
}

/// Whether `first`, of the same place and earlier in the file, takes whatever `other` would: it is tried first, and
/// each of its conditions holds where the other's hold.
fn covers(first: &RouteMatch, other: &RouteMatch) -> bool {
    let RouteMatch { listeners, scheme, hosts: _, paths: _, methods, client_ips, headers, queries } = first;
    let net = |net: &ipnet::IpNet| client_ips.iter().any(|wider| wider.contains(net));
    conditions(first) >= conditions(other)
        && wider(listeners, &other.listeners)
        && scheme.is_none_or(|scheme| other.scheme == Some(scheme))
        && wider(methods, &other.methods)
        && (client_ips.is_empty() || !other.client_ips.is_empty() && other.client_ips.iter().all(net))
        && headers.iter().all(|header| other.headers.contains(header))
        && queries.iter().all(|query| other.queries.contains(query))
}

fn wider<T: PartialEq>(first: &[T], other: &[T]) -> bool {
    first.is_empty() || !other.is_empty() && other.iter().all(|item| first.contains(item))
}

/// As the route table counts them.
fn conditions(matches: &RouteMatch) -> usize {
    let RouteMatch { listeners, scheme, hosts: _, paths: _, methods, client_ips, headers, queries } = matches;
    let lists = [!listeners.is_empty(), scheme.is_some(), !methods.is_empty(), !client_ips.is_empty()];
    lists.into_iter().filter(|given| *given).count() + headers.len() + queries.len()
}
