//! Clients that are bound to an endpoint by a sealed cookie: who stays, who is bound anew, and who sees the cookie.

use std::net::SocketAddr;

use http::Request;

use crate::kit::{Answer, Ca, Chaos, Client, Content, Origin, Protocol, Proxy, Talker, closed, eventually, exchange};

const OLD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A sticky pool; `keys` are the secrets of its key, in order.
fn config(endpoints: &[SocketAddr], keys: &[&str], more: &str) -> String {
    let secrets: Vec<String> = keys.iter().map(|key| format!("{{ value = \"{key}\" }}")).collect();
    let (key, named) = match keys.is_empty() {
        true => (String::new(), String::new()),
        false => (format!("[keys.main]\nsecrets = [{}]\n", secrets.join(", ")), ", key = \"main\"".to_owned()),
    };
    let sticky = format!("sticky = {{ cookie = \"hg\"{named} }}\n{more}");
    format!("[admin]\naddress = \"127.0.0.1:0\"\n{key}{}", Proxy::text(endpoints, "", &sticky, ""))
}

fn get(proxy: &Proxy, cookie: Option<&str>) -> Answer {
    let cookie = cookie.map(|cookie| format!("cookie: {cookie}\r\n")).unwrap_or_default();
    let answer = exchange(proxy.address(), format!("GET / HTTP/1.1\r\nhost: a\r\n{cookie}\r\n")).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// `hg=VALUE` of the cookie that an answer sets.
fn bound(answer: &Answer) -> Option<String> {
    let set = answer.header("set-cookie")?;
    assert!(set.starts_with("hg=") && set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
    assert!(answer.headers.contains(&("cache-control".to_owned(), "no-cache=\"set-cookie\"".to_owned())), "{answer:?}");
    set.split(';').next().map(str::to_owned)
}

fn three() -> ([Origin; 3], [SocketAddr; 3]) {
    let origins = ["one", "two", "three"].map(Origin::named);
    let addresses = [0, 1, 2].map(|at| origins[at].address);
    (origins, addresses)
}

#[test]
fn a_client_stays_with_its_endpoint_which_never_sees_the_cookie() {
    let (origins, addresses) = three();
    let proxy = Proxy::start(&config(&addresses, &[], ""));
    for _ in 0..5 {
        let first = get(&proxy, Some("theme=dark"));
        let cookie = bound(&first).expect("a cookie");
        for _ in 0..10 {
            let again = get(&proxy, Some(&format!("theme=dark; {cookie}; lang=en")));
            assert_eq!(again.body, first.body);
            assert_eq!(bound(&again), None, "it has one");
        }
        let question = serde_json::json!({ "method": "GET", "url": "http://a/", "headers": [["cookie", cookie]] });
        let explained = proxy.explain(&question).unwrap();
        let pool = &explained["pools"][0];
        let taken = pool["endpoints"].as_array().unwrap().iter().find(|endpoint| endpoint["share"] == 100.0).unwrap();
        assert_eq!(pool["bound_to"], taken["address"], "{explained:#}");
        let at = ["one", "two", "three"].iter().position(|name| *name == first.body).unwrap();
        assert_eq!(taken["address"], addresses[at].to_string());
    }
    for heard in origins.iter().flat_map(Origin::heard) {
        let cookies = heard.header("cookie").unwrap();
        assert!(["theme=dark", "theme=dark; lang=en"].contains(&cookies), "{cookies}");
    }
}

/// Over each protocol: HTTP/2 sends cookies in crumbs, and by TLS the cookie is for TLS alone.
#[test]
fn each_protocol_binds() {
    let (origins, addresses) = three();
    let tls = "[listeners.https]\naddress = \"127.0.0.1:0\"\n\
               tls.certificates = [{ cert = \"@FOLDER/a.pem\", key = \"@FOLDER/a.key\" }]\n";
    let proxy = Proxy::prepared(&format!("{}{tls}", config(&addresses, &[], "")), |folder| {
        Ca::new().issue(&["a"]).write(folder, "a");
    });
    for protocol in Protocol::ALL {
        let mut talker = Talker::connect(&proxy, protocol);
        let request = |cookies: &[&str]| {
            let builder =
                cookies.iter().fold(Request::builder().uri("/"), |builder, cookie| builder.header("cookie", *cookie));
            builder.body(Content::default()).unwrap()
        };
        let first = talker.exchange(request(&[])).unwrap();
        let set = first.header("set-cookie").expect("a cookie").to_owned();
        let is_tls = matches!(protocol, Protocol::Http1Tls | Protocol::Http2Tls);
        assert_eq!(set.ends_with("; Secure"), is_tls, "{set}");
        let cookie = set.split(';').next().unwrap();
        for cookies in [&["a=1", cookie][..], &[cookie], &[cookie, "a=1"]] {
            let again = talker.exchange(request(cookies)).unwrap();
            assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None), "{protocol:?}");
        }
    }
    let heard: Vec<_> = origins.iter().flat_map(Origin::heard).collect();
    assert!(heard.iter().all(|heard| heard.header("cookie").is_none_or(|cookies| cookies == "a=1")), "{heard:?}");
}

#[test]
fn a_bond_survives_reloads_and_with_a_key_a_restart() {
    let (_origins, [a, b, c]) = three();
    let proxy = Proxy::start(&config(&[a, b, c], &[OLD], ""));
    let first = get(&proxy, None);
    let cookie = bound(&first).unwrap();
    let extra = Origin::named("extra");
    proxy.reload(&config(&[c, extra.address, b, a], &[OLD], "")).unwrap();
    let stays = |proxy: &Proxy, cookie: &str| (0..10).all(|_| get(proxy, Some(cookie)).body == first.body);
    assert!(stays(&proxy, &cookie), "over a reload with the endpoints in another order");
    proxy.reload(&config(&[a, b, c], &[NEW, OLD], "")).unwrap();
    assert!(stays(&proxy, &cookie), "over a new key in front of the old one");
    proxy.stop();
    let proxy = Proxy::start(&config(&[b, a, c], &[OLD], ""));
    assert!(stays(&proxy, &cookie) && bound(&get(&proxy, Some(&cookie))).is_none(), "over a restart");
    proxy.reload(&config(&[a, b, c], &[NEW], "")).unwrap();
    assert!(bound(&get(&proxy, Some(&cookie))).is_some(), "the old key is gone");
    let without = Proxy::start(&config(&[a, b, c], &[], ""));
    let own = bound(&get(&without, Some(&cookie))).expect("a key of its own opens nobody else's");
    without.reload(&config(&[c, b, a], &[], "")).unwrap();
    assert!(bound(&get(&without, Some(&own))).is_none(), "the process's own key outlives a reload");
}

#[test]
fn what_is_no_cookie_of_ours_is_ignored_and_replaced() {
    let (origins, addresses) = three();
    let proxy = Proxy::start(&config(&addresses, &[OLD], ""));
    let cookie = bound(&get(&proxy, None)).unwrap();
    let mut tampered = cookie.clone().into_bytes();
    tampered[20] = if tampered[20] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    let foreign = bound(&get(&Proxy::start(&config(&addresses, &[NEW], "")), None)).unwrap();
    let oversized = format!("hg={}", "A".repeat(8000));
    for wrong in [&tampered, &foreign, &oversized, "hg=", "hg", "hg=;hg=\"\"", &cookie[..cookie.len() - 1]] {
        assert!(bound(&get(&proxy, Some(wrong))).is_some(), "{wrong}");
    }
    let several = format!("hg=junk; {cookie}");
    assert!(bound(&get(&proxy, Some(&several))).is_none(), "the one that opens counts");
    for heard in origins.iter().flat_map(Origin::heard) {
        assert!(heard.header("cookie").is_none_or(|cookies| cookies == "hg"), "{heard:?}");
    }
}

#[test]
fn a_client_of_a_lost_endpoint_is_bound_to_another() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let relay = Chaos::before(one.address);
    let proxy = Proxy::start(&config(&[relay.address, two.address], &[], "balance = \"round-robin\""));
    // Each worker has a round of its own, and begins it where it likes.
    let on_one = (0..100).map(|_| get(&proxy, None)).find(|answer| answer.body == "one").expect("one of them");
    let cookie = bound(&on_one).unwrap();
    assert_eq!(get(&proxy, Some(&cookie)).body, "one");
    relay.refuse();
    relay.sever();
    let moved = get(&proxy, Some(&cookie));
    assert_eq!(moved.body, "two");
    let cookie = bound(&moved).expect("a cookie of the other");
    relay.listen_again();
    assert_eq!(get(&proxy, Some(&cookie)).body, "two", "it stays where it went");
}

#[test]
fn weight_zero_and_a_drain_keep_their_clients_and_get_no_other() {
    let (_origins, [a, b, _]) = three();
    let text = |how: &str| {
        config(&[a, b], &[OLD], "").replace(&format!("\"{a}\""), &format!("{{ address = \"{a}\", {how} }}"))
    };
    let proxy = Proxy::start(&text("weight = 1"));
    let mut cookie = None;
    eventually("the first has a client", || {
        let answer = get(&proxy, None);
        cookie = bound(&answer);
        answer.body == "one"
    });
    for how in ["weight = 0", "drain = true"] {
        proxy.reload(&text(how)).unwrap();
        for _ in 0..10 {
            assert_eq!(get(&proxy, cookie.as_deref()).body, "one", "{how}");
            assert_eq!(get(&proxy, None).body, "two", "{how}");
        }
    }
}

#[test]
fn who_is_bound_to_a_drained_endpoint_leaves_it_at_the_deadline() {
    let (_origins, [a, b, _]) = three();
    let proxy = Proxy::start(&config(&[a, b], &[OLD], "drain_timeout = \"1h\""));
    let mut cookie = None;
    eventually("the first has a client", || {
        let answer = get(&proxy, None);
        cookie = bound(&answer);
        answer.body == "one"
    });
    let drained = |timeout: &str| {
        let text = config(&[a, b], &[OLD], &format!("drain_timeout = \"{timeout}\""));
        text.replace(&format!("\"{a}\""), &format!("{{ address = \"{a}\", drain = true }}"))
    };
    proxy.reload(&drained("1h")).unwrap();
    assert_eq!(get(&proxy, cookie.as_deref()).body, "one");
    proxy.reload(&drained("1ms")).unwrap();
    let mut moved = None;
    eventually("its client is moved", || {
        let answer = get(&proxy, cookie.as_deref());
        answer.body == "two" && moved.replace(answer).is_none()
    });
    assert!(moved.is_some_and(|answer| bound(&answer).is_some()), "and bound anew");
}

/// The cache keeps the answer, and neither the cookie in it nor a variant for each client.
#[test]
fn a_stored_answer_binds_nobody() {
    let fresh = |_: &crate::kit::Heard, _| {
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncache-control: max-age=60\r\nvary: cookie\r\n\r\nhi".to_vec()
    };
    let origin = Origin::scripted(fresh);
    let text = Proxy::text(&[origin.address], "", "sticky.cookie = \"hg\"", "cache.zone = \"main\"");
    let proxy = Proxy::start(&text);
    let first = get(&proxy, None);
    let cookie = bound(&first).unwrap();
    for cookie in [None, Some(&*cookie), Some("hg=other")] {
        let stored = get(&proxy, cookie);
        assert_eq!((stored.header("set-cookie"), origin.heard().len()), (None, 1), "{stored:?}");
        assert_eq!(stored.header("cache-control"), Some("max-age=60"));
    }
}

#[test]
fn an_error_binds_nobody() {
    let broken = |_: &crate::kit::Heard, _| b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_vec();
    let origin = Origin::scripted(broken);
    let proxy = Proxy::start(&config(&[origin.address], &[], ""));
    let mut client = Client::connect(proxy.address());
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = client.receive().unwrap();
    assert_eq!((answer.status, answer.header("set-cookie")), (500, None));
    let proxy = Proxy::start(&config(&[closed()], &[], ""));
    let answer = exchange(proxy.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert_eq!((answer.status, answer.header("set-cookie")), (502, None));
}

/// An upgrade binds as well: it is where a session may begin.
#[test]
fn a_tunnel_binds() {
    let switching = Origin::talking(|conversation, _| {
        if conversation.request().is_some() {
            conversation.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
            conversation.drain();
        }
    });
    let proxy = Proxy::start(&config(&[switching.address], &[], ""));
    let mut client = Client::connect(proxy.address());
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let answer = client.receive_head().unwrap();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert!(bound(&answer).is_some());
}

#[test]
fn a_key_comes_from_a_file_and_a_bad_one_is_refused_unshown() {
    let origin = Origin::named("one");
    let text = Proxy::text(&[origin.address], "", "sticky = { cookie = \"hg\", key = \"main\" }", "");
    let text = format!("[keys.main]\nsecrets = [{{ file = \"@FOLDER/main.key\" }}]\n{text}");
    let write =
        |folder: &std::path::Path, key: &str| std::fs::write(folder.join("main.key"), format!("{key}\n")).unwrap();
    let proxy = Proxy::prepared(&text, |folder| write(folder, OLD));
    let cookie = bound(&get(&proxy, None)).unwrap();
    write(proxy.folder.path(), NEW);
    let _ = proxy.ask_reload();
    eventually("the file's new key", || bound(&get(&proxy, Some(&cookie))).is_some());
    write(proxy.folder.path(), "not-a-secret-but-nobodys-business");
    let faults = proxy.ask_reload().unwrap_err().join("\n");
    assert!(faults.contains("keys.main.secrets") && faults.contains("main.key"), "{faults}");
    assert!(!faults.contains("nobodys-business"), "{faults}");
}
