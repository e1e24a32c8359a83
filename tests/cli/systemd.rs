//! What the service manager hears, over a socket of the story's own.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::binary::{Headgate, headgate, simple};
use crate::kit::Origin;

/// The manager's end of NOTIFY_SOCKET.
struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify.sock")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, folder }
    }

    /// Starts headgate as this manager's service; it need not be ready yet.
    fn launch(&self, environment: &[(&str, &str)], config: &str) -> Headgate {
        let mut command = headgate();
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify.sock")).envs(environment.iter().copied());
        Headgate::launch(command, config)
    }

    /// The lines of the next message.
    fn hear(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let count = self.socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..count]).lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_manager_hears_of_the_start_each_reload_and_the_end() {
    let origin = Origin::named("app");
    let manager = Manager::new();
    let mut headgate = manager.launch(&[], &simple(origin.address));
    assert_eq!(manager.hear(), ["READY=1", "STATUS=serving generation 1"]);
    // Ready means that it listens and that signals have their handlers.
    headgate.signal(Signal::SIGHUP);
    let reloading = manager.hear();
    assert_eq!(reloading[0], "RELOADING=1");
    let time = reloading[1].strip_prefix("MONOTONIC_USEC=").expect("the time of the reload");
    assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{time}");
    assert_eq!(manager.hear(), ["READY=1", "STATUS=serving generation 2"]);
    headgate.write("nonsense = 1\n");
    headgate.signal(Signal::SIGHUP);
    assert_eq!(manager.hear()[0], "RELOADING=1");
    assert_eq!(manager.hear(), ["READY=1", "STATUS=serving generation 2"], "a refused config leaves it ready");
    headgate.signal(Signal::SIGTERM);
    let end = loop {
        let heard = manager.hear();
        // The watch may have had a look at the refused file by itself.
        if heard[0] != "RELOADING=1" && heard != ["READY=1", "STATUS=serving generation 2"] {
            break heard;
        }
    };
    assert_eq!(end, ["STOPPING=1", "STATUS=draining"]);
    assert_eq!(headgate.exit_code(), Some(0), "{}", headgate.log());
}

#[test]
fn the_watchdog_is_fed_while_all_is_well_and_only_where_it_is_asked_for() {
    let origin = Origin::named("app");
    let manager = Manager::new();
    let headgate = manager.launch(&[("WATCHDOG_USEC", "200000")], &simple(origin.address));
    assert_eq!(manager.hear()[0], "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.hear(), ["WATCHDOG=1"]);
    }
    // A process that does not run does not feed it.
    headgate.signal(Signal::SIGSTOP);
    manager.socket.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    let mut message = [0; 64];
    // What was sent before the stop may still wait.
    while manager.socket.recv(&mut message).is_ok() {}
    assert!(manager.socket.recv(&mut message).is_err());
    headgate.signal(Signal::SIGCONT);
    manager.socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(manager.hear(), ["WATCHDOG=1"]);
    drop(headgate);

    let headgate = manager.launch(&[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")], &simple(origin.address));
    while manager.hear()[0] != "READY=1" {}
    manager.socket.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    assert!(manager.socket.recv(&mut message).is_err(), "the watchdog is another process's");
    drop(headgate);
}
