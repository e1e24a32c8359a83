//! Signals and exit codes: 0 clean, 1 failed, 2 usage, 3 cut off, 78 bad config.

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

use headgate::base::clock;
use nix::sys::signal::Signal;

use crate::binary::{HEAD, Headgate, headgate, said, simple};
use crate::kit::{Client, Origin, eventually, exchange, gate, ok};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A headgate with a request on it that the origin keeps until it is dropped.
fn with_a_hanging_request(drain: &str) -> (Headgate, Client, std::sync::mpsc::Sender<()>) {
    let (open, closed) = gate();
    let origin = Origin::scripted(move |_, _| {
        closed.pass();
        ok("late")
    });
    let headgate =
        Headgate::start(&format!("[process]\ndrain = {{ timeout = \"{drain}\" }}\n{}", simple(origin.address)));
    let mut client = Client::connect(headgate.listener("http"));
    client.send(REQUEST);
    eventually("the origin has the request", || origin.heard().len() == 1);
    (headgate, client, open)
}

#[test]
fn each_signal_of_the_end_drains_and_exits_with_0() {
    let origin = Origin::named("app");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut headgate = Headgate::start(&simple(origin.address));
        let mut client = Client::connect(headgate.listener("http"));
        client.send(REQUEST);
        assert_eq!(client.receive().expect("an answer").status, 200);
        headgate.signal(signal);
        assert!(client.rest().is_empty());
        assert_eq!(headgate.exit_code(), Some(0), "{signal}: {}", headgate.log());
        assert!(!headgate.folder.path().join("admin.sock").exists(), "{signal}: the socket's file is left");
    }
}

#[test]
fn a_response_that_ends_before_the_deadline_makes_a_clean_end() {
    let (mut headgate, mut client, open) = with_a_hanging_request("20s");
    headgate.signal(Signal::SIGTERM);
    eventually("it drains", || headgate.log().contains("draining"));
    open.send(()).unwrap();
    assert_eq!(client.receive().expect("an answer").body, "late");
    assert_eq!(headgate.exit_code(), Some(0), "{}", headgate.log());
}

#[test]
fn a_drain_beyond_its_deadline_exits_with_3() {
    let (mut headgate, mut client, _open) = with_a_hanging_request("300ms");
    headgate.signal(Signal::SIGTERM);
    assert!(client.receive().is_none(), "it is cut off");
    assert_eq!(headgate.exit_code(), Some(3), "{}", headgate.log());
}

#[test]
fn a_second_signal_stops_at_once() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut headgate, mut client, _open) = with_a_hanging_request("1h");
        headgate.signal(Signal::SIGTERM);
        eventually("it drains", || headgate.log().contains("draining"));
        let began = clock::now();
        headgate.signal(second);
        assert!(client.receive().is_none(), "it is cut off");
        assert_eq!(headgate.exit_code(), Some(3), "{}", headgate.log());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn a_request_that_waits_in_the_kernel_while_the_signal_comes_is_answered() {
    let origin = Origin::named("app");
    let mut headgate = Headgate::start(&simple(origin.address));
    let address = headgate.listener("http");
    // Stopped: the kernel lets clients in, and nobody accepts them. The word to end comes before they are seen.
    headgate.signal(Signal::SIGSTOP);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send(REQUEST);
    }
    headgate.signal(Signal::SIGTERM);
    headgate.signal(Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(client.receive().expect("an answer").status, 200);
    }
    drop(clients);
    assert_eq!(headgate.exit_code(), Some(0), "{}", headgate.log());
}

/// F30.
#[test]
fn a_second_instance_takes_over_a_port_that_it_shares() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let mut first = Headgate::start(&simple(old.address));
    let address = first.listener("http");
    let config = simple(new.address).replace("127.0.0.1:0", &address.to_string());
    let second = Headgate::start(&format!("[process]\nshare_ports = true\n{config}"));
    first.signal(Signal::SIGTERM);
    assert_eq!(first.exit_code(), Some(0), "{}", first.log());
    for _ in 0..8 {
        let mut client = Client::connect(address);
        client.send(REQUEST);
        assert_eq!(client.receive().expect("an answer").body, "new");
    }
    drop(second);
}

/// It could not where the first had an admin socket or a metrics port, as every example has.
#[test]
fn a_second_instance_takes_over_metrics_and_the_admin_socket_as_well() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let metrics = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!("[metrics]\naddress = \"{metrics}\"\n");
    let mut first = Headgate::start(&format!("{more}{}", simple(old.address)));
    let address = first.listener("http");
    let folder = first.folder.path();
    let socket = folder.join("admin.sock");
    let inode = || std::fs::metadata(&socket).map(|meta| meta.ino()).ok();
    let before = inode();
    let config = simple(new.address).replace("127.0.0.1:0", &address.to_string());
    let config = format!("{HEAD}{more}[process]\nshare_ports = true\n{config}");
    let path = folder.join("next.toml");
    std::fs::write(&path, config.replace("@FOLDER", &folder.display().to_string())).unwrap();
    let mut second = headgate().arg("run").arg("--config").arg(&path).stderr(Stdio::null()).spawn().unwrap();
    eventually("the second has the admin socket", || inode() != before);
    first.signal(Signal::SIGTERM);
    let code = first.exit_code();
    let admin = format!("unix:{}", socket.display());
    let status = first.command(&["status", "--admin", &admin]);
    let told = exchange(metrics, "GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let answer = exchange(address, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    second.kill().unwrap();
    second.wait().unwrap();
    assert_eq!(code, Some(0), "{}", first.log());
    assert!(status.status.success() && told.is_some_and(|told| told.status == 200), "{}", said(&status));
    assert_eq!(answer.expect("an answer").body, "new");
}

#[test]
fn a_bad_config_exits_with_78_and_a_taken_port_with_1() {
    let mut bad = Headgate::launch(headgate(), "[listeners.http]\nadress = \"127.0.0.1:0\"\n");
    assert_eq!(bad.exit_code(), Some(78), "{}", bad.log());
    eventually("it tells why", || bad.log().contains("did you mean `address`?"));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = simple(address).replace("127.0.0.1:0", &address.to_string());
    let mut late = Headgate::launch(headgate(), &config);
    assert_eq!(late.exit_code(), Some(1), "{}", late.log());
    eventually("it tells why", || late.log().contains("another process listens there"));
}

#[test]
fn wrong_usage_exits_with_2() {
    let output = headgate().arg("rnu").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}
