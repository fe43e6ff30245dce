//! A key space between runs: the tokens in one file, which is mapped, what is known of them in a note beside it.
//!
//! Tokens are issued into a file with another name, which gets its own once all are there: a file without a note, or the
//! other way round, is nobody's. Whoever has one mapped holds a lock on it (`flock(2)`).
//!
//! The note is written twice: before a run, without saying how far its revokes came, and after it. A run that ends in
//! between leaves a note that says so, and then nothing is expected of the tokens it may have revoked.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tempfile::TempPath;

use super::mapping::TOKEN_BYTES;
use super::{KeySpace, Mapping};
use crate::checker::Progress;
use crate::layout::Layout;

const FORMAT: u32 = 1;

/// What lies beside a token file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    format: u32,
    /// The server that the tokens are good at.
    server: String,
    tag: String,
    subjects: u32,
    pub(crate) layout: Layout,
    /// When they expire, in seconds since the epoch.
    good_until_s: u64,
    /// How far revokes and consumes came; `None` while a run is under way.
    pub(crate) progress: Option<Progress>,
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn note_path(path: &Path) -> PathBuf {
    with_ending(path, ".json")
}

fn bytes_of(tokens: u32) -> u64 {
    u64::from(tokens) * TOKEN_BYTES as u64
}

/// A new file that its owner alone can read, in the place of one that was left there.
fn create(path: &Path) -> io::Result<File> {
    let _ = std::fs::remove_file(path);
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// The file, locked; `None` if it cannot be opened for reading and writing.
fn open_locked(path: &Path) -> anyhow::Result<Option<File>> {
    let Ok(file) = File::options().read(true).write(true).open(path) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            bail!("the token file {} is in use by another jeton-load", path.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("the token file {} cannot be locked", path.display()))
        }
    }
}

/// A token file that is being filled: one that is there stays until all are issued, and what was begun goes if they are not.
#[derive(Debug)]
pub(crate) struct Fresh {
    path: PathBuf,
    begun: TempPath,
}

impl Fresh {
    /// A file for so many tokens, whose room is taken at once: a page that has none when it is written to would end the
    /// process.
    pub(crate) fn create(path: &Path, tokens: u32) -> anyhow::Result<(Self, Mapping)> {
        let begun = with_ending(path, ".new");
        // Whoever uses or fills the one that is there is not to lose it.
        for path in [path, &begun] {
            open_locked(path)?;
        }
        let create = || {
            let file = create(&begun)?;
            let begun = TempPath::try_from_path(&begun)?;
            file.try_lock()?;
            match fallocate(&file, FallocateFlags::empty(), 0, bytes_of(tokens)) {
                Err(Errno::OPNOTSUPP) => {
                    io::copy(&mut io::Read::take(io::repeat(0), bytes_of(tokens)), &mut &file)?;
                }
                result => result?,
            }
            Ok::<_, io::Error>((begun, Mapping::of_file(file, tokens)?))
        };
        let (begun, mapping) = create().with_context(|| cannot_be_written(path))?;
        Ok((Self { path: path.to_owned(), begun }, mapping))
    }

    /// Gives the file its name, and writes the note.
    pub(crate) fn keep(self, saved: &Saved, keys: &KeySpace) -> anyhow::Result<PathBuf> {
        keys.tokens.flush().with_context(|| cannot_be_written(&self.path))?;
        // Without a note beside them the tokens are nobody's: the old one goes first.
        let _ = std::fs::remove_file(note_path(&self.path));
        self.begun.persist(&self.path).with_context(|| cannot_be_written(&self.path))?;
        saved.note(&self.path)?;
        Ok(self.path)
    }
}

fn cannot_be_written(path: &Path) -> String {
    format!("the token file {} cannot be written", path.display())
}

impl Saved {
    /// What is to be noted of a key space that was just filled.
    pub(crate) fn new(server: String, keys: &KeySpace, layout: Layout, good_until_s: u64) -> Self {
        let (tag, subjects) = (keys.tag.clone(), keys.subjects);
        Self { format: FORMAT, server, tag, subjects, layout, good_until_s, progress: None }
    }

    /// Writes the note of the token file there, whole or not at all.
    pub(crate) fn note(&self, path: &Path) -> anyhow::Result<()> {
        let note = serde_json::to_vec(self)?;
        let fresh = with_ending(path, ".json.new");
        let write = || {
            create(&fresh)?.write_all(&note)?;
            std::fs::rename(&fresh, note_path(path))
        };
        write().with_context(|| cannot_be_written(path))
    }

    /// The tokens of an earlier run, if there are some, for this server, laid out like this, good until then at least.
    /// Otherwise why not; `None` if there is no such file.
    pub(crate) fn load(
        path: &Path,
        server: &str,
        layout: Layout,
        subjects: u32,
        good_until_s: u64,
    ) -> anyhow::Result<Result<(Self, KeySpace), Option<&'static str>>> {
        let Some(file) = open_locked(path)? else { return Ok(Err(None)) };
        let note = std::fs::read(note_path(path)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let Some(note): Option<Self> = note else {
            return Ok(Err(Some("there is no note of jeton-load beside it")));
        };
        let reasons = [
            (note.format == FORMAT, "its note is of another version"),
            (note.server == server, "its tokens are of another server"),
            (note.layout == layout && note.subjects == subjects, "its key space is of another workload"),
            (note.good_until_s >= good_until_s, "its tokens expire too soon"),
            (
                file.metadata().is_ok_and(|it| it.len() == bytes_of(layout.tokens())),
                "its length is not that of its tokens",
            ),
        ];
        if let Some((_, reason)) = reasons.into_iter().find(|(holds, _)| !holds) {
            return Ok(Err(Some(reason)));
        }
        let tokens = Mapping::of_file(file, layout.tokens());
        let tokens = tokens.with_context(|| format!("the token file {}", path.display()))?;
        let keys = KeySpace::new(tokens, subjects, note.tag.clone());
        Ok(Ok((note, keys)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Truth;
    use crate::workload::Workload;

    #[test]
    fn tokens_come_back_for_the_server_and_the_workload_they_were_made_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let mut workload = Workload::default();
        workload.keys.tokens = 2_000;
        let layout = Layout::new(&workload);
        let load = |server, layout, until| Saved::load(&path, server, layout, 10, until).unwrap();
        assert!(matches!(load("here", layout, 5), Err(None)));
        std::fs::write(&path, "not ours").unwrap();
        assert!(matches!(load("here", layout, 5), Err(Some(_))));
        let (fresh, tokens) = Fresh::create(&path, 2_000).unwrap();
        let mut keys = KeySpace::new(tokens, 10, "tag".to_owned());
        keys.put(1_999, &[7; 32]);
        let mut saved = Saved::new("here".to_owned(), &keys, layout, 9);
        fresh.keep(&saved, &keys).unwrap();
        drop(keys);
        let (note, read) = load("here", layout, 5).unwrap();
        assert_eq!((note.progress.as_ref(), read.at(1_999), read.at(0)), (None, [7; 32], [0; 32]));
        assert_eq!(read.group_subject(3), "load-tag-group-3");
        drop(read);
        saved.progress = Some(Truth::new(layout).progress());
        saved.note(&path).unwrap();
        assert_eq!(load("here", layout, 5).unwrap().0, saved);
        workload.keys.revocable = 50;
        let other = Layout::new(&workload);
        for (server, layout, until) in [("there", layout, 5), ("here", layout, 10), ("here", other, 5)] {
            assert!(matches!(load(server, layout, until), Err(Some(_))));
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "cut short").unwrap();
        assert!(matches!(load("here", layout, 5), Err(Some(_))));
    }
    #[test]
    fn tokens_in_use_are_neither_replaced_nor_used_twice_and_those_begun_go_with_whoever_began() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let says = |error: anyhow::Error| error.to_string();
        let (fresh, tokens) = Fresh::create(&path, 1_000).unwrap();
        let said = says(Fresh::create(&path, 1_000).unwrap_err());
        assert!(said.ends_with("tokens.new is in use by another jeton-load"), "{said}");
        drop((fresh, tokens));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing stays of it");
        let (fresh, tokens) = Fresh::create(&path, 1_000).unwrap();
        let mut workload = Workload::default();
        workload.keys.tokens = 1_000;
        let layout = Layout::new(&workload);
        let keys = KeySpace::new(tokens, 10, "tag".to_owned());
        fresh.keep(&Saved::new("here".to_owned(), &keys, layout, 9), &keys).unwrap();
        for error in [
            says(Fresh::create(&path, 1_000).unwrap_err()),
            says(Saved::load(&path, "here", layout, 10, 5).unwrap_err()),
        ] {
            assert!(error.ends_with("tokens is in use by another jeton-load"), "{error}");
        }
        drop(keys);
        assert!(Saved::load(&path, "here", layout, 10, 5).unwrap().is_ok());
    }
}
