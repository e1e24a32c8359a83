//! Packets that are lost or late, in network namespaces: F07, F08, F09, F10.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::lab::headgate::Headgate;
use crate::lab::namespace::{Island, tc};
use crate::lab::{Control, Lab, PER_TRY, POOL, eventually, origins, pass, simple};
use crate::load::Load;
use crate::load::seen::Sample;
use crate::origin::Origin;

const PATIENCE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_millis(250);

/// Two servers here, and one on an island.
struct Sea {
    island: Arc<Island>,
    far: Origin,
    near: [Origin; 2],
}

fn sea() -> Result<Sea> {
    let island = Arc::new(Island::make(1)?);
    let far = Origin::start_at("far", island.address(7000), Some(island.clone()))?;
    Ok(Sea { island, far, near: origins(["a", "b"])? })
}

impl Sea {
    fn config(&self, keys: &str) -> String {
        simple(&[&self.far, &self.near[0], &self.near[1]], keys)
    }

    fn is_usable(&self, headgate: &Headgate) -> Result<()> {
        let usable = || headgate.standing("app", self.far.address) == "usable";
        ensure!(eventually(PATIENCE, usable).is_some(), "the far server is not used");
        Ok(())
    }
}

/// F07: connections to it cannot be opened, and nothing says so.
pub fn lost_syn(lab: &mut Lab) -> Result<()> {
    let sea = sea()?;
    // No connection is kept, so that each request needs a SYN.
    let headgate = lab.headgate(&sea.config(&format!("{POOL}max_idle = 0\n")))?;
    sea.is_usable(&headgate)?;
    let control = Control::start()?;
    let load = Load { rate: 100, methods: vec!["GET", "GET", "POST"], ..Load::new(headgate.address) };
    let start = Instant::now();
    let running = load.start_both()?;
    pass(1500);
    sea.island.swallow()?;
    let lost = Instant::now();
    let ejected = eventually(PATIENCE, || headgate.standing("app", sea.far.address) == "out");
    let out = Instant::now();
    lab.pass(0.7);
    let until = Instant::now();
    let all = running.finish()?;
    lab.none_failed(&all);
    for seen in &all {
        let usual = seen.between(start, lost).quantile(0.99).unwrap_or_default().max(Duration::from_millis(5));
        let p99 = seen.between(lost, out).quantile(0.99);
        lab.findings.within(format!("{} p99 until it is ejected", seen.protocol), p99, CONNECT + usual * 2);
    }
    lab.findings.within("ejected", ejected, Duration::from_secs(4));
    lab.p99_beside(&all, &control.finish()?, (start, lost), (out, until), 1.1);
    lab.findings.note("100 requests/s in each protocol");
    Ok(())
}

/// F08: it falls silent on connections that are open.
pub fn half_open(lab: &mut Lab) -> Result<()> {
    let sea = sea()?;
    let headgate = lab.headgate(&sea.config(&format!("{POOL}{PER_TRY}")))?;
    sea.is_usable(&headgate)?;
    let running = Load { rate: 100, ..Load::new(headgate.address) }.start_both()?;
    pass(1500);
    sea.island.swallow()?;
    let lost = Instant::now();
    let gone = eventually(PATIENCE, || connections_to(&sea.far, headgate.pid()) == Some(0));
    lab.pass(1.0);
    let until = Instant::now();
    let all = running.finish()?;
    lab.none_failed(&all);
    for seen in &all {
        let longest = seen.between(lost, until).samples.iter().map(Sample::latency).max();
        let bound = Duration::from_millis(1200);
        lab.findings.within(format!("{} longest (response timeout 1 s + 200 ms)", seen.protocol), longest, bound);
    }
    lab.findings.within("its connections gone from the pool", gone, Duration::from_secs(10));
    lab.findings.note("100 requests/s in each protocol");
    Ok(())
}

/// Connections that headgate keeps to a server; the far end cannot tell.
fn connections_to(origin: &Origin, pid: u32) -> Option<usize> {
    let std::net::SocketAddr::V4(address) = origin.address else { return None };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    let is_open = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(2) == Some(&&*wanted) && fields.get(3) == Some(&"01")
    };
    Some(table.lines().filter(is_open).count())
}

/// F09: loss and jitter.
pub fn lossy(lab: &mut Lab) -> Result<()> {
    let sea = sea()?;
    let netem = format!("qdisc add dev {} root netem delay 100ms 50ms loss 5%", sea.island.device());
    if let Err(error) = tc(&netem) {
        lab.findings.skip("all of it", format!("{error:#}"));
        return Ok(());
    }
    let headgate = lab.headgate(&sea.config(&format!("{POOL}balance = \"least-requests\"\n")))?;
    sea.is_usable(&headgate)?;
    let running = Load { rate: 100, ..Load::new(headgate.address) }.start_both()?;
    let mut ejections = 0;
    let until = Instant::now() + lab.length;
    while Instant::now() < until {
        ejections += usize::from(headgate.standing("app", sea.far.address) == "out");
        pass(100);
    }
    let all = running.finish()?;
    lab.none_failed(&all);
    lab.findings.none("looks at which it was ejected", ejections);
    for seen in &all {
        let share = seen.share_of("far") * 100.0;
        lab.findings.about(format!("{} its share of the traffic", seen.protocol), share, 20.0, "%");
    }
    Ok(())
}

/// F10: little bandwidth.
pub fn narrow(lab: &mut Lab) -> Result<()> {
    let sea = sea()?;
    for origin in [&sea.far, &sea.near[0], &sea.near[1]] {
        origin.set(|script| script.body = 2000);
    }
    let headgate = lab.headgate(&sea.config(&format!("{POOL}balance = \"least-requests\"\n")))?;
    sea.is_usable(&headgate)?;
    let load = Load { rate: 60, timeout: Duration::from_secs(30), ..Load::new(headgate.address) };
    let start = Instant::now();
    let running = load.start_both()?;
    pass(1500);
    // On the far end of the pair: what the server sends is what is held up.
    sea.island.inside("tc qdisc add dev far1 root tbf rate 100kbit burst 4kb latency 20s")?;
    let narrow = Instant::now();
    lab.pass(1.0);
    let until = Instant::now();
    let all = running.finish()?;
    lab.none_failed(&all);
    for seen in &all {
        let usual = seen.between(start, narrow).share_of("far");
        let late = seen.between(until - Duration::from_secs(3), until).share_of("far");
        let moved = (1.0 - late / usual.max(0.01)) * 100.0;
        lab.findings.about(format!("{} not moved of its traffic", seen.protocol), 100.0 - moved, 30.0, "%");
    }
    lab.findings.note("60 requests/s of 2 kB in each protocol; least-requests. Round robin does not move by design");
    Ok(())
}
