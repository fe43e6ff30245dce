use crate::check::Check;
use crate::claims::ResourceQuery;
use crate::command::{Access, ChangeRights, Command, ConsumeToken, RevokeTarget};
use crate::numbers::{Binding, TenantNo};
use crate::outcome::{Outcome, Rejection, RevokeReport};
use crate::rights::Rights;
use crate::sequencer::FIRST_TENANT;
use crate::testing::{Engine, issue_command, name};
use crate::token::Token;
use crate::verdict::Verdict;

fn consume(token: &Token) -> Command {
    Command::ConsumeToken(ConsumeToken {
        token: token.clone(),
        access: None,
        audience: None,
        scopes: None,
        binding: None,
    })
}

fn subject(subject: &str) -> RevokeTarget {
    RevokeTarget::Subject { tenant: name(FIRST_TENANT), subject: name(subject) }
}

fn said(result: &Result<Outcome, Rejection>) -> String {
    match result {
        Ok(Outcome::Issued { tokens, .. }) => format!("issued {}", tokens.len()),
        Ok(Outcome::Renewed { expires }) => {
            format!("renewed until {} s", expires.0 - crate::testing::START.floor_seconds().0)
        }
        Ok(Outcome::Consumed { answer, uses_left }) => format!("{}, {uses_left} left", answer.verdict.word()),
        Ok(Outcome::Revoked(report)) => format!("revoked {}", report.revoked),
        Ok(Outcome::RightsChanged { rights }) => format!("rights {rights}"),
        Ok(Outcome::TenantCreated { tenant }) => format!("tenant {tenant}"),
        Err(rejection) => rejection.to_string(),
    }
}

/// A state a token can be in, made in an engine of its own.
fn in_state(
    change: impl FnOnce(&mut crate::command::IssueTokens),
    then: impl FnOnce(&mut Engine, Token) -> Token,
) -> (Engine, Token) {
    let mut engine = Engine::new();
    let token = engine.issue(change);
    let token = then(&mut engine, token);
    (engine, token)
}

fn revoked_by(target: impl FnOnce(&Token) -> RevokeTarget) -> impl FnOnce(&mut Engine, Token) -> Token {
    |engine, token| {
        engine.revoke(target(&token));
        token
    }
}

/// Every state a token can be in.
fn in_every_state() -> Vec<(&'static str, Engine, Token)> {
    let as_it_is = |_: &mut Engine, token| token;
    let states = [
        ("live", in_state(|_| {}, as_it_is)),
        ("not yet valid", in_state(|issue| issue.not_before_s = 60, as_it_is)),
        (
            "expired",
            in_state(
                |_| {},
                |engine, token| {
                    engine.pass_s(3_601);
                    token
                },
            ),
        ),
        ("revoked", in_state(|_| {}, revoked_by(|token| RevokeTarget::Id(token.id)))),
        (
            "claims revoked",
            in_state(|_| {}, revoked_by(|_| RevokeTarget::Tenant { tenant: name(FIRST_TENANT) })),
        ),
        ("two uses", in_state(|issue| issue.uses_max = 2, as_it_is)),
        ("one use", in_state(|issue| issue.uses_max = 1, as_it_is)),
        (
            "spent",
            in_state(
                |issue| issue.uses_max = 1,
                |engine, token| {
                    engine.run(consume(&token)).unwrap();
                    token
                },
            ),
        ),
        ("renewable", in_state(|issue| issue.renewable_s = 7_200, as_it_is)),
        ("renewable, an hour at most", in_state(|issue| issue.renewable_s = 3_600, as_it_is)),
        ("bound", in_state(|issue| issue.binding = Some(Binding([1; 32])), as_it_is)),
        (
            "child of a family",
            in_state(|_| {}, |engine, root| engine.issue(|issue| issue.parent = Some(root.id))),
        ),
        ("asked about with a wrong secret", in_state(|_| {}, |_, token| forged(&token))),
        (
            "issued, not durable",
            in_state(
                |_| {},
                |engine, _| {
                    engine.submit_as(1, None, issue_command(|_| {}));
                    engine.undelivered()
                },
            ),
        ),
    ];
    states.into_iter().map(|(label, (engine, token))| (label, engine, token)).collect()
}

/// The token with another secret.
fn forged(token: &Token) -> Token {
    let mut bytes = token.to_bytes();
    bytes[31] ^= 1;
    Token::from_bytes(bytes)
}

#[test]
fn the_transition_table_of_a_token_is_as_it_was() {
    type Make = fn(&Token) -> Command;
    let commands: [(&str, Make); 9] = [
        ("consume", consume),
        ("renew", |token| Command::RenewToken { token: token.clone(), ttl_s: 5_000, binding: None }),
        ("revoke token", |token| Command::Revoke(RevokeTarget::Token(token.clone()))),
        ("revoke id", |token| Command::Revoke(RevokeTarget::Id(token.id))),
        ("revoke subject", |_| Command::Revoke(subject("alice"))),
        ("revoke family", |token| Command::Revoke(RevokeTarget::Family(token.id))),
        ("revoke client", |_| {
            let client = name(crate::testing::ADMIN);
            Command::Revoke(RevokeTarget::Client { tenant: name(FIRST_TENANT), client })
        }),
        ("revoke tenant", |_| Command::Revoke(RevokeTarget::Tenant { tenant: name(FIRST_TENANT) })),
        ("revoke resource", |_| {
            let pattern = "journal/**".parse().unwrap();
            Command::Revoke(RevokeTarget::Resource { tenant: name(FIRST_TENANT), pattern })
        }),
    ];
    let mut table = String::new();
    for (at, (label, engine, token)) in in_every_state().into_iter().enumerate() {
        let before = engine.ask(&token, &Check::default()).verdict.word();
        table.push_str(&format!("{label}: validate says {before}\n"));
        for (command_label, make) in &commands {
            let (_, mut engine, token) = in_every_state().swap_remove(at);
            let result = engine.run(make(&token));
            let after = engine.verdict(&token).word();
            table.push_str(&format!("  {command_label:<16} {:<52} then {after}\n", said(&result)));
            engine.assert_replays();
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_token_is_good_for_what_its_grants_say_and_nothing_else() {
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    let ask = |action, resource| {
        let access = Some(ResourceQuery::new(action, resource).unwrap());
        engine.ask(&token, &Check { access, ..Check::default() }).verdict
    };
    assert_eq!(ask("read", "journal/42"), Verdict::Valid);
    assert_eq!(ask("read", "journal/43"), Verdict::Forbidden);
    assert_eq!(ask("write", "journal/42"), Verdict::Forbidden);
}

#[test]
fn a_bound_token_needs_what_it_is_bound_to() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.binding = Some(Binding([1; 32])));
    let ask = |binding| engine.ask(&token, &Check { binding, ..Check::default() }).verdict;
    assert_eq!(ask(None), Verdict::BindingMismatch);
    assert_eq!(ask(Some(Binding([2; 32]))), Verdict::BindingMismatch);
    assert_eq!(ask(Some(Binding([1; 32]))), Verdict::Valid);
}

#[test]
fn a_use_is_spent_only_if_every_other_check_passes() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.uses_max = 1);
    let with = |resource: &str| {
        let access = Some(Access { action: "read".to_owned(), resource: resource.to_owned() });
        Command::ConsumeToken(ConsumeToken {
            token: token.clone(),
            access,
            audience: None,
            scopes: None,
            binding: None,
        })
    };
    assert_eq!(said(&engine.run(with("journal/43"))), "forbidden, 0 left");
    assert_eq!(said(&engine.run(with("journal/*"))), "forbidden, 0 left");
    assert_eq!(said(&engine.run(with("journal/42"))), "valid, 0 left");
    assert_eq!(said(&engine.run(with("journal/42"))), "spent, 0 left");
}

#[test]
fn a_wrong_secret_opens_spends_and_revokes_nothing() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.uses_max = 1);
    let forged = forged(&token);
    assert_eq!(engine.verdict(&forged), Verdict::WrongSecret);
    assert_eq!(said(&engine.run(consume(&forged))), "unknown, 0 left");
    assert_eq!(engine.run(Command::Revoke(RevokeTarget::Token(forged))).unwrap_err(), Rejection::NotFound);
    assert_eq!(engine.verdict(&token), Verdict::ConsumeRequired);
}

#[test]
fn a_revoke_by_subject_takes_all_it_has_and_nothing_it_gets_later() {
    let mut engine = Engine::new();
    let many: Vec<_> = (0..10_000 / 4).map(|_| name("alice")).collect();
    let mut tokens = Vec::new();
    for chunk in many.chunks(256) {
        let command = issue_command(|issue| issue.subjects = chunk.to_vec());
        let Ok(Outcome::Issued { tokens: issued, .. }) = engine.run(command) else { panic!("not issued") };
        tokens.extend(issued);
    }
    let bobs = engine.issue(|issue| issue.subjects = vec![name("bob")]);
    let ticket = engine.submit_as(1, Some(3), Command::Revoke(subject("alice")));
    let issued_later = engine.submit_as(1, None, issue_command(|issue| issue.renewable_s = 7_200));
    let replies = engine.settle();
    let reply_to = |ticket| &replies.iter().find(|(of, _)| *of == ticket).unwrap().1;
    assert_eq!(said(reply_to(ticket)), format!("revoked {}", tokens.len()));
    let Ok(Outcome::Issued { tokens: later, .. }) = reply_to(issued_later) else { panic!("not issued") };
    assert!(tokens.iter().all(|token| engine.verdict(token) == Verdict::Revoked));
    assert_eq!(engine.verdict(&later[0]), Verdict::Valid);
    assert_eq!(engine.verdict(&bobs), Verdict::Valid);
    let again = engine.run_as(1, Some(3), Command::Revoke(subject("alice")));
    assert_eq!(
        said(&again),
        format!("revoked {}", tokens.len()),
        "a repeated key answers with the first outcome"
    );
    assert_eq!(engine.verdict(&later[0]), Verdict::Valid);
    engine.assert_replays();
}

#[test]
fn a_token_under_a_revoke_in_progress_cannot_be_renewed_or_consumed() {
    let mut engine = Engine::new();
    let renewable = engine.issue(|issue| issue.renewable_s = 7_200);
    let limited = engine.issue(|issue| issue.uses_max = 2);
    engine.submit_as(1, None, Command::Revoke(subject("alice")));
    let renewal = engine.submit_as(
        1,
        None,
        Command::RenewToken { token: renewable.clone(), ttl_s: 7_000, binding: None },
    );
    let consumption = engine.submit_as(1, None, consume(&limited));
    let replies = engine.settle();
    let reply_to = |ticket| said(&replies.iter().find(|(of, _)| *of == ticket).unwrap().1);
    assert_eq!(reply_to(renewal), "the token is revoked");
    assert_eq!(reply_to(consumption), "revoked, 0 left");
    assert_eq!(engine.verdict(&renewable), Verdict::Revoked);
    engine.assert_replays();
}

#[test]
fn a_renewed_token_lives_longer_and_dies_with_its_subject_all_the_same() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.renewable_s = 5_000);
    engine.run(Command::RenewToken { token: token.clone(), ttl_s: 100_000, binding: None }).unwrap();
    engine.pass_s(4_999);
    assert_eq!(engine.verdict(&token), Verdict::Valid);
    engine.assert_replays();
    assert_eq!(engine.revoke(subject("alice")).revoked, 1);
    assert_eq!(engine.verdict(&token), Verdict::Revoked);
}

#[test]
fn a_family_dies_whole_and_takes_nobody_else_along() {
    let mut engine = Engine::new();
    let root = engine.issue(|_| {});
    let child = engine.issue(|issue| issue.parent = Some(root.id));
    let grandchild = engine.issue(|issue| issue.parent = Some(child.id));
    let other = engine.issue(|_| {});
    assert_eq!(engine.revoke(RevokeTarget::Family(grandchild.id)).revoked, 3);
    for token in [&root, &child, &grandchild] {
        assert_eq!(engine.verdict(token), Verdict::Revoked);
    }
    assert_eq!(engine.verdict(&other), Verdict::Valid);
    let orphan = engine.run(issue_command(|issue| issue.parent = Some(child.id)));
    assert_eq!(orphan.unwrap_err(), Rejection::ParentNotLive);
    engine.assert_replays();
}

#[test]
fn a_revoke_by_resource_takes_the_grants_within_and_reports_the_broader_ones() {
    let mut engine = Engine::new();
    let with = |grant: &'static str| {
        move |issue: &mut crate::command::IssueTokens| {
            issue.claims =
                crate::claims::Claims::new([], [], [grant.parse().unwrap()], Default::default()).unwrap();
        }
    };
    let exact = engine.issue(with("read on journal/42"));
    let below = engine.issue(with("read on journal/42/notes"));
    let broad = engine.issue(with("read on journal/*"));
    let apart = engine.issue(with("read on ledger/42"));
    let pattern = "journal/42/**".parse().unwrap();
    let report = engine.revoke(RevokeTarget::Resource { tenant: name(FIRST_TENANT), pattern });
    assert_eq!(report, RevokeReport { revoked: 2, broader: 1 });
    let verdicts = [&exact, &below, &broad, &apart].map(|token| engine.verdict(token));
    assert_eq!(verdicts, [Verdict::Revoked, Verdict::Revoked, Verdict::Valid, Verdict::Valid]);
    let again = engine.issue(with("read on journal/42"));
    assert_eq!(engine.verdict(&again), Verdict::Valid, "what is issued after a revoke lives");
    engine.assert_replays();
}

#[test]
fn a_repeated_issue_leaves_at_most_one_live_token_for_its_key() {
    let mut engine = Engine::new();
    let mut issue = || match engine.run_as(1, Some(8), issue_command(|_| {})) {
        Ok(Outcome::Issued { mut tokens, .. }) => tokens.remove(0),
        other => panic!("not issued: {other:?}"),
    };
    let (first, second) = (issue(), issue());
    assert_ne!(first, second);
    assert_eq!(engine.verdict(&first), Verdict::Revoked);
    assert_eq!(engine.verdict(&second), Verdict::Valid);
    let other = engine.run_as(1, Some(8), issue_command(|issue| issue.ttl_s = 7));
    assert_eq!(other.unwrap_err(), Rejection::KeyReused);
    engine.assert_replays();
}

#[test]
fn a_consume_repeated_with_its_key_spends_one_use_and_without_it_two() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.uses_max = 3);
    assert_eq!(said(&engine.run_as(1, Some(1), consume(&token))), "valid, 2 left");
    assert_eq!(said(&engine.run_as(1, Some(1), consume(&token))), "valid, 2 left");
    assert_eq!(said(&engine.run(consume(&token))), "valid, 1 left");
    engine.assert_replays();
}

#[test]
fn rights_hold_where_they_were_granted_until_they_are_withdrawn() {
    let mut engine = Engine::new();
    let service = || name("spiffe://test/service");
    let change = |tenant: &str, rights| ChangeRights { client: service(), tenant: name(tenant), rights };
    engine.run(Command::CreateTenant { name: name("acme") }).unwrap();
    let granted = engine.run(Command::GrantRights(change("acme", Rights::ISSUE.with(Rights::VALIDATE))));
    assert_eq!(said(&granted), "rights issue,validate");
    let issue_in = |tenant: &'static str| issue_command(move |issue| issue.tenant = name(tenant));
    assert_eq!(said(&engine.run_as(2, None, issue_in("acme"))), "issued 1");
    assert_eq!(engine.run_as(2, None, issue_in(FIRST_TENANT)).unwrap_err(), Rejection::NotAllowed);
    assert_eq!(engine.run_as(2, None, issue_in("nowhere")).unwrap_err(), Rejection::NotAllowed);
    let to_itself = Command::GrantRights(change("acme", Rights::REVOKE));
    assert_eq!(engine.run_as(2, None, to_itself).unwrap_err(), Rejection::NotAllowed);
    engine.run(Command::WithdrawRights(change("acme", Rights::ISSUE))).unwrap();
    assert_eq!(engine.run_as(2, None, issue_in("acme")).unwrap_err(), Rejection::NotAllowed);
    assert!(engine.view.registry().caller("spiffe://test/service").may(Rights::VALIDATE, TenantNo(2)));
    engine.assert_replays();
}

#[test]
fn the_last_administrator_stays() {
    let mut engine = Engine::new();
    let change =
        || ChangeRights { client: name(crate::testing::ADMIN), tenant: name("*"), rights: Rights::ADMIN };
    assert_eq!(engine.run(Command::WithdrawRights(change())).unwrap_err(), Rejection::LastAdmin);
    let second = ChangeRights { client: name("spiffe://test/second"), ..change() };
    engine.run(Command::GrantRights(second)).unwrap();
    assert_eq!(
        said(&engine.run(Command::WithdrawRights(change()))),
        "rights issue,validate,revoke,inspect,audit"
    );
}

#[test]
fn a_client_without_rights_is_told_nothing_of_a_token() {
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    assert_eq!(said(&engine.run_as(9, None, consume(&token))), "denied, 0 left");
    let revoked = engine.run_as(9, None, Command::Revoke(RevokeTarget::Id(token.id)));
    assert_eq!(revoked.unwrap_err(), Rejection::NotFound);
    let renewed =
        engine.run_as(9, None, Command::RenewToken { token: token.clone(), ttl_s: 1, binding: None });
    assert_eq!(renewed.unwrap_err(), Rejection::Token(Verdict::Denied));
    assert_eq!(engine.verdict(&token), Verdict::Valid);
}

#[test]
fn numbers_out_of_range_are_named() {
    let mut engine = Engine::new();
    type Change = fn(&mut crate::command::IssueTokens);
    let cases: [(&str, Change); 6] = [
        ("lifetime must be", |issue| issue.ttl_s = 0),
        ("lifetime must be", |issue| issue.ttl_s = u32::MAX),
        ("delay before validity", |issue| issue.not_before_s = 3_600),
        ("renewable lifetime", |issue| issue.renewable_s = 3_599),
        ("256 subjects", |issue| issue.subjects.clear()),
        ("256 subjects", |issue| issue.subjects = vec![name("x"); 257]),
    ];
    for (words, change) in cases {
        let message = engine.run(issue_command(change)).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_full_index_refuses_the_issue_and_keeps_the_rest() {
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    let mut last = Ok(());
    for _ in 0..50 {
        let command = issue_command(|issue| issue.subjects = vec![name("x"); 256]);
        last = engine.run(command).map(drop);
    }
    assert_eq!(last.unwrap_err().to_string(), "limit reached: tokens");
    assert_eq!(engine.verdict(&token), Verdict::Valid);
    engine.assert_replays();
}

#[test]
fn a_bound_token_is_renewed_only_with_what_it_is_bound_to() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| (issue.renewable_s, issue.binding) = (7_200, Some(Binding([1; 32]))));
    let renew = |binding| Command::RenewToken { token: token.clone(), ttl_s: 5_000, binding };
    assert_eq!(engine.run(renew(None)).unwrap_err(), Rejection::Token(Verdict::BindingMismatch));
    assert_eq!(said(&engine.run(renew(Some(Binding([1; 32]))))), "renewed until 5000 s");
}

#[test]
fn a_key_belongs_to_the_client_that_used_it() {
    let mut engine = Engine::new();
    let service =
        ChangeRights { client: name("spiffe://test/service"), tenant: name("*"), rights: Rights::ALL };
    engine.run(Command::GrantRights(service)).unwrap();
    let token = engine.issue(|issue| issue.uses_max = 5);
    assert_eq!(said(&engine.run_as(1, Some(1), consume(&token))), "valid, 4 left");
    assert_eq!(said(&engine.run_as(2, Some(1), consume(&token))), "valid, 3 left");
    let other = engine.run_as(2, Some(1), Command::Revoke(RevokeTarget::Id(token.id)));
    assert_eq!(other.unwrap_err(), Rejection::KeyReused);
    assert_eq!(said(&engine.run_as(1, Some(1), consume(&token))), "valid, 4 left");
    engine.pass_s(super::KEY_MEMORY_MS / 1_000);
    assert_eq!(said(&engine.run_as(1, Some(1), consume(&token))), "valid, 2 left");
    engine.assert_replays();
}

#[test]
fn a_keyed_consume_that_spent_nothing_is_decided_anew() {
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    assert_eq!(said(&engine.run_as(1, Some(1), consume(&token))), "valid, 0 left");
    engine.revoke(RevokeTarget::Id(token.id));
    assert_eq!(said(&engine.run_as(1, Some(1), consume(&token))), "revoked, 0 left");
}

#[test]
fn a_repeated_consume_tells_the_time_left_by_then_and_nothing_to_whom_lost_the_right() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.uses_max = 2);
    let answer = |engine: &mut Engine, actor| match engine.run_as(actor, Some(1), consume(&token)) {
        Ok(Outcome::Consumed { answer, .. }) => answer,
        other => panic!("{other:?}"),
    };
    let service = || ChangeRights {
        client: name("spiffe://test/service"),
        tenant: name("*"),
        rights: Rights::VALIDATE,
    };
    engine.run(Command::GrantRights(service())).unwrap();
    assert_eq!(answer(&mut engine, 2).seconds_left, 3_600);
    engine.pass_s(100);
    assert_eq!(answer(&mut engine, 2).seconds_left, 3_500);
    engine.run(Command::WithdrawRights(service())).unwrap();
    assert_eq!(answer(&mut engine, 2).verdict, Verdict::Denied);
}

#[test]
fn a_decision_changes_nothing_even_if_it_is_a_rejection_after_the_keys_were_forgotten() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.uses_max = 2);
    engine.run_as(1, Some(1), consume(&token)).unwrap();
    engine.pass_s(300);
    engine.issue(|_| {});
    engine.pass_s(301);
    engine.run_as(1, Some(2), issue_command(|issue| issue.ttl_s = 0)).unwrap_err();
    engine.assert_replays();
}
