//! The `jeton` command.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    jeton::cli::run(jeton::cli::Arguments::parse())
}
