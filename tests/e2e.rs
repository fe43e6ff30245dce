//! A real server, real QUIC, several clients and connections.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jeton_client::{
    Check, Claims, Client, Consistency, Error, Rejection, RevokeTarget, Rights, Sequence, Token, Verdict,
};
use jeton_core::command::Command;
use jeton_core::numbers::Partition;
use jeton_core::recovery::Replay;
use jeton_core::state::StateConfig;
use jeton_tests::{PATIENCE, Server, issue_for, name, run};
use jeton_wire::request::{Hello, Request, encode_validate};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

async fn verdict(client: &Client, token: &Token) -> Verdict {
    client.validate(token, &Check::live()).await.unwrap().verdict
}

async fn one(client: &Client, change: impl FnOnce(&mut jeton_client::IssueTokens)) -> Token {
    let mut issue = issue_for(&["alice"]);
    change(&mut issue);
    client.issue(issue, None).await.unwrap().tokens.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_grants_until_it_is_revoked_on_every_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (admin, other) = (server.admin().await, server.admin().await);
    type MakeTarget = fn(&Token) -> RevokeTarget;
    let targets: [MakeTarget; 7] = [
        |token| RevokeTarget::Token(token.clone()),
        |token| RevokeTarget::Id(token.id),
        |token| RevokeTarget::Family(token.id),
        |_| RevokeTarget::Subject { tenant: name("default"), subject: name("alice") },
        |_| RevokeTarget::Client { tenant: name("default"), client: name("jeton:client:admin") },
        |_| RevokeTarget::Resource { tenant: name("default"), pattern: "journal/**".parse().unwrap() },
        |_| RevokeTarget::Tenant { tenant: name("default") },
    ];
    for target in targets {
        let token = one(&admin, |_| {}).await;
        let ask = async |action, resource| {
            other.validate(&token, &Check::access(action, resource).unwrap()).await.unwrap().verdict
        };
        assert_eq!(ask("read", "journal/42").await, Verdict::Valid);
        assert_eq!(ask("read", "journal/43").await, Verdict::Forbidden);
        assert_eq!(ask("write", "journal/42").await, Verdict::Forbidden);
        assert!(admin.revoke(target(&token)).await.unwrap().report.revoked >= 1);
        assert_eq!(verdict(&other, &token).await, Verdict::Revoked);
        assert_eq!(verdict(&admin, &token).await, Verdict::Revoked);
    }
    server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_are_asked_of_validates_and_of_uses_alike() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let scopes = || ["mail", "openid"].map(str::to_owned);
    let with_scopes = |issue: &mut jeton_client::IssueTokens| {
        issue.claims = Claims::new([], scopes(), [], BTreeMap::new()).unwrap();
    };
    let plain = one(&admin, with_scopes).await;
    let limited = one(&admin, |issue| {
        with_scopes(issue);
        issue.uses_max = 1;
    })
    .await;
    for (asked, has) in [("mail", true), ("openid mail", true), ("mail calendar", false), ("mai", false)] {
        let check = Check::live().with_scopes(asked).unwrap();
        let expected = if has { Verdict::Valid } else { Verdict::Forbidden };
        assert_eq!(admin.validate(&plain, &check).await.unwrap().verdict, expected, "{asked}");
        let expected = if has { Verdict::ConsumeRequired } else { Verdict::Forbidden };
        assert_eq!(admin.validate(&limited, &check).await.unwrap().verdict, expected, "{asked}");
    }
    let use_with = async |asked: &str| {
        let check = Check::live().with_scopes(asked).unwrap();
        admin.consume(&limited, &check, None).await.unwrap().0.verdict
    };
    assert_eq!(use_with("calendar").await, Verdict::Forbidden, "nothing is spent by it");
    assert_eq!(use_with("mail").await, Verdict::Valid);
    assert_eq!(use_with("mail").await, Verdict::Spent);
    assert!(Check::live().with_scopes("two  spaces").is_err());
    server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_are_spent_exactly_as_often_as_there_are_whoever_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let token = one(&admin, |issue| issue.uses_max = 5).await;
    assert_eq!(verdict(&admin, &token).await, Verdict::ConsumeRequired);
    let mut consumers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, token) = (server.admin().await, token.clone());
        consumers.spawn(async move { client.consume(&token, &Check::live(), None).await.unwrap().0.verdict });
    }
    let verdicts = consumers.join_all().await;
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Valid).count(), 5);
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Spent).count(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_expire_by_themselves_and_live_longer_if_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let short = one(&admin, |issue| issue.ttl_s = 1).await;
    let renewed = one(&admin, |issue| (issue.ttl_s, issue.renewable_s) = (1, 3_600)).await;
    assert_eq!(verdict(&admin, &short).await, Verdict::Valid);
    let expires = admin.renew(&renewed, 600, None).await.unwrap();
    let info = admin.inspect(renewed.id).await.unwrap().unwrap();
    assert_eq!(info.expires, expires);
    let began = Instant::now();
    while verdict(&admin, &short).await == Verdict::Valid {
        assert!(began.elapsed() < Duration::from_secs(5), "a one-second token expires");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(verdict(&admin, &short).await, Verdict::Expired);
    assert_eq!(verdict(&admin, &renewed).await, Verdict::Valid);
    let refused = admin.renew(&short, 600, None).await.unwrap_err();
    assert_eq!(refused, Error::Rejected(Rejection::Token(Verdict::Expired)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_decide_on_every_request_what_a_client_may_do_and_learn() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let made = run(dir.path(), &["identity", "create", "shop", "--rights", "validate"], "");
    assert!(made.status.success(), "{made:?}");
    let shop = server.client_as("shop").await;
    let token = one(&admin, |_| {}).await;
    assert_eq!(verdict(&shop, &token).await, Verdict::Valid);
    let not_allowed = Error::Rejected(Rejection::NotAllowed);
    assert_eq!(shop.issue(issue_for(&["bob"]), None).await.unwrap_err(), not_allowed);
    assert_eq!(
        shop.revoke(RevokeTarget::Id(token.id)).await.unwrap_err(),
        Error::Rejected(Rejection::NotFound)
    );
    assert_eq!(shop.stats().await.unwrap_err(), Error::NotAllowed);
    assert_eq!(shop.log_page(Sequence(1), 1_000).await.unwrap_err(), Error::NotAllowed);
    assert_eq!(shop.inspect(token.id).await.unwrap(), None);
    // One denial for every reason.
    let forged = Token::from_bytes([7; 32]);
    assert_eq!(verdict(&shop, &forged).await, Verdict::Denied);
    admin.revoke(RevokeTarget::Id(token.id)).await.unwrap();
    assert_eq!(verdict(&shop, &token).await, Verdict::Denied);
    // Tenants the client has no right in look as if there was nothing.
    admin.create_tenant(name("acme")).await.unwrap();
    let hidden = one(&admin, |issue| issue.tenant = name("acme")).await;
    assert_eq!(verdict(&shop, &hidden).await, Verdict::Denied);
    // Withdrawn in mid-connection.
    let live = one(&admin, |_| {}).await;
    assert_eq!(verdict(&shop, &live).await, Verdict::Valid);
    admin.grant_rights(name("jeton:client:shop"), name("acme"), Rights::VALIDATE).await.unwrap();
    assert_eq!(verdict(&shop, &hidden).await, Verdict::Valid);
    admin.withdraw_rights(name("jeton:client:shop"), name("default"), Rights::VALIDATE).await.unwrap();
    assert_eq!(verdict(&shop, &live).await, Verdict::Denied);
    admin.withdraw_rights(name("jeton:client:shop"), name("acme"), Rights::VALIDATE).await.unwrap();
    let nowhere = shop.validate(&live, &Check::live()).await.unwrap_err();
    assert_eq!(
        nowhere,
        Error::NotAllowed,
        "a client without the right anywhere is not told that tokens are dead"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_server_takes_is_refused_before_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let crowd = vec!["x"; 257];
    let refused = admin.issue(issue_for(&crowd), None).await.unwrap_err();
    assert_eq!(refused, Error::Rejected(Rejection::OutOfRange(jeton_core::outcome::FieldName::Subjects)));
    let long: Vec<String> = (0..256).map(|at| format!("{at:0>255}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let refused = admin.issue(issue_for(&long), None).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused:?}");
    let token = one(&admin, |_| {}).await;
    let nobody = Check::live().for_audience(&"x".repeat(70_000));
    assert!(matches!(admin.validate(&token, &nobody).await, Err(Error::Audience { .. })));
    assert_eq!(verdict(&admin, &token).await, Verdict::Valid, "the connection is as good as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_stream_for_each_request_goes_on_for_ever() {
    // More streams than are allowed at a time: each has to end before another can begin.
    const STREAMS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let token = one(&server.admin().await, |_| {}).await;
    let connection = raw_connection(&server).await;
    let mut first = true;
    for id in 0..STREAMS {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let mut frames = Vec::new();
        if std::mem::take(&mut first) {
            let hello = Hello { version_min: 1, version_max: 1, features: 0 };
            Request::Hello(hello).encode(1_000, &mut frames);
        }
        let command = Command::Revoke(RevokeTarget::Id(token.id));
        Request::Write { key: None, command }.encode(id, &mut frames);
        send.write_all(&frames).await.unwrap();
        send.finish().unwrap();
        let answered = tokio::time::timeout(PATIENCE, receive.read_to_end(1 << 20)).await;
        assert!(!answered.expect("the server ends the stream").unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_time_to_read_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let connection = raw_connection(&server).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let mut frames = Vec::new();
    Request::Hello(Hello { version_min: 1, version_max: 1, features: 0 }).encode(0, &mut frames);
    for id in 1..=600 {
        encode_validate(id, &[[7; 32]; 1_000], &[], None, Sequence(0), true, &mut frames);
    }
    let sending = tokio::spawn(async move {
        send.write_all(&frames).await.unwrap();
        send.finish().unwrap();
    });
    tokio::time::sleep(Duration::from_secs(3)).await; // longer than a request may take to arrive
    let answers = tokio::time::timeout(PATIENCE, receive.read_to_end(1 << 26)).await.unwrap().unwrap();
    sending.await.unwrap();
    assert!(answers.len() > 600 * 16_000, "every request is answered: {} bytes", answers.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_given_up_makes_room_for_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let connection = raw_connection(&server).await;
    let (mut send, mut unread) = connection.open_bi().await.unwrap();
    let mut frames = Vec::new();
    Request::Hello(Hello { version_min: 1, version_max: 1, features: 0 }).encode(0, &mut frames);
    for id in 1..=200 {
        encode_validate(id, &[[7; 32]; 1_000], &[], None, Sequence(0), true, &mut frames);
    }
    let flood = tokio::spawn(async move {
        let _ = send.write_all(&frames).await; // until nobody reads it any more
        send
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let mut ping = Vec::new();
    Request::Ping.encode(7, &mut ping);
    send.write_all(&ping).await.unwrap();
    unread.stop(0u32.into()).unwrap();
    let mut answer = [0; 16];
    let read = tokio::time::timeout(PATIENCE, receive.read_exact(&mut answer)).await;
    read.expect("the other stream is read").unwrap();
    flood.abort();
}

/// A connection of quinn's own, for what the client library does not do.
async fn raw_connection(server: &Server) -> quinn::Connection {
    let dir = server.data.join("identities/admin");
    let pem = |file: &str| std::fs::read(dir.join(file)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem("ca.pem")).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(&pem("client.pem")).unwrap()],
            PrivateKeyDer::from_pem_slice(&pem("client.key")).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![jeton_wire::ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(std::sync::Arc::new(crypto)));
    endpoint.connect(server.address, "jeton").unwrap().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_authority_does_not_get_in() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(dir.path());
    Server::start(elsewhere.path()).terminate();
    let foreign = elsewhere.path().join("identities/admin");
    // The server's authority, so that the client accepts it, with a certificate of another one.
    std::fs::copy(dir.path().join("identities/admin/ca.pem"), foreign.join("ca.pem")).unwrap();
    let identity = jeton_client::Identity::from_dir(foreign).unwrap();
    let refused = Client::connect(jeton_client::Config::new(server.address, identity)).await.unwrap_err();
    assert!(matches!(refused, Error::Connect { .. }), "{refused:?}");
    assert_eq!(verdict(&server.admin().await, &Token::from_bytes([1; 32])).await, Verdict::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_never_rests_on_less_than_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let issued = admin.issue(issue_for(&["alice"]), None).await.unwrap();
    let other = server.admin().await;
    let at = |sequence| other.validate_batch(&issued.tokens, &CHECK, Consistency::AtLeast(sequence));
    static CHECK: std::sync::LazyLock<Check> = std::sync::LazyLock::new(Check::live);
    assert_eq!(at(issued.sequence).await.unwrap()[0].verdict, Verdict::Valid);
    let ahead = Sequence(issued.sequence.0 + 1_000);
    assert!(matches!(at(ahead).await, Err(Error::Behind { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing_and_the_log_replays_to_the_same_state_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let subjects: Vec<String> = (0..250).map(|number| format!("user-{number}")).collect();
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    let mut tokens = Vec::new();
    for _ in 0..8 {
        tokens.extend(admin.issue(issue_for(&subjects), None).await.unwrap().tokens);
    }
    let target = |subject| RevokeTarget::Subject { tenant: name("default"), subject: name(subject) };
    assert_eq!(admin.revoke(target("user-7")).await.unwrap().report.revoked, 8);
    let streamed = replay_over_quic(&admin).await;
    server.terminate();
    let offline = run(dir.path(), &["log", "replay", "--json"], "");
    let offline: serde_json::Value = serde_json::from_slice(&offline.stdout).unwrap();
    assert_eq!(offline["digest"].as_str().unwrap(), streamed);
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let answers = admin.validate_batch(&tokens, &Check::live(), Consistency::Latest).await.unwrap();
    for (at, answer) in answers.iter().enumerate() {
        let expected = if at % 250 == 7 { Verdict::Revoked } else { Verdict::Valid };
        assert_eq!(answer.verdict, expected, "token {at}");
    }
    let subject = admin.subject(answers[9].subject).await.unwrap().unwrap();
    assert_eq!(subject.name.as_deref(), Some("user-9"));
    let stats: serde_json::Value = serde_json::from_str(&admin.stats().await.unwrap()).unwrap();
    assert!(stats["shards"][0]["tokens"].as_u64().unwrap() >= 2_000);
}

async fn replay_over_quic(client: &Client) -> String {
    let log = client.server_info().await.unwrap().log;
    let config =
        StateConfig { tokens_initial: 100, tokens_max: 100_000, huge_pages: false, ..StateConfig::default() };
    let mut replay = Replay::new(log, Partition(0), config, None).unwrap();
    for _ in 0..10_000 {
        let page = client.log_page(replay.end().sequence.next(), 20_000).await.unwrap();
        if page.batches.is_empty() {
            break;
        }
        page.batches.iter().for_each(|batch| drop(replay.apply(batch).unwrap()));
    }
    replay.state().digest().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_has_its_effect_once_across_connections_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let key = Some(jeton_client::IdempotencyKey([5; 16]));
    let admin = server.admin().await;
    let first = admin.issue(issue_for(&["alice"]), key).await.unwrap().tokens.remove(0);
    let limited = one(&admin, |issue| issue.uses_max = 3).await;
    let use_key = Some(jeton_client::IdempotencyKey([6; 16]));
    assert_eq!(admin.consume(&limited, &Check::live(), use_key).await.unwrap().1, 2);
    server.kill9();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let second = admin.issue(issue_for(&["alice"]), key).await.unwrap().tokens.remove(0);
    assert_eq!(verdict(&admin, &first).await, Verdict::Revoked);
    assert_eq!(verdict(&admin, &second).await, Verdict::Valid);
    let reused = admin.issue(issue_for(&["bob"]), key).await.unwrap_err();
    assert_eq!(reused, Error::Rejected(Rejection::KeyReused));
    assert_eq!(admin.consume(&limited, &Check::live(), use_key).await.unwrap().1, 2);
    assert_eq!(admin.consume(&limited, &Check::live(), None).await.unwrap().1, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_finds_its_server_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = server.admin().await;
    let token = one(&client, |_| {}).await;
    let listen = server.address.to_string();
    server.kill9();
    let _server = Server::start_with(dir.path(), &listen, &[]);
    assert_eq!(verdict(&client, &token).await, Verdict::Valid);
}
