//! A server of this build, as a process of its own on a core of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jeton_client::{Config, Identity};

use crate::Failure;

const START_MAX: Duration = Duration::from_secs(30);

/// Killed when dropped; nothing it wrote is needed afterwards.
pub(crate) struct Server {
    process: Child,
    dir: tempfile::TempDir,
}

/// `jeton` lies beside the folder of the examples.
fn binary() -> Result<PathBuf, Failure> {
    let example = std::env::current_exe()?;
    let profile = example.parent().and_then(|dir| dir.parent()).ok_or("an example lies in a folder")?;
    let binary = profile.join("jeton");
    if binary.is_file() { Ok(binary) } else { Err("build the server first: cargo build --release".into()) }
}

impl Server {
    pub(crate) fn start() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let process = Command::new("taskset")
            .args(["-c", "0"])
            .arg(binary()?)
            .args(["serve", "--listen", "127.0.0.1:0", "--cores", "1", "--tokens-initial", "10000"])
            .env("JETON_DATA", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self { process, dir };
        let began = Instant::now();
        while server.address().is_none() {
            if began.elapsed() > START_MAX {
                return Err("the server did not start".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    fn address(&self) -> Option<std::net::SocketAddr> {
        let note = std::fs::read_to_string(self.dir.path().join("server.json")).ok()?;
        let note: serde_json::Value = serde_json::from_str(&note).ok()?;
        note.get("address")?.as_str()?.parse().ok()
    }

    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let identity = Identity::from_dir(self.dir.path().join("identities/admin"))?;
        Ok(Config::new(self.address().ok_or("the server has no address")?, identity))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
