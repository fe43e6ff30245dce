//! What the end-to-end tests share: the real `jeton` binary as a process, and clients that talk to it over real QUIC.
//! Beside it, the simulator ([`sim`]), power loss and faults under the real store ([`power`]), the loops that kill
//! servers ([`kill`]) and damage data directories ([`damage`]), recorded histories ([`linear`]), attacks ([`attack`]) and
//! the soak ([`soak`]).

#[path = "../attack/attack.rs"]
pub mod attack;
#[path = "../damage/damage.rs"]
pub mod damage;
#[path = "../kill/kill.rs"]
pub mod kill;
#[path = "../linear/linear.rs"]
pub mod linear;
#[path = "../power/power.rs"]
pub mod power;
#[path = "../sim/sim.rs"]
pub mod sim;
#[path = "../soak/soak.rs"]
pub mod soak;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jeton_client::{Claims, Client, Config, Grant, Identity, IssueTokens, Name};

/// How long a server may take to start, to stop or to answer: on a machine that does much else at a time.
pub const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);

/// The `jeton` binary of this build, without the mistakes that the simulator makes.
///
/// # Panics
/// If it does not build.
pub fn jeton() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built().join("jeton"))
}

/// The `jeton-load` binary of this build.
///
/// # Panics
/// If it does not build.
pub fn jeton_load() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built().join("jeton-load"))
}

/// Builds both at once, so that they share what they are made of; returns the folder in which they are.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    // A test lies in <target>/<profile>/deps, a binary beside that.
    let dir = test.parent().expect("a program lies in a folder");
    let profile_dir = if dir.ends_with("deps") { dir.parent().expect("deps lies in a folder") } else { dir };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "-p", "jeton", "-p", "jeton-load", "--bins"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    // What `cargo test` tells this test of its own package: ring's build script asks to run again when that changes, and
    // everything above ring would be compiled anew, now and by the next `cargo` from a shell.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    if let Some(target) = profile_dir.parent() {
        build.arg("--target-dir").arg(target);
    }
    assert!(build.status().expect("cargo runs").success(), "jeton and jeton-load build");
    profile_dir.to_owned()
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

/// As [`run`], without an input and with a watchdog: `None` if it did not end in time, and was killed.
///
/// # Panics
/// If it cannot be run.
pub fn run_within(data: &Path, arguments: &[&str], patience: Duration) -> Option<Output> {
    let mut process = command(data);
    process.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = process.spawn().expect("jeton runs");
    let began = Instant::now();
    // What these commands print fits into the pipes, or is read by `wait_with_output` once they end.
    let (mut stdout, mut stderr) = (process.stdout.take(), process.stderr.take());
    std::thread::scope(|scope| {
        let out = scope.spawn(move || read_all(stdout.as_mut()));
        let err = scope.spawn(move || read_all(stderr.as_mut()));
        while process.try_wait().expect("a status").is_none() {
            if began.elapsed() >= patience {
                let _ = process.kill();
                let _ = process.wait();
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = process.wait().expect("a status");
        let (stdout, stderr) = (out.join().expect("no panic"), err.join().expect("no panic"));
        Some(Output { status, stdout, stderr })
    })
}

fn read_all(pipe: Option<&mut impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = pipe.map(|pipe| pipe.read_to_end(&mut bytes));
    bytes
}

/// A directory that is removed with its value; in memory where there is such a place, for nothing has to outlive a test.
///
/// # Panics
/// If there is no room.
pub fn work_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a directory")
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(jeton());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("JETON_")) {
        command.env_remove(name);
    }
    command.env("JETON_DATA", data);
    command
}

/// Why a server did not start.
#[derive(Debug)]
pub enum StartFailure {
    /// It ended instead.
    Ended {
        /// How.
        status: std::process::ExitStatus,
        /// All that servers logged in this directory.
        words: String,
    },
    /// It neither listened nor ended within [`PATIENCE`], and was killed.
    Silent,
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
        match Self::try_start_as(data, flags, environment) {
            Ok(server) => server,
            Err(StartFailure::Ended { status, words }) => panic!("the server ended, {status}: {words}"),
            Err(StartFailure::Silent) => panic!("the server did not start"),
        }
    }

    /// As [`Self::start`], with more environment, for whom it may well not start.
    ///
    /// # Errors
    /// [`StartFailure`].
    ///
    /// # Panics
    /// If it cannot be run at all.
    pub fn try_start(data: &Path, environment: &[(&str, &str)]) -> Result<Self, StartFailure> {
        Self::try_start_as(data, &["--listen", "127.0.0.1:0", "--cores", "1"], environment)
    }

    fn try_start_as(data: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Result<Self, StartFailure> {
        let mut process = Self::spawn(data, flags, environment);
        let note = data.join("server.json");
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let text = std::fs::read_to_string(&note).unwrap_or_default();
            let note: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let address = note.and_then(|note| note.get("address")?.as_str()?.parse().ok());
            if let Some(address) = address {
                return Ok(Self { process, data: data.to_owned(), address });
            }
            if let Some(status) = process.try_wait().expect("a status") {
                let words = std::fs::read_to_string(data.join("server.log")).unwrap_or_default();
                return Err(StartFailure::Ended { status, words });
            }
            std::thread::sleep(LOOK);
        }
        let _ = process.kill();
        let _ = process.wait();
        Err(StartFailure::Silent)
    }

    /// Begins a start and kills it, whether it is through or not.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn start_and_kill(data: &Path, flags: &[&str], environment: &[(&str, &str)], after: Duration) {
        let mut process = Self::spawn(data, flags, environment);
        std::thread::sleep(after);
        let _ = process.kill();
        let _ = process.wait();
    }

    fn spawn(data: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Child {
        let _ = std::fs::remove_file(data.join("server.json"));
        std::fs::create_dir_all(data).expect("a data directory");
        let log =
            File::options().create(true).append(true).open(data.join("server.log")).expect("a log file");
        command(data)
            .args(["serve", "--tokens-initial", "10000"])
            .args(flags)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("jeton runs")
    }

    /// The process as a power cut would leave it.
    pub fn kill9(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Sends the signal to stop, and does not wait.
    ///
    /// # Panics
    /// If it has ended.
    pub fn ask_to_stop(&self) {
        let pid = i32::try_from(self.process.id()).expect("a process id");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Panics
    /// If it does not end with 0 in time.
    pub fn terminate(mut self) {
        self.ask_to_stop();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().expect("a status") {
                assert!(status.success(), "the server stops in order: {status}\n{}", self.log());
                return;
            }
            std::thread::sleep(LOOK);
        }
        panic!("the server did not stop");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
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

/// Reads a span of time: a number with `s`, `m` or `h`.
///
/// # Errors
/// Words for whoever typed something else.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600)];
    let parsed = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (number, seconds) = parsed.ok_or("a duration is written such as 90s, 30m or 8h")?;
    let number: u64 = number.parse().map_err(|_| format!("{number} is no number"))?;
    Ok(Duration::from_secs(number * seconds))
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
