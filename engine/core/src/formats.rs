//! What docs/FORMATS.md says of archives, its offsets, sizes and names, compared with the types: who reads a log or a snapshot by that page alone reads
//! what was written.
//!
//! The offsets of structs come from the compiler; those in variants, of which it tells none, from the pinned batch, in which
//! every variant is.

use std::mem::offset_of;

use rkyv::Archive;
use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::vec::ArchivedVec;

use crate::event::{ArchivedEvent, ArchivedFact, ArchivedRecorded, ArchivedTerms};
use crate::snapshot::parts::{
    ArchivedClaimSetPart, ArchivedCounterPart, ArchivedKeyPart, ArchivedRestPart, ArchivedRightsPart,
    ArchivedSubjectPart, SubjectPart, encode,
};
use crate::snapshot::{Manifest, PartRef, SegmentRef};

type ArchivedManifest = <Manifest as Archive>::Archived;
type ArchivedPartRef = <PartRef as Archive>::Archived;
type ArchivedSegmentRef = <SegmentRef as Archive>::Archived;

const FORMATS: &str = include_str!("../../../docs/FORMATS.md");
const EVENTS: &str = include_str!("../tests/vectors/events.txt");

/// Compares the table of a struct with the struct, and does not compile unless every field is named.
macro_rules! assert_documented {
    ($type:ident as $name:literal { $($field:ident),+ }) => {{
        fn bytes<F>(_: impl Fn(&$type) -> &F) -> usize {
            size_of::<F>()
        }
        let _ = |$type { $($field: _),+ }: &$type| {};
        let rows = [$((offset_of!($type, $field), bytes(|value| &value.$field), stringify!($field))),+];
        let rows = rows.map(|(at, bytes, field)| format!("{at} {bytes} {field}"));
        assert_eq!(documented(&heading::<$type>($name), 3), rows, "{}", $name);
    }};
}

/// The rows that the variant of a value in an archive has in the table of the enum: tag, name, and each field.
macro_rules! rows_of {
    ($value:expr, $archive:expr, $type:ident { $($variant:ident { $($field:ident),* }),+ }) => {{
        let value: &$type = $value;
        let tag = $archive[address(value) - $archive.as_ptr().addr()];
        match value {
            $($type::$variant { $($field),* } => {
                let fields: &[(usize, usize, &str)] =
                    &[$((address($field) - address(value), size_of_val($field), stringify!($field))),*];
                rows_of_variant(tag, stringify!($variant), fields)
            })+
        }
    }};
}

fn rows_of_variant(tag: u8, variant: &str, fields: &[(usize, usize, &str)]) -> Vec<String> {
    let row = |(number, (at, bytes, field)): (usize, &(usize, usize, &str))| {
        let first = if number == 0 { format!("{tag} {variant}") } else { " ".to_owned() };
        format!("{first} {at} {bytes} {field}")
    };
    if fields.is_empty() {
        return vec![format!("{tag} {variant}   ")];
    }
    fields.iter().enumerate().map(row).collect()
}

fn address<T>(value: &T) -> usize {
    std::ptr::from_ref(value).addr()
}

/// What the line before the table of a type says.
fn heading<T>(name: &str) -> String {
    format!("`{name}`: {} bytes, aligned to {}.", size_of::<T>(), align_of::<T>())
}

/// The first cells of each row of the table that comes after a line that begins so.
fn documented(heading: &str, cells: usize) -> Vec<String> {
    let found = FORMATS.split_once(&format!("\n{heading}"));
    let (_, behind) = found.unwrap_or_else(|| panic!("docs/FORMATS.md does not say: {heading}"));
    let table = behind.lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let row = row.replace('`', "");
        row.split('|').skip(1).take(cells).map(str::trim).collect::<Vec<_>>().join(" ")
    })
    .collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The archive in the pinned batch.
fn pinned_events() -> AlignedVec<16> {
    let batch = unhex(&EVENTS.lines().filter(|line| !line.starts_with('#')).collect::<String>());
    let bytes = u32::from_le_bytes(batch[80..84].try_into().unwrap()) as usize;
    let mut archive = AlignedVec::new();
    archive.extend_from_slice(&batch[128..128 + bytes]);
    archive
}

#[test]
fn structs_lie_as_the_document_says() {
    assert_documented!(ArchivedEvent as "Event" { actor, fact });
    assert_documented!(ArchivedTerms as "Terms" {
        not_before_ms, uses_max, renewable_until_s, family, binding
    });
    assert_documented!(ArchivedManifest as "Manifest" {
        log, partition, epoch, sequence, chain, time_ms, tokens, segment_records, serial, open,
        segments, table, subjects, claim_sets, keys, counters, rest
    });
    assert_documented!(ArchivedSegmentRef as "SegmentRef" { number, serial, used, live, part });
    assert_documented!(ArchivedPartRef as "PartRef" { hash, bytes });
    assert_documented!(ArchivedSubjectPart as "SubjectPart" { tenant, since, name });
    assert_documented!(ArchivedClaimSetPart as "ClaimSetPart" { tenant, client, since, bytes });
    assert_documented!(ArchivedKeyPart as "KeyPart" { client, key, at_ms, payload, outcome });
    assert_documented!(ArchivedCounterPart as "CounterPart" { slot, spent });
    assert_documented!(ArchivedRestPart as "RestPart" { tenants, clients, rights, dead_claim_sets, renewals });
    assert_documented!(ArchivedRightsPart as "RightsPart" { client, tenant, rights });
}

#[test]
fn variants_lie_as_the_document_says() {
    let archive = pinned_events();
    let events = rkyv::access::<ArchivedVec<ArchivedEvent>, rancor::Failure>(&archive).unwrap();
    let (mut facts, mut outcomes) = (Vec::new(), Vec::new());
    for event in events.iter() {
        facts.push(rows_of!(&event.fact, archive, ArchivedFact {
            TenantCreated { tenant, name },
            ClientNamed { client, name },
            SubjectNamed { subject, tenant, name },
            ClaimsInterned { claims, tenant, client, content },
            TokenIssued { id, digest, claims, subject, issued_s, expires_s, terms },
            TokenRenewed { id, renewed_s, expires_s },
            TokenConsumed { id, uses_left },
            TokenRevoked { id },
            SubjectRevoked { subject },
            FamilyRevoked { root },
            ClientRevoked { tenant, client },
            TenantRevoked { tenant },
            ResourceRevoked { tenant, pattern, claims },
            RightsChanged { client, tenant, rights },
            CommandCompleted { key, payload, outcome },
            TimePassed {}
        }));
        if let ArchivedFact::CommandCompleted { outcome, .. } = &event.fact {
            outcomes.push(rows_of!(outcome, archive, ArchivedRecorded {
                Issued { ids },
                Renewed { expires_s },
                Consumed { expires_s, claims, subject, flags, uses_left },
                Revoked { revoked, broader },
                RightsChanged { rights },
                TenantCreated { tenant }
            }));
        }
    }
    // Some variants are there more than once.
    facts.dedup();
    outcomes.dedup();
    assert_eq!(documented(&heading::<ArchivedFact>("Fact"), 5), facts.concat());
    assert_eq!(documented(&heading::<ArchivedRecorded>("Recorded"), 5), outcomes.concat());
}

#[test]
fn the_example_is_what_is_written() {
    let name = Some("somebody whose name is long".to_owned());
    let subjects =
        vec![SubjectPart { tenant: 1, since: 5, name }, SubjectPart { tenant: 1, since: 9, name: None }];
    let mut example = Vec::new();
    for row in documented("An example, two subjects", 2) {
        let (at, digits) = row.split_once(' ').unwrap();
        assert_eq!(at, example.len().to_string());
        example.extend(unhex(&digits.replace(' ', "")));
    }
    assert_eq!(example, encode(&subjects));
}
