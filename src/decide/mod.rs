//! Floor 5: one pure function from a request's view to what is done with it.
//!
//! No I/O, no clock, no dice. `headgate explain` calls the same [`decide`] that traffic calls.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Method, StatusCode};

use crate::base::id::{PoolIndex, RouteIndex};
use crate::base::record::Side;
use crate::cache::CacheKey;
use crate::config::model::{
    Action, HttpsRedirect, Listener, Respond, Rewrite, Route, RouteCache, Scheme, WhenReadsDown,
};
use crate::route::table::{RequestView, RouteTable, captures};
use crate::route::{path, split, template};
use crate::snapshot::Snapshot;

/// What a decision is made from.
#[derive(Clone, Copy)]
pub struct DecideInput<'s> {
    /// The listeners' settings, by place.
    pub listeners: &'s [Arc<Listener>],
    /// The route table.
    pub routes: &'s RouteTable,
}

impl<'s> DecideInput<'s> {
    /// What traffic under `snapshot` is decided from.
    pub fn of(snapshot: &'s Snapshot) -> Self {
        Self { listeners: &snapshot.config.listeners, routes: &snapshot.routes }
    }
}

/// What is done with a request.
#[derive(Debug)]
pub enum Decision<'s> {
    /// The listener answers everything with a redirect to HTTPS.
    HttpsRedirect {
        /// Where to.
        location: String,
    },
    /// No route matches, or a redirect to HTTPS has no host to name.
    NoRoute,
    /// The route's rewrite gives a path that has no canonical form.
    BadPath,
    /// The route answers with a redirect.
    Redirect {
        /// The route.
        index: RouteIndex,
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
        /// Where to.
        location: String,
    },
    /// The route answers with a fixed response.
    Respond {
        /// The route.
        index: RouteIndex,
        /// The response.
        respond: &'s Respond,
    },
    /// The request is sent on.
    Forward(Forward<'s>),
}

/// How a request is sent on.
#[derive(Debug)]
pub struct Forward<'s> {
    /// The route.
    pub index: RouteIndex,
    /// The route.
    pub route: &'s Route,
    /// The side of a split.
    pub side: Option<Side>,
    /// The pool that serves it.
    pub pool: PoolIndex,
    /// The pool that reads overflow to while theirs is down, up to half of its `max_requests`.
    pub overflow: Option<PoolIndex>,
    /// The rewritten path; as it came where it is none.
    pub path: Option<String>,
    /// The cache that may answer it.
    pub cache: Option<&'s RouteCache>,
}

/// Decides what is done with a request.
pub fn decide<'s>(input: &DecideInput<'s>, request: &RequestView<'_>) -> Decision<'s> {
    if let Some(redirect) = input.listeners.get(request.listener.at()).and_then(|listener| listener.redirect) {
        return https_redirect(redirect, request);
    }
    let Some(found) = input.routes.find(request) else {
        return Decision::NoRoute;
    };
    let (index, route) = (found.index, found.route);
    let (side, pool, overflow) = match &route.action {
        Action::Redirect(redirect) => {
            let location = template::location(&redirect.to, &captures(route, request.path), request.query);
            return Decision::Redirect { index, status: redirect.status, location };
        }
        Action::Respond(respond) => return Decision::Respond { index, respond },
        Action::Pool(pool) => (None, *pool, None),
        Action::Split(rule) => match split::side(rule, request.method, request.path) {
            Side::Write => (Some(Side::Write), rule.write, None),
            Side::Read => {
                // Overflowing to the pool that is down would halve its cap and help nobody.
                let elsewhere = rule.when_reads_down == WhenReadsDown::Write && rule.write != rule.read;
                let overflow = elsewhere.then_some(rule.write);
                (Some(Side::Read), rule.read, overflow)
            }
        },
    };
    let Ok(path) = rewritten(route, request.path) else {
        return Decision::BadPath;
    };
    let cacheable = matches!(*request.method, Method::GET | Method::HEAD) && side != Some(Side::Write);
    let cache = route.cache.as_ref().filter(|_| cacheable);
    Decision::Forward(Forward { index, route, side, pool, overflow, path, cache })
}

/// The key under which a route's responses are stored: its own space, for routes that share a zone may answer the
/// same URL differently, with what a trusted proxy has `told` of the URL; then scheme, host with port, and the exact
/// target.
pub fn cache_key(
    route: &Route,
    told: &str,
    scheme: Scheme,
    authority: &str,
    path: &str,
    query: Option<&str>,
) -> CacheKey {
    let space = if told.is_empty() { Cow::Borrowed(&*route.name) } else { Cow::Owned(format!("{}{told}", route.name)) };
    match query {
        None => CacheKey::in_space(&space, scheme, authority, path),
        Some(query) => CacheKey::in_space(&space, scheme, authority, &format!("{path}?{query}")),
    }
}

/// The same host and target over HTTPS.
fn https_redirect<'s>(redirect: HttpsRedirect, request: &RequestView<'_>) -> Decision<'s> {
    // HTTP/1.0 without Host: `https:///path` would name the path's first segment as the host.
    if request.host.is_empty() {
        return Decision::NoRoute;
    }
    let mut location = format!("https://{}", request.host);
    if redirect.port != 443 {
        location.push_str(&format!(":{}", redirect.port));
    }
    // `*` of `OPTIONS *` is the server as a whole: in absolute form an empty path (RFC 9112 §3.2.4).
    if request.path.starts_with('/') {
        location.push_str(request.path);
    }
    if let Some(query) = request.query {
        location.push('?');
        location.push_str(query);
    }
    Decision::HttpsRedirect { location }
}

/// The path after the route's rewrite, canonical again.
fn rewritten(route: &Route, original: &str) -> Result<Option<String>, path::PathFault> {
    let text = match &route.rewrite {
        None => return Ok(None),
        Some(Rewrite::StripPrefix(prefix)) => {
            let prefix = prefix.trim_end_matches('/');
            match original.strip_prefix(prefix) {
                Some("") => "/".to_owned(),
                Some(rest) if rest.starts_with('/') => rest.to_owned(),
                _ => return Ok(None),
            }
        }
        Some(Rewrite::Replace(to)) => template::path(to, &captures(route, original)),
    };
    Ok(Some(path::canonical(&text)?.into_owned()))
}

#[cfg(test)]
mod tests;
