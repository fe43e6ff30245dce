//! `jeton serve`.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::bail;
use crossbeam_channel::{Receiver, bounded, select};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use super::Ending;
use super::output::print_text;
use crate::config::ServerConfig;
use crate::credentials::{ADMIN, Identities};
use crate::server::RunningServer;

/// Flags of `serve`; each overrides the environment (`JETON_...`) and the configuration file.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// A configuration file (TOML); see --print-config.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration that would be in force, with comments, and end.
    #[arg(long)]
    print_config: bool,
    /// Believe the wall clock although it is far from the last event's time.
    #[arg(long)]
    accept_clock: bool,
    /// Log in JSON.
    #[arg(long)]
    log_json: bool,
    /// Stop when the process that started this one ends.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Those settings that have a flag. What is not given is left to file and environment.
#[derive(Debug, clap::Args, Serialize)]
struct Settings {
    /// The address to listen on (UDP).
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,
    /// How many cores to serve on.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cores: Option<NonZeroUsize>,
    /// Tokens to have room for from the start.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_initial: Option<usize>,
    /// Listen beyond loopback with the development authority.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_development_authority: bool,
}

/// Logs to standard error what `JETON_LOG` asks for, or `usual` without it.
pub(super) fn start_logging(json: bool, usual: &str) -> anyhow::Result<()> {
    let directives = std::env::var("JETON_LOG").unwrap_or_else(|_| usual.to_owned());
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| anyhow::anyhow!("JETON_LOG={directives}: {error}"))?;
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .with_target(false);
    // A second subscriber in one process, as in tests, changes nothing.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
    Ok(())
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<Ending> {
        let config = ServerConfig::load(self.config.as_deref(), &self.settings)
            .map_err(|message| anyhow::anyhow!("configuration: {message}"))?;
        if self.print_config {
            return print_text(&config.to_commented_toml());
        }
        start_logging(self.log_json, "info")?;
        if self.exit_with_parent {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
        }
        // Before anything starts, so that no signal gets lost.
        let signals = signals()?;
        let server = RunningServer::start(&config, self.accept_clock)?;
        tracing::info!(address = %server.address(), version = env!("CARGO_PKG_VERSION"), "serving");
        announce(&server, &config)?;
        let failed = server.failed();
        let is_asked = select! {
            recv(signals) -> signal => {
                tracing::info!(signal = signal.ok(), "stopping");
                true
            }
            recv(failed) -> _ => false,
        };
        server.stop()?;
        if !is_asked {
            bail!("a shard ended although nobody had asked it to: the server was stopped");
        }
        tracing::info!("stopped: everything acknowledged is in the log");
        Ok(Ending::Done)
    }
}

/// Gets the first signal to stop; a second one ends the process at once.
fn signals() -> anyhow::Result<Receiver<i32>> {
    let (sender, receiver) = bounded(1);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("jeton-signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if sender.try_send(signal).is_err() {
                tracing::warn!(signal, "ended at once; everything acknowledged is in the log");
                std::process::exit(2);
            }
        }
    })?;
    Ok(receiver)
}

fn announce(server: &RunningServer, config: &ServerConfig) -> anyhow::Result<()> {
    let identities = Identities::of(&config.data);
    let mut text =
        format!("jeton listens on {} (QUIC, jeton/1)\ndata: {}\n", server.address(), config.data.display());
    if server.is_first_start() {
        let dir = config.data.join("identities");
        text += &format!("made a development authority and the identity {ADMIN} in {}\n", dir.display());
    }
    if let Ok(fingerprint) = identities.fingerprint() {
        text += &format!("authority: {fingerprint}\n");
    }
    text += "next: jeton issue --subject alice --ttl 1h --grant 'read,comment on journal/42'\n";
    print_text(&text).map(drop)
}
