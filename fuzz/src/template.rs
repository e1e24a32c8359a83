//! Whatever a path captures, a redirect leads where its template says, and a rewritten path is canonical.
//!
//! The first line is the route's path, the second the template, the others are request paths.

use std::net::{IpAddr, Ipv4Addr};

use headgate::base::id::ListenerIndex;
use headgate::config::load::parse_text;
use headgate::config::model::{Config, Scheme};
use headgate::decide::{DecideInput, Decision, decide};
use headgate::route::path::canonical;
use headgate::route::table::{RequestView, RouteTable};
use http::{HeaderMap, Method};

pub fn target(data: &[u8]) {
    let mut lines = super::lines(data);
    let (Some(pattern), Some(template)) = (lines.next(), lines.next()) else { return };
    let paths: Vec<_> = lines.take(16).filter_map(|path| canonical(path).ok()).collect();
    if let Some(config) = config(pattern, &format!("redirect.to = {}", super::quoted(template))) {
        for path in &paths {
            decided(&config, path, |decision| match decision {
                Decision::Redirect { location, .. } => leads_as_written(template, &location),
                Decision::NoRoute => {}
                decision => panic!("{decision:?}"),
            });
        }
    }
    if let Some(config) = config(pattern, &format!("pool = \"p\"\nrewrite.replace = {}", super::quoted(template))) {
        for path in &paths {
            decided(&config, path, |decision| match decision {
                Decision::Forward(plan) => {
                    let path = plan.path.expect("a rewrite");
                    assert_eq!(canonical(&path).as_deref(), Ok(&*path));
                }
                Decision::NoRoute | Decision::BadPath => {}
                decision => panic!("{decision:?}"),
            });
        }
    }
}

fn config(pattern: &str, action: &str) -> Option<Config> {
    let text = format!(
        "config_version = 1\nlisteners.a.address = \"127.0.0.1:80\"\npools.p.endpoints = [\"127.0.0.1:1\"]\n[routes.r]\n\
         match.path = {}\n{action}\n",
        super::quoted(pattern)
    );
    parse_text("f.toml", &text, &|_| None).ok().map(|(config, _)| config)
}

fn decided(config: &Config, path: &str, look: impl FnOnce(Decision<'_>)) {
    let routes = RouteTable::build(&config.routes);
    let view = RequestView {
        listener: ListenerIndex(0),
        scheme: Scheme::Http,
        method: &Method::GET,
        host: "a.test",
        path,
        query: None,
        headers: &HeaderMap::new(),
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    look(decide(&DecideInput { listeners: &config.listeners, routes: &routes }, &view));
}

/// As a browser reads it (WHATWG URL): tabs and line ends are passed over, backslashes are slashes.
fn leads_as_written(template: &str, location: &str) {
    assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{location:?}");
    let host = |url: &str| {
        let rest = url.split_once("://").map(|(scheme, rest)| (scheme.to_owned(), rest.replace('\\', "/")));
        rest.map(|(scheme, rest)| (scheme, rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned()))
    };
    if template.starts_with("http") {
        assert_eq!(host(location), host(template), "{template:?} led to {location:?}");
    } else {
        assert!(
            location.starts_with('/') && !location.starts_with("//") && !location.starts_with("/\\"),
            "{location:?}"
        );
    }
}
