//! Endpoints by name: records that move, name servers that fail, services, both families. The name server is the
//! story's own.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::kit::{
    Ca, Client, Dns, Origin, Proxy, Record, Reply, answer_to, eventually, exchange, gate, ok, timed, tls_door,
};

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n[metrics]\naddress = \"127.0.0.1:0\"\n";

/// One pool of these entries, and more below its table.
fn config(dns: &Dns, endpoints: &str, pool: &str) -> String {
    format!("{ADMIN}{}{}", dns.config(), Proxy::text(&[], "", pool, "").replace("endpoints = []", endpoints))
}

fn start(dns: &Dns, endpoints: &str, pool: &str) -> Proxy {
    Proxy::start(&config(dns, &format!("endpoints = [{endpoints}]"), pool))
}

fn served(proxy: &Proxy) -> String {
    let answer = answer_to(proxy.address(), "GET", "/");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// The pool as the admin API shows it.
fn pool(proxy: &Proxy) -> serde_json::Value {
    proxy.status()["pools"][0].clone()
}

/// The addresses of the pool's endpoints.
fn addresses(proxy: &Proxy) -> Vec<String> {
    let pool = pool(proxy);
    pool["endpoints"].as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap().to_owned()).collect()
}

/// A name's failed look-ups, as a scrape tells them.
fn failures(proxy: &Proxy, reason: &str) -> u64 {
    let metrics = proxy.metrics();
    let series = format!("reason=\"{reason}\"}} ");
    let lines = metrics.lines().filter(|line| line.starts_with("headgate_dns_failures_total{"));
    lines.filter_map(|line| line.split_once(&series)?.1.parse::<u64>().ok()).sum()
}

/// Two servers on one port of two addresses.
fn twins(one: &'static str, two: &'static str) -> (Origin, Origin, u16) {
    loop {
        let first = Origin::named(one);
        let port = first.address.port();
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.2", port)) {
            drop(listener);
            return (first, Origin::named_at(two, ("127.0.0.2", port)), port);
        }
    }
}

/// F23.
#[test]
fn new_requests_follow_a_record_that_moves_and_running_ones_finish() {
    let dns = Dns::start();
    let (open, closed) = gate();
    let slow = Origin::scripted(move |heard, _| {
        if heard.line.contains("/slow") {
            closed.pass();
        }
        ok("one")
    });
    let port = slow.address.port();
    let two = Origin::named_at("two", ("127.0.0.2", port));
    dns.point("app.test", &["127.0.0.1"]);
    let proxy = start(&dns, &format!("\"app.test:{port}\""), "");
    assert_eq!(served(&proxy), "one", "the first answer is there before the first request");
    let mut running = Client::connect(proxy.address());
    running.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("it is on the old address", || slow.heard().iter().any(|heard| heard.line.contains("/slow")));

    dns.point("app.test", &["127.0.0.2"]);
    let (requests, time) = timed(|| {
        let mut requests = 0;
        // Every one of them is answered with 200.
        eventually("requests go to the new address", || {
            requests += 1;
            served(&proxy) == "two"
        });
        requests
    });
    assert!(time <= Duration::from_secs(3), "the TTL is 1 s, and it took {time:?}");
    assert!(requests > 1);
    let heard = slow.heard().len();
    for _ in 0..50 {
        assert_eq!(served(&proxy), "two");
    }
    assert_eq!(slow.heard().len(), heard, "nothing goes to the old address any more");
    open.send(()).unwrap();
    assert_eq!(running.receive().expect("what runs on the old address finishes").body, "one");
    assert_eq!(addresses(&proxy), [two.address.to_string()]);
    assert_eq!(pool(&proxy)["endpoints"][0]["from"], format!("app.test:{port}"));
    assert_eq!(proxy.status()["generation"], 1, "the config is the same");
    assert_eq!(proxy.receipts().len(), 1);
}

/// F21 and F22; how long an outage may be is a story in virtual time, beside the pure part.
#[test]
fn while_name_servers_fail_the_last_good_answer_serves() {
    let kinds = [
        ("server_failure", Reply::Code(2)),
        ("timeout", Reply::Silence),
        ("no_records", Reply::Code(0)),
        ("no_such_name", Reply::Code(3)),
        ("refused", Reply::Code(5)),
    ];
    std::thread::scope(|scope| {
        for (reason, reply) in kinds {
            scope.spawn(move || outage(reason, reply));
        }
    });
}

fn outage(reason: &str, reply: Reply) {
    let dns = Dns::start();
    let origin = Origin::named("app");
    let name = format!("\"app.test:{}\"", origin.address.port());
    dns.point("app.test", &["127.0.0.1"]);
    let proxy = start(&dns, &name, "");
    dns.fail(Some(reply));
    eventually(&format!("it is counted as {reason}"), || {
        assert_eq!(served(&proxy), "app");
        failures(&proxy, reason) > 0
    });
    let fault = || pool(&proxy)["names"][0]["fault"].clone();
    assert_eq!((fault(), addresses(&proxy)), (reason.into(), vec![origin.address.to_string()]));
    // A reload in the middle of it, of the pool itself.
    proxy.reload(&config(&dns, &format!("endpoints = [{name}]"), "balance = \"random\"")).unwrap();
    assert_eq!((served(&proxy), fault()), ("app".to_owned(), reason.into()));
    dns.fail(None);
    eventually("it is well again", || {
        assert_eq!(served(&proxy), "app");
        fault().is_null()
    });
}

#[test]
fn a_name_that_nobody_knows_is_a_down_endpoint_and_no_failed_start() {
    let dns = Dns::start();
    let origin = Origin::named("app");
    let name = format!("app.test:{}", origin.address.port());
    let proxy = start(&dns, &format!("\"{name}\""), "health.tcp = { interval = \"50ms\" }");
    let answer = answer_to(proxy.address(), "GET", "/");
    assert_eq!(answer.status, 503, "{answer:?}");
    let endpoint = pool(&proxy)["endpoints"][0].clone();
    assert_eq!((&endpoint["address"], &endpoint["verdict"]), (&name.as_str().into(), &"down".into()));
    assert_eq!(endpoint["evidence"]["detail"], "the name has no address: no_such_name");
    assert!(proxy.metrics().contains(&format!("headgate_endpoint_up{{pool=\"app\",endpoint=\"{name}\"}} 0")));
    let question = serde_json::json!({ "method": "GET", "url": "http://a/" });
    let explained = proxy.explain(&question).unwrap();
    assert_eq!(explained["pools"][0]["endpoints"][0]["verdict"], "down");
    assert!(explained["pools"][0]["no_pick"].is_string(), "{explained}");

    dns.point("app.test", &["127.0.0.1"]);
    eventually("it has come up", || answer_to(proxy.address(), "GET", "/").status == 200);
    let explained = proxy.explain(&question).unwrap();
    let endpoint = &explained["pools"][0]["endpoints"][0];
    assert_eq!((&endpoint["from"], &endpoint["share"]), (&name.into(), &100.0.into()));
}

#[test]
fn a_reload_waits_for_the_names_that_it_brings() {
    let dns = Dns::start();
    let (one, two, port) = twins("one", "two");
    dns.point("app.test", &["127.0.0.2"]);
    let by = |what: &str| config(&dns, &format!("endpoints = [\"{what}\"]"), "");
    let proxy = Proxy::start(&by(&one.address.to_string()));
    assert_eq!((served(&proxy), dns.asked("app.test")), ("one".to_owned(), 0));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| proxy.reload(&by(&format!("app.test:{port}"))));
        while !asking.is_finished() {
            served(&proxy);
        }
        asking.join().unwrap().unwrap();
    });
    assert_eq!((served(&proxy), two.heard().is_empty()), ("two".to_owned(), false));
    // One that stays unknown is waited for no longer than a few seconds, and never refused.
    let other = by(&format!("app.test:{port}\", \"unknown.test:1"));
    dns.say("unknown.test", Reply::Silence);
    let (loaded, time) = timed(|| proxy.reload(&other));
    assert!(loaded.is_ok() && time < Duration::from_secs(10), "{loaded:?} after {time:?}");
    assert_eq!(addresses(&proxy), [two.address.to_string(), "unknown.test:1".to_owned()]);
    // And one whose config is refused is not looked up for ever.
    let refused = by("other.test:1").replace("[routes.all]", "[listeners.x]\naddress = \"192.0.2.1:1\"\n[routes.all]");
    dns.point("other.test", &["127.0.0.1"]);
    proxy.reload(&refused).unwrap_err();
    let asked = dns.asked("other.test");
    let before = dns.asked("app.test");
    eventually("the others are looked up again and again", || dns.asked("app.test") > before + 6);
    assert_eq!((dns.asked("other.test"), served(&proxy)), (asked, "two".to_owned()));
}

#[test]
fn every_address_of_a_name_gets_its_share() {
    let dns = Dns::start();
    let (one, two, port) = twins("one", "two");
    let three = Origin::named("three");
    dns.point("app.test", &["127.0.0.2", "127.0.0.1"]);
    let endpoints =
        format!("\"app.test:{port}\", {{ address = \"{}\", weight = 2 }}, \"{}\"", three.address, one.address);
    let proxy = start(&dns, &endpoints, "balance = \"round-robin\"");
    assert_eq!(addresses(&proxy), [one.address, two.address, three.address].map(|address| address.to_string()));
    for _ in 0..400 {
        served(&proxy);
    }
    let heard = [&one, &two, &three].map(|origin| origin.heard().len());
    for (heard, share) in heard.iter().zip([100, 100, 200]) {
        assert!(heard.abs_diff(share) <= 4, "{heard:?} of 400, and {share} were due");
    }
}

#[test]
fn srv_records_say_port_weight_and_who_is_a_backup() {
    let dns = Dns::start();
    let (light, heavy, spare) = (Origin::named("light"), Origin::named("heavy"), Origin::named("spare"));
    let record = |priority, weight, origin: &Origin, target| Record::Service {
        priority,
        weight,
        port: origin.address.port(),
        target,
    };
    let records = [record(10, 1, &light, "a.test"), record(10, 3, &heavy, "b.test"), record(20, 9, &spare, "c.test")];
    dns.say("_http._tcp.app.test", Reply::Records(1, records.to_vec()));
    for host in ["a.test", "b.test", "c.test"] {
        dns.point(host, &["127.0.0.1"]);
    }
    let proxy = start(&dns, "\"srv:_http._tcp.app.test\"", "balance = \"round-robin\"");
    for _ in 0..400 {
        served(&proxy);
    }
    let heard = [&light, &heavy, &spare].map(|origin| origin.heard().len());
    assert!(heard[0].abs_diff(100) <= 4 && heard[1].abs_diff(300) <= 4 && heard[2] == 0, "{heard:?}");
    let backups: Vec<_> =
        pool(&proxy)["endpoints"].as_array().unwrap().iter().map(|one| one["backup"] == true).collect();
    assert_eq!(backups.iter().filter(|backup| **backup).count(), 1);
    // The first priority is taken out of the records.
    dns.say("_http._tcp.app.test", Reply::Records(1, records[2..].to_vec()));
    eventually("the second priority serves", || served(&proxy) == "spare");
    assert_eq!(pool(&proxy)["endpoints"][0]["backup"], false);
}

/// Fills the queue of a socket that nobody accepts on, so that further connections get no answer.
fn black_hole(address: SocketAddr) -> (socket2::Socket, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let short = Duration::from_millis(300);
    let queued = (0..16).map_while(|_| TcpStream::connect_timeout(&address, short).ok()).collect();
    (socket, queued)
}

/// A machine without IPv6 has no second family to tell of.
fn has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn a_family_that_leads_nowhere_makes_no_request_wait() {
    if !has_ipv6() {
        return;
    }
    let dns = Dns::start();
    let origin = Origin::named("v4");
    let port = origin.address.port();
    let hole = black_hole(SocketAddr::new("::1".parse().unwrap(), port));
    dns.point("app.test", &["::1", "127.0.0.1"]);
    let proxy = start(&dns, &format!("\"app.test:{port}\""), "timeouts.connect = \"5s\"");
    assert_eq!(addresses(&proxy), [origin.address.to_string()]);
    for _ in 0..20 {
        let (body, time) = timed(|| served(&proxy));
        assert!(body == "v4" && time < Duration::from_secs(1), "{time:?}");
    }
    drop(hole);
}

#[test]
fn ipv6_is_preferred_where_both_families_answer_and_given_up_where_it_is_refused() {
    if !has_ipv6() {
        return;
    }
    let dns = Dns::start();
    let four = Origin::named("v4");
    let port = four.address.port();
    dns.point("app.test", &["::1", "127.0.0.1"]);
    dns.point("other.test", &["::1", "127.0.0.1"]);
    let refused = start(&dns, &format!("\"app.test:{port}\""), "");
    assert_eq!(served(&refused), "v4", "nobody listens on ::1");
    let _six = Origin::named_at("v6", ("::1", port));
    let proxy = start(&dns, &format!("\"other.test:{port}\""), "");
    assert_eq!(addresses(&proxy), [format!("[::1]:{port}")], "one family, not two endpoints of one server");
    assert_eq!(served(&proxy), "v6");
}

#[test]
fn a_name_server_that_never_answers_for_aaaa_does_not_hold_up_the_rest() {
    let dns = Dns::start();
    let (one, two, port) = twins("one", "two");
    let only = |address: &str| Reply::SilentOnAaaa(1, vec![Record::Address(address.parse().unwrap())]);
    dns.say("app.test", only("127.0.0.1"));
    let proxy = start(&dns, &format!("\"app.test:{port}\""), "");
    assert_eq!(served(&proxy), "one");
    dns.say("app.test", only("127.0.0.2"));
    eventually("it follows", || served(&proxy) == "two");
    assert!(failures(&proxy, "timeout") > 0 && !one.heard().is_empty() && !two.heard().is_empty());
}

#[test]
fn the_certificate_of_a_named_endpoint_is_for_its_name() {
    let (ca, dns) = (Ca::new(), Dns::start());
    let origin = Origin::named("app");
    let door = tls_door(origin.address, ca.issue(&["app.test"]).server_config());
    for name in ["app.test", "other.test"] {
        dns.point(name, &["127.0.0.1"]);
        let endpoints = format!("endpoints = [\"{name}:{}\"]", door.port());
        let config = config(&dns, &endpoints, "tls.ca_file = \"@FOLDER/ca.pem\"\nhealth.tcp = {}");
        let proxy = Proxy::prepared(&config, |folder| std::fs::write(folder.join("ca.pem"), &ca.pem).unwrap());
        let verdict = if name == "app.test" { "up" } else { "down" };
        eventually("the probe says the same", || pool(&proxy)["endpoints"][0]["verdict"] == verdict);
        let answer = exchange(proxy.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert_eq!(answer.status == 200, name == "app.test", "{answer:?}");
    }
}

#[test]
fn new_addresses_of_a_probed_pool_wait_for_their_first_probe() {
    let dns = Dns::start();
    let (one, two, port) = twins("one", "two");
    dns.point("app.test", &["127.0.0.1"]);
    // The interval is long: there is one probe of each.
    let proxy = start(&dns, &format!("\"app.test:{port}\""), "health.tcp = { interval = \"1h\", timeout = \"5s\" }");
    eventually("the first is up", || pool(&proxy)["endpoints"][0]["verdict"] == "up");
    let since = pool(&proxy)["endpoints"][0]["since_unix_ms"].clone();
    dns.point("app.test", &["127.0.0.1", "127.0.0.2"]);
    eventually("the second is up", || pool(&proxy)["endpoints"][1]["verdict"] == "up");
    let endpoint = pool(&proxy)["endpoints"][0].clone();
    assert_eq!((&endpoint["verdict"], &endpoint["since_unix_ms"]), (&"up".into(), &since), "its state stays");
    eventually("both serve", || {
        served(&proxy);
        !one.heard().is_empty() && !two.heard().is_empty()
    });
}
