//! The manifest: which event a snapshot is of, and which parts it is made of.
//!
//! Layout, little-endian (docs/FORMATS.md, "Snapshot"):
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `JTNS` |
//! | 4 | 2 | format version, 1 |
//! | 6 | 2 | zeros |
//! | 8 | 8 | bytes of the archive |
//! | 16 | 16 | zeros |
//! | 32 | 32 | hash: blake3 over bytes 0..32 and the archive |
//! | 64 | | the archive: rkyv, [`Manifest`] |

#![allow(
    missing_docs,
    reason = "the derived archive types repeat, without words, the fields documented here"
)]

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::SnapshotError;
use crate::batch::ChainEnd;
use crate::numbers::{LogId, Partition, Sequence};

/// A manifest is not larger: that of 2^31 tokens has three megabytes.
pub const MANIFEST_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 4] = *b"JTNS";
const FORMAT_VERSION: u16 = 1;
const HASH_AT: usize = 32;
const HEADER_BYTES: usize = 64;

/// A part: a file named by the hash of what is in it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartRef {
    /// blake3 over its bytes.
    pub hash: [u8; 32],
    /// How many they are.
    pub bytes: u64,
}

/// A segment of token records.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRef {
    /// Its number.
    pub number: u32,
    /// Slots handed out before its first, since the index began.
    pub serial: u64,
    /// Places written.
    pub used: u32,
    /// Of these, in use.
    pub live: u32,
    /// The places written: 64 bytes each.
    pub part: PartRef,
}

/// What a snapshot is of, and what it is made of.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The log.
    pub log: [u8; 16],
    /// Its partition.
    pub partition: u16,
    /// Which of the partition's writers it was.
    pub epoch: u32,
    /// The last event that counts; a batch ends with it.
    pub sequence: u64,
    /// The hash of that batch.
    pub chain: [u8; 32],
    /// The time of that event, ms since 1970.
    pub time_ms: u64,
    /// Tokens in the index, dead ones that were not reclaimed yet among them.
    pub tokens: u64,
    /// Records of a full segment.
    pub segment_records: u32,
    /// Slots handed out before the next new segment's first, since the index began.
    pub serial: u64,
    /// The segment being filled.
    pub open: Option<u32>,
    /// The segments, by number.
    pub segments: Vec<SegmentRef>,
    /// The table of index words, in order.
    pub table: Vec<PartRef>,
    /// Subjects by number, from 1.
    pub subjects: Vec<PartRef>,
    /// Claim sets by number, from 1.
    pub claim_sets: Vec<PartRef>,
    /// Idempotency keys, oldest first.
    pub keys: Vec<PartRef>,
    /// Uses spent of tokens that are not used up.
    pub counters: Vec<PartRef>,
    /// Everything else.
    pub rest: PartRef,
}

impl Manifest {
    /// Where the chain was.
    #[must_use]
    pub fn end(&self) -> ChainEnd {
        ChainEnd {
            log: LogId(self.log),
            partition: Partition(self.partition),
            epoch: self.epoch,
            sequence: Sequence(self.sequence),
            hash: self.chain,
        }
    }

    /// Every part, some of them perhaps twice.
    pub fn parts(&self) -> impl Iterator<Item = &PartRef> {
        let lists = [&self.table, &self.subjects, &self.claim_sets, &self.keys, &self.counters];
        let segments = self.segments.iter().map(|segment| &segment.part);
        segments.chain(lists.into_iter().flatten()).chain([&self.rest])
    }

    /// Words of the table.
    #[must_use]
    pub fn table_words(&self) -> usize {
        usize::try_from(self.table.iter().map(|part| part.bytes / 8).sum::<u64>()).unwrap_or(usize::MAX)
    }

    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Ok(archive) = rkyv::to_bytes::<rancor::Panic>(self);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + archive.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&(archive.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&[0; 16]);
        let hash = header_hash(&bytes, &archive);
        bytes.extend_from_slice(&hash);
        bytes.extend_from_slice(&archive);
        bytes
    }

    /// The manifest that these bytes are.
    ///
    /// # Errors
    /// [`SnapshotError`]; never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (header, archive) = bytes.split_at_checked(HEADER_BYTES).ok_or(SnapshotError::NotASnapshot)?;
        if header[..4] != MAGIC {
            return Err(SnapshotError::NotASnapshot);
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if version != FORMAT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        let (fields, hash) = header.split_at(HASH_AT);
        let is_whole = fields[8..16] == (archive.len() as u64).to_le_bytes();
        if !is_whole || header_hash(fields, archive) != hash {
            return Err(SnapshotError::Damaged("the manifest does not match its hash".to_owned()));
        }
        let mut aligned = AlignedVec::<16>::with_capacity(archive.len());
        aligned.extend_from_slice(archive);
        let manifest = rkyv::from_bytes::<Self, rancor::Failure>(&aligned).ok();
        // What means the same has one spelling, and no room for anything else.
        let manifest = manifest.filter(|manifest| manifest.encode() == bytes);
        manifest.ok_or_else(|| SnapshotError::Damaged("the manifest does not decode".to_owned()))
    }
}

fn header_hash(fields: &[u8], archive: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(fields).update(archive).finalize().as_bytes()
}
