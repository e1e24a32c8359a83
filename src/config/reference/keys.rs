//! The keys. One line each; a new one needs a default, a bound, a line here, and somebody who asked for it.

use super::Shown::{Again, Default, Entry, Example, Given, List};
use super::{Key, Reload, Section, Shown};

const fn key(path: &'static str, shown: Shown, line: &'static str) -> Key {
    Key { path, shown, line, reload: Reload::Changes }
}

/// A key that a reload cannot change.
const fn fixed(path: &'static str, shown: Shown, line: &'static str) -> Key {
    Key { path, shown, line, reload: Reload::NeedsRestart }
}

const fn section(place: &'static str, line: &'static str, keys: &'static [Key]) -> Section {
    Section { place, line, takes: None, keys }
}

const fn defaults(
    place: &'static str,
    line: &'static str,
    of: &'static str,
    first: &'static [&'static str],
) -> Section {
    Section { place, line, takes: Some((of, first)), keys: &[] }
}

pub(super) const SECTIONS: &[Section] = &[
    section(
        "",
        "",
        &[
            key("config_version", Given("1"), "the version of this format"),
            key(
                "include",
                Example(r#"["conf.d/*.toml"]"#),
                "more keys, listeners, caches, pools, routes; lexical order, no dotfiles",
            ),
        ],
    ),
    section(
        "process",
        "",
        &[
            fixed("workers", Example("4"), "threads; unless given: one per usable core"),
            key("instances", Default("1"), "headgates that serve the same clients, this one included"),
            key("max_connections", Default("20000"), "client connections over all listeners"),
            key("held_bodies", Default(r#""256MiB""#), "request bodies held for a retry; beyond it they are streamed"),
            key(
                "share_ports",
                Default("false"),
                "true: listen where another headgate does, to take over while it drains",
            ),
            key("drain.delay", Default(r#""0s""#), "from \"not ready\" to the first closed connection"),
            key("drain.timeout", Default(r#""25s""#), "from there to the end of what still runs"),
        ],
    ),
    section(
        "metrics",
        "no metrics server without this table",
        &[fixed("address", Given(r#""127.0.0.1:9901""#), "/metrics /livez /readyz, nothing else")],
    ),
    section(
        "admin",
        "no admin API without this table",
        &[fixed("address", Given(r#""unix:/run/headgate/admin.sock""#), "a unix socket, or TCP on loopback")],
    ),
    section(
        "access_log",
        "",
        &[
            key("output", Default(r#""stdout""#), "stdout or a file, which USR1 reopens"),
            key("format", Default(r#""json""#), "json | combined | off"),
        ],
    ),
    section(
        "dns",
        "who is asked for endpoints' names",
        &[
            key(
                "servers",
                Example(r#"["10.0.0.2", "[fd00::2]:5353"]"#),
                "IP addresses, port 53 unless given; unless given: those of /etc/resolv.conf",
            ),
            key("timeout", Default(r#""5s""#), "one look-up, all tries; then the last good answer goes on"),
        ],
    ),
    defaults("defaults.listener", "for all listeners: timeouts, limits", "listeners", &["timeouts", "limits"]),
    defaults(
        "defaults.pool",
        "for all pools: what a pool takes but endpoints, tls, failover, sticky",
        "pools",
        &[
            "balance",
            "health",
            "timeouts",
            "ejection",
            "panic_threshold",
            "failback",
            "max_requests",
            "max_connections",
            "queue",
            "outage_wait",
            "max_idle",
            "retry_budget",
            "slow_start",
            "drain_timeout",
        ],
    ),
    defaults(
        "defaults.route",
        "for all routes: limits, timeouts, retry, upgrades",
        "routes",
        &["limits", "timeouts", "retry", "upgrades"],
    ),
    section(
        "keys.<main>",
        "what cookies are sealed with",
        &[
            key("secrets", List, "32 bytes each, base64 or hex; the first seals, all open: put a new one in front"),
            key("secrets[].file", Entry(r#"{ file = "certs/main.key" }"#), "file: it holds the secret as text"),
            key(
                "secrets[].value",
                Entry(r#"{ value = "${MAIN_KEY:-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8}" }"#),
                "value: out of the environment; give it no default, as is done here to make this load",
            ),
        ],
    ),
    section(
        "listeners.<http>",
        "",
        &[
            key("address", Given(r#""0.0.0.0:80""#), "where it listens"),
            key("redirect", Given(r#""https""#), "answer everything with 308 to the listener that has tls"),
        ],
    ),
    section(
        "listeners.<https>",
        "",
        &[
            key("address", Again(r#""0.0.0.0:443""#), ""),
            key("tls.certificates", List, "chosen by the name asked for (SNI); the first is the fallback"),
            key(
                "tls.certificates[].cert",
                Entry(r#"{ cert = "certs/localhost.pem", key = "certs/localhost.key" }"#),
                "cert: the chain, leaf first, PEM",
            ),
            key(
                "tls.certificates[].key",
                Entry(r#"{ cert = "certs/example.pem", key = "certs/example.key" }"#),
                "key: its private key, PEM",
            ),
            key("tls.min_version", Default(r#""1.2""#), "1.2 | 1.3"),
            key("tls.http2", Default("true"), "offer HTTP/2"),
            key(
                "trusted_proxies",
                Example(r#"["10.0.0.0/8"]"#),
                "peers whose `Forwarded`, `X-Forwarded-*`, `X-Real-IP` and `X-Request-Id` are believed; unless given: none",
            ),
            key("timeouts.handshake", Default(r#""10s""#), "the whole TLS handshake"),
            key("timeouts.header", Default(r#""10s""#), "a request's head"),
            key("timeouts.body", Default(r#""30s""#), "between two pieces of a request body"),
            key("timeouts.send", Default(r#""30s""#), "between two pieces that the client takes"),
            key("timeouts.keep_alive", Default(r#""75s""#), "a connection with no request on it"),
            key("limits.header_bytes", Default(r#""64KiB""#), "a request's head, 4KiB to 256KiB; 431 beyond"),
            key("limits.target_bytes", Default(r#""8KiB""#), "the request target, 256B to 256KiB; 414 beyond"),
            key("limits.connections", Example("10000"), "open connections; unless given: no limit of its own"),
            key("limits.streams", Default("100"), "concurrent HTTP/2 streams of a connection, 1 to 10000"),
        ],
    ),
    section(
        "caches.<main>",
        "",
        &[
            key("memory", Default(r#""64MiB""#), "all that is stored"),
            key(
                "max_body",
                Default(r#""1MiB""#),
                "the largest body that is stored; each from 64 KiB on takes a file descriptor",
            ),
        ],
    ),
    section(
        "pools.<app>",
        "",
        &[
            key("endpoints", List, "addresses, or tables:"),
            key(
                "endpoints[].address",
                Entry(r#"{ address = "127.0.0.1:7001" }"#),
                "`IP:port`, `name:port` (A and AAAA), `srv:name` (SRV), `unix:path`; names are looked up by their TTL",
            ),
            key(
                "endpoints[].weight",
                Entry(r#"{ address = "app.internal:8080", weight = 2 }"#),
                "its share, 0 to 65535, and that of each address of a name; unless given: 1; 0: only what a cookie binds",
            ),
            key(
                "endpoints[].backup",
                Entry(r#"{ address = "127.0.0.1:7009", backup = true }"#),
                "used only while no other is usable; unless given: false",
            ),
            key(
                "endpoints[].drain",
                Entry(r#"{ address = "127.0.0.1:7003", drain = true }"#),
                "no new requests; unless given: false, until `headgate drain`",
            ),
            key(
                "balance",
                Default(r#""power-of-two""#),
                "power-of-two | round-robin | least-requests | peak-ewma | random | a hash:",
            ),
            key("balance.hash.header", Example(r#""x-user""#), "the same endpoint for the same field; or"),
            key("balance.hash.cookie", Example(r#""session""#), "for the same cookie; or"),
            key("balance.hash.query", Example(r#""user""#), "for the same parameter; without it: by the client's IP"),
            key("slow_start", Example(r#""30s""#), "who comes up gets 10 % of its share, then ever more; to 24h"),
            key(
                "drain_timeout",
                Default(r#""10m""#),
                "how long those whom a cookie binds stay with a drained endpoint",
            ),
            key("sticky.cookie", Given(r#""hg-app""#), "binds clients to endpoints by a sealed cookie of that name"),
            key("sticky.key", Given(r#""main""#), "unless given: one of the process's own, gone when it ends"),
            key("sticky.ttl", Example(r#""12h""#), "renewed after half of it; unless given: the browser's session"),
            key("health.http.path", Given(r#""/readyz""#), "ask for it over HTTP/1.1; without health: no check"),
            key("health.http.method", Default(r#""GET""#), "GET | HEAD | OPTIONS | POST (with an empty body)"),
            key(
                "health.http.host",
                Example(r#""app.internal""#),
                "the Host field; unless given: the address that is probed",
            ),
            key("health.http.headers.<x-probe>", Example(r#""1""#), "more header fields"),
            key("health.http.expect_status", Default(r#""200-399""#), "healthy: 200, \"2xx\", \"200-399\", or a list"),
            key("health.http.expect_body", Example(r#""ready""#), "a text that its first 64KiB must hold as well"),
            key("health.http.port", Example("9000"), "ask another port of the address; unless given: the endpoint's"),
            key("health.http.interval", Default(r#""1s""#), "from one probe's start to the next one's, while it is up"),
            key(
                "health.http.interval_in_doubt",
                Default(r#""500ms""#),
                "while answers speak against the verdict; unless given: half of interval",
            ),
            key("health.http.interval_down", Default(r#""1s""#), "while it is down; unless given: as interval"),
            key("health.http.timeout", Default(r#""500ms""#), "a probe without an answer by then has failed"),
            key("health.http.rise", Default("2"), "successes that make a down endpoint up, 1 to 100"),
            key("health.http.fall", Default("2"), "failures that make an up endpoint down, 1 to 100"),
            key("timeouts.connect", Default(r#""1s""#), "opening a connection, TLS included"),
            key("timeouts.response", Default(r#""30s""#), "to the response's head, per attempt"),
            key("timeouts.body", Default(r#""30s""#), "between two pieces of a response body"),
            key(
                "timeouts.keep_alive",
                Example(r#""4s""#),
                "an idle connection, at most; unless given: 4s, or what its Keep-Alive says up to 60s",
            ),
            key("ejection.enabled", Default("true"), "take out endpoints whose answers are worse than the others'"),
            key("ejection.consecutive_errors", Default("5"), "502, 503, 504 or no answer, in a row, 1 to 1000; 0: off"),
            key(
                "ejection.success_rate",
                Default("50"),
                "points below the others' share of answers that are no 5xx, 1 to 100; 0: off",
            ),
            key("ejection.latency", Default("0"), "times the median of the others' mean latency, 2 to 100; 0: off"),
            key("ejection.interval", Default(r#""10s""#), "the window of success rate and latency"),
            key("ejection.minimum_hosts", Default("2"), "endpoints that can be compared, 2 to 1000"),
            key("ejection.minimum_requests", Default("20"), "of an endpoint in the window, to compare it"),
            key("ejection.base_time", Default(r#""30s""#), "the first ejection; then one request tries it"),
            key("ejection.max_time", Default(r#""5m""#), "each further one is twice as long, up to this"),
            key(
                "ejection.max_ejected",
                Default("50"),
                "percent of the pool, but one at least and never the last, 1 to 100; 0: none",
            ),
            key(
                "panic_threshold",
                Default("0"),
                "percent of primaries; while fewer are usable, all are used, or the failover pools; 0: off",
            ),
            key("failover", Example(r#"["static"]"#), "the pools that take over while no endpoint is usable, in order"),
            key("failback", Default(r#""at-once""#), "from backups and failover pools: at-once | manual"),
            key("max_requests", Example("100"), "at the same time, per endpoint; unless given: no limit"),
            key(
                "max_connections",
                Example("200"),
                "open ones, idle ones too, per endpoint, over all workers; unless given: no limit",
            ),
            key("queue.size", Default("1000"), "requests that wait while all endpoints are at these limits; 0: none"),
            key("queue.timeout", Default(r#""1s""#), "how long one may wait; 503 beyond"),
            key(
                "outage_wait",
                Default(r#""1s""#),
                "from the first request that finds no usable endpoint on, up to queue.size wait for one; 0s: none",
            ),
            key("max_idle", Default("1024"), "idle connections kept, per endpoint and worker"),
            key("retry_budget.percent", Default("20"), "retries in 10 s, of the requests in that time; 0 to 1000"),
            key("retry_budget.min_per_second", Default("10"), "so many however few the requests are; 0 to 10000"),
        ],
    ),
    section(
        "pools.<static>",
        "",
        &[
            key(
                "endpoints_file",
                Given(r#""static.toml""#),
                "instead of endpoints: a watched file with `endpoints = [..]` alone",
            ),
            key("failback.after_stable", Example(r#""10m""#), "when what was better has been usable for so long"),
            key("failback.ramp", Example(r#""5m""#), "in shares that grow evenly over so long"),
            key("balance.hash", Given(r#""client-ip""#), "client-ip | uri: host, path and query | as in [pools.app]"),
            key(
                "balance.bounded_load",
                Default("1.25"),
                "nobody gets above so many times the average by its hash, 1 to 100",
            ),
            key("health.tcp.send", Example(r#""PING\r\n""#), "say this; unless given: nothing"),
            key(
                "health.tcp.expect",
                Example(r#""+PONG""#),
                "what the first 16KiB that come must hold; unless given: nothing",
            ),
            key("health.tcp.port", Example("9000"), "as with health.http"),
            key(
                "health.tcp.interval",
                Given(r#""1s""#),
                "the connection opens; `health.tcp = {}` where the defaults will do",
            ),
            key("health.tcp.interval_in_doubt", Default(r#""500ms""#), "as with health.http"),
            key("health.tcp.interval_down", Default(r#""1s""#), "likewise"),
            key("health.tcp.timeout", Default(r#""500ms""#), "likewise"),
            key("health.tcp.rise", Default("2"), "likewise"),
            key("health.tcp.fall", Default("2"), "likewise"),
            key(
                "tls.ca_file",
                Given(r#""certs/ca.pem""#),
                "the CA of the endpoints; `tls = {}`: TLS with the system's trust store",
            ),
            key("tls.verify", Default("true"), "false: any certificate will do (a warning at each load)"),
            key(
                "tls.server_name",
                Example(r#""app.internal""#),
                "the name sent and verified; unless given: the endpoint's IP address",
            ),
        ],
    ),
    section(
        "pools.<rpc>",
        "",
        &[
            key("endpoints", Again(r#"["127.0.0.1:7201"]"#), ""),
            key(
                "health.grpc.service",
                Given(r#""notes.v1.Notes""#),
                "SERVING by gRPC health v1; \"\": the whole server",
            ),
            key(
                "health.grpc.host",
                Example(r#""rpc.internal""#),
                "the authority; unless given: the address that is probed",
            ),
            key("health.grpc.port", Example("9000"), "as with health.http"),
            key("health.grpc.interval", Default(r#""1s""#), "likewise"),
            key("health.grpc.interval_in_doubt", Default(r#""500ms""#), "likewise"),
            key("health.grpc.interval_down", Default(r#""1s""#), "likewise"),
            key("health.grpc.timeout", Default(r#""500ms""#), "likewise"),
            key("health.grpc.rise", Default("2"), "likewise"),
            key("health.grpc.fall", Default("2"), "likewise"),
        ],
    ),
    section(
        "routes.<api>",
        "all conditions must hold; exactly one of pool, split, redirect, respond",
        &[
            key("match.host", Given(r#"["example.com", "*.example.com"]"#), "one or a list; `*.` any name below"),
            key(
                "match.path",
                Given(r#""/api/{*rest}""#),
                "one or a list; exact | {id} one segment | {*rest} the tail | /* likewise",
            ),
            key("match.method", Example(r#"["GET", "HEAD"]"#), "one or a list"),
            key("match.listener", Example(r#""https""#), "one or a list"),
            key("match.scheme", Example(r#""https""#), "http | https"),
            key("match.client_ip", Example(r#""10.0.0.0/8""#), "one or a list"),
            key("match.header.<x-canary>", Example(r#""1""#), "text, or true: there, false: not there"),
            key("match.query.<debug>", Example("true"), "likewise"),
            key("split.read", Given(r#""app""#), "the pool of GET, HEAD, OPTIONS, TRACE"),
            key("split.write", Given(r#""app""#), "the pool of all other methods"),
            key("split.overrides", List, "the first that fits wins:"),
            key(
                "split.overrides[].method",
                Entry(r#"{ method = "REPORT", side = "read" }"#),
                "any method where it is left out",
            ),
            key(
                "split.overrides[].path",
                Entry(r#"{ path = "/api/fresh/*", side = "write" }"#),
                "any path where it is left out",
            ),
            key(
                "split.overrides[].side",
                Entry(r#"{ method = "POST", path = "/api/search", side = "read" }"#),
                "read | write",
            ),
            key("split.when_reads_down", Default(r#""write""#), "write: up to half of its max_requests | fail"),
            key("rewrite.strip_prefix", Example(r#""/api""#), "take it off the path's front; or"),
            key("rewrite.replace", Example(r#""/v1/{rest}""#), "put this in the path's place"),
            key(
                "request_headers.set.<x-a>",
                Example(r#""1""#),
                "what the endpoint gets; removed first, then set, then added",
            ),
            key("request_headers.add.<x-b>", Example(r#""2""#), "beside what is there"),
            key("request_headers.remove", Example(r#"["x-c"]"#), "one or a list"),
            key("response_headers.set.<x-a>", Example(r#""1""#), "what the client gets, likewise"),
            key("response_headers.add.<x-b>", Example(r#""2""#), ""),
            key("response_headers.remove", Example(r#"["x-c"]"#), ""),
            key("limits.body", Default(r#""10MiB""#), "the request body; 413 beyond"),
            key("timeouts.total", Default(r#""1h""#), "the whole request, all attempts"),
            key("timeouts.tunnel", Default(r#""10m""#), "a tunnel that carries nothing"),
            key("priority", Default(r#""normal""#), "high | normal | low: who goes first where requests wait"),
            key("retry.attempts", Default("3"), "in all, 1 to 10; 1: no retry"),
            key(
                "retry.on",
                Default(r#"["connect-failure", "reset-before-response", "timeout"]"#),
                "what was sent goes out again only where it may run twice",
            ),
            key("retry.status", Example("[502, 503]"), "likewise, while another endpoint is left; 400 to 599"),
            key("retry.per_try_timeout", Example(r#""5s""#), "to the head, per attempt; within timeouts.total"),
            key("retry.body", Default(r#""64KiB""#), "bodies kept to be sent again, up to this; at most 16MiB"),
            key("retry.non_idempotent", Default("false"), "true: POST and PATCH may run twice"),
            key("retry.idempotency_key", Default("false"), "true: those with an Idempotency-Key may be sent twice"),
            key("upgrades", Default(r#"["websocket"]"#), "protocols that a request may upgrade to"),
        ],
    ),
    section(
        "routes.<static>",
        "",
        &[
            key("match.path", Again(r#""/static/*""#), ""),
            key("pool", Given(r#""static""#), "send it to one pool"),
            key("cache.zone", Given(r#""main""#), "the cache that its responses may be kept in"),
            key(
                "cache.default_ttl",
                Example(r#""1m""#),
                "for responses without freshness of their own; unless given: not kept",
            ),
        ],
    ),
    section("routes.<rpc>", "", &[key("match.path", Again(r#""/rpc/*""#), ""), key("pool", Again(r#""rpc""#), "")]),
    section(
        "routes.<old>",
        "",
        &[
            key("match.path", Again(r#""/old/{*rest}""#), ""),
            key(
                "redirect.to",
                Given(r#""/new/{rest}""#),
                "the location, with what the path captured; the query goes along unless it has a `?`",
            ),
            key("redirect.status", Default("308"), "301 | 302 | 303 | 307 | 308"),
        ],
    ),
    section(
        "routes.<robots>",
        "",
        &[
            key("match.path", Again(r#""/robots.txt""#), ""),
            key("respond.status", Given("200"), "200 to 599"),
            key("respond.body", Default(r#""""#), "the body"),
            key("respond.content_type", Default(r#""text/plain; charset=utf-8""#), "its type"),
        ],
    ),
];
