//! The index against a plain map, from tiny tables through many growths, and under concurrent readers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jeton_index::{
    Candidate, Entry, Found, IndexConfig, IndexFull, Reader, Record, SEGMENT_RECORDS, State, Tail, Walk,
    Writer, new,
};
use proptest::prelude::*;

fn index(tokens_initial: usize, slots_max: u32, segment_records: u32) -> (Writer, Reader) {
    new(IndexConfig { tokens_initial, slots_max, segment_records, huge_pages: false })
        .expect("there is memory for an index")
}

/// Records of a segment where many segments are to come and go.
const SMALL_SEGMENT: u32 = if cfg!(miri) { 16 } else { 1 << 12 };

fn record(id: [u8; 16], expires_s: u32) -> Record {
    Record { id, digest: [id[0]; 32], expires_s, issued_s: 7, claims: 3, link: (expires_s ^ 1) >> 1 }
}

/// Few ids, of which many share bucket and tag: only the top byte differs within a family.
fn id(family: u8, member: u8) -> [u8; 16] {
    let mut id = [family; 16];
    id[15] = member;
    id
}

#[derive(Clone, Debug)]
enum Step {
    Put([u8; 16], u32),
    Mark([u8; 16], State),
    Count([u8; 16], u64),
    Remove([u8; 16]),
    Grow(usize),
    Compact,
    /// Looks at all tokens of each segment that may hold a dead one by then.
    Sift(u32),
}

/// Every third member has more terms than fit its record.
fn tail(id: [u8; 16]) -> Option<Tail> {
    id[15].is_multiple_of(3).then(|| [u64::from_le_bytes([id[15]; 8]); 8])
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ids = (0..6_u8, 0..12_u8).prop_map(|(family, member)| id(family, member));
    let bits = prop_oneof![Just(State::LIVE), Just(State::REVOKED), Just(State::SPENT)];
    let step = prop_oneof![
        4 => (ids.clone(), any::<u32>()).prop_map(|(id, expires)| Step::Put(id, expires)),
        3 => (ids.clone(), bits).prop_map(|(id, bits)| Step::Mark(id, bits)),
        1 => (ids.clone(), 1..9_u64).prop_map(|(id, value)| Step::Count(id, value)),
        1 => ids.prop_map(Step::Remove),
        1 => (0..4_usize).prop_map(Step::Grow),
        1 => Just(Step::Compact),
        1 => any::<u32>().prop_map(Step::Sift),
    ];
    prop::collection::vec(step, 0..if cfg!(miri) { 30 } else { 300 })
}

#[test]
fn a_frame_has_the_tokens_that_lie_far_behind_their_home_bucket() {
    // All of one home bucket, in the middle and the last of all: at eight words each they fill five more and begin a seventh.
    for family in [9, 0xff] {
        let (mut writer, reader) = index(1_000, 1_000, SMALL_SEGMENT);
        let ids: Vec<_> = (0..50).map(|member| id(family, member)).collect();
        for present in &ids[..49] {
            writer.insert(&record(*present, 1), tail(*present).as_ref(), State::LIVE).expect("room");
        }
        // Removed ones in between do not end a search.
        for id in ids[..49].iter().step_by(5) {
            writer.remove(id).expect("it is there");
        }
        for (at, (id, seen)) in ids.iter().zip(seen_by_reader(&reader, &ids)).enumerate() {
            let is_there = at < 49 && at % 5 != 0;
            assert_eq!(seen.map(|(_, record, _)| record.id), is_there.then_some(*id), "{family}, {at}");
        }
    }
}

/// What a token is, as the map has it: state, record and counter.
type Known = (State, Record, u64);

fn seen_by_reader(reader: &Reader, ids: &[[u8; 16]]) -> Vec<Option<Known>> {
    let pin = reader.pin();
    let mut candidates = vec![Candidate::default(); ids.len()];
    pin.prefetch(ids);
    let resolve = |candidates: &[Candidate]| -> Vec<_> {
        let located = ids.iter().zip(candidates);
        located.map(|(id, at)| pin.resolve_plain(id, at).or_else(|| pin.resolve(id, at))).collect()
    };
    let are_some_further = pin.locate(ids, &mut candidates);
    let half_located = resolve(&candidates);
    if are_some_further {
        pin.locate_further(ids, &mut candidates);
    }
    let batch = resolve(&candidates);
    let single: Vec<_> = ids.iter().map(|id| pin.lookup(id)).collect();
    assert_eq!((&batch, &half_located), (&single, &single));
    let known = |found: Found| {
        assert_eq!(found.tail, tail(found.record().id));
        (found.state, found.record(), found.counter)
    };
    batch.into_iter().map(|found| found.map(known)).collect()
}

proptest! {
    #[test]
    fn the_index_holds_what_a_map_would(steps in steps()) {
        let (mut writer, reader) = index(1, 10_000, 8);
        let mut oracle: HashMap<[u8; 16], Known> = HashMap::new();
        for step in steps {
            match step {
                Step::Put(id, expires) => {
                    let record = record(id, expires);
                    let slot = writer.prepare(&record, tail(id).as_ref()).unwrap();
                    let given_up = writer.swap(slot);
                    match oracle.get_mut(&id) {
                        Some((_, known, _)) => {
                            prop_assert!(given_up != slot);
                            *known = record;
                        }
                        None => {
                            prop_assert_eq!(given_up, slot);
                            writer.insert(&record, tail(id).as_ref(), State::NONE).unwrap();
                            oracle.insert(id, (State::NONE, record, 0));
                        }
                    }
                }
                Step::Mark(id, bits) => {
                    let known = oracle.get_mut(&id);
                    prop_assert_eq!(writer.mark(&id, bits), known.as_ref().map(|(state, ..)| *state));
                    if let Some((state, ..)) = known {
                        *state = state.with(bits);
                    }
                }
                Step::Count(id, value) if tail(id).is_some() => {
                    prop_assert_eq!(writer.set_counter(&id, value), Ok(oracle.contains_key(&id)));
                    if let Some((.., counter)) = oracle.get_mut(&id) {
                        *counter = value;
                    }
                }
                Step::Count(..) => {}
                Step::Compact => {
                    compact(&mut writer);
                    writer.tidy();
                }
                Step::Remove(id) => {
                    prop_assert_eq!(writer.remove(&id).is_some(), oracle.remove(&id).is_some());
                }
                Step::Grow(buckets) => drop(writer.step_growth(buckets)),
                Step::Sift(now_s) => sift(&mut writer, now_s),
            }
            for segment in 0..writer.segments_end() {
                let tokens = walked(&writer, segment);
                let denied = tokens.iter().any(|token| token.state.is_denied());
                let first = tokens.iter().map(|token| token.record.expires_s).min();
                prop_assert!(!denied || writer.may_hold_dead(segment, 0));
                prop_assert!(first.is_none_or(|first| writer.may_hold_dead(segment, first)));
            }
            prop_assert_eq!(writer.len(), oracle.len());
            let slots: usize = oracle.keys().map(|id| 1 + usize::from(tail(*id).is_some())).sum();
            prop_assert_eq!(writer.slots_used() as usize, slots);
        }
        let ids: Vec<_> = (0..7).flat_map(|family| (0..13).map(move |member| id(family, member))).collect();
        let expected: Vec<_> = ids.iter().map(|id| oracle.get(id).copied()).collect();
        prop_assert_eq!(seen_by_reader(&reader, &ids), expected);
        let mut all = HashMap::new();
        writer.for_each(|Entry { slot, state, record, .. }| {
            all.insert(record.id, (state, record, writer.counter(slot)));
        });
        prop_assert_eq!(&all, &oracle);
        let walked: Vec<_> = walk_all(&writer).into_iter().map(|entry| (entry.record.id, entry.tail)).collect();
        prop_assert!(walked.iter().all(|(id, has)| *has == tail(*id)));
        let walked: HashMap<_, _> = walked.into_iter().map(|(id, _)| (id, oracle[&id])).collect();
        prop_assert_eq!(walked, oracle);
    }
}

/// Every token, by walking through the segments.
fn walk_all(writer: &Writer) -> Vec<Entry> {
    (0..writer.segments_end()).flat_map(|segment| walked(writer, segment)).collect()
}

/// The tokens of a segment.
fn walked(writer: &Writer, segment: u32) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut walk = Some(Walk::from_segment(segment));
    while let Some(at) = walk {
        walk = writer.walk(at, &mut found);
    }
    found
}

/// Looks at every token of the segments that may hold a dead one; all of them stay.
fn sift(writer: &mut Writer, now_s: u32) {
    for segment in 0..writer.segments_end() {
        if writer.may_hold_dead(segment, now_s) {
            writer.begin_sift(segment);
            walked(writer, segment).iter().for_each(|token| writer.keep(token, token.state.is_denied()));
        }
    }
}

#[test]
fn a_segment_may_hold_a_dead_token_once_one_expires_or_was_denied_and_until_somebody_has_looked() {
    let (mut writer, _reader) = index(1, 1_000, 4);
    let ids: Vec<_> = (1..4).map(|member| id(1, member)).collect();
    for (id, expires_s) in ids.iter().zip([300, 100, 200]) {
        writer.insert(&record(*id, expires_s), None, State::LIVE).unwrap();
    }
    assert!(!writer.may_hold_dead(0, 99) && writer.may_hold_dead(0, 100));
    writer.mark(&ids[0], State::REVOKED).unwrap();
    assert!(writer.may_hold_dead(0, 99));
    writer.remove(&ids[0]).unwrap();
    writer.remove(&ids[1]).unwrap();
    sift(&mut writer, 99);
    assert!(!writer.may_hold_dead(0, 199) && writer.may_hold_dead(0, 200));
    writer.doubt(0);
    assert!(writer.may_hold_dead(0, 0));
    sift(&mut writer, 99);
    // What takes the place of a record is known of where it lies.
    let slot = writer.prepare(&record(ids[2], 250), None).unwrap();
    writer.swap(slot);
    assert!(!writer.may_hold_dead(1, 249) && writer.may_hold_dead(1, 250));
    // What was left although it is dead, without a bit that says so, is not forgotten where it is moved to.
    for member in 4..8 {
        writer.insert(&record(id(1, member), 400), None, State::LIVE).unwrap();
    }
    let left = writer.find(&ids[2]).unwrap();
    writer.begin_sift(1);
    writer.keep(&left, true);
    let moved = writer.relocate(left.slot).unwrap().unwrap();
    assert!(writer.may_hold_dead(moved / 4, 0));
}

#[test]
fn a_token_is_marked_through_any_record_it_has() {
    let (mut writer, reader) = index(10, 100, 8);
    let first = writer.insert(&record(id(1, 1), 5), None, State::LIVE).unwrap();
    let second = writer.prepare(&record(id(1, 1), 9), None).unwrap();
    assert_eq!(reader.pin().lookup(&id(1, 1)).unwrap().expires_s(), 5, "prepared is not yet named");
    assert_eq!(writer.mark_owner(second, State::SPENT), Some(State::LIVE));
    assert_eq!(writer.mark_owner(first, State::NONE), Some(State::LIVE.with(State::SPENT)));
    assert_eq!(writer.swap(second), first);
    assert_eq!(reader.pin().lookup(&id(1, 1)).unwrap().expires_s(), 9);
    assert_eq!(writer.mark_owner(second, State::REVOKED), Some(State::LIVE.with(State::SPENT)));
    assert_eq!(writer.find(&id(1, 1)).unwrap().state, State::LIVE.with(State::SPENT).with(State::REVOKED));
    assert_eq!(writer.mark_owner(1 << 20, State::REVOKED), None);
    assert_eq!(writer.mark_owner(0, State::REVOKED), None);
}

#[test]
fn a_full_index_says_so_and_keeps_what_it_has() {
    let (mut writer, reader) = index(1, 3, SEGMENT_RECORDS);
    for member in 0..3 {
        writer.insert(&record(id(1, member), 5), None, State::LIVE).unwrap();
    }
    assert_eq!(writer.insert(&record(id(1, 3), 5), None, State::LIVE), Err(IndexFull::Configured));
    assert_eq!(writer.prepare(&record(id(1, 0), 6), None), Err(IndexFull::Configured));
    assert_eq!(reader.pin().lookup(&id(1, 0)).unwrap().expires_s(), 5);
    assert_eq!(reader.pin().lookup(&id(1, 3)), None);
    writer.remove(&id(1, 0)).unwrap();
    assert!(
        writer.insert(&record(id(1, 3), 5), Some(&[1; 8]), State::LIVE).is_err(),
        "it would take two places"
    );
    assert!(writer.insert(&record(id(1, 3), 5), None, State::LIVE).is_ok());
}

#[test]
fn memory_follows_the_tokens_through_churn() {
    const LIVE: u64 = if cfg!(miri) { 100 } else { 50_000 };
    const ROUNDS: u64 = if cfg!(miri) { 3 } else { 12 };
    let (mut writer, reader) = index(1, 1_000_000, SMALL_SEGMENT);
    let mut most = 0;
    for at in 0..ROUNDS * LIVE {
        // Every tenth token has a tail; every hundredth of them lives on.
        let its_tail = at.is_multiple_of(10).then_some([at; 8]);
        writer.insert(&record(scattered(at), 5), its_tail.as_ref(), State::LIVE).unwrap();
        if at >= LIVE && !(at - LIVE).is_multiple_of(100) {
            writer.remove(&scattered(at - LIVE)).unwrap();
        }
        if at.is_multiple_of(LIVE) {
            compact(&mut writer);
            writer.tidy();
            most = most.max(writer.memory().slab_bytes + writer.memory().index_bytes);
        }
    }
    let tokens = LIVE + (ROUNDS - 1) * LIVE / 100;
    assert_eq!(writer.len() as u64, tokens);
    // Three times what they take: half-full segments, the one being filled, and a table on its way to the next.
    assert!(most < 3 * tokens as usize * 77 + 64 * SMALL_SEGMENT as usize, "{most} bytes");
    let pin = reader.pin();
    for at in (0..ROUNDS * LIVE).step_by(100) {
        let found = pin.lookup(&scattered(at)).expect("it was never removed");
        assert_eq!((found.record().expires_s, found.tail), (5, Some([at; 8])));
    }
    assert_eq!(pin.lookup(&scattered(1)), None);
    drop(pin);
    for at in 0..ROUNDS * LIVE {
        writer.remove(&scattered(at));
    }
    while writer.is_growing() || writer.memory().index_bytes > 2_000 {
        writer.tidy();
        writer.step_growth(64);
    }
    assert!(
        writer.memory().slab_bytes <= 2 * 64 * SMALL_SEGMENT as usize,
        "only the segment being filled is left"
    );
}

#[test]
fn a_table_never_has_room_for_fewer_tokens_than_it_was_to_have() {
    const INITIAL: usize = if cfg!(miri) { 100 } else { 10_000 };
    const TOKENS: u64 = 10 * INITIAL as u64;
    let (mut writer, reader) = index(INITIAL, 1_000_000, SMALL_SEGMENT);
    let initial = writer.memory().index_bytes;
    let settle = |writer: &mut Writer| {
        writer.tidy();
        while writer.step_growth(64) {}
    };
    settle(&mut writer);
    assert_eq!(writer.memory().index_bytes, initial);
    for at in 0..TOKENS {
        writer.insert(&record(scattered(at), 5), None, State::LIVE).unwrap();
    }
    assert!(writer.memory().index_bytes > initial);
    for at in 10..TOKENS {
        writer.remove(&scattered(at)).unwrap();
    }
    settle(&mut writer);
    assert!((initial..=4 * initial).contains(&writer.memory().index_bytes), "it has shrunk, and not too far");
    let pin = reader.pin();
    assert!((0..10).all(|at| pin.lookup(&scattered(at)).is_some()));
}

/// Moves what is left in sparse segments, and follows a list of all tokens by slot, as an owner would.
fn compact(writer: &mut Writer) {
    for number in 0..writer.segments_end() {
        if writer.segment_use(number).is_none_or(|segment| !segment.is_sparse()) {
            continue;
        }
        let mut walk = Some(Walk::from_segment(number));
        while let Some(at) = walk {
            let mut found = Vec::new();
            walk = writer.walk(at, &mut found);
            for entry in found {
                let serial = writer.serial(entry.slot);
                let moved = writer.relocate(entry.slot).expect("there is memory");
                let moved = moved.expect("it lay in a full segment");
                assert!(writer.serial(moved) > serial, "what is written later has a higher serial number");
                assert_eq!(writer.find(&entry.record.id).map(|found| found.record), Some(entry.record));
            }
        }
        assert_eq!(writer.segment_use(number), None, "an empty segment is given up");
    }
}

/// New memory comes page by page as it is touched, which takes long: no reader, and no single insert, is to wait for all of a
/// large table's, or to give all of the one before back.
#[test]
#[cfg_attr(miri, ignore = "some hundred thousand tokens")]
fn a_large_table_is_made_ready_before_it_is_used_and_kept_until_no_reader_has_it() {
    /// As many as fill two pieces of a table to where it grows.
    const TOKENS: u64 = 393_216;
    const PIECE_BYTES: usize = 2 << 20;
    let (mut writer, reader) = index(TOKENS as usize, 2_000_000, SEGMENT_RECORDS);
    let insert = |writer: &mut Writer, at: u64| {
        writer.insert(&record(scattered(at), 5), None, State::LIVE).expect("room");
    };
    let first = writer.memory().index_bytes;
    let mut next = 0;
    while !writer.is_growing() {
        insert(&mut writer, next);
        next += 1;
    }
    assert!(next >= TOKENS, "it has room for what it was to have room for: {next}");
    let pin = reader.pin();
    let both = writer.memory().index_bytes;
    assert!(both > 2 * first, "the next one is there");
    let pieces = (both - first).div_ceil(PIECE_BYTES);
    assert!(pieces >= 3, "{pieces}");
    // The first piece was touched by the insert that wanted room; one step all the rest of the move takes.
    for step in 1..pieces {
        assert!(writer.step_growth(usize::MAX), "moved after {step} of {pieces} pieces");
        insert(&mut writer, next);
        next += 1;
    }
    assert!(!writer.step_growth(usize::MAX), "ready after {pieces} pieces");
    assert_eq!(writer.memory().index_bytes, both, "the reader still has the one before");
    drop(pin);
    writer.release_retired();
    assert_eq!(writer.memory().index_bytes, both - first);
    for at in (0..next).step_by(7) {
        assert!(reader.pin().lookup(&scattered(at)).is_some(), "{at}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "some hundred thousand tokens")]
fn a_large_table_that_nobody_makes_ready_is_used_before_the_one_at_hand_is_full() {
    const TOKENS: u64 = 393_216;
    let (mut writer, reader) = index(TOKENS as usize, 2_000_000, SEGMENT_RECORDS);
    for at in 0..3 * TOKENS {
        writer.insert(&record(scattered(at), 5), None, State::LIVE).expect("room");
    }
    for at in (0..3 * TOKENS).step_by(7) {
        assert!(reader.pin().lookup(&scattered(at)).is_some(), "{at}");
    }
}

#[test]
fn a_segment_is_kept_for_whoever_still_reads_it() {
    let (mut writer, reader) = index(1, 200_000, SMALL_SEGMENT);
    for at in 0..u64::from(SMALL_SEGMENT) + 9 {
        writer.insert(&record(scattered(at), 5), None, State::LIVE).unwrap();
    }
    let pin = reader.pin();
    for at in 0..u64::from(SMALL_SEGMENT) + 9 {
        writer.remove(&scattered(at)).unwrap();
    }
    assert_eq!(writer.release_retired(), 1, "the reader holds the first segment");
    assert_eq!(pin.lookup(&scattered(0)), None);
    drop(pin);
    assert_eq!(writer.release_retired(), 0);
}

/// A random id from a counter: the index counts on ids being random (splitmix64, Steele and others 2014).
fn scattered(counter: u64) -> [u8; 16] {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mix(counter * 2 + 1).to_le_bytes());
    id[8..].copy_from_slice(&mix(counter * 2 + 2).to_le_bytes());
    id
}

#[test]
fn readers_never_see_a_torn_record_a_lost_token_or_a_mark_undone_while_all_moves_about() {
    const TOKENS: u64 = if cfg!(miri) { 64 } else { 160_000 };
    let (mut writer, reader) = index(1, 1_000_000, SMALL_SEGMENT);
    let published = AtomicU64::new(0);
    let revoked = AtomicU64::new(0);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let (reader, published, revoked, is_done) = (reader.clone(), &published, &revoked, &is_done);
            scope.spawn(move || {
                let mut counter = thread;
                while !is_done.load(Ordering::Acquire) {
                    let (dead, live) = (revoked.load(Ordering::Acquire), published.load(Ordering::Acquire));
                    counter = counter
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let at = (counter >> 20) % TOKENS;
                    let found = seen_by_reader_once(&reader, &scattered(at));
                    if at < live {
                        let found = found.expect("a published token is found");
                        assert_eq!(found.record().digest, [found.record().id[0]; 32]);
                        assert!(found.state.contains(State::LIVE));
                        assert!(at >= dead || found.state.contains(State::REVOKED), "a revoke stays");
                    }
                }
            });
        }
        for at in 0..TOKENS {
            writer.insert(&record(scattered(at), 1), None, State::NONE).unwrap();
            writer.mark(&scattered(at), State::LIVE);
            published.store(at + 1, Ordering::Release);
            if at % 2 == 1 {
                let dead = at / 2;
                writer.mark(&scattered(dead), State::REVOKED);
                revoked.store(dead + 1, Ordering::Release);
                let renewed = writer.prepare(&record(scattered(dead), 2), None).unwrap();
                writer.swap(renewed);
            }
            // Renewals leave the first segments ever sparser: what is left in them is moved, and they are given up.
            if at % (TOKENS / 8) == TOKENS / 8 - 1 {
                compact(&mut writer);
                writer.tidy();
            }
        }
        assert!(writer.segments_end() > 3 && writer.slots_used() == TOKENS as u32);
        is_done.store(true, Ordering::Release);
    });
}

fn seen_by_reader_once(reader: &Reader, id: &[u8; 16]) -> Option<Found> {
    let pin = reader.pin();
    let mut candidate = [Candidate::default()];
    if pin.locate([id], &mut candidate) {
        pin.locate_further([id], &mut candidate);
    }
    pin.resolve_plain(id, &candidate[0]).or_else(|| pin.resolve(id, &candidate[0]))
}
