//! Batches: events sealed into the unit that the log stores, hash-chained so that nothing can be changed, dropped or
//! put in between without being noticed.
//!
//! Layout, little-endian (docs/FORMATS.md, "Batch"):
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `JTNB` |
//! | 4 | 2 | format version, 1 |
//! | 6 | 2 | partition |
//! | 8 | 16 | log id |
//! | 24 | 4 | epoch |
//! | 28 | 4 | number of events, at least 1 |
//! | 32 | 8 | sequence number of the first event |
//! | 40 | 8 | time of every event in it, ms since 1970 |
//! | 48 | 32 | hash of the batch before; zeros in the first |
//! | 80 | 4 | bytes of events |
//! | 84 | 12 | zeros |
//! | 96 | 32 | hash: blake3 over bytes 0..96 and the events |
//! | 128 | | events: an rkyv archive of `Vec<Event>` |
//! | | | to the end, detached values: event index u16, length u16, salt 32, bytes |
//!
//! The hash does not cover the detached values, nor how many there are: the events hold commitments to them. So one
//! can be taken out later (erased) and the chain stays whole; it can never be another.

use rkyv::rancor;
use rkyv::util::AlignedVec;

use crate::event::{ArchivedEvent, Detached, EVENT_BYTES_MAX, Entry, Event};
use crate::numbers::{LogId, Partition, Sequence};
use crate::time::Millis;

/// The largest sealed batch: the log store's value limit of 7 KiB less its envelope.
pub const BATCH_BYTES_MAX: usize = 7 * 1024 - 64;
/// Bytes before the events.
pub const HEADER_BYTES: usize = 128;

const MAGIC: [u8; 4] = *b"JTNB";
const FORMAT_VERSION: u16 = 1;
const HASH_AT: usize = 96;
/// Index, length and salt of a detached value.
const DETACHED_HEAD_BYTES: usize = 2 + 2 + 32;
/// What an archive of events takes beside the events themselves, padding of the header included.
const ARCHIVE_OVERHEAD_BYTES: usize = 64;

const _: () = assert!(
    HEADER_BYTES + ARCHIVE_OVERHEAD_BYTES + EVENT_BYTES_MAX + DETACHED_HEAD_BYTES <= BATCH_BYTES_MAX,
    "the largest event fits into a batch of its own"
);

/// The end of a chain: where the next batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    /// The log.
    pub log: LogId,
    /// Its partition.
    pub partition: Partition,
    /// Counts the writers this partition has had; 0 on one machine.
    pub epoch: u32,
    /// The last event sealed; 0 before the first.
    pub sequence: Sequence,
    /// The hash of the last batch; zeros before the first.
    pub hash: [u8; 32],
}

impl ChainEnd {
    /// The end of a log that holds nothing yet.
    #[must_use]
    pub fn genesis(log: LogId, partition: Partition) -> Self {
        Self { log, partition, epoch: 0, sequence: Sequence(0), hash: [0; 32] }
    }
}

/// A batch ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBatch {
    /// Its first event.
    pub first: Sequence,
    /// Its last event.
    pub last: Sequence,
    /// Its hash.
    pub hash: [u8; 32],
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A batch read back: its own hash is verified, its place in a chain is not; see [`OpenBatch::follows`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBatch {
    /// The chain end that this batch makes.
    pub end: ChainEnd,
    /// The hash of the batch before.
    pub previous: [u8; 32],
    /// Its first event.
    pub first: Sequence,
    /// The time of its events.
    pub time: Millis,
    /// Its events in order.
    pub entries: Vec<Entry>,
}

/// Why bytes are no batch, or not the one that belongs here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not the beginning of a batch, or lengths that contradict each other.
    #[error("not a batch: {0}")]
    Malformed(&'static str),
    /// Written by a later version.
    #[error("batch format {0} is not known to this version, which reads format 1")]
    Version(u16),
    /// The bytes are not those that were sealed.
    #[error("the batch does not match its hash")]
    Hash,
    /// A detached value is not the one that the event committed to.
    #[error("a detached value of event {0} does not match its commitment")]
    Commitment(Sequence),
    /// It is whole, but belongs elsewhere.
    #[error("the chain is broken: {0}")]
    Chain(&'static str),
}

/// An upper bound of what `entry` takes in a batch.
#[must_use]
pub fn entry_bytes(entry: &Entry) -> usize {
    let detached = entry.detached.as_ref().map_or(0, |detached| DETACHED_HEAD_BYTES + detached.bytes.len());
    size_of::<ArchivedEvent>() + entry.event.fact.out_of_line_bytes() + detached
}

/// How many of `entries`, from the front, fit into one batch; at least one if there is any.
#[must_use]
pub fn fitting<'a>(entries: impl Iterator<Item = &'a Entry>) -> usize {
    let mut bytes = HEADER_BYTES + ARCHIVE_OVERHEAD_BYTES;
    let mut count = 0;
    for entry in entries {
        bytes += entry_bytes(entry);
        if count > 0 && bytes > BATCH_BYTES_MAX {
            break;
        }
        count += 1;
    }
    count
}

/// Seals `entries`, which happened at `time`, behind `end`, and moves `end` to its own.
///
/// # Panics
/// If there is no entry or they do not fit: [`fitting`] says how many do.
#[must_use]
pub fn seal(end: &mut ChainEnd, time: Millis, entries: impl Iterator<Item = Entry>) -> SealedBatch {
    let mut events = Vec::new();
    let mut detached_bytes = Vec::new();
    for (index, entry) in entries.enumerate() {
        if let Some(detached) = entry.detached {
            append_detached(&mut detached_bytes, index, &detached);
        }
        events.push(entry.event);
    }
    assert!(!events.is_empty(), "a batch holds at least one event");
    let archive = rkyv::to_bytes::<rancor::Panic>(&events);
    let Ok(archive) = archive;
    let first = end.sequence.next();
    let last = Sequence(end.sequence.0 + events.len() as u64);

    let mut bytes = Vec::with_capacity(HEADER_BYTES + archive.len() + detached_bytes.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&end.partition.0.to_le_bytes());
    bytes.extend_from_slice(&end.log.0);
    bytes.extend_from_slice(&end.epoch.to_le_bytes());
    bytes.extend_from_slice(&length_u32(events.len()).to_le_bytes());
    bytes.extend_from_slice(&first.0.to_le_bytes());
    bytes.extend_from_slice(&time.0.to_le_bytes());
    bytes.extend_from_slice(&end.hash);
    bytes.extend_from_slice(&length_u32(archive.len()).to_le_bytes());
    bytes.extend_from_slice(&[0; 12]);
    let hash = chain_hash(&bytes, &archive);
    bytes.extend_from_slice(&hash);
    bytes.extend_from_slice(&archive);
    bytes.extend_from_slice(&detached_bytes);
    assert!(bytes.len() <= BATCH_BYTES_MAX, "a sealed batch stays below the store's limit");

    end.sequence = last;
    end.hash = hash;
    SealedBatch { first, last, hash, bytes }
}

fn append_detached(into: &mut Vec<u8>, index: usize, detached: &Detached) {
    let index = u16::try_from(index).expect("a batch holds fewer than 65,536 events");
    let length = u16::try_from(detached.bytes.len()).expect("detached bytes are below EVENT_BYTES_MAX");
    into.extend_from_slice(&index.to_le_bytes());
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&detached.salt);
    into.extend_from_slice(&detached.bytes);
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("a batch is far below 4 GiB")
}

fn chain_hash(head: &[u8], events: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(head).update(events).finalize().as_bytes()
}

/// Reads fields one after another; `None` past the end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// The header's fields, before anything of it is believed.
struct Header {
    partition: Partition,
    log: LogId,
    epoch: u32,
    count: u32,
    first: u64,
    time: u64,
    previous: [u8; 32],
    events_bytes: usize,
    hash: [u8; 32],
}

fn header(fields: &mut Fields<'_>) -> Result<Header, BatchError> {
    const SHORT: BatchError = BatchError::Malformed("shorter than a header");
    if fields.array().ok_or(SHORT)? != MAGIC {
        return Err(BatchError::Malformed("it does not begin with JTNB"));
    }
    match fields.u16().ok_or(SHORT)? {
        FORMAT_VERSION => {}
        other => return Err(BatchError::Version(other)),
    }
    let header = (|| {
        let partition = Partition(fields.u16()?);
        let log = LogId(fields.array()?);
        let (epoch, count) = (fields.u32()?, fields.u32()?);
        let (first, time) = (fields.u64()?, fields.u64()?);
        let previous = fields.array()?;
        let events_bytes = fields.u32()? as usize;
        fields.take(12)?; // zeros, covered by the hash
        let hash = fields.array()?;
        Some(Header { partition, log, epoch, count, first, time, previous, events_bytes, hash })
    })();
    header.ok_or(SHORT)
}

/// Opens a batch: checks its hash, its lengths and every commitment, and decodes its events.
///
/// # Errors
/// [`BatchError`]; never panics, whatever the bytes.
pub fn open(bytes: &[u8]) -> Result<OpenBatch, BatchError> {
    let (header, events, detached) = open_events(bytes)?;
    assemble(&header, events, detached)
}

/// Opens the batch that `bytes` begin with, whatever comes behind it, and says how long it is: for a search in a file
/// whose own structure is lost. None of its detached values may be missing, for where it ends would not be known.
///
/// # Errors
/// [`BatchError`]; never panics, whatever the bytes.
pub fn open_front(bytes: &[u8]) -> Result<(OpenBatch, usize), BatchError> {
    const CUT: BatchError = BatchError::Malformed("a detached value is cut off");
    let (header, events, behind) = open_events(bytes)?;
    let mut fields = Fields(behind);
    for _ in events.iter().filter(|event| event.fact.commitment().is_some()) {
        fields.take(2).ok_or(CUT)?;
        let length = usize::from(fields.u16().ok_or(CUT)?);
        fields.take(32 + length).ok_or(CUT)?;
    }
    let (detached, rest) = behind.split_at(behind.len() - fields.0.len());
    Ok((assemble(&header, events, detached)?, bytes.len() - rest.len()))
}

/// Checks header and hash; returns the events, and what comes behind them.
fn open_events(bytes: &[u8]) -> Result<(Header, Vec<Event>, &[u8]), BatchError> {
    let mut fields = Fields(bytes);
    let header = header(&mut fields)?;
    let archive = fields.take(header.events_bytes).ok_or(BatchError::Malformed("the events are cut off"))?;
    let head = bytes.get(..HASH_AT).ok_or(BatchError::Malformed("shorter than a header"))?;
    if chain_hash(head, archive) != header.hash {
        return Err(BatchError::Hash);
    }
    let events = decode_events(archive)?;
    if events.is_empty() || events.len() != header.count as usize {
        return Err(BatchError::Malformed("the number of events is another"));
    }
    Ok((header, events, fields.0))
}

fn assemble(header: &Header, events: Vec<Event>, detached: &[u8]) -> Result<OpenBatch, BatchError> {
    let first = Sequence(header.first);
    let last = (header.first > 0)
        .then(|| header.first.checked_add(u64::from(header.count) - 1))
        .flatten()
        .ok_or(BatchError::Malformed("sequence numbers out of range"))?;
    let entries = attach(events, detached, first)?;
    let end = ChainEnd {
        log: header.log,
        partition: header.partition,
        epoch: header.epoch,
        sequence: Sequence(last),
        hash: header.hash,
    };
    Ok(OpenBatch { end, previous: header.previous, first, time: Millis(header.time), entries })
}

fn decode_events(archive: &[u8]) -> Result<Vec<Event>, BatchError> {
    // rkyv reads in place, so the archive has to lie as aligned as it was written.
    let mut aligned = AlignedVec::<16>::with_capacity(archive.len());
    aligned.extend_from_slice(archive);
    rkyv::from_bytes::<Vec<Event>, rancor::Failure>(&aligned)
        .map_err(|_| BatchError::Malformed("the events do not decode"))
}

fn attach(events: Vec<Event>, detached: &[u8], first: Sequence) -> Result<Vec<Entry>, BatchError> {
    const CUT: BatchError = BatchError::Malformed("a detached value is cut off");
    let mut entries: Vec<Entry> = events.into_iter().map(|event| Entry { event, detached: None }).collect();
    let mut fields = Fields(detached);
    while !fields.0.is_empty() {
        let index = usize::from(fields.u16().ok_or(CUT)?);
        let length = usize::from(fields.u16().ok_or(CUT)?);
        let salt = fields.array().ok_or(CUT)?;
        let value = Detached { salt, bytes: fields.take(length).ok_or(CUT)?.to_vec() };
        let entry = entries.get_mut(index).ok_or(BatchError::Malformed("a detached value of no event"))?;
        if entry.event.fact.commitment() != Some(&value.commitment()) {
            return Err(BatchError::Commitment(Sequence(first.0 + index as u64)));
        }
        if entry.detached.replace(value).is_some() {
            return Err(BatchError::Malformed("two detached values of one event"));
        }
    }
    Ok(entries)
}

impl OpenBatch {
    /// Checks that this batch is the one that comes after `end`.
    ///
    /// # Errors
    /// [`BatchError::Chain`] with what differs.
    pub fn follows(&self, end: &ChainEnd) -> Result<(), BatchError> {
        let rules = [
            (self.end.log == end.log, "it belongs to another log"),
            (self.end.partition == end.partition, "it belongs to another partition"),
            (self.end.epoch >= end.epoch, "it was written by an earlier writer"),
            (self.first == end.sequence.next(), "its sequence number is not the next"),
            (self.previous == end.hash, "it does not name the hash of the batch before"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(BatchError::Chain(rule)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
