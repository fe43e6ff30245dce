use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::command::RevokeTarget;
use crate::sequencer::TAKING_SHARE;
use crate::testing::{issue_command, name};
use crate::token::TokenId;

const ROOMY: QueueLimits = QueueLimits { commands_max: 100_000, per_client_max: 100_000 };

fn issue(tokens: usize) -> Command {
    issue_command(|issue| issue.subjects = vec![name("alice"); tokens])
}

fn revoke() -> Command {
    Command::Revoke(RevokeTarget::Id(TokenId([1; 16])))
}

fn by(client: u32, command: Command) -> Submission {
    Submission { actor: ClientNo(client), key: None, command }
}

/// Puts a command of a client in; whether there was room.
fn put(queue: &mut FairQueue<u32>, ticket: u32, client: u32, command: Command) -> bool {
    queue.handle_submission(ticket, by(client, command)).is_ok()
}

fn next(queue: &mut FairQueue<u32>) -> Option<(u32, ClientNo, u64)> {
    let (ticket, submission) = queue.poll_submission(Serving::Everything)?;
    Some((ticket, submission.actor, cost(&submission.command)))
}

#[test]
fn a_revoke_waits_for_one_turn_of_each_of_the_others_however_much_they_have_asked_for() {
    let mut queue = FairQueue::new(ROOMY);
    for client in 1..=5 {
        (0..1_000).for_each(|ticket| assert!(put(&mut queue, ticket, client, issue(1))));
    }
    (0..700).for_each(|_| assert!(next(&mut queue).is_some()));
    assert!(put(&mut queue, 9_999, 6, revoke()));
    let before = std::iter::from_fn(|| next(&mut queue)).take_while(|(ticket, ..)| *ticket != 9_999);
    assert!(before.count() as u64 <= 5 * QUANTUM);
}

#[test]
fn an_issue_of_many_tokens_counts_as_many_times_as_it_has_tokens() {
    let mut queue = FairQueue::new(ROOMY);
    for ticket in 0..400 {
        assert!(put(&mut queue, ticket, 1, issue(ISSUE_TOKENS_MAX)));
        assert!(put(&mut queue, ticket, 2, issue(1)));
    }
    // While an issue of the first was waiting for its turn, as many tokens of the second were issued.
    let served: Vec<_> = std::iter::from_fn(|| next(&mut queue)).take(257).collect();
    assert_eq!(served.iter().filter(|(_, client, _)| *client == ClientNo(1)).count(), 1);
}

#[test]
fn the_last_part_is_for_what_takes_something_from_somebody() {
    let limits = QueueLimits { commands_max: 32, per_client_max: 16 };
    let mut queue = FairQueue::new(limits);
    let room = |max: usize| max - max / TAKING_SHARE;
    let fill = |queue: &mut FairQueue<u32>, client, command: fn() -> Command| {
        (0..100).take_while(|ticket| put(queue, *ticket, client, command())).count()
    };
    assert_eq!(fill(&mut queue, 1, || issue(1)), room(16), "one client has its share only");
    assert_eq!(fill(&mut queue, 1, revoke), 16 - room(16), "and can still revoke");
    assert_eq!(fill(&mut queue, 2, || issue(1)), room(32) - 16, "all of them together are bounded too");
    assert_eq!(fill(&mut queue, 3, || issue(1)), 0);
    assert_eq!(fill(&mut queue, 3, revoke), 32 - room(32));
    assert_eq!(queue.len(), 32);
    assert_eq!(std::iter::from_fn(|| next(&mut queue)).count(), 32);
    assert!(queue.is_empty());
}

#[test]
fn ahead_of_the_log_only_what_takes_goes_on_and_a_bounded_part_of_each_client() {
    let mut queue = FairQueue::new(ROOMY);
    assert!(put(&mut queue, 1, 1, issue(1)));
    assert!(put(&mut queue, 2, 1, revoke()), "behind an issue of the same client");
    let many = TAKING_AHEAD_MAX as u32 + 10;
    (0..many).for_each(|ticket| assert!(put(&mut queue, 100 + ticket, 2, revoke())));
    assert!(put(&mut queue, 3, 3, revoke()));
    let ahead = |queue: &mut FairQueue<u32>| {
        let tickets = std::iter::from_fn(|| queue.poll_submission(Serving::Taking));
        tickets.map(|(ticket, _)| ticket).collect::<Vec<_>>()
    };
    let mut expected: Vec<_> = (100..100 + TAKING_AHEAD_MAX as u32).collect();
    expected.push(3);
    assert_eq!(ahead(&mut queue), expected);
    queue.handle_commit();
    assert_eq!(ahead(&mut queue).len(), 10);
    let rest: Vec<_> = std::iter::from_fn(|| next(&mut queue)).map(|(ticket, ..)| ticket).collect();
    assert_eq!(rest, [1, 2], "nothing overtook what came before it from the same client");
}

/// What a random run does.
#[derive(Clone, Debug)]
enum Step {
    Put { client: u32, tokens: usize },
    Poll(Serving),
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let tokens = prop_oneof![Just(0_usize), 1..4_usize, Just(ISSUE_TOKENS_MAX)];
    prop_oneof![
        5 => (1..6_u32, tokens).prop_map(|(client, tokens)| Step::Put { client, tokens }),
        4 => Just(Step::Poll(Serving::Everything)),
        1 => Just(Step::Poll(Serving::Taking)),
        1 => Just(Step::Commit),
    ]
}

/// How much more of one client may be served than of another while both wait.
const UNEVEN_MAX: u64 = QUANTUM + 2 * ISSUE_TOKENS_MAX as u64;

proptest! {
    #[test]
    fn nothing_is_lost_each_client_keeps_its_order_it_is_bounded_and_nobody_is_ahead(
        steps in proptest::collection::vec(step(), 1..600)
    ) {
        let limits = QueueLimits { commands_max: 100, per_client_max: 40 };
        let mut queue = FairQueue::new(limits);
        let mut lines: BTreeMap<u32, VecDeque<u32>> = BTreeMap::new();
        // Of each two clients: how much was served of the first since both began to wait.
        let mut served: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        let drain = std::iter::repeat_n(Step::Poll(Serving::Everything), 100);
        for (ticket, step) in steps.into_iter().chain(drain).enumerate() {
            match step {
                Step::Put { client, tokens } => {
                    let command = if tokens == 0 { revoke() } else { issue(tokens) };
                    let line = lines.entry(client).or_default();
                    if put(&mut queue, ticket as u32, client, command) {
                        line.push_back(ticket as u32);
                    } else {
                        let is_full = line.len() >= 35 || lines.values().map(VecDeque::len).sum::<usize>() >= 88;
                        prop_assert!(is_full, "refused for want of room only");
                    }
                }
                Step::Poll(serving) => {
                    let may_be_none = serving == Serving::Taking || lines.values().all(VecDeque::is_empty);
                    let Some((ticket, submission)) = queue.poll_submission(serving) else {
                        prop_assert!(may_be_none, "somebody waits and nobody is served");
                        continue;
                    };
                    let client = submission.actor.0;
                    if serving == Serving::Everything {
                        let others = lines.iter().filter(|(_, line)| !line.is_empty()).map(|(other, _)| *other);
                        for other in others.filter(|other| *other != client) {
                            *served.entry((client, other)).or_default() += cost(&submission.command);
                        }
                    }
                    prop_assert_eq!(lines.entry(client).or_default().pop_front(), Some(ticket), "in order");
                }
                Step::Commit => queue.handle_commit(),
            }
            served.retain(|(one, other), _| [one, other].iter().all(|at| !lines[at].is_empty()));
            for ((one, other), cost) in &served {
                let of_other = served.get(&(*other, *one)).copied().unwrap_or(0);
                prop_assert!(cost.saturating_sub(of_other) <= UNEVEN_MAX);
            }
            let waiting = lines.values().map(VecDeque::len).sum::<usize>();
            prop_assert_eq!(queue.len(), waiting);
            prop_assert!(waiting <= 100 && lines.values().all(|line| line.len() <= 40));
            prop_assert_eq!(queue.lines.len(), queue.turns.len(), "who has a line has a turn");
        }
        prop_assert!(queue.is_empty());
    }
}
