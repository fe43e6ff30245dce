use std::collections::BTreeMap;
use std::io;

use super::*;
use crate::command::{ChangeRights, Command, ConsumeToken, RevokeTarget};
use crate::numbers::{LogId, Partition, Sequence};
use crate::outcome::Outcome;
use crate::recovery::Replay;
use crate::rights::Rights;
use crate::sequencer::{FIRST_TENANT, Sequencer};
use crate::state::StateConfig;
use crate::testing::{Engine, LOG, SMALL, issue_command, name};
use crate::token::Token;
use crate::verdict::Verdict;
use crate::view::View;

/// Files in memory.
#[derive(Clone, Debug, Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl PartStore for Files {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        self.0.get(name).map(|bytes| bytes.len() as u64).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, name: &str, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.get(name).ok_or(io::ErrorKind::NotFound)?;
        let bytes = bytes.get(..into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn consume(token: &Token) -> Command {
    Command::ConsumeToken(ConsumeToken {
        token: token.clone(),
        access: None,
        audience: None,
        scopes: None,
        binding: None,
    })
}

fn renew(token: &Token) -> Command {
    Command::RenewToken { token: token.clone(), ttl_s: 7_000, binding: None }
}

fn subject(subject: &str) -> RevokeTarget {
    RevokeTarget::Subject { tenant: name(FIRST_TENANT), subject: name(subject) }
}

/// An engine in which there is something of everything, with tokens of every kind.
fn busy() -> (Engine, BTreeMap<&'static str, Token>) {
    let mut engine = Engine::new();
    let mut tokens = BTreeMap::new();
    for at in 0..30 {
        engine.issue(|issue| issue.subjects = vec![name(&format!("somebody {at}"))]);
    }
    tokens.insert("live", engine.issue(|_| {}));
    tokens.insert("bob's", engine.issue(|issue| issue.subjects = vec![name("bob")]));
    let limited = engine.issue(|issue| issue.uses_max = 3);
    engine.run_as(1, Some(1), consume(&limited)).unwrap();
    tokens.insert("used once", limited);
    let revoked = engine.issue(|_| {});
    engine.revoke(RevokeTarget::Id(revoked.id));
    tokens.insert("revoked", revoked);
    let root = engine.issue(|_| {});
    tokens.insert("member", engine.issue(|issue| issue.parent = Some(root.id)));
    tokens.insert("root", root);
    tokens.insert("renewable", engine.issue(|issue| issue.renewable_s = 7_200));
    let tenant = || name("press");
    engine.run(Command::CreateTenant { name: tenant() }).unwrap();
    let change = ChangeRights {
        client: name("spiffe://test/service"),
        tenant: tenant(),
        rights: Rights::ISSUE.with(Rights::REVOKE),
    };
    engine.run_as(1, Some(2), Command::GrantRights(change)).unwrap();
    tokens.insert("of a dead claim set", engine.issue(|issue| issue.tenant = tenant()));
    engine.revoke(RevokeTarget::Tenant { tenant: tenant() });
    (engine, tokens)
}

/// Cuts a snapshot, with `meanwhile` between its pieces, and writes it.
fn snapshot(
    engine: &mut Engine,
    before: Option<Manifest>,
    files: &mut Files,
    mut meanwhile: impl FnMut(&mut Engine),
) -> (Manifest, SnapshotReport) {
    let cut = engine.sequencer.begin_snapshot().expect("nothing is in the way");
    let mut writer = SnapshotWriter::new(cut, before);
    loop {
        meanwhile(engine);
        let Some(piece) = engine.sequencer.poll_snapshot() else { break };
        writer.take(piece, files).unwrap();
    }
    while writer.write_next(files).unwrap() {}
    engine.settle();
    let durable = engine.sequencer.watermarks().durable;
    assert!(writer.may_commit(durable));
    writer.commit(durable, files).unwrap()
}

fn load(files: &Files, sequence: Sequence, config: StateConfig) -> Result<Restored, SnapshotError> {
    let manifest = Manifest::read(files, sequence)?.check_log((LOG, Partition(0)))?;
    let mut loading = Loading::new(manifest, files, config)?;
    for load in loading.loads() {
        load.run(files)?;
    }
    Ok(loading.finish()?.0)
}

/// An engine that goes on from a snapshot and the batches behind it.
fn started(files: &Files, sequence: Sequence, engine: &Engine) -> Engine {
    let restored = load(files, sequence, SMALL).unwrap();
    let mut replay = Replay::behind(restored, None).unwrap();
    for batch in engine.log.iter().filter(|batch| batch.first > sequence) {
        replay.apply(&batch.bytes).unwrap();
    }
    let (state, reader, end) = replay.finish().unwrap();
    let mut started = Engine::new();
    started.view = View::new(reader, state.registry().clone());
    started.sequencer = Sequencer::new(state, end);
    (started.now, started.log) = (engine.now, engine.log.clone());
    started
}

#[test]
fn a_snapshot_holds_the_state_at_its_event_whatever_comes_meanwhile() {
    let (mut engine, tokens) = busy();
    // A renewal that is decided and not durable when the snapshot is cut, and a right, and a token.
    engine.submit_as(1, None, renew(&tokens["renewable"]));
    engine.submit_as(1, None, issue_command(|_| {}));
    let commit = engine.sequencer.poll_commit().unwrap();
    let (last, at_cut) = (commit.last(), engine.sequencer.state().digest());
    engine.log.extend(commit.batches);
    let mut files = Files::default();
    let mut rounds = 0;
    let (manifest, report) = snapshot(&mut engine, None, &mut files, |engine| {
        rounds += 1;
        if rounds == 1 {
            engine.submit_as(1, None, Command::Revoke(subject("bob")));
            engine.submit_as(1, None, consume(&tokens["used once"]));
            engine.submit_as(1, Some(3), Command::Revoke(RevokeTarget::Id(tokens["live"].id)));
            for _ in 0..40 {
                engine.submit_as(1, None, issue_command(|_| {}));
            }
            engine.sequencer.handle_durable(last);
            engine.settle();
        }
    });
    assert_eq!((manifest.sequence, report.sequence), (last.0, last));
    assert_eq!(load(&files, last, SMALL).unwrap().state.digest(), at_cut);
    let started = started(&files, last, &engine);
    assert_eq!(
        started.sequencer.state().digest(),
        engine.sequencer.state().digest(),
        "with what came behind it"
    );
    for (what, token) in &tokens {
        assert_eq!(started.verdict(token), engine.verdict(token), "{what}");
    }
}

#[test]
fn a_server_goes_on_from_a_snapshot_as_if_it_had_never_stopped() {
    let (mut engine, tokens) = busy();
    let mut files = Files::default();
    let (manifest, _) = snapshot(&mut engine, None, &mut files, |_| {});
    let mut started = started(&files, Sequence(manifest.sequence), &engine);
    assert_eq!(started.verdict(&tokens["used once"]), Verdict::ConsumeRequired);
    let again = started.run_as(1, Some(1), consume(&tokens["used once"]));
    assert!(matches!(again, Ok(Outcome::Consumed { uses_left: 2, .. })), "the key is remembered: {again:?}");
    assert_eq!(started.revoke(subject("bob")).revoked, 1, "the subject's tokens are known");
    assert_eq!(started.revoke(RevokeTarget::Family(tokens["member"].id)).revoked, 2);
    assert_eq!(started.verdict(&tokens["root"]), Verdict::Revoked);
    assert_eq!(started.revoke(subject("alice")).revoked, 3, "all of alice's that live");
    started.issue(|issue| issue.subjects = vec![name("somebody 7"), name("somebody new")]);
    started.run(renew(&tokens["renewable"])).unwrap_err();
    started.assert_replays();
}

#[test]
fn a_replay_leaves_rounds_that_time_alone_makes_due_to_the_server_behind_it() {
    let mut engine = Engine::new();
    engine.issue(|issue| issue.ttl_s = 10);
    let mut files = Files::default();
    let (manifest, _) = snapshot(&mut engine, None, &mut files, |_| {});
    for _ in 0..3 {
        engine.pass_s(100);
        engine.issue(|issue| issue.ttl_s = 1_000);
    }
    assert_eq!(engine.sequencer.state().tokens(), 3, "the one that expired was reclaimed in three minutes");
    let mut started = started(&files, Sequence(manifest.sequence), &engine);
    assert_eq!(started.sequencer.state().tokens(), 4, "no round was made of it");
    assert!(started.sequencer.state().is_reclaiming(), "the server begins one");
    started.settle();
    assert_eq!(started.sequencer.state().tokens(), 3, "the expired one is gone");
    started.assert_replays();
}

#[test]
fn what_has_not_changed_since_the_last_snapshot_is_not_written_again() {
    let (mut engine, _) = busy();
    let mut files = Files::default();
    let (first, whole) = snapshot(&mut engine, None, &mut files, |_| {});
    assert_eq!(whole.bytes_written, whole.bytes);
    engine.issue(|_| {});
    let (second, report) = snapshot(&mut engine, Some(first.clone()), &mut files, |_| {});
    assert!(report.bytes_written < report.bytes / 2, "{report:?}");
    let same = first.segments.iter().filter(|segment| second.segments.contains(segment)).count();
    assert!(same >= first.segments.len() - 1, "all but the segment being filled");
    engine.issue(|_| {});
    let (third, _) = snapshot(&mut engine, Some(second.clone()), &mut files, |_| {});
    prune(&mut files, (LOG, Partition(0))).unwrap();
    let kept = [third.sequence, second.sequence].map(Sequence);
    assert_eq!(snapshots(&files).unwrap(), kept);
    for sequence in kept {
        load(&files, sequence, SMALL).unwrap();
    }
    // One of another log, however new, does not take the place of one of this.
    let foreign = Manifest { log: [1; 16], sequence: 99_999, ..third.clone() };
    files.put(&manifest_name(Sequence(99_999)), &foreign.encode()).unwrap();
    files.put(&manifest_name(Sequence(99_998)), b"JTNS and nothing else").unwrap();
    prune(&mut files, (LOG, Partition(0))).unwrap();
    assert_eq!(snapshots(&files).unwrap(), kept);
    let needed: std::collections::BTreeSet<_> = second.parts().chain(third.parts()).map(part_name).collect();
    let there: std::collections::BTreeSet<_> =
        files.0.keys().filter(|name| is_part_name(name)).cloned().collect();
    assert_eq!(there, needed, "no part stays that no snapshot needs");
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    let (mut engine, _) = busy();
    let mut files = Files::default();
    let (manifest, _) = snapshot(&mut engine, None, &mut files, |_| {});
    let sequence = Sequence(manifest.sequence);
    let names = files.names().unwrap();
    for name in &names {
        for at in 0..files.0[name].len() {
            files.0.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            let refused = load(&files, sequence, SMALL).unwrap_err();
            let is_clear = matches!(
                refused,
                SnapshotError::Damaged(_) | SnapshotError::NotASnapshot | SnapshotError::Version(_)
            );
            assert!(is_clear, "{name} at {at}: {refused}");
            files.0.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
        }
        let mut cut = files.clone();
        cut.0.get_mut(name).unwrap().pop();
        assert!(load(&cut, sequence, SMALL).is_err(), "{name} is cut off");
        cut.0.remove(name);
        assert!(matches!(load(&cut, sequence, SMALL), Err(SnapshotError::Io(_))), "{name} is missing");
    }
    load(&files, sequence, SMALL).unwrap();
}

#[test]
fn a_snapshot_of_another_log_or_for_another_configuration_is_refused() {
    let (mut engine, _) = busy();
    let mut files = Files::default();
    let (manifest, _) = snapshot(&mut engine, None, &mut files, |_| {});
    let sequence = Sequence(manifest.sequence);
    let foreign = manifest.check_log((LogId([1; 16]), Partition(0)));
    assert!(matches!(foreign, Err(SnapshotError::Foreign { .. })));
    let refused = |config| matches!(load(&files, sequence, config), Err(SnapshotError::Configuration(_)));
    assert!(refused(StateConfig { segment_records: 16, ..SMALL }));
    assert!(refused(StateConfig { tokens_max: 10, ..SMALL }));
    let renamed = manifest_name(Sequence(sequence.0 + 1));
    let bytes = files.0[&manifest_name(sequence)].clone();
    files.put(&renamed, &bytes).unwrap();
    let renamed = load(&files, Sequence(sequence.0 + 1), SMALL);
    assert!(matches!(renamed, Err(SnapshotError::Damaged(_))));
}

/// Changes the bytes of a part, and says what it is called then.
type Forge<'a> = &'a mut dyn FnMut(&PartRef, &dyn Fn(&mut Vec<u8>)) -> PartRef;

/// Changes a manifest or parts of it, and makes the hashes right again.
fn forged(
    files: &Files,
    manifest: &Manifest,
    change: impl FnOnce(&mut Manifest, Forge<'_>),
) -> (Files, Sequence) {
    let (mut files, mut manifest) = (files.clone(), manifest.clone());
    let mut parts = files.clone();
    change(&mut manifest, &mut |part, change| {
        let mut bytes = parts.0[&part_name(part)].clone();
        change(&mut bytes);
        let part = PartRef { hash: *blake3::hash(&bytes).as_bytes(), bytes: bytes.len() as u64 };
        parts.put(&part_name(&part), &bytes).unwrap();
        part
    });
    files.0.append(&mut parts.0);
    files.put(&manifest_name(Sequence(manifest.sequence)), &manifest.encode()).unwrap();
    (files, Sequence(manifest.sequence))
}

#[test]
fn a_snapshot_that_contradicts_itself_behind_right_hashes_is_refused() {
    let (mut engine, tokens) = busy();
    engine.submit_as(1, None, renew(&tokens["renewable"]));
    let commit = engine.sequencer.poll_commit().unwrap();
    let mut files = Files::default();
    let (manifest, _) = snapshot(&mut engine, None, &mut files, |engine| {
        engine.sequencer.handle_durable(commit.last());
    });
    let refused = |change: &dyn Fn(&mut Manifest, Forge<'_>)| {
        let (files, sequence) = forged(&files, &manifest, change);
        load(&files, sequence, SMALL).is_err()
    };
    assert!(refused(&|manifest, part| {
        let cut = part(&manifest.table[0], &|bytes| bytes.truncate(bytes.len() - 1));
        manifest.table = vec![cut, cut];
    }));
    assert!(refused(&|manifest, _| manifest.sequence = u64::MAX));
    assert!(refused(&|manifest, _| manifest.serial = u64::MAX));
    assert!(refused(&|manifest, _| manifest.segments[0].number = (1 << 28) - 1));
    // The first token of all, which has its word: it is no renewal's.
    let slot = 1;
    assert!(refused(&|manifest, part| {
        let rest = parts::RestPart { renewals: vec![slot], ..parts::RestPart::default() };
        manifest.rest = part(&manifest.rest, &|bytes| *bytes = parts::encode(&rest));
    }));
    assert!(!refused(&|_, _| {}));
    let mut bytes = manifest.encode();
    bytes[20] = 1;
    let hash = *blake3::Hasher::new().update(&bytes[..32]).update(&bytes[64..]).finalize().as_bytes();
    bytes[32..64].copy_from_slice(&hash);
    assert!(Manifest::decode(&bytes).is_err(), "a manifest has one spelling");
}

#[test]
fn a_token_of_a_subject_that_there_is_not_is_denied_once_the_state_is_whole() {
    let (mut engine, tokens) = busy();
    let mut files = Files::default();
    let (manifest, _) = snapshot(&mut engine, None, &mut files, |_| {});
    let id = tokens["live"].id.0;
    let (files, sequence) = forged(&files, &manifest, |manifest, part| {
        for segment in &mut manifest.segments {
            segment.part = part(&segment.part, &|bytes| {
                for record in bytes.chunks_mut(64).filter(|record| record[..16] == id) {
                    record[60..].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
                }
            });
        }
    });
    let mut started = started(&files, sequence, &engine);
    started.sequencer.handle_start();
    assert!(started.sequencer.state().memory().list_bytes < 8 << 20, "nor does it take any room");
    assert_eq!(started.verdict(&tokens["live"]), Verdict::Revoked);
    assert_eq!(started.verdict(&tokens["bob's"]), Verdict::Valid);
    started.run(renew(&tokens["live"])).unwrap_err();
    started.revoke(subject("alice"));
}

#[test]
fn a_part_that_rotted_on_the_disk_is_written_again_by_the_next_snapshot() {
    let (mut engine, _) = busy();
    let mut files = Files::default();
    let (first, _) = snapshot(&mut engine, None, &mut files, |_| {});
    let rotten: u64 = [first.segments[0].part, first.claim_sets[0]]
        .iter()
        .map(|part| {
            files.0.get_mut(&part_name(part)).unwrap()[70] ^= 1;
            part.bytes
        })
        .sum();
    let (again, report) = snapshot(&mut engine, Some(first), &mut files, |_| {});
    assert_eq!(report.bytes_written, rotten);
    load(&files, Sequence(again.sequence), SMALL).unwrap();
}

#[test]
fn nothing_is_cut_off_while_something_waits_to_be_sealed_or_marked() {
    let mut engine = Engine::new();
    assert!(engine.sequencer.begin_snapshot().is_some());
    let token = engine.issue(|_| {});
    engine.submit_as(1, None, Command::Revoke(RevokeTarget::Id(token.id)));
    assert!(engine.sequencer.begin_snapshot().is_none(), "the end of the chain is not known");
    engine.settle();
    engine.submit_as(1, None, Command::Revoke(subject("alice")));
    let last = engine.sequencer.poll_commit().unwrap().last();
    assert!(engine.sequencer.begin_snapshot().is_none(), "alice's tokens are being marked");
    engine.sequencer.handle_durable(last);
    engine.settle();
    let cut = engine.sequencer.begin_snapshot().unwrap();
    let writer = SnapshotWriter::new(cut, None);
    assert!(!writer.may_commit(Sequence(writer.sequence().0 - 1)));
    engine.sequencer.end_snapshot();
    assert!(engine.sequencer.poll_snapshot().is_none());
}

/// Compares a snapshot and the digest of the state in it with those that were written down, which have to open as well.
/// With `JETON_WRITE_VECTORS` it writes them down.
fn assert_as_it_was(name: &str, files: &Files, sequence: u64, digest: [u8; 32]) {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines = files.0.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes)));
    let written = format!("digest {}\n{}", hex(&digest), lines.collect::<String>());
    if std::env::var_os("JETON_WRITE_VECTORS").is_some() {
        std::fs::write(path, &written).unwrap();
        return;
    }
    let vectors = std::fs::read_to_string(path).unwrap();
    let unhex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let pinned = vectors.lines().filter_map(|line| line.split_once(' '));
    let pinned: BTreeMap<_, _> = pinned.map(|(name, text)| (name.to_owned(), unhex(text))).collect();
    let mut pinned = Files(pinned);
    let pinned_digest = pinned.0.remove("digest").unwrap();
    let restored = load(&pinned, Sequence(sequence), SMALL).unwrap();
    assert_eq!(restored.state.digest()[..], pinned_digest, "old snapshots open, and mean what they meant");
    assert_eq!(written, vectors, "snapshots are written as they were");
}

#[test]
fn the_format_is_as_it_was() {
    let (mut engine, _) = busy();
    let mut files = Files::default();
    let (manifest, _) = snapshot(&mut engine, None, &mut files, |_| {});
    assert_as_it_was("snapshot.txt", &files, manifest.sequence, engine.sequencer.state().digest());
}

#[test]
fn the_format_of_what_waits_for_the_disk_is_as_it_was() {
    let (mut engine, tokens) = busy();
    engine.submit_as(1, None, renew(&tokens["renewable"]));
    engine.submit_as(1, None, issue_command(|_| {}));
    let commit = engine.sequencer.poll_commit().unwrap();
    let (last, digest) = (commit.last(), engine.sequencer.state().digest());
    engine.log.extend(commit.batches);
    let mut files = Files::default();
    let mut is_durable = false;
    let (manifest, _) = snapshot(&mut engine, None, &mut files, |engine| {
        if !std::mem::replace(&mut is_durable, true) {
            engine.sequencer.handle_durable(last);
        }
    });
    assert_eq!(manifest.sequence, last.0, "it is of the renewal that was not durable when it was cut");
    assert_as_it_was("snapshot-renewal.txt", &files, last.0, digest);
}

#[test]
fn an_access_check_is_the_same_behind_a_snapshot() {
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    let mut files = Files::default();
    let (manifest, _) = snapshot(&mut engine, None, &mut files, |_| {});
    let started = started(&files, Sequence(manifest.sequence), &engine);
    for (action, resource) in [("read", "journal/42"), ("read", "journal/43"), ("write", "journal/42")] {
        let access = crate::claims::ResourceQuery::new(action, resource).unwrap();
        let check = crate::check::Check { access: Some(access), ..crate::check::Check::default() };
        let verdict = |engine: &Engine| engine.ask(&token, &check).verdict;
        assert_eq!(verdict(&started), verdict(&engine), "{action} {resource}");
    }
}
