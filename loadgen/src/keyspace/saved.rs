//! A key space between runs: the tokens in one file, which is mapped, what is known of them in a note beside it.
//!
//! ```text
//! FILE                            the tokens, 32 bytes each by position
//! FILE.json                       the note
//! FILE.lock                       held (flock(2)) by the run that uses or makes them; empty, and left there
//! FILE.jeton-load-unfinished      tokens that are being issued; gets the name FILE once all of them are
//! ```
//!
//! What lies there and is not known to be ours is never replaced. The note is written twice: before a run, without saying how
//! far its revokes came, and after it. A run that ends in between leaves a note that says so, and then nothing is expected
//! of the tokens it may have revoked.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tempfile::TempPath;

use super::mapping::TOKEN_BYTES;
use super::{KeySpace, Mapping};
use crate::checker::Progress;
use crate::layout::Layout;

const FORMAT: u32 = 1;
const UNFINISHED: &str = ".jeton-load-unfinished";

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

/// What a note of any version begins with: enough to tell it from somebody else's file.
#[derive(Deserialize)]
struct Beginning {
    #[serde(rename = "format")]
    _format: u32,
    #[serde(rename = "server")]
    _server: String,
    #[serde(rename = "layout")]
    _layout: serde_json::Value,
}

/// The place of a token file, which is this run's alone for as long as this value lives.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    _lock: File,
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn bytes_of(tokens: u32) -> u64 {
    u64::from(tokens) * TOKEN_BYTES as u64
}

/// A new file that its owner alone can read, in the place of one that was left there.
fn create(path: &Path) -> io::Result<File> {
    let _ = std::fs::remove_file(path);
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

impl TokenFile {
    /// Takes the place, if nobody else has it and nothing lies there that is not ours.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        // What a link leads to is replaced, not the link.
        let path = match path.symlink_metadata() {
            Ok(found) if found.is_symlink() => {
                path.canonicalize().with_context(|| format!("the token file {}", path.display()))?
            }
            _ => path.to_owned(),
        };
        let shown = path.display();
        match path.metadata() {
            Ok(found) => ensure!(found.is_file(), "the token file {shown} is no regular file"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| cannot_be_written(&path)),
        }
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(with_ending(&path, ".lock")).with_context(|| cannot_be_written(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("the token file {shown} is in use by another jeton-load"),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("the token file {shown} cannot be locked"));
            }
        }
        let file = Self { path, _lock: lock };
        file.check_ours()?;
        Ok(file)
    }

    /// Whether what is there may be replaced: tokens with a note of ours, or nothing.
    fn check_ours(&self) -> anyhow::Result<()> {
        let note_path = self.note_path();
        let note = match std::fs::read(&note_path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| note_path.display().to_string()),
        };
        let is_ours = note.as_ref().is_some_and(|text| serde_json::from_slice::<Beginning>(text).is_ok());
        for (is_there, path) in [(note.is_some(), &note_path), (self.path.exists(), &self.path)] {
            ensure!(
                is_ours || !is_there,
                "{} is there and not jeton-load's, as far as can be told: remove it, or name another token file",
                path.display()
            );
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn note_path(&self) -> PathBuf {
        with_ending(&self.path, ".json")
    }

    /// Writes the note, whole or not at all.
    pub(crate) fn note(&self, saved: &Saved) -> anyhow::Result<()> {
        let note = serde_json::to_vec(saved)?;
        let note_path = self.note_path();
        let begun = with_ending(&note_path, UNFINISHED);
        let write = || {
            create(&begun)?.write_all(&note)?;
            std::fs::rename(&begun, &note_path)
        };
        write()
            .inspect_err(|_| drop(std::fs::remove_file(&begun)))
            .with_context(|| cannot_be_written(&note_path))
    }

    /// Room for so many tokens, all of it taken at once: a page that has none when it is written to would end the process.
    /// The tokens that are there stay until all of the new ones are issued; what was begun goes if they are not.
    pub(crate) fn begin(&self, tokens: u32) -> anyhow::Result<(Begun, Mapping)> {
        let path = with_ending(&self.path, UNFINISHED);
        let begin = || {
            let file = create(&path)?;
            let begun = TempPath::try_from_path(&path)?;
            match fallocate(&file, FallocateFlags::empty(), 0, bytes_of(tokens)) {
                Err(Errno::OPNOTSUPP) => {
                    io::copy(&mut io::Read::take(io::repeat(0), bytes_of(tokens)), &mut &file)?;
                }
                result => result?,
            }
            Ok::<_, io::Error>((Begun(begun), Mapping::of_file(&file, tokens)?))
        };
        begin().with_context(|| cannot_be_written(&self.path))
    }

    /// Gives tokens that were begun their name, and writes the note.
    pub(crate) fn keep(&self, Begun(begun): Begun, saved: &Saved, keys: &KeySpace) -> anyhow::Result<()> {
        keys.tokens.flush().with_context(|| cannot_be_written(&self.path))?;
        // If we die between these, the tokens that are there have a note that is not theirs, or none: so the old tokens go
        // first, then their note.
        for old in [&self.path, &self.note_path()] {
            let _ = std::fs::remove_file(old);
        }
        self.note(saved)?;
        begun.persist(&self.path).with_context(|| cannot_be_written(&self.path))
    }

    /// The tokens of an earlier run, if they are for this server, laid out like this, good until then at least. Otherwise
    /// why not; `None` if there are none.
    pub(crate) fn load(
        &self,
        server: &str,
        layout: Layout,
        subjects: u32,
        good_until_s: u64,
    ) -> anyhow::Result<Result<(Saved, KeySpace), Option<&'static str>>> {
        let file = match File::options().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(None)),
            Err(error) => {
                return Err(error).with_context(|| format!("the token file {}", self.path.display()));
            }
        };
        let text = std::fs::read(self.note_path()).with_context(|| self.note_path().display().to_string())?;
        let Ok(note) = serde_json::from_slice::<Saved>(&text) else {
            return Ok(Err(Some("its note is of another version")));
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
        let tokens = Mapping::of_file(&file, layout.tokens());
        let tokens = tokens.with_context(|| format!("the token file {}", self.path.display()))?;
        let keys = KeySpace::new(tokens, subjects, note.tag.clone());
        Ok(Ok((note, keys)))
    }
}

/// Tokens that are being issued into a file. It is removed with this value.
#[derive(Debug)]
pub(crate) struct Begun(TempPath);

fn cannot_be_written(path: &Path) -> String {
    format!("the token file {} cannot be written", path.display())
}

impl Saved {
    /// What is to be noted of a key space that was just filled.
    pub(crate) fn new(server: String, keys: &KeySpace, layout: Layout, good_until_s: u64) -> Self {
        let (tag, subjects) = (keys.tag.clone(), keys.subjects);
        Self { format: FORMAT, server, tag, subjects, layout, good_until_s, progress: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Truth;
    use crate::workload::Workload;

    fn layout(tokens: u32, revocable: u32) -> Layout {
        let mut workload = Workload::default();
        (workload.keys.tokens, workload.keys.revocable) = (tokens, revocable);
        Layout::new(&workload)
    }

    /// Tokens of a server called "here" that are good until 9.
    fn fill(file: &TokenFile, layout: Layout) -> (Saved, KeySpace) {
        let (begun, tokens) = file.begin(layout.tokens()).unwrap();
        let mut keys = KeySpace::new(tokens, 10, "tag".to_owned());
        keys.put(layout.tokens() - 1, &[7; 32]);
        let saved = Saved::new("here".to_owned(), &keys, layout, 9);
        file.keep(begun, &saved, &keys).unwrap();
        (saved, keys)
    }

    #[test]
    fn tokens_come_back_for_the_server_and_the_workload_they_were_made_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let file = TokenFile::open(&path).unwrap();
        let plain = layout(2_000, 2);
        let load = |server, layout, until| file.load(server, layout, 10, until).unwrap();
        assert!(matches!(load("here", plain, 5), Err(None)));
        let (mut saved, _) = fill(&file, plain);
        let (note, read) = load("here", plain, 5).unwrap();
        assert_eq!((note.progress.as_ref(), read.at(1_999), read.at(0)), (None, [7; 32], [0; 32]));
        assert_eq!(read.group_subject(3), "load-tag-group-3");
        saved.progress = Some(Truth::new(plain).progress());
        file.note(&saved).unwrap();
        assert_eq!(load("here", plain, 5).unwrap().0, saved);
        for (server, layout, until) in
            [("there", plain, 5), ("here", plain, 10), ("here", layout(2_000, 50), 5)]
        {
            assert!(matches!(load(server, layout, until), Err(Some(_))));
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "cut short").unwrap();
        assert!(matches!(load("here", plain, 5), Err(Some(_))));
        std::fs::write(dir.path().join("tokens.json"), r#"{"format": 2, "server": "x", "layout": {}}"#)
            .unwrap();
        assert!(matches!(load("here", plain, 5), Err(Some("its note is of another version"))));
    }

    #[test]
    fn one_run_at_a_time_has_a_token_file_and_what_it_began_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let file = TokenFile::open(&path).unwrap();
        let said = TokenFile::open(&path).unwrap_err().to_string();
        assert!(said.ends_with("tokens is in use by another jeton-load"), "{said}");
        let begun = file.begin(1_000).unwrap();
        assert!(dir.path().join("tokens.jeton-load-unfinished").exists());
        drop(begun);
        let names = || std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names().collect::<Vec<_>>(), ["tokens.lock"], "nothing stays of it");
        fill(&file, layout(1_000, 2));
        drop(file);
        let file = TokenFile::open(&path).unwrap();
        assert!(file.load("here", layout(1_000, 2), 10, 5).unwrap().is_ok());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let refused = |name: &str| format!("{:#}", TokenFile::open(&at(name)).unwrap_err());
        std::fs::write(at("thesis"), "years of work").unwrap();
        std::fs::write(at("notes.json"), r#"{"shopping": []}"#).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        assert!(refused("thesis").contains("thesis is there and not jeton-load's"), "{}", refused("thesis"));
        assert!(refused("notes").contains("notes.json is there and not"), "{}", refused("notes"));
        assert!(refused("folder").ends_with("is no regular file"), "{}", refused("folder"));
        assert!(refused("dangling").contains("No such file"), "{}", refused("dangling"));
        assert!(refused("no/where").contains("cannot be written"), "{}", refused("no/where"));
        assert_eq!(std::fs::read(at("thesis")).unwrap(), b"years of work");
        assert!(
            TokenFile::open(Path::new("/dev/null")).unwrap_err().to_string().ends_with("no regular file")
        );
        // A link is followed: the tokens go to where it leads.
        fill(&TokenFile::open(&at("elsewhere")).unwrap(), layout(1_000, 2));
        std::os::unix::fs::symlink(at("elsewhere"), at("link")).unwrap();
        let file = TokenFile::open(&at("link")).unwrap();
        assert_eq!(file.path(), at("elsewhere").canonicalize().unwrap());
        fill(&file, layout(1_000, 50));
        assert!(at("link").symlink_metadata().unwrap().is_symlink());
    }
}
