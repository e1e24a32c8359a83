//! The program: everything is in the library.

use std::process::ExitCode;

use headgate::base::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    headgate::cli::main()
}
