//! Events out of any bytes, in a small universe, so that they meet: mostly numbers that are next or known, sometimes
//! any.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary as _, Result, Unstructured};
use jeton_core::batch::{BATCH_BYTES_MAX, fitting};
use jeton_core::claims::{Claims, Grant};
use jeton_core::event::{Detached, Entry, Event, Fact, Recorded, Terms};
use jeton_core::time::Millis;
use jeton_core::token::{Secret, Token, TokenId, digest};

use super::START_MS;

/// Tokens have ids of one byte repeated, below this; the byte after is nobody's.
pub(super) const IDS: u8 = 12;
const EVENTS_MAX: usize = 8;

/// The token with this id: its secret is known.
pub(super) fn token(id: u8) -> Token {
    Token { id: TokenId([id; 16]), secret: Secret([id ^ 0x5a; 16]) }
}

/// How many of each there are, as far as is known here.
#[derive(Default)]
pub(super) struct Maker {
    tenants: u32,
    clients: u32,
    subjects: u32,
    claims: u32,
    issued: BTreeSet<[u8; 16]>,
}

/// A time after `time`, mostly.
pub(super) fn later(time: Millis, input: &mut Unstructured<'_>) -> Result<Millis> {
    Ok(match input.int_in_range(0..=15_u8)? {
        0 => Millis(u64::arbitrary(input)?),
        1 => Millis(time.0.saturating_add(600_000)),
        _ => Millis(time.0.saturating_add(u64::from(u16::arbitrary(input)?))),
    })
}

fn id(input: &mut Unstructured<'_>) -> Result<[u8; 16]> {
    Ok([input.int_in_range(0..=IDS)?; 16])
}

fn second(input: &mut Unstructured<'_>) -> Result<u32> {
    let start_s = (START_MS / 1_000) as u32;
    Ok(match input.int_in_range(0..=7_u8)? {
        0 => u32::arbitrary(input)?,
        1 => start_s,
        _ => start_s + u32::from(u8::arbitrary(input)?),
    })
}

/// A number that is known, 0, or, seldom, any.
fn known(count: u32, input: &mut Unstructured<'_>) -> Result<u32> {
    if input.ratio(1, 24)? { u32::arbitrary(input) } else { input.int_in_range(0..=count) }
}

/// The next number, or, seldom, another.
fn next(count: &mut u32, input: &mut Unstructured<'_>) -> Result<u32> {
    if input.ratio(1, 16)? {
        return known(*count, input);
    }
    *count += 1;
    Ok(*count)
}

fn text(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if input.ratio(3, 4)? {
        return Ok(vec![b'a' + input.int_in_range(0..=3)?]);
    }
    let length = input.int_in_range(0..=12_usize)?.min(input.len());
    Ok(input.bytes(length)?.to_vec())
}

fn claims(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const GRANTS: [&str; 4] = ["read on a/b", "read,write on a/*", "* on **", "read on a/**"];
    if input.ratio(1, 16)? {
        return text(input);
    }
    let grants: Vec<Grant> =
        GRANTS.iter().take(input.int_in_range(0..=4)?).map(|text| text.parse().expect("a grant")).collect();
    Ok(Claims::new([], [], grants, Default::default()).expect("they are small").bytes().to_vec())
}

/// The event with detached bytes, unless they were erased.
fn detached(bytes: Vec<u8>, erased: bool, fact: impl FnOnce([u8; 32]) -> Fact) -> (Fact, Option<Detached>) {
    let detached = Detached { salt: [3; 32], bytes };
    (fact(detached.commitment()), (!erased).then_some(detached))
}

fn recorded(input: &mut Unstructured<'_>) -> Result<Recorded> {
    Ok(match input.int_in_range(0..=5_u8)? {
        0 => Recorded::Issued { ids: vec![id(input)?; input.int_in_range(0..=3)?] },
        1 => Recorded::Renewed { expires_s: second(input)? },
        2 => Recorded::Consumed {
            expires_s: second(input)?,
            claims: known(4, input)?,
            subject: known(4, input)?,
            flags: u8::arbitrary(input)?,
            uses_left: u32::arbitrary(input)?,
        },
        3 => Recorded::Revoked { revoked: u64::arbitrary(input)?, broader: u64::arbitrary(input)? },
        4 => Recorded::RightsChanged { rights: u8::arbitrary(input)? },
        _ => Recorded::TenantCreated { tenant: u32::arbitrary(input)? },
    })
}

fn terms(input: &mut Unstructured<'_>) -> Result<Option<Box<Terms>>> {
    if input.ratio(1, 2)? {
        return Ok(None);
    }
    let (any_s, any_ms) = (second(input)?, u64::from(second(input)?) * 1_000);
    let family = bool::arbitrary(input)?.then(|| id(input)).transpose()?;
    Ok(Some(Box::new(Terms {
        not_before_ms: *input.choose(&[0, START_MS, any_ms, u64::MAX])?,
        uses_max: *input.choose(&[0, 1, 2, u32::MAX])?,
        renewable_until_s: *input.choose(&[0, any_s])?,
        family,
        binding: bool::arbitrary(input)?.then_some([7; 32]),
    })))
}

impl Maker {
    /// As many events as fit into one batch, at least one.
    pub(super) fn batch(&mut self, input: &mut Unstructured<'_>) -> Result<Vec<Entry>> {
        let count = input.int_in_range(1..=EVENTS_MAX)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let actor = known(self.clients, input)?;
            let (fact, detached) = self.fact(input)?;
            let fact = self.no_id_twice(fact);
            entries.push(Entry { event: Event { actor, fact }, detached });
        }
        assert_eq!(
            fitting(entries.iter()),
            count,
            "{EVENTS_MAX} small events are below {BATCH_BYTES_MAX} bytes"
        );
        Ok(entries)
    }

    /// Ids are random: no log issues one twice, and a state that has reclaimed a dead token knows nothing of it any more.
    fn no_id_twice(&mut self, fact: Fact) -> Fact {
        match fact {
            Fact::TokenIssued { id, .. } if !self.issued.insert(id) => Fact::TokenRevoked { id },
            other => other,
        }
    }

    fn fact(&mut self, input: &mut Unstructured<'_>) -> Result<(Fact, Option<Detached>)> {
        let erased = input.ratio(1, 24)?;
        let name = |input: &mut Unstructured<'_>| {
            text(input).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let fact = match input.int_in_range(0..=23_u8)? {
            0 => Fact::TenantCreated { tenant: next(&mut self.tenants, input)?, name: name(input)? },
            1 => Fact::ClientNamed { client: next(&mut self.clients, input)?, name: name(input)? },
            2..=4 => {
                let (subject, tenant) = (next(&mut self.subjects, input)?, known(self.tenants, input)?);
                return Ok(detached(text(input)?, erased, |name| Fact::SubjectNamed {
                    subject,
                    tenant,
                    name,
                }));
            }
            5 | 6 => {
                let number = next(&mut self.claims, input)?;
                let (tenant, client) = (known(self.tenants, input)?, known(self.clients, input)?);
                return Ok(detached(claims(input)?, erased, |content| Fact::ClaimsInterned {
                    claims: number,
                    tenant,
                    client,
                    content,
                }));
            }
            7..=12 => self.issued(input)?,
            13 => Fact::TokenRenewed { id: id(input)?, renewed_s: second(input)?, expires_s: second(input)? },
            14 => Fact::TokenConsumed { id: id(input)?, uses_left: *input.choose(&[0, 1, u32::MAX])? },
            15 => Fact::TokenRevoked { id: id(input)? },
            16 => Fact::SubjectRevoked { subject: known(self.subjects, input)? },
            17 => Fact::FamilyRevoked { root: id(input)? },
            18 => Fact::ClientRevoked {
                tenant: known(self.tenants, input)?,
                client: known(self.clients, input)?,
            },
            19 => Fact::TenantRevoked { tenant: known(self.tenants, input)? },
            20 => {
                let (tenant, numbers) = (known(self.tenants, input)?, vec![known(self.claims, input)?; 2]);
                return Ok(detached(text(input)?, erased, |pattern| Fact::ResourceRevoked {
                    tenant,
                    pattern,
                    claims: numbers,
                }));
            }
            21 => Fact::RightsChanged {
                client: known(self.clients, input)?,
                tenant: known(self.tenants, input)?,
                rights: if input.ratio(1, 12)? {
                    u8::arbitrary(input)?
                } else {
                    input.int_in_range(0..=63)?
                },
            },
            22 => Fact::TimePassed,
            _ => Fact::CommandCompleted {
                key: id(input)?,
                payload: [input.int_in_range(0..=2)?; 16],
                outcome: recorded(input)?,
            },
        };
        Ok((fact, None))
    }

    fn issued(&mut self, input: &mut Unstructured<'_>) -> Result<Fact> {
        let token = token(input.int_in_range(0..=IDS)?);
        Ok(Fact::TokenIssued {
            id: token.id.0,
            digest: digest(&token.id, &token.secret).0,
            claims: known(self.claims, input)?,
            subject: known(self.subjects, input)?,
            issued_s: second(input)?,
            expires_s: second(input)?,
            terms: terms(input)?,
        })
    }
}
