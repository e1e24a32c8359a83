//! What goes wrong, a file for each family.

pub mod connections;
pub mod death;
pub mod health;
pub mod inside;
pub mod logs;
pub mod names;
pub mod network;
pub mod overload;
pub mod reload;
pub mod silence;
pub mod standby;
pub mod stopping;
