//! Snapshots, as they come from a disk that somebody may have written to: manifests of any bytes, and a real snapshot whose
//! files were changed and whose hashes were made right again.
//!
//! What the hashes hold off is tested elsewhere, byte by byte. Here nothing is held off: such a snapshot is refused or is
//! another state, and whatever runs on that state panics as little, hangs as little and takes as little memory as on any.

mod damage;
mod sample;

use arbitrary::{Result, Unstructured};
use jeton_core::check::{Check, Checks};
use jeton_core::claims::{Claims, Name};
use jeton_core::command::{Command, ConsumeToken, IssueTokens, RevokeTarget, Submission};
use jeton_core::numbers::{ClaimsNo, ClientNo, IdempotencyKey, LogId, Partition, SubjectNo, TenantNo};
use jeton_core::outcome::Reply;
use jeton_core::rights::{Caller, Rights};
use jeton_core::sequencer::Sequencer;
use jeton_core::snapshot::{Loading, Manifest, Restored, SnapshotError, SnapshotWriter};
use jeton_core::state::StateConfig;
use jeton_core::time::Millis;
use jeton_core::token::Token;
use jeton_core::view::View;

use crate::allocation::bounded;
use damage::Damaged;
use sample::{Files, sample};

const SMALL: StateConfig =
    StateConfig { tokens_initial: 16, tokens_max: 5_000, segment_records: 8, huge_pages: false };
const LOG: LogId = LogId([9; 16]);
const START: Millis = Millis(1_700_000_000_000);
/// The snapshot has some 10 KiB; names by hash and lists by subject have tables of some size however few there are.
const LOADING_BYTES_MAX: usize = 8 << 20;
const COMMANDS_MAX: usize = 8;
/// Turns in which everything that was decided must have been carried out.
const TURNS_MAX: usize = 1_000;

/// Reads the bytes as a manifest, as one whose hash is right, and as changes of a snapshot.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    if kind.is_multiple_of(8) {
        check_manifest(rest);
        if let Some(right) = put_right(rest) {
            check_manifest(&right);
        }
    } else {
        let _ = run_on(&mut Unstructured::new(rest));
    }
}

fn check_manifest(bytes: &[u8]) {
    if let Ok(manifest) = bounded(16 * 1024 + 32 * bytes.len(), || Manifest::decode(bytes)) {
        assert!(manifest.encode() == bytes, "a manifest has one spelling");
    }
}

/// The bytes as a file of this format whose length and hash are right.
fn put_right(data: &[u8]) -> Option<Vec<u8>> {
    const HEADER_BYTES: usize = 64;
    let mut bytes = data.to_vec();
    let archive = bytes.len().checked_sub(HEADER_BYTES)? as u64;
    bytes[..6].copy_from_slice(b"JTNS\x01\0");
    bytes[8..16].copy_from_slice(&archive.to_le_bytes());
    let hash =
        *blake3::Hasher::new().update(&bytes[..32]).update(&bytes[HEADER_BYTES..]).finalize().as_bytes();
    bytes[32..HEADER_BYTES].copy_from_slice(&hash);
    Some(bytes)
}

fn run_on(input: &mut Unstructured<'_>) -> Result<()> {
    let mut damaged = Damaged::new(sample());
    damaged.change(input)?;
    let files = damaged.files();
    // Another snapshot of ours was written by then; what can be shared with it is.
    let Ok((restored, manifest)) = bounded(LOADING_BYTES_MAX, || load(&files, damaged.manifest.clone()))
    else {
        return Ok(());
    };
    let Restored { state, reader, end } = restored;
    let view = View::new(reader, state.registry().clone());
    let now = state.last_time();
    read_all(&view, now);
    let mut sequencer = Sequencer::new(state, end);
    read_all(&view, now);
    let _ = sequencer.state().digest();
    bounded(LOADING_BYTES_MAX, || sequencer.handle_start());
    let _ = sequencer.state().digest();
    carry_on(&mut sequencer, &view, now, input)?;
    write_again(&mut sequencer, files, manifest);
    Ok(())
}

fn load(files: &Files, manifest: Manifest) -> std::result::Result<(Restored, Manifest), SnapshotError> {
    let bytes = manifest.encode();
    assert!(Manifest::decode(&bytes)? == manifest, "a manifest comes back from its bytes");
    let mut loading = Loading::new(manifest.check_log((LOG, Partition(0)))?, files, SMALL)?;
    for load in loading.loads() {
        load.run(files)?;
    }
    loading.finish()
}

/// Asks about everything there is, and about what there is not.
fn read_all(view: &View, now: Millis) {
    let mut caller = Caller::new(ClientNo(1));
    caller.set(TenantNo::EVERY, Rights::ALL);
    let tokens: Vec<[u8; 32]> = sample().tokens.iter().map(Token::to_bytes).collect();
    let check = Check::default();
    for at in [now, START, Millis(now.0.saturating_add(100_000))] {
        view.validate(&caller, at, &tokens, Checks::Same(&check), &mut Vec::new());
    }
    for token in &sample().tokens {
        let _ = view.inspect(&caller, now, &token.id);
    }
    for number in [0, 1, 2, 3, 7, 12, u32::MAX] {
        let _ = view.registry().claims(&caller, ClaimsNo(number));
        let _ = view.registry().subject(&caller, SubjectNo(number));
    }
    let _ = view.registry().clients(&caller);
}

/// Gives the sequencer commands; whatever it appends is durable at once.
fn carry_on(
    sequencer: &mut Sequencer<u32>,
    view: &View,
    mut now: Millis,
    input: &mut Unstructured<'_>,
) -> Result<()> {
    let mut drawn = 1_000;
    for ticket in 0..COMMANDS_MAX as u32 {
        // Even if the input ends here: a revoke by subject walks what the snapshot said of the subject.
        if input.is_empty() && ticket > 0 {
            break;
        }
        now = Millis(now.0.saturating_add(*input.choose(&[0, 1, 1_000, 3_700_000])?));
        let key = input.ratio(1, 3)?.then_some(IdempotencyKey([input.int_in_range(0..=2)?; 16]));
        let submission = Submission { actor: ClientNo(1), key, command: command(input)? };
        let mut entropy = |bytes: &mut [u8]| sample::fill(&mut drawn, bytes);
        sequencer.handle_submission(ticket, submission, now, &mut entropy);
        settle(sequencer, now);
    }
    read_all(view, now);
    let _ = sequencer.state().digest();
    Ok(())
}

/// Carries everything on; returns the answers.
fn settle(sequencer: &mut Sequencer<u32>, now: Millis) -> Vec<Reply> {
    let mut replies = Vec::new();
    for _ in 0..TURNS_MAX {
        for _ in 0..TURNS_MAX {
            if !sequencer.has_work() {
                break;
            }
            sequencer.handle_work(now);
        }
        if let Some(commit) = sequencer.poll_commit() {
            sequencer.handle_durable(commit.last());
        }
        replies.extend(std::iter::from_fn(|| sequencer.poll_reply()).map(|(_, reply)| reply));
        if sequencer.is_idle() && !sequencer.has_work() {
            return replies;
        }
    }
    panic!("it does not come to an end");
}

fn command(input: &mut Unstructured<'_>) -> Result<Command> {
    let name = |input: &mut Unstructured<'_>| -> Result<Name> {
        const NAMES: [&str; 6] = ["alice", "bob", "default", "press", "somebody 1", "*"];
        Ok(input.choose(&NAMES)?.parse().expect("it is a name"))
    };
    let token = input.choose(&sample().tokens)?.clone();
    Ok(match input.int_in_range(0..=7_u8)? {
        0 => Command::Revoke(RevokeTarget::Subject { tenant: name(input)?, subject: name(input)? }),
        1 => Command::Revoke(RevokeTarget::Family(token.id)),
        2 => Command::Revoke(RevokeTarget::Id(token.id)),
        3 => Command::Revoke(RevokeTarget::Tenant { tenant: name(input)? }),
        4 => Command::RenewToken { token, ttl_s: 7_000, binding: None },
        5 => Command::ConsumeToken(ConsumeToken {
            token,
            access: None,
            audience: None,
            scopes: None,
            binding: None,
        }),
        _ => {
            let subjects = vec![name(input)?; input.int_in_range(1..=40)?];
            let parent = input.ratio(1, 3)?.then_some(token.id);
            Command::IssueTokens(IssueTokens {
                parent,
                ..sample::issue(name(input)?, subjects, Claims::default())
            })
        }
    })
}

/// What goes on can be cut and written again.
fn write_again(sequencer: &mut Sequencer<u32>, mut files: Files, before: Manifest) {
    let Some(cut) = sequencer.begin_snapshot() else { return };
    let mut writer = SnapshotWriter::new(cut, Some(before));
    while let Some(piece) = sequencer.poll_snapshot() {
        writer.take(piece, &mut files).expect("files in memory");
    }
    while writer.write_next(&mut files).expect("files in memory") {}
    let (manifest, _) = writer.commit(sequencer.watermarks().durable, &mut files).expect("files in memory");
    // What contradicted itself may still do so, but no worse.
    let _ = load(&files, manifest).map(|(restored, _)| restored.state.digest());
}
