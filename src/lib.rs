//! headgate: a reverse proxy and load balancer.
//!
//! # The map
//!
//! Two planes. The **data plane** is N workers, one thread each, that accept, decide, pick and forward; it never
//! parses config, probes, resolves, or blocks. The **control plane** is one thread that changes the world in two
//! ways only: it publishes a new [`snapshot`], or it sets what it has the word on: an endpoint's verdict, and where a
//! pool's traffic goes back to. An operator's word on an endpoint (drain, weight) is no verdict: a check must not take it
//! back. It is a part of the snapshot.
//!
//! A request's way: [`server`] accepts, shakes hands and speaks HTTP → [`proxy`] admits the request → [`decide`]
//! picks route, action, side, pools → the [`cache`] answers, or → [`upstream`] picks an endpoint and makes an
//! attempt → the answer goes back, and its record to [`telemetry`].
//!
//! # Rooms and floors
//!
//! A module imports only rooms on lower floors; `tests/tidy.rs` holds the table and fails on anything else.
//!
//! | floor | rooms |
//! |---|---|
//! | 0 | [`base`] |
//! | 1 | [`config`] |
//! | 2 | [`telemetry`], [`tls`], [`route`], [`cache`], [`relay`] |
//! | 3 | [`upstream`] |
//! | 4 | [`snapshot`] |
//! | 5 | [`decide`] |
//! | 6 | [`proxy`] |
//! | 7 | [`server`], [`control`] |
//! | 8 | [`admin`] |
//! | 9 | [`app`] |
//! | 10 | [`cli`] |
//!
//! # What never happens
//!
//! - [`decide::decide`] and [`upstream::balance`] do no I/O and read no clock: `headgate explain` calls the same two.
//! - No request waits for a lock that another worker can hold, and none has a task of its own: a client's connection is
//!   one task, which polls its requests, their streams and the endpoints' connections that they hold.
//! - A busy worker begins no request before it has moved those on that can be moved on (`proxy::intake`).
//! - No client's idle HTTP/1.1 connection holds a protocol engine or a buffer: what waits is a socket.
//! - Nothing a peer or a file sends can panic the process.

pub mod admin;
pub mod app;
pub mod base;
pub mod cache;
pub mod cli;
pub mod config;
pub mod control;
pub mod decide;
pub mod proxy;
pub mod relay;
pub mod route;
pub mod server;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod upstream;
