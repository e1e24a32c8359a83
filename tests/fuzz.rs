//! The fuzz targets on stable: each replays its corpus and then seeded mutations of it. A failure prints the bytes;
//! `HEADGATE_FUZZ_SEED` runs the mutations of another seed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

#[allow(unreachable_pub, missing_docs, dead_code, reason = "a crate of its own for libFuzzer")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use targets::mutate::{Dice, mutated};

const MUTATIONS: usize = 2000;

/// Tells the input where the target panics.
struct Running<'d>(&'d str, &'d [u8]);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: the input was b\"{}\"", self.0, self.1.escape_ascii());
        }
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

fn replay(name: &str, target: fn(&[u8]), mutations: usize, threads: usize) {
    let corpus = corpus(name);
    assert!(!corpus.is_empty());
    for (file, data) in &corpus {
        let _running = Running(file, data);
        target(data);
    }
    let seed: u64 = std::env::var("HEADGATE_FUZZ_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let corpus: Vec<Vec<u8>> = corpus.into_iter().map(|(_, data)| data).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= mutations {
                        return;
                    }
                    let data = mutated(&corpus, &mut Dice(seed << 32 | number as u64));
                    let case = format!("{name}, seed {seed}, mutation {number}");
                    let _running = Running(&case, &data);
                    target(&data);
                }
            });
        }
    });
}

macro_rules! targets {
    ($($name:ident: $mutations:expr, $threads:expr;)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name), targets::$name::target, $mutations, $threads);
        })*
    };
}

targets! {
    cache_control: MUTATIONS, 1;
    cache_key: MUTATIONS, 1;
    config: MUTATIONS, 1;
    cookie: MUTATIONS, 1;
    forwarded: MUTATIONS, 1;
    // These two wait for sockets most of the time.
    h1_path: 1000, 8;
    h1_split: 500, 8;
    health_v1: MUTATIONS, 1;
    host: MUTATIONS, 1;
    keep_alive: MUTATIONS, 1;
    path_norm: MUTATIONS, 1;
    pattern: MUTATIONS, 1;
    response: MUTATIONS, 1;
    source: MUTATIONS, 1;
    template: MUTATIONS, 1;
}

/// What the corpus of the whole path comes to: were nothing passed on, every invariant would hold.
#[test]
fn the_whole_path_is_walked() {
    let outcome = |name| {
        let (_, data) = corpus("h1_path").into_iter().find(|(file, _)| file.ends_with(&format!("/{name}"))).unwrap();
        targets::h1_path::outcome(&data)
    };
    for (name, heard, statuses) in [
        ("get", 1, vec![200]),
        ("pipelined", 3, vec![200; 3]),
        ("chunked", 2, vec![200; 2]),
        ("claims", 1, vec![200]),
        ("get-body", 1, vec![200]),
        ("te-list", 0, vec![400]),
        ("two-hosts", 0, vec![400]),
        ("dots", 0, vec![400]),
        ("rootless", 0, vec![400]),
        ("connect", 0, vec![405]),
    ] {
        assert_eq!(outcome(name), (heard, statuses), "{name}");
    }
}

#[test]
fn the_origin_that_judges_is_strict() {
    let takes = |more: &str, body: &str| {
        let marks = "host: a\r\nvia: 1.1 headgate\r\nx-forwarded-for: 127.0.0.1\r\n";
        targets::h1_path::origin_takes(format!("POST / HTTP/1.1\r\n{marks}{more}\r\n{body}").as_bytes())
    };
    assert!(takes("content-length: 2\r\n", "ok") && takes("transfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"));
    for more in [
        "content-length: 02\r\n",
        "content-length: 2\r\ncontent-length: 2\r\n",
        "content-length: 2\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "host: b\r\n",
        "x-forwarded-for: 1.2.3.4\r\n",
        "via: 1.1 other\r\n",
        "x : y\r\n",
        "x: a\nb\r\n",
        " folded\r\n",
    ] {
        assert!(!takes(more, ""), "{more:?}");
    }
    // A second request within the first one's body, as far as headgate knew.
    assert!(!takes("", "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"));
    assert!(!takes("transfer-encoding: chunked\r\n", "2;x\r\nok\r\n0\r\n\r\n"));
}

/// Every target runs here, and has its door for libFuzzer.
#[test]
fn no_target_is_forgotten() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (here, manifest) = (include_str!("fuzz.rs"), fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap());
    let mut targets = 0;
    for entry in fs::read_dir(root.join("fuzz/fuzz_targets")).unwrap() {
        targets += 1;
        let name = entry.unwrap().file_name().into_string().unwrap().replace(".rs", "");
        assert!(here.contains(&format!("    {name}: ")) && manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(fs::read_dir(root.join("fuzz/corpus")).unwrap().count(), targets, "each has a corpus");
}
