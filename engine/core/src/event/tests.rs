//! One batch with an event of every kind, pinned to the byte: what is in a log today must open for ever.

use super::*;
use crate::batch::{ChainEnd, open, seal};
use crate::numbers::{LogId, Partition};
use crate::time::Millis;

const VECTORS: &str = include_str!("../../tests/vectors/events.txt");

fn detached(fact: impl FnOnce([u8; 32]) -> Fact, bytes: &[u8]) -> Entry {
    let detached = Detached { salt: [0x5a; 32], bytes: bytes.to_vec() };
    Entry { event: Event { actor: 3, fact: fact(detached.commitment()) }, detached: Some(detached) }
}

fn plain(fact: Fact) -> Entry {
    Entry { event: Event { actor: 3, fact }, detached: None }
}

fn completed(outcome: Recorded) -> Fact {
    Fact::CommandCompleted { key: [6; 16], payload: [7; 16], outcome }
}

/// An event of every variant, and of every variant inside.
fn one_of_each() -> Vec<Entry> {
    let issued = |terms| Fact::TokenIssued {
        id: [1; 16],
        digest: [2; 32],
        claims: 4,
        subject: 5,
        issued_s: 1_700_000_000,
        expires_s: 1_700_003_600,
        terms,
    };
    let terms = Terms {
        not_before_ms: 1_700_000_000_500,
        uses_max: 3,
        renewable_until_s: 1_800_000_000,
        family: Some([8; 16]),
        binding: Some([9; 32]),
    };
    let consumed =
        Recorded::Consumed { expires_s: 1_700_003_600, claims: 4, subject: 5, flags: 1, uses_left: 2 };
    vec![
        plain(Fact::TenantCreated { tenant: 1, name: "default".to_owned() }),
        plain(Fact::ClientNamed {
            client: 2,
            name: "spiffe://example.org/a-name-that-is-not-inline".to_owned(),
        }),
        detached(|name| Fact::SubjectNamed { subject: 5, tenant: 1, name }, b"alice"),
        detached(
            |content| Fact::ClaimsInterned { claims: 4, tenant: 1, client: 2, content },
            b"\x01\0\0\0\0\0\0\0\0",
        ),
        plain(issued(None)),
        plain(issued(Some(Box::new(terms)))),
        plain(Fact::TokenRenewed { id: [1; 16], renewed_s: 1_700_000_100, expires_s: 1_700_007_200 }),
        plain(Fact::TokenConsumed { id: [1; 16], uses_left: 2 }),
        plain(Fact::TokenRevoked { id: [1; 16] }),
        plain(Fact::SubjectRevoked { subject: 5 }),
        plain(Fact::FamilyRevoked { root: [8; 16] }),
        plain(Fact::ClientRevoked { tenant: 1, client: 2 }),
        plain(Fact::TenantRevoked { tenant: 1 }),
        detached(|pattern| Fact::ResourceRevoked { tenant: 1, pattern, claims: vec![4, 6] }, b"journal/**"),
        plain(Fact::RightsChanged { client: 2, tenant: 0, rights: 0b11_1111 }),
        plain(completed(Recorded::Issued { ids: vec![[1; 16], [8; 16]] })),
        plain(completed(Recorded::Renewed { expires_s: 1_700_007_200 })),
        plain(completed(consumed)),
        plain(completed(Recorded::Revoked { revoked: 7, broader: 1 })),
        plain(completed(Recorded::RightsChanged { rights: 3 })),
        plain(completed(Recorded::TenantCreated { tenant: 1 })),
        plain(Fact::TimePassed),
    ]
}

fn sealed() -> Vec<u8> {
    let mut end = ChainEnd::genesis(LogId([0xab; 16]), Partition(0));
    seal(&mut end, Millis(1_700_000_000_123), one_of_each().into_iter()).bytes
}

#[test]
fn a_batch_with_an_event_of_every_kind_is_written_as_it_always_was() {
    let written: String = sealed()
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
        .collect();
    if std::env::var_os("JETON_WRITE_VECTORS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/events.txt");
        std::fs::write(path, format!("# A batch with an event of every kind, in hexadecimal.\n{written}"))
            .unwrap();
    }
    let pinned: String =
        VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert_eq!(written, pinned, "old logs must open for ever: append variants, never change them");
}

#[test]
fn the_pinned_batch_opens_to_the_events_it_was_made_of() {
    let digits: String = VECTORS.lines().filter(|line| !line.starts_with('#')).collect();
    let bytes: Vec<u8> = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(open(&bytes).unwrap().entries, one_of_each());
}
