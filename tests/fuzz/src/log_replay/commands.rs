//! Commands on a state that came of any log: they are decided or rejected, and what they take is known.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary as _, Result, Unstructured};
use jeton_core::batch::open;
use jeton_core::claims::{Claims, Name};
use jeton_core::command::{ChangeRights, Command, ConsumeToken, IssueTokens, RevokeTarget, Submission};
use jeton_core::numbers::{Binding, ClientNo, IdempotencyKey};
use jeton_core::outcome::{Outcome, Rejection};
use jeton_core::rights::Rights;
use jeton_core::sequencer::Sequencer;
use jeton_core::time::Millis;
use jeton_core::token::TokenId;
use jeton_core::view::View;

use super::events::{IDS, later, token};
use super::{Issued, note, read_all};

const COMMANDS_MAX: usize = 10;
/// Turns in which everything that was decided must have been carried out.
const TURNS_MAX: usize = 1_000;

/// Gives the sequencer commands until the input ends; whatever it appends is durable at once.
pub(super) fn carry_on(
    mut sequencer: Sequencer<u32>,
    view: &View,
    known: &mut BTreeSet<Issued>,
    mut now: Millis,
    input: &mut Unstructured<'_>,
) -> Result<()> {
    let mut drawn = 0_u64;
    for ticket in 0..COMMANDS_MAX as u32 {
        if input.is_empty() {
            break;
        }
        now = later(now, input)?;
        let key = input.ratio(1, 3)?.then_some(IdempotencyKey([input.int_in_range(0..=2)?; 16]));
        let submission =
            Submission { actor: ClientNo(input.int_in_range(0..=4)?), key, command: command(input)? };
        let mut entropy = |bytes: &mut [u8]| {
            drawn += 1;
            let hash = blake3::hash(&drawn.to_le_bytes());
            bytes.iter_mut().zip(hash.as_bytes().iter().cycle()).for_each(|(to, from)| *to = *from);
        };
        sequencer.handle_submission(ticket, submission, now, &mut entropy);
        settle(&mut sequencer, ticket, known, now);
    }
    read_all(view, now, known);
    Ok(())
}

fn settle(sequencer: &mut Sequencer<u32>, ticket: u32, known: &mut BTreeSet<Issued>, now: Millis) {
    let mut answers = 0;
    for _ in 0..TURNS_MAX {
        while sequencer.has_work() {
            sequencer.handle_work(now);
        }
        if let Some(commit) = sequencer.poll_commit() {
            for batch in &commit.batches {
                let opened = open(&batch.bytes).expect("what is appended opens");
                opened.entries.iter().for_each(|entry| note(&entry.event.fact, known));
            }
            let last = commit.last();
            sequencer.handle_durable(last);
        }
        while let Some((answered, reply)) = sequencer.poll_reply() {
            assert_eq!(answered, ticket, "each command is answered once, in its turn");
            assert!(!matches!(reply.result, Err(Rejection::Indeterminate)), "the log has not failed");
            if let Ok(Outcome::Revoked(report)) = reply.result {
                assert!(report.revoked <= 1 << 20, "no more is revoked than there is");
            }
            answers += 1;
        }
        if sequencer.is_idle() {
            break;
        }
    }
    assert_eq!(answers, 1, "every command is answered");
    let marks = sequencer.watermarks();
    assert!(marks.replied <= marks.published, "answers rest on what is published");
    assert_eq!(marks.published, marks.assigned, "and everything is");
}

fn name(input: &mut Unstructured<'_>) -> Result<Name> {
    const NAMES: [&str; 8] = ["a", "b", "c", "d", "*", "default", "jeton:engine", "e"];
    Ok(input.choose(&NAMES)?.parse().expect("it is a name"))
}

fn command(input: &mut Unstructured<'_>) -> Result<Command> {
    let any_id = TokenId([input.int_in_range(0..=IDS)?; 16]);
    let any_token = token(input.int_in_range(0..=IDS)?);
    let binding = input.ratio(1, 4)?.then_some(Binding([7; 32]));
    Ok(match input.int_in_range(0..=12_u8)? {
        0 | 1 => Command::IssueTokens(IssueTokens {
            tenant: name(input)?,
            subjects: vec![name(input)?; input.int_in_range(0..=3)?],
            claims: Claims::default(),
            ttl_s: *input.choose(&[0, 1, 60, u32::MAX])?,
            not_before_s: *input.choose(&[0, 1])?,
            renewable_s: *input.choose(&[0, 100, u32::MAX])?,
            uses_max: *input.choose(&[0, 1, u32::MAX])?,
            parent: input.ratio(1, 3)?.then_some(any_id),
            binding,
        }),
        2 => Command::RenewToken { token: any_token, ttl_s: u32::arbitrary(input)?, binding },
        3 => Command::ConsumeToken(ConsumeToken {
            token: any_token,
            access: None,
            audience: None,
            scopes: None,
            binding,
        }),
        4 => Command::Revoke(RevokeTarget::Token(any_token)),
        5 => Command::Revoke(RevokeTarget::Id(any_id)),
        6 => Command::Revoke(RevokeTarget::Subject { tenant: name(input)?, subject: name(input)? }),
        7 => Command::Revoke(RevokeTarget::Client { tenant: name(input)?, client: name(input)? }),
        8 => Command::Revoke(RevokeTarget::Family(any_id)),
        9 => Command::Revoke(RevokeTarget::Tenant { tenant: name(input)? }),
        10 => {
            let pattern = input.choose(&["a/b", "a/**", "**", "*"])?.parse().expect("a pattern");
            Command::Revoke(RevokeTarget::Resource { tenant: name(input)?, pattern })
        }
        11 => {
            let rights = Rights::from_bits(input.int_in_range(0..=63)?).unwrap_or_default();
            let change = ChangeRights { client: name(input)?, tenant: name(input)?, rights };
            if bool::arbitrary(input)? {
                Command::GrantRights(change)
            } else {
                Command::WithdrawRights(change)
            }
        }
        _ => Command::CreateTenant { name: name(input)? },
    })
}
