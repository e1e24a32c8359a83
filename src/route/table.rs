//! The route table: from a request to the most specific route that matches it.
//!
//! The order is total. By host: exact, then the longest `*.suffix`, then any. Then by path, segment by segment: a
//! literal before `{parameter}` before a tail, so exact before tail and longer before shorter. Then the route with
//! more other conditions, then the one that stands first in the file. A route whose other conditions fail is passed
//! over for the next.
//!
//! matchit does paths only, takes one route per path and does not come back from a literal that leads nowhere, so
//! the trie is our own. A look-up costs a hash look-up per label of the host and per segment of the path, however
//! many routes there are. Only two things add to that, both written down by the operator: coming back visits each
//! node of the trie once at most (two a level where a parameter stands beside a literal), and routes with the same
//! host and path are tried in turn.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::{HeaderMap, Method};
use smallvec::SmallVec;

use crate::base::id::{ListenerIndex, RouteIndex};
use crate::config::model::{HostPattern, PathPattern, PathSegment, PathTail, Route, Scheme};
use crate::route::pattern::{Captures, match_path};
use crate::route::{condition, pattern};

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
            condition::failed(&route.matches, request).is_none()
        })
        .taken
        .map(|index| Found { index, route: &self.routes[index.at()] })
    }

    /// The routes that fit by host and path and come before the one taken, each with the condition that failed.
    pub fn explain(&self, request: &RequestView<'_>) -> Vec<Rejection> {
        let mut rejected = Vec::new();
        // A route with several hosts or paths may fit in several places, but fails for one reason.
        let mut seen = Vec::new();
        self.walk(request, &mut |index| {
            let route = &self.routes[index.at()];
            let failed = condition::failed(&route.matches, request);
            if let Some(failed) = failed.filter(|_| !seen.contains(&index)) {
                seen.push(index);
                rejected.push(Rejection { route: route.name.to_string(), why: failed.to_string() });
            }
            failed.is_none()
        });
        rejected
    }

    /// Visits the routes that fit by host and path, in order, until `accept` takes one.
    fn walk(&self, request: &RequestView<'_>, accept: &mut dyn FnMut(RouteIndex) -> bool) -> Walked {
        debug_assert!(!request.path.contains("//"), "a canonical path has no empty segment");
        let (segments, slash) = segments(request.path);
        let is_path = request.path.starts_with('/');
        let mut walk = Walk { slash, accept, nodes: 0 };
        let mut hosts = 1;
        let mut try_node = |node: &Node| match is_path {
            true => walk.node(node, &segments),
            // `*` of `OPTIONS *` is no path: only routes for everything cover it.
            false => walk.list(&node.tails),
        };
        let mut taken = self.exact.get(request.host).and_then(&mut try_node);
        let mut name = request.host;
        while taken.is_none()
            && !self.suffixes.is_empty()
            && let Some((_, parent)) = name.split_once('.')
        {
            hosts += 1;
            taken = self.suffixes.get(parent).and_then(&mut try_node);
            name = parent;
        }
        let taken = taken.or_else(|| try_node(&self.any));
        Walked { taken, hosts, nodes: walk.nodes }
    }
}

/// A canonical path taken apart at its slashes, and whether one trails. `/` itself has none: it is the root's pattern.
fn segments(path: &str) -> (SmallVec<[&str; 16]>, bool) {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let body = inner.strip_suffix('/').unwrap_or(inner);
    (body.split('/').filter(|segment| !segment.is_empty()).collect(), body.len() < inner.len())
}

/// What a walk came to, and what it cost.
#[cfg_attr(not(test), expect(dead_code, reason = "tests hold the cost by the two counts"))]
pub(super) struct Walked {
    taken: Option<RouteIndex>,
    /// Names that were looked up.
    pub(super) hosts: usize,
    /// Nodes of the trie that it saw.
    pub(super) nodes: usize,
}

#[cfg(test)]
impl RouteTable {
    /// A look-up with its cost.
    pub(super) fn walk_counted(&self, request: &RequestView<'_>, accept: &mut dyn FnMut(RouteIndex) -> bool) -> Walked {
        self.walk(request, accept)
    }
}

struct Walk<'w> {
    slash: bool,
    accept: &'w mut dyn FnMut(RouteIndex) -> bool,
    nodes: usize,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node, segments: &[&str]) -> Option<RouteIndex> {
        self.nodes += 1;
        let found = match segments.split_first() {
            None => self.list(&node.ends[usize::from(self.slash)]),
            Some((first, rest)) => {
                let literal = node.literals.get(*first).and_then(|node| self.node(node, rest));
                literal.or_else(|| self.node(node.parameter.as_ref()?, rest))
            }
        };
        found.or_else(|| self.list(&node.tails))
    }

    fn list(&mut self, routes: &[RouteIndex]) -> Option<RouteIndex> {
        routes.iter().copied().find(|&index| (self.accept)(index))
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
}

/// More conditions first, then file order: routes are added in file order.
fn insert_by_conditions(list: &mut Vec<RouteIndex>, index: RouteIndex, routes: &[Arc<Route>]) {
    if list.contains(&index) {
        return;
    }
    let count = |index: RouteIndex| condition::count(&routes[index.at()].matches);
    let at = list.partition_point(|&other| count(other) >= count(index));
    list.insert(at, index);
}

/// What the nearest of the route's paths that fit captures in `path`: the one that the look-up went by.
pub fn captures(route: &Route, path: &str) -> Captures {
    let fitting = route.matches.paths.iter().filter(|wanted| pattern::fits(wanted, path));
    fitting
        .min_by(|one, other| pattern::nearer(one, other))
        .and_then(|nearest| match_path(nearest, path))
        .unwrap_or_default()
}
