//! The admin API over real sockets: what it shows, whom it refuses, and the page.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use headgate::app::{self, Options};
use headgate::base::address::Address;
use serde_json::Value;

use crate::kit::{Answer, Origin, Proxy, answer_to, eventually, gate, ok};

const TCP: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";
const UNIX: &str = "[admin]\naddress = \"unix:@FOLDER/admin.sock\"\n";

fn proxy(admin: &str, origin: &Origin) -> Proxy {
    Proxy::start(&format!("{admin}{}", Proxy::simple(&[origin.address], "")))
}

/// Sends exactly these bytes and takes the answer.
fn exchange(address: &Address, request: &str) -> Answer {
    let mut text = String::new();
    let request = request.as_bytes();
    match address {
        Address::Tcp(address) => {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request).unwrap();
            stream.read_to_string(&mut text).unwrap();
        }
        Address::Unix(path) => {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(request).unwrap();
            stream.read_to_string(&mut text).unwrap();
        }
    }
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Answer { status, headers, body: body.to_owned(), ..Answer::default() }
}

/// A well-formed request with these fields beside it.
fn ask(address: &Address, method: &str, path: &str, fields: &str, body: &str) -> Answer {
    let length = body.len();
    exchange(
        address,
        &format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{fields}\r\n{body}"),
    )
}

fn get(address: &Address, path: &str) -> Value {
    let answer = ask(address, "GET", path, "host: localhost\r\n", "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// What a JSON error says.
fn error(answer: &Answer) -> String {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.body);
    serde_json::from_str::<Value>(&answer.body).unwrap()["error"].as_str().expect("an error").to_owned()
}

#[test]
fn status_tells_of_traffic_and_failures() {
    let (open, closed) = gate();
    let origin = Origin::scripted(move |heard, _| {
        if heard.line.contains("/slow") {
            closed.pass();
        }
        ok("app")
    });
    let proxy = proxy(UNIX, &origin);
    let admin = proxy.admin();
    for _ in 0..3 {
        answer_to(proxy.address(), "GET", "/");
    }
    answer_to(proxy.address(), "GET", "/../x");
    let address = proxy.address();
    let slow = std::thread::spawn(move || answer_to(address, "GET", "/slow"));
    eventually("the slow request is in flight", || get(&admin, "/v1/status")["requests"] == 1);
    eventually("the others are answered", || {
        let answered = get(&admin, "/v1/status")["answered"].clone();
        answered
            == serde_json::json!([
                { "listener": "http", "code": "200", "count": 3 },
                { "listener": "http", "code": "400", "count": 1 },
            ])
    });
    let status = get(&admin, "/v1/status");
    assert_eq!(status["failures"], serde_json::json!([{ "reason": "bad_path", "blame": "client", "count": 1 }]));
    assert_eq!((&status["generation"], &status["draining"]), (&1.into(), &false.into()));
    let listener = &status["listeners"][0];
    assert_eq!(
        (&listener["name"], &listener["requests"], &listener["tls"]),
        (&"http".into(), &1.into(), &false.into())
    );
    assert!(listener["connections"].as_u64() >= Some(1), "{listener}");
    let endpoint = &status["pools"][0]["endpoints"][0];
    assert_eq!(
        (&endpoint["in_flight"], &endpoint["requests"], &endpoint["share"]),
        (&1.into(), &4.into(), &100.0.into())
    );
    assert!(status["at_unix_ms"].as_u64() >= endpoint["since_unix_ms"].as_u64());
    open.send(()).unwrap();
    assert_eq!(slow.join().unwrap().status, 200);
}

#[test]
fn a_pool_is_shown_with_the_past_of_its_endpoints() {
    let origin = Origin::named("app");
    let check = "health.http = { path = \"/ready\", interval = \"100ms\" }\nendpoints";
    let config = Proxy::simple(&[origin.address], "").replace("endpoints", check);
    let proxy = Proxy::start(&format!("{UNIX}{config}"));
    let admin = proxy.admin();
    let history = || get(&admin, "/v1/pools/app")["endpoints"][0]["history"].as_array().map_or(0, Vec::len);
    eventually("some probes were made", || history() >= 3);
    let pools = get(&admin, "/v1/pools");
    assert_eq!((&pools[0]["name"], &pools[0]["endpoints"][0]["evidence"]["source"]), (&"app".into(), &"probe".into()));
    assert!(pools[0]["endpoints"][0]["history"].is_null(), "the list is short: {pools}");
    let answer = ask(&admin, "GET", "/v1/pools/nap", "host: localhost\r\n", "");
    assert_eq!((answer.status, error(&answer).as_str()), (404, "there is no pool `nap`: see /v1/pools"));
}

#[test]
fn a_reload_leaves_a_receipt_and_a_refused_one_its_faults() {
    let origin = Origin::named("app");
    let proxy = proxy(UNIX, &origin);
    let admin = proxy.admin();
    let json = "host: localhost\r\ncontent-type: application/json\r\n";
    let config = format!("{UNIX}{}", Proxy::simple(&[origin.address], "")).replace("routes.all", "routes.every");
    fs::write(&proxy.config, proxy.filled(&config)).unwrap();
    let answer = ask(&admin, "POST", "/v1/reload", json, "{}");
    let receipt: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &receipt["ok"], &receipt["cause"]), (200, &true.into(), &"admin".into()), "{receipt}");
    assert_eq!(receipt["changes"], serde_json::json!(["routes.all removed", "routes.every added"]));
    fs::write(&proxy.config, proxy.filled("nonsense = 1\n")).unwrap();
    let answer = ask(&admin, "POST", "/v1/reload", json, "{}");
    let receipt: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &receipt["ok"], &receipt["generation"]), (422, &false.into(), &2.into()), "{receipt}");
    assert!(receipt["faults"][0].as_str().unwrap().contains("headgate.toml:2:1"), "{receipt}");
    let all = get(&admin, "/v1/reloads");
    assert_eq!((all.as_array().unwrap().last().unwrap()["cause"].as_str(), &all[0]), (Some("start"), &receipt));
    assert_eq!(get(&admin, "/v1/status")["last_reload"], receipt);
}

#[test]
fn explain_answers_and_a_bad_question_is_told_in_json() {
    let origin = Origin::named("app");
    let proxy = proxy(UNIX, &origin);
    let admin = proxy.admin();
    let json = "host: localhost\r\ncontent-type: application/json\r\n";
    let question = |body: &str| ask(&admin, "POST", "/v1/explain", json, body);
    let answer = question("{ \"method\": \"GET\", \"url\": \"http://a/x\" }");
    let explanation: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&explanation["route"], &explanation["pools"][0]["name"]), (&"all".into(), &"app".into()));
    for (body, status, word) in [
        ("{ \"method\": \"GET\", \"url\": \"/x\" }", 400, "a scheme and a host"),
        ("{ \"method\": \"G T\", \"url\": \"http://a/\" }", 400, "no method"),
        ("{ \"method\": ", 400, "EOF"),
        ("{ \"url\": 1 }", 422, "invalid type"),
    ] {
        let answer = question(body);
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(error(&answer).contains(word), "{body}: {}", answer.body);
    }
    let long = question(&format!("{{ \"method\": \"GET\", \"url\": \"http://a/{}\" }}", "x".repeat(70_000)));
    assert_eq!(long.status, 413);
    let lost = ask(&admin, "GET", "/v2/status", "host: localhost\r\n", "");
    assert_eq!((lost.status, error(&lost).contains("/v1/status")), (404, true));
}

#[test]
fn explain_agrees_with_traffic() {
    let (read, write) = (Origin::named("read"), Origin::named("write"));
    let config = format!(
        "{UNIX}[listeners.http]\naddress = \"127.0.0.1:0\"\n[access_log]\nformat = \"off\"\n\
         [pools.read]\nendpoints = [\"{}\"]\n[pools.write]\nendpoints = [\"{}\"]\n\
         [routes.api]\nmatch.host = \"a.test\"\nmatch.path = \"/api/*\"\nsplit.read = \"read\"\nsplit.write = \"write\"\n\
         split.overrides = [{{ method = \"POST\", path = \"/api/search\", side = \"read\" }}]\n\
         [routes.gone]\nmatch.path = \"/gone/{{id}}\"\nrespond = {{ status = 410 }}\n\
         [routes.old]\nmatch.path = \"/old/{{*rest}}\"\nredirect = {{ to = \"/new/{{rest}}\", status = 308 }}\n",
        read.address, write.address
    );
    let proxy = Proxy::start(&config);
    let admin = proxy.admin();
    let json = "host: localhost\r\ncontent-type: application/json\r\n";
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        for host in ["a.test", "A.TEST.", "b.test", "a.test:80", "127.1", "a..b"] {
            for path in ["/api/1", "/api", "/api/search", "/gone/1", "/gone", "/old/x/y", "/%61pi/1", "/a/../b", "/"] {
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let got = exchange(&Address::Tcp(proxy.address()), &request);
                let question = serde_json::json!({ "method": method, "url": format!("http://{host}{path}") });
                let told = ask(&admin, "POST", "/v1/explain", json, &question.to_string());
                let told: Value = serde_json::from_str(&told.body).unwrap();
                let told = told["outcome"].as_str().or(told["error"].as_str()).unwrap().to_owned();
                let agrees = match got.status {
                    200 if method == "HEAD" => told == "goes to pool read",
                    200 => told == format!("goes to pool {}", got.body),
                    308 => told == format!("redirects to {} (308)", got.header("location").unwrap()),
                    410 => told == "answers with 410",
                    status => told.contains(&status.to_string()),
                };
                assert!(
                    agrees,
                    "{method} {host} {path}: traffic got {} `{}`, explain told `{told}`",
                    got.status, got.body
                );
            }
        }
    }
}

#[test]
fn over_tcp_a_foreign_page_gets_nothing() {
    let origin = Origin::named("app");
    let proxy = proxy(TCP, &origin);
    let admin = proxy.admin();
    let own = format!("host: {admin}\r\n");
    let json = "content-type: application/json\r\n";
    for (method, path, fields, status) in [
        ("GET", "/v1/status", own.clone(), 200),
        ("GET", "/v1/status", "host: localhost:1\r\n".to_owned(), 200),
        ("GET", "/v1/status", "host: [::1]:1\r\n".to_owned(), 200),
        // A name of the attacker's that leads here (DNS rebinding).
        ("GET", "/v1/status", "host: evil.example\r\n".to_owned(), 403),
        ("GET", "/v1/status", "host: localhost.evil.example\r\n".to_owned(), 403),
        ("GET", "/", "host: evil.example\r\n".to_owned(), 403),
        ("GET", "/v1/status", format!("{own}origin: http://evil.example\r\n"), 403),
        ("GET", "/v1/status", format!("{own}origin: null\r\n"), 403),
        ("GET", "/v1/status", format!("{own}origin: http://{admin}\r\n"), 200),
        ("POST", "/v1/reload", format!("{own}origin: https://{admin}\r\n{json}"), 403),
        // What a form can send without asking first.
        ("POST", "/v1/reload", format!("{own}content-type: text/plain\r\n"), 415),
        ("POST", "/v1/reload", format!("{own}content-type: application/x-www-form-urlencoded\r\n"), 415),
        ("POST", "/v1/reload", own.clone(), 415),
        ("GET", "/v1/reload", own.clone(), 405),
        ("PUT", "/v1/reload", format!("{own}{json}"), 405),
    ] {
        let answer = ask(&admin, method, path, &fields, "");
        assert_eq!(answer.status, status, "{method} {path}\n{fields}\n{}", answer.body);
        if status != 200 {
            assert!(!error(&answer).is_empty());
        }
    }
    assert_eq!(proxy.receipts().len(), 1, "nothing was reloaded");
    let allowed = ask(&admin, "POST", "/v1/reload", &format!("{own}origin: http://{admin}\r\n{json}"), "{}");
    assert_eq!(allowed.status, 200, "{}", allowed.body);
}

#[test]
fn a_socket_that_is_forwarded_to_a_port_serves_its_own_page_and_no_other() {
    let origin = Origin::named("app");
    let proxy = proxy(UNIX, &origin);
    let with = |host: &str, origin: &str| {
        let fields = format!("host: {host}\r\norigin: {origin}\r\ncontent-type: application/json\r\n");
        let question = "{ \"method\": \"GET\", \"url\": \"http://a/x\" }";
        ask(&proxy.admin(), "POST", "/v1/explain", &fields, question).status
    };
    assert_eq!(with("localhost:9000", "http://localhost:9000"), 200);
    assert_eq!(with("localhost:9000", "http://evil.example"), 403);
    assert_eq!(with("evil.example", "http://evil.example"), 403);
}

#[test]
fn the_page_is_one_file_under_a_strict_policy() {
    let origin = Origin::named("app");
    let proxy = proxy(TCP, &origin);
    let admin = proxy.admin();
    let load = || ask(&admin, "GET", "/", &format!("host: {admin}\r\n"), "");
    let page = load();
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.len() < 25_000, "{}", page.body.len());
    let policy = page.header("content-security-policy").unwrap();
    let nonce = policy.split_once("script-src 'nonce-").unwrap().1.split_once('\'').unwrap().0.to_owned();
    assert_eq!(page.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "one style and one script");
    assert_eq!((page.body.matches("<script").count(), page.body.matches("<style").count()), (1, 1));
    for word in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'"] {
        assert!(policy.contains(word), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    for (at, _) in page.body.match_indices("//") {
        let before = page.body[..at].chars().next_back().unwrap();
        let after = &page.body[at + 2..];
        // A comment of the script, or the example in the form.
        assert!(before.is_whitespace() || after.starts_with("localhost/"), "an external URL: …//{:.40}", after);
    }
    for word in [" src=", "@import", "url(", "innerHTML", "onclick", " style="] {
        assert!(!page.body.contains(word), "`{word}` is in the page");
    }
    assert!(!load().body.contains(&nonce), "each answer has a nonce of its own");
}

#[test]
fn the_socket_is_for_its_owner_alone_and_goes_with_the_process() {
    let origin = Origin::named("app");
    let proxy = proxy(UNIX, &origin);
    let Address::Unix(path) = proxy.admin() else { panic!("a unix socket") };
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    proxy.stop();
    assert!(!path.exists());
}

fn start_in(folder: &Path, origin: &Origin) -> anyhow::Result<app::Running> {
    let config = folder.join("headgate.toml");
    let text = format!("config_version = 1\n{UNIX}{}", Proxy::simple(&[origin.address], ""));
    fs::write(&config, text.replace("@FOLDER", &folder.display().to_string())).unwrap();
    app::start(Options { config, workers: Some(1) })
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_never() {
    let origin = Origin::named("app");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    drop(UnixListener::bind(&path).unwrap());
    let first = start_in(folder.path(), &origin).expect("a stale file is no obstacle");
    let inode = fs::metadata(&path).unwrap().ino();

    let refused = start_in(folder.path(), &origin).err().expect("the socket is taken");
    assert!(format!("{refused:#}").contains("another process answers there"), "{refused:#}");
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(get(&Address::Unix(path.clone()), "/v1/status")["generation"], 1);

    // Somebody removes the file, and another process listens there: the first one leaves that alone at its end.
    fs::remove_file(&path).unwrap();
    let second = start_in(folder.path(), &origin).unwrap();
    first.shutdown();
    assert_eq!(get(&Address::Unix(path.clone()), "/v1/status")["generation"], 1);
    second.shutdown();
    assert!(!path.exists());
}

#[test]
fn what_is_no_socket_is_not_removed() {
    let origin = Origin::named("app");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    fs::write(&path, "precious").unwrap();
    let refused = start_in(folder.path(), &origin).err().expect("there is a file");
    assert!(format!("{refused:#}").contains("admin.address: cannot listen on"), "{refused:#}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
