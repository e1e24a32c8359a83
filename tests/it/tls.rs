//! TLS towards clients: certificates by name, renewed in place, and who is to blame when a handshake fails.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use headgate::base::clock;
use headgate::base::reason::{Blame, Reason};
use http::Request;
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, HandshakeKind, NamedGroup, ProtocolVersion};

use crate::kit::{Ca, Content, Origin, Pair, Protocol, Proxy, Talker, TlsClient, client_config, eventually};

/// A listener `https` with these certificates, in order, and more below its table.
fn config(origin: &Origin, stems: &[&str], listener: &str) -> String {
    let pair = |stem: &&str| format!("{{ cert = \"@FOLDER/{stem}.pem\", key = \"@FOLDER/{stem}.key\" }}");
    format!(
        r#"
        [access_log]
        output = "@FOLDER/access.log"
        [listeners.https]
        address = "127.0.0.1:0"
        tls.certificates = [{}]
        {listener}
        [pools.app]
        endpoints = ["{}"]
        [routes.all]
        match.path = "/*"
        pool = "app"
        "#,
        stems.iter().map(pair).collect::<Vec<_>>().join(", "),
        origin.address
    )
}

fn serving(origin: &Origin, pairs: &[(&str, &Pair)], listener: &str) -> Proxy {
    let stems: Vec<&str> = pairs.iter().map(|(stem, _)| *stem).collect();
    Proxy::prepared(&config(origin, &stems, listener), |folder| {
        for (stem, pair) in pairs {
            pair.write(folder, stem);
        }
    })
}

#[test]
fn both_versions_are_spoken_and_logged() {
    let (origin, pair) = (Origin::named("app"), Ca::new().issue(&["a"]));
    let proxy = serving(&origin, &[("a", &pair)], "");
    for (version, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let config = Arc::new(client_config(&[version], &[]));
        let mut client = TlsClient::connect(proxy.address(), "a", &config).unwrap();
        assert_eq!(client.get("a"), Some(200));
        assert_eq!(client.session().protocol_version(), Some(spoken));
    }
    assert_eq!(origin.heard()[0].header("x-forwarded-proto"), Some("https"));
    let (_, log) = proxy.stop();
    assert!(log.contains("TLSv1.2") && log.contains("TLSv1.3"), "{log}");
}

#[test]
fn the_certificate_follows_the_name() {
    let (origin, ca) = (Origin::named("app"), Ca::new());
    let (first, exact, wild) = (ca.issue(&["first.test"]), ca.issue(&["www.b.test"]), ca.issue(&["*.b.test"]));
    let proxy = serving(&origin, &[("first", &first), ("wild", &wild), ("exact", &exact)], "");
    let config = Arc::new(client_config(ALL_VERSIONS, &[]));
    let mut nameless = client_config(ALL_VERSIONS, &[]);
    nameless.enable_sni = false;
    let nameless = Arc::new(nameless);
    for (name, config, pair) in [
        ("first.test", &config, &first),
        ("www.b.test", &config, &exact),
        ("api.b.test", &config, &wild),
        ("x.api.b.test", &config, &first),
        ("unknown.test", &config, &first),
        ("www.b.test", &nameless, &first),
    ] {
        let mut client = TlsClient::connect(proxy.address(), name, config).unwrap();
        assert!(client.was_shown(pair), "{name}");
        assert_eq!(client.get(name), Some(200), "{name}");
    }
}

#[test]
fn alpn_chooses_the_protocol() {
    let (origin, pair) = (Origin::named("app"), Ca::new().issue(&["a"]));
    for (listener, offered, chosen) in [
        ("", &["h2", "http/1.1"][..], Some("h2")),
        ("", &["http/1.1", "h2"], Some("h2")),
        ("", &["http/1.1"], Some("http/1.1")),
        ("", &[], None),
        ("tls.http2 = false", &["h2", "http/1.1"], Some("http/1.1")),
    ] {
        let proxy = serving(&origin, &[("a", &pair)], listener);
        let config = Arc::new(client_config(ALL_VERSIONS, offered));
        let mut client = TlsClient::connect(proxy.address(), "a", &config).unwrap();
        assert_eq!(client.session().alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
        if chosen != Some("h2") {
            assert_eq!(client.get("a"), Some(200));
        }
    }
}

#[test]
fn a_session_resumes_over_a_reload() {
    let (origin, pair) = (Origin::named("app"), Ca::new().issue(&["a"]));
    let proxy = serving(&origin, &[("a", &pair)], "");
    for version in [&TLS12, &TLS13] {
        let client_config = Arc::new(client_config(&[version], &[]));
        let mut kinds = Vec::new();
        for number in 0..2 {
            let mut client = TlsClient::connect(proxy.address(), "a", &client_config).unwrap();
            // The ticket comes with the answer.
            assert_eq!(client.get("a"), Some(200));
            kinds.push(client.session().handshake_kind().unwrap());
            proxy.reload(&config(&origin, &["a"], &format!("limits.streams = {}", 10 + number))).unwrap();
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed], "{version:?}");
    }
}

#[test]
fn x25519mlkem768_is_chosen_without_a_second_hello() {
    let (origin, pair) = (Origin::named("app"), Ca::new().issue(&["a"]));
    let proxy = serving(&origin, &[("a", &pair)], "");
    let config = Arc::new(client_config(&[&TLS13], &[]));
    let client = TlsClient::connect(proxy.address(), "a", &config).unwrap();
    let group = client.session().negotiated_key_exchange_group().unwrap().name();
    assert_eq!((group, client.session().handshake_kind()), (NamedGroup::X25519MLKEM768, Some(HandshakeKind::Full)));
}

#[test]
fn a_certificate_that_changes_on_disk_is_shown_next_and_open_connections_stay() {
    let (origin, ca) = (Origin::named("app"), Ca::new());
    let (old, new) = (ca.issue(&["a"]), ca.issue(&["a"]));
    let proxy = serving(&origin, &[("a", &old)], "");
    let config = Arc::new(client_config(ALL_VERSIONS, &[]));
    let connect = || TlsClient::connect(proxy.address(), "a", &config).unwrap();
    let mut before = connect();
    assert!(before.was_shown(&old));
    assert_eq!(before.get("a"), Some(200));
    // Nobody signals: the files are watched.
    new.write(proxy.folder.path(), "a");
    eventually("the new certificate is shown", || {
        let mut client = TlsClient::connect(proxy.address(), "a", &Arc::new(client_config(ALL_VERSIONS, &[]))).unwrap();
        assert_eq!(client.get("a"), Some(200), "no handshake may fail on the way");
        client.was_shown(&new)
    });
    assert_eq!(before.get("a"), Some(200), "an open connection stays");
}

#[test]
fn a_half_changed_pair_keeps_the_old_one_until_the_second_file_comes() {
    let (origin, ca) = (Origin::named("app"), Ca::new());
    let (old, new) = (ca.issue(&["a"]), ca.issue(&["a"]));
    let proxy = serving(&origin, &[("a", &old)], "");
    let shown = |pair: &Pair| {
        let config = Arc::new(client_config(ALL_VERSIONS, &[]));
        TlsClient::connect(proxy.address(), "a", &config).unwrap().was_shown(pair)
    };
    new.write_cert(proxy.folder.path(), "a");
    let faults = proxy.reload(&config(&origin, &["a"], "")).unwrap_err().join("\n");
    assert!(faults.contains("does not belong to the key in"), "{faults}");
    assert!(shown(&old), "the old pair serves on");
    new.write_key(proxy.folder.path(), "a");
    eventually("the new pair is shown", || shown(&new));
}

#[test]
fn a_request_for_a_host_of_another_certificate_is_misdirected() {
    let (origin, ca) = (Origin::named("app"), Ca::new());
    let (one, two) = (ca.issue(&["one.test", "also.one.test"]), ca.issue(&["two.test"]));
    let proxy = serving(&origin, &[("one", &one), ("two", &two)], "");
    let get = |host: &str| Request::get(format!("https://{host}/")).body(Content::default()).unwrap();
    for protocol in [Protocol::Http1Tls, Protocol::Http2Tls] {
        for host in ["one.test", "also.one.test", "unknown.test"] {
            let reply = Talker::named(&proxy, protocol, "one.test").exchange(get(host)).unwrap();
            assert_eq!(reply.status, 200, "{protocol:?} {host}");
        }
        let heard = origin.heard().len();
        let mut talker = Talker::named(&proxy, protocol, "one.test");
        let reply = talker.exchange(get("two.test")).unwrap();
        assert_eq!(reply.status, 421, "{protocol:?}");
        assert!(reply.text().contains("reason: misdirected"), "{}", reply.text());
        assert_eq!(origin.heard().len(), heard, "{protocol:?}");
        if protocol.is_http2() {
            assert_eq!(talker.exchange(get("one.test")).unwrap().status, 200, "the connection is good for its own");
        }
        // Names that no certificate knows are at home everywhere.
        assert_eq!(Talker::named(&proxy, protocol, "x.test").exchange(get("two.test")).unwrap().status, 200);
    }
}

#[test]
fn one_certificate_misdirects_nobody() {
    let (origin, pair) = (Origin::named("app"), Ca::new().issue(&["one.test"]));
    let proxy = serving(&origin, &[("one", &pair)], "");
    let get = Request::get("https://two.test/").body(Content::default()).unwrap();
    assert_eq!(Talker::named(&proxy, Protocol::Http2Tls, "one.test").exchange(get).unwrap().status, 200);
}

/// Sends bytes to the TLS port and waits for the end; gives the log's lines of connections.
fn sent_to_tls(listener: &str, bytes: &[u8]) -> (Duration, Vec<serde_json::Value>) {
    let (origin, pair) = (Origin::named("app"), Ca::new().issue(&["a"]));
    let proxy = serving(&origin, &[("a", &pair)], listener);
    let began = clock::now();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // Whether it ends by FIN or by RST depends on what was left unread.
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "HTTP in clear on a port of TLS");
    let took = began.elapsed();
    let config = Arc::new(client_config(ALL_VERSIONS, &[]));
    assert_eq!(TlsClient::connect(proxy.address(), "a", &config).unwrap().get("a"), Some(200), "it serves on");
    let (_, log) = proxy.stop();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    (took, lines.filter(|line| line["status"] != 200).collect())
}

#[test]
fn plaintext_on_a_tls_port_is_the_clients_fault() {
    let (_, lines) = sent_to_tls("", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["reason"], "handshake_failed", "{lines:?}");
    assert_eq!(Reason::HandshakeFailed.blame(), Blame::Client);
}

#[test]
fn a_handshake_has_a_deadline() {
    // The beginning of a hello, and never its end.
    let (took, lines) = sent_to_tls("timeouts.handshake = \"1s\"", &[0x16, 3, 1, 2, 0, 1, 0, 1]);
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(lines[0]["reason"], "handshake_timeout", "{lines:?}");
}

#[test]
fn a_hello_of_many_megabytes_is_refused_by_its_first_bytes() {
    let mut hello = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    hello.resize(5 + 0x4000, 0);
    let (took, lines) = sent_to_tls("timeouts.handshake = \"15s\"", &hello);
    assert!(took < Duration::from_secs(10), "{took:?}: it was waited for");
    assert_eq!(lines[0]["reason"], "handshake_failed", "{lines:?}");
}

#[test]
fn a_connection_that_says_nothing_is_no_failure() {
    let (origin, pair) = (Origin::named("app"), Ca::new().issue(&["a"]));
    let proxy = serving(&origin, &[("a", &pair)], "[listeners.http]\naddress = \"127.0.0.1:0\"");
    for listener in ["http", "https"] {
        drop(TcpStream::connect(proxy.address_of(listener)).unwrap());
    }
    let (_, log) = proxy.stop();
    assert_eq!(log, "", "load balancers look that way whether somebody listens");
}
