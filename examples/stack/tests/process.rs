//! Processes: one that fails shows its log, one that is slow to stop is killed, none outlives its supervisor.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stack::home::Home;
use stack::process::{Spec, Supervisor};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

fn script(name: &'static str, text: &str) -> Spec {
    Spec {
        name,
        role: "test".to_owned(),
        address: String::new(),
        program: PathBuf::from("/bin/sh"),
        arguments: vec!["-c".into(), text.into()],
        environment: Vec::new(),
        grace: Duration::from_millis(200),
        remedy: "Try something else.".to_owned(),
    }
}

fn supervisor() -> (TempDir, Supervisor) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::open(&directory.path().join("data")).unwrap();
    (directory, Supervisor::new(Arc::new(home)))
}

#[tokio::test]
async fn a_process_that_ends_while_starting_shows_its_log_and_what_to_do() {
    let (_directory, supervisor) = supervisor();
    let process = supervisor.start(script("app", "echo no such table; exit 3")).unwrap();
    let never = async || -> anyhow::Result<()> { anyhow::bail!("not yet") };
    let failure = supervisor.wait_ready(&process, Duration::from_secs(20), never).await.unwrap_err().to_string();
    for part in ["app ended while starting", "exit status: 3", "no such table", "Try something else."] {
        assert!(failure.contains(part), "{part:?} is not in: {failure}");
    }
}

#[tokio::test]
async fn a_step_that_fails_says_what_was_wrong_though_advice_followed() {
    let (_directory, supervisor) = supervisor();
    let text = "echo '[ERROR] unknown option'; seq 100; exit 1";
    let failure = supervisor.run(script("install", text)).await.unwrap_err().to_string();
    assert!(failure.contains("[ERROR] unknown option") && failure.contains("    100"), "{failure}");
    assert!(supervisor.all().is_empty(), "a step is not listed among what runs");
}

#[tokio::test]
async fn a_process_that_ignores_the_request_to_stop_is_killed_with_its_children() {
    let (directory, supervisor) = supervisor();
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let text = format!("trap '' TERM; (sleep 600; sleep 600) > {}; sleep 600", pipe.display());
    let process = supervisor.start(script("deaf", &text)).unwrap();
    // Opening waits for the child that writes, and reading ends when the last of its processes has.
    let mut reader = tokio::fs::File::open(&pipe).await.unwrap();
    process.stop().await;
    assert_eq!(process.ended().unwrap().to_string(), "signal: 9 (SIGKILL)");
    reader.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_process_started_again_takes_the_place_of_the_one_before() {
    let (_directory, supervisor) = supervisor();
    let first = supervisor.start(script("app", "sleep 600")).unwrap();
    supervisor.start(script("other", "sleep 600")).unwrap();
    first.crash().await;
    let second = supervisor.start(script("app", "sleep 600")).unwrap();
    let pids: Vec<_> = supervisor.all().iter().map(|process| (process.spec().name, process.pid())).collect();
    assert_eq!(pids.len(), 2);
    assert_eq!(pids[0], ("app", second.pid()));
    supervisor.stop_all().await;
    assert!(supervisor.all().iter().all(|process| process.ended().is_some()));
}

#[tokio::test]
async fn a_log_is_followed_by_whole_lines_without_their_times() {
    let (directory, supervisor) = supervisor();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let text = format!(
        "echo before; cat {0}; echo '2026-11-24T10:39:09.6Z  INFO one'; printf ' --> two\\nhal'; cat {0}; echo f; sleep 600",
        pipe.display()
    );
    let process = supervisor.start(script("app", &text)).unwrap();
    let has_begun = async || {
        anyhow::ensure!(process.output().contains("before"));
        Ok(())
    };
    supervisor.wait_ready(&process, Duration::from_secs(20), has_begun).await.unwrap();
    let (lines, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let open = || std::fs::write(&pipe, "").unwrap();
    let read = async {
        open();
        let first = [seen.recv().await.unwrap(), seen.recv().await.unwrap()];
        open();
        (first, seen.recv().await.unwrap())
    };
    let (first, last) = tokio::select! {
        // First: it follows from its first poll on.
        biased;
        () = process.follow(|line| lines.send(line.to_owned()).unwrap()) => unreachable!(),
        all = read => all,
    };
    assert_eq!((first, last.as_str()), (["INFO one".to_owned(), " --> two".to_owned()], "half"));
    supervisor.stop_all().await;
}
