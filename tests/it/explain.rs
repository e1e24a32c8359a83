//! `headgate explain` and traffic agree: random configs and requests, each asked about and then sent.

use std::collections::HashMap;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::kit::{Client, Origin, Proxy, ok};

/// Endpoints of all configs; each tells what it heard.
const ORIGINS: usize = 6;
const POOLS: usize = 4;
const HOSTS: [&str; 5] = ["a.test", "x.a.test", "b.test", "*.a.test", "*.test"];
const BALANCES: [&str; 10] = [
    "\"power-of-two\"",
    "\"round-robin\"",
    "\"least-requests\"",
    "\"random\"",
    "{ hash = \"client-ip\" }",
    // Where requests overlap by chance, no bound is to send one elsewhere.
    "{ hash = \"uri\", bounded_load = 100 }",
    "{ hash = { header = \"x-a\" }, bounded_load = 100 }",
    "{ hash = { cookie = \"c\" }, bounded_load = 100 }",
    "{ hash = { query = \"q\" }, bounded_load = 100 }",
    // The last: its shares are those of the moment.
    "\"peak-ewma\"",
];

fn seed() -> u64 {
    std::env::var("HEADGATE_SEED").map_or(1, |seed| seed.parse().expect("a number"))
}

fn one<'t>(rng: &mut Rng, list: &[&'t str]) -> &'t str {
    list[rng.usize(..list.len())]
}

fn some(rng: &mut Rng, list: &[&str], most: usize) -> String {
    let items: Vec<String> = (0..=rng.usize(..most)).map(|_| format!("{:?}", one(rng, list))).collect();
    format!("[{}]", items.join(", "))
}

/// `HOST:PORT` of the origins, in another order each time.
fn pool(rng: &mut Rng, name: usize, origins: &[Origin]) -> String {
    let mut order: Vec<usize> = (0..ORIGINS).collect();
    rng.shuffle(&mut order);
    let mut endpoints = Vec::new();
    for (at, origin) in order.iter().take(rng.usize(1..=3)).enumerate() {
        let (address, weight, backup) = (origins[*origin].address, rng.u16(1..5), at > 0 && rng.u8(..3) == 0);
        endpoints.push(format!("{{ address = \"{address}\", weight = {weight}, backup = {backup} }}"));
    }
    let balance = one(rng, &BALANCES);
    let sticky = if rng.u8(..4) == 0 { "sticky.cookie = \"hg\"\n" } else { "" };
    format!("[pools.p{name}]\nbalance = {balance}\nendpoints = [{}]\n{sticky}", endpoints.join(", "))
}

fn route(rng: &mut Rng, name: usize) -> String {
    let paths = ["/", "/a", "/a/", "/a/*", "/a/{x}", "/a/b", "/b/{x}/c", "/b/*", "/{x}", "/{x}/b", "/*", "/a/%C3%A9"];
    let methods = ["GET", "HEAD", "POST", "PUT", "PROPFIND"];
    let mut text = format!("[routes.r{name}]\n");
    let mut maybe = |rng: &mut Rng, of: u8, line: String| {
        if rng.u8(..of) == 0 {
            text += &line;
        }
    };
    let line = format!("match.host = {}\n", some(rng, &HOSTS, 2));
    maybe(rng, 3, line);
    let captured = rng.bool();
    let line = match captured {
        true => "match.path = \"/a/{*rest}\"\n".to_owned(),
        false => format!("match.path = {}\n", some(rng, &paths, 3)),
    };
    maybe(rng, 1, line);
    let line = format!("match.method = {}\n", some(rng, &methods, 2));
    maybe(rng, 3, line);
    let line = format!("match.header.x-a = {}\n", one(rng, &["\"1\"", "\"2\"", "true", "false"]));
    maybe(rng, 4, line);
    let line = format!("match.query.q = {}\n", one(rng, &["\"1\"", "\"a b\"", "true", "false"]));
    maybe(rng, 4, line);
    let line = format!("match.client_ip = \"{}\"\n", one(rng, &["127.0.0.0/8", "10.0.0.0/8"]));
    maybe(rng, 5, line);
    let pool = |rng: &mut Rng| format!("\"p{}\"", rng.usize(..POOLS));
    match rng.u8(..6) {
        0 => text += &format!("respond.status = {}\n", rng.u16(201..204)),
        1 => text += "redirect.to = \"https://other.test/x\"\n",
        2 | 3 => text += &format!("pool = {}\n", pool(rng)),
        _ => {
            let side = one(rng, &["read", "write"]);
            let (path, method) = (one(rng, &paths), one(rng, &methods));
            let over = match rng.u8(..3) {
                0 => format!("{{ path = {path:?}, side = {side:?} }}"),
                1 => format!("{{ method = {method:?}, side = {side:?} }}"),
                _ => format!("{{ method = {method:?}, path = {path:?}, side = {side:?} }}"),
            };
            let down = one(rng, &["write", "fail"]);
            text += &format!("split = {{ read = {}, write = {}, ", pool(rng), pool(rng));
            text += &format!("overrides = [{over}], when_reads_down = {down:?} }}\n");
        }
    }
    if text.contains("pool = ") || text.contains("split = ") {
        let rewrite = match captured {
            true => "rewrite.replace = \"/new/{rest}\"\n",
            false => "rewrite.strip_prefix = \"/a\"\n",
        };
        let line = [rewrite, "cache.zone = \"main\"\n"][rng.usize(..2)];
        if rng.bool() {
            text += line;
        }
    }
    text
}

fn config(rng: &mut Rng, origins: &[Origin]) -> String {
    let mut text = "[access_log]\noutput = \"@FOLDER/access.log\"\n[listeners.http]\naddress = \"127.0.0.1:0\"\n\
                    [admin]\naddress = \"127.0.0.1:0\"\n[caches.main]\n"
        .to_owned();
    for name in 0..POOLS {
        text += &pool(rng, name, origins);
    }
    for name in 0..rng.usize(4..16) {
        text += &route(rng, name);
    }
    text
}

struct Request {
    method: String,
    /// As it is sent in Host.
    host: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The number makes it known in the log again.
    fn random(rng: &mut Rng, number: usize) -> Self {
        let host = one(
            rng,
            &["a.test", "A.Test", "x.a.test:80", "x.a.test.", "y.x.a.test", "b.test", "b.test:8080", "[0::1]:080"],
        );
        let parts = ["/a", "/a", "/b", "/b", "/c", "/%61", "/", "/a%2Fb", "/%c3%a9", "/x;y"];
        let mut path: String = (0..=rng.usize(..3)).map(|_| one(rng, &parts)).collect();
        path += one(rng, &["", "", "", "", "", "", "/..", "/%2e"]);
        let query = one(rng, &["", "&q", "&q=1", "&q=a+b", "&q=2&q=1", "&%71=1"]);
        let header = one(rng, &["", "1", "2", "3"]);
        let mut headers: Vec<(String, String)> = Vec::new();
        headers.extend((!header.is_empty()).then(|| ("x-a".to_owned(), header.to_owned())));
        let cookie = one(rng, &["", "c=1", "a=1; c=2", "c=", "hg=junk; c=3"]);
        headers.extend((!cookie.is_empty()).then(|| ("cookie".to_owned(), cookie.to_owned())));
        headers.extend((rng.u8(..5) == 0).then(|| ("authorization".to_owned(), "Basic x".to_owned())));
        let methods =
            ["GET", "GET", "GET", "GET", "HEAD", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "TRACE"];
        let (method, target) = (one(rng, &methods).to_owned(), format!("{path}?n={number}{query}"));
        Self { method, host: host.to_owned(), target, headers }
    }

    fn question(&self) -> Value {
        let url = format!("http://{}{}", self.host, self.target);
        json!({ "method": self.method, "url": url, "headers": self.headers })
    }

    fn bytes(&self) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let Self { method, host, target, .. } = self;
        format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
    }
}

/// What the explanation says, as far as the log, the client and the endpoints can confirm it.
fn explained(answer: &Option<Value>) -> [Value; 6] {
    let Some(answer) = answer else {
        return [json!("refused"), json!(null), json!(null), json!(null), json!(null), json!(null)];
    };
    let outcome = answer["outcome"].as_str().unwrap();
    let status = outcome.rsplit([' ', '(']).find_map(|word| word.trim_end_matches(')').parse::<u16>().ok());
    let pool = outcome.strip_prefix("goes to pool ");
    let cache = answer["cache"]["looked_up"].as_bool().map(|looked_up| if looked_up { "miss" } else { "bypass" });
    let status = if pool.is_some() { 200 } else { status.unwrap() };
    let path = answer["forwarded_path"].as_str().or(answer["path"].as_str()).filter(|_| pool.is_some());
    [json!(status), answer["route"].clone(), json!(pool), answer["side"].clone(), json!(cache), json!(path)]
}

#[test]
fn explain_and_traffic_agree_on_random_configs() {
    let origins: Vec<Origin> = (0..ORIGINS).map(|_| Origin::scripted(|_, _| ok(""))).collect();
    let names: HashMap<String, usize> =
        origins.iter().enumerate().map(|(at, origin)| (origin.address.to_string(), at)).collect();
    let (mut forwarded, mut hashed, mut routes) = (0, 0, HashMap::new());
    for seed in seed()..seed() + 20 {
        let mut rng = Rng::with_seed(seed);
        let config = config(&mut rng, &origins);
        let proxy = Proxy::start(&config);
        let mut expected = Vec::new();
        for number in 0..60 {
            let request = Request::random(&mut rng, number);
            let explanation = proxy.explain(&request.question());
            let mut client = Client::connect(proxy.address());
            client.send(request.bytes());
            let answer = client.receive_head().expect("an answer");
            expected.push((request, explanation, answer.status));
        }
        let lines = proxy.logged();
        for (number, (request, explanation, status)) in expected.iter().enumerate() {
            let tag = format!("n={number}");
            let is_it =
                |line: &&Value| line["query"].as_str().is_some_and(|query| query.split('&').any(|part| part == tag));
            let line = lines.iter().find(is_it).unwrap_or_else(|| panic!("seed {seed}: no line of {tag}"));
            let endpoint = line["endpoint"].as_str();
            let heard = endpoint.map(|endpoint| {
                let heard = origins[names[endpoint]].heard();
                let line = heard
                    .iter()
                    .rev()
                    .map(|heard| heard.line.as_str())
                    .find(|line| line.split([' ', '?', '&']).any(|part| part == tag));
                line.unwrap().split([' ', '?']).nth(1).unwrap().to_owned()
            });
            let mut told = explained(explanation);
            // A refusal is one of 400 or 405, by what was asked.
            if told[0] == "refused" {
                assert!([400, 405].contains(status), "seed {seed}: {} answered with {status}", request.question());
                told[0] = json!(status);
            }
            let seen = [
                json!(status),
                line["route"].clone(),
                line["pool"].clone(),
                line["side"].clone(),
                line["cache"].clone(),
                json!(heard),
            ];
            assert_eq!(
                told,
                seen,
                "seed {seed}, {}\n{config}\nexplained: {explanation:#?}\nlogged: {line:#}",
                request.question()
            );
            if let (Some(endpoint), Some(explanation)) = (endpoint, explanation) {
                let endpoints = explanation["pools"][0]["endpoints"].as_array().unwrap();
                let picked = endpoints.iter().find(|one| one["address"] == endpoint).expect("an endpoint of the pool");
                assert_eq!(picked["backup"], false, "seed {seed}: {endpoint}, {explanation:#}");
                let name = explanation["pools"][0]["name"].as_str().unwrap();
                if config.contains(&format!("[pools.{name}]\nbalance = {{ hash")) {
                    assert_eq!(picked["share"], 100.0, "seed {seed}: {endpoint}, {explanation:#}\n{config}");
                    hashed += 1;
                }
                forwarded += 1;
            }
            *routes.entry(line["route"].to_string()).or_insert(0) += 1;
        }
    }
    // Otherwise it would agree on nothing but refusals.
    assert!(forwarded > 200 && hashed > 50 && routes.len() > 10, "{forwarded} forwarded, {hashed} hashed, {routes:?}");
}

/// The shares that are told are those that 2,000 requests get.
#[test]
fn the_shares_that_explain_tells_are_those_of_traffic() {
    const REQUESTS: usize = 2000;
    let origins: Vec<Origin> = (0..4).map(|_| Origin::scripted(|_, _| ok(""))).collect();
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| origins[at].address);
    for balance in &BALANCES[..BALANCES.len() - 1] {
        let proxy = Proxy::start(&format!(
            "[access_log]\nformat = \"off\"\n[listeners.http]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [pools.p]\nbalance = {balance}\nendpoints = [\"{a}\", {{ address = \"{b}\", weight = 2 }}, \
             {{ address = \"{c}\", weight = 5 }}, {{ address = \"{d}\", backup = true }}]\n[routes.r]\npool = \"p\"\n"
        ));
        let before: Vec<usize> = origins.iter().map(|origin| origin.heard().len()).collect();
        let mut client = Client::connect(proxy.address());
        for _ in 0..REQUESTS {
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(client.receive().unwrap().status, 200);
        }
        let explanation = proxy.explain(&json!({ "method": "GET", "url": "http://a/" })).unwrap();
        for ((origin, before), told) in
            origins.iter().zip(before).zip(explanation["pools"][0]["endpoints"].as_array().unwrap())
        {
            assert_eq!(told["address"], origin.address.to_string());
            let seen = (origin.heard().len() - before) as f64 * 100.0 / REQUESTS as f64;
            let share = told["share"].as_f64().unwrap();
            // Four standard deviations of the difference at its widest.
            assert!(
                (seen - share).abs() < 8.0,
                "{balance}: {} got {seen} %, not {share} %\n{explanation:#}",
                origin.address
            );
        }
    }
}
