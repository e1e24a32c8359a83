//! The headgate program: chooses an exit code, nothing else.

fn main() {}
