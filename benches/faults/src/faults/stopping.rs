//! The end of a process, in order: F30, F31.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::lab::headgate::{Headgate, Launch};
use crate::lab::{Lab, POOL, eventually, namespace, origins, pass, simple};
use crate::load::seen::{End, Sample};
use crate::load::tunnel::Tunnels;
use crate::load::{Load, Protocol, locked};

const PATIENCE: Duration = Duration::from_secs(40);

/// How another instance takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It has an address of its own, and a virtual one moves when the first is not ready.
    VirtualAddress,
    /// It listens on the same port.
    SharedPort,
}

/// F30: another instance takes over, both ways.
pub fn handed_over(lab: &mut Lab) -> Result<()> {
    hand_over(lab, Way::VirtualAddress)?;
    if !lab.knows("share_ports") {
        lab.findings.skip("the same on a shared port", "this headgate has no key share_ports");
        return Ok(());
    }
    let ended = std::thread::scope(|scope| {
        let shared = scope.spawn(|| {
            // Who waits in the queue of a socket that is closed goes to another one's (tcp_migrate_req, Linux 5.14).
            let migrates = || std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").context("tcp_migrate_req");
            match namespace::enter().and_then(|()| migrates()) {
                Ok(()) => hand_over(lab, Way::SharedPort),
                Err(error) => {
                    lab.findings.skip("the same on a shared port, with tcp_migrate_req=1", format!("{error:#}"));
                    Ok(())
                }
            }
        });
        shared.join()
    });
    ended.ok().context("a thread has panicked")?
}

fn hand_over(lab: &mut Lab, way: Way) -> Result<()> {
    let [a, b] = origins(["a", "b"])?;
    let config = format!("[process]\ndrain = {{ delay = \"1s\", timeout = \"30s\" }}\n{}", simple(&[&a, &b], POOL));
    let mut first = lab.headgate(&config)?;
    let load = Load { rate: 300, methods: vec!["GET", "GET", "POST"], fresh_every: 4, ..Load::new(first.address) };
    let other = Load { protocol: Protocol::H2, ..load.clone() };
    // Both look at the one address, which may move.
    let virtual_address = load.address.clone();
    let running = [load.start()?, other.start()?];
    pass(1000);
    let config = match way {
        Way::VirtualAddress => config,
        Way::SharedPort => format!(
            "[listeners.http]\naddress = \"{}\"\n{}",
            first.address,
            config.replace("[process]\n", "[process]\nshare_ports = true\n")
        ),
    };
    let second = Headgate::start(&lab.program, lab.folder.join("second"), &config, Launch::default())?;
    pass(500);
    let at = Instant::now();
    first.signal(Signal::SIGTERM)?;
    let unready = eventually(Duration::from_secs(5), || !first.is_ready());
    if way == Way::VirtualAddress {
        *locked(&virtual_address) = second.address;
    }
    let mut code = None;
    let ended = eventually(PATIENCE, || {
        code = first.ended().ok().flatten();
        code.is_some()
    });
    let took = ended.map(|_| at.elapsed());
    lab.pass(1.0);
    let served = second.metrics()?.sum("headgate_http_requests_total", &[]);
    let all: Vec<_> = running.into_iter().map(crate::load::Running::finish).collect::<Result<_>>()?;
    ensure!(served > 0.0, "the second instance has served nothing");
    let way = if way == Way::SharedPort { ", shared port" } else { "" };
    for seen in &all {
        lab.findings.none(format!("{} failed of {}{way}", seen.protocol, seen.samples.len()), seen.failed());
    }
    lab.note_failures(&all);
    let refused: usize = all.iter().map(|seen| seen.count(|sample| sample.end == End::Refused)).sum();
    lab.findings.none(format!("refused connections{way}"), refused);
    let code = code.and_then(|status| status.code()).map_or("none".to_owned(), |code| code.to_string());
    lab.findings.hard(format!("exit code{way}"), "0", &code, code == "0");
    lab.findings.within(format!("readiness false{way}"), unready, Duration::from_millis(100));
    lab.findings.within(format!("ended{way}"), took, Duration::from_secs(30));
    lab.findings.note(match way {
        "" => "first behind a virtual address that moves when the first is not ready; drain.delay 1 s",
        _ => "then on one port (share_ports, tcp_migrate_req=1); 300 requests/s in each protocol, a 4th on new connections",
    });
    Ok(())
}

/// F31: streams, tunnels and a download are open.
pub fn with_much_open(lab: &mut Lab) -> Result<()> {
    const MANY: usize = 100;
    let [a, slow] = origins(["a", "slow"])?;
    let drain = lab.length;
    // Streams end well within the drain; the download would take twice as long.
    a.set(|script| (script.body, script.pace) = (100_000, drain / 2));
    slow.set(|script| (script.body, script.pace) = (1_000_000, drain * 2));
    let config = format!(
        "[process]\ndrain.timeout = \"{}ms\"\n{}upgrades = [\"websocket\"]\n{}[routes.slow]\nmatch.path = \"/slow\"\npool = \"slow\"\n",
        drain.as_millis(),
        simple(&[&a], "timeouts.response = \"30s\"\n"),
        crate::lab::pool("slow", &[&slow], "")
    );
    let mut headgate = lab.headgate(&config)?;
    let tunnels = Tunnels::open(headgate.address, MANY)?;
    ensure!(eventually(PATIENCE, || tunnels.count() == MANY as u64).is_some(), "not all tunnels open");
    let mut download = TcpStream::connect(headgate.address)?;
    download.write_all(b"GET /slow HTTP/1.1\r\nHost: faults.test\r\n\r\n")?;
    let download = std::thread::spawn(move || {
        let mut text = Vec::new();
        let ended = download.read_to_end(&mut text);
        (ended.is_err(), text, Instant::now())
    });
    // A burst of streams at once, all on their way when the signal comes.
    let load = Load { burst: Some(MANY as u32), ..Load::new(headgate.address) };
    let streams = Load { protocol: Protocol::H2, timeout: PATIENCE, ..load }.start()?;
    let all_begun = || a.record.in_flight() as usize == MANY && slow.record.in_flight() == 1;
    ensure!(eventually(Duration::from_millis(900), all_begun).is_some(), "not all streams have begun");
    let streams = std::thread::spawn(move || streams.finish());
    pass(50);
    let at = Instant::now();
    headgate.signal(Signal::SIGTERM)?;
    let mut status = None;
    let ended = eventually(PATIENCE, || {
        status = headgate.ended().ok().flatten();
        status.is_some()
    });
    let took = at.elapsed();
    let streams = streams.join().ok().context("the load has panicked")??;
    lab.findings.hard(
        "h2 streams complete",
        MANY.to_string(),
        streams.count(Sample::is_good),
        streams.failed() == 0 && streams.samples.len() == MANY,
    );
    let ends = tunnels.ends()?;
    let early = ends.iter().filter(|end| end.duration_since(at) < drain).count();
    lab.findings.none("WebSockets closed before the drain's end", early);
    let late = ends.iter().map(|end| end.duration_since(at).saturating_sub(drain)).max();
    lab.findings.within("the last WebSocket closed after the drain's end", late, Duration::from_secs(1));
    let (is_reset, text, end) = download.join().ok().context("the download has panicked")?;
    let bytes = text.len();
    lab.findings.hard(
        "the download is cut, and not before the drain's end",
        "yes",
        format!("{bytes} B after {:.1?}{}", end.duration_since(at), if is_reset { ", reset" } else { "" }),
        bytes < 1_000_000 && end.duration_since(at) >= drain && text.starts_with(b"HTTP/1.1 200"),
    );
    let code = status.and_then(|status| status.code());
    lab.findings.hard("exit code", "3", code.map_or("none".to_owned(), |code| code.to_string()), code == Some(3));
    lab.findings.within(
        "ended after the drain's end",
        ended.map(|_| took.saturating_sub(drain)),
        Duration::from_secs(1),
    );
    lab.note_failures(&[streams]);
    lab.findings.note(format!("the drain lasts {drain:.0?}; HARDENING: 30 s and a download of 60 s"));
    Ok(())
}
