//! One change to a data directory: what a dying disk, a torn copy or a mistaken hand does.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::image::Image;
use super::workbench::Question;

/// What a disk loses at a time.
pub(super) const SECTOR_BYTES: usize = 512;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A bit is another.
    Flip {
        /// Where.
        file: PathBuf,
        /// Which byte.
        at: usize,
        /// Which bit of it.
        bit: u8,
    },
    /// A byte is another.
    Set {
        /// Where.
        file: PathBuf,
        /// Which byte.
        at: usize,
        /// What it is now.
        value: u8,
    },
    /// A sector of 512 bytes is zeros.
    Zero {
        /// Where.
        file: PathBuf,
        /// A byte of it.
        at: usize,
    },
    /// A file ends early.
    Cut {
        /// Which.
        file: PathBuf,
        /// With how many bytes.
        bytes: usize,
    },
    /// A file, or a folder with all in it, is gone.
    Delete(PathBuf),
    /// Two files of one name have each other's content.
    Swap(PathBuf, PathBuf),
    /// A folder is there a second time, under another name.
    Duplicate(PathBuf, PathBuf),
    /// A file, or a folder with all in it, is that of another log.
    Foreign(PathBuf),
}

/// The files that a change touches, with what they hold then; `None` if they are gone.
pub(super) type Altered = BTreeMap<PathBuf, Option<Vec<u8>>>;

impl Change {
    /// What kind of change it is: a row of the table.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Flip { .. } => "a bit flipped",
            Self::Set { .. } => "a byte set",
            Self::Zero { .. } => "a sector zeroed",
            Self::Cut { .. } => "a file cut",
            Self::Delete(_) => "deleted",
            Self::Swap(..) => "two swapped",
            Self::Duplicate(..) => "a segment twice",
            Self::Foreign(_) => "of another log",
        }
    }

    /// The file or folder that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Flip { file, .. }
            | Self::Set { file, .. }
            | Self::Zero { file, .. }
            | Self::Cut { file, .. }
            | Self::Delete(file)
            | Self::Swap(file, _)
            | Self::Duplicate(file, _)
            | Self::Foreign(file) => file,
        }
    }

    /// Whether it is for `jeton log` to notice, not for `jeton snapshot`.
    pub fn is_of_log(&self) -> bool {
        Question::about(self.path()) == Question::Log
    }

    /// What the files it touches hold afterwards.
    pub(super) fn altered(&self, image: &Image, foreign: &Image) -> Altered {
        self.altered_after(Altered::new(), image, foreign)
    }

    /// As [`Self::altered`], after other changes.
    pub(super) fn altered_after(&self, mut before: Altered, image: &Image, foreign: &Image) -> Altered {
        let own = self.own(&before, image, foreign);
        before.extend(own);
        before
    }

    fn own(&self, before: &Altered, image: &Image, foreign: &Image) -> Altered {
        let edited = |file: &PathBuf, edit: &dyn Fn(&mut Vec<u8>)| {
            let earlier = before.get(file).cloned().flatten();
            let mut bytes = earlier.or_else(|| image.files.get(file).cloned()).unwrap_or_default();
            edit(&mut bytes);
            Altered::from([(file.clone(), Some(bytes))])
        };
        match self {
            Self::Flip { file, at, bit } => edited(file, &|bytes| bytes[*at] ^= 1 << bit),
            Self::Set { file, at, value } => edited(file, &|bytes| bytes[*at] = *value),
            Self::Zero { file, at } => edited(file, &|bytes| {
                let start = at / SECTOR_BYTES * SECTOR_BYTES;
                let end = bytes.len().min(start + SECTOR_BYTES);
                bytes[start..end].fill(0);
            }),
            Self::Cut { file, bytes: length } => edited(file, &|bytes| bytes.truncate(*length)),
            Self::Delete(path) => below(image, path).map(|(file, _)| (file.clone(), None)).collect(),
            Self::Swap(one, other) => {
                let of = |file: &PathBuf| image.files.get(file).cloned();
                Altered::from([(one.clone(), of(other)), (other.clone(), of(one))])
            }
            Self::Duplicate(from, to) => {
                let copies = below(image, from).map(|(file, bytes)| {
                    (to.join(file.strip_prefix(from).expect("it is below")), Some(bytes.clone()))
                });
                copies.collect()
            }
            Self::Foreign(path) => {
                let gone = below(image, path).map(|(file, _)| (file.clone(), None));
                let come = below(foreign, path).map(|(file, bytes)| (file.clone(), Some(bytes.clone())));
                gone.chain(come).collect()
            }
        }
    }
}

fn below<'a>(image: &'a Image, path: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Vec<u8>)> {
    image.files.iter().filter(move |(file, _)| file.starts_with(path))
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Flip { file, at, bit } => write!(f, "{kind}: {}, byte {at}, bit {bit}", file.display()),
            Self::Set { file, at, value } => write!(f, "{kind}: {}, byte {at} to {value}", file.display()),
            Self::Zero { file, at } => write!(f, "{kind}: {}, at byte {at}", file.display()),
            Self::Cut { file, bytes } => write!(f, "{kind}: {}, to {bytes} bytes", file.display()),
            Self::Delete(path) | Self::Foreign(path) => write!(f, "{kind}: {}", path.display()),
            Self::Swap(one, other) => write!(f, "{kind}: {} and {}", one.display(), other.display()),
            Self::Duplicate(from, to) => write!(f, "{kind}: {} as {}", from.display(), to.display()),
        }
    }
}
