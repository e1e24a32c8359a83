//! Reloads that were asked for: all or nothing, listeners that come and go, connections that stay.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use headgate::base::clock;
use headgate::control::receipts::Cause;

use crate::kit::{Client, Origin, Proxy, answer_to, eventually};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// An address that is free, on a port that is free on all others as well. Not from where the kernel takes ports for
/// clients (32768 up): one of those might have it by the time that it is bound.
fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests that run at the same time begin elsewhere.
    let first = 10_000 + (std::process::id() % 2_000) as u16 * 10;
    let port = (0..2_000)
        .map(|_| first + NEXT.fetch_add(1, Ordering::SeqCst))
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("a free port");
    format!("127.0.0.3:{port}")
}

/// One pool and one route behind these listeners.
fn behind(listeners: &[(&str, &str)], origin: SocketAddr) -> String {
    let listeners = listeners.iter().map(|(name, address)| format!("[listeners.{name}]\naddress = \"{address}\"\n"));
    format!("{}[pools.app]\nendpoints = [\"{origin}\"]\n[routes.all]\npool = \"app\"\n", listeners.collect::<String>())
}

fn ask(client: &mut Client) -> Option<String> {
    client.send(REQUEST);
    client.receive().map(|answer| answer.body)
}

#[test]
fn twenty_invalid_configs_change_nothing_and_a_valid_one_goes_live() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::to(&[one.address]);
    let mut client = Client::connect(proxy.address());
    let broken = [
        "pol = \"app\"",             // an unknown key
        "pool = \"nowhere\"",        // twice, and no such pool
        "limits.body = \"much\"",    // a value that is none
        "rewrite.prefix = [",        // no TOML
        "cache = { zone = \"no\" }", // a name that is not there
    ];
    for number in 0..20 {
        let faults = proxy.reload(&Proxy::simple(&[one.address], broken[number % broken.len()])).unwrap_err();
        assert!(faults.iter().all(|fault| fault.contains("headgate.toml:")), "each fault has its place: {faults:?}");
        assert_eq!(ask(&mut client).as_deref(), Some("one"));
    }
    proxy.reload(&Proxy::simple(&[two.address], "")).unwrap();
    assert_eq!(ask(&mut client).as_deref(), Some("two"));
    let receipts = proxy.receipts();
    let (refused, applied): (Vec<_>, Vec<_>) = receipts[1..].iter().partition(|receipt| !receipt.ok);
    assert!(refused.iter().filter(|receipt| receipt.cause == Cause::Admin).count() == 20, "{receipts:?}");
    assert!(refused.iter().all(|receipt| receipt.generation == 1 && receipt.changes.is_empty()), "{receipts:?}");
    let told = format!("pools.app changed: endpoint {} removed, endpoint {} added", one.address, two.address);
    assert_eq!((applied[0].generation, &applied[0].changes[..]), (2, &[told][..]));
    assert!(applied[0].connections_kept >= 1);
}

#[test]
fn listeners_come_and_go_and_their_connections_stay() {
    let origin = Origin::named("app");
    let (first, second) = (free_address(), free_address());
    let proxy = Proxy::start(&behind(&[("main", "127.0.0.1:0")], origin.address));
    let mut on_main = Client::connect(proxy.address());
    assert!(ask(&mut on_main).is_some());

    proxy.reload(&behind(&[("main", "127.0.0.1:0"), ("other", &first)], origin.address)).unwrap();
    let mut on_other = Client::connect(first.parse().unwrap());
    assert_eq!(ask(&mut on_other).as_deref(), Some("app"), "an added listener serves");

    proxy.reload(&behind(&[("main", "127.0.0.1:0"), ("other", &second)], origin.address)).unwrap();
    assert_eq!(answer_to(second.parse().unwrap(), "GET", "/").status, 200, "its new address serves");
    eventually("its old address is closed", || TcpStream::connect(&first).is_err());
    assert_eq!(ask(&mut on_other).as_deref(), Some("app"), "the connection on its old address stays");

    proxy.reload(&behind(&[("main", "127.0.0.1:0")], origin.address)).unwrap();
    eventually("a removed listener is closed", || TcpStream::connect(&second).is_err());
    assert_eq!(ask(&mut on_other).as_deref(), Some("app"), "the connection of a removed listener stays");
    assert_eq!(ask(&mut on_main).as_deref(), Some("app"), "what did not change was not touched");
}

#[test]
fn a_renamed_listener_keeps_its_socket_and_loses_nobody() {
    let origin = Origin::named("app");
    let at = free_address();
    let proxy = Proxy::start(&behind(&[("name0", &at)], origin.address));
    let address: SocketAddr = at.parse().unwrap();
    for number in 1..20 {
        let mut waiting = Client::connect(address);
        proxy.reload(&behind(&[(&format!("name{number}"), &at)], origin.address)).unwrap();
        assert_eq!(ask(&mut waiting).as_deref(), Some("app"), "who connected before is served");
        assert_eq!(answer_to(address, "GET", "/").status, 200, "who connects after is served");
    }
}

#[test]
fn a_listener_may_move_between_an_address_and_all_of_them_on_one_port() {
    let origin = Origin::named("app");
    let loopback = free_address();
    let (_, port) = loopback.split_once(':').unwrap();
    let wildcard = format!("0.0.0.0:{port}");
    let proxy = Proxy::start(&behind(&[("main", &loopback)], origin.address));
    for (at, elsewhere) in [(&wildcard, true), (&loopback, false)] {
        proxy.reload(&behind(&[("main", at)], origin.address)).unwrap();
        let other = || TcpStream::connect(format!("127.0.0.2:{port}")).is_ok();
        eventually("it is as the config says", || elsewhere == other());
        // A handshake that meets the old socket just as it closes is reset by the kernel: the next one is not.
        let served = || TcpStream::connect(&loopback).is_ok_and(|stream| ask(&mut Client::over(stream)).is_some());
        eventually("it serves", served);
    }
}

#[test]
fn who_waits_in_the_queue_of_a_removed_listener_is_served() {
    let origin = Origin::named("app");
    let at = free_address();
    let proxy = Proxy::start(&behind(&[("main", "127.0.0.1:0"), ("other", &at)], origin.address));
    for _ in 0..20 {
        let mut waiting: Vec<Client> = (0..4).map(|_| Client::connect(at.parse().unwrap())).collect();
        proxy.reload(&behind(&[("main", "127.0.0.1:0")], origin.address)).unwrap();
        for client in &mut waiting {
            assert_eq!(ask(client).as_deref(), Some("app"));
        }
        proxy.reload(&behind(&[("main", "127.0.0.1:0"), ("other", &at)], origin.address)).unwrap();
    }
}

#[test]
fn an_address_that_is_taken_refuses_the_whole_reload() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let proxy = Proxy::start(&behind(&[("main", "127.0.0.1:0")], one.address));
    let faults = proxy.reload(&behind(&[("main", "127.0.0.1:0"), ("other", &at)], two.address)).unwrap_err();
    assert!(faults[0].contains("listeners.other") && faults[0].contains("another process listens there"), "{faults:?}");
    assert_eq!(answer_to(proxy.address(), "GET", "/").body, "one", "the pool of the refused config is not used");
}

#[test]
fn a_reload_that_waits_for_its_files_does_not_hold_up_a_drain() {
    let origin = Origin::named("app");
    let metrics = "[metrics]\naddress = \"127.0.0.1:0\"\n";
    let process = "[process]\ndrain = { delay = \"300ms\" }\n";
    let proxy = Proxy::start(&format!("{process}{metrics}{}", Proxy::simple(&[origin.address], "")));
    std::fs::remove_file(&proxy.config).unwrap();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| proxy.ask_reload());
        eventually("the reload waits", || proxy.receipts().len() == 1 && !asked.is_finished());
        let began = clock::now();
        proxy.drain();
        eventually("readyz says 503", || answer_to(proxy.metrics_address(), "GET", "/readyz").status == 503);
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
        let faults = asked.join().unwrap().unwrap_err();
        assert!(faults[0].contains("headgate is draining"), "{faults:?}");
    });
}

#[test]
fn a_config_that_is_gone_for_a_moment_is_waited_for() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::to(&[one.address]);
    std::fs::remove_file(&proxy.config).unwrap();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| proxy.ask_reload());
        std::fs::write(&proxy.config, proxy.filled(&Proxy::simple(&[two.address], ""))).unwrap();
        assert_eq!(asked.join().unwrap(), Ok(()));
    });
    assert_eq!(answer_to(proxy.address(), "GET", "/").body, "two");
    std::fs::remove_file(&proxy.config).unwrap();
    let faults = proxy.ask_reload().unwrap_err();
    assert!(faults[0].contains("cannot read the config"), "{faults:?}");
    assert_eq!(answer_to(proxy.address(), "GET", "/").body, "two");
}
