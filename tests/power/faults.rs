//! Each call by which a store changes or syncs its files, failed: once with nothing done, once although it was done; once
//! the process dies of it, once it goes on.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use super::check::{Checked, bounds_at, check_directory, judge};
use super::disk::Disk;
use super::image::{Image, Variant};
use super::script::{ASIDE, Script};
use super::shim::{Fault, Recorded, place, record};
use super::trace::{Event, Trace};
use crate::sim::rng::Rng;

/// Of the same calls on files of the same kind under one mark, so many are made to fail, each for itself; of copies one.
const EACH_MAX: u32 = 2;
/// And under a mark that is about a rotation, where each has to find another state: all of them.
const EACH_MAX_OF_ROTATIONS: u32 = 8;

/// Calls of one kind, on files of one kind, under one mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Calls {
    /// The mark: what the store was about.
    pub phase: String,
    /// The call, as [`Fault::call`] names it.
    pub call: &'static str,
    /// Of paths, as [`Fault::path`] matches them.
    pub path: String,
    /// How many there are.
    pub count: u32,
    /// How many of them, from the first on, are made to fail.
    pub tried: u32,
}

/// What came of one call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody was told, and nothing was lost.
    Progress,
    /// The log refused everything from then on, and went on after it was opened anew.
    Poisoned,
    /// It did not open, and did the next time.
    RefusesToStart,
    /// The end was not in order; nothing was lost.
    EndFails,
    /// Old segments were not removed, and the log went on.
    TrimFails,
    /// It was told that there is no snapshot, the one before stayed, and the next one was written.
    SnapshotFails,
    /// Something that no snapshot needs was left, and removed behind the next one.
    LeftOver,
    /// The process died; after a restart the commit under way, if there was one, is absent, there, or either, as the
    /// power went or not.
    Crash(&'static str),
    /// A promise was broken.
    Broken(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Progress => f.write_str("progress"),
            Self::Poisoned => f.write_str("poisoned"),
            Self::RefusesToStart => f.write_str("refuses to start"),
            Self::EndFails => f.write_str("end fails"),
            Self::TrimFails => f.write_str("trim fails"),
            Self::SnapshotFails => f.write_str("snapshot fails"),
            Self::LeftOver => f.write_str("left over"),
            Self::Crash(found) => f.write_str(found),
            Self::Broken(words) => write!(f, "BROKEN: {words}"),
        }
    }
}

/// A path as a pattern for all of its kind: numbers and random names become `*`.
fn pattern(path: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        _ if part.starts_with("scratch-") => "scratch-*".to_owned(),
        _ if part.len() >= 20 && part.as_bytes()[..20].iter().all(u8::is_ascii_digit) => {
            format!("[0-9]*{}", &part[20..])
        }
        _ if part.ends_with(".generating") => "snap.*.generating".to_owned(),
        _ if part.starts_with("snap.") => "snap.[0-9A-F]*[0-9A-F]".to_owned(),
        // By length: an unfinished file is another kind, and its name ends in a hexadecimal digit as well.
        _ if part.starts_with("part-") || part.starts_with("snapshot-") => {
            let (kind, rest) = part.split_once('-').expect("it has a dash");
            let digits = rest.split('.').next().map_or(0, str::len);
            format!("{kind}-{}{}", "?".repeat(digits), &rest[digits..])
        }
        _ => part.to_owned(),
    });
    let path = parts.collect::<Vec<_>>().join("/");
    // Of a copy, and of what is removed, it does not matter which of its files it is, nor in which order they come.
    let together = ["/scratch-*/", ".damaged/", ".trimmed/"];
    let cut = together.iter().find_map(|part| path.find(part).map(|at| &path[..at + part.len()]));
    cut.map_or(path.clone(), |cut| format!("{cut}*"))
}

/// A mark, a call and a pattern.
pub(super) type Kind = (String, &'static str, String);

impl Calls {
    pub(super) fn kind(&self) -> Kind {
        (self.phase.clone(), self.call, self.path.clone())
    }

    /// One of them failed, and the process goes on.
    pub(super) fn fault(&self, number: u32, is_kept: bool) -> Fault<'_> {
        let is_sync = matches!(self.call, "fsync" | "fdatasync");
        Fault {
            after: &self.phase,
            call: self.call,
            path: &self.path,
            number,
            error: if is_sync { "EIO" } else { "ENOSPC" },
            is_kept,
            is_crash: false,
        }
    }
}

/// Every call in a trace, by the number of its event and with its kind.
pub(super) fn kinds<'e>(events: &'e [Event<'_>]) -> impl Iterator<Item = (usize, Kind)> + 'e {
    let mut phase = ASIDE;
    let mut paths: HashMap<u32, &str> = HashMap::new();
    events.iter().enumerate().filter_map(move |(at, event)| {
        let (call, path) = match *event {
            Event::Open { handle, path, is_created, .. } => {
                paths.insert(handle, path);
                ("create", is_created.then_some(path)?)
            }
            Event::Write { handle, .. } => ("write", paths[&handle]),
            Event::Length { handle, .. } => ("truncate", paths[&handle]),
            Event::Sync { handle, is_data_only, .. } => {
                (if is_data_only { "fdatasync" } else { "fsync" }, paths[&handle])
            }
            Event::Mkdir(path) => ("mkdir", path),
            Event::Rmdir(path) => ("rmdir", path),
            Event::Unlink(path) => ("unlink", path),
            Event::Rename(path, _) => ("rename", path),
            Event::Mark(mark) if !mark.contains('-') => {
                phase = mark;
                return None;
            }
            Event::Mark(_) | Event::Forget { .. } => return None,
        };
        (phase != ASIDE).then(|| (at, (phase.to_owned(), call, pattern(path))))
    })
}

/// Every kind of call in a trace, in the order in which they come first.
#[must_use]
pub fn calls(trace: &Trace) -> Vec<Calls> {
    let mut all: Vec<Calls> = Vec::new();
    for (_, kind) in kinds(&trace.events()) {
        if let Some(calls) = all.iter_mut().find(|calls| calls.kind() == kind) {
            calls.count += 1;
            continue;
        }
        let (phase, call, path) = kind;
        let tried = match &path {
            copied if copied.ends_with('*') => 1,
            _ if phase.contains("rotation") => EACH_MAX_OF_ROTATIONS,
            _ => EACH_MAX,
        };
        all.push(Calls { phase, call, path, count: 1, tried });
    }
    all.iter_mut().for_each(|calls| calls.tried = calls.tried.min(calls.count));
    all
}

/// Runs the script with nothing failing.
#[must_use]
pub fn undisturbed(driver: &Path) -> Recorded {
    let mut command = Command::new(driver);
    command.arg("drive");
    record(command, None)
}

/// What comes of each of these calls, as many as are tried, if the process dies of it, before or after it was done: the
/// different outcomes, in order. To die of a call is to stop in the middle of the undisturbed trace.
#[must_use]
pub fn crashes(undisturbed: &Trace, calls: &Calls, is_kept: bool) -> Vec<Outcome> {
    let events = undisturbed.events();
    let mut ends: Vec<usize> = kinds(&events)
        .filter(|(_, kind)| *kind == calls.kind())
        .map(|(at, _)| at + usize::from(is_kept))
        .collect();
    ends.truncate(calls.tried as usize);
    different(ends.into_iter().map(|end| match images(&events[..end]) {
        Ok(found) => Outcome::Crash(found),
        Err(words) => Outcome::Broken(words),
    }))
}

/// What the shim notes where a call fails.
pub(super) const FAULT: Event<'static> = Event::Mark("fault");

/// When somebody was told something behind a fault: that it is served again, and of the first commit then. Later ones are as
/// in any other life.
const TOLD_MAX: usize = 2;

/// Where a trace may be cut off behind its fault to see whether what was told by then is so: wherever somebody was told
/// something, so many times, and at its end.
pub(super) fn ends_since_fault(events: &[Event<'_>], told_max: usize) -> Vec<usize> {
    let fault = events.iter().position(|event| *event == FAULT).unwrap_or(events.len());
    let is_told = |event: &Event<'_>| matches!(event, Event::Mark(mark) if mark.starts_with("ack-") || mark.starts_with("told-"));
    let told = events.iter().enumerate().skip(fault).filter(|(_, event)| is_told(event));
    told.take(told_max).map(|(at, _)| at + 1).chain([events.len()]).collect()
}

/// As [`crashes`], if the call fails and the process goes on.
#[must_use]
pub fn failures(driver: &Path, calls: &Calls, is_kept: bool) -> Vec<Outcome> {
    different((1..=calls.tried).map(|number| {
        let fault = calls.fault(number, is_kept);
        let mut command = Command::new(driver);
        command.arg("drive");
        let recorded = record(command, Some(&fault));
        let events = recorded.trace.events();
        let broken = |words: &str| Outcome::Broken(format!("{words} (SHIM_FAULT='{}')", fault.to_text()));
        if !events.contains(&FAULT) {
            return broken("the call did not come");
        }
        if !recorded.status.success() {
            return broken(&recorded.words);
        }
        let mut ends = ends_since_fault(&events, TOLD_MAX).into_iter();
        let result = ends.try_for_each(|end| images(&events[..end]).map(drop));
        result.map_or_else(|words| broken(&words), |()| told(&recorded.words))
    }))
}

pub(super) fn different(all: impl Iterator<Item = Outcome>) -> Vec<Outcome> {
    let mut different = Vec::new();
    all.for_each(|outcome| different.extend((!different.contains(&outcome)).then_some(outcome)));
    different
}

fn told(words: &str) -> Outcome {
    let failed = words.lines().find_map(|line| line.strip_prefix("failed "));
    match failed.and_then(|line| line.split(':').next()) {
        None => Outcome::Progress,
        Some("open" | "begin") => Outcome::RefusesToStart,
        Some("close") => Outcome::EndFails,
        Some("trim") => Outcome::TrimFails,
        Some(_) => Outcome::Poisoned,
    }
}

/// Opens what the end of a trace may leave, in every variant; what became of a commit under way.
fn images(events: &[Event<'_>]) -> Result<&'static str, String> {
    let script = Script::steps_of_a_store();
    let (history, segment_bytes) = (script.history(), script.segment_bytes());
    let mut disk = Disk::default();
    events.iter().for_each(|event| disk.apply(event));
    let bounds = bounds_at(events);
    let (mut is_there, mut is_absent) = (false, false);
    // Neighbouring ends of a trace leave much the same.
    static KNOWN: Mutex<BTreeMap<[u8; 32], Checked>> = Mutex::new(BTreeMap::new());
    for variant in Variant::ALL {
        let image = Image::of(&disk, variant, &mut Rng::new(variant as u64));
        let digest = image.digest();
        let known = KNOWN.lock().expect("nobody panics with it").get(&digest).cloned();
        let found = match known {
            Some(found) => found,
            None => {
                let root = place();
                image.write(root.path()).map_err(|error| format!("the image cannot be written: {error}"))?;
                check_directory(root.path(), &history, segment_bytes)
            }
        };
        KNOWN.lock().expect("nobody panics with it").insert(digest, found.clone());
        judge(&found, &bounds).map_err(|words| format!("{variant:?}: {words}"))?;
        match found {
            Checked::Whole { commits, .. } if commits == bounds.tried => is_there = true,
            Checked::Whole { .. } => is_absent = true,
            other => return Err(format!("{variant:?}: {other:?}")),
        }
    }
    Ok(match (bounds.tried > bounds.acknowledged, is_there, is_absent) {
        (false, ..) => "restarts",
        (true, true, true) => "there or not",
        (true, true, false) => "there",
        (true, false, _) => "absent",
    })
}
