//! Which server to load, and as whom: the same rules as the `jeton` command's.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jeton_net::tls::Credentials;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A server and an identity. Without any of these: the server on this machine's default data directory.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Target {
    /// The data directory of a server on this machine.
    #[arg(long, value_name = "DIR", env = "JETON_DATA")]
    data: Option<PathBuf>,
    /// The address of a server anywhere.
    #[arg(long, value_name = "HOST:PORT", env = "JETON_CONNECT", requires = "identity")]
    connect: Option<String>,
    /// A folder with ca.pem, client.pem and client.key.
    #[arg(long, value_name = "DIR", env = "JETON_IDENTITY")]
    identity: Option<PathBuf>,
}

fn default_data() -> PathBuf {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("XDG_DATA_HOME")
        .or_else(|| of("HOME").map(|home| home.join(".local/share")))
        .map_or_else(|| PathBuf::from("/var/lib/jeton"), |base| base.join("jeton"))
}

fn note(data: &Path) -> Option<serde_json::Value> {
    serde_json::from_str(&std::fs::read_to_string(data.join("server.json")).ok()?).ok()
}

fn read(dir: &Path, file: &str) -> anyhow::Result<Vec<u8>> {
    let path = dir.join(file);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

impl Target {
    fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(default_data)
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        if let Some(text) = &self.connect {
            let mut addresses = text.to_socket_addrs().with_context(|| format!("{text} is no address"))?;
            return addresses.next().with_context(|| format!("{text} has no address"));
        }
        let data = self.data();
        let address = note(&data).and_then(|note| note.get("address")?.as_str()?.parse().ok());
        address.with_context(|| format!("no server runs on {}: start one with `jeton serve`", data.display()))
    }

    /// The server's process, if it is on this machine.
    pub(crate) fn pid(&self) -> Option<u32> {
        if self.connect.is_some() {
            return None;
        }
        u32::try_from(note(&self.data())?.get("pid")?.as_u64()?).ok()
    }

    /// What to show the server and whom to trust.
    pub(crate) fn credentials(&self) -> anyhow::Result<Credentials> {
        let dir = self.identity.clone().unwrap_or_else(|| self.data().join("identities/admin"));
        let certificates = |file: &str| -> anyhow::Result<Vec<CertificateDer<'static>>> {
            let pem = read(&dir, file)?;
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().with_context(|| file.to_owned())
        };
        Ok(Credentials {
            chain: certificates("client.pem")?,
            key: PrivateKeyDer::from_pem_slice(&read(&dir, "client.key")?).context("client.key")?,
            authorities: certificates("ca.pem")?,
        })
    }
}
