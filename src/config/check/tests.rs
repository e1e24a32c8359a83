use proptest::prelude::*;

use crate::config::diagnostic::Diagnostic;
use crate::config::load::parse_text;
use crate::config::model::{AccessLogFormat, Action, Balance, Config, HealthCheck, PathTail, ProbeKind, TcpProbe};

const ISSUE: &str = r#"config_version = 1
[process]
drain = { delay = "0s", timeout = "25s" }
max_connections = 20000
[metrics]
address = "127.0.0.1:9901"
[admin]
address = "unix:/run/headgate/admin.sock"
[access_log]
output = "stdout"
format = "json"
[listeners.http]
address = "0.0.0.0:80"
redirect = "https"
[listeners.https]
address = "0.0.0.0:443"
tls.certificates = [{ cert = "certs/localhost.pem", key = "certs/localhost.key" }]
trusted_proxies = ["10.0.0.0/8"]
timeouts.header = "10s"
limits.header_bytes = "64KiB"
[caches.main]
memory = "64MiB"
[pools.notes-read]
balance = "power-of-two"
health.http = { path = "/readyz", interval = "1s", timeout = "500ms", rise = 2, fall = 2 }
endpoints = ["127.0.0.1:7001", { address = "127.0.0.1:7002", weight = 2 }, { address = "127.0.0.1:7009", backup = true }]
timeouts = { connect = "1s", response = "30s" }
[pools.notes-write]
health.http = { path = "/readyz" }
endpoints = ["127.0.0.1:7011", { address = "127.0.0.1:7012", backup = true }]
[routes.api]
match.host = "notes.localhost"
match.path = "/api/*"
split.read = "notes-read"
split.write = "notes-write"
split.overrides = [{ method = "POST", path = "/api/search", side = "read" }]
limits.body = "10MiB"
[routes.static]
match.path = "/static/*"
pool = "notes-read"
cache = { zone = "main", default_ttl = "1m" }
[routes.old]
match.path = "/old/{*rest}"
redirect = { to = "/new/{rest}", status = 308 }
"#;

fn read(text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    parse_text("t.toml", text, &|_| None)
}

#[test]
fn the_example_of_the_plan_loads() {
    let (config, warnings) = read(ISSUE).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.listeners[0].redirect.unwrap().port, 443);
    assert_eq!(config.pools[0].balance, Balance::PowerOfTwo);
    assert_eq!(config.pools[0].endpoints[1].weight.value(), 2);
    assert_eq!(config.access_log.format, Some(AccessLogFormat::Json));
    assert_eq!(config.routes[2].matches.paths[0].tail, PathTail::Named("rest".into()));
    assert_eq!(config.routes[0].origin, "t.toml:31");
    let Action::Split(split) = &config.routes[0].action else { panic!("{:?}", config.routes[0]) };
    assert_eq!((split.read.0, split.write.0), (0, 1));
}

/// Lines put behind four good ones: line, column, fragment of the message.
const HEAD: &str = "config_version = 1\nlisteners.a.address = \"127.0.0.1:80\"\npools.p.endpoints = [\"127.0.0.1:1\"]\nroutes.r.pool = \"p\"\n";

const FAULTY: &[(&str, usize, usize, &str)] = &[
    ("lisener = 1", 5, 1, "unknown key `lisener`"),
    ("routes.r.pol = \"p\"", 5, 10, "unknown key `routes.r.pol`"),
    ("listeners.b.protocol = \"tcp\"\nlisteners.b.address = \"[::1]:1\"", 5, 13, "not in this version"),
    ("[replica_sets.x]", 5, 2, "not in this version"),
    ("caches.m.disk = 1", 5, 10, "not in this version"),
    ("routes.r.limits.rate = 1", 5, 17, "not in this version"),
    ("process.max_connections = \"x\"", 5, 27, "takes a number, not text"),
    ("process.max_connections = 0", 5, 27, "goes from 1"),
    ("process.share_ports = \"yes\"", 5, 23, "takes true or false"),
    ("process.drain.timeout = \"2\"", 5, 25, "no duration"),
    ("caches.m.memory = \"64Mb\"", 5, 19, "no size"),
    ("metrics.address = \"unix:/x\"", 5, 19, "TCP only"),
    ("admin.address = \"0.0.0.0:1\"", 5, 17, "loopback"),
    ("access_log.format = \"xml\"", 5, 21, "not understood"),
    ("listeners.b.address = \"127.0.0.1:80\"", 5, 23, "address 127.0.0.1:80 already"),
    ("listeners.a.redirect = \"https\"", 5, 24, "needs a listener with `tls`"),
    ("listeners.a.limits.header_bytes = \"1KiB\"", 5, 35, "goes from 4KiB to 256KiB"),
    ("listeners.a.trusted_proxies = [\"10.0.0.0/33\"]", 5, 32, "no network"),
    ("listeners.a.tls.certificates = []", 5, 32, "at least one certificate"),
    ("pools.q.endpoints = [\"app..internal:80\"]", 5, 22, "is no DNS name"),
    ("pools.q.endpoints = [\"127.1:80\"]", 5, 22, "ends in a number"),
    ("pools.q.endpoints = [\"app.internal\"]", 5, 22, "needs a port"),
    ("pools.q.endpoints = [\"srv:_http._tcp.app:80\"]", 5, 22, "write `srv:_http._tcp.app`"),
    ("pools.q.endpoints = [\"App:80\", \"app:80\"]", 5, 32, "`app:80` is in this pool already"),
    ("pools.q.endpoints = [{ address = \"srv:app\", weight = 2 }]", 5, 45, "weights of SRV records are in the records"),
    ("listeners.b.address = \"app:80\"", 5, 23, "is a name"),
    ("dns.servers = [\"one\"]", 5, 16, "no IP address of a name server"),
    ("dns.servers = [\"10.0.0.1:0\"]", 5, 16, "no IP address of a name server"),
    ("dns.timeout = \"0s\"", 5, 15, "1ms or longer"),
    ("dns.search = \"a\"", 5, 5, "unknown key `dns.search`"),
    ("pools.p.endpoints_file = \"p.toml\"", 5, 9, "one source of endpoints"),
    ("pools.q.endpoints_file = [\"127.0.0.1:1\"]", 5, 26, "takes text"),
    ("pools.q.endpoints_file = \"\"", 5, 26, "is empty"),
    ("defaults.pool.endpoints_file = \"p.toml\"", 5, 15, "unknown key"),
    ("pools.q.endpoints = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", 5, 37, "in this pool already"),
    (
        "pools.q.endpoints = [{ address = \"127.0.0.1:1\", backup = true }]\npools.q.health.tcp = {}",
        5,
        21,
        "not be a backup",
    ),
    ("pools.q.endpoints = [{ address = \"127.0.0.1:1\", weight = 0 }]", 5, 21, "every endpoint has weight 0"),
    ("pools.q.endpoints = [{ address = \"127.0.0.1:1\", weight = 65536 }]", 5, 58, "goes from 0 to 65535"),
    ("pools.p.balance = { hash = \"url\" }", 5, 28, "not understood"),
    ("pools.p.balance = { hash = {} }", 5, 28, "a hash has one key"),
    ("pools.p.balance = { hash = { header = \"a\", query = \"b\" } }", 5, 28, "a hash has one key"),
    ("pools.p.balance = { hash = { header = \"a b\" } }", 5, 39, "no header field name"),
    ("pools.p.balance = { hash = { cookie = \"a;b\" } }", 5, 39, "no cookie name"),
    ("pools.p.balance = { hash = \"uri\", bounded_load = 0.99 }", 5, 50, "goes from 1 to 100"),
    ("pools.p.balance = { hash = \"uri\", bounded_load = 1.255 }", 5, 50, "in steps of 0.01"),
    ("pools.p.balance = { hash = \"uri\", bounded_load = \"x\" }", 5, 50, "takes a number such as 1.25, not text"),
    ("pools.p.balance = { bounded_load = 2 }", 5, 9, "`pools.p.balance.hash` is missing"),
    ("pools.p.slow_start = \"25h\"", 5, 22, "24h at most"),
    ("pools.p.slow_start = \"0s\"", 5, 22, "1ms or longer"),
    ("pools.p.sticky = {}", 5, 9, "`pools.p.sticky.cookie` is missing"),
    ("pools.p.sticky = { cookie = \"\" }", 5, 29, "no cookie name"),
    ("pools.p.sticky = { cookie = \"a\", key = \"k\" }", 5, 40, "no key `k`"),
    ("pools.p.sticky = { cookie = \"a\", ttl = \"500ms\" }", 5, 40, "1s or longer"),
    ("process.instances = 2\npools.p.sticky = { cookie = \"a\" }", 6, 18, "`process.instances` is 2"),
    ("keys.k.secrets = []", 5, 18, "1 to 8 secrets"),
    ("keys.k.secrets = [{}]", 5, 19, "a `value` or a `file`"),
    ("keys.k.secrets = [{ value = \"secret\" }]", 5, 29, "32 bytes in base64 or hexadecimal"),
    ("[keys.k]", 5, 7, "`keys.k.secrets` is missing"),
    ("pools.p.max_connections = 0", 5, 27, "goes from 1"),
    ("process.workers = 4\npools.p.max_connections = 3", 6, 27, "is below the number of workers (4)"),
    (
        "process.workers = 4\ndefaults.pool.max_connections = 3",
        3,
        7,
        "`max_connections` (3) of pool `p` is below the number of workers (4)",
    ),
    ("pools.p.queue.size = 100001", 5, 22, "goes from 0 to 100000"),
    ("pools.p.queue.timeout = \"0s\"", 5, 25, "1ms or longer"),
    ("pools.p.outage_wait = \"x\"", 5, 23, "is no duration"),
    ("routes.r.priority = \"urgent\"", 5, 21, "not understood"),
    ("process.held_bodies = 5", 5, 23, "takes a size"),
    ("pools.p.balance = \"fast\"", 5, 19, "not understood"),
    ("pools.p.health.http.path = \"x\"", 5, 28, "no path"),
    ("pools.p.health = {}", 5, 9, "say which health check"),
    ("pools.p.health = { tcp = {}, grpc = {} }", 5, 30, "one health check"),
    ("pools.p.health.http = { path = \"/\", method = \"PUT\" }", 5, 46, "not understood"),
    ("pools.p.health.http = { path = \"/\", headers.host = \"a\" }", 5, 45, "a key of its own: `host`"),
    ("pools.p.health.http = { path = \"/\", headers.te = \"a\" }", 5, 45, "frames the message"),
    ("pools.p.health.http = { path = \"/\", host = \"u@a\" }", 5, 44, "no host"),
    ("pools.p.health.http = { path = \"/\", expect_status = [] }", 5, 53, "no answer would be healthy"),
    ("pools.p.health.http = { path = \"/\", expect_status = [200, 100] }", 5, 59, "goes from 200 to 599"),
    ("pools.p.health.http = { path = \"/\", expect_status = \"1xx\" }", 5, 53, "no final statuses"),
    ("pools.p.health.http = { path = \"/\", expect_status = \"65xx\" }", 5, 53, "no final statuses"),
    ("pools.p.health.http = { path = \"/\", expect_status = \"xx\" }", 5, 53, "no final statuses"),
    ("pools.p.health.http = { path = \"/\", expect_status = \"399-200\" }", 5, 53, "no final statuses"),
    ("pools.p.health.http = { path = \"/\", expect_status = \"200-600\" }", 5, 53, "no final statuses"),
    ("pools.p.health.http = { path = \"/\", expect_status = \"+20\" }", 5, 53, "no final statuses"),
    ("pools.p.health.http = { path = \"/\", expect_body = \"\" }", 5, 51, "1 to 4096 bytes"),
    ("pools.p.health.http = { path = \"/\", expect_body = \"x\", method = \"HEAD\" }", 5, 37, "HEAD has no body"),
    ("pools.p.health.tcp.send = \"\"", 5, 27, "1 to 4096 bytes"),
    ("pools.p.health.tcp.expect = \"\"", 5, 29, "1 to 4096 bytes"),
    ("pools.p.health.tcp.port = 0", 5, 27, "goes from 1 to 65535"),
    ("pools.p.health.tcp.interval = \"9ms\"", 5, 31, "10ms or longer"),
    ("pools.p.health.tcp.interval_in_doubt = \"2s\"", 5, 40, "less often than every 1s"),
    ("pools.p.health.tcp.rise = 0", 5, 27, "goes from 1 to 100"),
    ("pools.p.health.grpc.service = \"a b\"", 5, 31, "no service"),
    ("pools.q = { endpoints = [\"unix:/a\"], health.tcp.port = 9 }", 5, 38, "unix:/a has no ports"),
    (
        "defaults.pool.health.tcp.port = 9\npools.q.endpoints = [\"127.0.0.1:2\", \"unix:/a\"]",
        6,
        9,
        "unix:/a has no ports",
    ),
    ("routes.r.respond.status = 200", 5, 10, "one action"),
    ("[routes.q]", 5, 9, "no action"),
    ("routes.q.pool = \"pp\"", 5, 17, "no pool `pp`"),
    ("routes.r.match.path = \"/a//b\"", 5, 23, "empty segment"),
    ("routes.r.match.path = \"/a/*/b\"", 5, 23, "last segment"),
    ("routes.r.match.path = \"/%41\"", 5, 23, "never matches"),
    ("routes.r.match.host = \"a:80\"", 5, 23, "no port"),
    ("routes.r.match.method = \"get\"", 5, 25, "upper case"),
    ("routes.r.match.path = \"/a\"\nroutes.r.rewrite.replace = \"/{id}\"", 6, 28, "not captured by the path `/a`"),
    ("routes.r.request_headers.set.te = \"x\"", 5, 30, "frames the message"),
    ("routes.r.retry.attempts = 11", 5, 27, "goes from 1 to 10"),
    ("routes.r.retry.on = [\"timeouts\"]", 5, 22, "not understood"),
    ("routes.r.retry.on = \"timeout\"", 5, 21, "takes a list"),
    ("routes.r.retry.status = [503, 200]", 5, 31, "goes from 400 to 599"),
    ("routes.r.retry.status = [\"503\"]", 5, 26, "takes a number"),
    ("routes.r.retry.per_try_timeout = \"0s\"", 5, 34, "1ms or longer"),
    ("routes.r.retry.body = \"17MiB\"", 5, 23, "goes from 0B to 16MiB"),
    ("routes.r.retry.non_idempotent = 1", 5, 33, "takes true or false"),
    (
        "routes.r.retry.per_try_timeout = \"2s\"\nroutes.r.timeouts.total = \"1s\"",
        5,
        34,
        "longer than `timeouts.total` (1s)",
    ),
    (
        "[defaults.route]\nretry.per_try_timeout = \"2s\"\n[routes.q]\nmatch.path = \"/q\"\npool = \"p\"\ntimeouts.total = \"1s\"",
        7,
        9,
        "longer than `timeouts.total` (1s)",
    ),
    ("pools.p.retry_budget.percent = 1001", 5, 32, "goes from 0 to 1000"),
    ("pools.p.retry_budget.min_per_second = -1", 5, 39, "goes from 0 to 10000"),
    ("pools.p.retry_budget.ratio = 0.2", 5, 22, "unknown key `pools.p.retry_budget.ratio`"),
    ("routes.r.cache.zone = \"m\"", 5, 23, "no cache `m`"),
    ("routes.r.match.path = \"/café\"", 5, 23, "`café` never matches: write `caf%C3%A9`"),
    ("routes.r.match.path = \"/a b\"", 5, 23, "write `a%20b`"),
    ("routes.r.match.path = '/\"<>^|[]`'", 5, 23, "write `%22%3C%3E%5E%7C%5B%5D%60`"),
    ("routes.r.match.path = \"/a{b}\"", 5, 23, "the letters themselves are `%7B` and `%7D`"),
    ("routes.r.match.path = \"/a%c3%a9\"", 5, 23, "write `a%C3%A9`"),
    ("routes.r.match.path = \"/a%zz\"", 5, 23, "two hexadecimal digits"),
    ("routes.r.match.path = \"/a/..;x\"", 5, 23, "dot segments are refused"),
    ("routes.r.match.path = \"/a/%252e%252e\"", 5, 23, "dot segments are refused"),
    ("routes.r.match.path = \"/%5Ca\"", 5, 23, "backslashes are refused"),
    ("routes.r.match.path = \"/%00\"", 5, 23, "control bytes are refused"),
    ("routes.r.match.path = \"/a?b\"", 5, 23, "match.query"),
    ("routes.r.match.host = \"127.1\"", 5, 23, "written in full"),
    ("routes.r.match.host = \"*.1\"", 5, 23, "written in full"),
    ("routes.q.redirect.to = \"new\"", 5, 24, "leads to a path or a URL"),
    ("routes.q.redirect.to = \"javascript://x/\"", 5, 24, "leads to a path or a URL"),
    ("routes.q.redirect.to = \"//a.test/\"", 5, 24, "beginning of a host"),
    ("routes.q.redirect.to = '/\\a.test'", 5, 24, "backslash"),
    ("routes.q.redirect.to = \"https://u@a.test/\"", 5, 24, "`u@a.test` is no host"),
    (
        "routes.q.match.path = \"/{*rest}\"\nroutes.q.redirect.to = \"https://a.test{rest}\"",
        6,
        24,
        "could make `a.test` another host",
    ),
    (
        "routes.q.match.path = \"/{*rest}\"\nroutes.q.redirect.to = \"https://{rest}/\"",
        6,
        24,
        "`` is no host with a port",
    ),
    ("routes.r.rewrite.replace = \"/a?b=1\"", 5, 28, "a path has no query"),
    ("routes.r.rewrite.replace = '/a\\b'", 5, 28, "backslashes are refused"),
    ("include = [1]", 5, 12, "takes text, not a number"),
    ("access_log.output = \"${NOPE}\"", 5, 21, "`NOPE` is not set"),
    ("x = ", 5, 5, ""),
    ("pools.p.ejection.latency = 1", 5, 28, "2 to 100, or 0 for off"),
    ("pools.p.ejection.max_ejected = 101", 5, 32, "goes from 0 to 100"),
    ("pools.p.ejection.max_time = \"1s\"", 5, 9, "`max_time` (1s) is shorter than `base_time` (30s)"),
    ("pools.p.ejection = false", 5, 20, "takes a table"),
    ("pools.p.panic_threshold = 101", 5, 27, "goes from 0 to 100"),
    ("pools.p.failback = \"never\"", 5, 20, "`never` is not understood here"),
    ("pools.p.failback = {}", 5, 20, "say how"),
    ("pools.p.failback = { after_stable = \"1m\", ramp = \"1m\" }", 5, 43, "one of `after_stable` and `ramp`"),
    ("pools.p.failback.ramp = \"0s\"", 5, 25, "must be 1ms or longer"),
    ("pools.p.failover = \"p\"", 5, 20, "takes a list"),
    ("pools.p.failover = [\"q\"]", 5, 21, "there is no pool `q`"),
    ("pools.p.failover = [\"p\"]", 5, 21, "a pool cannot take over from itself: p -> p"),
    (
        "pools.q = { endpoints = [\"127.0.0.1:2\"] }\npools.p.failover = [\"q\", \"q\"]",
        6,
        26,
        "the pool `q` is in this chain already",
    ),
    (
        "pools.p.failover = [\"q\"]\npools.q = { endpoints = [\"127.0.0.1:2\"], failover = [\"r\"] }\npools.r = { endpoints = [\"127.0.0.1:3\"], failover = [\"p\"] }",
        5,
        20,
        "the failover chain loops: p -> q -> r -> p",
    ),
    ("pools.q.endpionts = [\"127.0.0.1:2\"]", 5, 9, "unknown key `pools.q.endpionts`"),
    ("pools.q.endpoints = [\"http://127.0.0.1:2/\"]", 5, 22, "no scheme and no path: write `127.0.0.1:2`"),
    ("listeners.b.address = \":81\"", 5, 23, "the IP address is missing: `0.0.0.0:81`"),
    ("pools.q.endpoints = [\"127.0.0.1:${NOPE}\"]", 5, 22, "`NOPE` is not set: set it, or give a default: `${NOPE:-"),
    ("process.workers = \"${NOPE}\"", 5, 19, "`NOPE` is not set"),
    ("routes.r.match.host = \"https://a.test\"", 5, 23, "a host is a name alone"),
];

#[test]
fn every_fault_names_its_place() {
    let mut wrong = Vec::new();
    for (lines, line, column, fragment) in FAULTY {
        let faults = read(&format!("{HEAD}{lines}\n")).expect_err(lines);
        let right = matches!(faults.as_slice(), [fault]
            if fault.message.contains(fragment) && (fault.line, fault.column) == (*line, *column));
        if !right {
            wrong.push((lines, faults.iter().map(ToString::to_string).collect::<String>()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}",
        wrong.iter().map(|(lines, found)| format!("== {lines}\n{found}")).collect::<String>()
    );
}

#[test]
fn all_faults_come_at_once_and_near_names_help() {
    let text = format!("{HEAD}process.wokers = 1\nroutes.q.pool = \"pools\"\npools.q.balanec = 1\n");
    let faults = read(&text).unwrap_err();
    assert_eq!(faults.len(), 4, "{faults:#?}");
    assert!(faults.iter().any(|fault| fault.help.as_deref() == Some("did you mean `workers`?")));
    assert!(faults[0].to_string().contains("^^^^^^"), "{}", faults[0]);
}

/// Lines put behind the same four: what the one fault says to do.
const HELPED: &[(&str, &str)] = &[
    ("pools.p.balance = \"roundrobin\"", "did you mean `round-robin`?"),
    ("pools.q = {}", "for example: `endpoints = [{ address = \"127.0.0.1:7001\" }]`"),
    ("pools.q.endpoints = 7001", "for example: `endpoints = [{ address = \"127.0.0.1:7001\" }]`"),
    ("pools.q.endpoints = [7001]", "for example: `endpoints = [{ address = \"127.0.0.1:7001\" }]`"),
    ("pools.p.health.http = \"/readyz\"", "for example: `http = { path = \"/readyz\" }`"),
    ("routes.r.cache = true", "for example: `cache = { zone = \"main\" }`"),
    ("routes.r.cache.zone = \"m\"", "there is no cache at all; add `[caches.m]`"),
    ("routes.r.timeouts.total = 5", "for example: `total = \"1h\"`"),
    ("listeners.b.address = 8080", "for example: `address = \"0.0.0.0:80\"`"),
    ("routes.q.pool = p", "text stands in quotes: `\"p\"`"),
    ("routes.q.pool = \"p", "the closing quote is missing"),
    ("[routes.r]", "join the two"),
    ("{\"routes\": 1}", "a config is TOML"),
];

#[test]
fn what_to_do_is_said() {
    let mut wrong = String::new();
    for (lines, help) in HELPED {
        let faults = read(&format!("{HEAD}{lines}\n")).expect_err(lines);
        let right =
            matches!(faults.as_slice(), [fault] if fault.help.as_deref().is_some_and(|text| text.contains(help)));
        if !right {
            wrong.push_str(&format!("== {lines}\n{}", faults.iter().map(ToString::to_string).collect::<String>()));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Lines put behind the same four: line, column, fragment of the one warning.
const RISKY: &[(&str, usize, usize, &str)] = &[
    ("pools.p.tls.verify = false", 5, 13, "not verified"),
    (
        "pools.q.endpoints = [\"127.0.0.1:2\", { address = \"127.0.0.1:3\", backup = true }]\nroutes.q = { match.path = \"/q\", pool = \"q\" }",
        5,
        7,
        "has a backup but no health check",
    ),
    (
        "pools.q = { endpoints = [\"127.0.0.1:2\"], failover = [\"p\"] }\nroutes.q = { match.path = \"/q\", pool = \"q\" }",
        5,
        42,
        "`q` fails over to `p` but has no health check",
    ),
    (
        "pools.q = { endpoints = [\"127.0.0.1:2\", \"127.0.0.1:3\"], failover = [\"p\"], health.tcp = {} }\nroutes.q = { match.path = \"/q\", pool = \"q\" }",
        5,
        57,
        "pool `p` cannot carry the load of `q`: 1 endpoints, not 2",
    ),
    (
        "pools.p.max_requests = 9\npools.q = { endpoints = [\"127.0.0.1:2\"], max_requests = 10, failover = [\"p\"], health.tcp = {} }\nroutes.q = { match.path = \"/q\", pool = \"q\" }",
        6,
        61,
        "9 requests at the same time, not 10",
    ),
    ("listeners.a.trusted_proxies = \"0.0.0.0/0\"", 5, 13, "any client can claim any address"),
    ("listeners.a.trusted_proxies = [\"10.0.0.0/8\", \"::/0\"]", 5, 46, "any client can claim any address"),
    ("pools.q.endpoints = [\"127.0.0.1:2\"]", 5, 7, "no route uses the pool `q`"),
    ("[caches.m]", 5, 9, "no route uses the cache `m`"),
    ("pools.p.queue.timeout = \"2s\"", 5, 15, "neither `max_requests` nor `max_connections`"),
    ("listeners.a.limits.connections = 30000", 2, 11, "is never reached: `process.max_connections` is 20000"),
    ("pools.p.health.tcp = { interval = \"1s\", timeout = \"2s\" }", 5, 9, "longer than the 1s"),
    ("pools.p.health.tcp.send = \"PING\"", 5, 20, "up once it has accepted"),
    ("routes.r.timeouts.total = \"10s\"", 5, 10, "(10s) ends before `timeouts.response` (30s) of pool `p`"),
    ("pools.q.endpoints = [\"127.0.0.1:80\"]\nroutes.q = { match.path = \"/q\", pool = \"q\" }", 5, 9, "a circle"),
    ("routes.r.retry.attempts = 3", 5, 10, "may take 90s: clients give up after 60 s"),
    (
        "routes.r.retry.attempts = 3\nroutes.r.timeouts.total = \"40s\"",
        5,
        10,
        "longer than `timeouts.total` (40s): the last ones are cut",
    ),
    (
        "routes.r.retry.per_try_timeout = \"31s\"\nroutes.r.retry.attempts = 2\nroutes.r.retry.on = []",
        5,
        10,
        "never reached: `timeouts.response` of pool `p` is 30s",
    ),
    ("routes.r.retry = { attempts = 1, status = [503] }", 5, 10, "`retry.attempts` is 1, so that"),
    // Routes that never apply.
    ("routes.q.pool = \"p\"", 5, 8, "`q` never applies: `r` takes all of it first"),
    ("routes.q = { match.path = \"/*\", pool = \"p\" }", 5, 8, "`r` takes all of it first"),
    (
        "routes.a = { match.path = \"/{x}\", pool = \"p\" }\nroutes.b = { match.path = \"/{y}\", pool = \"p\" }",
        6,
        8,
        "`b` never applies: `a` takes",
    ),
    (
        "routes.a = { match.path = \"/a\", match.method = [\"GET\", \"HEAD\"], pool = \"p\" }\nroutes.b = { match.path = \"/a\", match.method = \"GET\", pool = \"p\" }",
        6,
        8,
        "`b` never applies: `a` takes",
    ),
    (
        "routes.a = { match.path = \"/a\", pool = \"p\" }\nroutes.b = { match.path = \"/b\", pool = \"p\" }\nroutes.c = { match.path = [\"/a\", \"/b\"], pool = \"p\" }",
        7,
        8,
        "`c` never applies: `a` with `b` takes",
    ),
    ("routes.q = { match.scheme = \"https\", pool = \"p\" }", 5, 8, "no listener serves what it matches"),
    (
        "listeners.b = { address = \"[::1]:81\", redirect = \"https\" }\nlisteners.c = { address = \"[::1]:82\", tls.certificates = [{ cert = \"c\", key = \"k\" }] }\nroutes.q = { match.listener = \"b\", pool = \"p\" }",
        7,
        8,
        "no listener serves what it matches",
    ),
];

/// What looks like one of them and is fine.
const FINE: &[&str] = &[
    "listeners.a.trusted_proxies = [\"0.0.0.0/1\", \"::1\"]",
    "routes.q = { match.path = \"/q\", pool = \"p\" }",
    "routes.q = { match.method = \"GET\", pool = \"p\" }",
    "routes.a = { match.path = \"/a\", pool = \"p\" }\nroutes.b = { match.path = \"/a/\", pool = \"p\" }",
    "routes.a = { match.path = \"/a\", match.method = \"GET\", pool = \"p\" }\nroutes.b = { match.path = \"/a\", match.scheme = \"http\", pool = \"p\" }",
    "routes.a = { match.client_ip = \"10.0.0.0/8\", pool = \"p\" }\nroutes.b = { match.client_ip = \"10.0.0.0/7\", pool = \"p\" }",
    "routes.a = { match.path = \"/{*r}\", redirect.to = \"https://a.test:8443/{r}\", match.host = \"a.test\" }",
    "routes.a = { match.path = \"/x\", redirect.to = \"https://a.test\" }",
    "routes.a = { match.path = \"/{*r}\", match.host = \"a\", redirect.to = \"https://a.test?{r}\" }",
    "routes.a = { match.path = \"/caf%C3%A9;v=1/a%2Fb/@:$\", pool = \"p\" }",
    "pools.p.health.http = { path = \"/\", method = \"HEAD\", expect_status = [\"200\", 204, \"3xx\"], port = 9 }",
    "pools.p.health.tcp = { send = \"PING\\r\\n\", expect = \"+PONG\", interval = \"600ms\", interval_down = \"9s\" }",
    "pools.p.health.grpc = {}",
    "routes.r.retry = { attempts = 10, per_try_timeout = \"6s\" }",
    "routes.r.retry = { attempts = 3, on = [\"connect-failure\"] }",
    "routes.r.retry.attempts = 1",
    "routes.r.retry = { attempts = 2, status = [502, 503, 502], body = \"16MiB\", non_idempotent = true, idempotency_key = true }",
    "pools.p.retry_budget = { percent = 0, min_per_second = 0 }",
    "pools.p.timeouts.response = \"9s\"\nroutes.r.timeouts.total = \"9s\"",
];

#[test]
fn risks_are_warnings_with_a_place_and_a_way_out() {
    let mut wrong = String::new();
    for (lines, line, column, fragment) in RISKY {
        let (_, warnings) = read(&format!("{HEAD}{lines}\n")).unwrap_or_else(|faults| panic!("{lines}: {faults:#?}"));
        let right = matches!(warnings.as_slice(), [warning] if warning.message.contains(fragment)
            && (warning.line, warning.column) == (*line, *column) && warning.help.is_some());
        if !right {
            wrong.push_str(&format!("== {lines}\n{}", warnings.iter().map(ToString::to_string).collect::<String>()));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    for lines in FINE {
        let (_, warnings) = read(&format!("{HEAD}{lines}\n")).unwrap_or_else(|faults| panic!("{lines}: {faults:#?}"));
        assert_eq!(warnings, [], "{lines}");
    }
}

#[test]
fn a_check_is_read_with_what_follows_from_it() {
    let check = |lines: &str| {
        let (config, _) = read(&format!("{HEAD}{lines}\n")).unwrap_or_else(|faults| panic!("{faults:#?}"));
        config.pools[0].health.clone().unwrap()
    };
    let millis = |check: &HealthCheck| {
        [check.interval, check.interval_in_doubt, check.interval_down, check.timeout].map(|time| time.as_millis())
    };
    assert_eq!(millis(&check("pools.p.health.tcp = {}")), [1000, 500, 1000, 500]);
    assert_eq!(millis(&check("pools.p.health.tcp.interval = \"12ms\"")), [12, 10, 12, 500]);
    let all = "interval = \"8s\", interval_in_doubt = \"3s\", interval_down = \"20s\", timeout = \"2s\"";
    assert_eq!(millis(&check(&format!("pools.p.health.grpc = {{ {all} }}"))), [8000, 3000, 20_000, 2000]);
    let ProbeKind::Http(http) =
        check("pools.p.health.http = { path = \"/\", expect_status = [\"2xx\", 301] }").probe.kind
    else {
        panic!("no http");
    };
    assert_eq!(http.expect_status.to_string(), "200-299, 301");
    let tcp = check("pools.p.health.tcp.expect = \"\\r\\n\\u0000\"").probe.kind;
    assert_eq!(tcp, ProbeKind::Tcp(TcpProbe { send: None, expect: Some("\r\n\0".to_owned()) }));
}

#[test]
fn a_file_without_its_version_is_told_what_to_write() {
    let faults = read(HEAD.split_once('\n').unwrap().1).unwrap_err();
    let [fault] = faults.as_slice() else { panic!("{faults:#?}") };
    assert!(fault.message.contains("`config_version` is missing"), "{fault}");
    assert_eq!(fault.help.as_deref(), Some("write `config_version = 1` as the file's first line"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}", at in 0_usize..2000, cut in 0_usize..40) {
        let _ = read(&text);
        let mut start = at.min(ISSUE.len());
        while !ISSUE.is_char_boundary(start) { start -= 1; }
        let rest = ISSUE.get(start + cut..).unwrap_or_default();
        let _ = read(&format!("{}{text}{rest}", &ISSUE[..start]));
    }
}

/// A number of instances needs a key that they share, and a key needs somebody who uses it.
#[test]
fn sticky_pools_of_many_instances_need_a_key() {
    const KEY: &str = "[keys.k]\nsecrets = [{ value = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\" }]\n";
    let (config, warnings) =
        read(&format!("{HEAD}process.instances = 3\npools.p.sticky = {{ cookie = \"a\", key = \"k\" }}\n{KEY}"))
            .unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.pools[0].sticky.as_ref().unwrap().key.as_deref(), Some("k"));
    assert_eq!(format!("{:?}", config.keys[0].secrets), "[Value(KeyBytes(..))]", "a secret is never shown");
    let (config, warnings) = read(&format!("{HEAD}pools.p.sticky.cookie = \"a\"\n{KEY}")).unwrap();
    assert!(config.pools[0].sticky.is_some());
    assert_eq!(warnings.iter().map(|found| &*found.message).collect::<Vec<_>>(), ["no pool uses the key `k`"]);
}
