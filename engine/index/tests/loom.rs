//! Every interleaving of one writer and one reader, up to three preemptions, for the promises that matter; and the same models against
//! deliberate mistakes, which they must catch.
//!
//! `CARGO_TARGET_DIR=target/loom RUSTFLAGS="--cfg loom" cargo test -p jeton-index --test loom`
#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use jeton_index::mutation::{self, Mutation};
use jeton_index::{Candidate, Found, IndexConfig, Reader, Record, State, Watermark, Writer, new};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// The mistakes are switched for the whole process: one model at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn id(byte: u8) -> [u8; 16] {
    [byte; 16]
}

fn record(byte: u8, expires_s: u32) -> Record {
    Record { id: id(byte), digest: [byte; 32], expires_s, issued_s: expires_s, claims: 3, link: expires_s }
}

fn index() -> (Writer, Reader) {
    new(IndexConfig { tokens_initial: 1, slots_max: 7, segment_records: 4, huge_pages: false }).unwrap()
}

fn look(reader: &Reader, byte: u8) -> Option<Found> {
    let pin = reader.pin();
    let mut candidate = [Candidate::default()];
    if pin.locate([&id(byte)], &mut candidate) {
        pin.locate_further([&id(byte)], &mut candidate);
    }
    pin.resolve_plain(&id(byte), &candidate[0]).or_else(|| pin.resolve(&id(byte), &candidate[0]))
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn holds(model: fn()) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    mutation::set(Mutation::None);
    explore(model);
}

/// The model notices the mistake, and with these words: loom's own limits end a model with a panic too.
fn is_caught(mutation: Mutation, model: fn(), words: &str) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    mutation::set(mutation);
    let outcome = catch_unwind(AssertUnwindSafe(|| explore(model)));
    mutation::set(Mutation::None);
    let Err(panic) = outcome else { panic!("the model did not notice {mutation:?}") };
    let message = panic.downcast_ref::<String>().cloned();
    let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let message = message.unwrap_or_default();
    assert!(message.contains(words), "{mutation:?} ended otherwise: {message}");
}

/// Whoever sees a token sees its whole record.
fn no_torn_publish() {
    let (mut writer, reader) = index();
    let reading = thread::spawn(move || {
        if let Some(found) = look(&reader, 1) {
            assert_eq!(found.record(), record(1, 5), "a token is seen with its whole record");
        }
    });
    writer.insert(&record(1, 5), None, State::NONE).unwrap();
    writer.mark(&id(1), State::LIVE);
    reading.join().unwrap();
}

/// A validate that begins after a revoke was acknowledged denies.
fn revoke_after_acknowledgement_is_seen() {
    let (mut writer, reader) = index();
    writer.insert(&record(1, 5), None, State::LIVE).unwrap();
    let acknowledged = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&acknowledged);
    let reading = thread::spawn(move || {
        let was_acknowledged = seen.load(Ordering::Acquire);
        let found = look(&reader, 1).expect("a revoked token is still known");
        assert!(!was_acknowledged || !found.state.is_admissible(), "a revoke that was acknowledged holds");
    });
    writer.mark(&id(1), State::REVOKED);
    acknowledged.store(true, Ordering::Release);
    reading.join().unwrap();
}

/// An issue that becomes durable after its token was revoked does not bring it back.
fn publishing_does_not_undo_a_revoke() {
    let (mut writer, reader) = index();
    writer.insert(&record(1, 5), None, State::NONE).unwrap();
    let reading = thread::spawn(move || {
        let found = look(&reader, 1).expect("it is known");
        assert!(!found.state.is_admissible(), "a revoke is not undone by publishing");
    });
    writer.mark(&id(1), State::REVOKED);
    writer.mark(&id(1), State::LIVE);
    reading.join().unwrap();
}

/// What the engine's two threads and a reader do with an issue: the log says `durable`, the sequencer publishes behind
/// that. Whoever sees the token as good also sees that it is durable, although it looked without any order of its own.
fn what_is_live_is_durable() {
    let (mut writer, reader) = index();
    let durable = Arc::new(AtomicBool::new(false));
    let (log, seen) = (Arc::clone(&durable), Arc::clone(&durable));
    writer.insert(&record(1, 5), None, State::NONE).unwrap();
    let logging = thread::spawn(move || log.store(true, Ordering::Release));
    let reading = thread::spawn(move || {
        let found = look(&reader, 1).expect("it is known");
        if found.state.is_admissible() {
            assert!(seen.load(Ordering::Relaxed), "what is good is durable");
        }
    });
    if durable.load(Ordering::Acquire) {
        writer.mark(&id(1), State::LIVE);
    }
    logging.join().unwrap();
    reading.join().unwrap();
}

/// The published sequence number is raised last: whoever reads it sees every token up to it as good.
fn publishing(says_so_last: bool) {
    let (mut writer, reader) = index();
    writer.insert(&record(1, 5), None, State::NONE).unwrap();
    let published = Arc::new(Watermark::new());
    let seen = Arc::clone(&published);
    let reading = thread::spawn(move || {
        let is_published = seen.get() == 1;
        let found = look(&reader, 1).expect("it is known");
        assert!(!is_published || found.state.is_admissible(), "what is said to be published is seen");
    });
    if says_so_last {
        writer.mark(&id(1), State::LIVE);
        published.raise(1);
    } else {
        published.raise(1);
        writer.mark(&id(1), State::LIVE);
    }
    reading.join().unwrap();
}

fn what_is_said_to_be_published_is_seen() {
    publishing(true);
}

fn published_before_it_is_seen() {
    publishing(false);
}

/// A token that is published while it moves is seen as good by whoever was told, in the old table or the new one.
fn publishing_while_growing_is_seen() {
    let (mut writer, reader) = index();
    writer.insert(&record(1, 5), None, State::NONE).unwrap();
    for byte in 2..=3 {
        writer.insert(&record(byte, 5), None, State::LIVE).unwrap();
    }
    let published = Arc::new(Watermark::new());
    let seen = Arc::clone(&published);
    let reading = thread::spawn(move || {
        let is_published = seen.get() == 1;
        let found = look(&reader, 1).expect("a token does not get lost while a table grows");
        assert!(!is_published || found.state.is_admissible(), "what is said to be published is seen");
    });
    writer.insert(&record(4, 5), None, State::LIVE).unwrap(); // begins to grow
    writer.step_growth(1);
    writer.mark(&id(1), State::LIVE);
    published.raise(1);
    reading.join().unwrap();
}

/// A renewal is seen whole: old record or new, and never a revoke forgotten.
fn a_renewal_is_old_or_new() {
    let (mut writer, reader) = index();
    writer.insert(&record(1, 5), None, State::LIVE).unwrap();
    let reading = thread::spawn(move || {
        let found = look(&reader, 1).expect("a token does not vanish while it is renewed");
        assert!(found.record() == record(1, 5) || found.record() == record(1, 9));
        if found.record() == record(1, 9) {
            assert!(!found.state.is_admissible(), "revoked before it was renewed");
        }
    });
    writer.mark(&id(1), State::REVOKED);
    let renewed = writer.prepare(&record(1, 9), None).unwrap();
    writer.swap(renewed);
    reading.join().unwrap();
}

/// A revoke of a token that has moved while others have not is seen by whoever asks after it, and no token gets lost;
/// whether the table is still growing when they ask, or grown.
fn a_revoke_during_growth_holds(is_grown: bool) {
    let (mut writer, reader) = index();
    for byte in 1..=3 {
        writer.insert(&record(byte, 5), None, State::LIVE).unwrap();
    }
    let acknowledged = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&acknowledged);
    let reading = thread::spawn(move || {
        let was_acknowledged = seen.load(Ordering::Acquire);
        let found = look(&reader, 1).expect("a token does not get lost while a table grows");
        assert!(!was_acknowledged || !found.state.is_admissible(), "a revoke that was acknowledged holds");
    });
    writer.insert(&record(4, 5), None, State::LIVE).unwrap(); // begins to grow
    assert!(writer.step_growth(1), "one of two buckets has moved: that of token 1");
    writer.mark(&id(1), State::REVOKED);
    while is_grown && writer.step_growth(1) {}
    acknowledged.store(true, Ordering::Release);
    reading.join().unwrap();
}

fn a_revoke_while_growing_holds() {
    a_revoke_during_growth_holds(false);
}

fn a_revoke_before_growth_ends_holds() {
    a_revoke_during_growth_holds(true);
}

/// A renewal of a token that has moved while others have not is seen whole, and so is the use that follows it.
fn a_renewal_while_growing_is_old_or_new() {
    let (mut writer, reader) = index();
    for byte in 1..=3 {
        writer.insert(&record(byte, 5), None, State::LIVE.with(State::LIMITED)).unwrap();
    }
    let reading = thread::spawn(move || {
        let found = look(&reader, 1).expect("a token does not get lost while a table grows");
        assert!(found.record() == record(1, 5) || found.record() == record(1, 9), "old or new");
        assert!(
            found.record() == record(1, 5) || !found.state.is_admissible(),
            "spent before it was renewed"
        );
    });
    writer.insert(&record(4, 5), None, State::LIVE).unwrap(); // begins to grow
    writer.step_growth(1);
    let renewed = writer.prepare(&record(1, 9), None).unwrap();
    writer.mark(&id(1), State::SPENT);
    writer.swap(renewed);
    reading.join().unwrap();
}

/// A token whose home bucket is full is seen whole, and a revoke of it that was acknowledged holds.
fn a_token_behind_its_full_bucket_is_as_any_other() {
    let (mut writer, reader) = index();
    for byte in 1..=2 {
        writer.insert(&record(byte, 5), None, State::LIVE).unwrap();
    }
    let acknowledged = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&acknowledged);
    let reading = thread::spawn(move || {
        let was_acknowledged = seen.load(Ordering::Acquire);
        let found = look(&reader, 3);
        assert!(
            found.is_none_or(|found| found.record() == record(3, 5)),
            "a token is seen with its whole record"
        );
        let is_good = found.is_some_and(|found| found.state.is_admissible());
        assert!(!was_acknowledged || !is_good, "a revoke that was acknowledged holds");
    });
    writer.insert(&record(3, 5), None, State::LIVE).unwrap();
    writer.mark(&id(3), State::REVOKED);
    acknowledged.store(true, Ordering::Release);
    reading.join().unwrap();
}

/// The tag of this token is that of a place that is free, and its id that of a record that nobody wrote: it is found while it is
/// there, and what is found is its record.
fn a_free_place_is_no_token() {
    let (mut writer, reader) = index();
    writer.insert(&record(1, 5), None, State::LIVE).unwrap(); // so that there is a segment
    let reading = thread::spawn(move || {
        let found = look(&reader, 0);
        assert!(found.is_none_or(|found| found.record() == record(0, 5)), "a free place is no token");
    });
    writer.insert(&record(0, 5), None, State::LIVE).unwrap();
    writer.remove(&id(0)).unwrap();
    writer.insert(&record(2, 5), None, State::LIVE).unwrap(); // where that was
    reading.join().unwrap();
}

fn search(reader: &Reader, byte: u8) -> Option<Found> {
    reader.pin().lookup(&id(byte))
}

/// A token whose record moves to a new segment, while the one it leaves is given up, is found all the time, whole.
fn a_token_is_found_in_a_frame_while_its_segment_is_given_up() {
    a_token_is_found_while_its_segment_is_given_up(look);
}

fn a_token_is_found_by_itself_while_its_segment_is_given_up() {
    a_token_is_found_while_its_segment_is_given_up(search);
}

fn a_token_is_found_while_its_segment_is_given_up(look: fn(&Reader, u8) -> Option<Found>) {
    let (mut writer, reader) = index();
    let (before, after) = ([6; 8], [7; 8]);
    writer.insert(&record(1, 5), Some(&before), State::LIVE).unwrap();
    writer.insert(&record(2, 5), None, State::LIVE).unwrap(); // the segment is full
    writer.remove(&id(2)).unwrap();
    let reading = thread::spawn(move || {
        let found = look(&reader, 1).expect("a token does not vanish while it moves");
        let is_whole = [(record(1, 5), Some(before)), (record(1, 9), Some(after))];
        assert!(is_whole.contains(&(found.record(), found.tail)), "old or new");
    });
    let renewed = writer.prepare(&record(1, 9), Some(&after)).unwrap();
    writer.swap(renewed);
    reading.join().unwrap();
}

#[test]
fn the_models_hold() {
    holds(no_torn_publish);
    holds(revoke_after_acknowledgement_is_seen);
    holds(publishing_does_not_undo_a_revoke);
    holds(a_renewal_is_old_or_new);
    holds(a_revoke_while_growing_holds);
    holds(a_revoke_before_growth_ends_holds);
    holds(a_renewal_while_growing_is_old_or_new);
    holds(what_is_live_is_durable);
    holds(what_is_said_to_be_published_is_seen);
    holds(publishing_while_growing_is_seen);
    holds(a_token_behind_its_full_bucket_is_as_any_other);
    holds(a_free_place_is_no_token);
    holds(a_token_is_found_in_a_frame_while_its_segment_is_given_up);
    holds(a_token_is_found_by_itself_while_its_segment_is_given_up);
}

#[test]
fn a_token_published_without_release_is_good_before_it_is_durable_and_that_is_caught() {
    is_caught(Mutation::RelaxedPublish, what_is_live_is_durable, "good is durable");
}

#[test]
fn saying_that_a_token_is_published_before_it_is_is_caught() {
    is_caught(Mutation::None, published_before_it_is_seen, "said to be published is seen");
}

#[test]
fn a_watermark_without_release_and_acquire_is_caught() {
    is_caught(
        Mutation::RelaxedWatermark,
        what_is_said_to_be_published_is_seen,
        "said to be published is seen",
    );
}

#[test]
fn a_reader_that_looks_where_a_published_token_was_before_is_caught() {
    is_caught(Mutation::IgnoreMoved, publishing_while_growing_is_seen, "said to be published is seen");
}

#[test]
fn a_word_published_without_release_is_caught() {
    is_caught(Mutation::RelaxedPublish, no_torn_publish, "with its whole record");
}

#[test]
fn a_word_read_without_acquire_is_caught() {
    is_caught(Mutation::RelaxedRead, no_torn_publish, "with its whole record");
}

#[test]
fn a_mark_that_overwrites_is_caught() {
    is_caught(Mutation::MarkByStore, publishing_does_not_undo_a_revoke, "not undone");
}

#[test]
fn a_reader_that_trusts_a_moved_word_is_caught() {
    is_caught(Mutation::IgnoreMoved, a_revoke_while_growing_holds, "acknowledged holds");
}

#[test]
fn growth_that_forgets_to_say_moved_is_caught() {
    is_caught(Mutation::ForgetMoved, a_revoke_before_growth_ends_holds, "acknowledged holds");
}

#[test]
fn growth_that_says_moved_too_early_is_caught() {
    is_caught(Mutation::MovedBeforeCopy, a_revoke_while_growing_holds, "does not get lost");
}

#[test]
fn a_reader_that_takes_a_free_place_for_a_token_is_caught() {
    is_caught(Mutation::FreeIsAToken, a_free_place_is_no_token, "a free place is no token");
}

#[test]
fn a_reader_that_takes_a_new_segment_for_none_is_caught() {
    is_caught(
        Mutation::UnseenIsNone,
        a_token_is_found_by_itself_while_its_segment_is_given_up,
        "does not vanish",
    );
}

#[test]
fn a_segment_given_up_too_early_is_caught() {
    is_caught(
        Mutation::GivenUpTooEarly,
        a_token_is_found_in_a_frame_while_its_segment_is_given_up,
        "does not vanish",
    );
}

#[test]
fn a_segment_that_no_reader_was_told_of_is_caught() {
    is_caught(
        Mutation::SegmentUnpublished,
        a_token_is_found_in_a_frame_while_its_segment_is_given_up,
        "does not vanish",
    );
}
