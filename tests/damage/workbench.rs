//! A copy of the image to which one change is made at a time, and what the real binary makes of it.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use jeton::snapshots::SNAPSHOTS_DIR;

use super::change::{Altered, Change};
use super::image::{Image, write_files};
use crate::{run_within, work_dir};

/// How long a command may take: it takes 30 ms on a machine that is not busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const REFUSED: i32 = 2;

/// What a change came to, where it came to something that may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Refused, with these words.
    Refused(String),
    /// The same log, put right from what is there twice; these words say so.
    Repaired(String),
    /// The same log, and nothing to say.
    NoEffect,
}

/// What may not be: a panic, a hang, a loss without a word, or words that do not help.
#[derive(Debug)]
pub struct Failure(pub String);

impl Failure {
    pub(super) fn new(what: &str, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (told, words) = (text(&output.stdout), text(&output.stderr));
        Self(format!("{what} ({})\n  stdout: {told}\n  stderr: {words}", output.status))
    }
}

/// What the real binary is asked of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Log,
    Snapshots,
}

impl Question {
    /// What a change to this path is for.
    pub(super) fn about(path: &Path) -> Self {
        if path.starts_with(SNAPSHOTS_DIR) { Self::Snapshots } else { Self::Log }
    }

    pub(super) fn arguments(self) -> [&'static str; 3] {
        match self {
            Self::Log => ["--json", "log", "verify"],
            Self::Snapshots => ["--json", "snapshot", "verify"],
        }
    }

    fn helps(self, words: &str) -> bool {
        match self {
            Self::Log => helps(words),
            Self::Snapshots => snapshots_help(words),
        }
    }
}

/// The copy, and what it is a copy of.
#[derive(Debug)]
pub struct Workbench<'a> {
    pub(super) image: &'a Image,
    pub(super) foreign: &'a Image,
    pub(super) dir: tempfile::TempDir,
}

impl<'a> Workbench<'a> {
    /// A copy of `image`; files of another log come from `foreign`.
    pub fn new(image: &'a Image, foreign: &'a Image) -> Self {
        let dir = work_dir();
        write_files(dir.path(), &image.files);
        Self { image, foreign, dir }
    }

    /// Makes the change, has the real binary verify the log, or the snapshots if it is about those, and takes the change
    /// back.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn verify(&self, change: &Change) -> Result<Outcome, Failure> {
        self.verify_by(change, |arguments| run_within(self.dir.path(), arguments, PATIENCE))
    }

    /// As [`Self::verify`], by whoever takes the place of the real binary; `None` if there is no end to it.
    pub(super) fn verify_by(
        &self,
        change: &Change,
        ask: impl FnOnce(&[&str]) -> Option<Output>,
    ) -> Result<Outcome, Failure> {
        let altered = change.altered(self.image, self.foreign);
        self.alter(&altered);
        let question = Question::about(change.path());
        let output = ask(&question.arguments());
        self.restore(&altered);
        match output {
            Some(output) => self.judge(question, &output),
            None => Err(Failure(format!("no end within {} s", PATIENCE.as_secs()))),
        }
    }

    /// The copy's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What several changes come to, one after another.
    pub(super) fn altered_by(&self, changes: &[Change]) -> Altered {
        let mut all = Altered::new();
        for change in changes {
            all = change.altered_after(all, self.image, self.foreign);
        }
        all
    }

    pub(super) fn alter(&self, altered: &Altered) {
        for (file, bytes) in altered {
            match bytes {
                Some(bytes) => write_files(self.dir.path(), [(file, bytes)]),
                None => std::fs::remove_file(self.dir.path().join(file)).expect("a file of the image"),
            }
        }
        // A folder is gone if all in it is.
        for dir in altered.keys().filter_map(|file| file.parent()) {
            let _ = std::fs::remove_dir(self.dir.path().join(dir));
        }
    }

    pub(super) fn restore(&self, altered: &Altered) {
        for file in altered.keys() {
            match self.image.files.get(file) {
                Some(bytes) => write_files(self.dir.path(), [(file, bytes)]),
                None => {
                    let _ = std::fs::remove_file(self.dir.path().join(file));
                }
            }
        }
        for dir in altered.keys().filter_map(|file| file.parent()) {
            let is_of_image = self.image.files.keys().any(|file| file.starts_with(dir));
            if !is_of_image {
                let _ = std::fs::remove_dir_all(self.dir.path().join(dir));
            }
        }
    }

    fn judge(&self, question: Question, output: &Output) -> Result<Outcome, Failure> {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let expected = match question {
            Question::Log => &self.image.verified,
            Question::Snapshots => &self.image.snapshots_verified,
        };
        match output.status.code() {
            Some(0) if output.stdout != expected.as_bytes() => {
                Err(Failure::new("another log, and no complaint", output))
            }
            Some(0) if words.is_empty() => Ok(Outcome::NoEffect),
            Some(0) if is_plain(&words) => Ok(Outcome::Repaired(words)),
            Some(REFUSED) => match question.helps(&words) {
                true => Ok(Outcome::Refused(words)),
                false => Err(Failure::new("refused in words that do not help", output)),
            },
            _ => Err(Failure::new("neither verified nor refused", output)),
        }
    }

    /// The paths of the copy that are not as the image and the change say.
    pub(super) fn strays(&self, altered: &Altered) -> Vec<PathBuf> {
        let mut expected = self.image.files.clone();
        for (file, bytes) in altered {
            match bytes {
                Some(bytes) => expected.insert(file.clone(), bytes.clone()),
                None => expected.remove(file),
            };
        }
        let mut found = super::image::read_files(self.dir.path());
        for either in [&mut expected, &mut found] {
            either.remove(Path::new("LOCK"));
        }
        let all = expected.keys().chain(found.keys()).filter(|file| expected.get(*file) != found.get(*file));
        all.cloned().collect()
    }
}

fn is_plain(words: &str) -> bool {
    !words.contains("panicked") && !words.contains("RUST_BACKTRACE")
}

/// One line of ours that says where, and what to type or to do.
pub(super) fn helps(words: &str) -> bool {
    let last = words.lines().last().unwrap_or_default();
    let places = ["sequence number", "/log", "event ", "the log begins at", "holds no log"];
    let says_where = places.iter().any(|place| last.contains(place));
    let says_what_helps =
        last.contains("jeton log repair") || last.contains("remove ") || last.contains("restore");
    is_plain(words) && last.starts_with("jeton: ") && says_where && says_what_helps
}

/// One line that says that they do not count, and what does. They need no repair.
fn snapshots_help(words: &str) -> bool {
    let last = words.lines().last().unwrap_or_default();
    let says_what_counts = last.contains("the log has everything") || last.contains("there are no snapshots");
    is_plain(words) && last.starts_with("jeton: ") && says_what_counts
}
