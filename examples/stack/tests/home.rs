//! What an earlier run left behind must not block the next one, and nothing else may be touched.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};

use stack::home::{Home, MARK};

fn sleeper(mark: &Path) -> Child {
    Command::new("sleep").arg("600").env(MARK, mark).spawn().unwrap()
}

#[test]
fn processes_of_an_earlier_run_are_ended_and_their_pid_files_removed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    drop(Home::open(&root).unwrap());
    let root = root.canonicalize().unwrap();
    let mut leftover = sleeper(&root);
    let pid_file = root.join("run/read-1.pid");
    fs::write(&pid_file, format!("{}\n", leftover.id())).unwrap();
    // Somebody has to collect the child, or it stays listed as ended and not waited for.
    let waiting = std::thread::spawn(move || leftover.wait().unwrap());

    let _home = Home::open(&root).unwrap();

    assert_eq!(waiting.join().unwrap().signal(), Some(15), "asked to end, not killed");
    assert!(!pid_file.exists());
}

#[test]
fn a_pid_file_that_names_somebody_elses_process_ends_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    drop(Home::open(&root).unwrap());
    let mut stranger = sleeper(Path::new("/somewhere/else"));
    let pid_file = root.join("run/read-1.pid");
    fs::write(&pid_file, format!("{}\n", stranger.id())).unwrap();

    let _home = Home::open(&root).unwrap();

    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was ended");
    assert!(!pid_file.exists());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_directory_has_one_stack_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    let first = Home::open(&root).unwrap();
    let refusal = Home::open(&root).unwrap_err().to_string();
    assert!(refusal.contains("another stack") && refusal.contains("--data"), "{refusal}");
    drop(first);
    Home::open(&root).unwrap();
}

#[test]
fn a_directory_with_something_elses_files_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.txt"), "dear to somebody").unwrap();
    let refusal = Home::open(directory.path()).unwrap_err().to_string();
    assert!(refusal.contains("not a stack's data directory"), "{refusal}");
}

#[test]
fn the_admin_socket_fits_in_a_socket_address_however_long_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let short = Home::open(&directory.path().join("data")).unwrap();
    assert_eq!(short.admin_socket(), short.root().join("admin.sock"));
    let long = Home::open(&directory.path().join("d".repeat(120))).unwrap();
    assert!(long.admin_socket().as_os_str().len() < 108);
}
