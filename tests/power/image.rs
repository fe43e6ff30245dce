//! What a disk may hold after the power went: one of many, drawn from a seed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::disk::{Change, Disk, File, Names, Node, NodeId, ROOT, put, set_name};
use crate::sim::rng::Rng;

/// The smallest piece that a disk writes as a whole, and what the system writes back as one.
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// What becomes of the pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// All of it is lost: only synced bytes under synced names.
    Safe,
    /// None of it is lost: the process died, the system lives.
    Killed,
    /// Any of its sectors or pages may be kept, and any of its names.
    Torn,
    /// What came later is kept and what came before is lost, in each file for itself.
    Reordered,
    /// Names and lengths are kept, bytes are lost: zeros.
    NamesOnly,
    /// Bytes are kept, names and what depends on them are lost.
    BytesOnly,
    /// Bytes are kept, and of the names that something lost it; no other name has changed.
    Removed,
}

impl Variant {
    /// Each of them.
    pub const ALL: [Self; 7] = [
        Self::Safe,
        Self::Killed,
        Self::Torn,
        Self::Reordered,
        Self::NamesOnly,
        Self::BytesOnly,
        Self::Removed,
    ];
}

/// Files and directories by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image<'d> {
    files: BTreeMap<String, Cow<'d, [u8]>>,
    directories: Vec<String>,
}

impl<'d> Image<'d> {
    /// What `disk` may hold if the power goes now.
    pub(crate) fn of(disk: &'d Disk<'_>, variant: Variant, rng: &mut Rng) -> Self {
        let names = names(disk, variant, rng);
        let mut image = Self::default();
        image.take(disk, &names, ROOT, "", variant, rng);
        image
    }

    fn take(
        &mut self,
        disk: &'d Disk<'_>,
        names: &BTreeMap<NodeId, Names>,
        directory: NodeId,
        prefix: &str,
        variant: Variant,
        rng: &mut Rng,
    ) {
        for (name, node) in &names[&directory] {
            let path = format!("{prefix}{name}");
            match &disk.nodes[*node] {
                Node::File(file) => {
                    self.files.insert(path, bytes(file, variant, rng));
                }
                Node::Directory { .. } => {
                    self.take(disk, names, *node, &format!("{path}/"), variant, rng);
                    self.directories.push(path);
                }
            }
        }
    }

    /// A hash of everything in it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for directory in &self.directories {
            hasher.update(directory.as_bytes()).update(b"\0");
        }
        for (path, bytes) in &self.files {
            hasher
                .update(path.as_bytes())
                .update(b"\0")
                .update(&(bytes.len() as u64).to_le_bytes())
                .update(bytes);
        }
        *hasher.finalize().as_bytes()
    }

    /// The same, with bytes of its own.
    #[must_use]
    pub fn into_owned(self) -> Image<'static> {
        let files =
            self.files.into_iter().map(|(path, bytes)| (path, Cow::Owned(bytes.into_owned()))).collect();
        Image { files, directories: self.directories }
    }

    /// Writes it below a directory.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, to: &Path) -> io::Result<()> {
        for directory in &self.directories {
            fs::create_dir_all(to.join(directory))?;
        }
        self.files.iter().try_for_each(|(path, bytes)| fs::write(to.join(path), bytes))
    }
}

/// Whether each of `count` pending changes is kept.
fn kept(variant: Variant, count: usize, rng: &mut Rng) -> Vec<bool> {
    match variant {
        Variant::Safe | Variant::BytesOnly | Variant::Removed => vec![false; count],
        Variant::Killed | Variant::NamesOnly => vec![true; count],
        Variant::Torn => {
            let percent = *rng.pick(&[10, 50, 90]);
            (0..count).map(|_| rng.percent(percent)).collect()
        }
        Variant::Reordered => {
            let from = rng.below(count as u64 + 1) as usize;
            (0..count).map(|at| at >= from).collect()
        }
    }
}

/// The names of every directory.
fn names(disk: &Disk<'_>, variant: Variant, rng: &mut Rng) -> BTreeMap<NodeId, Names> {
    let directories = disk.nodes.iter().enumerate();
    let mut names: BTreeMap<NodeId, Names> = directories
        .filter_map(|(id, node)| match node {
            Node::Directory { safe, .. } => Some((id, safe.clone())),
            Node::File(_) => None,
        })
        .collect();
    let kept: Vec<_> = match variant {
        Variant::Removed => disk.name_changes.iter().map(|change| change.adds.is_none()).collect(),
        _ => kept(variant, disk.name_changes.len(), rng),
    };
    for (change, _) in disk.name_changes.iter().zip(kept).filter(|(_, is_kept)| *is_kept) {
        for (directory, name, node) in change.steps() {
            set_name(names.get_mut(&directory).expect("every directory has names"), name, node);
        }
    }
    names
}

fn bytes<'d>(file: &'d File<'_>, variant: Variant, rng: &mut Rng) -> Cow<'d, [u8]> {
    match variant {
        Variant::Safe => Cow::Borrowed(&file.safe),
        Variant::Killed => Cow::Borrowed(&file.now),
        _ if file.pending.is_empty() => Cow::Borrowed(&file.safe),
        Variant::NamesOnly => {
            let mut bytes = file.safe.clone();
            bytes.resize(file.now.len(), 0);
            Cow::Owned(bytes)
        }
        Variant::BytesOnly | Variant::Removed => Cow::Owned(applied(file, file.pending.iter())),
        Variant::Reordered => {
            let kept = kept(variant, file.pending.len(), rng);
            let changes = file.pending.iter().zip(kept).filter(|(_, is_kept)| *is_kept);
            Cow::Owned(applied(file, changes.map(|(change, _)| change)))
        }
        Variant::Torn => Cow::Owned(torn(file, rng)),
    }
}

fn applied<'c, 't: 'c>(file: &File<'_>, changes: impl Iterator<Item = &'c Change<'t>>) -> Vec<u8> {
    let mut bytes = file.safe.clone();
    changes.for_each(|change| change.apply(&mut bytes));
    bytes
}

/// Keeps some sectors, or some pages, of what is pending.
fn torn(file: &File<'_>, rng: &mut Rng) -> Vec<u8> {
    let piece = *rng.pick(&[SECTOR_BYTES, PAGE_BYTES]);
    let percent = *rng.pick(&[10, 50, 90]);
    let mut bytes = file.safe.clone();
    for change in &file.pending {
        match change {
            Change::Length(_) if rng.percent(percent) => change.apply(&mut bytes),
            Change::Length(_) => {}
            Change::Write { at, bytes: written } => {
                let mut from = *at;
                let end = at + written.len();
                while from < end {
                    let to = ((from / piece + 1) * piece).min(end);
                    if rng.percent(percent) {
                        put(&mut bytes, from, &written[from - at..to - at]);
                    }
                    from = to;
                }
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::trace::{Event, SyncResult};
    use super::*;

    const BYTES: [u8; 3 * PAGE_BYTES] = [7; 3 * PAGE_BYTES];

    fn image_of(disk: &Disk<'_>, variant: Variant, seed: u64) -> Image<'static> {
        Image::of(disk, variant, &mut Rng::new(seed)).into_owned()
    }

    fn file(image: &Image<'_>) -> Option<Vec<u8>> {
        image.files.get("file").map(|bytes| bytes.to_vec())
    }

    #[test]
    fn each_variant_keeps_of_the_pending_what_it_says_and_a_seed_always_the_same() {
        let mut disk = Disk::default();
        disk.apply(&Event::Open { handle: 1, path: "file", is_created: true, is_cut: false });
        disk.apply(&Event::Write { handle: 1, at: 0, bytes: &BYTES });
        assert_eq!(file(&image_of(&disk, Variant::Safe, 1)), None);
        assert_eq!(file(&image_of(&disk, Variant::BytesOnly, 1)), None);
        assert_eq!(file(&image_of(&disk, Variant::Killed, 1)), Some(BYTES.to_vec()));
        assert_eq!(file(&image_of(&disk, Variant::NamesOnly, 1)), Some(vec![0; BYTES.len()]));
        let torn: Vec<_> = (0..40).map(|seed| file(&image_of(&disk, Variant::Torn, seed))).collect();
        assert!(
            torn.contains(&None)
                && torn.iter().flatten().any(|bytes| bytes.contains(&0) && bytes.contains(&7))
        );
        for sectors in torn.iter().flatten().flat_map(|bytes| bytes.chunks(SECTOR_BYTES)) {
            assert!(sectors.iter().all(|byte| *byte == sectors[0]), "a sector is whole");
        }
        assert_eq!(image_of(&disk, Variant::Torn, 5).digest(), image_of(&disk, Variant::Torn, 5).digest());
    }

    #[test]
    fn where_removals_alone_are_kept_a_new_name_is_lost_and_the_old_one_gone() {
        let mut disk = Disk::default();
        let open = |handle, path, is_created| Event::Open { handle, path, is_created, is_cut: false };
        let sync = |handle| Event::Sync { handle, is_data_only: false, result: SyncResult::Done };
        let first =
            [open(0, "", false), open(1, "old", true), open(2, "kept", true), sync(1), sync(2), sync(0)];
        let then = [
            open(3, "new.unfinished", true),
            sync(3),
            Event::Rename("new.unfinished", "new"),
            Event::Unlink("old"),
        ];
        first.iter().chain(&then).for_each(|event| disk.apply(event));
        let image = image_of(&disk, Variant::Removed, 1);
        assert_eq!(image.files.into_keys().collect::<Vec<_>>(), ["kept"]);
    }
}
