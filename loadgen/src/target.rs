//! Which server to load, and as whom: the same rules as the `jeton` command's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use jeton_net::tls::Credentials;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::measure::cpu_of;
use crate::peer::Peer;
use crate::peer::introspection::{Endpoint, IntrospectionPeer};
use crate::peer::jeton::{Address, JetonPeer};
use crate::peer::redis::{RedisAddress, RedisPeer};
use crate::peer::remote::{Remote, resolve};

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
    /// The name in the server's certificate.
    #[arg(long, env = "JETON_SERVER_NAME", default_value = "jeton")]
    server_name: String,
    #[command(flatten)]
    remote: Remote,
    /// Look for datagrams of up to 8,900 bytes, which loopback and jumbo frames carry (the default), or of 1,452 at most.
    #[arg(long, value_name = "BOOL")]
    large_datagrams: Option<bool>,
    /// The server's process, to measure its CPU time and memory; that of the data directory if not given.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Bind workers to these cores, each to one of them by turns: 1,3.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cores: Vec<usize>,
}

/// A server that can be connected to, and looked at if it is on this machine.
#[derive(Clone)]
pub(crate) struct Server {
    at: At,
    pid: Option<u32>,
    cores: Vec<usize>,
}

#[derive(Clone)]
enum At {
    Jeton(Address),
    Redis(RedisAddress),
    Introspection(Endpoint),
}

impl Server {
    /// The server that was asked for; nothing is connected yet.
    pub(crate) fn new(target: &Target) -> anyhow::Result<Self> {
        target.remote.check()?;
        target.remote.check_credentials()?;
        ensure!(
            target.remote.peer.is_none() || target.large_datagrams.is_none(),
            "--large-datagrams is of no use with --peer: only Jeton has datagrams"
        );
        let pid = target.server_pid.or_else(|| target.pid());
        if let Some(pid) = target.server_pid.filter(|pid| cpu_of(*pid).is_none()) {
            bail!("there is no process {pid} to measure");
        }
        if let Some(url) = &target.remote.peer {
            let at = if url.starts_with("http") {
                At::Introspection(target.remote.endpoint(url)?)
            } else {
                At::Redis(target.remote.redis(url)?)
            };
            return Ok(Self { at, pid: target.server_pid, cores: target.cores()? });
        }
        let address = Address::new(
            target.address()?,
            target.server_name.clone(),
            target.credentials()?,
            target.large_datagrams.unwrap_or(true),
        )?;
        Ok(Self { at: At::Jeton(address), pid, cores: target.cores()? })
    }

    /// So many connections for one worker.
    pub(crate) fn connect(&self, connections: u16, streams: u16) -> anyhow::Result<Box<dyn Peer>> {
        Ok(match &self.at {
            At::Jeton(address) => Box::new(JetonPeer::connect(address, usize::from(connections), streams)?),
            At::Redis(address) => Box::new(RedisPeer::connect(address, usize::from(connections))?),
            At::Introspection(endpoint) => {
                Box::new(IntrospectionPeer::connect(endpoint, usize::from(connections))?)
            }
        })
    }

    /// Binds the calling thread to the core for the worker with this number, if cores were named.
    pub(crate) fn bind(&self, worker: u16) -> anyhow::Result<()> {
        let Some(core) = self.cores.get(usize::from(worker) % self.cores.len().max(1)) else { return Ok(()) };
        let mut set = CpuSet::new();
        set.set(*core);
        sched_setaffinity(None, &set).with_context(|| format!("a worker cannot be bound to core {core}"))
    }

    /// Whether it is asked to make the tokens of a key space: an introspection endpoint cannot be.
    pub(crate) fn issues(&self) -> bool {
        !matches!(self.at, At::Introspection(_))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.at {
            At::Jeton(to) => write!(f, "jeton at {}", to.address),
            At::Redis(to) => write!(f, "redis at {to}"),
            At::Introspection(to) => write!(f, "introspection at {to}"),
        }
    }
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
    /// The cores that were named, which this process may use.
    fn cores(&self) -> anyhow::Result<Vec<usize>> {
        let set = sched_getaffinity(None).context("the cores of this process")?;
        if let Some(core) = self.cores.iter().find(|core| **core >= CpuSet::MAX_CPU || !set.is_set(**core)) {
            let has: Vec<_> =
                (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).map(|core| core.to_string()).collect();
            bail!("--cores names {core}: there are {}", has.join(","));
        }
        Ok(self.cores.clone())
    }

    fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(default_data)
    }

    /// Where the server listens.
    fn address(&self) -> anyhow::Result<SocketAddr> {
        if let Some(text) = &self.connect {
            return resolve(text);
        }
        let data = self.data();
        let address = note(&data).and_then(|note| note.get("address")?.as_str()?.parse().ok());
        address.with_context(|| format!("no server runs on {}: start one with `jeton serve`", data.display()))
    }

    /// The server's process, if it is on this machine.
    fn pid(&self) -> Option<u32> {
        if self.connect.is_some() {
            return None;
        }
        u32::try_from(note(&self.data())?.get("pid")?.as_u64()?).ok()
    }

    /// What to show the server and whom to trust.
    fn credentials(&self) -> anyhow::Result<Credentials> {
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
