//! Which server a command talks to, and as whom.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jeton_client::{Client, Config, Identity};

use crate::config::default_data;
use crate::credentials::Identities;
use crate::server::RUNNING_FILE;

/// A server and an identity. Without any of these: the server on this machine's default data directory, as its
/// administrator.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Target {
    /// The data directory of a server on this machine.
    #[arg(long, value_name = "DIR", env = "JETON_DATA")]
    pub(super) data: Option<PathBuf>,
    /// The address of a server anywhere.
    #[arg(long, value_name = "HOST:PORT", env = "JETON_CONNECT", requires = "identity")]
    connect: Option<String>,
    /// A folder with ca.pem, client.pem and client.key.
    #[arg(long, value_name = "DIR", env = "JETON_IDENTITY")]
    identity: Option<PathBuf>,
}

/// Where the server of a data directory listens, by its own note.
pub(super) fn running_address(data: &Path) -> Option<SocketAddr> {
    let note = std::fs::read_to_string(data.join(RUNNING_FILE)).ok()?;
    let note: serde_json::Value = serde_json::from_str(&note).ok()?;
    note.get("address")?.as_str()?.parse().ok()
}

impl Target {
    /// The server of a data directory.
    pub(super) fn of_data(data: &Path) -> Self {
        Self { data: Some(data.to_owned()), connect: None, identity: None }
    }

    /// The data directory meant.
    pub(super) fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(default_data)
    }

    fn config(&self) -> anyhow::Result<Config> {
        let data = self.data();
        let address = match &self.connect {
            Some(text) => {
                let mut addresses =
                    text.to_socket_addrs().with_context(|| format!("{text} is no address"))?;
                addresses.next().with_context(|| format!("{text} has no address"))?
            }
            None => match running_address(&data) {
                Some(address) => address,
                None => bail!(
                    "no server runs on {}: start one with `jeton serve`, or name one with --data or --connect",
                    data.display()
                ),
            },
        };
        let identity = self.identity.clone().unwrap_or_else(|| Identities::of(&data).client_dir("admin"));
        Ok(Config::new(address, Identity::from_dir(identity)?))
    }

    /// Connects and lets `act` talk to the server.
    pub(super) fn with<R>(&self, act: impl AsyncFnOnce(&Client) -> anyhow::Result<R>) -> anyhow::Result<R> {
        let config = self.config()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = Client::connect(config).await?;
            act(&client).await
        })
    }
}
