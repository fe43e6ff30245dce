//! A key space between runs: the tokens in one file, what is known of them in a note beside it.
//!
//! The note is written twice: before a run, without saying how far its revokes came, and after it. A run that ends in
//! between leaves a note that says so, and then nothing is expected of the tokens it may have revoked.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::KeySpace;
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

fn note_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// Writes a file that its owner alone can read: one that is there is not written to but replaced, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let write = || {
        let _ = std::fs::remove_file(&fresh);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        std::fs::rename(&fresh, path)
    };
    write().with_context(|| format!("the token file {} cannot be written", path.display()))
}

impl Saved {
    /// What is to be noted of a key space that was just filled.
    pub(crate) fn new(server: String, keys: &KeySpace, layout: Layout, good_until_s: u64) -> Self {
        let (tag, subjects) = (keys.tag.clone(), keys.subjects);
        Self { format: FORMAT, server, tag, subjects, layout, good_until_s, progress: None }
    }

    /// Writes the tokens, and the note.
    pub(crate) fn save(&self, path: &Path, keys: &KeySpace) -> anyhow::Result<()> {
        // Without a note beside them the tokens are nobody's: the old one goes first.
        let _ = std::fs::remove_file(note_path(path));
        write(path, &keys.map)?;
        self.note(path)
    }

    /// Writes the note alone.
    pub(crate) fn note(&self, path: &Path) -> anyhow::Result<()> {
        write(&note_path(path), &serde_json::to_vec(self)?)
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
        let Ok(file) = File::open(path) else { return Ok(Err(None)) };
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
                file.metadata().is_ok_and(|it| it.len() == u64::from(layout.tokens()) * 32),
                "its length is not that of its tokens",
            ),
        ];
        if let Some((_, reason)) = reasons.into_iter().find(|(holds, _)| !holds) {
            return Ok(Err(Some(reason)));
        }
        let mut keys = KeySpace::new(layout.tokens(), subjects, note.tag.clone())?;
        let mut reader = BufReader::new(file);
        reader.read_exact(&mut keys.map).with_context(|| format!("the token file {}", path.display()))?;
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
        let mut keys = KeySpace::new(2_000, 10, "tag".to_owned()).unwrap();
        keys.put(1_999, &[7; 32]);
        let load = |server, layout, until| Saved::load(&path, server, layout, 10, until).unwrap();
        assert!(matches!(load("here", layout, 5), Err(None)));
        std::fs::write(&path, "not ours").unwrap();
        assert!(matches!(load("here", layout, 5), Err(Some(_))));
        let mut saved = Saved::new("here".to_owned(), &keys, layout, 9);
        saved.save(&path, &keys).unwrap();
        let (note, read) = load("here", layout, 5).unwrap();
        assert_eq!((note.progress.as_ref(), read.at(1_999), read.at(0)), (None, &[7; 32], &[0; 32]));
        assert_eq!(read.group_subject(3), "load-tag-group-3");
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
}
