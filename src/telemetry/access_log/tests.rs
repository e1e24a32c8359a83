//! Buffers, queue and writer.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use http::{Method, Version};

use super::*;
use crate::base::id::{EndpointIndex, ListenerIndex, PoolIndex, RouteIndex};
use crate::base::record::{CacheResult, Side};
use crate::config::model::AccessLogOutput;

/// A request that went well.
pub(crate) fn record() -> RequestRecord<'static> {
    RequestRecord {
        id: b"0192f0c1-2345-7000-8000-000000000001",
        client_ip: IpAddr::from([192, 0, 2, 7]),
        listener: ListenerIndex(0),
        listener_name: "web",
        route: Some(RouteIndex(0)),
        route_name: Some("notes"),
        method: &Method::GET,
        host: "notes.localhost",
        path: "/notes",
        query: Some("q=a\"b"),
        version: Version::HTTP_11,
        status: 200,
        bytes_in: 0,
        bytes_out: 1024,
        duration: Duration::from_micros(12_005),
        pool: Some(PoolIndex(0)),
        pool_name: Some("app"),
        endpoint: Some(EndpointIndex(0)),
        endpoint_name: Some("127.0.0.1:7001"),
        side: Some(Side::Read),
        endpoint_status: Some(200),
        queued: None,
        connect: Some(Duration::from_micros(300)),
        first_byte: Some(Duration::from_millis(11)),
        retries: 1,
        cache: Some(CacheResult::Miss),
        tls_version: Some("TLSv1.3"),
        sni: Some("notes.localhost"),
        referer: Some(b"https://notes.localhost/"),
        user_agent: Some("curl/8\\ ü".as_bytes()),
        reason: None,
    }
}

const DEADLINE: Duration = Duration::from_secs(10);

fn to_file(path: &Path, format: Option<AccessLogFormat>) -> model::AccessLog {
    model::AccessLog { output: AccessLogOutput::File(path.to_owned()), format }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn every_worker_s_lines_reach_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = AccessLog::start(&to_file(&path, Some(AccessLogFormat::Json))).unwrap();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let worker = log.worker();
            std::thread::spawn(move || (0..500).for_each(|_| worker.record(&record())))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    log.flush_and_stop(DEADLINE);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1000);
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert_eq!(log.dropped(), 0);

    let late = log.worker();
    late.record(&record());
    late.tick();
    assert_eq!(log.dropped(), 1);
}

#[test]
fn off_writes_nothing_and_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = AccessLog::start(&to_file(&path, None)).unwrap();
    log.worker().record(&record());
    log.flush_and_stop(DEADLINE);
    assert!(!path.exists());
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_rotated_file_is_left_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let log = AccessLog::start(&to_file(&path, Some(AccessLogFormat::Combined))).unwrap();
    let worker = log.worker();
    fs::rename(&path, &old).unwrap();
    log.reopen();
    worker.record(&record());
    drop(worker);
    log.flush_and_stop(DEADLINE);
    assert_eq!((lines(&old), lines(&path)), (0, 1));
}

#[test]
fn reconfiguring_changes_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.log"), dir.path().join("second.log"));
    let log = AccessLog::start(&to_file(&first, Some(AccessLogFormat::Combined))).unwrap();
    let worker = log.worker();
    let missing = dir.path().join("missing/access.log");
    assert!(log.reconfigure(&to_file(&missing, Some(AccessLogFormat::Json))).is_err());
    log.reconfigure(&to_file(&second, Some(AccessLogFormat::Json))).unwrap();
    worker.record(&record());
    drop(worker);
    log.flush_and_stop(DEADLINE);
    assert_eq!(lines(&first), 0);
    assert!(fs::read_to_string(&second).unwrap().starts_with("{\"ts\""));
}

#[test]
fn a_blocked_pipe_drops_and_counts_and_never_holds_up_a_worker() {
    let (mut reader, writer) = io::pipe().unwrap();
    let settings = model::AccessLog { output: AccessLogOutput::Stdout, format: Some(AccessLogFormat::Json) };
    let log = AccessLog::start_with(&settings, Output::Stream(File::from(OwnedFd::from(writer))), 2).unwrap();
    let worker = log.worker();
    const LINES: u64 = 5_000;
    // More than pipe and queue hold; nobody reads, so this ends only if nothing waits.
    (0..LINES).for_each(|_| worker.record(&record()));
    drop(worker);
    assert!(log.dropped() > 0);

    let written = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count() as u64
    });
    log.flush_and_stop(DEADLINE);
    assert_eq!(written.join().unwrap() + log.dropped(), LINES);
}

/// F36: a buffer that grows for its last line takes twice its room, and all of them together twice the bound.
#[test]
fn long_lines_do_not_make_a_buffer_grow() {
    let (_reader, writer) = io::pipe().unwrap();
    let settings = model::AccessLog { output: AccessLogOutput::Stdout, format: Some(AccessLogFormat::Json) };
    let log = AccessLog::start_with(&settings, Output::Stream(File::from(OwnedFd::from(writer))), 2).unwrap();
    let (worker, path) = (log.worker(), "/long".repeat(1_500));
    for _ in 0..100 {
        worker.record(&RequestRecord { path: &path, ..record() });
        assert!(worker.buffer.borrow().bytes.capacity() <= super::BUFFER_BYTES);
    }
}

#[test]
fn stopping_does_not_wait_for_a_blocked_pipe() {
    let (_reader, writer) = io::pipe().unwrap();
    let settings = model::AccessLog { output: AccessLogOutput::Stdout, format: Some(AccessLogFormat::Json) };
    let log = AccessLog::start_with(&settings, Output::Stream(File::from(OwnedFd::from(writer))), 2).unwrap();
    let worker = log.worker();
    (0..2_000).for_each(|_| worker.record(&record()));
    let before = clock::now();
    log.flush_and_stop(Duration::from_millis(50));
    assert!(clock::now() - before < DEADLINE);
}

#[test]
fn a_full_disk_drops_and_counts() {
    let settings = to_file(Path::new("/dev/full"), Some(AccessLogFormat::Combined));
    let log = AccessLog::start(&settings).unwrap();
    let worker = log.worker();
    worker.record(&record());
    worker.tick();
    worker.record(&record());
    drop(worker);
    log.flush_and_stop(DEADLINE);
    assert_eq!(log.dropped(), 2);
}
