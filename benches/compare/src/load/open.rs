//! Requests at a fixed rate, whether answers come or not ("open loop").
//!
//! Latency counts from the moment a request was *meant* to be sent: when the proxy, or this program, falls behind, the
//! wait shows. A generator that waits for answers leaves it out ("coordinated omission", Gil Tene). One thread, one epoll and
//! a timer of the kernel's: an async runtime's timer ticks in milliseconds, which at 20,000 requests/s is 20 at once.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde::{Deserialize, Serialize};

use super::{Outcome, Tally, child};
use crate::histogram::Histogram;
use crate::http1::Head;

const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n";
const BODY_BYTES: usize = 1024;
/// How long answers may still come after the last request was due.
const GRACE: Duration = Duration::from_secs(2);
const TIMER: u64 = u64::MAX;
const MAX_ERRORS: u64 = 20;

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The proxy.
    pub address: SocketAddr,
    /// Requests per second.
    pub rate: u32,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// How long.
    pub seconds: f64,
}

/// When each request is meant to be sent.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    start: Instant,
    period: Duration,
    total: u64,
}

/// One connection, and the request on it.
struct Connection {
    stream: TcpStream,
    /// When the request on it was meant to be sent; nothing while it is free.
    intended: Option<Instant>,
    received: Vec<u8>,
}

/// All of it while it runs.
struct Generator {
    connections: Vec<Connection>,
    free: VecDeque<usize>,
    sent: u64,
    tally: Tally,
    lag: Histogram,
}

// === impl Schedule ===

impl Schedule {
    fn new(start: Instant, rate: u32, seconds: f64) -> Self {
        let total = (f64::from(rate) * seconds).round() as u64;
        Self { start, period: Duration::from_secs(1) / rate.max(1), total }
    }

    /// How many requests are due by `now`.
    fn due(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_nanos();
        let periods = u64::try_from(passed / self.period.as_nanos().max(1)).unwrap_or(u64::MAX);
        periods.saturating_add(1).min(self.total)
    }

    /// When the request of that number, from 0, is meant to be sent.
    fn intended(&self, number: u64) -> Instant {
        self.start + Duration::from_nanos((self.period.as_nanos() as u64).saturating_mul(number))
    }
}

// === impl Connection ===

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, intended: None, received: Vec::with_capacity(4096) })
    }

    /// Reads what is there; whether the response is whole.
    fn receive(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => bail!("closed"),
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let Some(head) = Head::find(&self.received) else { return Ok(false) };
        ensure!(head.status()? == 200, "status {}", head.status()?);
        let length = head.content_length()?;
        ensure!(length == Some(BODY_BYTES), "a body of {length:?} bytes");
        Ok(self.received.len() >= head.len() + BODY_BYTES)
    }
}

// === impl Generator ===

impl Generator {
    /// Sends what is due, as far as connections are free.
    fn send(&mut self, schedule: &Schedule) {
        let now = Instant::now();
        let due = schedule.due(now);
        while self.sent < due {
            let Some(index) = self.free.pop_front() else { return };
            let connection = &mut self.connections[index];
            let intended = schedule.intended(self.sent);
            self.sent += 1;
            self.lag.record(now.saturating_duration_since(intended));
            match connection.stream.write(REQUEST) {
                Ok(count) if count == REQUEST.len() => connection.intended = Some(intended),
                Ok(count) => self.tally.fail(format_args!("{count} bytes of a request fitted")),
                Err(error) => self.tally.fail(error),
            }
        }
    }

    /// Takes what has come on one connection. One that failed is not used again.
    fn receive(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let Some(intended) = connection.intended else { return };
        match connection.receive() {
            Ok(false) => {}
            Ok(true) => {
                self.tally.latencies.record(intended.elapsed());
                connection.received.clear();
                connection.intended = None;
                self.free.push_back(index);
            }
            Err(error) => {
                connection.intended = None;
                self.tally.fail(format_args!("{error:#}"));
            }
        }
    }

    fn answered(&self) -> u64 {
        self.tally.latencies.total() + self.tally.errors()
    }
}

/// Runs the load.
pub fn run(plan: &Plan) -> Result<Outcome> {
    let connections: Result<Vec<_>> = (0..plan.connections).map(|_| Connection::open(plan.address)).collect();
    let connections = connections?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, connection) in connections.iter().enumerate() {
        epoll.add(&connection.stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
    }
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
    let mut generator = Generator {
        free: (0..connections.len()).collect(),
        connections,
        sent: 0,
        tally: Tally::new(),
        lag: Histogram::new(),
    };
    child::wait_for_go()?;

    let schedule = Schedule::new(Instant::now(), plan.rate, plan.seconds);
    timer.set(Expiration::Interval(TimeSpec::from_duration(schedule.period)), TimerSetTimeFlags::empty())?;
    let end = schedule.intended(schedule.total) + GRACE;
    let mut events = [EpollEvent::empty(); 128];
    while generator.answered() < schedule.total && generator.tally.errors() < MAX_ERRORS && Instant::now() < end {
        generator.send(&schedule);
        let count = epoll.wait(&mut events, EpollTimeout::from(100_u8))?;
        for event in &events[..count] {
            if event.data() == TIMER {
                // How often it fired does not matter: the schedule is asked for what is due.
                let _ = timer.wait();
            } else {
                generator.receive(event.data() as usize);
            }
        }
    }
    let missing = schedule.total.saturating_sub(generator.answered());
    let mut outcome = generator.tally.outcome(schedule.start.elapsed().as_secs_f64());
    if missing > 0 {
        outcome.errors += missing;
        outcome.first_error.get_or_insert_with(|| format!("{missing} requests without an answer in time"));
    }
    outcome.send_lag = generator.lag.quantile(0.99);
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_times_and_no_more_than_all() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1000, 0.5);
        let due = |micros| schedule.due(start + Duration::from_micros(micros));
        assert_eq!((due(0), due(999), due(1000), due(250_500), due(10_000_000)), (1, 1, 2, 251, 500));
        assert_eq!(schedule.intended(0), start);
        assert_eq!(schedule.intended(500), start + Duration::from_millis(500));
        assert_eq!(schedule.due(start - Duration::from_secs(1)), 1);
    }
}
