//! Cookies: whatever a client sends, it binds to no endpoint, hashes alike each time, and headgate's own are taken off
//! without harm to the others. Each line is a `Cookie` field.

use std::net::IpAddr;
use std::sync::LazyLock;

use headgate::base::id::ListenerIndex;
use headgate::base::seal::KeyRing;
use headgate::config::load::parse_text;
use headgate::config::model::Scheme;
use headgate::proxy::strip_cookie;
use headgate::route::table::RequestView;
use headgate::upstream::balance::key::cookies;
use headgate::upstream::pool::Pool;
use headgate::upstream::registry::Registry;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Method};

static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let text = "config_version = 1\nlisteners.a.address = \"127.0.0.1:0\"\n[pools.p]\nendpoints = [\"127.0.0.1:1\"]\n\
                balance.hash.cookie = \"hg\"\nsticky.cookie = \"hg\"\n[routes.r]\npool = \"p\"\n";
    let (config, _) = parse_text("fuzz", text, &|_| None).unwrap();
    Pool::new(config.pools[0].clone(), None, &Registry::default()).with_keys(KeyRing::random().map(Into::into))
});

pub fn target(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in data.split(|byte| *byte == b'\n').take(32).filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(COOKIE, value);
    }
    let affinity = |headers: &HeaderMap| {
        POOL.affinity(
            &RequestView {
                listener: ListenerIndex(0),
                scheme: Scheme::Http,
                method: &Method::GET,
                host: "a",
                path: "/",
                query: None,
                headers,
                client_ip: IpAddr::from([192, 0, 2, 1]),
            },
            1_000,
        )
    };
    let first = affinity(&headers);
    assert!(first.bond.is_none() && first.endpoint.is_none(), "{headers:?}");
    assert_eq!(first.key, affinity(&headers).key);
    let pairs = |headers: &HeaderMap| -> Vec<Vec<u8>> {
        let pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        let name = |pair: &[u8]| pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii().to_vec();
        let kept = pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty());
        kept.filter(|pair| name(pair) != b"hg" || !pair.contains(&b'=')).map(<[u8]>::to_vec).collect()
    };
    let others = pairs(&headers);
    let cookie = POOL.sticky.as_ref().unwrap().issue(POOL.endpoints[0].hash, 1_000, false).unwrap();
    let own = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
    // A real one is found behind them, unless there are many before it.
    let junk = cookies(&headers, "hg").count();
    headers.append(COOKIE, own.parse().unwrap());
    assert_eq!(affinity(&headers).endpoint.is_some(), junk < 4, "{headers:?}");
    strip_cookie(&mut headers, "hg");
    assert_eq!(cookies(&headers, "hg").count(), 0, "{headers:?}");
    assert_eq!(pairs(&headers), others);
}
