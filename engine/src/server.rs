//! The server: an engine on disk with QUIC in front, and the order in which all of it starts and stops.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use jeton_core::state::StateConfig;
use jeton_log_store::{DataLock, Options, SledStore};
use jeton_net::driver::{DriverConfig, Limits};
use jeton_net::server::{ReplyQueue, Server, ShardCounters};
use jeton_net::shard::{ShardParts, Shards, StartError, available_cpus, check_memlock, huge_pages};
use jeton_net::socket::{BindError, bind_shards};
use jeton_net::tls::{TlsError, server_config};

use crate::config::ServerConfig;
use crate::credentials::{CredentialsError, Identities, RENEW_DAYS};
use crate::engine::{Engine, EngineConfig, OpenError, SnapshotSchedule, StopError};
use crate::memory;
use crate::snapshots::SnapshotDir;

/// What a running server leaves in its data directory, for the client commands on the same machine.
pub const RUNNING_FILE: &str = "server.json";

/// Why a server does not start or ends badly. Each message says what helps.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error("the data directory {path} cannot be used: {cause}; make it a directory that this user can write to, or choose another with --data", path = path.display())]
    Data {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The log's store.
    #[error(transparent)]
    Store(#[from] jeton_log_store::OpenError),
    /// The log's content.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Memory.
    #[error(transparent)]
    Memory(#[from] memory::TooLittleMemory),
    /// Certificates.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// TLS.
    #[error("what lies in {path} cannot be used: {cause}; put ca.pem, server/server.pem and the key that belongs to it there", path = path.display())]
    Tls {
        /// Where the certificates are.
        path: PathBuf,
        /// What is wrong with them.
        cause: TlsError,
    },
    /// The machine.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The development authority is for one machine.
    #[error(
        "{0} is no loopback address, and the authority's key lies beside the log (identities/ca.key), as a development \
         authority's does: keep the key elsewhere, or say --allow-development-authority"
    )]
    DevelopmentAuthority(SocketAddr),
    /// A shard.
    #[error(transparent)]
    Shard(#[from] jeton_net::shard::ShardError),
    /// The random generator.
    #[error("the system's random generator failed: {0}")]
    Entropy(String),
    /// The end.
    #[error(transparent)]
    Stop(#[from] StopError),
}

/// A server that runs.
#[derive(Debug)]
pub struct RunningServer {
    engine: Engine,
    shards: Shards,
    address: SocketAddr,
    running_file: PathBuf,
    created: bool,
}

/// The sizes of the log that a configuration asks for.
#[must_use]
pub fn store_options(config: &ServerConfig) -> Options {
    Options {
        segment_bytes: config.segment_mib << 20,
        space_reserve: config.space_reserve_mib << 20,
        space_hard: config.space_hard_mib << 20,
        ..Options::default()
    }
}

fn open_engine(lock: DataLock, config: &ServerConfig, accept_clock: bool) -> Result<Engine, ServeError> {
    let mut new_log_id = [0; 16];
    getrandom::fill(&mut new_log_id).map_err(|error| ServeError::Entropy(error.to_string()))?;
    let store = SledStore::open_locked(lock, &config.data, store_options(config), new_log_id)?;
    let schedule = SnapshotSchedule {
        log_bytes: config.snapshot_log_mib << 20,
        interval: Duration::from_secs(config.snapshot_minutes * 60),
    };
    let engine_config = EngineConfig {
        state: StateConfig {
            tokens_initial: config.tokens_initial,
            tokens_max: memory::tokens_max(config.tokens_max, memory::available())?,
            ..StateConfig::default()
        },
        clock_jump_max_ms: config.clock_jump_max_hours.saturating_mul(3_600_000),
        accept_clock,
        snapshots: Some((
            SnapshotDir::of(&config.data).keeping_free(config.space_reserve_mib << 21),
            schedule,
        )),
        read_whole_log: config.read_whole_log,
    };
    Ok(Engine::open(Box::new(store), engine_config, &config.admin)?)
}

fn prepare_data(path: &Path) -> Result<(), ServeError> {
    let failed = |cause| ServeError::Data { path: path.to_owned(), cause };
    // Names of people lie in the log.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let probe = tempfile::tempfile_in(path).map_err(failed)?;
    drop(probe);
    Ok(())
}

impl RunningServer {
    /// Starts a server: checks the machine, opens the log, binds the address, then answers.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is left running.
    pub fn start(config: &ServerConfig, accept_clock: bool) -> Result<Self, ServeError> {
        prepare_data(&config.data)?;
        let lock = DataLock::take(&config.data)?;
        let cpus = available_cpus(config.cores)?;
        check_memlock(cpus.len())?;
        if !huge_pages() {
            tracing::warn!(
                "no huge pages: lookups take up to three times as long; set \
                 /sys/kernel/mm/transparent_hugepage/enabled to madvise or always"
            );
        }
        let identities = Identities::of(&config.data);
        let created = identities.create_missing()?;
        let is_open = !config.listen.ip().is_loopback();
        if is_open && identities.is_development() && !config.allow_development_authority {
            return Err(ServeError::DevelopmentAuthority(config.listen));
        }
        for (what, days) in ["server", "authority"].into_iter().zip(identities.renew_server()?) {
            if days < RENEW_DAYS {
                tracing::warn!(days, "the {what}'s certificate is about to expire, or has: replace it");
            }
        }
        let credentials = identities.server()?;
        // From the server's key: the same after a restart, and nobody else's.
        let reset_key =
            jeton_core::derived_key("jeton 2026-11-24 stateless reset v1", credentials.key.secret_der());
        let unusable = |cause| ServeError::Tls { path: config.data.join("identities"), cause };
        let tls = Arc::new(server_config(credentials).map_err(unusable)?);
        let sockets = bind_shards(config.listen, cpus.len())?;
        let address = sockets.first().map_or(Ok(config.listen), jeton_net::socket::Socket::local_addr);
        let address = address.map_err(|cause| BindError::Other { address: config.listen, cause })?;
        let engine = open_engine(lock, config, accept_clock)?;

        let shard_count = u8::try_from(cpus.len()).unwrap_or(u8::MAX);
        let limits = Limits { connections_max: config.connections_max, ..Limits::default() };
        let parts = cpus.into_iter().zip(sockets).zip(0..shard_count).map(|((cpu, socket), shard)| {
            let driver = DriverConfig {
                limits,
                shard,
                shards: shard_count,
                large_datagrams: config.large_datagrams,
                reset_key: Some(reset_key),
                ..DriverConfig::server(Arc::clone(&tls))
            };
            let spin = Duration::from_micros(u64::from(config.spin_us));
            ShardParts { cpu, socket, driver, spin }
        });
        let running_file = config.data.join(RUNNING_FILE);
        // One certificate, stolen or run wild, does not keep all others out.
        let per_identity_max = config.connections_max.div_ceil(2);
        let shards = start_shards(&engine, parts.collect(), per_identity_max)?;
        let server = Self { engine, shards, address, running_file, created };
        match fs::write(&server.running_file, server.note()) {
            Ok(()) => Ok(server),
            Err(cause) => {
                let path = server.running_file.clone();
                let _ = server.stop();
                Err(ServeError::Data { path, cause })
            }
        }
    }

    /// Where clients on this machine find it.
    fn note(&self) -> String {
        let ip = match self.address.ip() {
            ip if !ip.is_unspecified() => ip,
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        let address = SocketAddr::new(ip, self.address.port());
        serde_json::json!({ "address": address, "pid": std::process::id() }).to_string()
    }

    /// Gets a word once a shard has ended before it was told to: the server is to be stopped.
    #[must_use]
    pub fn failed(&self) -> Receiver<()> {
        self.shards.ended()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether this was the first start, which made the certificates.
    #[must_use]
    pub fn is_first_start(&self) -> bool {
        self.created
    }

    /// The engine behind it.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stops in order: no new work, what was taken on is answered, the log is flushed and closed.
    ///
    /// # Errors
    /// [`ServeError`]; what was acknowledged is durable all the same.
    pub fn stop(self) -> Result<(), ServeError> {
        self.engine.begin_stop();
        self.shards.stop();
        let shards = self.shards.join();
        let _ = fs::remove_file(&self.running_file);
        self.engine.stop()?;
        Ok(shards?)
    }
}

fn start_shards(
    engine: &Engine,
    parts: Vec<ShardParts>,
    connections_per_identity_max: usize,
) -> Result<Shards, ServeError> {
    let counters: Vec<Arc<ShardCounters>> = parts.iter().map(|_| Arc::default()).collect();
    // The doors hold channels that are to close when the shards end: each shard is given its own.
    let make_doors = engine.door_maker();
    let shards = Shards::start(parts, move |number, bell| {
        let replies = ReplyQueue::new(bell);
        let doors = make_doors.make(replies.clone(), counters.clone());
        Server::new(doors, replies, Arc::clone(&counters[number]), connections_per_identity_max)
    })?;
    Ok(shards)
}
