//! The thread that writes snapshots: behind everything else, and in nobody's way.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use jeton_core::registry::Registry;
use jeton_core::snapshot::{Manifest, SnapshotCut, SnapshotPiece, SnapshotReport, SnapshotWriter, prune};

use super::pace::Pace;
use super::post::Post;
use crate::snapshots::SnapshotDir;

/// How long to wait between two looks at whether the event of a snapshot is durable.
const DURABLE_LOOK: Duration = Duration::from_millis(2);
/// Readers and writers go first where both are ready. No less than this: nobody is to wait for long for a lock of the file
/// system that this thread holds without a core.
const NICE: i32 = 5;

/// What the sequencer's thread hands over.
#[derive(Debug)]
pub(super) enum SnapshotInput {
    /// A new snapshot.
    Begin(Box<SnapshotCut>),
    /// A piece of it.
    Piece(SnapshotPiece),
    /// It has all pieces.
    Whole,
}

/// What came of a snapshot, in the words for whoever asked for it.
pub(super) type SnapshotResult = Result<SnapshotReport, String>;

pub(super) struct SnapshotThread {
    /// `None`: none are written.
    pub(super) dir: Option<SnapshotDir>,
    pub(super) input: Receiver<SnapshotInput>,
    pub(super) results: Post<SnapshotResult>,
    pub(super) registry: Arc<Registry>,
    pub(super) is_stopping: Arc<AtomicBool>,
    /// Set once there is a snapshot: what comes behind it is to have a segment of its own.
    pub(super) close_segment: Arc<AtomicBool>,
    /// The last snapshot that this index was written to or restored from.
    pub(super) before: Option<Manifest>,
}

impl SnapshotThread {
    /// Runs until nobody can hand it anything any more.
    pub(super) fn run(mut self) {
        // For this thread alone, as Linux has it. Without it snapshots cost readers more, no more than that.
        let _ = rustix::process::setpriority_process(None, NICE);
        while let Ok(input) = self.input.recv() {
            // Pieces of one that was given up are let go.
            let SnapshotInput::Begin(cut) = input else { continue };
            let began = Instant::now();
            let log = self.registry.log();
            let result = self.write(*cut);
            // What older ones needed goes, and what was written for nothing.
            if let Some(mut dir) = self.dir.clone().filter(|dir| dir.path().is_dir())
                && let Err(error) = prune(&mut dir, log)
            {
                tracing::warn!(%error, "what older snapshots needed is not removed yet");
            }
            say(&result, began.elapsed());
            if self.results.send(result.map_err(|error| error.to_string())).is_err() {
                return;
            }
        }
    }

    fn write(&mut self, cut: SnapshotCut) -> io::Result<SnapshotReport> {
        let dir = self.dir.clone();
        let mut dir = dir.ok_or_else(|| io::Error::other("there is no folder for snapshots"))?;
        dir.prepare()?;
        let mut writer = SnapshotWriter::new(cut, self.before.clone());
        let mut pace = Pace::new();
        loop {
            match self.input.recv() {
                Ok(SnapshotInput::Piece(piece)) => {
                    writer.take(piece, &mut dir)?;
                    pace.rest();
                    self.check_stopping()?;
                }
                Ok(SnapshotInput::Whole) => break,
                Ok(SnapshotInput::Begin(_)) => return Err(io::Error::other("it was begun anew")),
                Err(_) => return Err(io::Error::other("the server stops")),
            }
        }
        while writer.write_next(&mut dir)? {
            pace.rest();
            self.check_stopping()?;
        }
        while !writer.may_commit(self.registry.published()) {
            self.check_stopping()?;
            if self.registry.log_failed() {
                return Err(io::Error::other("the log failed"));
            }
            std::thread::sleep(DURABLE_LOOK);
        }
        let (manifest, report) = writer.commit(self.registry.published(), &mut dir)?;
        self.before = Some(manifest);
        self.close_segment.store(true, Ordering::Release);
        Ok(report)
    }

    fn check_stopping(&self) -> io::Result<()> {
        if self.is_stopping.load(Ordering::Acquire) {
            return Err(io::Error::other("the server stops"));
        }
        Ok(())
    }
}

fn say(result: &io::Result<SnapshotReport>, took: Duration) {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(report) => tracing::info!(
            event = report.sequence.0,
            tokens = report.tokens,
            bytes = report.bytes,
            bytes_written = report.bytes_written,
            took_ms,
            "a snapshot was written"
        ),
        Err(error) => tracing::warn!(
            %error,
            took_ms,
            "no snapshot was written: the one before stays, and the log has everything"
        ),
    }
}
