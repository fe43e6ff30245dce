//! The demo's server: this same binary, as a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cli::target::running_address;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);

/// A server process; killed when dropped.
pub(super) struct Host {
    process: Child,
    address: SocketAddr,
}

impl Host {
    pub(super) async fn start(data: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(data.join("server.log"))?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", "--exit-with-parent", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .env_remove("JETON_LISTEN")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting a server")?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(address) = running_address(data) {
                return Ok(Self { process, address });
            }
            if let Some(status) = process.try_wait()? {
                let words = std::fs::read_to_string(data.join("server.log")).unwrap_or_default();
                bail!("the server ended at once, {status}: {}", words.trim());
            }
            tokio::time::sleep(LOOK).await;
        }
        let _ = process.kill();
        bail!("the server did not start within {} s", PATIENCE.as_secs())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks the server to stop, and sees that it does so in order.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait()? {
                anyhow::ensure!(status.success(), "the server did not stop in order: {status}");
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("the server did not stop within {} s", PATIENCE.as_secs())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Bytes that the files below a directory take on disk.
pub(super) fn bytes_below(dir: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
