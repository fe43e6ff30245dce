//! A log whose chain is whole and whose events are anything: a replay refuses it at the right event or goes on, and so
//! does everything that runs on the state that comes of it.
//!
//! Checked besides: two replays end in the same digest, one of them with the events of single tokens applied twice; a
//! reader never gets `valid` for a token that was revoked, has expired, or was presented with a wrong secret.

mod commands;
mod events;

use std::collections::BTreeSet;

use arbitrary::{Result, Unstructured};
use jeton_core::batch::{ChainEnd, seal};
use jeton_core::check::{Check, Checks};
use jeton_core::event::{Entry, Fact};
use jeton_core::numbers::{ClaimsNo, ClientNo, LogId, Partition, SubjectNo, TenantNo};
use jeton_core::recovery::{Replay, ReplayError};
use jeton_core::rights::{Caller, Rights};
use jeton_core::sequencer::Sequencer;
use jeton_core::state::{State, StateConfig};
use jeton_core::time::Millis;
use jeton_core::token::TokenId;
use jeton_core::verdict::{Answer, Verdict};
use jeton_core::view::View;

use events::{IDS, token};

/// When the log begins.
const START_MS: u64 = 1_700_000_000_000;
const BATCHES_MAX: usize = 12;
const SMALL: StateConfig =
    StateConfig { tokens_initial: 16, tokens_max: 5_000, segment_records: 8, huge_pages: false };
const LOG: LogId = LogId([9; 16]);

/// Reads the bytes as batches of events and, if those can be applied, as commands on what they leave.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let _ = run_on(&mut input);
}

fn run_on(input: &mut Unstructured<'_>) -> Result<()> {
    let mut replay = Replay::new(LOG, Partition(0), SMALL, None).expect("there is memory");
    let (mut twice, _) = State::new(LOG, Partition(0), SMALL).expect("there is memory");
    let mut maker = events::Maker::default();
    let mut known = BTreeSet::new();
    let mut end = ChainEnd::genesis(LOG, Partition(0));
    let mut time = Millis(START_MS);
    for _ in 0..input.int_in_range(1..=BATCHES_MAX)? {
        let entries = maker.batch(input)?;
        time = events::later(time, input)?;
        let sealed = seal(&mut end, time, entries.iter().cloned());
        match replay.apply(&sealed.bytes) {
            Ok(batch) => assert_eq!((batch.entries, batch.time), (entries.clone(), time)),
            Err(ReplayError::Inapplicable { at, .. }) => {
                assert!((sealed.first..=sealed.last).contains(&at), "it is refused at one of its events");
                return Ok(());
            }
            Err(other) => panic!("the chain is whole: {other}"),
        }
        assert_eq!(replay.end(), end);
        apply_twice(&mut twice, sealed.first, time, &entries);
        entries.iter().for_each(|entry| note(&entry.event.fact, &mut known));
    }
    assert_eq!(
        replay.state().digest(),
        twice.digest(),
        "a replay ends in the same state, however often it applies"
    );
    let (state, reader, end) = replay.finish().expect("there is no anchor");
    let view = View::new(reader, state.registry().clone());
    // No clock of a server is behind its log: what was dead at an event, and so was not renewed, is dead now.
    let now = time.max(state.last_time());
    read_all(&view, now, &known);
    commands::carry_on(Sequencer::new(state, end), &view, &mut known, now, input)
}

/// Applies a batch as a replay does, events of single tokens twice.
fn apply_twice(state: &mut State, first: jeton_core::numbers::Sequence, time: Millis, entries: &[Entry]) {
    let mut sequence = first;
    for entry in entries {
        let is_idempotent = matches!(
            entry.event.fact,
            Fact::TokenIssued { .. }
                | Fact::TokenRenewed { .. }
                | Fact::TokenConsumed { .. }
                | Fact::TokenRevoked { .. }
        );
        for _ in 0..=u8::from(is_idempotent) {
            let publication = state.apply(sequence, time, entry).expect("the replay could apply it");
            publication.iter().for_each(|publication| state.publish(publication));
            while state.is_marking() {
                state.mark_step(&mut { 2 });
            }
        }
        sequence = sequence.next();
    }
}

/// Keeps what an event says of a single token. A revoke of what was not issued says nothing.
fn note(fact: &Fact, known: &mut BTreeSet<Issued>) {
    match fact {
        Fact::TokenIssued { id, expires_s, .. } if !known.iter().any(|issued| issued.id == *id) => {
            known.insert(Issued { id: *id, expires_s: *expires_s, is_revoked: false });
        }
        Fact::TokenRevoked { id } | Fact::FamilyRevoked { root: id } => {
            if let Some(issued) = known.iter().find(|issued| issued.id == *id).copied() {
                known.remove(&issued);
                known.insert(Issued { is_revoked: true, ..issued });
            }
        }
        Fact::TokenRenewed { id, expires_s, .. } => {
            if let Some(issued) = known.iter().find(|issued| issued.id == *id).copied() {
                known.remove(&issued);
                known.insert(Issued { expires_s: *expires_s, ..issued });
            }
        }
        _ => {}
    }
}

/// What is known of a token from its own events alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Issued {
    id: [u8; 16],
    expires_s: u32,
    is_revoked: bool,
}

/// Asks about everything there is, and about what there is not.
fn read_all(view: &View, time: Millis, known: &BTreeSet<Issued>) {
    let mut caller = Caller::new(ClientNo(1));
    caller.set(TenantNo::EVERY, Rights::ALL);
    let right: Vec<[u8; 32]> = (0..=IDS).map(|id| token(id).to_bytes()).collect();
    let wrong: Vec<[u8; 32]> = right
        .iter()
        .map(|token| {
            let mut token = *token;
            token[31] ^= 1;
            token
        })
        .collect();
    for now in [time, Millis(time.0.saturating_add(100_000))] {
        let (mut answers, mut denied): (Vec<Answer>, Vec<Answer>) = (Vec::new(), Vec::new());
        let check = Check::default();
        view.validate(&caller, now, &right, Checks::Same(&check), &mut answers);
        view.validate(&caller, now, &wrong, Checks::Same(&check), &mut denied);
        assert!(denied.iter().all(|answer| answer.verdict != Verdict::Valid), "a wrong secret opens nothing");
        let pairs = right.iter().zip(&answers);
        for (token, _) in pairs.filter(|(_, answer)| answer.verdict == Verdict::Valid) {
            let issued = known.iter().find(|issued| issued.id[..] == token[..16]);
            let issued = issued.expect("what is valid was issued");
            assert!(!issued.is_revoked, "a revoke stays");
            assert!(now.0 < u64::from(issued.expires_s) * 1_000, "an expiry holds");
        }
    }
    for id in 0..=IDS {
        let inspection = view.inspect(&caller, time, &TokenId([id; 16]));
        assert!(
            inspection.is_none_or(|inspection| inspection.id == TokenId([id; 16])),
            "each is told of itself"
        );
    }
    for number in [0, 1, 2, 3, 7, u32::MAX] {
        let _ = view.registry().claims(&caller, ClaimsNo(number));
        let _ = view.registry().subject(&caller, SubjectNo(number));
    }
    let _ = view.registry().clients(&caller);
}
