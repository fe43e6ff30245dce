//! Opens what a crash left with the real store, and says what was found.

use std::path::Path;
use std::time::{Duration, Instant};

use jeton_log_store::{AppendKind, LogStore as _, OpenError, Options, SledStore};

use super::history::History;
use super::script::{LOG_ID, options};
use super::trace::Event;

/// How long a lock may be held by a process that is being started, and how often to look.
const UNLOCK_PATIENCE: Duration = Duration::from_secs(30);
const UNLOCK_LOOK: Duration = Duration::from_millis(2);

/// What must be there at some point of a trace, and what may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Commits acknowledged.
    pub acknowledged: usize,
    /// Commits begun.
    pub tried: usize,
    /// What lies before this sequence number may have been removed.
    pub trimmed_before: u64,
}

impl Bounds {
    /// Takes note of a mark.
    ///
    /// # Panics
    /// If the driver made a mark that is none.
    pub fn note(&mut self, event: &Event<'_>) {
        let Event::Mark(mark) = event else { return };
        let numbered =
            |prefix| mark.strip_prefix(prefix).map(|number: &str| number.parse().expect("a number"));
        if let Some(commits) = numbered("ack-") {
            self.acknowledged = commits as usize;
            self.tried = self.tried.max(self.acknowledged);
        } else if let Some(commits) = numbered("try-") {
            self.tried = commits as usize;
        } else if let Some(before) = numbered("trim-") {
            self.trimmed_before = before;
        }
    }
}

/// What must be there after these events.
#[must_use]
pub fn bounds_at(events: &[Event<'_>]) -> Bounds {
    let mut bounds = Bounds::default();
    events.iter().for_each(|event| bounds.note(event));
    bounds
}

/// What came of opening a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It opened, held exactly the first so many commits as far as they were not removed, and took another.
    Whole {
        /// The first event still there.
        first: u64,
        /// Commits.
        commits: usize,
    },
    /// It was refused, and what can be read for a repair is exactly what was appended, up to the end of so many commits.
    Refused {
        /// With these words.
        message: String,
        /// The first event that a repair keeps.
        first: u64,
        /// Whole commits that a repair keeps.
        commits: usize,
    },
    /// Anything else.
    Broken(String),
}

/// Opens `<root>/data`, reads all of it, appends the next commit, and opens and reads it again.
#[must_use]
pub fn check_directory(root: &Path, history: &History, segment_bytes: u64) -> Checked {
    let data = root.join("data");
    let options = options(segment_bytes);
    match open(&data, options) {
        Err(OpenError::Locked { path, .. }) => Checked::Broken(format!("{} is locked", path.display())),
        Err(error) => refused(&data, history, segment_bytes, &error),
        Ok(store) => match go_on(store, &data, history, segment_bytes) {
            Ok((first, commits)) => Checked::Whole { first, commits },
            Err(words) => Checked::Broken(words),
        },
    }
}

fn open(data: &Path, options: Options) -> Result<SledStore, OpenError> {
    patiently(|| SledStore::open(data, options, LOG_ID))
}

/// Opens a store, again while it is locked: a process that this one is about to start holds its locks until it has become
/// another program.
fn patiently(open: impl Fn() -> Result<SledStore, OpenError>) -> Result<SledStore, OpenError> {
    let began = Instant::now();
    loop {
        match open() {
            Err(OpenError::Locked { .. }) if began.elapsed() < UNLOCK_PATIENCE => {
                std::thread::sleep(UNLOCK_LOOK)
            }
            opened => return opened,
        }
    }
}

fn go_on(
    mut store: SledStore,
    data: &Path,
    history: &History,
    segment_bytes: u64,
) -> Result<(u64, usize), String> {
    history.compare(&mut store)?;
    let (first, head) = (store.first(), store.head());
    let commits = history.commits_until(head).expect("it was compared");
    store.begin_writing().map_err(|error| format!("not ready to be written: {error}"))?;
    if commits < history.len() {
        let appended = store.append(head, history.commit(commits), AppendKind::Ordinary);
        appended.map_err(|error| format!("no append: {error}"))?;
    }
    history.compare(&mut store)?;
    let head = store.head();
    Box::new(store).close().map_err(|error| format!("no end: {error}"))?;
    let mut again = open(data, options(segment_bytes));
    let again = again.as_mut().map_err(|error| format!("does not open again: {error}"))?;
    history.compare(again)?;
    if again.head() == head { Ok((first, commits)) } else { Err("what was appended is gone".to_owned()) }
}

/// What `jeton log repair` would keep.
fn refused(data: &Path, history: &History, segment_bytes: u64, error: &OpenError) -> Checked {
    let message = error.to_string();
    let mut store = match patiently(|| SledStore::open_for_repair(data, options(segment_bytes))) {
        Ok(store) => store,
        Err(worse) => return Checked::Broken(format!("{message}; and no repair: {worse}")),
    };
    let mut commits = 0;
    let first = store.first();
    let mut expected = history.batches_from(first);
    let mut next = first;
    while let Ok(page) = store.read_from(next, 1 << 20) {
        let Some(last) = page.last() else { break };
        next = last.last + 1;
        if page.iter().any(|batch| expected.next() != Some(batch)) {
            return Checked::Broken(format!("{message}; and a repair reads what was never appended"));
        }
    }
    while commits < history.len() && history.end(commits + 1).sequence < next {
        commits += 1;
    }
    Checked::Refused { message, first, commits }
}

/// Whether what was found is as it must be.
///
/// # Errors
/// What is wrong.
pub fn judge(checked: &Checked, bounds: &Bounds) -> Result<(), String> {
    let range = bounds.acknowledged..=bounds.tried;
    match checked {
        Checked::Broken(words) => Err(words.clone()),
        Checked::Whole { first, .. } | Checked::Refused { first, .. }
            if *first > bounds.trimmed_before.max(1) =>
        {
            Err(format!("it begins at {first}, and what comes before was not to be removed"))
        }
        Checked::Whole { commits, .. } if range.contains(commits) => Ok(()),
        Checked::Refused { commits, .. } if range.contains(commits) => Ok(()),
        Checked::Whole { commits, .. } => Err(format!(
            "it holds {commits} commits; {} were acknowledged, {} begun",
            bounds.acknowledged, bounds.tried
        )),
        Checked::Refused { message, commits, .. } => Err(format!(
            "refused ({message}), and a repair keeps {commits} commits; {} were acknowledged",
            bounds.acknowledged
        )),
    }
}
