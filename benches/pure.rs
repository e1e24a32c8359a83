//! Times of the pure parts of a request: decide, pick, header rewriting, the cache key. `cargo bench --bench pure`.
//!
//! What they may cost at most is held by tests, which count instead of timing: route look-ups in `route::tests`, picks
//! in `upstream::balance::tests`.

use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use headgate::base::clock;
use headgate::base::id::ListenerIndex;
use headgate::base::random::Seed;
use headgate::config::load::parse_text;
use headgate::config::model::{Config, Scheme};
use headgate::decide::{DecideInput, cache_key, decide};
use headgate::proxy::for_endpoint_of_get;
use headgate::route::table::{RequestView, RouteTable};
use headgate::upstream::balance::key::client_key;
use headgate::upstream::balance::{PickRequest, pick};
use headgate::upstream::endpoint::Verdict;
use headgate::upstream::pool::Pool;
use headgate::upstream::registry::Registry;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

const LISTENER: &str = "config_version = 1\n[listeners.http]\naddress = \"127.0.0.1:0\"\n";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn config(text: &str) -> Config {
    let (config, _) = parse_text("bench", text, &|_| None).unwrap_or_else(|faults| panic!("{faults:#?}"));
    config
}

/// Routes of each kind in turn: a host of its own, an exact path, a prefix, a parameter; and one for everything else.
fn routes(count: usize) -> Config {
    let mut text = format!("{LISTENER}[pools.app]\nendpoints = [\"127.0.0.1:1\"]\n");
    for n in 1..count {
        let matches = match n % 4 {
            0 => format!("match.host = \"h{n}.example.com\""),
            1 => format!("match.path = \"/exact/{n}\""),
            2 => format!("match.path = \"/prefix/{n}/*\""),
            _ => format!("match.path = \"/users/{{id}}/{n}\""),
        };
        let _ = write!(text, "[routes.r{n}]\n{matches}\npool = \"app\"\n");
    }
    text += "[routes.rest]\nmatch.host = [\"example.com\", \"*.example.com\"]\npool = \"app\"\n";
    config(&text)
}

fn view<'a>(host: &'a str, path: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    RequestView {
        listener: ListenerIndex(0),
        scheme: Scheme::Http,
        method: &Method::GET,
        host,
        path,
        query: None,
        headers,
        client_ip: CLIENT,
    }
}

fn bench_decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    let headers = HeaderMap::new();
    for count in [1, 100, 10_000] {
        let config = routes(count);
        let table = RouteTable::build(&config.routes);
        let input = DecideInput { listeners: &config.listeners, routes: &table };
        // All of them stand in the table of 100 as well.
        for (name, host, path) in [
            ("host", "h96.example.com", "/some/page"),
            ("exact", "elsewhere.test", "/exact/97"),
            ("prefix", "elsewhere.test", "/prefix/98/a/b"),
            ("parameter", "elsewhere.test", "/users/7/99"),
            ("rest", "www.example.com", "/some/page"),
            ("none", "elsewhere.test", "/some/page"),
        ] {
            let request = view(host, path, &headers);
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| decide(black_box(&input), black_box(&request)));
            });
        }
    }
    group.finish();
}

fn bench_pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for count in [3_u32, 30, 3000] {
        let endpoints: Vec<String> = (0..count).map(|n| format!("\"10.0.{}.{}:80\"", n / 250, n % 250)).collect();
        for balance in
            ["power-of-two", "round-robin", "least-requests", "peak-ewma", "random", "{ hash = \"client-ip\" }"]
        {
            let value = if balance.starts_with('{') { balance.to_owned() } else { format!("\"{balance}\"") };
            let name = balance.trim_matches(['{', '}', ' ']).replace([' ', '"'], "");
            let config = config(&format!(
                "{LISTENER}[pools.app]\nbalance = {value}\nendpoints = [{}]\n[routes.all]\npool = \"app\"\n",
                endpoints.join(", ")
            ));
            let pool = Pool::new(config.pools[0].clone(), None, &Registry::default());
            bench_pick_from(&mut group, &format!("{name}/all-up"), count, &pool);
            for endpoint in pool.endpoints.iter().step_by(10) {
                endpoint.state.set_verdict(Verdict::Down);
            }
            bench_pick_from(&mut group, &format!("{name}/a-tenth-down"), count, &pool);
        }
    }
    group.finish();
}

type Group<'c> = criterion::BenchmarkGroup<'c, criterion::measurement::WallTime>;

fn bench_pick_from(group: &mut Group<'_>, name: &str, count: u32, pool: &Pool) {
    let now = clock::now();
    let mut turn = 0;
    group.bench_function(BenchmarkId::new(name, count), |bencher| {
        bencher.iter(|| {
            turn += 1;
            let seed = Seed(turn);
            let request = PickRequest {
                balance: &pool.spec.balance,
                sticky: None,
                tried: &[],
                max_requests: None,
                backups_first: false,
                key: client_key(CLIENT) ^ turn,
                now,
                seed,
            };
            pick(black_box(pool), &request)
        });
    });
}

/// The fields that a browser sends with a page's part.
const FIELDS: [(&str, &str); 10] = [
    ("host", "notes.example.com"),
    ("connection", "keep-alive"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://notes.example.com/notes"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
    ("x-forwarded-for", "203.0.113.9"),
    ("cache-control", "max-age=0"),
];

fn bench_headers(criterion: &mut Criterion) {
    let config = config(&format!(
        "{LISTENER}[pools.app]\nendpoints = [\"127.0.0.1:1\"]\n[routes.all]\npool = \"app\"\n\
         request_headers.set.x-api-version = \"1\"\n"
    ));
    let edits = &config.routes[0].request_headers;
    let peer = HeaderValue::from_static("192.0.2.1");
    let authority = HeaderValue::from_static("notes.example.com");
    let mut headers = HeaderMap::new();
    for (name, value) in FIELDS {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    criterion.bench_function("headers for the endpoint", |bencher| {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        bencher.iter(|| for_endpoint_of_get(black_box(&headers), &peer, &authority, id, edits));
    });
}

fn bench_cache_key(criterion: &mut Criterion) {
    let config = routes(1);
    let route = &config.routes[0];
    criterion.bench_function("cache key", |bencher| {
        bencher.iter(|| {
            cache_key(black_box(route), "", Scheme::Https, "notes.example.com", "/static/app.css", Some("v=20261125"))
        });
    });
}

criterion_group!(pure, bench_decide, bench_pick, bench_headers, bench_cache_key);
criterion_main!(pure);
