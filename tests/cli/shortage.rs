//! A want of descriptors: nothing spins, who is there is served, and all is well when they are free again.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use headgate::base::clock;
use nix::sys::signal::Signal;

use crate::binary::{Headgate, headgate, simple};
use crate::kit::{Client, Origin, eventually};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Processor time of a process in seconds (proc_pid_stat(5): utime and stime, 100 ticks a second).
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..=12].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The program, with 64 descriptors and no more.
fn limited() -> Command {
    // The shell's limit is both the soft and the hard one, so that headgate cannot raise it.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]).arg(headgate().get_program());
    limited.env_remove("HEADGATE_CONFIG").env_remove("HEADGATE_LOG").env_remove("NOTIFY_SOCKET");
    limited
}

/// A worker that had no descriptor for who waited in the queue did not hear that its time was over: nothing was closed, so
/// none became free.
#[test]
fn a_drain_without_descriptors_ends_by_its_deadline() {
    let origin = Origin::named("app");
    let config = simple(origin.address) + "[process]\nworkers = 1\ndrain.timeout = \"500ms\"\n";
    let mut headgate = Headgate::start_as(limited(), &config);
    let address = headgate.listener("http");
    let mut crowd: Vec<Client> = (0..120).map(|_| Client::connect(address)).collect();
    // Its own deadline is 10 s.
    crowd.iter_mut().for_each(|client| client.send("GET / HT"));
    eventually("every descriptor is taken", || descriptors(headgate.pid()) >= 63);
    let began = clock::now();
    headgate.signal(Signal::SIGTERM);
    assert!(headgate.exit_code().is_some());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn without_descriptors_it_rests_and_serves_who_is_there_and_recovers() {
    let origin = Origin::named("app");
    let headgate = Headgate::start_as(limited(), &simple(origin.address));
    let address = headgate.listener("http");

    // Enough that every worker has some of them, each with a connection to the origin behind it.
    let mut served: Vec<Client> = (0..8).map(|_| Client::connect(address)).collect();
    let ask = |client: &mut Client| {
        client.send(REQUEST);
        client.receive().map(|answer| answer.status)
    };
    for client in &mut served {
        assert_eq!(ask(client), Some(200));
    }
    let crowd: Vec<TcpStream> = (0..120).map(|_| TcpStream::connect(address).unwrap()).collect();
    eventually("every descriptor is taken", || descriptors(headgate.pid()) >= 63);
    eventually("the log tells what to do", || headgate.log().contains("raise the limit of open files"));

    let (before, began) = (cpu(headgate.pid()), clock::now());
    for client in &mut served {
        assert_eq!(ask(client), Some(200), "who is there is served");
    }
    // Two seconds in which nothing happens but that more wait at the door than may come in.
    let (_hold, quiet) = std::sync::mpsc::channel::<()>();
    let _ = quiet.recv_timeout(Duration::from_secs(2));
    for _ in 0..3 {
        assert_eq!(headgate.command(&["status", "--ready"]).status.code(), Some(0), "an operator is let in");
    }
    let share = (cpu(headgate.pid()) - before) / began.elapsed().as_secs_f64();
    assert!(share < 0.2, "{:.0} % of a core for nothing", share * 100.0);
    let lines = headgate.log().matches("raise the limit of open files").count();
    assert!(lines < 20, "{lines} lines of one and the same complaint");
    for client in &mut served {
        assert_eq!(ask(client), Some(200), "who is there is still served");
    }

    let freed = clock::now();
    drop(crowd);
    eventually("a newcomer is served", || ask(&mut Client::connect(address)) == Some(200));
    assert!(freed.elapsed() < Duration::from_secs(5), "{:?}", freed.elapsed());
    assert_eq!(headgate.command(&["status", "--ready"]).status.code(), Some(0));
}
