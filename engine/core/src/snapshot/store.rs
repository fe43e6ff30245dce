//! Where snapshots lie: files with names, written whole and never changed. What a file system or a simulation gives.

use std::collections::HashSet;
use std::io;

use super::{MANIFEST_BYTES_MAX, Manifest, PartRef};
use crate::numbers::{LogId, Partition, Sequence};

/// Snapshots kept: the newest, and the one before it in case something is wrong with that.
pub const SNAPSHOTS_KEPT: usize = 2;

const MANIFEST_PREFIX: &str = "snapshot-";
const PART_PREFIX: &str = "part-";

/// Files of snapshots.
pub trait PartStore {
    /// The names of all files.
    ///
    /// # Errors
    /// As the system says.
    fn names(&self) -> io::Result<Vec<String>>;

    /// The size of a file.
    ///
    /// # Errors
    /// As the system says; [`io::ErrorKind::NotFound`] if there is none.
    fn size(&self, name: &str) -> io::Result<u64>;

    /// Reads a file from its beginning until `into` is full.
    ///
    /// # Errors
    /// As the system says; [`io::ErrorKind::UnexpectedEof`] if it is shorter.
    fn read(&self, name: &str, into: &mut [u8]) -> io::Result<()>;

    /// The same; each piece is shown to `arrived` as it comes, in order: who looks at it then finds it in the cache.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_in_pieces(&self, name: &str, into: &mut [u8], arrived: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.read(name, into)?;
        arrived(into);
        Ok(())
    }

    /// Writes a file whole: it has its name only once it is durable. One with this name is replaced.
    ///
    /// # Errors
    /// As the system says; then no file of this name has changed.
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Makes the names given and taken so far durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync_names(&mut self) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// The name of the manifest of a snapshot.
#[must_use]
pub fn manifest_name(sequence: Sequence) -> String {
    format!("{MANIFEST_PREFIX}{:020}", sequence.0)
}

/// The snapshot that a file of this name is the manifest of.
#[must_use]
pub fn sequence_of_manifest(name: &str) -> Option<Sequence> {
    let digits = name.strip_prefix(MANIFEST_PREFIX).filter(|digits| digits.len() == 20)?;
    digits.parse().ok().map(Sequence)
}

/// The name of a part.
#[must_use]
pub fn part_name(part: &PartRef) -> String {
    let hex: String = part.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{PART_PREFIX}{hex}")
}

/// Whether a file of this name is a part.
#[must_use]
pub fn is_part_name(name: &str) -> bool {
    name.starts_with(PART_PREFIX)
}

/// The events that there are snapshots of, newest first; whether one can be used is another question.
///
/// # Errors
/// As the system says.
pub fn snapshots(store: &impl PartStore) -> io::Result<Vec<Sequence>> {
    let mut found: Vec<_> = store.names()?.iter().filter_map(|name| sequence_of_manifest(name)).collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    Ok(found)
}

/// Removes all but the newest [`SNAPSHOTS_KEPT`] snapshots of this log, and the parts that none of those needs. Called once
/// the newest was verified.
///
/// # Errors
/// As the system says; what is left over is removed another time.
pub fn prune(store: &mut impl PartStore, log: (LogId, Partition)) -> io::Result<()> {
    let (mut kept, mut old) = (Vec::new(), Vec::new());
    for sequence in snapshots(store)? {
        // One that cannot be read, or is of a log that was here before, will never be used.
        match read_manifest(store, sequence).and_then(|manifest| manifest.check_log(log)) {
            Ok(manifest) if kept.len() < SNAPSHOTS_KEPT => kept.push(manifest),
            _ => old.push(sequence),
        }
    }
    let needed: HashSet<_> = kept.iter().flat_map(Manifest::parts).map(part_name).collect();
    // Manifests first: one without its parts would look damaged.
    for sequence in old {
        store.remove(&manifest_name(sequence))?;
    }
    store.sync_names()?;
    for name in store.names()?.iter().filter(|name| is_part_name(name) && !needed.contains(*name)) {
        store.remove(name)?;
    }
    Ok(())
}

/// The manifest of a snapshot.
pub(super) fn read_manifest(
    store: &impl PartStore,
    sequence: Sequence,
) -> Result<Manifest, super::SnapshotError> {
    let name = manifest_name(sequence);
    let size = usize::try_from(store.size(&name)?).unwrap_or(usize::MAX);
    if size > MANIFEST_BYTES_MAX {
        return Err(super::SnapshotError::NotASnapshot);
    }
    let mut bytes = vec![0; size];
    store.read(&name, &mut bytes)?;
    let manifest = Manifest::decode(&bytes)?;
    if manifest.sequence == sequence.0 {
        Ok(manifest)
    } else {
        Err(super::SnapshotError::Damaged(format!(
            "it is named {sequence}, but is of event {}",
            manifest.sequence
        )))
    }
}
