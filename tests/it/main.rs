//! Stories told with the kit: real sockets on port 0, a real headgate in this process, raw bytes where they matter.

#![allow(missing_docs)]

mod admission;
mod forwarding;
mod kit;
mod operating;
