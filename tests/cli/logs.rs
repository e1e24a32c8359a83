//! The operational log: written by a thread of its own, so that nobody waits for who reads it.

use std::fmt::Write;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binary::{headgate, said, simple, write_config};
use crate::kit::{Origin, eventually};

/// F36: the control plane stood still with all that it does, and the process did not even end.
#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let origin = Origin::named("app");
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &simple(origin.address));
    let mut command = headgate();
    command.arg("run").arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let ask = |arguments: &[&str]| headgate().current_dir(folder.path()).args(arguments).output().unwrap();
    eventually("it serves", || ask(&["status", "--ready"]).status.code() == Some(0));
    // More than a pipe holds, by far.
    let mut faulty = simple(origin.address);
    (0..400).for_each(|number| writeln!(faulty, "no_such_key_{number} = 1").unwrap());
    write_config(folder.path(), &faulty);
    for _ in 0..8 {
        let output = ask(&["reload"]);
        assert!(said(&output).contains("no_such_key_399"), "{}", said(&output));
    }
    assert_eq!(ask(&["status", "--ready"]).status.code(), Some(0));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let mut ended = None;
    eventually("it ends", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(0));
}
