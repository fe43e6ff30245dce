//! The server's host: kills it and starts it again where its clients look for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use jeton_client::{Config, Identity};

use crate::linear::weather::{Passed, Relay};
use crate::{Server, run};

/// The identities that clients have; the first has every right.
pub(super) const IDENTITIES: [&str; 3] = ["admin", "clerk", "guard"];

/// A server, its data and its address.
pub(super) struct Host {
    data: PathBuf,
    address: SocketAddr,
    /// What clients connect to, if the network is a bad one.
    relay: Option<Relay>,
    /// `None` between a kill and the next start.
    server: Option<Server>,
    /// How many servers were killed.
    kills: u32,
}

fn start(data: &Path, listen: &str) -> Server {
    Server::start_as(
        data,
        &["--listen", listen, "--cores", "1"],
        &[("JETON_SEGMENT_MIB", "8"), ("JETON_SNAPSHOT_LOG_MIB", "1")],
    )
}

impl Host {
    /// Starts a server with new data and the identities, behind a bad network if that has a seed.
    pub(super) fn start(data: &Path, weather: Option<u64>) -> Self {
        let _ = std::fs::remove_dir_all(data);
        let server = start(data, "127.0.0.1:0");
        for identity in &IDENTITIES[1..] {
            let create = ["identity", "create", identity, "--rights", "issue,validate,revoke,inspect"];
            let made = run(data, &create, "");
            assert!(made.status.success(), "{made:?}");
        }
        let address = server.address;
        let relay = weather.map(|seed| Relay::start(address, seed));
        Self { data: data.to_owned(), address, relay, server: Some(server), kills: 0 }
    }

    /// How a client with this identity connects, whichever process is there.
    pub(super) fn config(&self, identity: &str) -> Config {
        let identity = Identity::from_dir(self.data.join("identities").join(identity));
        let address = self.relay.as_ref().map_or(self.address, |relay| relay.address);
        Config::new(address, identity.expect("an identity"))
    }

    /// Kills the server, does something to what it left, and starts it again at the same address.
    pub(super) fn kill_and(&mut self, act: impl FnOnce(&Self)) {
        if let Some(server) = self.server.take() {
            server.kill9();
            self.kills += 1;
        }
        act(self);
        self.server = Some(start(&self.data, &self.address.to_string()));
    }

    pub(super) fn kills(&self) -> u32 {
        self.kills
    }

    fn copy_path(&self) -> PathBuf {
        self.data.with_extension("copy")
    }

    /// Keeps a copy of the data.
    pub(super) fn copy(&self) {
        copy(&self.data, &self.copy_path());
    }

    /// Puts the copy in the place of the data.
    pub(super) fn set_back(&self) {
        copy(&self.copy_path(), &self.data);
    }

    /// Stops the server in order; what the network did, if it was a bad one.
    pub(super) fn stop(mut self) -> Option<Passed> {
        if let Some(server) = self.server.take() {
            server.terminate();
        }
        self.relay.map(Relay::stop)
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "the data is copied");
}
