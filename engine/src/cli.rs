//! The command line: what people type, and what they are told.
//!
//! Exit code 0: done, or valid; 1: denied; 2: usage or server error, with one line on standard error.

mod advice;
mod demo;
mod identity;
mod log;
mod output;
mod serve;
mod snapshot;
mod target;
mod tokens;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::target::Target;

/// How a command ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Done, or valid.
    Done,
    /// Denied.
    Denied,
}

/// Jeton: opaque tokens, issued once, validated millions of times a second, dead at once when revoked.
#[derive(Debug, Parser)]
#[command(name = "jeton", version, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done, or valid; 1 denied; 2 usage or server error, with a line that says which."
)]
pub struct Arguments {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server.
    Serve(serve::Serve),
    /// Issue tokens.
    Issue(tokens::Issue),
    /// Ask whether tokens are good.
    Validate(tokens::Validate),
    /// Revoke tokens: one, or all of a subject, client, family, tenant or resource.
    Revoke(tokens::Revoke),
    /// Extend the life of a renewable token.
    Renew(tokens::Renew),
    /// Show everything that is known of a token.
    Inspect(tokens::Inspect),
    /// Make, list and change the rights of clients.
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// Create a tenant.
    Tenant(identity::Tenant),
    /// Show, verify and replay the event log, of a running server or offline.
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Have a snapshot written, list snapshots, verify them.
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Show the counters of a running server.
    Stats(Stats),
    /// See all of it done for real, in a temporary directory, in under a minute.
    Demo(demo::Demo),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
struct Stats {
    #[command(flatten)]
    target: Target,
}

/// Carries out what was typed.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    match dispatch(arguments) {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Denied) => ExitCode::from(1),
        Err(error) => {
            eprintln!("jeton: {error:#}{}", advice::on(&error));
            ExitCode::from(2)
        }
    }
}

fn dispatch(arguments: Arguments) -> anyhow::Result<Ending> {
    let json = arguments.json;
    match arguments.command {
        Command::Serve(serve) => serve.run(),
        Command::Issue(issue) => issue.run(json),
        Command::Validate(validate) => validate.run(json),
        Command::Revoke(revoke) => revoke.run(json),
        Command::Renew(renew) => renew.run(json),
        Command::Inspect(inspect) => inspect.run(json),
        Command::Identity(identity) => identity.run(json),
        Command::Tenant(tenant) => tenant.run(json),
        Command::Log(log) => log.run(json),
        Command::Snapshot(snapshot) => snapshot.run(json),
        Command::Stats(stats) => stats.target.with(async |client| {
            let stats: serde_json::Value = serde_json::from_str(&client.stats().await?)?;
            output::print(json, &stats, || serde_json::to_string_pretty(&stats).unwrap_or_default())
        }),
        Command::Demo(demo) => demo.run(json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "jeton", &mut script);
            output::print_text(&String::from_utf8(script)?)
        }
    }
}
