//! What a reload changed, in the words of the config.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::config::model::{
    AccessLog, Action, Admin, CacheZone, Config, Dns, GrpcProbe, HealthCheck, HttpProbe, Key, Listener, MetricsServer,
    Name, Pool, ProbeKind, Process, Retry, Route, TcpProbe,
};

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The section, as `pools.app`.
    pub what: String,
    /// How.
    pub kind: ChangeKind,
    /// Of a changed section, its keys that differ, as `timeouts` or `endpoint 127.0.0.1:7002 added`.
    pub keys: Vec<String>,
}

/// How a section differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// New.
    Added,
    /// Gone.
    Removed,
    /// There before and after, with other settings.
    Changed,
    /// The same sections in another order, where the order decides.
    Reordered,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Changed => "changed",
            ChangeKind::Reordered => "reordered",
        };
        write!(f, "{} {kind}", self.what)?;
        if self.keys.is_empty() { Ok(()) } else { write!(f, ": {}", self.keys.join(", ")) }
    }
}

/// The keys under which two values differ. All fields are named: a new one breaks the build until it has its key.
macro_rules! differing {
    ($kind:ident, $old:expr, $new:expr, { $($field:ident: $key:literal),* $(,)? }) => {{
        let ($kind { $($field),* }, new) = ($old, $new);
        let mut keys: Vec<String> = Vec::new();
        $(if *$field != new.$field {
            keys.push($key.to_owned());
        })*
        keys
    }};
}

/// What differs from `old` to `new`, section by section.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut single = |what: &str, kind: Option<ChangeKind>, keys: Vec<String>| {
        changes.extend(kind.map(|kind| Change { what: what.to_owned(), kind, keys }));
    };
    let changed = |keys: &[String]| (!keys.is_empty()).then_some(ChangeKind::Changed);
    let keys = process(&old.process, &new.process);
    single("process", changed(&keys), keys);
    let keys = differing!(AccessLog, &old.access_log, &new.access_log, { output: "output", format: "format" });
    single("access_log", changed(&keys), keys);
    let keys = differing!(Dns, &old.dns, &new.dns, { servers: "servers", timeout: "timeout" });
    single("dns", changed(&keys), keys);
    let address =
        |old: &MetricsServer, new: &MetricsServer| differing!(MetricsServer, old, new, { address: "address" });
    optional(&mut changes, "metrics", &old.metrics, &new.metrics, address);
    let address = |old: &Admin, new: &Admin| differing!(Admin, old, new, { address: "address" });
    optional(&mut changes, "admin", &old.admin, &new.admin, address);
    named(&mut changes, "keys", &old.keys, &new.keys, |item| &item.name, key);
    named(&mut changes, "listeners", &old.listeners, &new.listeners, |item| &item.name, listener);
    named(&mut changes, "caches", &old.caches, &new.caches, |item| &item.name, cache);
    named(&mut changes, "pools", &old.pools, &new.pools, |item| &item.name, pool);
    let routes = |left: &Route, right: &Route| route(&Named::new(left, old), &Named::new(right, new));
    named(&mut changes, "routes", &old.routes, &new.routes, |item| &item.name, routes);
    if reordered(&old.routes, &new.routes) {
        changes.push(Change { what: "routes".to_owned(), kind: ChangeKind::Reordered, keys: Vec::new() });
    }
    changes
}

fn optional<T>(
    changes: &mut Vec<Change>,
    what: &str,
    old: &Option<T>,
    new: &Option<T>,
    differing: impl Fn(&T, &T) -> Vec<String>,
) {
    let (kind, keys) = match (old, new) {
        (None, None) => return,
        (None, Some(_)) => (ChangeKind::Added, Vec::new()),
        (Some(_), None) => (ChangeKind::Removed, Vec::new()),
        (Some(old), Some(new)) => (ChangeKind::Changed, differing(old, new)),
    };
    if kind != ChangeKind::Changed || !keys.is_empty() {
        changes.push(Change { what: what.to_owned(), kind, keys });
    }
}

fn named<T>(
    changes: &mut Vec<Change>,
    section: &str,
    old: &[Arc<T>],
    new: &[Arc<T>],
    name: impl Fn(&T) -> &Name,
    differing: impl Fn(&T, &T) -> Vec<String>,
) {
    let change = |item: &T, kind, keys| Change { what: format!("{section}.{}", name(item)), kind, keys };
    for item in old {
        match new.iter().find(|other| name(other) == name(item)) {
            None => changes.push(change(item, ChangeKind::Removed, Vec::new())),
            Some(other) => {
                let keys = differing(item, other);
                changes.extend((!keys.is_empty()).then(|| change(item, ChangeKind::Changed, keys)));
            }
        }
    }
    let added = new.iter().filter(|item| !old.iter().any(|other| name(other) == name(item)));
    changes.extend(added.map(|item| change(item, ChangeKind::Added, Vec::new())));
}

fn process(old: &Process, new: &Process) -> Vec<String> {
    differing!(Process, old, new, {
        workers: "workers", instances: "instances", max_connections: "max_connections", held_bodies: "held_bodies",
        share_ports: "share_ports",
        drain_delay: "drain.delay", drain_timeout: "drain.timeout",
    })
}

fn key(old: &Key, new: &Key) -> Vec<String> {
    differing!(Key, old, new, { name: "name", secrets: "secrets" })
}

fn listener(old: &Listener, new: &Listener) -> Vec<String> {
    differing!(Listener, old, new, {
        name: "name", address: "address", redirect: "redirect", tls: "tls", trusted_proxies: "trusted_proxies",
        timeouts: "timeouts", limits: "limits",
    })
}

fn cache(old: &CacheZone, new: &CacheZone) -> Vec<String> {
    differing!(CacheZone, old, new, { name: "name", memory: "memory", max_body: "max_body" })
}

fn pool(old: &Pool, new: &Pool) -> Vec<String> {
    let mut keys = differing!(Pool, old, new, {
        name: "name", balance: "balance", endpoints: "endpoints",
        endpoints_file: "endpoints_file", health: "health", timeouts: "timeouts", tls: "tls",
        ejection: "ejection", panic_threshold: "panic_threshold", failover: "failover", failback: "failback",
        max_requests: "max_requests", max_connections: "max_connections", queue: "queue",
        outage_wait: "outage_wait", max_idle: "max_idle",
        retry_budget: "retry_budget", sticky: "sticky", slow_start: "slow_start",
        drain_timeout: "drain_timeout",
    });
    // Which ones is what an operator wants to read.
    if let Some(at) = keys.iter().position(|key| key == "endpoints") {
        let details = endpoints(old, new);
        keys.splice(at..=at, if details.is_empty() { vec!["endpoints reordered".to_owned()] } else { details });
    }
    if let Some(at) = keys.iter().position(|key| key == "health")
        && let (Some(old), Some(new)) = (&old.health, &new.health)
    {
        keys.splice(at..=at, health(old, new));
    }
    keys
}

/// Of a check that is there before and after: what is asked otherwise, or only how often.
fn health(old: &HealthCheck, new: &HealthCheck) -> Vec<String> {
    let mut keys = differing!(HealthCheck, old, new, {
        probe: "probe", interval: "interval", interval_in_doubt: "interval_in_doubt", interval_down: "interval_down",
        timeout: "timeout", rise: "rise", fall: "fall",
    });
    let (was, is) = (old.probe.kind.as_str(), new.probe.kind.as_str());
    keys.retain(|key| key != "probe");
    keys.extend((old.probe.port != new.probe.port).then(|| "port".to_owned()));
    keys.extend(match (&old.probe.kind, &new.probe.kind) {
        (ProbeKind::Http(old), ProbeKind::Http(new)) => differing!(HttpProbe, old, new, {
            method: "method", path: "path", host: "host", headers: "headers", expect_status: "expect_status",
            expect_body: "expect_body",
        }),
        (ProbeKind::Tcp(old), ProbeKind::Tcp(new)) => {
            differing!(TcpProbe, old, new, { send: "send", expect: "expect" })
        }
        (ProbeKind::Grpc(old), ProbeKind::Grpc(new)) => {
            differing!(GrpcProbe, old, new, { service: "service", host: "host" })
        }
        (ProbeKind::Http(_) | ProbeKind::Tcp(_) | ProbeKind::Grpc(_), _) => Vec::new(),
    });
    for key in &mut keys {
        *key = format!("health.{is}.{key}");
    }
    if was != is {
        keys.insert(0, format!("health.{is} instead of health.{was}"));
    }
    keys
}

fn endpoints(old: &Pool, new: &Pool) -> Vec<String> {
    let mut details = Vec::new();
    for endpoint in &old.endpoints {
        let address = &endpoint.address;
        match new.endpoints.iter().find(|other| other.address == *address) {
            None => details.push(format!("endpoint {address} removed")),
            Some(other) => {
                let (weight, backup) = (other.weight != endpoint.weight, other.backup != endpoint.backup);
                let from_to =
                    || format!("endpoint {address} weight {} to {}", endpoint.weight.value(), other.weight.value());
                details.extend(weight.then(from_to));
                let now = if other.backup { "now a backup" } else { "no longer a backup" };
                details.extend(backup.then(|| format!("endpoint {address} {now}")));
                let now = if other.drain { "drained" } else { "no longer drained" };
                details.extend((other.drain != endpoint.drain).then(|| format!("endpoint {address} {now}")));
            }
        }
    }
    let added = new.endpoints.iter().filter(|one| !old.endpoints.iter().any(|other| other.address == one.address));
    details.extend(added.map(|endpoint| format!("endpoint {} added", endpoint.address)));
    details
}

/// A route without its place in the file, and the names behind its indices: a moved section is no change.
struct Named<'c> {
    route: Route,
    listeners: Vec<Option<&'c str>>,
    pools: Vec<Option<&'c str>>,
    cache: Option<&'c str>,
}

impl<'c> Named<'c> {
    fn new(route: &Route, config: &'c Config) -> Self {
        let mut named = Self { route: route.clone(), listeners: Vec::new(), pools: Vec::new(), cache: None };
        named.route.origin.clear();
        for index in &mut named.route.matches.listeners {
            named.listeners.push(config.listeners.get(index.at()).map(|listener| &*listener.name));
            index.0 = 0;
        }
        let pools = match &mut named.route.action {
            Action::Pool(pool) => vec![pool],
            Action::Split(split) => vec![&mut split.read, &mut split.write],
            Action::Redirect(_) | Action::Respond(_) => Vec::new(),
        };
        for index in pools {
            named.pools.push(config.pools.get(index.at()).map(|pool| &*pool.name));
            index.0 = 0;
        }
        if let Some(cache) = &mut named.route.cache {
            named.cache = config.caches.get(cache.zone.at()).map(|cache| &*cache.name);
            cache.zone.0 = 0;
        }
        named
    }
}

fn route(old: &Named<'_>, new: &Named<'_>) -> Vec<String> {
    let mut keys = differing!(Route, &old.route, &new.route, {
        name: "name", origin: "origin", matches: "match", action: "action", rewrite: "rewrite",
        request_headers: "request_headers", response_headers: "response_headers", limits: "limits",
        timeouts: "timeouts", priority: "priority", retry: "retry", cache: "cache", upgrades: "upgrades",
    });
    let behind = [
        ("match", old.listeners != new.listeners),
        ("action", old.pools != new.pools),
        ("cache", old.cache != new.cache),
    ];
    for (key, differs) in behind {
        if differs && !keys.iter().any(|other| other == key) {
            keys.push(key.to_owned());
        }
    }
    let (was, is) = (action(&old.route.action), action(&new.route.action));
    for key in keys.iter_mut().filter(|key| *key == "action") {
        *key = if was == is { is.to_owned() } else { format!("{is} instead of {was}") };
    }
    if let Some(at) = keys.iter().position(|key| key == "retry") {
        keys.splice(at..=at, retry(&old.route.retry, &new.route.retry));
    }
    keys
}

fn retry(old: &Retry, new: &Retry) -> Vec<String> {
    differing!(Retry, old, new, {
        attempts: "retry.attempts", on: "retry.on", status: "retry.status",
        per_try_timeout: "retry.per_try_timeout", body: "retry.body", non_idempotent: "retry.non_idempotent",
        idempotency_key: "retry.idempotency_key",
    })
}

fn action(action: &Action) -> &'static str {
    match action {
        Action::Pool(_) => "pool",
        Action::Split(_) => "split",
        Action::Redirect(_) => "redirect",
        Action::Respond(_) => "respond",
    }
}

/// Whether routes that are there before and after changed places: of two that fit alike, the first wins.
fn reordered(old: &[Arc<Route>], new: &[Arc<Route>]) -> bool {
    let both = |these: &[Arc<Route>], others: &[Arc<Route>]| {
        let is_kept = |route: &&Arc<Route>| others.iter().any(|other| other.name == route.name);
        these.iter().filter(is_kept).map(|route| route.name.clone()).collect::<Vec<_>>()
    };
    both(old, new) != both(new, old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse_text;

    const BASE: &str = r#"config_version = 1
[metrics]
address = "127.0.0.1:9901"
[listeners.a]
address = "127.0.0.1:80"
[listeners.b]
address = "127.0.0.1:443"
tls.certificates = [{ cert = "c", key = "k" }]
[caches.main]
[caches.other]
[pools.app]
endpoints = ["127.0.0.1:1", { address = "127.0.0.1:2", weight = 2 }]
[pools.db]
endpoints = ["127.0.0.1:3"]
[routes.r]
match.listener = "a"
match.path = "/r"
split = { read = "app", write = "app" }
cache.zone = "main"
[routes.s]
match.path = "/s"
pool = "db"
"#;

    fn changes(old: &str, new: &str) -> Vec<String> {
        let read = |text: &str| parse_text("t.toml", text, &|_| None).unwrap_or_else(|faults| panic!("{faults:#?}")).0;
        diff(&read(old), &read(new)).iter().map(ToString::to_string).collect()
    }

    const CHECK: &str = "health.http = { path = \"/ready\" }";

    /// What is replaced, by what, and what is told; `HEALTH` is [`CHECK`] in `pools.db`.
    const CHANGES: &[(&str, &str, &[&str])] = &[
        ("[metrics]\naddress = \"127.0.0.1:9901\"\n", "", &["metrics removed"]),
        ("127.0.0.1:9901", "127.0.0.1:9902", &["metrics changed: address"]),
        ("[metrics]", "[admin]\naddress = \"unix:/a\"\n[metrics]", &["admin added"]),
        ("[metrics]", "[access_log]\nformat = \"off\"\n[metrics]", &["access_log changed: format"]),
        (
            "[metrics]",
            "[process]\nworkers = 2\ndrain.delay = \"1s\"\n[metrics]",
            &["process changed: workers, drain.delay"],
        ),
        ("127.0.0.1:80\"", "127.0.0.1:81\"\nlimits.streams = 3", &["listeners.a changed: address, limits"]),
        ("key = \"k\"", "key = \"other\"", &["listeners.b changed: tls"]),
        ("[listeners.b]", "[listeners.c]", &["listeners.b removed", "listeners.c added"]),
        ("[caches.main]", "[caches.main]\nmemory = \"2MiB\"", &["caches.main changed: memory"]),
        ("\"127.0.0.1:1\", ", "", &["pools.app changed: endpoint 127.0.0.1:1 removed"]),
        ("\"127.0.0.1:1\", ", "\"unix:/s\", \"127.0.0.1:1\", ", &["pools.app changed: endpoint unix:/s added"]),
        (
            "weight = 2",
            "backup = true",
            &["pools.app changed: endpoint 127.0.0.1:2 weight 2 to 1, endpoint 127.0.0.1:2 now a backup"],
        ),
        ("\"127.0.0.1:1\", ", "\"app:1\", \"127.0.0.1:1\", ", &["pools.app changed: endpoint app:1 added"]),
        ("[metrics]", "[dns]\nservers = [\"127.0.0.1\"]\n[metrics]", &["dns changed: servers"]),
        (
            "\"127.0.0.1:1\", { address = \"127.0.0.1:2\", weight = 2 }",
            "{ address = \"127.0.0.1:2\", weight = 2 }, \"127.0.0.1:1\"",
            &["pools.app changed: endpoints reordered"],
        ),
        ("[pools.db]", "[pools.db]\nbalance = \"random\"\nhealth.tcp = {}", &["pools.db changed: balance, health"]),
        (
            "HEALTH",
            "health.http = { path = \"/ready\", expect_body = \"ok\", fall = 3, interval = \"2s\", interval_down = \"1s\" }",
            &["pools.db changed: health.http.interval, health.http.interval_in_doubt, health.http.fall, \
               health.http.expect_body"],
        ),
        (
            "HEALTH",
            "health.tcp = { port = 9 }",
            &["pools.db changed: health.tcp instead of health.http, health.tcp.port"],
        ),
        (
            "[pools.db]",
            "[pools.db]\nfailover = [\"app\"]\nfailback = \"manual\"\npanic_threshold = 9\nejection.enabled = false",
            &["pools.db changed: ejection, panic_threshold, failover, failback"],
        ),
        ("weight = 2", "weight = 0", &["pools.app changed: endpoint 127.0.0.1:2 weight 2 to 0"]),
        (
            "[pools.db]",
            "[keys.k]\nsecrets = [{ file = \"k\" }]\n[pools.db]\nslow_start = \"1s\"\nsticky.cookie = \"c\"",
            &["keys.k added", "pools.db changed: sticky, slow_start"],
        ),
        ("[metrics]", "[process]\ninstances = 2\n[metrics]", &["process changed: instances"]),
        (
            "[pools.db]",
            "[pools.db]\nmax_connections = 9\nqueue.size = 5\noutage_wait = \"0s\"",
            &["pools.db changed: max_connections, queue, outage_wait"],
        ),
        ("pool = \"db\"", "pool = \"db\"\npriority = \"high\"", &["routes.s changed: priority"]),
        // One key that every section takes over.
        (
            "[metrics]",
            "[defaults.pool]\nmax_idle = 1\n[metrics]",
            &["pools.app changed: max_idle", "pools.db changed: max_idle"],
        ),
        ("\"/s\"", "\"/t\"", &["routes.s changed: match"]),
        ("listener = \"a\"", "listener = \"b\"", &["routes.r changed: match"]),
        ("pool = \"db\"", "pool = \"app\"", &["routes.s changed: pool"]),
        ("pool = \"db\"", "respond.status = 200", &["routes.s changed: respond instead of pool"]),
        ("write = \"app\"", "write = \"db\"", &["routes.r changed: split"]),
        ("zone = \"main\"", "zone = \"other\"", &["routes.r changed: cache"]),
        ("pool = \"db\"", "pool = \"db\"\nretry.attempts = 1", &["routes.s changed: retry.attempts"]),
        (
            "pool = \"db\"",
            "pool = \"db\"\nretry = { on = [\"timeout\"], status = [502], body = \"1KiB\", idempotency_key = true }",
            &["routes.s changed: retry.on, retry.status, retry.body, retry.idempotency_key"],
        ),
        ("[pools.db]", "[pools.db]\nretry_budget.percent = 10", &["pools.db changed: retry_budget"]),
        ("[routes.r]", "[routes.q]", &["routes.r removed", "routes.q added"]),
        // Comments, and places in the file, are no change.
        ("[metrics]", "# a comment\n\n[metrics]", &[]),
        ("[pools.app]", "[pools.zero]\nendpoints = [\"127.0.0.1:9\"]\n[pools.app]", &["pools.zero added"]),
    ];

    #[test]
    fn each_kind_of_change_is_told_in_the_words_of_the_config() {
        for (from, to, told) in CHANGES {
            let (base, from) = match *from {
                "HEALTH" => (BASE.replace("[pools.db]", &format!("[pools.db]\n{CHECK}")), CHECK),
                from => (BASE.to_owned(), from),
            };
            assert!(base.contains(from), "{from}");
            assert_eq!(changes(&base, &base.replacen(from, to, 1)), *told, "{from} -> {to}");
        }
    }

    #[test]
    fn routes_in_another_order_are_told_and_other_sections_are_not() {
        let (head, s) = BASE.split_at(BASE.find("[routes.s]").unwrap());
        let (head, r) = head.split_at(head.find("[routes.r]").unwrap());
        assert_eq!(changes(BASE, &format!("{head}{s}{r}")), ["routes reordered"]);
        let (head, db) = head.split_at(head.find("[pools.db]").unwrap());
        let (head, app) = head.split_at(head.find("[pools.app]").unwrap());
        assert_eq!(changes(BASE, &format!("{head}{db}{app}{r}{s}")), [""; 0]);
    }
}
