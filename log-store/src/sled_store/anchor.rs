//! The anchor: a note beside the log of how far it came, because sled cannot notice a lost tail (point 6).
//!
//! One file, two slots of 4 KiB written in turn, so that a torn write never costs the older note. Little-endian:
//! magic `JTNA`, version u16 = 1, zeros u16, counter u64, log id 16, sequence u64, chain 32, blake3 of all that 32;
//! zeros to the end of the slot. The valid slot with the higher counter counts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::store::{Anchor, LogId, Position};

const SLOT_BYTES: usize = 4096;
const MAGIC: &[u8; 4] = b"JTNA";
const VERSION: u16 = 1;
const CONTENT_BYTES: usize = 4 + 2 + 2 + 8 + 16 + 8 + 32;

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct AnchorFile {
    file: File,
    counter: u64,
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// There is no file, or nothing was ever written to it.
    Missing,
    /// Both slots are unreadable.
    Damaged,
    /// The log came this far, at least.
    Valid(Anchor, u64),
}

fn encode(anchor: &Anchor, counter: u64) -> [u8; SLOT_BYTES] {
    let mut content = Vec::with_capacity(SLOT_BYTES);
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(&VERSION.to_le_bytes());
    content.extend_from_slice(&[0; 2]);
    content.extend_from_slice(&counter.to_le_bytes());
    content.extend_from_slice(&anchor.log_id);
    content.extend_from_slice(&anchor.position.sequence.to_le_bytes());
    content.extend_from_slice(&anchor.position.chain);
    let checksum = blake3::hash(&content);
    let mut slot = [0; SLOT_BYTES];
    slot[..CONTENT_BYTES].copy_from_slice(&content);
    slot[CONTENT_BYTES..CONTENT_BYTES + 32].copy_from_slice(checksum.as_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(Anchor, u64)> {
    let (content, rest) = slot.split_at_checked(CONTENT_BYTES)?;
    let (checksum, padding) = rest.split_at_checked(32)?;
    let is_whole = blake3::hash(content).as_bytes() == checksum && padding.iter().all(|byte| *byte == 0);
    let head = content.strip_prefix(MAGIC)?.strip_prefix(&VERSION.to_le_bytes()[..])?.get(2..)?;
    let (counter, rest) = head.split_first_chunk::<8>()?;
    let (log_id, rest) = rest.split_first_chunk::<16>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (chain, _) = rest.split_first_chunk::<32>()?;
    let position = Position { sequence: u64::from_le_bytes(*sequence), chain: *chain };
    is_whole.then_some((Anchor { log_id: *log_id, position }, u64::from_le_bytes(*counter)))
}

/// Reads the note without changing anything.
pub(super) fn read(path: &Path) -> io::Result<Note> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Note::Missing),
        Err(error) => return Err(error),
    };
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Note::Missing);
    }
    let slots = || bytes.chunks(SLOT_BYTES).take(2);
    let newest = slots().filter_map(decode).max_by_key(|(_, counter)| *counter);
    let is_unreadable = |slot: &[u8]| decode(slot).is_none() && slot.iter().any(|byte| *byte != 0);
    if newest.is_some() && (bytes.len() != 2 * SLOT_BYTES || slots().any(is_unreadable)) {
        tracing::warn!(path = %path.display(), "one of the anchor's two notes is damaged: the other one counts");
    }
    Ok(newest.map_or(Note::Damaged, |(anchor, counter)| Note::Valid(anchor, counter)))
}

impl AnchorFile {
    /// Opens the file to go on behind `counter`; it is made if it is missing.
    pub(super) fn open(path: &Path, counter: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(2 * SLOT_BYTES as u64)?;
        Ok(Self { file, counter })
    }

    /// Writes the next slot, to the system's memory: [`Self::sync`] makes it durable.
    pub(super) fn write(&mut self, log_id: LogId, position: Position) -> io::Result<()> {
        self.counter += 1;
        let slot = encode(&Anchor { log_id, position }, self.counter);
        self.file.write_all_at(&slot, self.counter % 2 * SLOT_BYTES as u64)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LogId = [3; 16];

    fn position(sequence: u64) -> Position {
        Position { sequence, chain: [sequence as u8; 32] }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anchor");
        assert_eq!(read(&path).unwrap(), Note::Missing);
        let mut file = AnchorFile::open(&path, 0).unwrap();
        assert_eq!(read(&path).unwrap(), Note::Missing);
        for sequence in 1..=5 {
            file.write(ID, position(sequence)).unwrap();
            assert_eq!(
                read(&path).unwrap(),
                Note::Valid(Anchor { log_id: ID, position: position(sequence) }, sequence)
            );
        }
        file.sync().unwrap();
    }

    #[test]
    fn a_damaged_slot_leaves_the_other_and_two_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anchor");
        let mut file = AnchorFile::open(&path, 0).unwrap();
        file.write(ID, position(1)).unwrap();
        file.write(ID, position(2)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..SLOT_BYTES {
            let mut bytes = whole.clone(); // slot 0 holds the second write
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(
                read(&path).unwrap(),
                Note::Valid(Anchor { log_id: ID, position: position(1) }, 1),
                "byte {at}"
            );
            bytes[SLOT_BYTES + at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&path).unwrap(), Note::Damaged, "byte {at}");
        }
    }
}
