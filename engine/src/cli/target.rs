//! Which server a command talks to, and as whom.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jeton_client::{Client, Config, Identity};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::config::default_data;
use crate::credentials::{Identities, SERVER_NAME};
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
    /// The name that the server's certificate has.
    #[arg(long, value_name = "NAME", env = "JETON_SERVER_NAME", default_value = SERVER_NAME)]
    server_name: String,
}

/// Where the server of a data directory listens, by its own note, unless its process is gone.
pub(super) fn running_address(data: &Path) -> Option<SocketAddr> {
    let note = std::fs::read_to_string(data.join(RUNNING_FILE)).ok()?;
    let note: serde_json::Value = serde_json::from_str(&note).ok()?;
    let pid = Pid::from_raw(i32::try_from(note.get("pid")?.as_u64()?).ok()?)?;
    let is_gone = test_kill_process(pid) == Err(Errno::SRCH);
    note.get("address")?.as_str()?.parse().ok().filter(|_| !is_gone)
}

impl Target {
    /// The server of a data directory.
    pub(super) fn of_data(data: &Path) -> Self {
        let (data, server_name) = (Some(data.to_owned()), SERVER_NAME.to_owned());
        Self { data, connect: None, identity: None, server_name }
    }

    /// Whether a server is meant by its address, wherever it is.
    pub(super) fn is_remote(&self) -> bool {
        self.connect.is_some()
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
        let mut config = Config::new(address, Identity::from_dir(identity)?);
        config.server_name.clone_from(&self.server_name);
        Ok(config)
    }

    /// Connects and lets `act` talk to the server.
    pub(super) fn with<R>(&self, act: impl AsyncFnOnce(&Client) -> anyhow::Result<R>) -> anyhow::Result<R> {
        let config = self.config()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let address = config.address;
        runtime.block_on(async {
            let client = Client::connect(config).await;
            let client = client.with_context(|| format!("the server at {address}"))?;
            let result = act(&client).await;
            client.close().await;
            result
        })
    }
}
