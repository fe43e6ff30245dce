//! The same load against a real Redis.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jeton_tests::Server;

use super::rig::{assert_refused, short, summary};

/// A Redis that ends with the test.
struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether there is a Redis to test with; a package of Debian's that is missing is asked for once.
fn has_redis() -> bool {
    let is_there = || Command::new("redis-server").arg("--version").output().is_ok();
    if !is_there() {
        let install = ["install", "-y", "-qq", "--no-install-recommends", "redis-server"];
        let _ = Command::new("apt-get").args(install).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    is_there()
}

impl Redis {
    fn start(dir: &Path, port: u16, more: &[&str]) -> Self {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(more)
            .current_dir(dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "Redis listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child)
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn redis_is_loaded_and_checked_in_the_clear_and_over_tls() {
    if !has_redis() {
        eprintln!("there is no redis-server, and it cannot be installed: this was not tested");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Certificates like Jeton's own: a server makes them at its first start.
    Server::start(dir.path()).kill9();
    let port = free_port();
    let text = port.to_string();
    let redis = Redis::start(dir.path(), port, &["--port", &text]);
    let url = format!("redis://127.0.0.1:{port}");
    let pid = redis.0.id().to_string();
    let ran = summary(&short(dir.path(), &["--peer", &url, "--server-pid", &pid]));
    assert_eq!(ran["target"], format!("redis at 127.0.0.1:{port}"));
    assert!(ran["server_rss_bytes"].as_u64().unwrap() > 1_000_000);
    let mix = ["--mix", "validate=60,issue=10,revoke=20,renew=10", "--asks"];
    let asks = ["live=50,unknown=10,wrong-secret=10,revoked=20,expired=10", "--closed", "--churn", "50"];
    let flags = ["run", "--json", "--tokens", "2000", "--duration", "1s", "--warm-up", "0s", "--peer", &url];
    summary(&super::rig::load(dir.path(), &[&flags[..], &mix, &asks].concat()));
    assert_refused(
        &short(dir.path(), &["--peer", &url, "-w", "one-time-links"]),
        "this peer has no counterpart of consume",
    );
    drop(redis);
    let (port, identities) = (free_port(), dir.path().join("identities"));
    let path = |name: &str| identities.join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("server/server.pem"), path("server/server.key"));
    let text = port.to_string();
    let tls = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let _redis = Redis::start(dir.path(), port, &[&["--port", "0", "--tls-port", &text], &tls[..]].concat());
    let url = format!("rediss://127.0.0.1:{port}");
    assert_refused(
        &short(dir.path(), &["--peer", &url]),
        "TLS needs the authority of the peer's certificate",
    );
    assert_refused(&short(dir.path(), &["--peer", &url, "--peer-ca", &ca]), "CertificateRequired");
    let (cert, key) = (path("admin/client.pem"), path("admin/client.key"));
    let flags = ["--peer", &url, "--peer-ca", &ca, "--peer-cert", &cert, "--peer-key", &key];
    let ran = summary(&short(dir.path(), &flags));
    assert_eq!(ran["target"], format!("redis at 127.0.0.1:{port} (TLS)"));
}
