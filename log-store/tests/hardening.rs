//! The sled store where sled alone would not do: each test a point of docs/DURABILITY.md.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use jeton_log_store::conformance::batch_after;
use jeton_log_store::{AppendError, AppendKind, Damage, LogStore, OpenError, Options, ReadError, SledStore};

const OPTIONS: Options =
    Options { segment_bytes: 256 << 20, cache_bytes: 16 << 20, space_reserve: 0, space_hard: 0 };

fn open(dir: &Path) -> Result<SledStore, OpenError> {
    SledStore::open(dir, OPTIONS, [5; 16])
}

fn fill(store: &mut SledStore, commits: u64) {
    for _ in 0..commits {
        let head = store.head();
        store.append(head, &[batch_after(head.sequence, 3, 400)], AppendKind::Ordinary).unwrap();
    }
}

fn filled(dir: &Path, commits: u64) {
    let mut store = open(dir).unwrap();
    fill(&mut store, commits);
    Box::new(store).close().unwrap();
}

fn segment(dir: &Path) -> std::path::PathBuf {
    dir.join("log").join(format!("{:020}", 1))
}

/// Every file below a directory with its bytes.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { all.push((path.clone(), fs::read(path).unwrap())) }
        }
    }
    all.sort();
    all.retain(|(path, _)| !path.ends_with("LOCK"));
    all
}

#[test]
fn a_second_opener_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).unwrap();
    for second in [open(dir.path()), SledStore::open_read_only(dir.path(), OPTIONS)] {
        let message = second.unwrap_err().to_string();
        assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
    }
}

#[test]
fn reading_only_changes_nothing_and_needs_a_log() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(SledStore::open_read_only(dir.path(), OPTIONS), Err(OpenError::Missing { .. })));
    filled(dir.path(), 20);
    let before = contents(dir.path());
    let mut store = SledStore::open_read_only(dir.path(), OPTIONS).unwrap();
    assert_eq!(store.read_from(1, 1 << 20).unwrap().len(), 20);
    let head = store.head();
    let append = store.append(head, &[batch_after(60, 1, 1)], AppendKind::Essential);
    assert!(matches!(append, Err(AppendError::Indeterminate(_))));
    drop(store);
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn a_log_that_lost_its_tail_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let early = tempfile::tempdir().unwrap();
    for (path, bytes) in contents(&segment(dir.path())) {
        fs::write(early.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    filled(dir.path(), 2);
    fs::remove_dir_all(segment(dir.path())).unwrap();
    fs::create_dir(segment(dir.path())).unwrap();
    for (path, bytes) in contents(early.path()) {
        fs::write(segment(dir.path()).join(path.file_name().unwrap()), bytes).unwrap();
    }
    let before = contents(dir.path());
    for refused in [open(dir.path()), SledStore::open_read_only(dir.path(), OPTIONS)] {
        match refused {
            Err(OpenError::Damaged(Damage { first_broken, reason })) => {
                assert_eq!(first_broken, 10);
                assert_eq!(reason, "the log ends at 9, but its anchor says that it reached 15");
            }
            other => panic!("not refused: {other:?}"),
        }
    }
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn a_log_without_its_anchor_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    fs::remove_file(dir.path().join("log/anchor")).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::AnchorLost { events: 9, .. })));
    fs::write(dir.path().join("log/anchor"), [1; 8192]).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::AnchorLost { events: 9, .. })));
}

/// Reads the whole log; the number of events read, or what is wrong.
fn read_through(dir: &Path) -> Result<u64, String> {
    let mut store = SledStore::open_read_only(dir, OPTIONS).map_err(|error| error.to_string())?;
    let mut next = 1;
    loop {
        let page = store.read_from(next, 10_000).map_err(|error| error.to_string())?;
        match page.last() {
            None => return Ok(next - 1),
            Some(last) => next = last.last + 1,
        }
    }
}

#[test]
fn a_byte_changed_in_the_segment_is_refused_by_number_or_without_effect_and_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 30);
    let db = segment(dir.path()).join("db");
    let whole = fs::read(&db).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    for at in (0..used).step_by(used / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(&db, &bytes).unwrap();
        let before = contents(dir.path());
        match read_through(dir.path()) {
            Ok(90) => harmless += 1,
            Ok(other) => panic!("byte {at}: {other} events read without a word"),
            Err(message) => {
                assert!(message.contains("broken at sequence number"), "byte {at}: {message}");
                refused += 1;
            }
        }
        assert_eq!(contents(dir.path()), before, "byte {at}");
    }
    assert!(refused > 0, "{refused} refused, {harmless} without effect");
}

#[test]
fn a_crash_between_commits_loses_nothing_and_leftovers_are_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    fill(&mut store, 5);
    let image = tempfile::tempdir().unwrap();
    for (path, bytes) in contents(dir.path()) {
        let to = image.path().join(path.strip_prefix(dir.path()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
    fs::write(segment(image.path()).join("snap.00000000000000FF.generating"), b"cut short").unwrap();
    fs::create_dir(image.path().join("log/scratch-old")).unwrap();
    fs::create_dir(image.path().join("log").join(format!("{:020}", 16))).unwrap();
    let mut after = open(image.path()).unwrap();
    assert_eq!(after.head().sequence, 15);
    fill(&mut after, 1);
    assert!(!image.path().join("log/scratch-old").exists());
}

#[test]
fn what_a_crash_left_behind_the_anchor_is_anchored_before_it_is_served() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 2);
    let anchor = dir.path().join("log/anchor");
    let older = fs::read(&anchor).unwrap();
    filled(dir.path(), 3);
    fs::write(&anchor, older).unwrap();
    let mut store = open(dir.path()).unwrap();
    assert_eq!((store.head().sequence, store.anchor().unwrap().position.sequence), (15, 6));
    store.begin_writing().unwrap();
    drop(store);
    let store = SledStore::open_read_only(dir.path(), OPTIONS).unwrap();
    assert_eq!(store.anchor().unwrap().position, store.head());
}

#[test]
fn old_segments_go_as_wholes_and_the_rest_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1, ..OPTIONS };
    let mut store = SledStore::open(dir.path(), options, [5; 16]).unwrap();
    fill(&mut store, 4);
    assert_eq!(store.trim_before(8), Ok(7));
    assert_eq!(store.read_from(3, 100), Err(ReadError::Trimmed { first: 7 }));
    assert_eq!(store.read_from(7, 100).unwrap()[0].first, 7);
    drop(store);
    assert_eq!(SledStore::open(dir.path(), options, [5; 16]).unwrap().first(), 7);
}

#[test]
fn a_removal_that_was_cut_short_is_finished_by_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1, ..OPTIONS };
    let mut store = SledStore::open(dir.path(), options, [5; 16]).unwrap();
    fill(&mut store, 3);
    Box::new(store).close().unwrap();
    let aside = segment(dir.path()).with_extension("trimmed");
    fs::rename(segment(dir.path()), &aside).unwrap();
    fs::remove_file(aside.join("db")).unwrap();
    let mut store = SledStore::open(dir.path(), options, [5; 16]).unwrap();
    assert_eq!((store.first(), store.head().sequence), (4, 9));
    fill(&mut store, 1);
    assert_eq!(store.trim_before(8), Ok(7));
    let left = fs::read_dir(dir.path().join("log")).unwrap();
    let left = left.filter(|entry| entry.as_ref().unwrap().path().extension().is_some()).count();
    assert_eq!(left, 0, "nothing is left of what was removed");
}

#[test]
fn closed_segments_are_read_beside_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1, ..OPTIONS };
    let mut store = SledStore::open(dir.path(), options, [5; 16]).unwrap();
    let mut archive = store.archive();
    fill(&mut store, 4);
    assert_eq!(store.open_from(), 10, "every commit of three has a segment of its own");
    for sequence in [1, 5, 9, 2, 8] {
        assert_eq!(archive.read_from(sequence, 100), store.read_from(sequence, 100), "{sequence}");
        fill(&mut store, 1);
    }
    store.trim_before(8).unwrap();
    assert_eq!(archive.read_from(3, 100), Err(ReadError::Trimmed { first: 7 }));
}

#[test]
fn a_nearly_full_disk_takes_revokes_and_a_full_one_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let append = |reserve, hard, kind| {
        let options = Options { space_reserve: reserve, space_hard: hard, ..OPTIONS };
        let mut store = SledStore::open(dir.path(), options, [5; 16]).unwrap();
        let head = store.head();
        store.append(head, &[batch_after(head.sequence, 1, 10)], kind).map(drop)
    };
    assert_eq!(append(0, 0, AppendKind::Ordinary), Ok(()));
    assert!(matches!(append(u64::MAX, 0, AppendKind::Ordinary), Err(AppendError::Full { .. })));
    assert_eq!(append(u64::MAX, 0, AppendKind::Essential), Ok(()));
    assert!(matches!(append(u64::MAX, u64::MAX, AppendKind::Essential), Err(AppendError::Full { .. })));
}

#[test]
fn what_lies_in_the_folder_that_sled_never_syncs_poisons_the_log() {
    for commits_before in [0, 2] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path()).unwrap();
        fill(&mut store, 1 + commits_before);
        fs::write(segment(dir.path()).join("blobs/7"), b"a value too large for its buffer").unwrap();
        let head = store.head();
        let append = |store: &mut SledStore| {
            store.append(head, &[batch_after(head.sequence, 1, 10)], AppendKind::Ordinary)
        };
        let told = append(&mut store).unwrap_err();
        assert!(matches!(&told, AppendError::Indeterminate(why) if why.contains("blob")), "{told:?}");
        assert!(matches!(append(&mut store), Err(AppendError::Poisoned(_))));
    }
}

/// sled writes this file in two steps.
fn half_a_conf(dir: &Path) -> Vec<u8> {
    let conf = fs::read(segment(dir).join("conf")).unwrap();
    conf[..conf.len() / 2].to_vec()
}

#[test]
fn what_a_crash_left_of_a_rotation_is_gone_on_in_if_it_is_whole_and_else_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 4);
    for (is_torn, is_behind_the_anchor) in [(false, true), (true, true), (false, false)] {
        let head = SledStore::open_read_only(dir.path(), OPTIONS).unwrap().head();
        let first = head.sequence + if is_behind_the_anchor { 1 } else { 2 };
        let left = dir.path().join("log").join(format!("{first:020}"));
        fs::create_dir_all(&left).unwrap();
        if is_torn {
            fs::write(left.join("conf"), half_a_conf(dir.path())).unwrap();
            fs::write(left.join("db"), "").unwrap();
        }
        let mut store = open(dir.path()).unwrap();
        assert_eq!(store.head(), head);
        fill(&mut store, 1);
        let behind = store.read_from(head.sequence + 1, 1 << 20).unwrap();
        assert_eq!(behind, [batch_after(head.sequence, 3, 400)], "the log goes on where it was");
        assert_eq!(store.read_from(head.sequence, 1 << 20).unwrap()[0].last, head.sequence);
        Box::new(store).close().unwrap();
        let is_used = !is_torn && is_behind_the_anchor;
        assert_eq!(left.exists(), is_used, "no other is left to be met in the middle of the log");
        assert_eq!(read_through(dir.path()), Ok(head.sequence + 3));
    }
}

/// Twenty megabytes in commits of many batches, so that it takes few of them.
fn fill_twenty_megabytes(store: &mut SledStore) {
    let end = store.head().sequence + 9_000;
    while store.head().sequence < end {
        let head = store.head();
        let batches: Vec<_> = (0..100).map(|at| batch_after(head.sequence + 3 * at, 3, 6_900)).collect();
        store.append(head, &batches, AppendKind::Ordinary).unwrap();
    }
}

#[test]
fn a_segment_that_was_closed_is_not_opened_by_a_start_even_if_nothing_came_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    fill_twenty_megabytes(&mut store);
    store.close_segment().unwrap();
    let head = store.head();
    drop(store); // as a kill would
    let db = segment(dir.path()).join("db");
    let whole = fs::read(&db).unwrap();
    fs::write(&db, &whole[..whole.len() / 2]).unwrap();
    let mut store = open(dir.path()).unwrap();
    assert_eq!(store.head(), head, "known from the anchor");
    assert_eq!(store.read_from(head.sequence + 1, 1 << 20), Ok(Vec::new()));
    let in_the_damaged = store.read_from(head.sequence, 1 << 20);
    assert!(in_the_damaged.is_err(), "{in_the_damaged:?}");
    // And it is the last that holds something, so it stays, whatever is to go.
    assert_eq!(store.trim_before(head.sequence + 1), Ok(1));
    drop(store);
    let is_missed = || {
        let refused = open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("its anchor says that it reached {}", head.sequence)), "{refused}");
    };
    fs::write(&db, b"").unwrap();
    is_missed();
    let aside = dir.path().join("aside");
    fs::rename(segment(dir.path()), &aside).unwrap();
    is_missed();
    fs::rename(&aside, segment(dir.path())).unwrap();
    fs::write(&db, &whole).unwrap();
    let mut store = open(dir.path()).unwrap();
    fill(&mut store, 1);
    drop(store);
    assert_eq!(read_through(dir.path()), Ok(head.sequence + 3));
}

#[test]
fn a_segment_that_the_anchor_reaches_is_never_taken_for_a_leftover() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1, ..OPTIONS };
    let mut store = SledStore::open(dir.path(), options, [5; 16]).unwrap();
    fill(&mut store, 3);
    drop(store); // as a crash would: the anchor was synced with the first commit of each segment
    let last = dir.path().join("log").join(format!("{:020}", 7));
    let whole = fs::read(last.join("db")).unwrap();
    for damaged in [b"".to_vec(), vec![0; whole.len()], whole[..whole.len() / 2].to_vec()] {
        fs::write(last.join("db"), damaged).unwrap();
        let refused = open(dir.path()).unwrap_err().to_string();
        assert!(refused.starts_with("the log is broken at sequence number 7: "), "{refused}");
    }
}

/// Of another version of sled, and whole: not ours to replace.
fn another_conf() -> Vec<u8> {
    let mut other = b"segment_size: 524288\nuse_compression: false\nversion: 0.99\n".to_vec();
    other.extend_from_slice(&crc32fast::hash(&other).to_le_bytes());
    other
}

#[test]
fn a_damaged_conf_is_put_right_and_kept_and_one_that_is_whole_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let conf = segment(dir.path()).join("conf");
    let whole = fs::read(&conf).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        bytes
    };
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(flipped).collect();
    damaged.extend((0..whole.len()).map(|length| whole[..length].to_vec()));
    for bytes in damaged {
        fs::write(&conf, &bytes).unwrap();
        let before = contents(dir.path());
        assert_eq!(read_through(dir.path()), Ok(9), "{bytes:?}");
        assert_eq!(contents(dir.path()), before, "reading changes nothing");
    }
    fs::write(&conf, flipped(3)).unwrap();
    filled(dir.path(), 1);
    assert_eq!(fs::read(&conf).unwrap(), whole);
    assert_eq!(fs::read(segment(dir.path()).join("conf.damaged")).unwrap(), flipped(3));
    fs::remove_file(&conf).unwrap();
    assert_eq!(read_through(dir.path()), Ok(12));
    fs::write(&conf, another_conf()).unwrap();
    assert!(read_through(dir.path()).unwrap_err().contains("0.99"));
}

#[test]
fn what_is_refused_after_it_was_read_was_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let before = contents(dir.path());
    let store = open(dir.path()).unwrap();
    drop(store); // whoever read it did not like it
    let is_log = |(path, _): &(std::path::PathBuf, Vec<u8>)| path.to_string_lossy().contains("/log/");
    let of = |all: Vec<_>| all.into_iter().filter(is_log).collect::<std::collections::BTreeMap<_, _>>();
    assert!(of(before) == of(contents(dir.path())), "nothing changed before the first append");
}

#[test]
fn a_log_that_is_gone_is_missed_and_another_one_is_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 2);
    let kept = dir.path().join("kept");
    fs::rename(dir.path().join("log"), &kept).unwrap();
    let gone = open(dir.path()).unwrap_err().to_string();
    assert!(gone.contains("holds none"), "{gone}");
    let other = tempfile::tempdir().unwrap();
    let mut store = SledStore::open(other.path(), OPTIONS, [6; 16]).unwrap();
    fill(&mut store, 1);
    Box::new(store).close().unwrap();
    let _ = fs::remove_dir_all(dir.path().join("log"));
    fs::rename(other.path().join("log"), dir.path().join("log")).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Another { .. })));
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    fs::rename(kept, dir.path().join("log")).unwrap();
    assert_eq!(open(dir.path()).unwrap().head().sequence, 6);
}

#[test]
fn a_damaged_log_can_still_be_read_for_repair_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 5);
    fs::remove_file(dir.path().join("log/anchor")).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::AnchorLost { .. })));
    let mut store = SledStore::open_for_repair(dir.path(), OPTIONS).unwrap();
    assert_eq!((store.head().sequence, store.anchor()), (15, None));
    assert_eq!(store.read_from(1, 1 << 20).unwrap().len(), 5);
}

#[test]
fn a_log_whose_last_segment_does_not_open_can_still_be_read_for_repair_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1, ..OPTIONS };
    let mut store = SledStore::open(dir.path(), options, [5; 16]).unwrap();
    fill(&mut store, 3);
    drop(store);
    let last = dir.path().join("log").join(format!("{:020}", 7));
    fs::write(last.join("conf"), another_conf()).unwrap();
    let mut store = SledStore::open_for_repair(dir.path(), OPTIONS).unwrap();
    assert_eq!(store.first(), 1);
    assert_eq!(store.read_from(1, 1 << 20).unwrap().last().unwrap().last, 3);
    assert_eq!(store.read_from(4, 1 << 20).unwrap().last().unwrap().last, 6);
    assert!(matches!(store.read_from(7, 1 << 20), Err(ReadError::Damaged(Damage { first_broken: 7, .. }))));
}

#[test]
fn a_first_start_that_was_cut_short_at_any_step_is_made_good_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 1);
    let name = dir.path().join("log.id");
    let named = fs::read(&name).unwrap();
    for content in [None, Some("")] {
        fs::remove_file(&name).unwrap();
        if let Some(content) = content {
            fs::write(&name, content).unwrap();
        }
        drop(open(dir.path()).unwrap());
        assert_eq!(fs::read(&name).unwrap(), named);
    }
    let fresh = tempfile::tempdir().unwrap();
    fs::write(fresh.path().join("log.id"), "").unwrap();
    assert_eq!(open(fresh.path()).unwrap().log_id(), [5; 16]);
    fs::write(&name, "nonsense").unwrap();
    let refused = open(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("remove it if"), "{refused}");
}

#[test]
fn a_segment_that_is_to_be_closed_is_if_it_is_worth_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    let segments = || {
        fs::read_dir(dir.path().join("log")).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir())
    };
    fill(&mut store, 2);
    store.close_segment().unwrap();
    fill(&mut store, 2);
    assert_eq!(segments().count(), 1, "for a few kilobytes none is closed");
    fill_twenty_megabytes(&mut store);
    fill(&mut store, 1);
    assert_eq!(segments().count(), 2, "the word given before still counts");
    fill(&mut store, 3);
    let head = store.head();
    Box::new(store).close().unwrap();
    assert_eq!(open(dir.path()).unwrap().head(), head);
}
