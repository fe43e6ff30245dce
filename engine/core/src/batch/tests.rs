use super::*;
use crate::event::Fact;

fn genesis() -> ChainEnd {
    ChainEnd::genesis(LogId([7; 16]), Partition(3))
}

fn named(subject: u32, name: &str) -> Entry {
    let detached = Detached { salt: [subject as u8; 32], bytes: name.as_bytes().to_vec() };
    let fact = Fact::SubjectNamed { subject, tenant: 1, name: detached.commitment() };
    Entry { event: Event { actor: 2, fact }, detached: Some(detached) }
}

fn revoked(byte: u8) -> Entry {
    Entry { event: Event { actor: 2, fact: Fact::TokenRevoked { id: [byte; 16] } }, detached: None }
}

#[test]
fn a_sealed_batch_opens_to_the_same_events_and_follows_the_chain() {
    let mut end = genesis();
    let entries = vec![named(1, "alice"), revoked(9), named(2, "bob")];
    let before = end;
    let sealed = seal(&mut end, Millis(55), entries.clone().into_iter());
    let opened = open(&sealed.bytes).unwrap();
    assert_eq!(opened.entries, entries);
    assert_eq!(opened.time, Millis(55));
    assert_eq!((sealed.first, sealed.last), (Sequence(1), Sequence(3)));
    assert_eq!(opened.end, end);
    assert_eq!(opened.follows(&before), Ok(()));

    let next = seal(&mut end, Millis(56), [revoked(1)].into_iter());
    let opened_next = open(&next.bytes).unwrap();
    assert_eq!(opened_next.follows(&opened.end), Ok(()));
    assert!(matches!(opened_next.follows(&before), Err(BatchError::Chain(_))));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut end = genesis();
    let sealed = seal(&mut end, Millis(55), [named(1, "alice"), revoked(9)].into_iter());
    for position in 0..sealed.bytes.len() {
        for bit in 0..8 {
            let mut bytes = sealed.bytes.clone();
            bytes[position] ^= 1 << bit;
            assert!(open(&bytes).is_err(), "byte {position} bit {bit}");
        }
    }
}

#[test]
fn every_cut_and_every_extension_is_noticed_but_the_removal_of_a_whole_detached_value() {
    let mut end = genesis();
    let sealed = seal(&mut end, Millis(55), [named(1, "alice"), revoked(9)].into_iter());
    let erased_length = sealed.bytes.len() - DETACHED_HEAD_BYTES - "alice".len();
    for length in (0..sealed.bytes.len()).filter(|length| *length != erased_length) {
        assert!(open(&sealed.bytes[..length]).is_err(), "{length} bytes");
    }
    let longer = [&sealed.bytes[..], &[0]].concat();
    assert!(open(&longer).is_err());
}

#[test]
fn an_erased_value_leaves_the_chain_whole() {
    let mut end = genesis();
    let sealed = seal(&mut end, Millis(55), [named(1, "alice")].into_iter());
    let erased = &sealed.bytes[..sealed.bytes.len() - DETACHED_HEAD_BYTES - "alice".len()];
    let opened = open(erased).unwrap();
    assert_eq!(opened.end, end);
    assert_eq!(opened.entries[0].detached, None);
}

#[test]
fn a_batch_takes_what_fits_and_never_more_than_the_store_does() {
    let entries: Vec<_> = (0..500).map(|byte| revoked(byte as u8)).collect();
    let count = fitting(entries.iter());
    assert!(count > 40 && count < entries.len());
    let sealed = seal(&mut genesis(), Millis(1), entries[..count].iter().cloned());
    assert!(sealed.bytes.len() <= BATCH_BYTES_MAX);
    assert!(sealed.bytes.len() + 2 * size_of::<ArchivedEvent>() + ARCHIVE_OVERHEAD_BYTES > BATCH_BYTES_MAX);
}

#[test]
fn a_batch_is_found_at_the_front_of_whatever_follows_and_never_with_less_than_it_had() {
    let mut end = genesis();
    let sealed = seal(&mut end, Millis(55), [named(1, "alice"), revoked(9), named(2, "bob")].into_iter());
    let whole = open(&sealed.bytes).unwrap();
    for behind in [&b""[..], b"\0", &[0xff; 200], &sealed.bytes] {
        let longer = [&sealed.bytes[..], behind].concat();
        assert_eq!(open_front(&longer), Ok((whole.clone(), sealed.bytes.len())));
    }
    for length in 0..sealed.bytes.len() {
        assert!(open_front(&sealed.bytes[..length]).is_err(), "{length} bytes");
        let filled = [&sealed.bytes[..length], &[0xaa; 500]].concat();
        assert!(open_front(&filled).is_err(), "{length} bytes and others");
    }
}
