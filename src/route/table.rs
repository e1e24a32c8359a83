//! The route table: from a request to the most specific route that matches it.
//!
//! The order is total. By host: exact, then the longest `*.suffix`, then any. Then by path, segment by segment: a
//! literal before `{parameter}` before a tail, so exact before tail and longer before shorter. Then the route with
//! more other conditions, then the one that stands first in the file. A route whose other conditions fail is passed
//! over for the next.
//!
//! matchit does paths only, takes one route per path and does not come back from a literal that leads nowhere, so
//! the trie is our own. A look-up costs a hash look-up per label of the host and per segment of the path, however
//! many routes there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

use crate::base::id::{ListenerIndex, RouteIndex};
use crate::config::model::{HostPattern, PathPattern, PathSegment, PathTail, Route, RouteMatch, Scheme, ValueMatch};
use crate::route::pattern::{Captures, Split, match_path};

/// What routing sees of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The listener that took it.
    pub listener: ListenerIndex,
    /// Cleartext or TLS.
    pub scheme: Scheme,
    /// Its method.
    pub method: &'a Method,
    /// Lower case, without port.
    pub host: &'a str,
    /// Canonical.
    pub path: &'a str,
    /// Without `?`.
    pub query: Option<&'a str>,
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// After `trusted_proxies`.
    pub client_ip: IpAddr,
}

/// The route that a request takes.
#[derive(Clone, Copy, Debug)]
pub struct Found<'t> {
    /// Its place.
    pub index: RouteIndex,
    /// The route.
    pub route: &'t Route,
}

/// A route that is nearer than the one taken, and why it was not taken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rejection {
    /// The route.
    pub route: String,
    /// The condition that failed.
    pub why: String,
}

/// All routes of a snapshot, made ready for look-ups.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    exact: HashMap<String, Node, RandomState>,
    suffixes: HashMap<String, Node, RandomState>,
    any: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, Node, RandomState>,
    parameter: Option<Box<Node>>,
    /// Patterns that end here, without and with a trailing slash.
    ends: [Vec<RouteIndex>; 2],
    /// Patterns whose tail begins here.
    tails: Vec<RouteIndex>,
}

impl RouteTable {
    /// Makes the table.
    pub fn build(routes: &[Arc<Route>]) -> Self {
        let mut table = Self { routes: routes.to_vec(), ..Self::default() };
        for (at, route) in routes.iter().enumerate() {
            let index = RouteIndex(at as u32);
            if route.matches.hosts.is_empty() {
                table.any.add_all(&route.matches.paths, index, routes);
            }
            for host in &route.matches.hosts {
                let node = match host {
                    HostPattern::Exact(name) => table.exact.entry(name.clone()).or_default(),
                    HostPattern::Suffix(name) => table.suffixes.entry(name.clone()).or_default(),
                };
                node.add_all(&route.matches.paths, index, routes);
            }
        }
        table
    }

    /// The routes, in file order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The most specific route that matches.
    pub fn find(&self, request: &RequestView<'_>) -> Option<Found<'_>> {
        self.walk(request, &mut |index| {
            let route = &self.routes[index.at()];
            failed_condition(&route.matches, request).is_none()
        })
        .map(|index| Found { index, route: &self.routes[index.at()] })
    }

    /// The routes that fit by host and path and come before the one taken, each with the condition that failed.
    pub fn explain(&self, request: &RequestView<'_>) -> Vec<Rejection> {
        let mut rejected = Vec::new();
        self.walk(request, &mut |index| {
            let route = &self.routes[index.at()];
            match failed_condition(&route.matches, request) {
                None => true,
                Some(why) => {
                    rejected.push(Rejection { route: route.name.to_string(), why });
                    false
                }
            }
        });
        rejected
    }

    /// Visits the routes that fit by host and path, in order, until `accept` takes one.
    fn walk(&self, request: &RequestView<'_>, accept: &mut dyn FnMut(RouteIndex) -> bool) -> Option<RouteIndex> {
        let path = Split::new(request.path);
        let segments: smallvec::SmallVec<[&str; 16]> = path.segments().collect();
        // `/` itself counts as having no trailing slash: `/` is the pattern of the root.
        let slash = path.trailing_slash && !segments.is_empty();
        let mut try_node = |node: &Node| node.walk(&segments, slash, accept);
        if let Some(node) = self.exact.get(request.host)
            && let Some(found) = try_node(node)
        {
            return Some(found);
        }
        if !self.suffixes.is_empty() {
            let mut name = request.host;
            while let Some((_, parent)) = name.split_once('.') {
                if let Some(node) = self.suffixes.get(parent)
                    && let Some(found) = try_node(node)
                {
                    return Some(found);
                }
                name = parent;
            }
        }
        try_node(&self.any)
    }
}

impl Node {
    fn add_all(&mut self, paths: &[PathPattern], index: RouteIndex, routes: &[Arc<Route>]) {
        if paths.is_empty() {
            insert_by_conditions(&mut self.tails, index, routes);
        }
        for path in paths {
            self.add(path, index, routes);
        }
    }

    fn add(&mut self, path: &PathPattern, index: RouteIndex, routes: &[Arc<Route>]) {
        let mut node = self;
        for segment in &path.segments {
            node = match segment {
                PathSegment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                PathSegment::Parameter(_) => node.parameter.get_or_insert_default(),
            };
        }
        let list = match &path.tail {
            PathTail::None { trailing_slash } => &mut node.ends[usize::from(*trailing_slash)],
            PathTail::Anonymous | PathTail::Named(_) => &mut node.tails,
        };
        insert_by_conditions(list, index, routes);
    }

    fn walk(&self, segments: &[&str], slash: bool, accept: &mut dyn FnMut(RouteIndex) -> bool) -> Option<RouteIndex> {
        let found = match segments.split_first() {
            None => self.ends[usize::from(slash)].iter().copied().find(|&index| accept(index)),
            Some((first, rest)) => {
                let literal = self.literals.get(*first).and_then(|node| node.walk(rest, slash, accept));
                literal.or_else(|| self.parameter.as_ref()?.walk(rest, slash, accept))
            }
        };
        found.or_else(|| self.tails.iter().copied().find(|&index| accept(index)))
    }
}

/// More conditions first, then file order: routes are added in file order.
fn insert_by_conditions(list: &mut Vec<RouteIndex>, index: RouteIndex, routes: &[Arc<Route>]) {
    if list.contains(&index) {
        return;
    }
    let count = |index: RouteIndex| conditions(&routes[index.at()].matches);
    let at = list.partition_point(|&other| count(other) >= count(index));
    list.insert(at, index);
}

fn conditions(matches: &RouteMatch) -> usize {
    let lists = [matches.listeners.is_empty(), matches.methods.is_empty(), matches.client_ips.is_empty()];
    lists.iter().filter(|empty| !**empty).count()
        + usize::from(matches.scheme.is_some())
        + matches.headers.len()
        + matches.queries.len()
}

/// The first condition beside host and path that fails, in words.
fn failed_condition(matches: &RouteMatch, request: &RequestView<'_>) -> Option<String> {
    if !matches.listeners.is_empty() && !matches.listeners.contains(&request.listener) {
        return Some("match.listener names another listener".into());
    }
    if let Some(scheme) = matches.scheme.filter(|scheme| *scheme != request.scheme) {
        return Some(format!("match.scheme is {}", scheme.as_str()));
    }
    if !matches.methods.is_empty() && !matches.methods.contains(request.method) {
        return Some(format!("match.method does not name {}", request.method));
    }
    if !matches.client_ips.is_empty() && !matches.client_ips.iter().any(|net| net.contains(&request.client_ip)) {
        return Some(format!("match.client_ip does not hold {}", request.client_ip));
    }
    for header in &matches.headers {
        let values = request.headers.get_all(&header.name);
        let fits = match &header.value {
            ValueMatch::Equals(text) => values.iter().any(|value| value.as_bytes() == text.as_bytes()),
            ValueMatch::Present => values.iter().next().is_some(),
            ValueMatch::Absent => values.iter().next().is_none(),
        };
        if !fits {
            return Some(format!("match.header.{} does not fit", header.name));
        }
    }
    for query in &matches.queries {
        let mut values = parameters(request.query).filter(|(name, _)| *name == query.name).map(|(_, value)| value);
        let fits = match &query.value {
            ValueMatch::Equals(text) => values.any(|value| value == *text),
            ValueMatch::Present => values.next().is_some(),
            ValueMatch::Absent => values.next().is_none(),
        };
        if !fits {
            return Some(format!("match.query.{} does not fit", query.name));
        }
    }
    None
}

fn parameters(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// What the route's first fitting path captures in `path`.
pub fn captures(route: &Route, path: &str) -> Captures {
    route.matches.paths.iter().find_map(|pattern| match_path(pattern, path)).unwrap_or_default()
}
