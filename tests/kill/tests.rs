//! The ledger lets pass what may be, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jeton_client::{Answer, IdempotencyKey, Seconds, Sequence, Token, Verdict};

use super::{Ledger, Target, Told, Write, check_snapshots};
use crate::damage::Image;

const KEY: IdempotencyKey = IdempotencyKey([1; 16]);
const NOW: Seconds = Seconds(1_000);
const END: Seconds = Seconds(9_000);

fn tokens(from: u8, count: u8) -> Vec<Token> {
    (from..from + count).map(|number| Token::from_bytes([number; 32])).collect()
}

fn issue(uses: u32, parent: Option<usize>, count: usize) -> Write {
    Write::Issue { subject: 1, count, resource: 1, uses, renewable: uses == 0, parent, key: KEY }
}

/// Two tokens without a limit and one with two uses.
fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    for (from, count, uses) in [(1, 2, 0), (3, 1, 2)] {
        ledger.begin(issue(uses, None, usize::from(count)));
        ledger.told(Told::Issued(tokens(from, count), NOW, END), Sequence(1), false).unwrap();
    }
    ledger
}

fn said(verdicts: &[Verdict]) -> Vec<Answer> {
    verdicts.iter().map(|verdict| Answer { verdict: *verdict, ..Answer::default() }).collect()
}

fn check(ledger: &Ledger, verdicts: [Verdict; 3]) -> bool {
    ledger.check(&[0, 1, 2], &said(&verdicts)).is_ok()
}

const ALIVE: [Verdict; 3] = [Verdict::Valid, Verdict::Valid, Verdict::ConsumeRequired];
const DEAD: [Verdict; 3] = [Verdict::Revoked; 3];

fn revoke(ledger: &mut Ledger, target: Target, count: u64) -> Result<(), String> {
    ledger.begin(Write::Revoke { target, key: None });
    ledger.told(Told::Revoked(count), Sequence(2), false)
}

#[test]
fn what_was_issued_is_good_and_what_was_revoked_is_dead() {
    let mut ledger = ledger();
    assert!(check(&ledger, ALIVE));
    assert!(!check(&ledger, [Verdict::Unknown, Verdict::Valid, Verdict::ConsumeRequired]));
    assert!(!check(&ledger, [Verdict::Valid, Verdict::Valid, Verdict::Spent]));
    revoke(&mut ledger, Target::Id(0), 1).unwrap();
    assert!(check(&ledger, [Verdict::Revoked, Verdict::Valid, Verdict::ConsumeRequired]));
    assert!(!check(&ledger, ALIVE));
    revoke(&mut ledger, Target::Resource(1), 1).unwrap();
    assert!(check(&ledger, DEAD));
    assert!(!check(&ledger, [Verdict::Revoked, Verdict::Revoked, Verdict::ConsumeRequired]));
}

#[test]
fn a_report_counts_exactly_what_died() {
    assert!(revoke(&mut ledger(), Target::Subject(1), 3).is_ok());
    assert!(revoke(&mut ledger(), Target::Subject(1), 2).is_err());
    assert!(revoke(&mut ledger(), Target::Subject(1), 4).is_err(), "a token nobody was given");
    assert!(revoke(&mut ledger(), Target::Family(1), 1).is_ok());
    assert!(revoke(&mut ledger(), Target::Client, 0).is_err());
}

#[test]
fn a_revoke_that_was_cut_off_happened_as_a_whole_or_not_at_all_and_stays_so() {
    for happened in [false, true] {
        let mut ledger = ledger();
        ledger.begin(Write::Revoke { target: Target::Subject(1), key: None });
        assert!(check(&ledger, ALIVE) && check(&ledger, DEAD));
        assert!(!check(&ledger, [Verdict::Revoked, Verdict::Valid, Verdict::ConsumeRequired]), "in part");
        ledger.settle(&said(if happened { &DEAD } else { &ALIVE })).unwrap();
        assert_eq!((check(&ledger, ALIVE), check(&ledger, DEAD)), (!happened, happened));
    }
}

#[test]
fn a_repeated_write_has_its_first_outcome() {
    let mut ledger = ledger();
    ledger.begin(Write::Revoke { target: Target::Id(0), key: Some(KEY) });
    assert!(ledger.told(Told::Revoked(0), Sequence(1), true).is_err(), "its key remembers that one died");
    let mut ledger = self::ledger();
    ledger.begin(Write::Revoke { target: Target::Id(0), key: Some(KEY) });
    ledger.told(Told::Revoked(1), Sequence(1), true).unwrap();
    assert!(ledger.told_again(Told::Revoked(0)).is_err());
    let mut ledger = self::ledger();
    ledger.told_again(Told::Issued(tokens(9, 1), NOW, END)).unwrap();
    assert!(ledger.check(&[2, 3], &said(&[Verdict::Revoked, Verdict::ConsumeRequired])).is_ok());
    assert!(
        ledger.check(&[2, 3], &said(&[Verdict::ConsumeRequired; 2])).is_err(),
        "two live tokens of one key"
    );
}

#[test]
fn no_use_is_ever_given_back() {
    let consume = |ledger: &mut Ledger, verdict, left| {
        ledger.begin(Write::Consume { token: 2, key: KEY });
        ledger.told(Told::Consumed(verdict, left), Sequence(0), false)
    };
    let mut whole = ledger();
    consume(&mut whole, Verdict::Valid, 1).unwrap();
    assert!(consume(&mut whole, Verdict::Valid, 1).is_err(), "the second use leaves none");
    let mut whole = ledger();
    consume(&mut whole, Verdict::Valid, 1).unwrap();
    consume(&mut whole, Verdict::Valid, 0).unwrap();
    assert!(consume(&mut whole, Verdict::Valid, 0).is_err(), "a third use of two");
    assert!(!check(&whole, ALIVE), "it is spent");

    // One that was cut off may have spent a use, and then it is spent for good.
    let mut open = ledger();
    open.begin(Write::Consume { token: 2, key: KEY });
    open.settle(&said(&ALIVE)).unwrap();
    consume(&mut open, Verdict::Valid, 0).unwrap();
    assert!(check(&open, [Verdict::Valid, Verdict::Valid, Verdict::Spent]));
    assert!(!check(&open, ALIVE));
    let mut unspent = ledger();
    unspent.begin(Write::Consume { token: 2, key: KEY });
    unspent.settle(&said(&ALIVE)).unwrap();
    assert!(unspent.inspected(2, NOW, Some((2, 2))).is_ok(), "it had not");
    assert!(unspent.inspected(2, NOW, Some((2, 1))).is_err(), "and that stays so");
}

#[test]
fn a_renewal_that_was_acknowledged_is_there_and_one_that_was_cut_off_may_be() {
    let mut renewed = ledger();
    renewed.begin(Write::Renew { token: 0 });
    renewed.told(Told::Renewed(Seconds(5_000)), Sequence(0), false).unwrap();
    assert!(renewed.inspected(0, NOW, None).is_err());
    assert!(renewed.inspected(0, Seconds(5_000), None).is_ok());
    let mut open = ledger();
    open.begin(Write::Renew { token: 0 });
    open.settle(&said(&ALIVE)).unwrap();
    assert!(open.inspected(0, Seconds(9_001), None).is_err(), "beyond its renewable life");
    assert!(open.inspected(0, Seconds(8_000), None).is_ok());
    assert!(open.inspected(0, NOW, None).is_err(), "what it turned out to be stays");
    assert!(open.inspected(1, END, None).is_err(), "nobody renewed that one");
}

#[test]
fn a_snapshot_that_was_reported_and_is_gone_or_broken_is_missed() {
    let image = Image::make_small().unwrap();
    let manifest = image.files.keys().find(|path| path.to_string_lossy().contains("/snapshot-")).unwrap();
    let event = manifest.to_string_lossy().rsplit('-').next().unwrap().parse::<u64>().unwrap();
    let manifest = image.dir.path().join(manifest);
    let check = |reported| check_snapshots(image.dir.path(), reported, &["--against-log"]);
    assert!(check(0).is_ok() && check(event).is_ok());
    assert!(check(event + 1).is_err(), "a younger one was reported");
    let bytes = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, &bytes[1..]).unwrap();
    assert!(check(0).is_err(), "what looks like one is one");
    std::fs::remove_file(&manifest).unwrap();
    assert!(check(event).is_err(), "it is gone");
    assert!(check(0).is_ok(), "there was none");
}
