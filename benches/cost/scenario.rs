//! What is measured, and on which config: what an operator has, without what would add another thread's timing.

use std::net::SocketAddr;
use std::path::Path;

/// One kind of request.
pub(crate) struct Scenario {
    /// As the expected figures name it.
    pub(crate) name: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) path: &'static str,
    /// The cache answers all but the first.
    pub(crate) is_cached: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Protocol {
    Http1,
    /// On cleartext, with prior knowledge.
    Http2,
}

pub(crate) const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "proxied", protocol: Protocol::Http1, path: "/notes?sort=new", is_cached: false },
    Scenario { name: "cached", protocol: Protocol::Http1, path: "/static/app.css?v=7", is_cached: true },
    Scenario { name: "proxied-http2", protocol: Protocol::Http2, path: "/notes?sort=new", is_cached: false },
];

/// Requests before it counts: connections are open, buffers have grown, the cache has its object.
pub(crate) const WARM_UP: u64 = 200;
/// Requests that are counted.
pub(crate) const COUNTED: u64 = 1000;

/// The config of all scenarios. No health checks: when the first one comes decides which way the first picks go.
pub(crate) fn config(folder: &Path, origin: SocketAddr) -> String {
    format!(
        r#"
        config_version = 1
        [process]
        workers = 1
        [metrics]
        address = "127.0.0.1:0"
        [access_log]
        output = "{}/access.log"
        [listeners.http]
        address = "127.0.0.1:0"
        [caches.main]
        [pools.read]
        endpoints = ["{origin}"]
        [pools.write]
        endpoints = ["{origin}"]
        [routes.app]
        match.path = "/*"
        split.read = "read"
        split.write = "write"
        [routes.static]
        match.path = "/static/*"
        pool = "read"
        cache.zone = "main"
        [routes.api]
        match.host = "api.example.com"
        match.path = "/v1/{{*rest}}"
        rewrite.replace = "/{{rest}}"
        pool = "read"
        "#,
        folder.display()
    )
}
