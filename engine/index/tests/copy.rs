//! A copy of the index, taken piece by piece while it changes, against what the index held when the copy began.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use jeton_index::{
    Buffer, Copied, IndexConfig, IndexCut, IndexImage, Record, RestoreError, SegmentImage, State, Tail,
    Writer, new, restore,
};

const SEGMENT_RECORDS: u32 = 64;

fn config(tokens_initial: usize) -> IndexConfig {
    IndexConfig { tokens_initial, slots_max: 1 << 20, segment_records: SEGMENT_RECORDS, huge_pages: false }
}

/// A small generator of numbers (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// An id that spreads over the buckets.
fn id(number: u64) -> [u8; 16] {
    let (low, high) = (Numbers(number).next(), Numbers(!number).next());
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}

fn tail(number: u64) -> Option<Tail> {
    number.is_multiple_of(3).then_some([number; 8])
}

fn record(number: u64, expires_s: u32) -> Record {
    Record { id: id(number), digest: [number as u8; 32], expires_s, issued_s: 7, claims: 3, link: 9 }
}

/// One change of some kind or another.
fn change(writer: &mut Writer, numbers: &mut Numbers, tokens: u64) {
    let number = numbers.below(tokens);
    match numbers.below(8) {
        0..3 if writer.find(&id(number)).is_none() => {
            writer.insert(&record(number, 100), tail(number).as_ref(), State::NONE).unwrap();
        }
        0..3 => {
            let slot = writer.prepare(&record(number, numbers.next() as u32), tail(number).as_ref()).unwrap();
            writer.swap(slot);
        }
        3 => drop(writer.mark(&id(number), State::LIVE)),
        4 => drop(writer.mark(&id(number), State::REVOKED)),
        5 if tail(number).is_some() => drop(writer.set_counter(&id(number), numbers.below(9))),
        6 => drop(writer.remove(&id(number))),
        _ => drop(writer.step_growth(4)),
    }
}

type Held = BTreeMap<[u8; 16], (Record, Option<Tail>, u8, u64)>;

/// What an index holds, with every token published.
fn held(writer: &Writer) -> Held {
    let mut held = Held::new();
    writer.for_each(|entry| {
        let bits = entry.state.with(State::LIVE).bits();
        let counter = writer.counter(entry.slot);
        held.insert(entry.record.id, (entry.record, entry.tail, bits, counter));
    });
    held
}

/// A copy's pieces, put together.
struct Copy {
    table: Vec<u8>,
    counters: Vec<(u32, u64)>,
    cut: IndexCut,
}

impl Copy {
    fn of(cut: IndexCut) -> Self {
        Self { table: vec![0xee; cut.table_words * 8], counters: Vec::new(), cut }
    }

    fn take(&mut self, copied: Copied) {
        match copied {
            Copied::Words(words) => {
                words.write_published(&mut self.table[words.first * 8..][..words.bytes()]);
            }
            Copied::Counters(mut copied) => self.counters.append(&mut copied.counters),
        }
    }

    fn image(&self) -> IndexImage {
        let mut table = Buffer::for_table(self.cut.table_words, false).unwrap();
        table.bytes_mut().copy_from_slice(&self.table);
        let segments = self.cut.segments.iter().map(|cut| {
            let mut bytes = Vec::new();
            cut.append_records(0, cut.used, &mut bytes);
            let mut records = Buffer::for_segment(SEGMENT_RECORDS, false).unwrap();
            records.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
            SegmentImage { number: cut.number, serial: cut.serial, used: cut.used, live: cut.live, records }
        });
        let (serial, open, counters) = (self.cut.serial, self.cut.open, self.counters.clone());
        IndexImage { table, segments: segments.collect(), counters, serial, open }
    }
}

#[test]
fn a_copy_is_the_index_of_the_moment_it_began_whatever_changes_meanwhile() {
    let seeds = if cfg!(miri) { 1 } else { 60 };
    for seed in 0..seeds {
        let mut numbers = Numbers(seed);
        let tokens = if cfg!(miri) { 40 } else { 1 + numbers.below(4_000) };
        // Some tables have several pieces from the start, some grow meanwhile.
        let large = if cfg!(miri) { 200 } else { 40_000 };
        let initial = if numbers.below(2) == 0 { 1 } else { large };
        let (mut writer, _reader) = new(config(initial)).unwrap();
        (0..tokens * 2).for_each(|_| change(&mut writer, &mut numbers, tokens));
        while writer.step_growth(usize::MAX) {}
        let (before, serials, slots) = (held(&writer), writer.serials_used(), writer.slots_used());
        let mut copy = Copy::of(writer.begin_copy().expect("it does not grow"));
        let pause = numbers.below(300);
        loop {
            (0..pause).for_each(|_| change(&mut writer, &mut numbers, 2 * tokens));
            let Some(copied) = writer.next_copied() else { break };
            copy.take(copied);
        }
        let (mut restored, reader) = restore(config(1), copy.image()).unwrap();
        assert_eq!(held(&restored), before, "seed {seed}");
        assert_eq!((restored.serials_used(), restored.slots_used()), (serials, slots), "seed {seed}");
        assert_eq!(restored.len(), before.len());
        for (id, (record, ..)) in &before {
            assert_eq!(reader.pin().lookup(id).map(|found| found.record()), Some(*record), "readers find it");
        }
        // It goes on as any other, until nothing is left in it.
        (0..tokens).for_each(|_| change(&mut restored, &mut numbers, tokens));
        for number in 0..2 * tokens {
            let _ = restored.remove(&id(number));
        }
        assert_eq!((restored.len(), held(&restored).len()), (0, 0), "seed {seed}");
    }
}

/// While the next table is made ready the one at hand takes more than the three quarters at which that began.
#[test]
#[cfg_attr(miri, ignore = "some hundred thousand tokens")]
fn a_copy_that_begins_while_the_next_table_is_made_ready_is_as_good_as_any() {
    let (mut writer, _reader) = new(config(393_216)).unwrap();
    let mut next = 0;
    let mut insert = |writer: &mut Writer| {
        writer.insert(&record(next, 5), None, State::LIVE).unwrap();
        next += 1;
    };
    while !writer.is_growing() {
        insert(&mut writer);
    }
    (0..10_000).for_each(|_| insert(&mut writer));
    let mut copy = Copy::of(writer.begin_copy().expect("no token moves yet"));
    while let Some(copied) = writer.next_copied() {
        copy.take(copied);
        writer.step_growth(1);
    }
    let (mut restored, _reader) = restore(config(1), copy.image()).unwrap();
    assert_eq!(restored.len(), writer.len());
    (0..100_000).for_each(|_| insert(&mut restored));
}

fn small_copy() -> Copy {
    let (mut writer, _) = new(config(100)).unwrap();
    for number in 0..100 {
        writer.insert(&record(number, 5), tail(number).as_ref(), State::LIVE).unwrap();
    }
    let mut copy = Copy::of(writer.begin_copy().unwrap());
    while let Some(copied) = writer.next_copied() {
        copy.take(copied);
    }
    copy
}

#[test]
fn a_copy_whose_parts_contradict_one_another_is_refused() {
    type Spoil = fn(&mut IndexImage);
    let refused: [(&str, Spoil); 14] = [
        ("no segment", |image| drop(image.segments.remove(0))),
        ("twice the same number", |image| image.segments[1].number = image.segments[0].number),
        ("more in use than written", |image| image.segments[0].live = image.segments[0].used + 1),
        ("more written than there is room for", |image| image.segments[0].used = SEGMENT_RECORDS + 1),
        ("an open segment that is not there", |image| image.open = Some(77)),
        ("a number out of range", |image| image.segments[0].number = u32::MAX),
        ("a number far beyond what there are records", |image| image.segments[0].number = 1 << 21),
        ("a segment that gives slot 0 away", |image| {
            (image.segments[0].used, image.segments[0].live) = (0, 0);
            image.table.bytes_mut().fill(0);
        }),
        ("a segment younger than the index", |image| image.segments[1].serial = u64::MAX),
        ("more slots than can be counted", |image| image.serial = u64::MAX),
        ("a counter of nothing", |image| image.counters.push((0, 1))),
        ("a table of one bucket", |image| {
            image.table = Buffer::for_table(8, false).unwrap();
            image.segments.iter_mut().for_each(|segment| segment.live = 0);
        }),
        ("a table of half a bucket", |image| image.table = Buffer::for_table(8 * 8 + 4, false).unwrap()),
        ("a word that names nothing", |image| {
            let bytes = image.table.bytes_mut();
            let at = (0..bytes.len()).step_by(8).find(|at| bytes[*at..*at + 8] == [0; 8]).unwrap();
            bytes[at..at + 8].copy_from_slice(&(1_u64 << 32 | 0x00ff_ffff).to_le_bytes());
        }),
    ];
    for (what, spoil) in refused {
        let mut image = small_copy().image();
        spoil(&mut image);
        assert!(matches!(restore(config(1), image), Err(RestoreError::Inconsistent(_))), "{what}");
    }
    assert!(restore(config(1), small_copy().image()).is_ok());
    let few = IndexConfig { slots_max: 50, ..config(1) };
    assert!(matches!(restore(few, small_copy().image()), Err(RestoreError::Inconsistent(_))));
}

#[test]
fn a_copy_whose_books_are_wrong_serves_on_and_gives_no_segment_up() {
    type Spoil = fn(&mut IndexImage);
    let wrong: [(&str, Spoil); 3] = [
        ("none in use", |image| image.segments.iter_mut().for_each(|segment| segment.live = 0)),
        ("one too few in use", |image| image.segments[0].live -= 1),
        ("two words for one record", |image| {
            let bytes = image.table.bytes_mut();
            let taken = (0..bytes.len()).step_by(8).filter(|at| bytes[*at..*at + 8] != [0; 8]);
            let taken: Vec<_> = taken.take(2).collect();
            bytes.copy_within(taken[0]..taken[0] + 8, taken[1]);
        }),
    ];
    for (what, spoil) in wrong {
        for is_compared in [true, false] {
            let mut image = small_copy().image();
            spoil(&mut image);
            let (mut writer, reader) = restore(config(1), image).unwrap();
            if is_compared {
                writer.for_each_by_age(|_, _, _| {});
            }
            let bytes = writer.memory().slab_bytes;
            let mut numbers = Numbers(1);
            (0..200).for_each(|_| change(&mut writer, &mut numbers, 100));
            for number in 0..100 {
                let _ = writer.remove(&id(number));
                assert!(reader.pin().lookup(&id(number)).is_none() || what == "two words for one record");
            }
            writer.tidy();
            while writer.step_growth(1) {}
            assert!(writer.memory().slab_bytes >= bytes, "{what}");
        }
    }
    let (mut writer, _reader) = restore(config(1), small_copy().image()).unwrap();
    let bytes = writer.memory().slab_bytes;
    for number in 0..60 {
        let _ = writer.remove(&id(number));
    }
    writer.for_each_by_age(|_, _, _| {});
    writer.release_retired();
    assert!(writer.memory().slab_bytes < bytes, "what died before the books were compared is given up then");
}
