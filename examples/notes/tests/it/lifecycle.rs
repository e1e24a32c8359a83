//! Starting, and stopping without losing a request.

use std::net::TcpListener;

use nix::sys::signal::Signal;

use crate::kit::{Connection, Server, eventually, request};

#[test]
fn a_signal_stops_it_with_exit_code_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::in_memory();
        let mut idle = Connection::open(server.address).unwrap();
        assert_eq!(idle.request("GET", "/healthz", &[], b"").unwrap().status, 200);
        server.signal(signal);
        let end = server.await_end();
        assert_eq!(end.status.code(), Some(0), "{}", end.stderr);
        assert!(end.stderr.contains("every request was answered"), "{}", end.stderr);
        assert!(idle.is_closed());
    }
}

#[test]
fn a_stop_lets_a_request_in_flight_finish() {
    let server = Server::in_memory();
    let body = br#"{"name":"Ada"}"#;
    let mut in_flight = Connection::open(server.address).unwrap();
    in_flight.begin("/api/users", body.len()).unwrap();
    server.signal(Signal::SIGTERM);
    await_closed_port(&server);

    in_flight.send_raw(body).unwrap();
    let answer = in_flight.receive("POST").unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("connection"), Some("close"));
    let end = server.await_end();
    assert_eq!(end.status.code(), Some(0));
    assert!(end.stderr.contains("every request was answered"), "{}", end.stderr);
}

#[test]
fn a_stop_ends_at_the_drain_timeout() {
    let flags = ["--drain-timeout", "100ms"];
    let server = Server::start_with("app-1", "all", "sqlite::memory:", &flags);
    let mut never_done = Connection::open(server.address).unwrap();
    never_done.begin("/api/users", 14).unwrap();
    server.signal(Signal::SIGTERM);
    let end = server.await_end();
    assert_eq!(end.status.code(), Some(0));
    assert!(end.stderr.contains("drain timeout"), "{}", end.stderr);
}

#[test]
fn a_second_signal_stops_at_once() {
    let flags = ["--drain-timeout", "1h"];
    let server = Server::start_with("app-1", "all", "sqlite::memory:", &flags);
    let mut never_done = Connection::open(server.address).unwrap();
    never_done.begin("/api/users", 14).unwrap();
    server.signal(Signal::SIGTERM);
    await_closed_port(&server);
    server.signal(Signal::SIGINT);
    let end = server.await_end();
    assert_eq!(end.status.code(), Some(0));
    assert!(end.stderr.contains("SIGINT again"), "{}", end.stderr);
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap().to_string();
    for (arguments, words) in [
        (vec!["--listen", taken_address.as_str()], "cannot listen"),
        (vec!["--listen", "127.0.0.1:0", "--role", "read"], "a read server needs"),
        (vec!["--listen", "127.0.0.1:0", "--store", "sqlite:/no/such/dir/n.db"], "/no/such/dir"),
        (vec!["--store", "postgres://x/y"], "is expected"),
        (vec!["--store", "mysql://root@localhost"], "a database name is expected"),
        (vec!["--role", "both"], "possible values"),
        (vec!["--name", "a b"], "are expected"),
        (vec!["--listen", "7001"], "invalid"),
    ] {
        let end = Server::run_to_end(&arguments);
        assert!(matches!(end.status.code(), Some(1 | 2)), "{arguments:?}: {:?}", end.status);
        assert!(end.stderr.contains(words), "{arguments:?}: {}", end.stderr);
    }
}

/// The stop has begun when nobody can connect any more.
fn await_closed_port(server: &Server) {
    eventually("the port to be closed", || request(server.address, "GET", "/healthz", &[], b"").is_err().then_some(()));
}
