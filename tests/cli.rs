//! The command line, driven as a user drives it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Output;

use jeton_tests::{Server, run};

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim().lines().count(), 1, "one clear line: {text}");
    text
}

#[test]
fn the_worked_example_does_what_the_readme_says() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Server::start(data);
    let issue =
        ["issue", "--subject", "alice", "--ttl", "1h", "--grant", "read,comment on journal/42", "--json"];
    let issued = run(data, &issue, "");
    assert_eq!(code(&issued), 0, "{}", words(&issued));
    let token = String::from_utf8(issued.stdout).unwrap();
    let validate = |more: &[&str]| code(&run(data, &[&["validate", "-"], more].concat(), &token));
    assert_eq!(validate(&["--action", "read", "--resource", "journal/42"]), 0);
    assert_eq!(validate(&["--action", "read", "--resource", "journal/43"]), 1);
    let revoked = run(data, &["revoke", "--subject", "alice"], "");
    assert!(words(&revoked).contains("revoked 1 token"), "{}", words(&revoked));
    assert_eq!(validate(&[]), 1);
    let while_it_runs = run(data, &["log", "verify"], "");
    assert_eq!(code(&while_it_runs), 0, "{}", words(&while_it_runs));
    server.kill9();
    let server = Server::start(data);
    assert_eq!(validate(&[]), 1);
    server.terminate();
    let offline = run(data, &["log", "verify"], "");
    assert_eq!((code(&offline), offline.stdout), (0, while_it_runs.stdout));
    let shown = run(data, &["log", "show", "--json"], "");
    let events: Vec<serde_json::Value> = String::from_utf8(shown.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let event = |name: &str| events.iter().find(|event| event["event"] == name).unwrap();
    assert_eq!(event("SubjectRevoked")["fields"]["subject"], "alice");
    assert_eq!(event("SubjectRevoked")["actor"], "jeton:client:admin");
    assert_eq!(event("ClaimsInterned")["fields"]["content"]["grants"][0], "comment,read on journal/42");
    let last = run(data, &["log", "show", "--tail", "1"], "");
    assert!(words(&last).contains("SubjectRevoked subject=alice"), "{}", words(&last));
    let some = run(data, &["log", "show", "--limit", "2"], "");
    assert!(one_line(&some).contains("go on with --from 3"), "{}", words(&some));
}

#[test]
fn a_one_use_token_is_consumed_once_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let _server = Server::start(data);
    let token =
        String::from_utf8(run(data, &["issue", "--subject", "bob", "--uses", "1"], "").stdout).unwrap();
    let plain = run(data, &["validate", "-"], &token);
    assert_eq!((code(&plain), words(&plain).trim()), (1, "consume_required"));
    assert_eq!(code(&run(data, &["validate", "-", "--consume"], &token)), 0);
    let again = run(data, &["validate", "-", "--consume"], &token);
    assert_eq!((code(&again), words(&again).trim()), (1, "spent"));
    let inspected: serde_json::Value =
        serde_json::from_slice(&run(data, &["inspect", "-", "--json"], &token).stdout).unwrap();
    assert_eq!(inspected["uses"]["left"], 0);
    assert_eq!(inspected["subject"], "bob");
}

#[test]
fn what_goes_wrong_is_one_clear_line_and_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let nobody = run(data, &["issue", "--subject", "x"], "");
    assert_eq!(code(&nobody), 2);
    assert!(one_line(&nobody).contains("no server runs on"), "{}", words(&nobody));
    let no_log = run(data, &["log", "verify"], "");
    assert_eq!(code(&no_log), 2);

    let server = Server::start(data);
    let typo = "jtn_0000000000000000000000000000000000000000000000001";
    let bad = run(data, &["validate", typo], "");
    assert_eq!(code(&bad), 2);
    assert!(one_line(&bad).contains("checksum") && !words(&bad).contains(typo), "{}", words(&bad));
    for usage in
        [&["validate"][..], &["issue"], &["revoke"], &["issue", "--subject", "x", "--grant", "nonsense"]]
    {
        assert_eq!(code(&run(data, usage, "")), 2, "{usage:?}");
    }
    let second = run(data, &["serve", "--listen", "127.0.0.1:0"], "");
    assert_eq!(code(&second), 2);
    assert!(one_line(&second).contains("in use by process"), "{}", words(&second));
    let elsewhere = tempfile::tempdir().unwrap();
    let taken = run(elsewhere.path(), &["serve", "--listen", &server.address.to_string()], "");
    assert_eq!(code(&taken), 2);
    assert!(one_line(&taken).contains("is in use: stop what uses it"), "{}", words(&taken));
    let open = run(elsewhere.path(), &["serve", "--listen", "0.0.0.0:0"], "");
    assert!(one_line(&open).contains("--allow-development-authority"), "{}", words(&open));
    let config = elsewhere.path().join("bad.toml");
    std::fs::write(&config, "tokens_max = \"many\"").unwrap();
    let refused = run(elsewhere.path(), &["serve", "--config", config.to_str().unwrap()], "");
    assert!(one_line(&refused).contains("tokens_max"), "{}", words(&refused));
}

#[test]
fn a_data_directory_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let refused = run(&file, &["serve", "--listen", "127.0.0.1:0"], "");
    assert_eq!(code(&refused), 2);
    assert!(one_line(&refused).contains("choose another with --data"), "{}", words(&refused));
}

#[test]
fn configuration_comes_from_file_environment_and_flags_in_that_order() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("jeton.toml");
    std::fs::write(&config, "listen = \"127.0.0.1:1001\"\ntokens_max = 5000\ntokens_initial = 100\n")
        .unwrap();
    let arguments =
        ["serve", "--config", config.to_str().unwrap(), "--print-config", "--tokens-initial", "200"];
    let printed = String::from_utf8(run(dir.path(), &arguments, "").stdout).unwrap();
    for line in ["listen = \"127.0.0.1:1001\"", "tokens_max = 5000", "tokens_initial = 200"] {
        assert!(printed.lines().any(|printed| printed == line), "{line} in {printed}");
    }
    assert!(
        printed.contains(&format!("data = \"{}\"", dir.path().display())),
        "the environment counts: {printed}"
    );
}

#[test]
fn completions_are_printed_for_shells() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let printed = run(dir.path(), &["completions", shell], "");
        assert_eq!(code(&printed), 0);
        assert!(words(&printed).contains("validate"));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let dirs = std::fs::read_dir(data.join("log")).unwrap().map(|entry| entry.unwrap().path());
    dirs.map(|dir| dir.join("db")).filter(|db| db.is_file()).collect()
}

#[test]
fn a_byte_changed_inside_a_stored_event_is_named_by_verify_and_refused_by_serve_in_the_same_words() {
    const SUBJECT: &[u8] = b"alice-in-wonderland";
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for subject in ["first", "alice-in-wonderland", "last"] {
        assert_eq!(code(&run(dir.path(), &["issue", "--subject", subject], "")), 0);
    }
    server.terminate();
    let changed = tempfile::tempdir().unwrap();
    copy(dir.path(), changed.path());
    let mut count = 0;
    for db in segments(changed.path()) {
        let mut bytes = std::fs::read(&db).unwrap();
        let found: Vec<_> = bytes
            .windows(SUBJECT.len())
            .enumerate()
            .filter(|(_, at)| *at == SUBJECT)
            .map(|(at, _)| at)
            .collect();
        for at in &found {
            bytes[at + 3] ^= 1;
        }
        count += found.len();
        std::fs::write(db, bytes).unwrap();
    }
    assert!(count > 0, "the name is in the store's files");
    let verify = run(changed.path(), &["log", "verify"], "");
    assert_eq!(code(&verify), 2, "{}", words(&verify));
    let message = words(&verify);
    let broken = message.split("sequence number ").nth(1).and_then(|rest| rest.split(':').next()).unwrap();
    let first_broken: u64 = broken.parse().unwrap();
    assert!((4..=9).contains(&first_broken), "{message}");
    let serve = run(changed.path(), &["serve", "--listen", "127.0.0.1:0"], "");
    assert_eq!(code(&serve), 2);
    assert!(words(&serve).contains(message.trim()), "verify: {message}\nserve: {}", words(&serve));
    let still = run(changed.path(), &["log", "verify"], "");
    assert_eq!(words(&still), message, "a refused start leaves the evidence as it is");
}

#[test]
fn a_log_that_is_refused_is_repaired_by_name_and_nothing_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Server::start(data);
    let token = String::from_utf8(run(data, &["issue", "--subject", "alice"], "").stdout).unwrap();
    assert_eq!(code(&run(data, &["revoke", "--subject", "alice"], "")), 0);
    server.terminate();
    std::fs::remove_file(data.join("log/anchor")).unwrap();
    let refused = run(data, &["serve", "--listen", "127.0.0.1:0"], "");
    assert_eq!(code(&refused), 2);
    assert!(one_line(&refused).contains("jeton log repair"), "{}", words(&refused));
    let told = run(data, &["log", "repair", "--json"], "");
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["repaired"], &told["broken"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(code(&run(data, &["log", "verify"], "")), 2, "nothing was done yet");
    let repaired = run(data, &["log", "repair", "--accept-loss"], "");
    assert_eq!(code(&repaired), 0, "{}", words(&repaired));
    assert!(data.join("log.damaged-1").is_dir());
    let whole = run(data, &["log", "repair", "--accept-loss"], "");
    assert!(words(&whole).contains("nothing is to be repaired"), "{}", words(&whole));
    let _server = Server::start(data);
    assert_eq!(code(&run(data, &["validate", "-"], &token)), 1, "the revoke is still there");
}

#[test]
fn a_repair_that_loses_something_begins_another_history() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Server::start(data);
    let issue =
        |subject: &str| String::from_utf8(run(data, &["issue", "--subject", subject], "").stdout).unwrap();
    let (kept, lost) = (issue("alice"), issue("zachary"));
    server.terminate();
    let before = run(data, &["log", "verify", "--json"], "");
    let before: serde_json::Value = serde_json::from_slice(&before.stdout).unwrap();
    for db in segments(data) {
        let bytes = std::fs::read(&db).unwrap();
        std::fs::write(&db, damaged_where(&bytes, b"zachary")).unwrap();
    }
    assert_eq!(code(&run(data, &["log", "verify"], "")), 2);
    assert_eq!(code(&run(data, &["log", "repair", "--accept-loss"], "")), 0);
    let after = run(data, &["log", "verify", "--json"], "");
    let after: serde_json::Value = serde_json::from_slice(&after.stdout).unwrap();
    assert!(after["events"].as_u64() < before["events"].as_u64(), "{before} {after}");
    assert_ne!(after["log"], before["log"], "a history that lost something has another name");
    let _server = Server::start(data);
    assert_eq!(code(&run(data, &["validate", "-"], &kept)), 0);
    let unknown = run(data, &["validate", "-"], &lost);
    assert_eq!((code(&unknown), words(&unknown).trim()), (1, "unknown"));
}

/// The bytes with one changed wherever `name` stands.
fn damaged_where(bytes: &[u8], name: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    for at in at {
        bytes[at] ^= 1;
    }
    bytes
}

#[test]
fn a_log_elsewhere_is_never_answered_for_by_the_one_here() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Server::start(here.path()).terminate();
    let server = Server::start(there.path());
    let identity = there.path().join("identities/admin");
    let address = server.address.to_string();
    let verify = |json: &[&str]| {
        let arguments = ["log", "verify", "--connect", &address, "--identity", identity.to_str().unwrap()];
        run(here.path(), &[&arguments, json].concat(), "")
    };
    let remote: serde_json::Value = serde_json::from_slice(&verify(&["--json"]).stdout).unwrap();
    let local = run(here.path(), &["log", "verify", "--json"], "");
    let local: serde_json::Value = serde_json::from_slice(&local.stdout).unwrap();
    assert_ne!(remote["log"], local["log"]);
    server.kill9();
    assert_eq!(code(&verify(&[])), 2);
}

#[test]
fn an_identity_is_not_replaced_unasked_and_sees_what_it_administers() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let no_authority = run(data, &["identity", "create", "shop"], "");
    assert!(one_line(&no_authority).contains("no development authority"), "{}", words(&no_authority));
    let _server = Server::start(data);
    for arguments in [
        &["tenant", "acme"][..],
        &["identity", "create", "shop", "--rights", "admin,validate", "--tenant", "acme"],
        &["identity", "create", "door", "--rights", "validate", "--tenant", "acme"],
        &["identity", "create", "nobody"],
    ] {
        assert_eq!(code(&run(data, arguments, "")), 0, "{arguments:?}");
    }
    let again = run(data, &["identity", "create", "shop"], "");
    assert_eq!(code(&again), 2);
    assert!(one_line(&again).contains("--force"), "{}", words(&again));
    assert_eq!(code(&run(data, &["identity", "create", "nobody", "--force"], "")), 0);
    let list = |who: &str| {
        let identity = data.join("identities").join(who);
        words(&run(data, &["identity", "list", "--identity", identity.to_str().unwrap()], ""))
    };
    assert!(list("admin").contains("jeton:client:admin  *: issue"), "{}", list("admin"));
    assert!(list("shop").contains("jeton:client:door  acme: validate"), "{}", list("shop"));
    assert!(!list("shop").contains("jeton:client:admin"), "{}", list("shop"));
    let token = String::from_utf8(run(data, &["issue", "--subject", "x"], "").stdout).unwrap();
    let nobody = data.join("identities/nobody");
    let asked = run(data, &["validate", "-", "--identity", nobody.to_str().unwrap()], &token);
    assert_eq!(code(&asked), 2, "a missing right is no denial: {}", words(&asked));
    let withdrawn = ["identity", "withdraw", "door", "--rights", "validate", "--tenant", "acme"];
    assert!(words(&run(data, &withdrawn, "")).contains("none"));
}

#[test]
fn keys_are_never_replaced_because_an_authority_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    Server::start(data).terminate();
    let identities = data.join("identities");
    let key = std::fs::read(identities.join("server/server.key")).unwrap();
    std::fs::remove_file(identities.join("ca.pem")).unwrap();
    std::fs::remove_file(identities.join("ca.key")).unwrap();
    let refused = run(data, &["serve", "--listen", "127.0.0.1:0"], "");
    assert_eq!(code(&refused), 2);
    assert!(one_line(&refused).contains("ca.pem is missing"), "{}", words(&refused));
    assert_eq!(std::fs::read(identities.join("server/server.key")).unwrap(), key);
}

#[test]
fn more_subjects_than_one_command_takes_are_issued_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let subjects: Vec<String> = (0..300).map(|at| format!("s{at}")).collect();
    let mut arguments = vec!["issue"];
    subjects.iter().for_each(|subject| arguments.extend(["--subject", subject]));
    let issued = run(dir.path(), &arguments, "");
    assert_eq!(String::from_utf8(issued.stdout).unwrap().lines().count(), 300);
    assert_eq!(code(&run(dir.path(), &["issue", "--subject", "x", "--uses", "0"], "")), 2);
    let token = String::from_utf8(run(dir.path(), &["issue", "--subject", "x"], "").stdout).unwrap();
    let renewed = run(dir.path(), &["renew", "-", "--ttl", "0"], &token);
    assert_eq!(code(&renewed), 2, "out of range is a mistake, not a denial");
    assert_eq!(code(&run(dir.path(), &["renew", "-"], &token)), 1, "not renewable is a denial");
}

#[test]
fn the_demo_keeps_its_promises_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let demo = std::process::Command::new(jeton_tests::jeton())
        .args(["demo", "--json"])
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    assert_eq!(code(&demo), 0, "{}", words(&demo));
    let report: serde_json::Value = serde_json::from_slice(&demo.stdout).unwrap();
    assert_eq!(report["issued"], 200_000);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_load_generator_checks_every_reply_and_reports_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let load = |more: &[&str]| {
        std::process::Command::new(jeton_tests::jeton_load())
            .args([
                "run",
                "--json",
                "--tokens",
                "2000",
                "--duration",
                "2s",
                "--warm-up",
                "0s",
                "--connections",
                "3",
            ])
            .args(more)
            .env("JETON_DATA", dir.path())
            .output()
            .unwrap()
    };
    let file = dir.path().join("tokens");
    std::fs::write(&file, "not ours").unwrap();
    assert_eq!(code(&load(&["--token-file", file.to_str().unwrap()])), 2, "what lies there is not replaced");
    assert_eq!(std::fs::read(&file).unwrap(), b"not ours");
    std::fs::remove_file(&file).unwrap();
    let ran = load(&["--rate", "500", "--token-file", file.to_str().unwrap()]);
    assert_eq!(code(&ran), 0, "{}", words(&ran));
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&report["wrong_replies"], &report["errors"]), (&0.into(), &0.into()), "{report}");
    assert!(report["tokens_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(report["offered_per_s"], 500.0, "{report}");
    let metadata = std::fs::metadata(&file).unwrap();
    assert_eq!(metadata.len(), 2_000 * 32);
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, 0o600);
    server.kill9();
    let nobody = load(&[]);
    assert_eq!(code(&nobody), 2);
    assert_eq!(String::from_utf8(nobody.stderr).unwrap().trim().lines().count(), 1);
}
