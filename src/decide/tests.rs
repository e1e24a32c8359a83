//! Decisions as a table: which pool, which side, which path, which location.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use super::*;
use crate::base::id::{CacheIndex, ListenerIndex};
use crate::base::units::ByteSize;
use crate::config::model::{
    HttpsRedirect, ListenerLimits, ListenerTimeouts, Redirect, Split, SplitOverride, Template, TemplatePart,
};
use crate::route::tests::{pattern, route, view};

fn listener(redirect: Option<u16>) -> Arc<Listener> {
    let second = Duration::from_secs(1);
    let bytes = ByteSize(1024);
    Arc::new(Listener {
        name: "l".into(),
        address: ([127, 0, 0, 1], 0).into(),
        redirect: redirect.map(|port| HttpsRedirect { port }),
        tls: None,
        trusted_proxies: Vec::new(),
        timeouts: ListenerTimeouts {
            handshake: second,
            header: second,
            body: second,
            send: second,
            keep_alive: second,
        },
        limits: ListenerLimits { header_bytes: bytes, target_bytes: bytes, connections: None, streams: 1 },
    })
}

/// Decides with these routes on a listener without redirect, and hands the decision to `look`.
fn with<T>(routes: Vec<Route>, request: &RequestView<'_>, look: impl FnOnce(Decision<'_>) -> T) -> T {
    let routes = RouteTable::build(&routes.into_iter().map(Arc::new).collect::<Vec<_>>());
    look(decide(&DecideInput { listeners: &[listener(None)], routes: &routes }, request))
}

fn template(text: &str) -> Template {
    let piece = |(at, text): (usize, &str)| match at % 2 {
        0 => TemplatePart::Literal(text.to_owned()),
        _ => TemplatePart::Capture(text.to_owned()),
    };
    Template(text.split(['{', '}']).enumerate().filter(|(_, text)| !text.is_empty()).map(piece).collect())
}

fn split_route(when_reads_down: WhenReadsDown, write: u32) -> Route {
    let over = SplitOverride { method: Some(Method::POST), path: Some(pattern("/search")), side: Side::Read };
    let fresh = SplitOverride { method: None, path: Some(pattern("/fresh/*")), side: Side::Write };
    let split = Split { read: PoolIndex(0), write: PoolIndex(write), overrides: vec![over, fresh], when_reads_down };
    let cache = Some(RouteCache { zone: CacheIndex(0), default_ttl: None });
    Route { action: Action::Split(split), cache, ..route("split", &[], &[]) }
}

#[test]
fn reads_and_writes_go_to_their_pools() {
    use Side::{Read, Write};
    for (method, path, side, pool, overflow, cached) in [
        ("GET", "/x", Read, 0, Some(1), true),
        ("HEAD", "/x", Read, 0, Some(1), true),
        ("OPTIONS", "/x", Read, 0, Some(1), false),
        ("POST", "/search", Read, 0, Some(1), false),
        ("POST", "/x", Write, 1, None, false),
        ("DELETE", "/x", Write, 1, None, false),
        ("GET", "/fresh/x", Write, 1, None, false),
    ] {
        let method: Method = method.parse().unwrap();
        let request = RequestView { method: &method, ..view("h.test", path) };
        with(vec![split_route(WhenReadsDown::Write, 1)], &request, |decision| {
            let Decision::Forward(plan) = decision else { panic!("{decision:?}") };
            assert_eq!((plan.side, plan.pool.0), (Some(side), pool), "{method} {path}");
            assert_eq!((plan.overflow.map(|pool| pool.0), plan.cache.is_some()), (overflow, cached), "{method} {path}");
            assert_eq!(plan.path, None);
        });
    }
}

#[test]
fn writes_never_go_to_the_read_pool_and_reads_overflow_only_where_they_may() {
    for (down, write) in [(WhenReadsDown::Fail, 1), (WhenReadsDown::Write, 0)] {
        with(vec![split_route(down, write)], &view("h.test", "/"), |decision| {
            let Decision::Forward(plan) = decision else { panic!("{decision:?}") };
            assert_eq!(plan.overflow, None, "{down:?} {write}");
        });
    }
}

#[test]
fn rewrites_take_whole_segments_and_stay_canonical() {
    let strip = |prefix: &str| Rewrite::StripPrefix(prefix.to_owned());
    let replace = |to: &str| Rewrite::Replace(template(to));
    for (paths, rewrite, path, expected) in [
        ("/*", strip("/api"), "/api/x/y", Ok(Some("/x/y"))),
        ("/*", strip("/api/"), "/api/x/", Ok(Some("/x/"))),
        ("/*", strip("/api"), "/api", Ok(Some("/"))),
        ("/*", strip("/api"), "/api/", Ok(Some("/"))),
        ("/*", strip("/api"), "/apix", Ok(None)),
        ("/*", strip("/api"), "/x/api", Ok(None)),
        ("/*", strip("/api"), "*", Ok(None)),
        ("/old/{*rest}", replace("/new/{rest}"), "/old/a%2Fb/c", Ok(Some("/new/a%2Fb/c"))),
        ("/old/{*rest}", replace("/new/{rest}"), "/old", Ok(Some("/new/"))),
        ("/old/{*rest}", replace("{rest}"), "/old/a", Ok(Some("/a"))),
        ("/old/{*rest}", replace("//{rest}"), "/old/a", Ok(Some("/a"))),
        ("/old/{x}", replace("/a/.{x}/b"), "/old/.x", Ok(Some("/a/..x/b"))),
        // What two harmless halves make together is checked again.
        ("/old/{x}", replace("/a/.{x}/b"), "/old/;", Err(())),
        ("/old/{x}", replace("/a/..%2{x}"), "/old/F", Err(())),
        ("/old/{x}", replace("/a/%{x}"), "/old/zz", Err(())),
    ] {
        let rule = Route { rewrite: Some(rewrite.clone()), ..route("r", &[], &[paths]) };
        with(vec![rule], &view("h.test", path), |decision| match (decision, expected) {
            (Decision::Forward(plan), Ok(to)) => assert_eq!(plan.path.as_deref(), to, "{rewrite:?} {path}"),
            (Decision::BadPath, Err(())) => {}
            (decision, expected) => panic!("{rewrite:?} {path}: {decision:?}, not {expected:?}"),
        });
    }
}

#[test]
fn redirects_and_fixed_answers_need_no_pool() {
    let redirect = Redirect { to: template("/new/{rest}"), status: StatusCode::PERMANENT_REDIRECT };
    let old = Route { action: Action::Redirect(redirect), ..route("old", &[], &["/old/{*rest}"]) };
    let respond = Respond {
        status: StatusCode::IM_A_TEAPOT,
        body: Bytes::new(),
        content_type: HeaderValue::from_static("text/plain"),
    };
    let tea = Route { action: Action::Respond(respond), ..route("tea", &[], &["/tea"]) };
    let routes = || vec![old.clone(), tea.clone()];
    with(routes(), &view("h.test", "/old/a/b"), |decision| {
        let Decision::Redirect { index, status, location } = decision else { panic!("{decision:?}") };
        assert_eq!((index.0, status.as_u16(), location.as_str()), (0, 308, "/new/a/b"));
    });
    with(routes(), &view("h.test", "/tea"), |decision| {
        assert!(matches!(decision, Decision::Respond { index: RouteIndex(1), respond } if respond.status == 418));
    });
    with(routes(), &view("h.test", "/none"), |decision| assert!(matches!(decision, Decision::NoRoute)));
}

#[test]
fn a_redirect_to_https_keeps_host_and_target() {
    let routes = RouteTable::build(&[Arc::new(route("r", &[], &[]))]);
    let listeners = [listener(Some(443)), listener(Some(8443))];
    let input = DecideInput { listeners: &listeners, routes: &routes };
    for (at, host, path, query, expected) in [
        (0, "h.test", "/a%2Fb/", Some("x=1&y"), Some("https://h.test/a%2Fb/?x=1&y")),
        (1, "h.test", "/", None, Some("https://h.test:8443/")),
        (1, "[::1]", "/", Some(""), Some("https://[::1]:8443/?")),
        (0, "h.test", "*", None, Some("https://h.test")),
        // `https:///evil.test/` would lead to evil.test.
        (0, "", "/evil.test/", None, None),
    ] {
        let request = RequestView { listener: ListenerIndex(at), query, ..view(host, path) };
        match decide(&input, &request) {
            Decision::HttpsRedirect { location } => assert_eq!(Some(location.as_str()), expected),
            decision => assert!(matches!(decision, Decision::NoRoute) && expected.is_none(), "{decision:?}"),
        }
    }
}
