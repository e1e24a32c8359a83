use proptest::prelude::*;

use crate::config::diagnostic::Diagnostic;
use crate::config::load::parse_text;
use crate::config::model::{AccessLogFormat, Action, Balance, Config, PathTail};

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
    ("pools.q.endpoints = [\"app:80\"]", 5, 22, "is a name"),
    ("pools.q.endpoints = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", 5, 37, "in this pool already"),
    (
        "pools.q.endpoints = [{ address = \"127.0.0.1:1\", backup = true }]\npools.q.health.tcp = {}",
        5,
        21,
        "not be a backup",
    ),
    ("pools.q.endpoints = [{ address = \"127.0.0.1:1\", weight = 0 }]", 5, 58, "goes from 1 to 65535"),
    ("pools.p.balance = \"fast\"", 5, 19, "not understood"),
    ("pools.p.health.http.path = \"x\"", 5, 28, "no path"),
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
    ("routes.r.cache.zone = \"m\"", 5, 23, "no cache `m`"),
    ("access_log.output = \"${NOPE}\"", 5, 21, "`NOPE` is not set"),
    ("x = ", 5, 5, ""),
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

#[test]
fn risks_are_warnings() {
    let text = format!("{HEAD}pools.p.tls.verify = false\nroutes.q.pool = \"p\"\n");
    let (_, warnings) = read(&text).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(read("").is_err());
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
