//! Which changes are made: in the gate each byte of what has no padding, of every header of a small image, and in a larger one of
//! those of three batches a segment; each cut between two records, and positions by seed. In the long run to a small image each
//! change that there is.

use std::path::{Path, PathBuf};

use jeton::snapshots::SNAPSHOTS_DIR;
use jeton_core::snapshot::is_part_name;

use super::change::{Change, SECTOR_BYTES};
use super::image::Image;
use super::layout::Layout;
use crate::sim::rng::Rng;

/// What of an anchor's slot of 4,096 bytes is not padding.
const ANCHOR_CONTENT_BYTES: usize = 104;
const ANCHOR_SLOT_BYTES: usize = 4_096;
/// The gate looks at every so many bytes of an anchor's padding; a unit test of the anchor looks at all.
const ANCHOR_PADDING_STEP: usize = 64;
/// Envelope and header of a batch within sled's value.
const BATCH_HEADERS_BYTES: usize = 40 + 128;
/// Of the batches of a segment so many have each byte of their headers changed in the gate, the first, the last, and those in
/// between at even distances; of a small image all have ([`every_header`]).
const BATCHES_PER_SEGMENT: usize = 3;

/// The gate's changes, `seeded` of them at positions that follow from the seed.
pub fn gate(image: &Image, seed: u64, seeded: usize) -> Vec<Change> {
    let mut rng = Rng::new(seed);
    let mut changes = headers(image, BATCHES_PER_SEGMENT, &mut rng);
    changes.extend(cuts(image));
    changes.extend(wholes(image));
    changes.extend((0..seeded).map(|_| anywhere(image, &mut rng)));
    changes
}

/// A bit of every byte of every header in sled's files, of each batch too, and each cut between two records there, and of every
/// byte of the manifests of snapshots, whose parts have no headers; for an image with few batches.
pub fn every_header(image: &Image, seed: u64) -> Vec<Change> {
    let mut changes = headers(image, usize::MAX, &mut Rng::new(seed));
    changes.extend(cuts(image));
    let is_manifest = |path: &Path| path.starts_with(SNAPSHOTS_DIR) && !is_part(path);
    changes.retain(|change| change.path().ends_with("db") || is_manifest(change.path()));
    changes
}

/// Every change there is to one place of one file of the log or of a snapshot: each bit of each byte, all eight at once, each
/// length, each sector; beside files and folders as a whole. For an image that is small.
pub fn all(image: &Image) -> Vec<Change> {
    let mut changes = wholes(image);
    for (file, bytes) in of_log(image) {
        for (at, byte) in bytes.iter().enumerate() {
            changes.extend((0..8).map(|bit| Change::Flip { file: file.clone(), at, bit }));
            changes.push(Change::Set { file: file.clone(), at, value: !byte });
            changes.push(Change::Cut { file: file.clone(), bytes: at });
        }
        let sectors = (0..bytes.len()).step_by(SECTOR_BYTES);
        changes.extend(sectors.map(|at| Change::Zero { file: file.clone(), at }));
    }
    changes
}

/// The files of the log, of snapshots, and those that name and lock the log.
fn of_log(image: &Image) -> impl Iterator<Item = (&PathBuf, &Vec<u8>)> {
    image.files.iter().filter(|(path, _)| !path.starts_with("identities"))
}

fn flip(file: &Path, at: usize, rng: &mut Rng) -> Change {
    Change::Flip { file: file.to_owned(), at, bit: u8::try_from(rng.below(8)).expect("a bit of a byte") }
}

fn headers(image: &Image, batches_per_segment: usize, rng: &mut Rng) -> Vec<Change> {
    let mut changes = Vec::new();
    for (file, bytes) in of_log(image) {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let positions: Vec<usize> = match name.as_str() {
            "db" => headers_of(bytes, batches_per_segment),
            "anchor" => (0..bytes.len())
                .filter(|at| at % ANCHOR_SLOT_BYTES < ANCHOR_CONTENT_BYTES || at % ANCHOR_PADDING_STEP == 0)
                .collect(),
            _ => (0..bytes.len()).collect(), // conf, log.id, LOCK, sled's snapshots: all of them is header
        };
        changes.extend(positions.into_iter().map(|at| flip(file, at, rng)));
    }
    changes
}

fn headers_of(bytes: &[u8], batches_max: usize) -> Vec<usize> {
    let layout = Layout::of(bytes);
    let mut positions: Vec<usize> =
        layout.segments.iter().chain(&layout.messages).cloned().flatten().collect();
    let batches: Vec<usize> =
        bytes.windows(4).enumerate().filter(|(_, four)| four == b"JTNB").map(|(at, _)| at).collect();
    let chosen = batches.len().min(batches_max);
    for of in 0..chosen {
        let batch = batches[(batches.len() - 1) * of / (chosen - 1).max(1)];
        let begins = batch.saturating_sub(40);
        positions.extend(begins..bytes.len().min(begins + BATCH_HEADERS_BYTES));
    }
    positions
}

fn cuts(image: &Image) -> Vec<Change> {
    let mut changes = Vec::new();
    for (file, bytes) in of_log(image) {
        let lengths = match file.file_name().and_then(|name| name.to_str()) {
            Some("db") => {
                let layout = Layout::of(bytes);
                layout.segments.iter().map(|header| header.start).chain(layout.ends).collect()
            }
            Some("anchor") => vec![0, 1, ANCHOR_CONTENT_BYTES, ANCHOR_SLOT_BYTES, bytes.len() - 1],
            _ => (0..bytes.len()).collect(),
        };
        let real = lengths.into_iter().filter(|length| *length < bytes.len());
        changes.extend(real.map(|length| Change::Cut { file: file.clone(), bytes: length }));
    }
    changes
}

/// Files and folders that are gone, that of another log, at each other's place or there twice.
fn wholes(image: &Image) -> Vec<Change> {
    let segments = image.segments();
    let mut paths: Vec<PathBuf> = of_log(image).map(|(file, _)| file.clone()).collect();
    paths.extend(segments.iter().cloned());
    paths.push("log".into());
    let parts: Vec<PathBuf> = paths.iter().filter(|path| is_part(path)).cloned().collect();
    paths.extend((!parts.is_empty()).then(|| SNAPSHOTS_DIR.into()));
    let mut changes = Vec::new();
    for path in paths {
        changes.push(Change::Delete(path.clone()));
        changes.push(Change::Foreign(path));
    }
    let dbs: Vec<PathBuf> = image.segment_files("db").cloned().collect();
    for of_one_kind in [dbs, parts] {
        for (at, one) in of_one_kind.iter().enumerate() {
            let others = of_one_kind[at + 1..].iter().cloned();
            changes.extend(others.map(|other| Change::Swap(one.clone(), other)));
        }
    }
    for segment in &segments {
        let first: u64 = number_of(segment);
        for twin in [first + 1, first.saturating_sub(1), image.events + 1, image.events + 100] {
            let to = segment.with_file_name(format!("{twin:020}"));
            if !segments.contains(&to) {
                changes.push(Change::Duplicate(segment.clone(), to));
            }
        }
    }
    changes
}

fn is_part(path: &Path) -> bool {
    path.starts_with(SNAPSHOTS_DIR)
        && path.file_name().is_some_and(|name| is_part_name(&name.to_string_lossy()))
}

fn number_of(segment: &Path) -> u64 {
    segment.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).unwrap_or_default()
}

fn anywhere(image: &Image, rng: &mut Rng) -> Change {
    // By bytes, so that most of them hit the log's content.
    let total: u64 = of_log(image).map(|(_, bytes)| bytes.len() as u64).sum();
    let mut at = usize::try_from(rng.below(total)).expect("a small directory");
    let mut hit = None;
    for (file, bytes) in of_log(image) {
        if at < bytes.len() {
            hit = Some((file, bytes));
            break;
        }
        at -= bytes.len();
    }
    let (file, bytes) = hit.expect("the position lies in a file");
    match rng.below(10) {
        0..5 => flip(file, at, rng),
        5..7 => Change::Set { file: file.clone(), at, value: !bytes[at] },
        7..9 => Change::Zero { file: file.clone(), at },
        _ => Change::Cut { file: file.clone(), bytes: at },
    }
}
