//! From a cut to parts, and from parts to a snapshot.
//!
//! What holds if the process dies: before the manifest is there, there are only parts that no manifest names, and the snapshot
//! before this one is as it was; after that, every part was durable and verified, and so was the event of the cut.

use std::io;

use jeton_index::{Copied, WordsCopy};

use super::cut::Piece;
use super::parts::{
    CLAIM_SETS_PER_PART, COUNTERS_PER_PART, ClaimSetPart, CounterPart, KEYS_PER_PART, KeyPart, RestPart,
    SUBJECTS_PER_PART, SubjectPart, encode,
};
use super::store::{PartStore, manifest_name, part_name};
use super::{Manifest, PartRef, SegmentRef, SnapshotCut, SnapshotPiece};
use crate::mutation::mutated;
use crate::numbers::Sequence;

/// Bytes of the table in one part; the pieces that it is copied in divide it evenly.
const TABLE_PART_BYTES: usize = 4 << 20;

/// What a snapshot took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotReport {
    /// The event it is of.
    pub sequence: Sequence,
    /// Tokens in it, dead ones that were not reclaimed yet among them.
    pub tokens: u64,
    /// Bytes of all its parts.
    pub bytes: u64,
    /// Of these, bytes that had to be written; the rest was there from an earlier snapshot.
    pub bytes_written: u64,
}

/// A stretch of the table that is being put together.
#[derive(Debug, Default)]
struct Stretch {
    bytes: Vec<u8>,
    filled: usize,
    done: Option<PartRef>,
}

/// What is still to be written once all pieces are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Segment(usize),
    Subjects(usize),
    ClaimSets(usize),
    Rest,
    Verify(usize),
    Done,
}

/// Writes one snapshot, part by part.
#[derive(Debug)]
pub struct SnapshotWriter {
    cut: SnapshotCut,
    /// The snapshot before this one, of the same index: full segments in it have not changed.
    before: Option<Manifest>,
    table: Vec<Stretch>,
    counters: Vec<CounterPart>,
    keys: Vec<KeyPart>,
    /// Parts that were not there before.
    written: Vec<PartRef>,
    /// Where parts are put together and read back: memory that is used again costs no page faults.
    scratch: Vec<u8>,
    manifest: Manifest,
    next: Next,
    report: SnapshotReport,
}

impl SnapshotWriter {
    /// Nothing is written yet. `before` is the last snapshot that this index was written to or restored from, if there is one.
    #[must_use]
    pub fn new(cut: SnapshotCut, before: Option<Manifest>) -> Self {
        let end = cut.end;
        let no_part = PartRef { hash: [0; 32], bytes: 0 };
        let manifest = Manifest {
            log: end.log.0,
            partition: end.partition.0,
            epoch: end.epoch,
            sequence: end.sequence.0,
            chain: end.hash,
            time_ms: cut.time.0,
            tokens: cut.tokens as u64,
            segment_records: cut.index.segment_records,
            serial: cut.index.serial,
            open: cut.index.open,
            segments: Vec::new(),
            table: Vec::new(),
            subjects: Vec::new(),
            claim_sets: Vec::new(),
            keys: Vec::new(),
            counters: Vec::new(),
            rest: no_part,
        };
        let stretches = (cut.index.table_words * 8).div_ceil(TABLE_PART_BYTES);
        Self {
            before: before.filter(|before| before.log == manifest.log),
            table: (0..stretches).map(|_| Stretch::default()).collect(),
            counters: Vec::new(),
            keys: Vec::new(),
            written: Vec::new(),
            scratch: Vec::new(),
            next: Next::Segment(0),
            report: SnapshotReport {
                sequence: end.sequence,
                tokens: manifest.tokens,
                ..SnapshotReport::default()
            },
            manifest,
            cut,
        }
    }

    /// The event that the snapshot is of.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.report.sequence
    }

    /// Takes a piece of the copy, and writes a part if it completes one.
    ///
    /// # Errors
    /// As the store says; the snapshot has to be given up.
    pub fn take(&mut self, piece: SnapshotPiece, store: &mut impl PartStore) -> io::Result<()> {
        match piece.0 {
            Piece::Index(Copied::Words(words)) => {
                self.take_words(&words, store)?;
            }
            Piece::Index(Copied::Counters(_)) if mutated!(SnapshotForgetsUses) => {}
            Piece::Index(Copied::Counters(copied)) => {
                let part = |(slot, spent)| CounterPart { slot, spent };
                self.counters.extend(copied.counters.into_iter().map(part));
                while self.counters.len() >= COUNTERS_PER_PART {
                    let rest = self.counters.split_off(COUNTERS_PER_PART);
                    self.write_counters(store)?;
                    self.counters = rest;
                }
            }
            Piece::Keys(mut keys) => {
                self.keys.append(&mut keys);
                if self.keys.len() >= KEYS_PER_PART {
                    self.write_keys(store)?;
                }
            }
        }
        Ok(())
    }

    fn take_words(&mut self, words: &WordsCopy, store: &mut impl PartStore) -> io::Result<()> {
        let at = words.first * 8;
        let number = at / TABLE_PART_BYTES;
        let size = (self.cut.index.table_words * 8 - number * TABLE_PART_BYTES).min(TABLE_PART_BYTES);
        let stretch = &mut self.table[number];
        if stretch.filled == 0 {
            stretch.bytes = std::mem::take(&mut self.scratch);
            stretch.bytes.resize(size, 0);
        }
        words.write_published(&mut stretch.bytes[at % TABLE_PART_BYTES..][..words.bytes()]);
        stretch.filled += words.bytes();
        if stretch.filled == size {
            let bytes = std::mem::take(&mut stretch.bytes);
            self.table[number].done = Some(self.put(&bytes, store)?);
            self.scratch = bytes;
        }
        Ok(())
    }

    fn write_counters(&mut self, store: &mut impl PartStore) -> io::Result<()> {
        let bytes = encode(&std::mem::take(&mut self.counters));
        let part = self.put(&bytes, store)?;
        self.manifest.counters.push(part);
        Ok(())
    }

    fn write_keys(&mut self, store: &mut impl PartStore) -> io::Result<()> {
        let bytes = encode(&std::mem::take(&mut self.keys));
        let part = self.put(&bytes, store)?;
        self.manifest.keys.push(part);
        Ok(())
    }

    /// Writes, or finds, the part with these bytes.
    fn put(&mut self, bytes: &[u8], store: &mut impl PartStore) -> io::Result<PartRef> {
        let part = PartRef { hash: *blake3::hash(bytes).as_bytes(), bytes: bytes.len() as u64 };
        self.report.bytes += part.bytes;
        if !is_whole(&part, store, &mut Vec::new()) {
            store.put(&part_name(&part), bytes)?;
            self.report.bytes_written += part.bytes;
            self.written.push(part);
        }
        Ok(part)
    }

    /// Once all pieces were taken: writes the next part, or reads one back. Returns whether there is more to do before
    /// [`Self::commit`].
    ///
    /// # Errors
    /// As the store says, or [`io::ErrorKind::InvalidData`] if a part is not as it was written. The snapshot has to be given up.
    pub fn write_next(&mut self, store: &mut impl PartStore) -> io::Result<bool> {
        self.next = match self.next {
            Next::Segment(at) if at < self.cut.index.segments.len() => {
                self.write_segment(at, store)?;
                Next::Segment(at + 1)
            }
            Next::Segment(_) => Next::Subjects(0),
            Next::Subjects(at) if at * SUBJECTS_PER_PART + 1 < self.cut.counts[2] => {
                self.write_subjects(at, store)?;
                Next::Subjects(at + 1)
            }
            Next::Subjects(_) => Next::ClaimSets(0),
            Next::ClaimSets(at) if at * CLAIM_SETS_PER_PART + 1 < self.cut.counts[3] => {
                self.write_claim_sets(at, store)?;
                Next::ClaimSets(at + 1)
            }
            Next::ClaimSets(_) => Next::Rest,
            Next::Rest => {
                self.write_rest(store)?;
                Next::Verify(0)
            }
            Next::Verify(at) => match self.written.get(at) {
                Some(part) if is_whole(part, store, &mut self.scratch) => Next::Verify(at + 1),
                Some(part) => {
                    let words = format!("{} does not match its hash", part_name(part));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, words));
                }
                None => Next::Done,
            },
            Next::Done => Next::Done,
        };
        Ok(self.next != Next::Done)
    }

    fn write_segment(&mut self, at: usize, store: &mut impl PartStore) -> io::Result<()> {
        let cut = self.cut.index.segments[at].clone();
        let known = self.before.iter().flat_map(|before| &before.segments);
        // Slots are never used twice: one serial number, one content.
        let known = known.filter(|known| known.serial == cut.serial && known.used == cut.used);
        let scratch = &mut self.scratch;
        let known = known.map(|known| known.part).find(|part| is_whole(part, store, scratch));
        let part = if let Some(part) = known {
            self.report.bytes += part.bytes;
            part
        } else {
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            cut.append_records(0, cut.used, &mut bytes);
            let part = self.put(&bytes, store)?;
            self.scratch = bytes;
            part
        };
        let (number, serial, used, live) = (cut.number, cut.serial, cut.used, cut.live);
        self.manifest.segments.push(SegmentRef { number, serial, used, live, part });
        Ok(())
    }

    fn write_subjects(&mut self, at: usize, store: &mut impl PartStore) -> io::Result<()> {
        let from = 1 + at * SUBJECTS_PER_PART;
        let to = self.cut.counts[2].min(from + SUBJECTS_PER_PART);
        let subjects: Vec<_> = (from..to)
            .map(|number| {
                let subject = &self.cut.registry.subjects[number];
                SubjectPart {
                    tenant: subject.tenant.0,
                    since: subject.since.0,
                    name: subject.name.as_deref().map(str::to_owned),
                }
            })
            .collect();
        let part = self.put(&encode(&subjects), store)?;
        self.manifest.subjects.push(part);
        Ok(())
    }

    fn write_claim_sets(&mut self, at: usize, store: &mut impl PartStore) -> io::Result<()> {
        let from = 1 + at * CLAIM_SETS_PER_PART;
        let to = self.cut.counts[3].min(from + CLAIM_SETS_PER_PART);
        let claim_sets: Vec<_> = (from..to)
            .map(|number| {
                let set = &self.cut.registry.claim_sets[number];
                ClaimSetPart {
                    tenant: set.tenant.0,
                    client: set.client.0,
                    since: set.since.0,
                    bytes: set.compiled.is_some().then(|| set.bytes.to_vec()),
                }
            })
            .collect();
        let part = self.put(&encode(&claim_sets), store)?;
        self.manifest.claim_sets.push(part);
        Ok(())
    }

    fn write_rest(&mut self, store: &mut impl PartStore) -> io::Result<()> {
        if !self.counters.is_empty() {
            self.write_counters(store)?;
        }
        if !self.keys.is_empty() {
            self.write_keys(store)?;
        }
        let names = |names: &boxcar::Vec<Box<str>>, count: usize| {
            (1..count).map(|number| names[number].to_string()).collect::<Vec<_>>()
        };
        let rest = RestPart {
            tenants: names(&self.cut.registry.tenants, self.cut.counts[0]),
            clients: names(&self.cut.registry.clients, self.cut.counts[1]),
            rights: std::mem::take(&mut self.cut.rights),
            dead_claim_sets: std::mem::take(&mut self.cut.dead_claim_sets),
            renewals: if mutated!(SnapshotForgetsRenewals) {
                Vec::new()
            } else {
                std::mem::take(&mut self.cut.renewals)
            },
        };
        self.manifest.rest = self.put(&encode(&rest), store)?;
        self.manifest.table = std::mem::take(&mut self.table)
            .into_iter()
            .map(|stretch| stretch.done.ok_or_else(|| io::Error::other("the copy of the index has a hole")))
            .collect::<io::Result<_>>()?;
        Ok(())
    }

    /// Whether the event of the cut is durable, once the log is to this one: before that, nothing may say that the snapshot
    /// exists.
    #[must_use]
    pub fn may_commit(&self, durable: Sequence) -> bool {
        durable >= self.sequence() || mutated!(SnapshotBeforeDurable)
    }

    /// Makes the snapshot exist. Returns its manifest, for the next one, and what it took.
    ///
    /// # Errors
    /// As the store says; the snapshot may exist or not, and is whole if it does.
    ///
    /// # Panics
    /// If there was more to write, or if the event of the cut is not durable.
    pub fn commit(
        self,
        durable: Sequence,
        store: &mut impl PartStore,
    ) -> io::Result<(Manifest, SnapshotReport)> {
        assert!(self.next == Next::Done, "a snapshot is whole before it exists");
        assert!(self.may_commit(durable), "what a snapshot is of is durable before it exists");
        store.sync_names()?;
        store.put(&manifest_name(self.sequence()), &self.manifest.encode())?;
        store.sync_names()?;
        Ok((self.manifest, self.report))
    }
}

/// Whether a part is there, and still what it was when it was written: disks rot. It is read into `scratch`.
fn is_whole(part: &PartRef, store: &impl PartStore, scratch: &mut Vec<u8>) -> bool {
    let name = part_name(part);
    if !store.size(&name).is_ok_and(|size| size == part.bytes) {
        return false;
    }
    scratch.resize(usize::try_from(part.bytes).unwrap_or(0), 0);
    store.read(&name, scratch).is_ok() && blake3::hash(scratch) == part.hash
}
