//! The program: everything is in the library.

use std::process::ExitCode;

/// A statement allocates a hundred thousand times, on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    volant::cli::main()
}
