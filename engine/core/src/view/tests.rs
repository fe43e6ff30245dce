use std::collections::BTreeMap;

use super::*;
use crate::claims::Claims;
use crate::command::{ChangeRights, Command, RevokeTarget};
use crate::sequencer::FIRST_TENANT;
use crate::testing::{Engine, name};
use crate::token::Token;

const PRESS: &str = "press";

/// An engine with a token in the first tenant and one in another.
fn of_two_tenants() -> (Engine, [Token; 2]) {
    let mut engine = Engine::new();
    engine.run(Command::CreateTenant { name: name(PRESS) }).unwrap();
    let tokens = [FIRST_TENANT, PRESS].map(|tenant| engine.issue(|issue| issue.tenant = name(tenant)));
    (engine, tokens)
}

/// What a client with these rights is told of both tokens, twice in turn, in one frame.
fn told(engine: &mut Engine, tokens: &[Token; 2], rights: &[(&str, Rights)]) -> Vec<Verdict> {
    let identity = format!("spiffe://test/{}", engine.log.len());
    for (tenant, rights) in rights {
        let change = ChangeRights { client: name(&identity), tenant: name(tenant), rights: *rights };
        engine.run(Command::GrantRights(change)).unwrap();
    }
    let frame: Vec<_> = tokens.iter().chain(tokens).map(Token::to_bytes).collect();
    let (caller, mut answers) = (engine.view.registry().caller(&identity), Vec::new());
    engine.view.validate(&caller, engine.now, &frame, Checks::Same(&Check::default()), &mut answers);
    answers.into_iter().map(|answer| answer.verdict).collect()
}

#[test]
fn rights_are_those_in_the_tenant_of_each_token_of_a_frame() {
    use Verdict::{Denied, Revoked, Unknown, Valid};
    let (mut engine, tokens) = of_two_tenants();
    let told = |engine: &mut Engine, rights: &[(&str, Rights)]| told(engine, &tokens, rights);
    let both = Rights::VALIDATE.with(Rights::INSPECT);
    assert_eq!(told(&mut engine, &[]), [Denied; 4]);
    assert_eq!(told(&mut engine, &[(FIRST_TENANT, Rights::VALIDATE)]), [Valid, Denied, Valid, Denied]);
    assert_eq!(told(&mut engine, &[(PRESS, Rights::VALIDATE)]), [Denied, Valid, Denied, Valid]);
    assert_eq!(told(&mut engine, &[("*", Rights::VALIDATE)]), [Valid; 4]);
    assert_eq!(told(&mut engine, &[(PRESS, both)]), [Unknown, Valid, Unknown, Valid]);
    engine.revoke(RevokeTarget::Id(tokens[0].id));
    engine.revoke(RevokeTarget::Id(tokens[1].id));
    let validates = ("*", Rights::VALIDATE);
    assert_eq!(told(&mut engine, &[validates]), [Denied; 4]);
    assert_eq!(
        told(&mut engine, &[validates, (PRESS, Rights::INSPECT)]),
        [Denied, Revoked, Denied, Revoked],
        "why it is dead is for those to know who may inspect there"
    );
}

#[test]
fn a_claim_set_that_names_audiences_and_one_that_names_none() {
    let mut engine = Engine::new();
    let claims = Claims::new([name("api")], [], [], BTreeMap::new()).unwrap();
    let named = engine.issue(|issue| issue.claims = claims);
    let unnamed = engine.issue(|issue| issue.claims = Claims::default());
    for (audience, verdict) in
        [(None, Verdict::Forbidden), (Some("api"), Verdict::Valid), (Some("other"), Verdict::Forbidden)]
    {
        let check = Check { audience, ..Check::default() };
        assert_eq!(engine.ask(&named, &check).verdict, verdict, "{audience:?}");
        assert_eq!(engine.ask(&unnamed, &check).verdict, Verdict::Valid, "{audience:?}");
    }
}

#[test]
fn nothing_is_allowed_by_a_claim_set_that_was_erased() {
    let erased =
        ClaimSet::new(TenantNo(1), crate::numbers::ClientNo(1), &[], None, crate::numbers::Sequence(1));
    assert!(!erased.audience_ok(None) && !erased.audience_ok(Some("api")));
}
