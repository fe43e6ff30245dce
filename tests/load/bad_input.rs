//! What goes wrong is told in one line that says what to do about it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jeton_tests::Server;
use serde_json::Value;

use super::rig::{assert_refused, command, load, said, short};

#[test]
fn nothing_listens() {
    let dir = tempfile::tempdir().unwrap();
    assert_refused(&short(dir.path(), &[]), "no server runs on");
    let server = Server::start(dir.path());
    let identity = dir.path().join("identities/admin");
    server.kill9();
    let flags = ["run", "--json", "--connect", "127.0.0.1:9", "--identity", identity.to_str().unwrap()];
    assert_refused(&load(dir.path(), &flags), "nobody answers at 127.0.0.1:9");
    assert_refused(&short(dir.path(), &["--peer", "redis://127.0.0.1:9"]), "nobody answers at 127.0.0.1:9");
    std::fs::write(dir.path().join("list"), "a-token\n").unwrap();
    let url = ["--peer", "http://127.0.0.1:9/introspect", "-w", "introspection"];
    let with_list = [&url[..], &["--token-list", "list"]].concat();
    assert_refused(&short(dir.path(), &with_list), "nobody answers at 127.0.0.1:9");
    assert_refused(&short(dir.path(), &url), "give it active ones, --token-list");
    assert_refused(&short(dir.path(), &["--peer", "gopher://here"]), "is none of redis://, rediss://");
    assert_refused(&short(dir.path(), &["--connect", "nowhere", "--identity", "."]), "nowhere is no address");
    assert_refused(&short(dir.path(), &["--server-pid", "4194305"]), "there is no process 4194305");
}

/// A QUIC server with the certificates of `dir` that does with each connection what it is told.
fn stranger<F>(dir: &Path, serve: impl Fn(quinn::Connection) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let dir = dir.join("identities");
    let certificates =
        |file: &str| CertificateDer::pem_file_iter(dir.join(file)).unwrap().map(Result::unwrap).collect();
    let credentials = jeton_net::tls::Credentials {
        chain: certificates("server/server.pem"),
        key: PrivateKeyDer::from_pem_file(dir.join("server/server.key")).unwrap(),
        authorities: certificates("ca.pem"),
    };
    let tls = jeton_net::tls::server_config(credentials).unwrap();
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
            let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
            tell.send(endpoint.local_addr().unwrap()).unwrap();
            while let Some(incoming) = endpoint.accept().await {
                if let Ok(connection) = incoming.await {
                    tokio::spawn(serve(connection));
                }
            }
        });
    });
    told.recv().unwrap()
}

#[test]
fn a_server_of_another_version_and_one_that_answers_garbage() {
    let dir = tempfile::tempdir().unwrap();
    Server::start(dir.path()).kill9();
    let identity = dir.path().join("identities/admin");
    let ask = |address: SocketAddr| {
        let (address, identity) = (address.to_string(), identity.to_str().unwrap());
        load(dir.path(), &["run", "--json", "--connect", &address, "--identity", identity])
    };
    let other = stranger(dir.path(), |connection| async move {
        let _ = connection.accept_bi().await;
        connection.close(3_u32.into(), b"no version in common");
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    assert_refused(&ask(other), "speaks no version of the protocol that jeton-load does (jeton/1)");
    let garbage = stranger(dir.path(), |connection| async move {
        let (mut send, _receive) = connection.accept_bi().await.unwrap();
        send.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    assert_refused(&ask(garbage), "the server's answer is not jeton/1");
}

#[test]
fn certificates_that_are_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Server::start(other.path()).kill9();
    let server = Server::start(dir.path());
    let address = server.address.to_string();
    let with = |identity: &Path| {
        let identity = identity.to_str().unwrap();
        load(dir.path(), &["run", "--json", "--connect", &address, "--identity", identity])
    };
    assert_refused(&with(&other.path().join("identities/admin")), "is not one we trust");
    // An identity of another authority that trusts this one.
    std::fs::copy(dir.path().join("identities/ca.pem"), other.path().join("identities/admin/ca.pem"))
        .unwrap();
    assert_refused(&with(&other.path().join("identities/admin")), "refused our certificate");
    assert_refused(&with(&dir.path().join("identities")), "client.pem");
    let wrong_name = ["--server-name", "example.org"];
    assert_refused(&short(dir.path(), &wrong_name), "is not one we trust");
}

#[test]
fn a_server_that_is_killed_in_mid_run() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let running = command(
        dir.path(),
        &[
            &["run", "--json", "--tokens", "1000", "--duration", "60s", "--warm-up", "0s"][..],
            &["--rate", "200", "--out", "out"],
        ]
        .concat(),
    )
    .stdout(std::process::Stdio::piped())
    .stderr(std::process::Stdio::piped())
    .spawn()
    .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    server.kill9();
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let last = said(&output);
    assert!(last.lines().last().unwrap().contains("the server's process is gone"), "{last}");
    // What was measured until then is told all the same.
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["achieved_per_s"].as_f64().unwrap() > 0.0, "{summary}");
    assert_eq!(summary["wrong_replies"], 0);
    // What was due while nobody answered was due in a longer time than the one that was measured.
    let offered = summary["offered_per_s"].as_f64().unwrap();
    assert!((190.0..210.0).contains(&offered), "{summary}");
    assert!(summary["server_cpu_s"].is_number(), "{summary}");
    let record = std::fs::read(dir.path().join("out/run.json")).unwrap();
    let detail = &serde_json::from_slice::<Value>(&record).unwrap()["detail"];
    assert!(detail["unanswered"].as_u64() > Some(0), "{detail}");
    assert!(!last.contains("keep up") && !last.contains("limit"), "{last}");
}

#[test]
fn a_peer_that_speaks_something_else_than_redis() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let ran = short(dir.path(), &["--peer", &format!("redis://{address}")]);
    assert_refused(&ran, "is no Redis that can be used: an answer begins with 'H'");
}

/// An endpoint for introspection that has one answer for everything.
fn introspection(body: &'static str) -> SocketAddr {
    introspection_with("200 OK", body)
}

fn introspection_with(status: &'static str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                while stream.read(&mut request).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
        }
    });
    address
}

#[test]
fn wrong_replies_are_told_by_1_whatever_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("list"), "a-token\n").unwrap();
    let url = format!("http://{}/introspect", introspection("{\"active\":false}"));
    let peer = ["--peer", &url, "-w", "introspection", "--token-list", "list", "--batch", "1"];
    let length = ["--tokens", "1000", "--duration", "300ms", "--warm-up", "0s"];
    for command in [&["saturate", "--slo", "p99=1s", "--out", "out"][..], &["compare", "base.json"]] {
        let ran = load(dir.path(), &[command, &peer, &length].concat());
        let said = said(&ran);
        assert_eq!(ran.status.code(), Some(1), "{said}");
        assert!(said.contains(" wrong replies: "), "{said}");
    }
    assert!(!dir.path().join("base.json").exists());
    let evidence = std::fs::read(dir.path().join("out/saturation.json")).unwrap();
    let evidence: Value = serde_json::from_slice(&evidence).unwrap();
    assert!(evidence["failed"].as_str().unwrap().contains(" wrong replies: "), "{evidence}");
}

#[test]
fn a_server_that_is_killed_leaves_what_was_found_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let killed = |flags: &[&str]| {
        let server = Server::start(dir.path());
        let running = command(dir.path(), flags)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs(5));
        server.kill9();
        let output = running.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    };
    let read = |path: &str| -> Value {
        serde_json::from_slice(&std::fs::read(dir.path().join(path)).unwrap()).unwrap()
    };
    let steps =
        ["--tokens", "1000", "--duration", "500ms", "--warm-up", "0s", "--from", "10", "--up-to", "100000"];
    killed(
        &[&["saturate", "--slo", "p50=60s", "--mix", "validate=100", "--out", "limit"], &steps[..]].concat(),
    );
    let limit = read("limit/saturation.json");
    assert!(limit["failed"].is_string() && limit["rate"].is_null(), "{limit}");
    assert!(!limit["steps"].as_array().unwrap().is_empty(), "{limit}");
    assert!(!dir.path().join("limit/run.json").exists());
    killed(&["propagation", "--revokes", "20000", "--watchers", "2", "--out", "reach"]);
    let reach = read("reach/propagation.json");
    assert!(reach["failed"].is_string() && reach["revokes"].as_u64() > Some(0), "{reach}");
}

#[test]
fn a_peer_that_answers_only_nonsense_fails_the_run() {
    let address = introspection("[1,2]");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("list"), "a-token\n").unwrap();
    let url = format!("http://{address}/introspect");
    let flags = ["--peer", &url, "-w", "introspection", "--token-list", "list", "--batch", "1"];
    let ran = short(dir.path(), &flags);
    let (told, said) = (serde_json::from_slice::<Value>(&ran.stdout).unwrap(), said(&ran));
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(told["errors"].as_u64().unwrap() > 0, "{told}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.last().unwrap().contains("nothing was answered as asked: "), "{said}");
    // What was wrong is said once, however often it was met; beside it perhaps that the generator was held back.
    assert!(lines.len() <= 3, "{said}");
    assert_eq!(lines.iter().filter(|line| line.contains(" times)")).count(), 1, "{said}");
    assert!(!said.contains("keep up"), "{said}");
}

#[test]
fn a_peer_that_refuses_everything_fails_the_run() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("list"), "a-token\n").unwrap();
    let url = format!("http://{}/introspect", introspection_with("429 Too Many Requests", "{}"));
    // Long enough for an answer if the core is others' for most of it.
    let flags = ["run", "--quiet", "--tokens", "1000", "--duration", "2s", "--warm-up", "0s", "--batch", "1"];
    let peer = ["--peer", &url, "-w", "introspection", "--token-list", "list"];
    let ran = load(dir.path(), &[&flags[..], &peer].concat());
    let (told, said) = (String::from_utf8_lossy(&ran.stdout).into_owned(), said(&ran));
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(
        said.contains("nothing was answered as asked: ") && said.contains(" requests were refused"),
        "{said}"
    );
    // Nothing was served; what was still to be sent at the end has waited, if there was any.
    assert!(told.contains("(-), p99 ") && told.contains(" p99.9 "), "{told}");
    assert!(!told.contains("filled"), "an introspection endpoint issues nothing: {told}");
}

#[test]
fn what_cannot_be_written_is_found_out_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert_refused(&short(dir.path(), &["--out", "file/within"]), "the folder file/within cannot be made");
    assert_refused(
        &short(dir.path(), &["--out", "/proc/nowhere"]),
        "the folder /proc/nowhere cannot be made",
    );
    assert_refused(
        &short(dir.path(), &["--token-file", "file/tokens"]),
        "the token file file/tokens cannot be written",
    );
    assert_refused(
        &short(dir.path(), &["--token-file", "file"]),
        "file is there and not jeton-load's, as far as can be told: remove it, or name another token file",
    );
    assert_refused(&short(dir.path(), &["--token-file", "/dev/null"]), "/dev/null is no regular file");
    assert_refused(&load(dir.path(), &["compare", "file/base.json"]), "the baseline file/base.json: ");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let told = command(dir.path(), &["workloads"]).stdout(full).output().unwrap();
    assert_refused(&told, "standard output cannot be written: No space left on device");
    // A run is not lost with the words about it.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let flags =
        ["run", "--tokens", "1000", "--duration", "300ms", "--warm-up", "0s", "--rate", "100", "--quiet"];
    let told = command(dir.path(), &flags).stdout(full).output().unwrap();
    assert_eq!(told.status.code(), Some(2), "{}", said(&told));
    assert!(
        said(&told).ends_with("standard output cannot be written: No space left on device (os error 28)")
    );
    assert!(dir.path().join("jeton-load-report/report.html").exists());
    std::fs::write(dir.path().join("run.json"), "{}").unwrap();
    assert_refused(&load(dir.path(), &["report", "run.json"]), "run.json is no run.json of jeton-load");
}

#[test]
fn nonsense_in_files_and_flags() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("load.toml"), "connections = 3\n[mix]\nvalidat = 97\n").unwrap();
    let refused = |flags: &[&str], words| assert_refused(&load(dir.path(), flags), words);
    refused(&["run", "-w", "load.toml"], "the workload file load.toml: line 3: unknown field `validat`");
    refused(&["run", "-w", "rush"], "no workload is named rush: there are default, gateway");
    refused(&["run", "-w", "gone.toml"], "the workload file gone.toml: No such file");
    refused(&["run", "--workers", "20"], "20 workers have no use for 16 connection(s)");
    refused(&["run", "--rate", "20000000"], "a rate is 1 to 10000000 requests a second");
    refused(&["run", "--closed", "--when-full", "drop"], "as soon as it is answered: leave --when-full out");
    refused(&["saturate", "--slo", "p99=1s", "--closed"], "saturate chooses the rates itself");
    refused(&["saturate", "--slo", "p99=1s", "--rate", "5"], "--from and --up-to: leave --rate out");
    refused(
        &["replay", "trace.jsonl", "--mix", "validate=100", "--batch", "1"],
        "leave --mix and --batch out",
    );
    refused(&["replay", "trace.jsonl", "--warm-up", "1s"], "leave --warm-up out");
    for (url, instead) in [
        (
            "http://me:hush@127.0.0.1:9/introspect",
            "use --authorization 'Basic ...' or JETON_LOAD_AUTHORIZATION",
        ),
        ("https://me:hush@127.0.0.1:9/", "use --authorization 'Basic ...' or JETON_LOAD_AUTHORIZATION"),
        ("redis://me:hush@127.0.0.1:9", "use JETON_LOAD_PEER_PASSWORD"),
        ("me:hush@127.0.0.1:9", "use JETON_LOAD_PEER_PASSWORD"),
    ] {
        let ran = load(dir.path(), &["run", "--peer", url]);
        assert_refused(&ran, instead);
        assert!(!said(&ran).contains("hush"), "{}", said(&ran));
    }
    refused(&["run", "--http2"], "--http2 is of no use without --peer http://...");
    refused(&["run", "--token-list", "list"], "--token-list is of no use without --peer http://...");
    refused(
        &["run", "--peer", "redis://127.0.0.1:9", "--peer-ca", "ca.pem"],
        "--peer rediss://... or https://",
    );
    std::fs::write(dir.path().join("trace.jsonl"), "{\"at_ms\":1,\"kind\":\"ask\"}\n").unwrap();
    refused(&["replay", "trace.jsonl"], "the trace trace.jsonl: line 1: 'ask' is no kind");
}

#[test]
fn a_rate_that_nobody_can_keep_is_not_called_the_servers() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let flags = ["run", "--json", "--tokens", "1000", "--duration", "1s", "--warm-up", "0s", "--batch", "1"];
    let more = ["--rate", "5000000", "--in-flight", "64", "--mix", "validate=100", "--out", "out"];
    let ran = load(dir.path(), &[&flags[..], &more].concat());
    let said = said(&ran);
    assert_eq!(ran.status.code(), Some(0), "{said}");
    let record: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("out/run.json")).unwrap()).unwrap();
    let detail = |name: &str| record["detail"][name].as_f64().unwrap();
    // Which it is depends on who gets the cores; whichever is said has to follow from what was measured.
    if said.contains("the generator is the limit: ") {
        assert!(detail("generator_busiest") > 0.95, "{said}");
    } else if said.contains("the server did not keep up: ") {
        assert!(detail("no_room") > 0.0 && detail("generator_held_back") <= 0.02, "{said}");
    } else {
        assert!(said.contains("the generator was not always given its core"), "{said}");
        assert!(detail("generator_held_back") > 0.02, "{said}");
    }
}

/// What became of a command that was sent SIGINT after so long.
fn interrupted(dir: &Path, flags: &[&str], after: Duration) -> std::process::Output {
    let running = command(dir, flags)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    running.wait_with_output().unwrap()
}

#[test]
fn what_is_interrupted_before_and_beside_a_run_ends_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    // Nothing of a file of tokens is left that was only begun.
    let folder = dir.path().join("kept");
    std::fs::create_dir(&folder).unwrap();
    let flags = ["run", "--json", "--tokens", "5000000", "--token-file", "kept/tokens"];
    let output = interrupted(dir.path(), &flags, Duration::from_secs(2));
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.ends_with("interrupted while the key space was filled: nothing was measured"), "{told}");
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tokens.lock"]);
    let flags = ["propagation", "--revokes", "20000", "--watchers", "2", "--out", "reach"];
    let output = interrupted(dir.path(), &flags, Duration::from_secs(5));
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.ends_with("interrupted: these are the figures until then"), "{told}");
    let reach = std::fs::read(dir.path().join("reach/propagation.json")).unwrap();
    let reach: Value = serde_json::from_slice(&reach).unwrap();
    assert!(reach["failed"].is_string() && reach["revokes"].as_u64() > Some(0), "{reach}");
}

#[test]
fn a_run_that_is_interrupted_tells_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let flags =
        ["run", "--json", "--tokens", "1000", "--duration", "60s", "--warm-up", "0s", "--rate", "200"];
    let output = interrupted(dir.path(), &flags, Duration::from_secs(3));
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.ends_with("interrupted: these are the figures until then"), "{told}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["achieved_per_s"].as_f64().unwrap() > 0.0, "{summary}");
}
