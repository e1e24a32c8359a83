//! The order of routes: a table to read, and a matcher that is too simple to be wrong to hold the trie against.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use proptest::prelude::*;

use crate::base::id::{ListenerIndex, PoolIndex, RouteIndex};
use crate::base::units::ByteSize;
use crate::config::model::{
    Action, HeaderEdits, HeaderMatch, HostPattern, PathPattern, PathSegment, PathTail, QueryMatch, Retry, Route,
    RouteLimits, RouteMatch, RouteTimeouts, Scheme, ValueMatch,
};
use crate::route::table::{RequestView, RouteTable, captures};

/// A pattern as a config file writes it.
pub(crate) fn pattern(text: &str) -> PathPattern {
    let mut tail = PathTail::None { trailing_slash: text.len() > 1 && text.ends_with('/') };
    let mut segments = Vec::new();
    for piece in text.split('/').filter(|piece| !piece.is_empty()) {
        match piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}')) {
            Some(name) if name.starts_with('*') => tail = PathTail::Named(name[1..].to_owned()),
            Some(name) => segments.push(PathSegment::Parameter(name.to_owned())),
            None if piece == "*" => tail = PathTail::Anonymous,
            None => segments.push(PathSegment::Literal(piece.to_owned())),
        }
    }
    PathPattern { text: text.to_owned(), segments, tail }
}

fn host(text: &str) -> HostPattern {
    match text.strip_prefix("*.") {
        Some(name) => HostPattern::Suffix(name.to_owned()),
        None => HostPattern::Exact(text.to_owned()),
    }
}

/// A route to pool 0.
pub(crate) fn route(name: &str, hosts: &[&str], paths: &[&str]) -> Route {
    Route {
        name: name.into(),
        origin: String::new(),
        matches: RouteMatch {
            hosts: hosts.iter().map(|text| host(text)).collect(),
            paths: paths.iter().map(|text| pattern(text)).collect(),
            ..RouteMatch::default()
        },
        action: Action::Pool(PoolIndex(0)),
        rewrite: None,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        limits: RouteLimits { body: ByteSize(1) },
        priority: crate::config::model::Priority::Normal,
        timeouts: RouteTimeouts { total: Duration::ZERO, tunnel: Duration::ZERO },
        retry: Retry::default(),
        cache: None,
        upgrades: Vec::new(),
    }
}

fn table(routes: Vec<Route>) -> RouteTable {
    RouteTable::build(&routes.into_iter().map(Arc::new).collect::<Vec<_>>())
}

static NO_HEADERS: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);

/// A GET over HTTPS.
pub(crate) fn view<'a>(host: &'a str, path: &'a str) -> RequestView<'a> {
    RequestView {
        listener: ListenerIndex(0),
        scheme: Scheme::Https,
        method: &Method::GET,
        host,
        path,
        query: None,
        headers: &NO_HEADERS,
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

fn taken(table: &RouteTable, request: &RequestView<'_>) -> Option<String> {
    table.find(request).map(|found| found.route.name.to_string())
}

#[test]
fn the_nearest_route_wins_wherever_it_stands_in_the_file() {
    let mut routes = vec![
        route("any", &[], &[]),
        route("any-api-x", &[], &["/api/x"]),
        route("sub", &["*.a.test"], &[]),
        route("sub-sub", &["*.b.a.test"], &["/*"]),
        route("host", &["h.test"], &["/*"]),
        route("host-tail", &["h.test"], &["/api/*"]),
        route("host-parameter", &["h.test"], &["/api/{id}"]),
        route("host-literal", &["h.test"], &["/api/x"]),
        route("host-parameter-y", &["h.test"], &["/api/{id}/y"]),
        route("host-literal-z", &["h.test"], &["/api/x/z"]),
        route("host-root", &["h.test"], &["/"]),
        route("host-slash", &["h.test"], &["/api/x/"]),
    ];
    let expected = [
        ("h.test", "/api/x", "host-literal"),
        ("h.test", "/api/x/", "host-slash"),
        ("h.test", "/api/7", "host-parameter"),
        // Comes back from the literal `x`, which leads nowhere.
        ("h.test", "/api/x/y", "host-parameter-y"),
        ("h.test", "/api/x/z", "host-literal-z"),
        ("h.test", "/api/x/q", "host-tail"),
        ("h.test", "/api", "host-tail"),
        ("h.test", "/api/", "host-tail"),
        ("h.test", "/", "host-root"),
        ("h.test", "/q", "host"),
        ("h.test", "*", "host"),
        // The host comes before the path.
        ("a.a.test", "/api/x", "sub"),
        ("c.b.a.test", "/api/x", "sub-sub"),
        ("b.a.test", "/", "sub"),
        ("a.test", "/api/x", "any-api-x"),
        ("xa.test", "/", "any"),
        ("", "/", "any"),
    ];
    for _ in 0..2 {
        let table = table(routes.clone());
        for (host, path, name) in expected {
            assert_eq!(taken(&table, &view(host, path)).as_deref(), Some(name), "{host} {path}");
        }
        routes.reverse();
    }
}

#[test]
fn more_conditions_come_first_and_then_the_file_order() {
    let mut post = route("post", &[], &["/x"]);
    post.matches.methods = vec![Method::POST];
    let mut both = route("both", &[], &["/x"]);
    both.matches.methods = vec![Method::POST, Method::GET];
    both.matches.scheme = Some(Scheme::Http);
    let table = table(vec![route("first", &[], &["/x"]), route("second", &[], &["/x", "/x"]), post, both]);
    let request = view("h.test", "/x");
    assert_eq!(taken(&table, &request).as_deref(), Some("first"));
    let why: Vec<_> = table.explain(&request).into_iter().map(|no| (no.route, no.why)).collect();
    let words = [("both", "match.scheme is http"), ("post", "match.method does not name GET")];
    assert_eq!(why, words.map(|(route, why)| (route.to_owned(), why.to_owned())));
    assert_eq!(taken(&table, &RequestView { method: &Method::POST, ..request }).as_deref(), Some("post"));
    let plain = RequestView { scheme: Scheme::Http, ..request };
    assert_eq!(taken(&table, &plain).as_deref(), Some("both"));
    assert!(table.explain(&plain).is_empty());
}

#[test]
fn a_route_that_fits_twice_is_explained_once() {
    let mut twice = route("twice", &["a.test", "*.test"], &["/a", "/{x}", "/*"]);
    twice.matches.listeners = vec![ListenerIndex(7)];
    let table = table(vec![twice]);
    assert!(table.find(&view("a.test", "/a")).is_none());
    assert_eq!(table.explain(&view("a.test", "/a")).len(), 1);
}

#[test]
fn each_condition_is_asked() {
    let header = |value| RouteMatch {
        headers: vec![HeaderMatch { name: "x-a".parse().unwrap(), value }],
        ..RouteMatch::default()
    };
    let query = |name: &str, value| RouteMatch {
        queries: vec![QueryMatch { name: name.to_owned(), value }],
        ..RouteMatch::default()
    };
    let equals = |text: &str| ValueMatch::Equals(text.to_owned());
    let nets = |text: &str| RouteMatch { client_ips: vec![text.parse().unwrap()], ..RouteMatch::default() };
    let mut headers = HeaderMap::new();
    headers.append("x-a", "one".parse().unwrap());
    headers.append("x-a", "two".parse().unwrap());
    let request = RequestView { headers: &headers, query: Some("a=1&a=2&&b+c=%C3%A9+x&d&e=%FF"), ..view("h", "/") };
    for (matches, expected) in [
        (header(equals("two")), true),
        (header(equals("Two")), false),
        (header(ValueMatch::Present), true),
        (header(ValueMatch::Absent), false),
        (query("a", equals("2")), true),
        (query("a", equals("3")), false),
        (query("b c", equals("é x")), true),
        (query("d", equals("")), true),
        (query("d", ValueMatch::Absent), false),
        (query("", ValueMatch::Present), false),
        (query("z", ValueMatch::Absent), true),
        (query("e", equals("\u{fffd}")), false),
        (nets("127.0.0.0/8"), true),
        (nets("::/0"), false),
        (RouteMatch { listeners: vec![ListenerIndex(1)], ..RouteMatch::default() }, false),
        (RouteMatch { listeners: vec![ListenerIndex(1), ListenerIndex(0)], ..RouteMatch::default() }, true),
    ] {
        let table = table(vec![Route { matches: matches.clone(), ..route("r", &[], &[]) }]);
        assert_eq!(table.find(&request).is_some(), expected, "{matches:?}");
        assert_eq!(table.explain(&request).is_empty(), expected, "{matches:?}");
    }
}

#[test]
fn captures_come_from_the_path_that_the_lookup_went_by() {
    let many = route("many", &[], &["/{*rest}", "/{one}/{*rest}", "/api/{*rest}", "/api/{x}/{*rest}"]);
    let of = |path| captures(&many, path).into_iter().find(|(name, _)| name == "rest").map(|(_, value)| value);
    assert_eq!(of("/api/x/y/z").as_deref(), Some("y/z"));
    assert_eq!(of("/api").as_deref(), Some(""));
    assert_eq!(of("/q/x").as_deref(), Some("x"));
    assert_eq!(of("/").as_deref(), Some(""));
}

/// HARDENING.md p-150-vhosts: what holds for three hosts holds for many.
#[test]
fn a_hundred_and_fifty_hosts_are_told_apart() {
    let names: Vec<_> = (0..150).map(|n| (format!("v{n}.test"), format!("*.w{n}.test"))).collect();
    let routes = names.iter().flat_map(|(exact, suffix)| [route(exact, &[exact], &[]), route(suffix, &[suffix], &[])]);
    let table = table(routes.collect());
    for (exact, suffix) in &names {
        let sent = exact.to_uppercase() + ".:8443";
        let (host, _) = crate::route::host::canonical_host(&sent).unwrap();
        assert_eq!(taken(&table, &view(&host, "/")).as_ref(), Some(exact));
        assert_eq!(taken(&table, &view(&suffix.replace('*', "a.b"), "/")).as_ref(), Some(suffix));
        assert_eq!(taken(&table, &view(&suffix[2..], "/")), None);
    }
}

/// Hosts looked up, nodes seen and routes tried by the dearest of some requests, on `count` routes of every kind:
/// literals beside parameters and tails, for one host, for `*.suffix` and for any.
fn dearest(count: usize) -> (usize, usize, usize) {
    let routes = (0..count).map(|n| {
        let (group, at) = (n % 100, n.to_string());
        let (literal, parameter) = (format!("/a{group}/b{n}/c"), format!("/a{group}/{{x}}/d{n}"));
        let tail = format!("/a{group}/t{n}/*");
        let (hosts, any) = ([&*format!("h{}.test", n % 7), "*.test"], n % 10 == 3);
        route(&at, if any { &[] } else { &hosts }, &[&literal, &parameter, &tail])
    });
    let table = table(routes.collect());
    let mut dearest = (0, 0, 0);
    for host in ["h3.test", "h4.test", "x.y.z.test", "elsewhere"] {
        for path in ["/a4/b4/c", "/a4/b4/d4", "/a4/b4/zz", "/a4/zz/d4", "/a4/t4/x/y", "/zz", "/a4/b4/c/d/e/f/g/h"] {
            let mut tried = 0;
            let cost = table.walk_counted(&view(host, path), &mut |_: RouteIndex| {
                tried += 1;
                true
            });
            dearest = (dearest.0.max(cost.hosts), dearest.1.max(cost.nodes), dearest.2.max(tried));
        }
    }
    dearest
}

/// What a look-up costs depends on the request's depth, not on how many routes there are.
#[test]
fn ten_thousand_routes_cost_no_more_than_a_hundred() {
    let cost = dearest(10_000);
    assert_eq!(cost, dearest(100));
    let one = dearest(1);
    assert!(one.0 <= cost.0 && one.1 <= cost.1 && one.2 <= cost.2, "{one:?}");
    // The host itself and its three parents. In each of three tries (host, suffix, any) the root, a segment, the
    // literal and the parameter behind it, and what follows each. One route, since each pattern stands there once.
    assert!(cost.0 == 4 && cost.1 <= 3 * 6 && cost.2 == 1, "{cost:?}");
}

/// The documented order in one sort key, over every pair of host and path of every route.
fn naive(routes: &[Route], request: &RequestView<'_>) -> Option<usize> {
    let host_rank = |host: &HostPattern| match host {
        HostPattern::Exact(name) => (name == request.host).then_some((0, Reverse(0))),
        HostPattern::Suffix(name) => {
            request.host.ends_with(&format!(".{name}")).then_some((1, Reverse(name.split('.').count())))
        }
    };
    let parts: Vec<&str> = request.path.split('/').skip(1).collect();
    let path_rank = |path: &PathPattern| {
        let mut rank = Vec::new();
        let full = parts.len() - usize::from(parts.last().is_some_and(|last| last.is_empty()));
        for (at, segment) in path.segments.iter().enumerate() {
            let part = parts[..full].get(at)?;
            match segment {
                PathSegment::Literal(text) => (text == part).then(|| rank.push(0))?,
                PathSegment::Parameter(_) => rank.push(1),
            }
        }
        match path.tail {
            PathTail::None { trailing_slash } => {
                let same = request.path == "/" || trailing_slash == request.path.ends_with('/');
                (request.path != "*" && full == path.segments.len() && same).then_some(rank)
            }
            _ => Some([rank, vec![2]].concat()),
        }
    };
    let keys = routes.iter().enumerate().flat_map(|(at, route)| {
        let RouteMatch { hosts, paths, methods, scheme, .. } = &route.matches;
        let holds = (methods.is_empty() || methods.contains(request.method))
            && scheme.is_none_or(|scheme| scheme == request.scheme);
        let any_host = hosts.is_empty().then_some((2, Reverse(0)));
        let any_path = paths.is_empty().then(|| vec![2]);
        let conditions = usize::from(!methods.is_empty()) + usize::from(scheme.is_some());
        let paths: Vec<_> = paths.iter().filter_map(path_rank).chain(any_path).collect();
        let hosts = hosts.iter().filter_map(host_rank).chain(any_host).filter(move |_| holds);
        hosts.flat_map(move |host| paths.clone().into_iter().map(move |path| (host, path, Reverse(conditions), at)))
    });
    keys.min().map(|key| key.3)
}

fn any_route() -> impl Strategy<Value = Route> {
    let host = prop::sample::select(vec!["a.test", "x.a.test", "b.test", "*.test", "*.a.test", "*.x.a.test"]);
    let segment = prop::sample::select(vec!["/a", "/b", "/{p}"]);
    let tail = prop::sample::select(vec!["", "", "/", "/*", "/{*t}"]);
    let path = (prop::collection::vec(segment, 0..4), tail).prop_map(|(segments, tail)| {
        let text = segments.concat() + tail;
        if text.is_empty() { "/".to_owned() } else { text }
    });
    let method = prop::sample::select(vec![Method::GET, Method::POST]);
    let conditions = (prop::collection::vec(method, 0..2), prop::option::of(Just(Scheme::Http)));
    (prop::collection::vec(host, 0..3), prop::collection::vec(path, 0..3), conditions).prop_map(
        |(hosts, paths, (methods, scheme))| {
            let paths: Vec<_> = paths.iter().map(String::as_str).collect();
            let mut route = route("r", &hosts, &paths);
            (route.matches.methods, route.matches.scheme) = (methods, scheme);
            route
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_trie_finds_what_the_naive_matcher_finds(
        routes in prop::collection::vec(any_route(), 0..24),
        requests in prop::collection::vec(("(y\\.)?(x\\.)?(a|b|c)\\.test", "(/[abc]){1,4}/?|/|\\*", any::<bool>(), any::<bool>()), 20),
    ) {
        let table = table(routes.clone());
        for (host, path, post, cleartext) in &requests {
            let request = RequestView {
                method: if *post { &Method::POST } else { &Method::GET },
                scheme: if *cleartext { Scheme::Http } else { Scheme::Https },
                ..view(host, path)
            };
            let found = table.find(&request).map(|found| found.index.at());
            prop_assert_eq!(found, naive(&routes, &request), "{} {}", host, path);
        }
    }
}
