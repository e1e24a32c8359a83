//! How endpoints are reached: over TLS, verified, and over unix sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::kit::{Ca, Chaos, Heard, Origin, Pair, Proxy, Way, answer_to, eventually, ok, tls_door, unix_door};

/// One pool with these settings below its table.
fn config(endpoint: &str, pool: &str) -> String {
    format!(
        r#"
        [listeners.http]
        address = "127.0.0.1:0"
        [pools.app]
        endpoints = ["{endpoint}"]
        {pool}
        [routes.all]
        match.path = "/*"
        pool = "app"
        "#
    )
}

/// An endpoint, and the address of its door with TLS.
fn encrypted(pair: &Pair) -> (Origin, SocketAddr) {
    let origin = Origin::named("app");
    let address = tls_door(origin.address, pair.server_config());
    (origin, address)
}

/// The status and reason of a GET through a pool with these settings; `ca.pem` lies in the proxy's folder.
fn through(endpoint: SocketAddr, ca: &Ca, pool: &str) -> (u16, Option<String>) {
    let proxy = Proxy::prepared(&config(&endpoint.to_string(), pool), |folder| write_ca(folder, ca));
    let answer = answer_to(proxy.address(), "GET", "/");
    (answer.status, answer.reason().map(str::to_owned))
}

fn write_ca(folder: &Path, ca: &Ca) {
    std::fs::write(folder.join("ca.pem"), &ca.pem).unwrap();
}

const REFUSED: (u16, Option<&str>) = (502, Some("endpoint_tls"));

fn assert_refused((status, reason): (u16, Option<String>)) {
    assert_eq!((status, reason.as_deref()), REFUSED);
}

#[test]
fn an_endpoint_is_verified_unless_told_otherwise() {
    let ca = Ca::new();
    let (origin, address) = encrypted(&ca.issue(&["127.0.0.1"]));
    assert_refused(through(address, &ca, "tls.verify = true"));
    assert_refused(through(address, &Ca::new(), "tls.ca_file = \"@FOLDER/ca.pem\""));
    assert!(origin.heard().is_empty(), "no byte of a request goes to a stranger");
    assert_eq!(through(address, &ca, "tls.ca_file = \"@FOLDER/ca.pem\"").0, 200);
    assert_eq!(through(address, &ca, "tls.verify = false").0, 200);
}

#[test]
fn the_certificate_is_for_the_endpoints_name() {
    let ca = Ca::new();
    let (origin, address) = encrypted(&ca.issue(&["app.internal"]));
    let trusted = "tls.ca_file = \"@FOLDER/ca.pem\"";
    assert_refused(through(address, &ca, trusted));
    assert_refused(through(address, &ca, &format!("{trusted}\ntls.server_name = \"other.internal\"")));
    assert!(origin.heard().is_empty());
    assert_eq!(through(address, &ca, &format!("{trusted}\ntls.server_name = \"app.internal\"")).0, 200);
}

#[test]
fn a_cleartext_endpoint_behind_tls_settings_gets_no_request() {
    let origin = Origin::named("app");
    assert_refused(through(origin.address, &Ca::new(), "tls.verify = false"));
    assert!(origin.heard().iter().all(|heard| !heard.line.contains("HTTP/1.1")), "{:?}", origin.heard());
}

#[test]
fn connections_over_tls_are_kept_for_every_method() {
    let ca = Ca::new();
    let (origin, address) = encrypted(&ca.issue(&["127.0.0.1"]));
    let config = config(&address.to_string(), "tls.ca_file = \"@FOLDER/ca.pem\"");
    let proxy = Proxy::prepared(&config, |folder| write_ca(folder, &ca));
    let mut client = crate::kit::Client::connect(proxy.address());
    for method in ["GET", "POST", "GET", "POST", "DELETE", "PUT", "POST", "POST"] {
        client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"));
        assert_eq!(client.receive().unwrap().status, 200);
    }
    assert_eq!((origin.heard().len(), origin.connections()), (8, 1));
}

#[test]
fn headgate_offers_x25519mlkem768_to_endpoints() {
    use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let (ca, mut provider) = (Ca::new(), default_provider());
    provider.kx_groups = vec![kx_group::X25519MLKEM768];
    let pair = ca.issue(&["127.0.0.1"]);
    let certificate = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let origin = Origin::named("app");
    let address = tls_door(origin.address, Arc::new(config));
    assert_eq!(through(address, &ca, "tls.ca_file = \"@FOLDER/ca.pem\"").0, 200);
}

/// Opening the connection took from it, and a request without time left was sent all the same.
#[test]
fn the_time_to_answer_begins_when_the_connection_is_open() {
    let ca = Ca::new();
    let mut tls = (*ca.issue(&["127.0.0.1"]).server_config()).clone();
    // Nothing comes between handshake and answer, each of which takes one delay.
    tls.send_tls13_tickets = 0;
    let origin = Origin::named("app");
    let door = tls_door(origin.address, Arc::new(tls));
    let late = Chaos::with(door, |_| (Way::Pass, Way::Delay(Duration::from_millis(600))));
    let pool = "tls.ca_file = \"@FOLDER/ca.pem\"\ntimeouts = { connect = \"5s\", response = \"1s\" }";
    let config = config(&late.address.to_string(), pool);
    for more in ["", "retry = { attempts = 1, per_try_timeout = \"5s\" }\n"] {
        let proxy = Proxy::prepared(&(config.clone() + more), |folder| write_ca(folder, &ca));
        assert_eq!(answer_to(proxy.address(), "GET", "/").status, 200, "{more}");
    }
}

#[test]
fn probes_follow_a_ca_file_that_changed() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let (_origin, address) = encrypted(&ours.issue(&["127.0.0.1"]));
    let probed = "tls.ca_file = \"@FOLDER/ca.pem\"\n\
        health.http = { path = \"/readyz\", interval = \"100ms\", timeout = \"2s\", rise = 1, fall = 1 }";
    let config = config(&address.to_string(), probed);
    let proxy = Proxy::prepared(&config, |folder| write_ca(folder, &theirs));
    let status = || answer_to(proxy.address(), "GET", "/").status;
    eventually("the stranger is down", || status() == 503);
    // The same path in the config, other bytes in the file.
    write_ca(proxy.folder.path(), &ours);
    eventually("the endpoint is up once its CA is trusted", || status() == 200);
    write_ca(proxy.folder.path(), &theirs);
    eventually("and down once it is not", || status() == 503);
}

#[test]
fn a_unix_socket_is_an_endpoint_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let origin = Origin::scripted(|heard, _| ok(&String::from_utf8_lossy(&heard.body)));
    unix_door(origin.address, &path, None);
    let proxy = Proxy::start(&config(&format!("unix:{}", path.display()), "health.http.path = \"/readyz\""));
    eventually("it is up", || answer_to(proxy.address(), "GET", "/").status == 200);
    let mut client = crate::kit::Client::connect(proxy.address());
    for number in 0..5 {
        client.send(format!("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n{number}"));
        assert_eq!(client.receive().unwrap().body, number.to_string());
    }
    let heard = origin.heard();
    let posts: Vec<&Heard> = heard.iter().filter(|heard| heard.line.starts_with("POST")).collect();
    assert_eq!((posts.len(), posts[0].header("host")), (5, Some("a")));
}

#[test]
fn a_unix_socket_that_is_not_there_is_a_failed_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let proxy = Proxy::start(&config(&format!("unix:{}", path.display()), ""));
    let answer = answer_to(proxy.address(), "POST", "/");
    assert_eq!((answer.status, answer.reason()), (502, Some("connect_failed")));
    // And found again when it comes.
    let origin = Origin::named("app");
    unix_door(origin.address, &path, None);
    eventually("the socket is found", || answer_to(proxy.address(), "POST", "/").status == 200);
    drop(proxy);
    // A socket file that nobody listens on, as a killed server leaves it.
    let stale = folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let proxy = Proxy::start(&config(&format!("unix:{}", stale.display()), ""));
    let answer = answer_to(proxy.address(), "POST", "/");
    assert_eq!((answer.status, answer.reason()), (502, Some("connect_refused")));
}

#[test]
fn tls_over_a_unix_socket_needs_a_name_and_verifies_it() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("app.sock");
    let origin = Origin::named("app");
    unix_door(origin.address, &path, Some(ca.issue(&["app.internal"]).server_config()));
    let settings = |name: &str| format!("tls.ca_file = \"@FOLDER/ca.pem\"\ntls.server_name = \"{name}\"");
    for (name, status) in [("other.internal", 502), ("app.internal", 200)] {
        let config = config(&format!("unix:{}", path.display()), &settings(name));
        let proxy = Proxy::prepared(&config, |folder| write_ca(folder, &ca));
        assert_eq!(answer_to(proxy.address(), "GET", "/").status, status, "{name}");
    }
    assert_eq!(origin.heard().len(), 1);
}
