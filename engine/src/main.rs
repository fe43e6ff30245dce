//! The `jeton` command.

use std::process::ExitCode;

use clap::Parser as _;

/// With glibc's, each of sled's threads keeps what one open segment takes: docs/decisions/0012-jemalloc.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    jeton::cli::run(jeton::cli::Arguments::parse())
}
