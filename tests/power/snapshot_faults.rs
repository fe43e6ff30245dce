//! Each call by which an engine writes, names, syncs and removes the files of its snapshots, failed as those of the store are:
//! see `faults.rs`.
//!
//! What a crash leaves must hold the last snapshot that was acknowledged or a younger one; nothing there may look like a
//! snapshot and be none; each comes to what the log comes to at its event; and an engine must start on it, be in the state
//! that the log comes to, and write the next.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use jeton::snapshots::SnapshotDir;
use jeton_core::numbers::Sequence;
use jeton_core::recovery::Replay;
use jeton_log_store::{AppendKind, LogStore as _, MemoryStore, SledStore};

use super::disk::Disk;
use super::faults::{Calls, FAULT, Outcome, calls, different, ends_since_fault, kinds};
use super::image::{Image, Variant};
use super::script::{LOG_ID, options};
use super::shim::{Fault, Recorded, place, record_in};
use super::snapshot_script::{LOG, open_engine};
use super::snapshots::SMALL;
use super::trace::Event;
use crate::sim::rng::Rng;

/// What one read of a log brings.
const PAGE_BYTES: usize = 1 << 20;

/// What a process did to the files of its snapshots, and the log that they are of.
#[derive(Debug)]
pub struct SnapshotRun {
    /// What it did, and said.
    pub recorded: Recorded,
    log: MemoryStore,
    /// What the log comes to, at the end of each batch.
    digests: BTreeMap<Sequence, [u8; 32]>,
    /// What images were found to hold: neighbouring ends of a trace leave much the same.
    known: Mutex<BTreeMap<[u8; 32], Found>>,
}

/// The newest snapshot in an image, or what is wrong with it.
type Found = Result<Option<Sequence>, String>;

/// What must be in an image, and what may be.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    acknowledged: Option<Sequence>,
    tried: Option<Sequence>,
}

impl Bounds {
    fn note(&mut self, event: &Event<'_>) {
        let Event::Mark(mark) = event else { return };
        let number = |prefix| Some(Sequence(mark.strip_prefix(prefix)?.parse().expect("a number")));
        if let Some(sequence) = number("try-") {
            self.tried = Some(sequence);
        } else if let Some(sequence) = number("ack-") {
            self.acknowledged = Some(sequence);
        }
    }
}

/// Runs the script, with one call or one kind of calls failing if one is given. `driver` is the `power` binary.
///
/// # Panics
/// If its log cannot be read.
#[must_use]
pub fn run_snapshots(driver: &Path, fault: Option<&Fault<'_>>) -> SnapshotRun {
    let place = place();
    let (root, log) = (place.path().join("root"), place.path().join("log"));
    std::fs::create_dir(&root).expect("a directory");
    let mut command = Command::new(driver);
    command.args(["drive-snapshots", "--log"]).arg(&log);
    let recorded = record_in(&root, command, fault);
    let mut store = SledStore::open_read_only(&log, options(PAGE_BYTES as u64)).expect("the log opens");
    let (log, mut digests) = (MemoryStore::new(LOG_ID), BTreeMap::new());
    let mut replay = Replay::new(LOG.0, LOG.1, SMALL, None).expect("room for a small state");
    loop {
        let batches = store.read_from(replay.end().sequence.next().0, PAGE_BYTES).expect("the log reads");
        if batches.is_empty() {
            break;
        }
        for batch in &batches {
            replay.apply(&batch.bytes).expect("the log is whole");
            digests.insert(replay.end().sequence, replay.state().digest());
        }
        let mut copy = log.clone();
        copy.append(copy.head(), &batches, AppendKind::Ordinary).expect("memory takes it");
    }
    SnapshotRun { recorded, log, digests, known: Mutex::default() }
}

impl SnapshotRun {
    /// Opens what the end of these events may leave, in every variant; what became of a snapshot under way.
    fn images(&self, events: &[Event<'_>]) -> Result<&'static str, String> {
        let (mut disk, mut bounds) = (Disk::default(), Bounds::default());
        for event in events {
            disk.apply(event);
            bounds.note(event);
        }
        let (mut is_there, mut is_absent) = (false, false);
        for variant in Variant::ALL {
            let image = Image::of(&disk, variant, &mut Rng::new(variant as u64));
            let newest = self.find(&image).map_err(|words| format!("{variant:?}: {words}"))?;
            if newest < bounds.acknowledged {
                let acknowledged = bounds.acknowledged;
                return Err(format!("{variant:?}: {acknowledged:?} was acknowledged, {newest:?} is there"));
            }
            is_there |= newest == bounds.tried;
            is_absent |= newest != bounds.tried;
        }
        Ok(match (bounds.tried > bounds.acknowledged, is_there, is_absent) {
            (false, ..) => "restarts",
            (true, true, true) => "there or not",
            (true, true, false) => "there",
            (true, false, _) => "absent",
        })
    }

    fn find(&self, image: &Image<'_>) -> Found {
        let digest = image.digest();
        let known = self.known.lock().expect("nobody panics with it").get(&digest).cloned();
        known.unwrap_or_else(|| {
            let root = place();
            image.write(root.path()).expect("a place for an image");
            let found = self.start_on(&root.path().join("data"));
            self.known.lock().expect("nobody panics with it").insert(digest, found.clone());
            found
        })
    }

    /// Looks at every snapshot there, starts an engine on them, and has it write another. Returns the newest that was there.
    fn start_on(&self, data: &Path) -> Found {
        let dir = SnapshotDir::of(data);
        let newest = self.check_all(&dir)?;
        std::fs::create_dir_all(data).map_err(|error| error.to_string())?; // it may not have lasted
        let engine =
            open_engine(Box::new(self.log.clone()), data).map_err(|words| format!("no start: {words}"))?;
        let taken = engine.take_snapshot().map_err(|words| format!("no other snapshot: {words}"))?;
        engine.stop().map_err(|error| error.to_string())?;
        // What it wrote is the state that it started in.
        let head = self.digests.keys().next_back().copied();
        if Some(taken.sequence) != head || self.check_all(&dir)? != head {
            return Err(format!("the log ends at {head:?}, and the next snapshot is of {}", taken.sequence));
        }
        Ok(newest)
    }

    /// Each manifest names a whole snapshot of what the log comes to there. Returns the newest.
    fn check_all(&self, dir: &SnapshotDir) -> Found {
        let all = dir.manifests(LOG).map_err(|error| error.to_string())?;
        let newest = all.first().map(|(sequence, _)| *sequence);
        for (sequence, manifest) in all {
            let loaded = manifest.and_then(|manifest| dir.load(manifest, SMALL));
            let (restored, _) = loaded.map_err(|error| format!("snapshot {sequence}: {error}"))?;
            if self.digests.get(&sequence) != Some(&restored.state.digest()) {
                return Err(format!("snapshot {sequence} is not what the log comes to"));
            }
        }
        Ok(newest)
    }

    /// Every kind of call, as [`calls`] tells them. Of the folder's syncs each is tried: each stands for another step.
    #[must_use]
    pub fn calls(&self) -> Vec<Calls> {
        let mut all = calls(&self.recorded.trace);
        all.iter_mut().filter(|calls| calls.call == "fsync").for_each(|calls| calls.tried = calls.count);
        all
    }

    /// What comes of each of these calls, as many as are tried, if the process dies of it, before or after it was done: the
    /// different outcomes, in order. To die of a call is to stop in the middle of the undisturbed trace, which this is.
    #[must_use]
    pub fn crashes(&self, calls: &Calls, is_kept: bool) -> Vec<Outcome> {
        let events = self.recorded.trace.events();
        let of_kind = kinds(&events).filter(|(_, kind)| *kind == calls.kind());
        let ends = of_kind.map(|(at, _)| at + usize::from(is_kept)).take(calls.tried as usize);
        different(ends.map(|end| match self.images(&events[..end]) {
            Ok(found) => Outcome::Crash(found),
            Err(words) => Outcome::Broken(words),
        }))
    }

    /// Checks what a crash leaves at its end, and wherever since the fault somebody was told something.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_since_fault(&self) -> Result<(), String> {
        let events = self.recorded.trace.events();
        if !events.contains(&FAULT) {
            return Err("the call did not come".to_owned());
        }
        ends_since_fault(&events, usize::MAX)
            .into_iter()
            .try_for_each(|end| self.images(&events[..end]).map(drop))
    }

    /// How many snapshots failed.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.recorded.words.lines().filter(|line| line.starts_with("failed: ")).count()
    }

    fn outcome(&self) -> Result<Outcome, String> {
        if !self.recorded.status.success() {
            return Err(self.recorded.words.clone());
        }
        self.check_since_fault()?;
        let is_left_over = self.recorded.words.lines().any(|line| line == "left over");
        match (self.failures(), is_left_over) {
            (0, false) => Ok(Outcome::Progress),
            (0, true) => Ok(Outcome::LeftOver),
            (1, _) => Ok(Outcome::SnapshotFails),
            (more, _) => Err(format!("{more} snapshots failed of one call")),
        }
    }
}

/// What comes of each of these calls if it fails and the process goes on. As [`SnapshotRun::crashes`].
#[must_use]
pub fn snapshot_failures(driver: &Path, calls: &Calls, is_kept: bool) -> Vec<Outcome> {
    different((1..=calls.tried).map(|number| {
        let fault = calls.fault(number, is_kept);
        let run = run_snapshots(driver, Some(&fault));
        let broken = |words| Outcome::Broken(format!("{words} (SHIM_FAULT='{}')", fault.to_text()));
        run.outcome().unwrap_or_else(broken)
    }))
}
