//! Faults of headgate's own, and its own doors under attack: F48, F51.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::lab::headgate::Launch;
use crate::lab::{Control, Lab, POOL, origins, pass, simple};
use crate::load::Load;
use crate::load::seen::{End, Sample};

/// F48: one request in a thousand meets a fault in the code that serves it.
pub fn panics(lab: &mut Lab) -> Result<()> {
    let [a, b] = origins(["a", "b"])?;
    let every = if lab.quick { 200 } else { 1000 };
    let environment = vec![("HEADGATE_DEBUG_PANIC_EVERY", every.to_string())];
    let mut headgate = lab.headgate_with(&simple(&[&a, &b], POOL), Launch { environment, ..Launch::default() })?;
    let load = Load { rate: 300, methods: vec!["GET", "GET", "POST"], ..Load::new(headgate.address) };
    let running = load.start_both()?;
    lab.pass(1.0);
    let all = running.finish()?;
    let is_ours = |sample: &Sample| sample.end == End::Status(500) && sample.reason.as_deref() == Some("internal");
    let mut answered = 0;
    for seen in &all {
        let ours = seen.count(is_ours);
        answered += ours;
        let what = format!("{} failed otherwise than by a 500 of {}", seen.protocol, seen.samples.len());
        lab.findings.none(what, seen.failed() - ours);
        lab.findings.at_least(format!("{} answered with 500", seen.protocol), ours, 1);
    }
    let counted = headgate.metrics()?.sum("headgate_panics_total", &[]) as usize;
    lab.findings.hard("headgate_panics_total", answered.to_string(), counted, counted == answered);
    let logged = headgate.log().matches("a fault in headgate ended a request").count();
    lab.findings.hard("lines of it in the log", counted.to_string(), logged, logged == counted);
    let lives = headgate.ended()?.is_none();
    lab.findings.hard("it lives", "yes", if lives { "yes" } else { "no" }, lives);
    lab.findings.note(format!("every {every}th request; 300 requests/s in each protocol"));
    lab.note_failures(&all);
    Ok(())
}

/// F51: half a thousand slow connections to the admin API.
pub fn admin_flooded(lab: &mut Lab) -> Result<()> {
    let [a, b] = origins(["a", "b"])?;
    let headgate = lab.headgate(&simple(&[&a, &b], POOL))?;
    let load = Load { rate: 300, methods: vec!["GET", "GET", "POST"], ..Load::new(headgate.address) };
    let control = Control::start()?;
    let start = Instant::now();
    let running = load.start_both()?;
    lab.pass(0.5);
    let flood = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..500 {
        // Beyond the queue of the socket nobody is let in, and this would wait.
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        if socket.connect(&socket2::SockAddr::unix(headgate.admin_socket())?).is_ok() {
            let mut stream: UnixStream = std::os::fd::OwnedFd::from(socket).into();
            let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: local");
            slow.push(stream);
        }
        pass(2);
    }
    lab.pass(0.5);
    let until = Instant::now();
    let count = slow.len();
    drop(slow);
    let all = running.finish()?;
    lab.none_failed(&all);
    lab.p99_beside(&all, &control.finish()?, (start, flood), (flood, until), 1.1);
    let again = crate::lab::eventually(Duration::from_secs(15), || headgate.generation().is_ok());
    lab.findings.hard("the admin API answers after the flood", "yes", format!("{again:.1?}"), again.is_some());
    lab.findings.note(format!("{count} of 500 were let in; 300 requests/s in each protocol"));
    Ok(())
}
