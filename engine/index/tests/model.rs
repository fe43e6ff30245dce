//! The index against a plain map, from tiny tables through many growths, and under concurrent readers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jeton_index::{Candidate, Entry, IndexConfig, IndexFull, Reader, Record, State, Writer, new};
use proptest::prelude::*;

fn index(tokens_initial: usize, slots_max: u32) -> (Writer, Reader) {
    new(IndexConfig { tokens_initial, slots_max, huge_pages: false }).expect("there is memory for an index")
}

fn record(id: [u8; 16], expires_s: u32) -> Record {
    Record { id, digest: [id[0]; 32], expires_s, issued_s: 7, claims: 3, link: expires_s ^ 1 }
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
    Remove([u8; 16]),
    Grow(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ids = (0..6_u8, 0..12_u8).prop_map(|(family, member)| id(family, member));
    let bits = prop_oneof![Just(State::LIVE), Just(State::REVOKED), Just(State::SPENT)];
    let step = prop_oneof![
        4 => (ids.clone(), any::<u32>()).prop_map(|(id, expires)| Step::Put(id, expires)),
        3 => (ids.clone(), bits).prop_map(|(id, bits)| Step::Mark(id, bits)),
        1 => ids.prop_map(Step::Remove),
        1 => (0..4_usize).prop_map(Step::Grow),
    ];
    prop::collection::vec(step, 0..300)
}

fn seen_by_reader(reader: &Reader, ids: &[[u8; 16]]) -> Vec<Option<(State, Record)>> {
    let pin = reader.pin();
    let mut candidates = vec![Candidate::default(); ids.len()];
    pin.prefetch(ids);
    pin.locate(ids, &mut candidates);
    let batch: Vec<_> = ids.iter().zip(&candidates).map(|(id, at)| pin.resolve(id, at)).collect();
    let single: Vec<_> = ids.iter().map(|id| pin.lookup(id)).collect();
    assert_eq!(batch, single);
    batch.into_iter().map(|found| found.map(|found| (found.state, found.record))).collect()
}

proptest! {
    #[test]
    fn the_index_holds_what_a_map_would(steps in steps()) {
        let (mut writer, reader) = index(1, 10_000);
        let mut oracle: HashMap<[u8; 16], (State, Record)> = HashMap::new();
        for step in steps {
            match step {
                Step::Put(id, expires) => {
                    let record = record(id, expires);
                    match oracle.get_mut(&id) {
                        Some((_, known)) => {
                            let slot = writer.prepare(&record).unwrap();
                            prop_assert!(writer.swap(slot));
                            *known = record;
                        }
                        None => {
                            let slot = writer.prepare(&record).unwrap();
                            prop_assert!(!writer.swap(slot));
                            writer.insert(&record, State::NONE).unwrap();
                            oracle.insert(id, (State::NONE, record));
                        }
                    }
                }
                Step::Mark(id, bits) => {
                    let known = oracle.get_mut(&id);
                    prop_assert_eq!(writer.mark(&id, bits), known.as_ref().map(|(state, _)| *state));
                    if let Some((state, _)) = known {
                        *state = state.with(bits);
                    }
                }
                Step::Remove(id) => prop_assert_eq!(writer.remove(&id), oracle.remove(&id).is_some()),
                Step::Grow(buckets) => drop(writer.step_growth(buckets)),
            }
            prop_assert_eq!(writer.len(), oracle.len());
        }
        let ids: Vec<_> = (0..7).flat_map(|family| (0..13).map(move |member| id(family, member))).collect();
        let expected: Vec<_> = ids.iter().map(|id| oracle.get(id).copied()).collect();
        prop_assert_eq!(seen_by_reader(&reader, &ids), expected);
        let mut all = HashMap::new();
        writer.for_each(|Entry { state, record, .. }| {
            all.insert(record.id, (state, record));
        });
        prop_assert_eq!(all, oracle);
    }
}

#[test]
fn a_token_is_marked_through_any_record_it_ever_had() {
    let (mut writer, reader) = index(10, 100);
    let first = writer.insert(&record(id(1, 1), 5), State::LIVE).unwrap();
    let second = writer.prepare(&record(id(1, 1), 9)).unwrap();
    assert_eq!(reader.pin().lookup(&id(1, 1)).unwrap().record.expires_s, 5, "prepared is not yet named");
    assert_eq!(writer.mark_owner(second, State::SPENT), Some(State::LIVE));
    assert!(writer.swap(second));
    assert_eq!(reader.pin().lookup(&id(1, 1)).unwrap().record.expires_s, 9);
    assert_eq!(writer.mark_owner(first, State::REVOKED), Some(State::LIVE.with(State::SPENT)));
    assert_eq!(writer.find(&id(1, 1)).unwrap().state, State::LIVE.with(State::SPENT).with(State::REVOKED));
    assert_eq!(writer.mark_owner(99, State::REVOKED), None);
    assert_eq!(writer.mark_owner(0, State::REVOKED), None);
}

#[test]
fn a_full_index_says_so_and_keeps_what_it_has() {
    let (mut writer, reader) = index(1, 3);
    for member in 0..3 {
        writer.insert(&record(id(1, member), 5), State::LIVE).unwrap();
    }
    assert_eq!(writer.insert(&record(id(1, 3), 5), State::LIVE), Err(IndexFull::Configured));
    assert_eq!(writer.prepare(&record(id(1, 0), 6)), Err(IndexFull::Configured));
    assert_eq!(reader.pin().lookup(&id(1, 0)).unwrap().record.expires_s, 5);
    assert_eq!(reader.pin().lookup(&id(1, 3)), None);
}

#[test]
fn extra_records_are_numbered_from_zero_and_read_back() {
    let (mut writer, reader) = index(1, 100_000);
    for number in 0..70_000_u32 {
        assert_eq!(writer.push_extra([u64::from(number); 8]), Ok(number));
    }
    assert_eq!(reader.pin().extra(65_536), Some([65_536; 8]));
    assert_eq!(writer.extra(70_000), None);
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
fn readers_never_see_a_torn_record_a_lost_token_or_a_mark_undone_while_tables_grow() {
    const TOKENS: u64 = 60_000;
    let (mut writer, reader) = index(1, 1_000_000);
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
                        assert_eq!(found.record.digest, [found.record.id[0]; 32]);
                        assert!(found.state.contains(State::LIVE));
                        assert!(at >= dead || found.state.contains(State::REVOKED), "a revoke stays");
                    }
                }
            });
        }
        for at in 0..TOKENS {
            writer.insert(&record(scattered(at), 1), State::NONE).unwrap();
            writer.mark(&scattered(at), State::LIVE);
            published.store(at + 1, Ordering::Release);
            if at % 2 == 1 {
                let dead = at / 2;
                writer.mark(&scattered(dead), State::REVOKED);
                revoked.store(dead + 1, Ordering::Release);
                let renewed = writer.prepare(&record(scattered(dead), 2)).unwrap();
                writer.swap(renewed);
            }
        }
        is_done.store(true, Ordering::Release);
    });
}

fn seen_by_reader_once(reader: &Reader, id: &[u8; 16]) -> Option<jeton_index::Found> {
    let pin = reader.pin();
    let mut candidate = [Candidate::default()];
    pin.locate([id], &mut candidate);
    pin.resolve(id, &candidate[0])
}
