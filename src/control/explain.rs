//! What would be done with a request, and why: the same `decide` and `pick` that traffic calls.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};

use crate::base::clock;
use crate::base::id::{ListenerIndex, PoolIndex, RouteIndex};
use crate::base::random::Seed;
use crate::base::record::Side;
use crate::cache::usable::may_use;
use crate::config::model::{Balance, Scheme};
use crate::decide::{DecideInput, Decision, Forward, cache_key, decide};
use crate::route::host::canonical_host;
use crate::route::path::canonical;
use crate::route::table::{Rejection, RequestView};
use crate::snapshot::Snapshot;
use crate::upstream::balance::{PickRequest, pick};
use crate::upstream::endpoint::{Standing, Verdict};
use crate::upstream::failback::BACKUPS;

/// Picks that shares are counted from.
const PICKS: u64 = 1000;

/// A request to explain.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Its method.
    pub method: String,
    /// Absolute: scheme, host and path choose listener and route.
    pub url: String,
    /// Header fields.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The client; 127.0.0.1 unless given.
    #[serde(default)]
    pub client: Option<IpAddr>,
    /// The listener that it comes to; the one that the URL's scheme and port lead to unless given.
    #[serde(default)]
    pub listener: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Of the config.
    pub generation: u64,
    /// The listener that would take it.
    pub listener: String,
    /// The canonical path.
    pub path: String,
    /// The route.
    pub route: Option<String>,
    /// `file:line` of the route.
    pub origin: Option<String>,
    /// Nearer routes, and why they did not match.
    pub rejected: Vec<Rejection>,
    /// What is done, in a few words.
    pub outcome: String,
    /// The side of a split.
    pub side: Option<Side>,
    /// The rewritten path, where it is another.
    pub forwarded_path: Option<String>,
    /// The pools in the order in which they are asked: the one that serves, then those that take over.
    pub pools: Vec<PoolView>,
    /// What the cache does.
    pub cache: Option<CacheView>,
}

/// A pool as a pick sees it.
#[derive(Debug, Serialize)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Used only while the one before has no usable endpoint.
    pub overflow: bool,
    /// The endpoint that the request's cookie binds it to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<String>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointShare>,
    /// Why none is picked.
    pub no_pick: Option<String>,
}

/// An endpoint and its part of the traffic.
#[derive(Debug, Serialize)]
pub struct EndpointShare {
    /// Its address; the name, where that has no address.
    pub address: String,
    /// The name that its address is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Used only while no other is usable.
    pub backup: bool,
    /// The control plane's word.
    pub verdict: Verdict,
    /// How it is picked now.
    pub standing: Standing,
    /// Percent of its weight, while it comes up by `slow_start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rising: Option<f64>,
    /// Percent of 1000 picks.
    pub share: f64,
}

/// What the cache does with a request.
#[derive(Debug, Serialize)]
pub struct CacheView {
    /// The zone.
    pub zone: String,
    /// The key.
    pub key: String,
    /// Whether it is looked up.
    pub looked_up: bool,
    /// Why not.
    pub why_not: Option<String>,
}

/// Explains a request.
///
/// # Errors
/// A sentence where the question itself cannot be a request.
pub fn explain(snapshot: &Snapshot, question: &Question, now: Instant) -> Result<Explanation, String> {
    let method = Method::from_bytes(question.method.as_bytes()).map_err(|_| "this is no method".to_owned())?;
    if matches!(method, Method::CONNECT | Method::TRACE) {
        return Err(format!("{method} is refused with 405"));
    }
    let uri: Uri = question.url.parse().map_err(|error| format!("`{}` is no URL: {error}", question.url))?;
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => return Err("the URL needs a scheme and a host: `https://localhost/api/notes`".to_owned()),
    };
    if matches!(method, Method::CONNECT | Method::TRACE) {
        return Err(format!("{method} is refused with 405"));
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let (host, port) = canonical_host(authority).map_err(|fault| format!("the host is refused with 400: {fault}"))?;
    // As it is sent on, and as the cache's key has it.
    let authority = port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
    let path = canonical(uri.path()).map_err(|fault| format!("the path is refused with 400: {fault}"))?;
    let headers = headers(&question.headers)?;
    let listener = match &question.listener {
        Some(name) => named(snapshot, name)?,
        None => listener(snapshot, scheme, port).ok_or("there is no listener")?,
    };
    let client_ip = question.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let view = RequestView {
        listener,
        scheme,
        method: &method,
        host: &host,
        path: &path,
        query: uri.query(),
        headers: &headers,
        client_ip,
    };
    let input = DecideInput::of(snapshot);
    let mut answer = Explanation {
        generation: snapshot.generation,
        listener: snapshot.listener(listener).map(|found| found.spec.name.to_string()).unwrap_or_default(),
        path: path.to_string(),
        route: None,
        origin: None,
        rejected: snapshot.routes.explain(&view),
        outcome: String::new(),
        side: None,
        forwarded_path: None,
        pools: Vec::new(),
        cache: None,
    };
    match decide(&input, &view) {
        Decision::HttpsRedirect { location } => {
            answer.rejected.clear();
            answer.outcome = format!("the listener redirects to {location} (308)");
        }
        Decision::NoRoute => answer.outcome = "no route matches (404)".to_owned(),
        Decision::BadPath => answer.outcome = "the route's rewrite gives a path that is refused (400)".to_owned(),
        Decision::Redirect { index, status, location } => {
            answer.routed(snapshot, index);
            answer.outcome = format!("redirects to {location} ({})", status.as_u16());
        }
        Decision::Respond { index, respond } => {
            answer.routed(snapshot, index);
            answer.outcome = format!("answers with {}", respond.status.as_u16());
        }
        Decision::Forward(plan) => {
            answer.routed(snapshot, plan.index);
            answer.cache = cache_view(snapshot, &plan, &view, &authority);
            answer.forward(snapshot, plan, &view, now);
        }
    }
    Ok(answer)
}

impl Explanation {
    fn routed(&mut self, snapshot: &Snapshot, index: RouteIndex) {
        if let Some(route) = snapshot.config.routes.get(index.at()) {
            self.route = Some(route.name.to_string());
            self.origin = Some(route.origin.clone());
        }
    }

    fn forward(&mut self, snapshot: &Snapshot, plan: Forward<'_>, request: &RequestView<'_>, now: Instant) {
        self.outcome = format!("goes to pool {}", snapshot.pool(plan.pool).spec.name);
        self.side = plan.side;
        self.forwarded_path = plan.path;
        let course = snapshot.course(plan.pool, plan.overflow, || u64::MAX);
        let views = course.iter().enumerate().map(|(at, leg)| pool_view(snapshot, leg.pool, at > 0, request, now));
        self.pools.extend(views);
    }
}

fn headers(given: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let fault = || format!("`{name}: {value}` is no header field");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| fault())?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| fault())?);
    }
    Ok(headers)
}

fn named(snapshot: &Snapshot, name: &str) -> Result<ListenerIndex, String> {
    let mut names = snapshot.listeners.iter().map(|listener| &*listener.spec.name);
    let at = names.clone().position(|has| has == name);
    let fault =
        || format!("there is no listener `{name}`; there are: {}", names.by_ref().collect::<Vec<_>>().join(", "));
    Ok(ListenerIndex(at.ok_or_else(fault)? as u32))
}

/// The listener on the URL's port; else the first that speaks its scheme.
fn listener(snapshot: &Snapshot, scheme: Scheme, port: Option<u16>) -> Option<ListenerIndex> {
    let port = port.unwrap_or(if scheme == Scheme::Https { 443 } else { 80 });
    let speaks = |spec: &crate::config::model::Listener| spec.tls.is_some() == (scheme == Scheme::Https);
    let all = || snapshot.listeners.iter().map(|listener| &*listener.spec);
    let at = all()
        .position(|spec| speaks(spec) && spec.address.port() == port)
        .or_else(|| all().position(speaks))
        .or_else(|| all().next().map(|_| 0))?;
    Some(ListenerIndex(at as u32))
}

fn pool_view(
    snapshot: &Snapshot,
    index: PoolIndex,
    overflow: bool,
    request: &RequestView<'_>,
    now: Instant,
) -> PoolView {
    let pool = snapshot.pool(index);
    let affinity = pool.affinity(request, clock::unix_millis() / 1000);
    let mut picks = vec![0_u64; pool.endpoints.len()];
    let mut no_pick = None;
    for turn in 0..PICKS {
        let seed = if pool.spec.balance == Balance::RoundRobin { Seed(turn) } else { Seed(Seed(1).number(turn)) };
        let request = PickRequest {
            balance: &pool.spec.balance,
            sticky: affinity.endpoint,
            tried: &[],
            max_requests: pool.spec.most_requests(),
            key: affinity.key,
            backups_first: pool.has_stages && pool.state.begin(|| seed.number(5)) == BACKUPS,
            now,
            seed,
        };
        match pick(pool, &request) {
            Ok(index) => picks[index.at()] += 1,
            Err(why) => {
                no_pick = Some(format!("{why:?}"));
                break;
            }
        }
    }
    let endpoints = pool.endpoints.iter().zip(picks).map(|(endpoint, picks)| EndpointShare {
        address: endpoint.name.to_string(),
        from: endpoint.from.as_ref().map(ToString::to_string),
        backup: endpoint.spec.backup,
        verdict: endpoint.state.verdict(),
        standing: pool.standing(endpoint, now),
        rising: endpoint.state.share(now).rising(),
        share: picks as f64 * 100.0 / PICKS as f64,
    });
    let unknown = pool.names.iter().filter(|name| name.is_empty).map(|name| EndpointShare {
        address: name.text.to_string(),
        from: Some(name.text.to_string()),
        backup: name.spec.backup,
        verdict: Verdict::Down,
        standing: Standing::Out,
        rising: None,
        share: 0.0,
    });
    let bound_to = affinity.endpoint.and_then(|index| pool.endpoint(index)).map(|endpoint| endpoint.name.to_string());
    let endpoints = endpoints.chain(unknown).collect();
    PoolView { name: pool.spec.name.to_string(), overflow, bound_to, endpoints, no_pick }
}

fn cache_view(snapshot: &Snapshot, plan: &Forward<'_>, view: &RequestView<'_>, authority: &str) -> Option<CacheView> {
    let rule = plan.cache?;
    let refused = may_use(view.method, view.headers, false).err();
    Some(CacheView {
        zone: snapshot.config.caches.get(rule.zone.at()).map(|zone| zone.name.to_string()).unwrap_or_default(),
        key: cache_key(plan.route, "", view.scheme, authority, view.path, view.query).to_string(),
        looked_up: refused.is_none(),
        why_not: refused.map(|why| format!("{why:?}")),
    })
}
