//! Servers with names, and name servers that fail: F21, F22, F23.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::lab::headgate::Headgate;
use crate::lab::{Control, Lab, POOL, eventually, pass, route};
use crate::load::{Load, locked};
use crate::origin::Origin;

const PATIENCE: Duration = Duration::from_secs(15);
const TTL: u32 = 1;
/// Of a look-up, in the config.
const LOOK_UP: &str = "timeout = \"2s\"";

/// What the name server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Address(Ipv4Addr),
    Nothing,
    ServFail,
    Silence,
    /// The address, ten seconds late.
    Late(Ipv4Addr),
}

/// A name server with one name, on UDP. Runs as long as the process does.
struct NameServer {
    address: SocketAddr,
    reply: Arc<Mutex<Reply>>,
}

impl NameServer {
    fn start(reply: Reply) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let server = Self { address: socket.local_addr()?, reply: Arc::new(Mutex::new(reply)) };
        let reply = server.reply.clone();
        std::thread::Builder::new().name("dns".to_owned()).spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let reply = *locked(&reply);
                let Some(answer) = answer(&query[..length], reply) else { continue };
                match (reply, socket.try_clone()) {
                    (Reply::Late(_), Ok(socket)) => drop(std::thread::spawn(move || {
                        pass(10_000);
                        socket.send_to(&answer, from)
                    })),
                    _ => drop(socket.send_to(&answer, from)),
                }
            }
        })?;
        Ok(server)
    }

    fn say(&self, reply: Reply) {
        *locked(&self.reply) = reply;
    }

    fn config(&self, port: u16) -> String {
        format!(
            "[dns]\nservers = [\"{}\"]\n{LOOK_UP}\n[pools.app]\nendpoints = [\"app.faults.test:{port}\"]\n{POOL}{}",
            self.address,
            route("")
        )
    }
}

/// RFC 1035, section 4.1: the question again, and one record that points back to its name.
fn answer(query: &[u8], reply: Reply) -> Option<Vec<u8>> {
    let end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
    let is_a = query.get(end - 4..end - 2)? == [0, 1];
    let (code, address) = match reply {
        Reply::Address(address) | Reply::Late(address) => (0, Some(address).filter(|_| is_a)),
        Reply::Nothing => (0, None),
        Reply::ServFail => (2, None),
        Reply::Silence => return None,
    };
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if let Some(address) = address {
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(TTL.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

fn failures(headgate: &Headgate) -> f64 {
    headgate.metrics().map_or(0.0, |metrics| metrics.sum("headgate_dns_failures_total", &[]))
}

/// F21: the name server says nothing any more.
pub fn server_dead(lab: &mut Lab) -> Result<()> {
    if lab.quick {
        lab.findings.skip("all of it", "the shortened run is in virtual time, among the unit tests");
        return Ok(());
    }
    if !lab.has("servers") {
        return Ok(());
    }
    let a = Origin::start("a")?;
    let server = NameServer::start(Reply::Address(Ipv4Addr::LOCALHOST))?;
    let config = server.config(a.address.port());
    let headgate = lab.headgate(&config)?;
    let running = Load { rate: 100, fresh_every: 10, ..Load::new(headgate.address) }.start_both()?;
    pass(3000);
    server.say(Reply::Silence);
    lab.pass(0.5);
    headgate.write(&format!("{config}response_headers.set.x-reloaded = \"yes\"\n"))?;
    let (status, receipt) = headgate.admin("POST", "/v1/reload")?;
    lab.pass(0.5);
    let counted = failures(&headgate);
    server.say(Reply::Address(Ipv4Addr::LOCALHOST));
    pass(1000);
    let all = running.finish()?;
    lab.none_failed(&all);
    lab.findings.hard("a reload meanwhile", "200", status, status == 200);
    lab.findings.at_least("look-ups counted as failed", counted as usize, 1);
    lab.findings.note(format!("dead for {:.0?}, TTL 1 s; HARDENING: 10 min. {}", lab.length, receipt["generation"]));
    Ok(())
}

/// F22: answers that are late, an error, or empty.
pub fn bad_answers(lab: &mut Lab) -> Result<()> {
    if !lab.has("servers") {
        return Ok(());
    }
    let a = Origin::start("a")?;
    let server = NameServer::start(Reply::Address(Ipv4Addr::LOCALHOST))?;
    let headgate = lab.headgate(&server.config(a.address.port()))?;
    let control = Control::start()?;
    let start = Instant::now();
    let running = Load { rate: 200, fresh_every: 10, ..Load::new(headgate.address) }.start_both()?;
    pass(2000);
    let from = Instant::now();
    for reply in [Reply::Late(Ipv4Addr::LOCALHOST), Reply::ServFail, Reply::Nothing] {
        server.say(reply);
        lab.pass(1.0 / 3.0);
    }
    let until = Instant::now();
    let counted = failures(&headgate);
    let all = running.finish()?;
    lab.none_failed(&all);
    lab.p99_beside(&all, &control.finish()?, (start, from), (from, until), 1.05);
    lab.findings.at_least("look-ups counted as failed", counted as usize, 1);
    lab.findings.note("200 requests/s in each protocol; TTL 1 s");
    Ok(())
}

/// F23: the record moves.
pub fn moved(lab: &mut Lab) -> Result<()> {
    if !lab.has("servers") {
        return Ok(());
    }
    let (old, new) = twins()?;
    let server = NameServer::start(Reply::Address(Ipv4Addr::LOCALHOST))?;
    let headgate = lab.headgate(&server.config(old.address.port()))?;
    let load = Load { rate: 200, methods: vec!["GET", "GET", "POST"], fresh_every: 10, ..Load::new(headgate.address) };
    let running = load.start_both()?;
    pass(1500);
    server.say(Reply::Address(Ipv4Addr::new(127, 0, 0, 2)));
    let from = Instant::now();
    let begun = eventually(PATIENCE, || new.record.first_asked_since(from).is_some());
    ensure!(begun.is_some(), "nothing goes to the new address");
    lab.pass(1.0);
    let until = Instant::now();
    let all = running.finish()?;
    lab.none_failed(&all);
    let last = old.record.asked_between(from, until).last().map(|last| last.duration_since(from));
    lab.findings.within("all on the new address", Some(last.unwrap_or_default()), Duration::from_secs(3));
    lab.none_twice(&all, &[&old, &new]);
    lab.findings.note("TTL 1 s; 200 requests/s in each protocol");
    Ok(())
}

/// Two servers on one port of two addresses.
fn twins() -> Result<(Origin, Origin)> {
    for _ in 0..20 {
        let old = Origin::start("old")?;
        let other = (Ipv4Addr::new(127, 0, 0, 2), old.address.port()).into();
        if let Ok(new) = Origin::start_at("new", other, None) {
            return Ok((old, new));
        }
    }
    bail!("no port that is free on two addresses")
}
