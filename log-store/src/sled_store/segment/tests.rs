#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::os::unix::fs::MetadataExt as _;

use super::*;

const CACHE_BYTES: u64 = 4 << 20;

/// Commits as they come: most are small, one in forty is as large as half a segment of sled's own. Returns the last event.
fn commit_next(segment: &Segment, commits: u64, last: u64) -> u64 {
    let (count, bytes) = match commits % 40 {
        39 => (40, 6_000),
        9 | 19 | 29 => (3, 4_000),
        _ => (1, 500),
    };
    let batch = |first| StoredBatch { first, last: first, chain: [7; 32], bytes: vec![first as u8; bytes] };
    let batches: Vec<_> = (last + 1..=last + count).map(batch).collect();
    segment.commit(&batches).unwrap();
    last + count
}

#[track_caller]
fn head(path: &Path) -> Option<u64> {
    Segment::open_copy(path, CACHE_BYTES).unwrap().head().unwrap().map(|head| head.sequence)
}

/// Without its snapshot sled takes a segment whose beginning was overwritten for empty, shows what it once was, or panics over
/// what it misses: which of them depends on what its threads were about.
fn is_read_whole(path: &Path, last: u64) -> bool {
    match Segment::open_copy(path, CACHE_BYTES).and_then(|segment| segment.head()) {
        Ok(head) => head.is_some_and(|head| head.sequence == last),
        Err(SegmentError::Damaged(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

fn remove_snapshots(path: &Path) {
    sled_snapshots(path).unwrap().iter().for_each(|snapshot| fs::remove_file(snapshot).unwrap());
}

fn copied(path: &Path, copy: &Path) {
    let _ = fs::remove_dir_all(copy);
    copy_dir(path, copy).unwrap();
}

fn give(copy: &Path, to: &Path) {
    give_snapshots(&Segment::open_copy(copy, CACHE_BYTES).unwrap().made_snapshots().unwrap(), to).unwrap();
}

/// What a power cut may leave of a segment while it is opened: the bytes as sled has changed them by then, no new name, and
/// of the snapshots that were there the newest, or none.
fn cut_off_while_it_is_opened(path: &Path, copy: &Path, has_newest: bool) {
    copied(path, copy);
    head(copy).unwrap();
    remove_snapshots(copy);
    if let Some(newest) = sled_snapshots(path).unwrap().last().filter(|_| has_newest) {
        fs::copy(newest, copy.join(newest.file_name().unwrap())).unwrap();
    }
}

#[test]
fn what_sled_makes_of_a_segment_is_there_before_sled_opens_it_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("segment"), dir.path().join("copy"));
    // Until nothing that is in use lies where the database began: that sled overwrites.
    let (mut commits, mut last) = (0, 0);
    while commits < 80 || {
        cut_off_while_it_is_opened(&path, &copy, false);
        is_read_whole(&copy, last)
    } {
        assert!(commits < 800, "sled overwrites no beginning any more");
        let segment = Segment::open(&path, CACHE_BYTES).unwrap();
        for _ in 0..4 {
            last = commit_next(&segment, commits, last);
            commits += 1;
        }
    }
    copied(&path, &copy);
    give(&copy, &path);
    let given = sled_snapshots(&path).unwrap().pop().unwrap();
    let inode = fs::metadata(&given).unwrap().ino();
    cut_off_while_it_is_opened(&path, &copy, true);
    assert_eq!(head(&copy), Some(last), "what was given is enough");
    drop(Segment::open(&path, CACHE_BYTES).unwrap());
    assert_eq!(sled_snapshots(&path).unwrap(), [given.as_path()], "sled had nothing to write or remove");
    assert_eq!(fs::metadata(&given).unwrap().ino(), inode, "and has not written it again");
    assert_eq!(head(&path), Some(last));
}

#[test]
fn of_several_snapshots_the_newest_is_left_once_the_segment_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("segment"), dir.path().join("copy"));
    let mut last = 0;
    for commits in 0..3 {
        let segment = Segment::open(&path, CACHE_BYTES).unwrap();
        assert!(sled_snapshots(&path).unwrap().len() <= 1);
        last = commit_next(&segment, commits, last);
        drop(segment);
        copied(&path, &copy);
        give(&copy, &path);
    }
    assert_eq!(sled_snapshots(&path).unwrap().len(), 2);
}
