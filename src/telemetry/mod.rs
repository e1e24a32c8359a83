//! Floor 1: what headgate tells of itself: metrics, the access log, operational logs.
//!
//! A worker only ever touches what is its own: counters with one writer, a log buffer. The scraper and the log's
//! writer thread come and fetch it. Nothing here makes a worker wait.

pub mod access_log;
pub mod exposition;
pub mod logging;
pub mod metrics;
pub mod names;
mod process;
mod series;
