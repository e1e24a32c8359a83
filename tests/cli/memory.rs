//! What memory it holds on to.

use std::fs;

use crate::binary::{Headgate, headgate, simple};
use crate::kit::{Client, Origin, eventually};

/// Bytes that are resident (proc_pid_status(5): `VmRSS`).
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The allocator gives memory back in passing, and a worker without work passes nowhere: a burst of clients was paid for
/// until the next one.
#[test]
fn what_clients_took_is_given_back_while_they_rest() {
    const CLIENTS: usize = 2000;
    let origin = Origin::named("app");
    let mut command = headgate();
    // Huge pages come and go by the kernel's own judgement.
    command.env("MIMALLOC_ALLOW_THP", "0");
    let headgate = Headgate::start_as(command, &(simple(origin.address) + "[process]\nworkers = 1\n"));
    let address = headgate.listener("http");
    let ask = |clients: &mut [Client]| {
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
        for client in clients {
            assert_eq!(client.receive().map(|answer| answer.status), Some(200));
        }
    };
    for _ in 0..100 {
        ask(&mut [Client::connect(address)]);
    }
    let before = resident(headgate.pid());
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(address)).collect();
    ask(&mut clients);
    let taken = resident(headgate.pid()).saturating_sub(before);
    assert!(taken > 8 * 1024 * CLIENTS as u64, "they are served at the same time: {taken}");
    eventually("most of it is given back", || resident(headgate.pid()).saturating_sub(before) < taken / 2);
    ask(&mut clients);
}
