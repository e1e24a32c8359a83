//! Idle HTTP/1.1 connections: after a second headgate keeps nothing of them but the socket, and nobody notices.

use std::sync::Arc;
use std::time::Duration;

use rustls::ALL_VERSIONS;

use crate::kit::{Ca, Client, Origin, Proxy, TlsClient, await_parked, client_config, timed};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn serves(client: &mut Client) -> bool {
    client.send(GET);
    client.receive().is_some_and(|answer| answer.status == 200)
}

#[test]
fn a_parked_connection_serves_again_and_is_parked_again() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    for _ in 0..3 {
        assert!(serves(&mut client) && serves(&mut client));
        await_parked();
    }
    assert!(serves(&mut client));
}

#[test]
fn a_parked_connection_over_tls_serves_again() {
    let (origin, pair) = (Origin::named("app"), Ca::new().issue(&["a"]));
    let config = format!(
        "[listeners.https]\naddress = \"127.0.0.1:0\"\n\
         tls.certificates = [{{ cert = \"@FOLDER/a.pem\", key = \"@FOLDER/a.key\" }}]\n\
         [pools.app]\nendpoints = [\"{}\"]\n[routes.all]\nmatch.path = \"/*\"\npool = \"app\"\n",
        origin.address
    );
    let proxy = Proxy::prepared(&config, |folder| _ = pair.write(folder, "a"));
    let trusting = Arc::new(client_config(ALL_VERSIONS, &[]));
    let mut client = TlsClient::connect(proxy.address_of("https"), "a", &trusting).unwrap();
    assert_eq!(client.get("a"), Some(200));
    await_parked();
    assert_eq!((client.get("a"), client.get("a")), (Some(200), Some(200)));
}

#[test]
fn a_parked_connection_ends_when_its_keep_alive_does() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.keep_alive = \"2s\"", "", "");
    let mut client = Client::connect(proxy.address());
    let (rest, took) = timed(|| {
        assert!(serves(&mut client));
        client.rest()
    });
    assert!(rest.is_empty());
    assert!(took >= Duration::from_millis(1_900) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_half_head_on_a_parked_connection_runs_into_the_header_timeout() {
    let origin = Origin::named("app");
    let proxy = Proxy::tuned(&[origin.address], "timeouts.header = \"300ms\"", "", "");
    let mut client = Client::connect(proxy.address());
    assert!(serves(&mut client));
    await_parked();
    let (rest, took) = timed(|| {
        client.send("GET / HT");
        client.rest()
    });
    assert!(rest.is_empty() && took < Duration::from_secs(5), "{took:?}");
    let log = proxy.logged();
    assert_eq!(log.last().unwrap()["reason"], "header_timeout");
}

#[test]
fn a_drain_closes_parked_connections_at_once_but_not_a_request_that_has_come() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let (mut idle, mut asking) = (Client::connect(proxy.address()), Client::connect(proxy.address()));
    assert!(serves(&mut idle) && serves(&mut asking));
    await_parked();
    asking.send(GET);
    proxy.drain();
    let (rest, took) = timed(|| idle.rest());
    assert!(rest.is_empty() && took < Duration::from_secs(2), "{took:?}");
    assert_eq!(asking.receive().map(|answer| answer.status), Some(200));
}

#[test]
fn a_parked_clients_end_is_taken_without_a_word() {
    let origin = Origin::named("app");
    let proxy = Proxy::to(&[origin.address]);
    let mut client = Client::connect(proxy.address());
    assert!(serves(&mut client));
    await_parked();
    client.finish();
    assert!(client.rest().is_empty());
    assert_eq!(proxy.logged().len(), 1, "one request, no complaint");
}
