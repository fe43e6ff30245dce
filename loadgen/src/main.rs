//! `jeton-load`: load for a Jeton server, with every reply checked.
//!
//! A closed loop at a fixed number of connections, batch and requests in flight, or an open one at a fixed rate
//! ([`schedule`]). Tokens lie 32 bytes each in a
//! mapping; what each answer must be follows from the token's position ([`plan`]), not from a map. Drives
//! the same sans-IO QUIC driver as the server, from the other side, on one busy thread.
//!
//! Knows neither the engine nor the log.

mod cli;
mod link;
mod measure;
mod plan;
mod report;
mod run;
mod schedule;
mod target;
mod tokens;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::Arguments::parse().run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("jeton-load: {error:#}");
            ExitCode::from(2)
        }
    }
}
