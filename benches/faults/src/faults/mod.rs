//! What goes wrong, a file for each family.

pub mod connections;
pub mod death;
pub mod inside;
pub mod logs;
pub mod network;
pub mod overload;
pub mod reload;
pub mod silence;
pub mod standby;
pub mod stopping;
