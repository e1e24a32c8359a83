//! Origin, proxy and client: everything on port 0, nothing slept for.

mod client;
mod origin;
mod proxy;

pub(crate) use client::{Client, answer_to, exchange};
pub(crate) use origin::{Heard, Origin, ok};
pub(crate) use proxy::Proxy;
