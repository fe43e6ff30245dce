//! `jeton serve`.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use super::Ending;
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

fn start_logging(json: bool) {
    let filter = EnvFilter::try_from_env("JETON_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .with_target(false);
    // A second subscriber in one process, as in tests, changes nothing.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<Ending> {
        let config = ServerConfig::load(self.config.as_deref(), &self.settings)
            .map_err(|message| anyhow::anyhow!("configuration: {message}"))?;
        if self.print_config {
            print!("{}", config.to_commented_toml());
            return Ok(Ending::Done);
        }
        start_logging(self.log_json);
        // Before anything starts, so that no signal gets lost.
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let server = RunningServer::start(&config, self.accept_clock)?;
        announce(&server, &config);
        let signal = signals.forever().next();
        tracing::info!(signal, "stopping");
        server.stop()?;
        tracing::info!("stopped: everything acknowledged is in the log");
        Ok(Ending::Done)
    }
}

fn announce(server: &RunningServer, config: &ServerConfig) {
    let identities = Identities::of(&config.data);
    println!("jeton listens on {} (QUIC, jeton/1)", server.address());
    println!("data: {}", config.data.display());
    if server.is_first_start() {
        println!(
            "made a development authority and the identity {ADMIN} in {}",
            config.data.join("identities").display()
        );
    }
    if let Ok(fingerprint) = identities.fingerprint() {
        println!("authority: {fingerprint}");
    }
    println!("next: jeton issue --subject alice --ttl 1h --grant 'read,comment on journal/42'");
}
