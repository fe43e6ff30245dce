//! `jeton-load`: load for a Jeton server and what it is compared with, every reply checked.
//!
//! A [`workload`] says what to ask when; a [`schedule`] says when each request is due; a [`worker`] lets its [`engine`]
//! ask through a [`peer`], which alone knows the server and its wire. The [`checker`] says whether an answer is true: that
//! follows from a token's position ([`layout`]) and from what was asked for before, so nothing is remembered for each
//! token. The [`recorder`] measures, [`run`] collects, the [`report`] tells.
//!
//! Knows neither Jeton's engine nor its log.

/// Prints a line to standard output, or says why it cannot.
macro_rules! tell {
    ($($words:tt)*) => { crate::output::tell(format_args!($($words)*)) };
}

mod checker;
mod cli;
mod compare;
mod engine;
mod fill;
mod interrupt;
mod keyspace;
mod layout;
mod live;
mod machine;
mod measure;
mod output;
mod peer;
mod picker;
mod propagation;
mod recorder;
mod report;
mod run;
mod saturate;
mod schedule;
mod target;
mod trace;
mod worker;
mod workload;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::Arguments::parse().run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) if output::is_unread(&error) => ExitCode::from(2),
        Err(error) => {
            eprintln!("jeton-load: {error:#}");
            ExitCode::from(if error.is::<report::WrongReplies>() { 1 } else { 2 })
        }
    }
}
