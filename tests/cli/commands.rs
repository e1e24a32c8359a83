//! The command line beside a running headgate, beside none, and with a config that is broken at that moment.

use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::binary::{Headgate, headgate, said, simple};
use crate::kit::{Chaos, Origin, eventually, ok};

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

fn assert_says(output: &Output, code: i32, words: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in:\n{text}");
    }
}

#[test]
fn status_shows_what_runs_for_people_and_for_programs() {
    let origin = Origin::named("app");
    let headgate = Headgate::start(&simple(origin.address));
    let endpoint = origin.address.to_string();
    assert_says(
        &headgate.command(&["status"]),
        0,
        &["generation 1", "listeners", "http", "all", "app", &endpoint, "up"],
    );
    let status = json(&headgate.command(&["status", "--json"]));
    assert_eq!(status["pools"][0]["endpoints"][0]["address"], Value::from(endpoint));
    let ready = headgate.command(&["status", "--ready"]);
    assert_says(&ready, 0, &["ready"]);
}

#[test]
fn ready_is_false_from_the_first_moment_of_a_drain_and_when_nobody_answers() {
    let origin = Origin::named("app");
    let drain = "[process]\ndrain = { delay = \"2s\" }\n";
    let mut headgate = Headgate::start(&format!("{drain}{}", simple(origin.address)));
    headgate.signal(Signal::SIGTERM);
    eventually("it drains", || headgate.log().contains("draining"));
    assert_says(&headgate.command(&["status", "--ready"]), 1, &["draining"]);
    assert_eq!(headgate.exit_code(), Some(0));
    assert_says(&headgate.command(&["status", "--ready"]), 1, &["there is no such socket"]);
}

#[test]
fn status_and_reload_work_while_the_config_is_broken() {
    let origin = Origin::named("app");
    let headgate = Headgate::start(&simple(origin.address));
    for broken in ["[pools.x]\nnonsense = 1\n", "[pools.x\n\"\"\" = [", "tls = { cert = \"no.pem\" }\n"] {
        headgate.write(broken);
        assert_says(&headgate.command(&["status"]), 0, &["generation 1"]);
        assert_says(&headgate.command(&["reload"]), 1, &["refused", "headgate.toml"]);
    }
    std::fs::remove_file(headgate.folder.path().join("headgate.toml")).unwrap();
    let admin = format!("unix:{}", headgate.folder.path().join("admin.sock").display());
    assert_says(&headgate.command(&["status"]), 1, &["cannot read headgate.toml", "--admin"]);
    assert_says(&headgate.command(&["status", "--admin", &admin]), 0, &["generation 1"]);
    assert_says(&headgate.command(&["reload", "--admin", &admin]), 1, &["cannot read the config"]);
    headgate.write(&simple(origin.address).replace("routes.all", "routes.every"));
    assert_says(&headgate.command(&["reload"]), 0, &["applied: generation 2", "routes.every added"]);
}

#[test]
fn why_nobody_can_be_asked_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| headgate().current_dir(folder.path()).args(arguments).output().unwrap();
    assert_says(&run(&["status"]), 1, &["cannot read headgate.toml", "--config"]);
    std::fs::write(folder.path().join("headgate.toml"), "config_version = 1\n").unwrap();
    assert_says(&run(&["status"]), 1, &["headgate.toml has no [admin]"]);
    assert_says(&run(&["status", "--admin", "unix:none.sock"]), 1, &["unix:none.sock", "there is no such socket"]);
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("stale.sock")).unwrap());
    assert_says(&run(&["reload", "--admin", "unix:stale.sock"]), 1, &["an earlier one left the file behind"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_says(&run(&["status", "--admin", &port]), 1, &["nobody listens there"]);
    assert_says(&run(&["status", "--admin", "nonsense"]), 2, &["127.0.0.1:7001"]);
    let silent = std::os::unix::net::UnixListener::bind(folder.path().join("silent.sock")).unwrap();
    assert_says(&run(&["status", "--ready", "--admin", "unix:silent.sock"]), 1, &["does not answer in time"]);
    drop(silent);
}

/// Whatever answered in JSON was taken for a headgate that is ready.
#[test]
fn an_app_server_is_no_admin_api() {
    let origin = Origin::closing(|_, _| ok("{\"hello\": 1}"));
    let admin = origin.address.to_string();
    for command in [
        &["status"][..],
        &["status", "--ready"],
        &["reload"],
        &["why", "app"],
        &["failback", "app"],
        &["drain", "app/127.0.0.1:1"],
        &["explain", "GET", "http://a/"],
    ] {
        let output = headgate().args(command).args(["--admin", &admin]).output().unwrap();
        assert_says(&output, 1, &["no admin API of headgate", &admin]);
    }
    let nothing = Origin::closing(|_, _| b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec());
    let admin = nothing.address.to_string();
    assert_says(&headgate().args(["status", "--admin", &admin]).output().unwrap(), 1, &["404", "no admin API"]);
}

#[test]
fn check_and_its_alias_tell_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "config_version = 1\nlistner = 1\nroots = 2\n").unwrap();
    for name in ["check", "validate"] {
        for file in [&["bad.toml"][..], &["--config", "bad.toml"]] {
            let output = headgate().current_dir(folder.path()).arg(name).args(file).output().unwrap();
            assert_says(&output, 78, &["bad.toml:2:1", "bad.toml:3:1"]);
        }
    }
    std::fs::rename(folder.path().join("bad.toml"), folder.path().join("headgate.toml")).unwrap();
    let output = headgate().current_dir(folder.path()).arg("check").output().unwrap();
    assert_says(&output, 78, &["headgate.toml:2:1"]);
}

/// Two listeners; reads and writes apart; a backup.
fn split(read: &Origin, write: &Origin) -> String {
    format!(
        "[listeners.http]\naddress = \"127.0.0.1:0\"\n[listeners.other]\naddress = \"127.0.0.2:0\"\n\
         [pools.read]\nhealth.http = {{ path = \"/ready\", interval = \"1h\", fall = 1 }}\n\
         endpoints = [\"{}\", {{ address = \"127.0.0.9:9\", backup = true }}]\n\
         [pools.write]\nendpoints = [\"{}\"]\n\
         [routes.api]\nmatch.host = \"notes.test\"\nmatch.path = \"/api/*\"\nsplit.read = \"read\"\nsplit.write = \"write\"\n\
         [routes.other]\nmatch.listener = \"other\"\nrespond = {{ status = 204 }}\n",
        read.address, write.address
    )
}

#[test]
fn explain_asks_the_running_headgate_or_a_file() {
    let (read, write) = (Origin::named("read"), Origin::named("write"));
    let headgate = Headgate::start(&split(&read, &write));
    let explain = |arguments: &[&str]| headgate.command(&[&["explain", "--json"], arguments].concat());
    // One host, however it is written: the same function as for traffic.
    for url in ["http://notes.test/api/1", "http://NOTES.Test.:80/api/1", "http://notes.test/%61pi/1"] {
        let answer = json(&explain(&["GET", url]));
        assert_eq!(
            (&answer["source"], &answer["route"], &answer["side"], &answer["path"]),
            (&"live".into(), &"api".into(), &"read".into(), &"/api/1".into()),
            "{answer}"
        );
    }
    let answer = json(&explain(&["POST", "http://notes.test/api/1"]));
    assert_eq!((&answer["side"], &answer["pools"][0]["name"]), (&"write".into(), &"write".into()), "{answer}");
    let answer = json(&explain(&["GET", "http://a/", "--listener", "other"]));
    assert_eq!((&answer["listener"], &answer["route"]), (&"other".into(), &"other".into()), "{answer}");
    assert_says(
        &explain(&["GET", "http://a/", "--listener", "otter"]),
        1,
        &["there is no listener `otter`", "http, other"],
    );
    assert_says(&explain(&["GET", "http://a%2fb/"]), 1, &["http://a%2fb/"]);
    assert_says(&explain(&["GET", "http://127.1/"]), 1, &["refused with 400"]);
    assert_says(&explain(&["GET", "/api"]), 1, &["needs a scheme and a host"]);

    // From the file: nothing is probed there, so each endpoint counts as up.
    let answer = json(&explain(&["GET", "http://notes.test/api/1", "--config", "headgate.toml"]));
    let endpoints = &answer["pools"][0]["endpoints"];
    assert_eq!((&endpoints[0]["verdict"], &endpoints[0]["share"]), (&"up".into(), &100.0.into()), "{answer}");
    assert_eq!((&endpoints[1]["verdict"], &endpoints[1]["share"]), (&"up".into(), &0.0.into()), "{answer}");
    assert!(answer["source"].as_str().unwrap().starts_with("as configured"), "{answer}");
    let text = headgate.command(&["explain", "GET", "http://notes.test/api/1"]);
    assert_says(&text, 0, &["live (generation 1)", "route     api", "side      read"]);
}

#[test]
fn an_endpoint_is_drained_weighed_and_taken_back_from_the_command_line() {
    let origin = Origin::named("app");
    let headgate = Headgate::start(&simple(origin.address));
    let place = format!("app/{}", origin.address);
    let endpoint = || json(&headgate.command(&["status", "--json"]))["pools"][0]["endpoints"][0].clone();
    let words = ["drained by operator", "warning: pool `app` has no endpoint left"];
    assert_says(&headgate.command(&["drain", &place]), 0, &words);
    assert_says(&headgate.command(&["status"]), 0, &["drained by operator"]);
    assert_says(&headgate.command(&["undrain", &place]), 0, &[&place, "taking requests", "weight 1"]);
    assert!(endpoint()["drain"].is_null());
    assert_says(&headgate.command(&["set-weight", &place, "7"]), 0, &["weight 7 (the config says 1)"]);
    assert_eq!(endpoint()["weight"], 7);
    assert_says(&headgate.command(&["set-weight", &place, "config"]), 0, &["weight 1"]);
    assert_says(&headgate.command(&["drain", "app/10.0.0.1:1"]), 1, &["pool `app` has no endpoint", &place[4..]]);
    assert_says(&headgate.command(&["drain", "nap/x"]), 1, &["no pool `nap`"]);
    assert_says(&headgate.command(&["drain", "app"]), 2, &["POOL/ENDPOINT"]);
    assert_says(&headgate.command(&["set-weight", &place, "70000"]), 2, &["0 to 65535, or `config`"]);
}

#[test]
fn why_tells_where_traffic_is_and_what_would_bring_it_back() {
    let (origin, second) = (Origin::named("first"), Origin::named("second"));
    let first = Chaos::before(origin.address);
    let sick = format!("{{ address = \"{}\", backup = true }}", second.address);
    let pool =
        format!("endpoints = [\"{}\", {sick}]\nfailback = \"manual\"\nhealth.tcp.interval = \"50ms\"\n", first.address);
    let config = simple(first.address).replace(&format!("endpoints = [\"{}\"]\n", first.address), &pool);
    let headgate = Headgate::start(&config);
    let why = |place: &str| said(&headgate.command(&["why", place]));
    eventually("both are up", || why("app").matches("its checks succeed").count() == 2);
    let text = why("app");
    for words in
        ["app: traffic is at primaries", "no usable primary: then backups", "as a backup it waits", "2 failed probes"]
    {
        assert!(text.contains(words), "`{words}` is missing in:\n{text}");
    }
    let place = format!("app/{}", first.address);
    first.refuse();
    first.sever();
    eventually("the backup serves", || why("app").contains("traffic is at backups"));
    let text = why(&place);
    for words in ["its checks fail: connect_refused", "2 good probes in a row", "evidence, newest first", "bad"] {
        assert!(text.contains(words), "`{words}` is missing in:\n{text}");
    }
    assert!(why("app").contains("next  a usable endpoint of primaries"), "{}", why("app"));
    let json = json(&headgate.command(&["why", &place, "--json"]));
    assert_eq!(
        (&json["verdict"], json["history"].as_array().is_some_and(|past| past.len() > 1)),
        (&"down".into(), true)
    );
    assert_says(&headgate.command(&["failback", "app"]), 1, &["nothing better"]);
    first.listen_again();
    eventually("it waits for the operator", || why("app").contains("next  `headgate failback app`"));
    assert_says(&headgate.command(&["failback", "app"]), 0, &["goes back"]);
    eventually("traffic is back", || why("app").contains("why   an operator sent it back"));
    assert_says(&headgate.command(&["failback", "app"]), 1, &["is at its primaries"]);
    assert_says(&headgate.command(&["failback", "nap"]), 1, &["no pool `nap`"]);
    assert_says(&headgate.command(&["why", "nap"]), 1, &["no pool `nap`"]);
    assert_says(&headgate.command(&["why", "app/10.0.0.1:1"]), 1, &["no endpoint `10.0.0.1:1`; it has: 127.0.0.1:"]);
}
