//! What the end-to-end tests share: the real `jeton` binary as a process, and clients that talk to it over real QUIC.
//! Beside it, the simulator ([`sim`]), and power loss and faults under the real store ([`power`]).

#[path = "../power/power.rs"]
pub mod power;
#[path = "../sim/sim.rs"]
pub mod sim;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jeton_client::{Claims, Client, Config, Grant, Identity, IssueTokens, Name};

/// How long a server may take to start or stop.
pub const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);

/// The `jeton` binary of this build.
///
/// # Panics
/// If it does not build.
pub fn jeton() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("jeton"))
}

/// The `jeton-load` binary of this build.
///
/// # Panics
/// If it does not build.
pub fn jeton_load() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("jeton-load"))
}

fn built(package: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile_dir = test.parent().and_then(Path::parent).expect("a test lies in <target>/<profile>/deps");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "-p", package]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    if let Some(target) = profile_dir.parent() {
        build.arg("--target-dir").arg(target);
    }
    assert!(build.status().expect("cargo runs").success(), "{package} builds");
    profile_dir.join(package)
}

/// Runs `jeton` with arguments and an input, on a data directory, to its end.
///
/// # Panics
/// If it cannot be run.
pub fn run(data: &Path, arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut process = command(data)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("jeton runs");
    let mut stdin = process.stdin.take().expect("it has an input");
    // Whoever does not read its input has ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    process.wait_with_output().expect("jeton ends")
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(jeton());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("JETON_")) {
        command.env_remove(name);
    }
    command.env("JETON_DATA", data);
    command
}

/// A server process; killed when dropped.
pub struct Server {
    process: Child,
    /// Its data directory.
    pub data: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server on a free port and waits until it listens.
    ///
    /// # Panics
    /// If it does not, with its words.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, "127.0.0.1:0", &[])
    }

    /// As [`Self::start`], at an address and with more environment.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(data: &Path, listen: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_as(data, &["--listen", listen, "--cores", "1"], environment)
    }

    /// As [`Self::start`], with these flags and more environment.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_as(data: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let note = data.join("server.json");
        let _ = std::fs::remove_file(&note);
        std::fs::create_dir_all(data).expect("a data directory");
        let log =
            File::options().create(true).append(true).open(data.join("server.log")).expect("a log file");
        let mut process = command(data)
            .args(["serve", "--tokens-initial", "10000"])
            .args(flags)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("jeton runs");
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let text = std::fs::read_to_string(&note).unwrap_or_default();
            let note: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let address = note.and_then(|note| note.get("address")?.as_str()?.parse().ok());
            if let Some(address) = address {
                return Self { process, data: data.to_owned(), address };
            }
            if let Some(status) = process.try_wait().expect("a status") {
                let words = std::fs::read_to_string(data.join("server.log")).unwrap_or_default();
                panic!("the server ended, {status}: {words}");
            }
            std::thread::sleep(LOOK);
        }
        let _ = process.kill();
        let _ = process.wait();
        panic!("the server did not start");
    }

    /// The process as a power cut would leave it.
    pub fn kill9(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Asks it to stop.
    ///
    /// # Panics
    /// If it does not end with 0 in time.
    pub fn terminate(mut self) {
        let pid = i32::try_from(self.process.id()).expect("a process id");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().expect("a status") {
                assert!(status.success(), "the server stops in order: {status}");
                return;
            }
            std::thread::sleep(LOOK);
        }
        panic!("the server did not stop");
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("server.log")).unwrap_or_default()
    }

    /// A client with the identity of this short name.
    ///
    /// # Panics
    /// If it cannot connect.
    pub async fn client_as(&self, name: &str) -> Client {
        let identity = Identity::from_dir(self.data.join("identities").join(name)).expect("an identity");
        Client::connect(Config::new(self.address, identity)).await.expect("it connects")
    }

    /// A client with every right.
    pub async fn admin(&self) -> Client {
        self.client_as("admin").await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A name.
///
/// # Panics
/// If it is none.
pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// An issue for these subjects: an hour, `read on journal/42`.
///
/// # Panics
/// If a subject is no name.
pub fn issue_for(subjects: &[&str]) -> IssueTokens {
    let grant: Grant = "read on journal/42".parse().expect("a grant");
    IssueTokens {
        tenant: name("default"),
        subjects: subjects.iter().map(|subject| name(subject)).collect(),
        claims: Claims::new([], [], [grant], Default::default()).expect("claims"),
        ttl_s: 3_600,
        not_before_s: 0,
        renewable_s: 0,
        uses_max: 0,
        parent: None,
        binding: None,
    }
}
