//! Too little for too many: F12, F13, F24, F46.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::lab::headgate::Launch;
use crate::lab::{Lab, POOL, eventually, origins, pass, simple};
use crate::load::Load;
use crate::load::seen::{End, Sample, Seen};
use crate::origin::Origin;

const PATIENCE: Duration = Duration::from_secs(15);
/// Of F12: with answers that take 50 ms, two servers do 2 x 10 / 0.05 s = 400 requests/s.
const MOST: u64 = 10;

/// F12: three of five say 503 to checks.
pub fn most_unhealthy(lab: &mut Lab) -> Result<()> {
    let five = origins(["a", "b", "c", "d", "e"])?;
    for origin in &five {
        origin.set(|script| script.delay = Duration::from_millis(50));
    }
    let refs: Vec<_> = five.iter().collect();
    // Who waits does so for 40 ms at most: refused at once is refused within 50 ms.
    let queue = if lab.knows("queue.timeout") { "queue.size = 50\nqueue.timeout = \"40ms\"\n" } else { "" };
    let headgate = lab.headgate(&simple(&refs, &format!("{POOL}max_requests = {MOST}\n{queue}")))?;
    let load = Load { rate: 300, ..Load::new(headgate.address) };
    let running = load.start_both()?;
    pass(1000);
    for origin in &five[..3] {
        origin.set(|script| script.health = 503);
    }
    let out = || five[..3].iter().all(|origin| headgate.standing("app", origin.address) == "out");
    ensure!(eventually(PATIENCE, out).is_some(), "the unhealthy stay in rotation");
    let from = Instant::now();
    lab.pass(1.0);
    let until = Instant::now();
    let all = running.finish()?;
    let peak = five.iter().map(|origin| origin.record.peak()).max().unwrap_or_default();
    lab.findings.at_most("the most requests at once on one server", peak as usize, MOST as usize);
    for seen in &all {
        let meanwhile = seen.between(from, until);
        let is_refusal = |sample: &Sample| {
            sample.end == End::Status(503)
                && matches!(sample.reason.as_deref(), Some("pool_full" | "queue_full" | "queue_timeout"))
        };
        let odd = meanwhile.count(|sample| !sample.is_good() && !is_refusal(sample));
        lab.findings.none(format!("{} failed otherwise than by 503 for want of room", seen.protocol), odd);
        let served = meanwhile.count(Sample::is_good);
        let share = served as f64 / meanwhile.samples.len().max(1) as f64;
        lab.findings.hard(
            format!("{} still served", seen.protocol),
            ">= 40 %",
            format!("{:.0} %", share * 100.0),
            share >= 0.4,
        );
        let refused = of(&meanwhile, is_refusal);
        let p99 = quantile_of_all(&refused, 0.99);
        if !refused.samples.is_empty() {
            lab.findings.within(format!("{} refused after (p99)", seen.protocol), p99, Duration::from_millis(50));
        }
    }
    lab.findings.note("2 x 300 requests/s of 50 ms; the two healthy servers can take 400");
    lab.note_failures(&all);
    Ok(())
}

/// F13: all are killed, and started again.
pub fn all_down(lab: &mut Lab) -> Result<()> {
    let mut three = origins(["a", "b", "c"])?;
    let refs: Vec<_> = three.iter().collect();
    let headgate = lab.headgate(&simple(&refs, POOL))?;
    let load = Load { rate: 150, methods: vec!["GET", "GET", "POST"], ..Load::new(headgate.address) };
    let running = load.start_both()?;
    pass(500);
    let usual_from = headgate.account()?;
    pass(1500);
    let usual = headgate.account()?.share_since(&usual_from);
    for origin in &mut three {
        origin.kill();
    }
    let out = || three.iter().all(|origin| headgate.standing("app", origin.address) == "out");
    ensure!(eventually(PATIENCE, out).is_some(), "the dead stay in rotation");
    let tries =
        || headgate.metrics().map(|metrics| metrics.sum("headgate_endpoint_requests_total", &["code=\"connect"]));
    let (from, tried, account) = (Instant::now(), tries()?, headgate.account()?);
    lab.pass(1.0);
    let (until, tried, share) = (Instant::now(), tries()? - tried, headgate.account()?.share_since(&account));
    let back_at = Instant::now();
    for origin in &mut three {
        origin.start_again()?;
    }
    let first = || three.iter().any(|origin| origin.record.first_asked_since(back_at).is_some());
    let back = eventually(PATIENCE, first);
    let all_back = || three.iter().all(|origin| headgate.standing("app", origin.address) == "usable");
    ensure!(eventually(PATIENCE, all_back).is_some(), "a server that is back is not used again");
    let recovered = Instant::now();
    pass(500);
    let all = running.finish()?;
    for seen in &all {
        let down = seen.between(from, until);
        let odd = down.count(|sample| sample.end != End::Status(503) || !sample.retry_after);
        lab.findings.none(format!("{} other than 503 + Retry-After of {}", seen.protocol, down.samples.len()), odd);
        let p99 = quantile_of_all(&down, 0.99);
        lab.findings.within(format!("{} 503 after (p99)", seen.protocol), p99, Duration::from_millis(50));
        let late = seen.between(recovered, Instant::now());
        lab.findings.none(format!("{} failed after all are back", seen.protocol), late.failed());
    }
    let allowed = (until - from).as_secs_f64() * 10.0 * 3.0;
    lab.findings.at_most("connects of requests while all are down", tried as usize, allowed as usize);
    lab.findings.about("CPU while all are down", share, usual.max(1.0), "%");
    lab.findings.within("first answer after they are back", back, Duration::from_secs(3));
    lab.findings.note(format!("150 requests/s in each protocol; down for {:?}; CPU before {usual:.1} %", lab.length));
    Ok(())
}

/// F42: every server says 503 to everything, and retries are asked for.
pub fn retry_storm(lab: &mut Lab) -> Result<()> {
    if !(lab.has("retry_budget.percent") && lab.has("retry.status")) {
        return Ok(());
    }
    let three = origins(["a", "b", "c"])?;
    let refs: Vec<_> = three.iter().collect();
    let headgate = lab.headgate(&format!("{}{}", crate::lab::pool("app", &refs, POOL), super::health::retrying(4)))?;
    let running = Load { rate: 200, ..Load::new(headgate.address) }.start_both()?;
    // As long as the budget's window, so that it holds what these requests have earned: over a minute it does not matter.
    pass(if lab.quick { 1_000 } else { 10_000 });
    for origin in &three {
        origin.set(|script| script.status = 503);
    }
    let from = Instant::now();
    lab.pass(1.0);
    let until = Instant::now();
    for origin in &three {
        origin.set(|script| script.status = 200);
    }
    pass(2000);
    let recovered = Instant::now();
    pass(1500);
    let all = running.finish()?;
    let upstream: usize = three.iter().map(|origin| origin.record.asked_between(from, until).len()).sum();
    let clients: usize = all.iter().map(|seen| seen.between(from, until).samples.len()).sum();
    let ratio = upstream as f64 / clients.max(1) as f64;
    lab.findings.hard("requests to servers per request of clients", "<= 1.25", format!("{ratio:.3}"), ratio <= 1.25);
    for seen in &all {
        let late = seen.between(recovered, Instant::now());
        lab.findings.none(format!("{} failed 2 s after they are well", seen.protocol), late.failed());
    }
    let queued = headgate.metrics()?.sum("headgate_pool_queue_length", &[]);
    lab.findings.none("requests left in a queue", queued as usize);
    lab.findings.note("200 requests/s in each protocol; 4 attempts, a budget of 20 %");
    Ok(())
}

/// F24: fewer descriptors than clients.
pub fn no_descriptors(lab: &mut Lab) -> Result<()> {
    let [a] = origins(["a"])?;
    let launch = Launch { descriptors: Some(256), ..Launch::default() };
    let mut headgate = lab.headgate_with(&simple(&[&a], ""), launch)?;
    let load = Load { rate: 20, timeout: Duration::from_secs(3), ..Load::new(headgate.address) };
    // Who is there: their connections, and those to the server, are open before the others come.
    let running = load.start_both()?;
    pass(1000);
    let taken = |headgate: &crate::lab::headgate::Headgate| headgate.account().map_or(0, |account| account.descriptors);
    let crowd: Vec<_> = (0..400).map_while(|_| TcpStream::connect(headgate.address).ok()).collect();
    ensure!(crowd.len() == 400, "only {} connections could be opened", crowd.len());
    ensure!(eventually(PATIENCE, || taken(&headgate) >= 254).is_some(), "descriptors are left: nothing was tested");
    pass(200);
    let (from, before) = (Instant::now(), headgate.account()?);
    let asked = Instant::now();
    let answers = headgate.admin("GET", "/v1/status").is_ok_and(|(status, _)| status == 200);
    let took = asked.elapsed();
    lab.pass(1.0);
    let (until, share) = (Instant::now(), headgate.account()?.share_since(&before));
    drop(crowd);
    let newcomer = || crate::lab::ask::tcp(headgate.address, "GET", "/").is_ok_and(|(status, _)| status == 200);
    let recovered = eventually(PATIENCE, newcomer);
    let all = running.finish()?;
    for seen in &all {
        let meanwhile = seen.between(from, until);
        let what = format!("{} failed of {} on connections that are there", seen.protocol, meanwhile.samples.len());
        lab.findings.none(what, meanwhile.failed());
    }
    lab.findings.hard(
        "it lives",
        "yes",
        if headgate.ended()?.is_none() { "yes" } else { "no" },
        headgate.ended()?.is_none(),
    );
    let in_time = answers && took < Duration::from_secs(2);
    let figure = if answers { format!("after {took:.1?}") } else { "no".to_owned() };
    lab.findings.hard("the admin API answers meanwhile", "within 2 s", figure, in_time);
    lab.findings.about("CPU while waiting", share, 20.0, "%");
    lab.findings.within("a newcomer is served after release", recovered, Duration::from_secs(1));
    lab.note_failures(&all);
    Ok(())
}

/// F46: readers who take nothing.
pub fn slow_readers(lab: &mut Lab) -> Result<()> {
    const READERS: usize = 500;
    let [a, b] = origins(["a", "b"])?;
    // More than all the buffers between hold.
    a.set(|script| script.body = 12 << 20);
    let config = format!(
        "{}{}[routes.big]\nmatch.path = \"/big\"\npool = \"big\"\n",
        simple(&[&b], ""),
        crate::lab::pool("big", &[&a], "")
    );
    let headgate = lab.headgate(&config)?;
    let load = Load { rate: 50, ..Load::new(headgate.address) };
    let running = load.start_both()?;
    pass(1000);
    let before = headgate.account()?;
    let began = Instant::now();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut stream = TcpStream::connect(headgate.address)?;
        stream.write_all(b"GET /big HTTP/1.1\r\nHost: faults.test\r\n\r\n")?;
        readers.push(stream);
    }
    let all_begun = || a.record.in_flight() as usize == READERS;
    ensure!(eventually(PATIENCE * 2, all_begun).is_some(), "not all slow readers are served");
    let connected = began.elapsed();
    // Held back: what the server could write stands still. To fill what the kernel holds for all of them takes its time.
    let held = stands_still(&a, PATIENCE * 4);
    ensure!(held.is_some(), "the server is not held back from {READERS} readers");
    let mut late = TcpStream::connect(headgate.address)?;
    late.write_all(b"GET /big HTTP/1.1\r\nHost: faults.test\r\n\r\n")?;
    let one = stands_still(&a, PATIENCE);
    let written = a.record.written();
    readers.push(late);
    lab.pass(1.0);
    let after = headgate.account()?;
    drop(readers);
    let all = running.finish()?;
    let grown = after.resident.saturating_sub(before.resident) / 1024;
    lab.findings.hard(
        format!("memory for {READERS} slow readers"),
        format!("<= {} MiB", READERS * 256 / 1024),
        format!("{} MiB", grown / 1024),
        grown <= READERS as u64 * 256,
    );
    let whole = (READERS as u64 + 1) * (a.record.script().body as u64);
    let share = format!("{:.0} %", written as f64 * 100.0 / whole as f64);
    lab.findings.hard("the server is held back: written of what they asked for", "< 100 %", share, written < whole);
    lab.findings.within("held back from one more reader", one, Duration::from_secs(1));
    lab.none_failed(&all);
    lab.findings.note(format!(
        "{READERS} readers by HTTP/1.1 came in {connected:.1?} and were held back {:.1?} later; {} KiB each",
        held.unwrap_or_default(),
        grown / READERS as u64
    ));
    Ok(())
}

/// Waits until an origin could write nothing for half a second; tells how long it could before that.
fn stands_still(origin: &Origin, limit: Duration) -> Option<Duration> {
    const STILL: Duration = Duration::from_millis(500);
    let mut written = (origin.record.written(), Instant::now());
    let took = eventually(limit, || {
        let now = origin.record.written();
        if now != written.0 {
            written = (now, Instant::now());
        }
        written.1.elapsed() > STILL
    });
    took.map(|took| took.saturating_sub(STILL))
}

fn of(seen: &Seen, wanted: impl Fn(&Sample) -> bool) -> Seen {
    let samples = seen.samples.iter().filter(|sample| wanted(sample)).cloned().collect();
    Seen { protocol: seen.protocol, samples }
}

/// Latency that the given share of all did not exceed, good or not.
fn quantile_of_all(seen: &Seen, share: f64) -> Option<Duration> {
    let mut latencies: Vec<_> = seen.samples.iter().map(Sample::latency).collect();
    latencies.sort_unstable();
    let at = (share * latencies.len() as f64).ceil() as usize;
    latencies.get(at.saturating_sub(1)).copied()
}
