//! A fault of headgate's own: it ends the one request that met it, which is counted, logged and answered.

use std::net::{SocketAddr, TcpListener};

use crate::binary::{Headgate, headgate, simple};
use crate::kit::{Client, End, Frames, Origin, answer_to, eventually, ok};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A headgate in which each third request meets a fault, and where its metrics are.
fn faulty(origin: &Origin, more: &[(&str, &str)]) -> (Headgate, SocketAddr) {
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = headgate();
    command.env("HEADGATE_DEBUG_PANIC_EVERY", "3").env("RUST_BACKTRACE", "0").envs(more.iter().copied());
    let config = format!(
        "[process]\nworkers = 1\n[metrics]\naddress = \"{metrics}\"\n{}",
        simple(origin.address).replace("[routes", "max_requests = 1\n[routes")
    );
    (Headgate::start_as(command, &config), metrics)
}

fn panics(metrics: SocketAddr) -> String {
    let text = answer_to(metrics, "GET", "/metrics").body;
    text.lines().find_map(|line| line.strip_prefix("headgate_panics_total ")).unwrap().to_owned()
}

#[test]
fn a_fault_before_the_answer_is_a_500_and_the_connection_goes_on() {
    let origin = Origin::named("app");
    let (headgate, metrics) = faulty(&origin, &[]);
    let mut client = Client::connect(headgate.listener("http"));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        client.send(REQUEST);
        let answer = client.receive().expect("an answer");
        if answer.status == 500 {
            assert!(answer.body.contains("reason: internal"), "{}", answer.body);
            assert_eq!(
                answer.header("proxy-status"),
                Some("headgate; error=proxy_internal_error; details=\"internal\"")
            );
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 200, 500, 200, 200, 500]);
    assert_eq!(panics(metrics), "2");
    eventually("both are logged", || headgate.log().matches("a fault in headgate ended a request").count() == 2);
    let metrics = answer_to(metrics, "GET", "/metrics").body;
    assert!(metrics.contains("headgate_http_failures_total{reason=\"internal\",blame=\"headgate\"} 2"), "{metrics}");
    assert!(metrics.contains("headgate_http_requests_in_flight{listener=\"http\"} 0"), "{metrics}");
}

#[test]
fn a_fault_in_one_stream_is_a_500_and_its_neighbours_are_served() {
    let origin = Origin::named("app");
    let (headgate, metrics) = faulty(&origin, &[]);
    let mut frames = Frames::connect(headgate.listener("http"));
    for expected in [200, 200, 500, 200] {
        let stream = frames.request("GET", "/", &[], true);
        match frames.end(stream) {
            End::Answer(status, _) => assert_eq!(status, expected),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(panics(metrics), "1");
}

#[test]
fn a_fault_within_a_response_breaks_it_off() {
    let origin = Origin::scripted(|_, _| ok("0123456789"));
    let (headgate, metrics) = faulty(&origin, &[("HEADGATE_DEBUG_PANIC_IN_BODY", "1")]);
    let mut frames = Frames::connect(headgate.listener("http"));
    let ends: Vec<End> = (0..4)
        .map(|_| {
            let stream = frames.request("GET", "/", &[], true);
            frames.end(stream)
        })
        .collect();
    assert!(
        matches!(ends[..], [End::Answer(200, _), End::Answer(200, _), End::Reset(_), End::Answer(200, _)]),
        "{ends:?}"
    );
    assert_eq!(panics(metrics), "1");
    // Its endpoint takes one request at a time, and is free again.
    let mut client = Client::connect(headgate.listener("http"));
    client.send(REQUEST);
    assert_eq!(client.receive().expect("an answer").status, 200);
    client.send(REQUEST);
    assert!(client.receive().is_none_or(|answer| answer.body.len() < 10), "it is broken off");
    eventually("it is counted", || panics(metrics) == "2");
}
