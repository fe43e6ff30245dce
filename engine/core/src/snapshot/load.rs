//! From a snapshot's files to the state: nothing is believed before its hash was compared.

use std::io;

use jeton_index::{Buffer, IndexError, IndexImage, Reader, RestoreError, SegmentImage};
use rkyv::util::AlignedVec;

use super::store::{PartStore, part_name, read_manifest};
use super::{Manifest, PartRef};
use crate::batch::ChainEnd;
use crate::mutation::mutated;
use crate::numbers::{LogId, Partition, Sequence};
use crate::state::{State, StateConfig};

/// Events are numbered below this, however long a log lives.
const SEQUENCE_END: u64 = 1 << 63;

/// Why a snapshot cannot be used. The log still can.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not the beginning of a manifest.
    #[error("this is no snapshot of Jeton's")]
    NotASnapshot,
    /// Written by a later version.
    #[error("snapshot format {0} is not known to this version, which reads format 1")]
    Version(u16),
    /// It is of another log.
    #[error("it is of log {found}, not of {expected}")]
    Foreign {
        /// Whose it is.
        found: LogId,
        /// Whose it should be.
        expected: LogId,
    },
    /// Some of it is not as it was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It was written with other settings.
    #[error("it cannot be used with this configuration: {0}")]
    Configuration(String),
    /// A file cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The memory cannot be had.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<RestoreError> for SnapshotError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Index(error) => Self::Index(error),
            other @ RestoreError::Inconsistent(_) => Self::Damaged(other.to_string()),
        }
    }
}

/// The state of a snapshot, ready for the events behind it.
#[derive(Debug)]
pub struct Restored {
    /// The state.
    pub state: State,
    /// The reading half of its index.
    pub reader: Reader,
    /// Where the log goes on.
    pub end: ChainEnd,
}

/// Where a part is read into.
#[derive(Debug)]
pub struct LoadTarget<'a>(&'a mut [u8]);

/// A part to read and verify. Those of one snapshot are independent of one another: several threads may share them.
#[derive(Debug)]
pub struct Load<'a> {
    part: PartRef,
    target: LoadTarget<'a>,
}

/// A snapshot that is being loaded.
#[derive(Debug)]
pub struct Loading {
    manifest: Manifest,
    config: StateConfig,
    table: Buffer,
    segments: Vec<SegmentImage>,
    lists: Lists,
}

/// The parts that are lists, as read.
#[derive(Debug)]
pub(crate) struct Lists {
    pub(crate) subjects: Vec<AlignedVec<16>>,
    pub(crate) claim_sets: Vec<AlignedVec<16>>,
    pub(crate) keys: Vec<AlignedVec<16>>,
    pub(crate) counters: Vec<AlignedVec<16>>,
    pub(crate) rest: AlignedVec<16>,
}

impl Load<'_> {
    /// Reads the part and compares its hash.
    ///
    /// # Errors
    /// [`SnapshotError`]: the snapshot cannot be used.
    pub fn run(self, store: &impl PartStore) -> Result<(), SnapshotError> {
        let name = part_name(&self.part);
        let mut hasher = blake3::Hasher::new();
        store.read_in_pieces(&name, self.target.0, &mut |piece| {
            hasher.update(piece);
        })?;
        if hasher.finalize() == self.part.hash || mutated!(PartNotCompared) {
            Ok(())
        } else {
            Err(SnapshotError::Damaged(format!("{name} does not match its hash")))
        }
    }
}

impl Manifest {
    /// The manifest of the snapshot of an event.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read(store: &impl PartStore, sequence: Sequence) -> Result<Self, SnapshotError> {
        read_manifest(store, sequence)
    }

    /// This, if it is of that log.
    ///
    /// # Errors
    /// [`SnapshotError::Foreign`].
    pub fn check_log(self, (log, partition): (LogId, Partition)) -> Result<Self, SnapshotError> {
        if self.log == log.0 && self.partition == partition.0 {
            Ok(self)
        } else {
            Err(SnapshotError::Foreign { found: LogId(self.log), expected: log })
        }
    }

    /// Compares the hash of every part.
    ///
    /// # Errors
    /// [`SnapshotError`] with the first that is wrong.
    pub fn verify_parts(&self, store: &impl PartStore) -> Result<(), SnapshotError> {
        for part in self.parts() {
            let mut bytes = room_for(part, store)?;
            Load { part: *part, target: LoadTarget(&mut bytes) }.run(store)?;
        }
        Ok(())
    }
}

impl Loading {
    /// Prepares the memory that the parts are read into.
    ///
    /// # Errors
    /// [`SnapshotError`]: a part is missing or has another size, or there is no memory.
    pub fn new(
        manifest: Manifest,
        store: &impl PartStore,
        config: StateConfig,
    ) -> Result<Self, SnapshotError> {
        if manifest.segment_records != config.segment_records {
            let found = manifest.segment_records;
            return Err(SnapshotError::Configuration(format!("its segments have {found} records")));
        }
        if manifest.sequence == 0 || manifest.sequence >= SEQUENCE_END {
            return Err(SnapshotError::Damaged("it is of an event that there is not".to_owned()));
        }
        let slots: u64 = manifest.segments.iter().map(|segment| u64::from(segment.live)).sum();
        if slots > u64::from(config.tokens_max) {
            let max = config.tokens_max;
            return Err(SnapshotError::Configuration(format!(
                "it holds {slots} records, and the configured maximum is {max}"
            )));
        }
        let mut segments = Vec::new();
        for segment in &manifest.segments {
            let fits =
                segment.used <= config.segment_records && segment.part.bytes == u64::from(segment.used) * 64;
            if !fits {
                return Err(SnapshotError::Damaged("a segment has another size than its records".to_owned()));
            }
            check_size(&segment.part, store)?;
            segments.push(SegmentImage {
                number: segment.number,
                serial: segment.serial,
                used: segment.used,
                live: segment.live,
                records: Buffer::for_segment(config.segment_records, config.huge_pages)?,
            });
        }
        if manifest.table.iter().any(|part| !part.bytes.is_multiple_of(8)) {
            return Err(SnapshotError::Damaged("a part of the table ends within a word".to_owned()));
        }
        manifest.table.iter().try_for_each(|part| check_size(part, store))?;
        let rooms = |parts: &[PartRef]| -> Result<Vec<_>, _> {
            parts.iter().map(|part| room_for(part, store)).collect()
        };
        let lists = Lists {
            subjects: rooms(&manifest.subjects)?,
            claim_sets: rooms(&manifest.claim_sets)?,
            keys: rooms(&manifest.keys)?,
            counters: rooms(&manifest.counters)?,
            rest: room_for(&manifest.rest, store)?,
        };
        let table = Buffer::for_table(manifest.table_words(), config.huge_pages)?;
        Ok(Self { manifest, config, table, segments, lists })
    }

    /// Every part, to be read in any order.
    pub fn loads(&mut self) -> Vec<Load<'_>> {
        let Self { manifest, table, segments, lists, .. } = self;
        let mut loads = Vec::new();
        let mut add = |part: &PartRef, into| loads.push(Load { part: *part, target: LoadTarget(into) });
        let mut rest = table.bytes_mut();
        for part in &manifest.table {
            let (into, behind) = rest.split_at_mut(part.bytes as usize);
            add(part, into);
            rest = behind;
        }
        for (segment, image) in manifest.segments.iter().zip(segments) {
            add(&segment.part, &mut image.records.bytes_mut()[..segment.part.bytes as usize]);
        }
        let by_number = [
            (&manifest.subjects, &mut lists.subjects),
            (&manifest.claim_sets, &mut lists.claim_sets),
            (&manifest.keys, &mut lists.keys),
            (&manifest.counters, &mut lists.counters),
        ];
        for (parts, rooms) in by_number {
            parts.iter().zip(rooms).for_each(|(part, room)| add(part, room.as_mut_slice()));
        }
        add(&manifest.rest, lists.rest.as_mut_slice());
        loads
    }

    /// The state, once every part was read and verified.
    ///
    /// # Errors
    /// [`SnapshotError`]: the parts contradict one another.
    pub fn finish(self) -> Result<(Restored, Manifest), SnapshotError> {
        let Self { manifest, config, table, segments, lists } = self;
        let image = IndexImage {
            table,
            segments,
            counters: lists.counters()?,
            serial: manifest.serial,
            open: manifest.open,
        };
        let (state, reader) = State::restored(&manifest, config, image, &lists)?;
        Ok((Restored { state, reader, end: manifest.end() }, manifest))
    }
}

fn check_size(part: &PartRef, store: &impl PartStore) -> Result<(), SnapshotError> {
    let name = part_name(part);
    let size = store.size(&name)?;
    if size == part.bytes {
        Ok(())
    } else {
        Err(SnapshotError::Damaged(format!("{name} has {size} bytes instead of {}", part.bytes)))
    }
}

/// Memory for a part that is there.
fn room_for(part: &PartRef, store: &impl PartStore) -> Result<AlignedVec<16>, SnapshotError> {
    check_size(part, store)?;
    let bytes = usize::try_from(part.bytes).map_err(io::Error::other)?;
    let mut room = AlignedVec::with_capacity(bytes);
    room.resize(bytes, 0);
    Ok(room)
}
