//! Servers pinned to a core, and the load generator that measures them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::shapes::{Peer, Shape};
use crate::writes::Writer;

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one measurement showed.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) tokens_per_s: f64,
    pub(crate) tokens_per_cpu_s: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    /// CPU seconds that the generator took.
    pub(crate) generator_cpu_s: f64,
}

/// What one measurement of durable writes showed.
#[derive(Clone, Debug)]
pub(crate) struct WriteFigures {
    pub(crate) per_s: f64,
    /// CPU microseconds of the server for a write.
    pub(crate) cpu_us: f64,
    pub(crate) p50_us: u64,
}

/// A process that ends with its value.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All servers, and how to measure them.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
    binaries: PathBuf,
    core: String,
    generator_cores: String,
    tokens: u32,
    jeton: Process,
    jeton_small: Process,
    redis: Process,
    redis_tls: Process,
    redis_durable: Process,
    ports: [u16; 3],
}

/// How a Redis is to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plaintext,
    Tls,
    /// Plaintext; syncs each write before it answers.
    Durable,
}

pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{:?}", command.get_program()))?;
    ensure!(status.success(), "{:?} failed: {status}", command.get_program());
    Ok(())
}

/// What a command prints that ends well.
pub(crate) fn printed(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{:?}", command.get_program()))?;
    let [printed, complaint] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(
        output.status.success(),
        "{:?} failed: {}: {printed}{complaint}",
        command.get_program(),
        output.status
    );
    Ok(printed)
}

/// Debian's package, if there is no Redis yet.
fn install_redis() -> anyhow::Result<()> {
    if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return Ok(());
    }
    eprintln!("redis-server is missing: installing Debian's package");
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    run(Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends", "redis-server"]))
        .context("redis-server cannot be installed: install it by hand, or run this as root")
}

/// Builds what is measured.
fn build() -> anyhow::Result<()> {
    run(cargo().args(["build", "--release", "-p", "jeton", "-p", "jeton-load"]))
}

/// A `cargo` as from a shell.
pub(crate) fn cargo() -> Command {
    as_from_a_shell(Command::new(cargo_path()))
}

/// The same on certain cores, with all that it starts.
pub(crate) fn pinned_cargo(cores: &str) -> Command {
    as_from_a_shell(pinned(cores, &cargo_path()))
}

fn cargo_path() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// What `cargo run` tells this program of its own package is taken away: ring's build script asks to run again when that
/// changes, and everything above ring would be compiled anew, now and by the next `cargo` from a shell.
fn as_from_a_shell(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// What this is measured on.
pub(crate) fn machine() -> anyhow::Result<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load: f64 = load.split(' ').next().and_then(|text| text.parse().ok()).context("a load average")?;
    let cores = std::thread::available_parallelism()?;
    // A server, a generator, and one of each that has just ended.
    let is_busy = load > 4.0;
    Ok(format!(
        "{}, {cores} cores, Linux {}, load average {load} at the end{}",
        cpu.map_or("unknown", |(_, name)| name),
        kernel.trim(),
        if is_busy { ": **busy with other work**, so take these for no more than ratios" } else { "" },
    ))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A command on certain cores.
fn pinned(cores: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cores).arg(program);
    command
}

fn wait_until(what: &str, is_there: impl Fn() -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    while !is_there() {
        ensure!(began.elapsed() < PATIENCE, "{what} did not start within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Starts a server, with one shard, and waits until it listens.
fn serve(mut program: Command, data: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Process> {
    let process = program
        .args(["serve", "--cores", "1", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .envs(environment.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{:?} (taskset is in Debian's util-linux)", program.get_program()))?;
    let process = Process(process);
    wait_until("jeton", || data.join("server.json").exists())?;
    Ok(process)
}

impl Rig {
    /// Installs and builds what is missing, and starts all servers on one core.
    pub(crate) fn start(server_core: u32, generator_cores: &str, tokens: u32) -> anyhow::Result<Self> {
        install_redis()?;
        build()?;
        let binaries = std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned();
        let dir = tempfile::tempdir()?;
        let core = server_core.to_string();
        let jeton = Self::jeton(&binaries, &dir.path().join("jeton"), &core, &[])?;
        let small = [("JETON_LARGE_DATAGRAMS", "false")];
        let jeton_small = Self::jeton(&binaries, &dir.path().join("jeton-small"), &core, &small)?;
        let ports = [free_port()?, free_port()?, free_port()?];
        let redis = Self::redis(dir.path(), &core, ports[0], Kind::Plaintext)?;
        let redis_tls = Self::redis(dir.path(), &core, ports[1], Kind::Tls)?;
        let redis_durable = Self::redis(dir.path(), &core, ports[2], Kind::Durable)?;
        let generator_cores = generator_cores.to_owned();
        let rig = Self {
            dir,
            binaries,
            core,
            generator_cores,
            tokens,
            jeton,
            jeton_small,
            redis,
            redis_tls,
            redis_durable,
            ports,
        };
        // The first run of each fills its key space, which later ones read from a file.
        for peer in crate::shapes::PEERS {
            rig.measure(peer, &crate::shapes::SHAPES[0], 1)?;
        }
        Ok(rig)
    }

    fn jeton(
        binaries: &Path,
        data: &Path,
        core: &str,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Process> {
        serve(pinned(core, &binaries.join("jeton")), data, environment)
    }

    /// A Redis that keeps nothing, as fast as it can be, but for the durable one. Its certificates are those that Jeton made, so
    /// that both check the same ones, and both sides show them.
    fn redis(dir: &Path, core: &str, port: u16, kind: Kind) -> anyhow::Result<Process> {
        let identities = dir.join("jeton/identities");
        let port_text = port.to_string();
        let mut command = pinned(core, Path::new("redis-server"));
        command.args(["--bind", "127.0.0.1", "--save", "", "--io-threads", "1"]);
        let keeps = if kind == Kind::Durable { "yes" } else { "no" };
        command.args(["--appendonly", keeps, "--appendfsync", "always"]);
        if kind == Kind::Tls {
            command.args(["--port", "0", "--tls-port", &port_text, "--tls-auth-clients", "yes"]);
            command.args(["--tls-protocols", "TLSv1.3", "--tls-ciphersuites", "TLS_AES_128_GCM_SHA256"]);
            command.arg("--tls-cert-file").arg(identities.join("server/server.pem"));
            command.arg("--tls-key-file").arg(identities.join("server/server.key"));
            command.arg("--tls-ca-cert-file").arg(identities.join("ca.pem"));
        } else {
            command.args(["--port", &port_text]);
        }
        let process =
            Process(command.current_dir(dir).stdout(Stdio::null()).spawn().context("redis-server")?);
        wait_until("redis-server", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(process)
    }

    /// One more server of Jeton on the core of the others.
    pub(crate) fn jeton_with(&self, data: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Process> {
        Self::jeton(&self.binaries, data, &self.core, environment)
    }

    /// One more that may use every core, and writes a snapshot only when one is ordered.
    pub(crate) fn jeton_on_all_cores(&self, data: &Path) -> anyhow::Result<Process> {
        let never = [("JETON_SNAPSHOT_LOG_MIB", "0"), ("JETON_SNAPSHOT_MINUTES", "0")];
        serve(Command::new(self.binaries.join("jeton")), data, &never)
    }

    /// A program of ours on the cores of the generator.
    pub(crate) fn beside_the_generator(&self, program: &str) -> Command {
        pinned(&self.generator_cores, &self.binaries.join(program))
    }

    /// The generator, asking about so many tokens in a shape; its warm-up is to be said.
    pub(crate) fn generator(&self, shape: &Shape, seconds: u32, tokens: u32, whose: &str) -> Command {
        let mut command = self.beside_the_generator("jeton-load");
        command
            .args(["run", "--json", "--closed", "--mix", "validate=100"])
            .args(["--asks", "live=90,unknown=5,wrong-secret=5"])
            .args(["--duration", &format!("{seconds}s"), "--tokens", &tokens.to_string()])
            .args(["--connections", &shape.connections.to_string(), "--batch", &shape.batch.to_string()])
            .args(["--in-flight", &shape.in_flight.to_string()])
            .arg("--token-file")
            .arg(self.dir.path().join(format!("{whose}.tokens")));
        command
    }

    /// What the generator reports of a server, if no reply was wrong.
    pub(crate) fn output_of(&self, mut generator: Command, server: &Process) -> anyhow::Result<Value> {
        // taskset becomes what it starts: the process is the server's.
        generator.args(["--server-pid", &server.0.id().to_string()]);
        let output = generator.stderr(Stdio::piped()).output().context("jeton-load")?;
        ensure!(output.status.success(), "jeton-load: {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(report["wrong_replies"] == 0 && report["errors"] == 0, "wrong replies or errors: {report}");
        Ok(report)
    }

    /// One measurement: validates as fast as the shape lets them be answered, each answer checked.
    pub(crate) fn measure(&self, peer: Peer, shape: &Shape, seconds: u32) -> anyhow::Result<Figures> {
        let identities = self.dir.path().join("jeton/identities");
        let mut command = self.generator(shape, seconds, self.tokens, &format!("{peer:?}"));
        command.args(["--warm-up", "1s"]);
        let server = match peer {
            Peer::Jeton => {
                command.arg("--data").arg(self.dir.path().join("jeton"));
                &self.jeton
            }
            Peer::JetonSmall => {
                command.args(["--large-datagrams", "false"]);
                command.arg("--data").arg(self.dir.path().join("jeton-small"));
                &self.jeton_small
            }
            Peer::Redis => {
                command.args(["--peer", &format!("redis://127.0.0.1:{}", self.ports[0])]);
                &self.redis
            }
            Peer::RedisTls => {
                command.args(["--peer", &format!("rediss://127.0.0.1:{}", self.ports[1])]);
                command.arg("--peer-ca").arg(identities.join("ca.pem"));
                command.arg("--peer-cert").arg(identities.join("admin/client.pem"));
                command.arg("--peer-key").arg(identities.join("admin/client.key"));
                &self.redis_tls
            }
        };
        figures(&self.output_of(command, server).with_context(|| peer.name())?)
    }

    /// Where everything lies.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// One measurement of durable writes of one token each, so many outstanding on one connection.
    pub(crate) fn measure_writes(
        &self,
        writer: Writer,
        outstanding: u16,
        seconds: u32,
    ) -> anyhow::Result<WriteFigures> {
        let mut command = self.beside_the_generator("jeton-load");
        command
            .args(["run", "--json", "--closed", "--warm-up", "1s", "--mix", "issue=100"])
            .args(["--issue-batch", "1", "--connections", "1", "--in-flight", &outstanding.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--tokens", &self.tokens.to_string()])
            .arg("--token-file")
            .arg(self.dir.path().join(format!("{writer:?}.written")));
        let server = match writer {
            Writer::Jeton => {
                command.arg("--data").arg(self.dir.path().join("jeton"));
                &self.jeton
            }
            Writer::Redis => {
                command.args(["--peer", &format!("redis://127.0.0.1:{}", self.ports[2])]);
                &self.redis_durable
            }
        };
        let report = self.output_of(command, server).with_context(|| format!("{writer:?}"))?;
        let number = |name: &str| report[name].as_f64().with_context(|| format!("{name} is missing"));
        let per_s = number("achieved_per_s")?;
        Ok(WriteFigures {
            per_s,
            cpu_us: number("server_cpu_s")? * 1e6 / (per_s * f64::from(seconds)),
            p50_us: report["latency_us"]["p50"].as_u64().context("a latency")?,
        })
    }

    pub(crate) fn redis_version(&self) -> anyhow::Result<String> {
        let said = Command::new("redis-server").arg("--version").output()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
        Ok(version.unwrap_or("?").to_owned())
    }
}

/// What a report of validates says.
pub(crate) fn figures(report: &Value) -> anyhow::Result<Figures> {
    let number = |value: &Value| value.as_f64().context("a figure is missing");
    Ok(Figures {
        tokens_per_s: number(&report["tokens_per_s"])?,
        tokens_per_cpu_s: number(&report["tokens_per_server_cpu_s"])?,
        p50_us: report["latency_us"]["p50"].as_u64().context("a latency")?,
        p99_us: report["latency_us"]["p99"].as_u64().context("a latency")?,
        generator_cpu_s: number(&report["generator_cpu_s"])?,
    })
}
