//! What an operator does: reload, break the config, stop, read the log.

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headgate::app::ExitKind;

use crate::kit::{Client, Origin, Proxy, answer_to, eventually, gate, ok};

const METRICS: &str = "[metrics]\naddress = \"127.0.0.1:0\"\n";

/// The value of one series, as the text has it.
fn scrape(proxy: &Proxy, series: &str) -> Option<String> {
    let page = answer_to(proxy.metrics_address(), "GET", "/metrics").body;
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
}

#[test]
fn a_reload_changes_routes_and_keeps_connections() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::to(&[one.address]);
    let mut client = Client::connect(proxy.address());
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.receive().expect("the connection stays").body
    };
    assert_eq!(ask(), "one");
    proxy.reload(&Proxy::simple(&[two.address], "")).unwrap();
    assert_eq!(ask(), "two");
}

#[test]
fn a_broken_config_is_refused_and_the_old_one_serves_on() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let faults = proxy.reload(&Proxy::simple(&[origin.address], "pol = \"app\"")).unwrap_err().join("\n");
    assert!(faults.contains("pol"), "{faults}");
    assert_eq!(answer_to(proxy.address(), "GET", "/").status, 200);
}

#[test]
fn stopping_lets_what_runs_finish_and_the_log_tells_all() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    for number in 0..5 {
        assert_eq!(answer_to(proxy.address(), "GET", &format!("/{number}")).status, 200);
    }
    assert_eq!(answer_to(proxy.address(), "GET", "/../x").status, 400);
    let (end, log) = proxy.stop();
    assert_eq!(end, ExitKind::Clean);
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6, "{log}");
    // Each worker hands its lines over on its own: their order is not told here.
    let (good, refused): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["status"] == 200);
    assert!(good.len() == 5 && good.iter().all(|line| line["route"] == "all" && line["pool"] == "app"), "{log}");
    assert_eq!((&refused[0]["status"], &refused[0]["reason"]), (&400.into(), &"bad_path".into()));
}

#[test]
fn a_full_listener_lets_the_next_wait_at_the_door_and_recovers() {
    let origin = Origin::named("app");
    let proxy = Proxy::start(&format!("{METRICS}{}", Proxy::text(&[origin.address], "limits.connections = 1", "", "")));
    let paused = "headgate_listener_paused{listener=\"http\"}";
    let mut first = Client::connect(proxy.address());
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(first.receive().is_some());
    let mut second = Client::connect(proxy.address());
    second.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    eventually("accepting pauses", || scrape(&proxy, paused).as_deref() > Some("0"));
    second.second().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(second.receive().is_none() && origin.heard().len() == 1, "one connection is the limit");
    second.second().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(scrape(&proxy, "headgate_connections{listener=\"http\"}").as_deref(), Some("1"));
    drop(first);
    assert_eq!(second.receive().expect("it was only late").status, 200);
    eventually("accepting goes on", || scrape(&proxy, paused).as_deref() == Some("0"));
    assert!(scrape(&proxy, "headgate_listener_pauses_total{listener=\"http\"}").is_some());
    assert!((0..50).all(|_| crate::kit::answer_to(proxy.address(), "GET", "/").status == 200));
}

#[test]
fn process_max_connections_counts_all_listeners_together() {
    let origin = Origin::named("app");
    let config = |most: u32| {
        let more = format!("[process]\nmax_connections = {most}\n[listeners.more]\naddress = \"127.0.0.1:0\"\n");
        format!("{METRICS}{more}{}", Proxy::simple(&[origin.address], ""))
    };
    let proxy = Proxy::start(&config(2));
    let ask = |name: &str| {
        let mut client = Client::connect(proxy.address_of(name));
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client
    };
    let (mut first, mut second) = (ask("http"), ask("more"));
    assert!(first.receive().is_some() && second.receive().is_some());
    let mut waiting = [ask("http"), ask("more"), ask("http"), ask("more")];
    let paused = |name: &str| scrape(&proxy, &format!("headgate_listener_paused{{listener=\"{name}\"}}"));
    eventually("both pause", || paused("http").as_deref() > Some("0") && paused("more").as_deref() > Some("0"));
    assert_eq!(origin.heard().len(), 2, "two are the limit");
    drop((first, second));
    // Two more are the limit, whoever they are.
    origin.await_heard(4);
    assert_eq!(origin.heard().len(), 4);
    proxy.reload(&config(4)).unwrap();
    for client in &mut waiting {
        assert_eq!(client.receive().expect("it was only late").status, 200);
    }
    drop(waiting);
    eventually("nobody waits", || paused("http").as_deref() == Some("0") && paused("more").as_deref() == Some("0"));
}

#[test]
fn requests_in_flight_are_shown_by_listener() {
    let (open, closed) = gate();
    let origin = Origin::scripted(move |_, _| {
        closed.pass();
        ok("late")
    });
    let proxy = Proxy::start(&format!("{METRICS}{}", Proxy::simple(&[origin.address], "")));
    let series = "headgate_http_requests_in_flight{listener=\"http\"}";
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(proxy.address())).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    eventually("three are in flight", || scrape(&proxy, series).as_deref() == Some("3"));
    // Whichever of them waits at the gate first goes first.
    clients.iter().for_each(|_| open.send(()).unwrap());
    assert!(clients.iter_mut().all(|client| client.receive().is_some()));
    eventually("none is in flight", || scrape(&proxy, series).as_deref() == Some("0"));
}

#[test]
fn the_end_of_each_certificate_is_shown_by_name() {
    let origin = Origin::named("app");
    let folder = tempfile::tempdir().unwrap();
    let made = headgate::tls::dev_certificate::write_dev_certificate(folder.path()).unwrap();
    let tls =
        format!("address = \"127.0.0.1:0\"\ntls.certificates = [{{ cert = {:?}, key = {:?} }}]", made.cert, made.key);
    let config = Proxy::simple(&[origin.address], "").replace("address = \"127.0.0.1:0\"", &tls);
    let proxy = Proxy::start(&format!("{METRICS}{config}"));
    let ends = scrape(&proxy, "headgate_tls_certificate_not_after_timestamp_seconds{name=\"notes.localhost\"}");
    let ends: f64 = ends.expect("the series is there").parse().unwrap();
    let days = (ends - headgate::base::clock::unix_millis() as f64 / 1000.0) / 86400.0;
    assert!((396.0..398.0).contains(&days), "{days}");
}

#[test]
fn at_most_256_probes_run_at_once() {
    // One socket is 300 endpoints: all of 127.0.0.0/8 is this machine.
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let all = Arc::new(AtomicUsize::new(0));
    let (hold, count) = (asked.clone(), all.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Held, and never answered.
            hold.lock().unwrap().push(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let endpoints: Vec<String> = (0..300).map(|n| format!("\"127.9.{}.{}:{port}\"", n / 100, n % 100 + 1)).collect();
    let health = "health.http = { path = \"/\", interval = \"1h\", timeout = \"30s\" }";
    let _proxy = Proxy::start(&format!(
        "[listeners.http]\naddress = \"127.0.0.1:0\"\n[pools.app]\n{health}\nendpoints = [{}]\n[routes.all]\npool = \"app\"\n",
        endpoints.join(", ")
    ));
    eventually("the first are asked", || all.load(Ordering::SeqCst) == 256);
    let (_hold, quiet) = std::sync::mpsc::channel::<()>();
    let _ = quiet.recv_timeout(Duration::from_millis(300));
    assert_eq!(all.load(Ordering::SeqCst), 256, "the others wait for a turn");
    asked.lock().unwrap().clear();
    eventually("each is asked in its turn", || all.load(Ordering::SeqCst) == 300);
}
