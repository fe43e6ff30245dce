//! Attacks on a real server, in short: what the attacker is told, what it costs the server, and that a legitimate client
//! is answered rightly all the while. How fast it is answered is measured by the `attack` binary, not asserted here.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use jeton_client::{Check, Error, Rejection, RevokeTarget, Rights, Verdict};
use jeton_core::command::ISSUE_TOKENS_MAX;
use jeton_core::numbers::Sequence;
use jeton_tests::attack::certificates::{FAULTS, Fault, Reception, forge, knock};
use jeton_tests::attack::connections;
use jeton_tests::attack::datagrams::{Sources, garbage, unknown_version};
use jeton_tests::attack::frames::{OFFENCES, Offence, commit, unknown_tokens};
use jeton_tests::attack::initials::first_datagrams;
use jeton_tests::attack::migration::wander;
use jeton_tests::attack::readers::ask_and_take;
use jeton_tests::attack::rig::{Papers, Stop, Target, Wish, close_code, closed};
use jeton_tests::attack::stalled::stall;
use jeton_tests::attack::streams::{TREATMENTS, waste};
use jeton_tests::attack::witness::{Seen, Witness};
use jeton_tests::attack::writes::{Answers, Write, count, flood, pour, sequences, writer};
use jeton_tests::sim::rng::Rng;
use jeton_tests::{PATIENCE, Server, issue_for, jeton_load, name, run};
use jeton_wire::request::{Request, encode_validate};
use tokio::task::JoinSet;

/// What a server may have in memory while it is attacked: far above what it needs, far below what an unbounded queue
/// would take.
const RSS_MAX: u64 = 1 << 30;

struct Scene {
    server: Server,
    target: Target,
    admin: Papers,
    _dir: tempfile::TempDir,
}

fn scene() -> Scene {
    scene_with(&[])
}

fn scene_with(environment: &[(&str, &str)]) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), "127.0.0.1:0", environment);
    let target = Target { address: server.address, data: dir.path().to_owned() };
    let admin = target.papers_of("admin").unwrap();
    Scene { server, target, admin, _dir: dir }
}

impl Scene {
    async fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&self.server.admin().await.stats().await.unwrap()).unwrap()
    }

    /// Lets a witness ask while `attack` goes on, and once more after it; every answer has to be right.
    async fn watched<R>(&self, attack: impl Future<Output = R>) -> R {
        let witness = Witness::new(&self.target).await.unwrap();
        let stop = Stop::default();
        let attacked = async {
            let done = attack.await;
            stop.stop();
            done
        };
        let (done, seen) = tokio::join!(attacked, witness.watch(&stop));
        assert_right(&seen);
        assert!(witness.ask().await.unwrap(), "the server is as good as before");
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.target.pid().unwrap())).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        assert!(rss.unwrap().parse::<u64>().unwrap() * 1_024 < RSS_MAX, "{rss:?} KiB");
        done
    }
}

fn assert_right(seen: &Seen) {
    assert_eq!((seen.wrong, seen.unanswered), (0, 0), "{:?}", seen.reason);
    assert!(!seen.latency_us.is_empty(), "the witness was answered");
}

/// Throws datagrams from `sources` senders, a few at a time, and takes what comes back.
async fn throw(target: &Target, sources: usize, datagrams: &[Vec<u8>]) -> Sources {
    let mut senders = Sources::new(target.address, sources).unwrap();
    for (at, datagram) in datagrams.iter().enumerate() {
        senders.send(at, datagram);
        if at % 16 == 15 {
            tokio::time::sleep(Duration::from_millis(2)).await; // the socket's buffer is not what is tested
        }
    }
    // Retransmissions too: a handshake is given up after three seconds.
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        senders.drain_all();
    }
    senders
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_get_three_times_their_bytes_at_most_and_are_asked_for_proof() {
    const INITIALS: usize = 1_500;
    let scene = scene();
    let initials = first_datagrams(&scene.admin, scene.target.address, INITIALS).unwrap();
    // An address for each: to the server they are as good as spoofed.
    let senders = scene.watched(throw(&scene.target, INITIALS, &initials)).await;
    let received = senders.received();
    assert!(senders.amplification_max() <= 3.0, "{} bytes for one", senders.amplification_max());
    assert!(received.datagrams > 256, "{received:?}");
    assert!(received.retries > 100, "past 256 handshakes under way an address is to be proven: {received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stop_once_their_address_is_proven_do_not_keep_others_out() {
    /// Less than the three seconds that a handshake has.
    const NOT_LONG: Duration = Duration::from_secs(2);
    let scene = scene();
    let (target, admin, stop) = (scene.target.clone(), scene.admin.clone(), Stop::default());
    let stopping = stop.clone();
    let attack = async {
        let stalling = tokio::task::spawn_blocking(move || stall(&target, &admin, 400, &stopping));
        tokio::time::sleep(Duration::from_secs(3)).await;
        // Who comes now gets in before any of them is given up.
        let welcome = tokio::time::timeout(NOT_LONG, knock(&scene.target, &scene.admin)).await;
        assert_eq!(welcome.expect("in time"), Reception::Welcome);
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.stop();
        stalling.await.unwrap().unwrap()
    };
    let stalled = scene.watched(attack).await;
    assert!(stalled.proofs > 256, "past 256 under way an address is to be proven: {stalled:?}");
    assert!(stalled.taken_on * 2 > stalled.begun, "and whoever has proven it gets a handshake: {stalled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_unknown_versions_are_answered_with_less_than_they_brought() {
    let scene = scene();
    let mut random = Rng::new(3);
    let datagrams: Vec<Vec<u8>> = (0..4_000)
        .map(|at| if at % 2 == 0 { garbage(&mut random) } else { unknown_version(&mut random) })
        .collect();
    let senders = scene.watched(throw(&scene.target, 64, &datagrams)).await;
    let received = senders.received();
    assert!(received.bytes <= senders.sent(), "{received:?} for {} bytes", senders.sent());
    assert!(
        received.negotiations > 100,
        "whoever speaks another version is told which there are: {received:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_at_another_address_with_every_datagram_costs_the_others_nothing() {
    let scene = scene();
    let (target, admin, stop) = (scene.target.clone(), scene.admin.clone(), Stop::default());
    let stopping = stop.clone();
    let wandering = tokio::task::spawn_blocking(move || wander(&target, &admin, 32, &stopping));
    let seen = scene
        .watched(async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            stop.stop();
            wandering.await.unwrap().unwrap()
        })
        .await;
    assert_eq!(seen.addresses, 32);
    assert!(seen.received() <= 3 * seen.sent(), "{seen:?}");
    // To an address that is proven, as the first is, a challenge is sent whatever came from it (RFC 9000, section 9.3.3).
    for (host, challenge) in seen.hosts.iter().zip([1_200, 0, 0, 0]) {
        assert!(host.received <= 3 * host.sent + challenge, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_certificate_that_is_in_order_gets_an_answer() {
    let scene = scene();
    let good = scene.target.sign(&Wish::good("jeton:client:stranger")).unwrap();
    assert_eq!(knock(&scene.target, &good).await, Reception::Welcome);
    scene
        .watched(async {
            for fault in FAULTS {
                let reception = knock(&scene.target, &forge(&scene.target, fault).unwrap()).await;
                match fault {
                    // The authority has signed it: the server closes, with the code for identities.
                    Fault::TwoUris | Fault::NoUri | Fault::LongUri => {
                        assert_eq!(reception, Reception::Closed(9), "{fault:?}");
                    }
                    _ => assert!(matches!(reception, Reception::Alert(_)), "{fault:?}: {reception:?}"),
                }
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_does_not_outlive_its_certificate() {
    let scene = scene();
    let wish = Wish { until_s: 5, ..Wish::good("jeton:client:admin") };
    let papers = scene.target.sign(&wish).unwrap();
    let (connection, mut send, mut receive) = scene.target.greeted(&papers).await.unwrap();
    let mut ping = Vec::new();
    Request::Ping.encode(1, &mut ping);
    send.write_all(&ping).await.unwrap();
    receive.read_exact(&mut [0; 16]).await.unwrap();
    assert_eq!(closed(&connection).await.unwrap(), Some(9));
    // The last second belongs to the certificate (RFC 5280, section 4.1.2.5): after it TLS lets it in no more.
    let refused = tokio::time::timeout(PATIENCE, async {
        while !matches!(knock(&scene.target, &papers).await, Reception::Alert(_)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    refused.await.expect("nor does it get in again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_withdrawn_in_mid_connection_is_refused_from_the_next_request_on() {
    const ROUNDS: usize = 400;
    let scene = scene();
    let made =
        run(scene.server.data.as_path(), &["identity", "create", "shop", "--rights", "validate,issue"], "");
    assert!(made.status.success(), "{made:?}");
    let (admin, shop) = (scene.server.admin().await, scene.server.client_as("shop").await);
    let token = admin.issue(issue_for(&["alice"]), None).await.unwrap().tokens.remove(0);
    // Requests of both kinds are under way the whole time.
    let stop = Stop::default();
    let (asker, writer, token_of, over) = (shop.clone(), shop.clone(), token.clone(), stop.clone());
    let asking = tokio::spawn(async move {
        let mut answers = Vec::new();
        while !over.is_over() && answers.len() < 100_000 {
            answers.push(asker.validate(&token_of, &Check::live()).await.map(|answer| answer.verdict));
        }
        answers
    });
    let writing = tokio::spawn(async move {
        let mut writes = JoinSet::new();
        for _ in 0..ROUNDS {
            let client = writer.clone();
            writes.spawn(async move { client.issue(issue_for(&["bob"]), None).await });
        }
        writes.join_all().await
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let all = Rights::VALIDATE.with(Rights::ISSUE);
    admin.withdraw_rights(name("jeton:client:shop"), name("default"), all).await.unwrap();
    // Acknowledged: from here on nothing is answered any more, on the same connection.
    assert_eq!(shop.validate(&token, &Check::live()).await.unwrap_err(), Error::NotAllowed);
    let refused = shop.issue(issue_for(&["bob"]), None).await.unwrap_err();
    assert!(matches!(refused, Error::NotAllowed | Error::Rejected(Rejection::NotAllowed)), "{refused:?}");
    stop.stop();
    // What was under way was answered before, or refused; never both ways round, and nothing was lost.
    let answers = asking.await.unwrap();
    let first_refusal = answers.iter().position(|answer| *answer == Err(Error::NotAllowed));
    for (at, answer) in answers.iter().enumerate() {
        let is_before = first_refusal.is_none_or(|first| at < first);
        let expected = if is_before { Ok(Verdict::Valid) } else { Err(Error::NotAllowed) };
        assert_eq!(*answer, expected, "question {at}");
    }
    for issued in writing.await.unwrap() {
        match issued {
            Ok(issued) => {
                let verdict = admin.validate(&issued.tokens[0], &Check::live()).await.unwrap().verdict;
                assert_eq!(verdict, Verdict::Valid, "what was acknowledged before is good");
            }
            Err(error) => {
                assert!(
                    matches!(error, Error::NotAllowed | Error::Rejected(Rejection::NotAllowed)),
                    "{error:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_breaks_the_protocol_is_told_which_rule_and_is_gone() {
    let scene = scene();
    scene
        .watched(async {
            for offence in OFFENCES {
                let code = commit(&scene.target, &scene.admin, offence).await.unwrap();
                let expected = match offence {
                    Offence::Unfinished => 7,
                    Offence::Oversized => 5,
                    Offence::Garbage | Offence::CutShort => 4,
                    Offence::NoHello => 2,
                };
                assert_eq!(code, Some(expected), "{offence:?}");
            }
        })
        .await;
    assert!(scene.stats().await["shards"][0]["protocol_errors"].as_u64().unwrap() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_on_every_stream_of_many_connections_are_closed_and_nobody_else_is() {
    const CONNECTIONS: usize = 20;
    let scene = scene();
    let slow = async {
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (target, admin) = (scene.target.clone(), scene.admin.clone());
            connections.spawn(async move {
                let (connection, _send, _receive) = target.greeted(&admin).await.unwrap();
                let mut streams = Vec::new();
                for _ in 0..60 {
                    let (mut send, receive) = connection.open_bi().await.unwrap();
                    send.write_all(&[32]).await.unwrap();
                    streams.push((send, receive));
                }
                closed(&connection).await.unwrap()
            });
        }
        connections.join_all().await
    };
    let codes = scene.watched(slow).await;
    assert_eq!(codes, vec![Some(7); CONNECTIONS]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_nobody_issued_are_denied_one_by_one_however_many() {
    const REQUESTS: u64 = 500;
    let scene = scene();
    let asked = async {
        let (_connection, mut send, mut receive) = scene.target.greeted(&scene.admin).await.unwrap();
        let mut random = Rng::new(5);
        let sending = tokio::spawn(async move {
            for id in 1..=REQUESTS {
                send.write_all(&unknown_tokens(id, 64, &mut random)).await.unwrap();
            }
            send.finish().unwrap();
        });
        let answers = receive.read_to_end(1 << 24).await.unwrap();
        sending.await.unwrap();
        answers
    };
    let answers = scene.watched(asked).await;
    assert!(answers.len() as u64 > REQUESTS * 64 * 8, "every token has its answer: {} bytes", answers.len());
    let shard = &scene.stats().await["shards"][0];
    let (tokens, valid) = (shard["tokens"].as_u64().unwrap(), shard["valid"].as_u64().unwrap());
    assert!(tokens - valid >= REQUESTS * 64, "{shard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_those_allowed_wait_and_streams_reset_half_way_make_room() {
    const ROUNDS: u64 = 300;
    let scene = scene();
    let wasting = async {
        let (connection, _send, _receive) = scene.target.greeted(&scene.admin).await.unwrap();
        let mut held = Vec::new();
        while held.len() < 63 {
            held.push(connection.open_bi().await.unwrap());
        }
        let more = tokio::time::timeout(Duration::from_millis(300), connection.open_bi()).await;
        assert!(more.is_err(), "no more than 64 streams at a time");
        for (mut send, mut receive) in held {
            let _ = (send.reset(1_u32.into()), receive.stop(1_u32.into()));
        }
        let mut answered = 0;
        for (id, treatment) in (0..ROUNDS).zip(TREATMENTS.into_iter().cycle()) {
            let wasted = tokio::time::timeout(PATIENCE, waste(&connection, id, treatment)).await;
            answered += u64::from(wasted.expect("every stream makes room for the next").unwrap());
        }
        answered
    };
    assert_eq!(
        scene.watched(wasting).await,
        ROUNDS / TREATMENTS.len() as u64,
        "proper requests are answered"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_forgotten_if_its_stream_is_reset_half_way_and_answered_if_it_was_whole() {
    let scene = scene();
    let (connection, _send, _receive) = scene.target.greeted(&scene.admin).await.unwrap();
    let mut frame = Vec::new();
    encode_validate(9, &[[7; 32]; 4], &[], None, Sequence(0), false, &mut frame);
    // Half a request, then a reset: no answer, and no offence either, for longer than a request may take.
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&frame[..frame.len() / 2]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    send.reset(1_u32.into()).unwrap();
    let rest = tokio::time::timeout(PATIENCE, receive.read_to_end(1 << 16)).await.unwrap();
    assert_eq!(rest.unwrap(), b"", "the server ends its side without a word");
    // A whole one, and the reset only after the server has read it: its answer comes, then the end.
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&frame).await.unwrap();
    let mut header = [0; 16];
    receive.read_exact(&mut header).await.unwrap();
    send.reset(1_u32.into()).unwrap();
    let rest = tokio::time::timeout(PATIENCE, receive.read_to_end(1 << 16)).await.unwrap().unwrap();
    assert_eq!(u64::from_le_bytes(header[8..].try_into().unwrap()), 9);
    assert!(rest.len() >= 4 * 8, "{} bytes of answers", rest.len());
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(connection.close_reason(), None, "a reset is no offence");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_for_ten_seconds_is_closed_and_one_that_takes_a_little_is_not() {
    let scene = scene();
    let (target, admin) = (scene.target.clone(), scene.admin.clone());
    let slow = tokio::spawn(async move {
        // Half a window at a time: QUIC tells the server of room only then.
        let reading = ask_and_take(&target, &admin, 2_048, Duration::from_secs(2));
        tokio::time::timeout(Duration::from_secs(13), reading).await.is_err()
    });
    let silent = ask_and_take(&scene.target, &scene.admin, 0, Duration::from_secs(1));
    let (connection, taken) = scene.watched(silent).await.unwrap();
    assert_eq!((closed(&connection).await.unwrap(), taken), (Some(8), 0));
    assert!(slow.await.unwrap(), "whoever reads slowly is waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_are_refused_and_those_that_stand_go_on() {
    let scene = scene_with(&[("JETON_CONNECTIONS_MAX", "24")]);
    let papers = ["jeton:client:a", "jeton:client:b"].map(|uri| scene.target.sign(&Wish::good(uri)).unwrap());
    let (standing, refusal) = scene
        .watched(async {
            let (mut standing, _) = connections::open(&scene.target, &papers[0], 12).await;
            let (more, refusal) = connections::open(&scene.target, &papers[1], 12).await;
            standing.extend(more);
            (standing, refusal)
        })
        .await;
    assert_eq!(standing.len(), 23, "the witness has the last one");
    let refusal = refusal.expect("one was refused").to_string();
    assert!(refusal.contains("refused"), "{refusal}");
    assert!(standing.iter().all(|connection| connection.close_reason().is_none()));
    // Room that was made is used.
    standing[0].close(0_u32.into(), b"");
    let again = tokio::time::timeout(PATIENCE, async {
        while connections::open(&scene.target, &papers[0], 1).await.0.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    again.await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_does_not_take_the_connections_of_all() {
    const OPENED: usize = 20;
    let scene = scene_with(&[("JETON_CONNECTIONS_MAX", "24")]);
    let greedy = scene.target.sign(&Wish::good("jeton:client:greedy")).unwrap();
    let (standing, _) = scene.watched(connections::open(&scene.target, &greedy, OPENED)).await;
    assert_eq!(standing.len(), OPENED, "the handshake says nothing of it");
    let closing = tokio::time::timeout(PATIENCE, async {
        loop {
            let codes: Vec<_> = standing.iter().filter_map(|one| close_code(&one.close_reason()?)).collect();
            if codes.len() >= OPENED - 12 {
                return codes;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(closing.await.unwrap(), vec![10; OPENED - 12], "half of 24 stand");
    let other = scene.target.sign(&Wish::good("jeton:client:other")).unwrap();
    assert_eq!(knock(&scene.target, &other).await, Reception::Welcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_an_overload_is_answered_or_refused() {
    const DUE: u64 = 400_000;
    let scene = scene();
    // In flight, of writes, is more than one identity may have under way: the server has to refuse.
    for (mix, connections) in [("validate=100", "4"), ("issue=100", "16")] {
        // Far more than a server of this build can do.
        let arguments = ["run", "--json", "--tokens", "1000", "--in-flight", "1024", "--warm-up", "0s"];
        let mut load = std::process::Command::new(jeton_load());
        load.args(arguments).args(["--rate", "200000", "--duration", "2s", "--when-full", "drop"]);
        load.args(["--mix", mix, "--connections", connections, "--issue-batch", "1"]);
        let out = scene.target.data.join("overload");
        load.arg("--out").arg(&out).arg("--data").arg(&scene.target.data);
        load.stderr(std::process::Stdio::inherit());
        let running = tokio::task::spawn_blocking(move || load.output());
        let output = scene.watched(running).await.unwrap().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = std::fs::read_to_string(out.join("run.json")).unwrap();
        let all: serde_json::Value = serde_json::from_str(&all).unwrap();
        assert_eq!((&report["errors"], &report["wrong_replies"]), (&0.into(), &0.into()), "{report}");
        assert_eq!(all["detail"]["unanswered"], 0, "{all}");
        let (count, detail) = (|value: &serde_json::Value| value.as_u64().unwrap(), &all["detail"]);
        let done: u64 = detail["kinds"].as_array().unwrap().iter().map(|kind| count(&kind["requests"])).sum();
        let (refused, not_sent) = (count(&report["refused"]), count(&detail["not_sent"]));
        assert_eq!(
            done + refused + not_sent,
            DUE,
            "each was answered, refused, or given up by its sender: {all}"
        );
        assert!(done > 0 && not_sent > 0 && (refused > 0) == (mix == "issue=100"), "{report}");
        assert!(output.status.success(), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revokes_get_through_while_another_client_fills_the_queue() {
    let scene = scene();
    let flooder = writer(&scene.target).await.unwrap();
    for write in [Write::Issue, Write::Revoke] {
        let witness = Witness::new(&scene.target).await.unwrap();
        let (stop, answers) = (Stop::default(), std::sync::Arc::new(Answers::default()));
        let mut floods = JoinSet::new();
        for seed in 0..16 {
            let (target, papers, stop) = (scene.target.clone(), flooder.clone(), stop.clone());
            let answers = std::sync::Arc::clone(&answers);
            floods.spawn(async move { flood(&target, &papers, write, seed + 1, &answers, &stop).await });
        }
        let stopping = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            stopping.stop();
        });
        let seen = witness.revoke_on(&stop).await;
        floods.join_all().await.into_iter().for_each(|flood| flood.unwrap());
        assert_right(&seen);
        assert!(answers.done.get() > 0 && answers.busy.get() > 0, "the queue was full at times: {answers:?}");
        assert_eq!(answers.refused.get(), 0, "busy is the only refusal: {answers:?}");
    }
    let dead = scene.server.admin().await;
    assert!(dead.revoke(RevokeTarget::Tenant { tenant: name("default") }).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_does_not_wait_for_all_that_another_client_had_handed_in_first() {
    const CONNECTIONS: u64 = 4;
    const ISSUES: u64 = 300;
    let scene = scene();
    let flooder = writer(&scene.target).await.unwrap();
    let admin = scene.server.admin().await;
    let victim = admin.issue(issue_for(&["victim"]), None).await.unwrap().tokens.remove(0);
    let mut pours = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (target, papers) = (scene.target.clone(), flooder.clone());
        pours.spawn(async move { pour(&target, &papers, ISSUES, ISSUE_TOKENS_MAX).await.unwrap() });
    }
    let poured = pours.join_all().await;
    // What was read of it waits for the sequencer; one that serves whoever came first decides on all of that now.
    let handed_in = |stats: serde_json::Value| {
        let shards = stats["shards"].as_array().unwrap().clone();
        shards.iter().map(|shard| shard["writes"].as_u64().unwrap()).sum::<u64>()
    };
    while handed_in(scene.stats().await) < CONNECTIONS * ISSUES {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (open, receives): (Vec<_>, Vec<_>) =
        poured.into_iter().map(|(connection, send, receive)| ((connection, send), receive)).unzip();
    let mut answers = JoinSet::new();
    receives.into_iter().for_each(|receive| drop(answers.spawn(sequences(receive, ISSUES))));
    let revoked = admin.revoke(RevokeTarget::Id(victim.id)).await.unwrap();
    let all = tokio::time::timeout(PATIENCE, answers.join_all()).await.unwrap();
    let all: Vec<_> = all.into_iter().flat_map(Result::unwrap).collect();
    let later = all.iter().filter(|sequence| **sequence > revoked.sequence).count();
    assert!(later > all.len() / 4, "{later} of {} were decided after the revoke", all.len());
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_read_on_for_having_too_much_under_way_is_answered_all_of_it_in_the_end() {
    const CONNECTIONS: u64 = 6;
    const ISSUES: u64 = 3_000;
    let scene = scene();
    let flooder = writer(&scene.target).await.unwrap();
    let answers = std::sync::Arc::new(Answers::default());
    let mut floods = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (target, papers) = (scene.target.clone(), flooder.clone());
        let answers = std::sync::Arc::clone(&answers);
        floods.spawn(async move {
            let (connection, mut send, receive) = pour(&target, &papers, ISSUES, 1).await.unwrap();
            send.finish().unwrap();
            count(receive, &answers).await;
            connection.close(0_u32.into(), b"enough");
        });
    }
    scene.watched(tokio::time::timeout(PATIENCE, floods.join_all())).await.unwrap();
    assert_eq!(answers.done.get() + answers.busy.get(), CONNECTIONS * ISSUES, "{answers:?}");
}
