//! Stories told with the kit: real sockets on port 0, a real headgate in this process, raw bytes where they matter.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

mod admin;
mod admission;
mod balance;
mod caching;
mod checks;
mod conditions;
mod drain;
mod ejection;
mod endpoints;
mod endpoints_file;
mod explain;
mod failover;
mod forwarding;
mod garbage;
mod http2;
mod idle;
mod kit;
mod matrix;
mod memory;
mod messages;
mod names;
mod operating;
mod orders;
mod outage;
mod overload;
mod pools;
mod queues;
mod reload;
mod retries;
mod stale;
mod sticky;
mod storm;
mod streams;
mod timeouts;
mod tls;
mod tunnels;
mod watching;
