//! What clients ask for: a small world of few names, so that everything meets everything.

use jeton_core::check::Check;
use jeton_core::claims::{Claims, Name, ResourceQuery, ScopesQuery};
use jeton_core::command::{Access, ChangeRights, Command, ConsumeToken, IssueTokens, RevokeTarget};
use jeton_core::numbers::{Binding, ClaimsNo, SubjectNo};
use jeton_core::rights::Rights;
use jeton_core::sequencer::FIRST_TENANT;
use jeton_core::token::{Token, TokenId};
use jeton_core::verdict::Verdict;

use super::rng::Rng;

pub(super) const ADMIN: &str = "spiffe://sim/admin";
pub(super) const SERVICE: &str = "spiffe://sim/service";
pub(super) const OTHER_SERVICE: &str = "spiffe://sim/other-service";
const OTHER_TENANT: &str = "other";
const SUBJECTS: [&str; 5] = ["ann", "bob", "cid", "dan", "eve"];
const AUDIENCES: [Option<&str>; 4] = [None, None, Some("api"), Some("web")];
const ACCESSES: [Option<(&str, &str)>; 6] = [
    None,
    None,
    Some(("read", "journal/42")),
    Some(("write", "journal/7")),
    Some(("read", "docs/a/b")),
    Some(("write", "docs/a")),
];
const BINDINGS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
const PATTERNS: [&str; 5] = ["journal/42", "journal/*", "docs/a", "docs/**", "docs/a/b"];
const SCOPES: [Option<&str>; 4] = [None, None, Some("profile"), Some("mail profile")];
/// Audience, scopes and grants of each claim set.
const CLAIMS: [(&[&str], &[&str], &[&str]); 6] = [
    (&[], &["profile"], &["read on journal/42"]),
    (&["api"], &["mail", "profile"], &["read,write on journal/*"]),
    (&[], &["mail", "openid", "profile"], &["* on docs/**"]),
    (&["api", "web"], &["mail"], &["read on docs/a/b"]),
    (&[], &[], &[]),
    (&[], &["profile"], &["read on journal/42", "write on docs/a"]),
];
/// Tokens that clients remember: few, so that each is asked about often.
const TOKENS_MAX: usize = 14;

/// The conditions of a check, owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asking {
    access: Option<(String, String)>,
    audience: Option<String>,
    scopes: Option<String>,
    binding: Option<Binding>,
}

impl Asking {
    pub(super) fn of(check: &Check<'_>) -> Self {
        Self {
            access: check.access.map(|access| (access.action().to_owned(), access.resource().to_owned())),
            audience: check.audience.map(str::to_owned),
            scopes: check.scopes.map(|scopes| scopes.as_str().to_owned()),
            binding: check.binding,
        }
    }

    /// What a consume is checked against.
    pub(super) fn of_consume(consume: &ConsumeToken) -> Self {
        let access = consume.access.as_ref();
        Self {
            access: access.map(|access| (access.action.clone(), access.resource.clone())),
            audience: consume.audience.clone(),
            scopes: consume.scopes.clone(),
            binding: consume.binding,
        }
    }

    pub(super) fn check(&self) -> Check<'_> {
        Check {
            access: self.access.as_ref().map(|(action, resource)| {
                ResourceQuery::new(action, resource).expect("only concrete resources are asked about")
            }),
            audience: self.audience.as_deref(),
            scopes: self
                .scopes
                .as_deref()
                .map(|scopes| ScopesQuery::new(scopes).expect("only scopes are asked for")),
            binding: self.binding,
        }
    }

    fn random(pool: &Pool, rng: &mut Rng) -> Self {
        let access = *rng.pick(&ACCESSES);
        Self {
            access: access.map(|(action, resource)| (action.to_owned(), resource.to_owned())),
            audience: rng.pick(&AUDIENCES).map(str::to_owned),
            scopes: if pool.has_scopes { rng.pick(&SCOPES).map(str::to_owned) } else { None },
            binding: rng.one_in(3).then(|| Binding(*rng.pick(&BINDINGS))),
        }
    }
}

/// What a client asks.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// A write, with its idempotency key if it has one.
    Write(Option<[u8; 16]>, Command),
    /// A validate: tokens, the check of each, and what its answers have to rest on.
    Validate {
        tokens: Vec<[u8; 32]>,
        checks: Vec<Asking>,
        after: After,
        with_subjects: bool,
    },
    /// Look-ups.
    Claims(ClaimsNo),
    Subject(SubjectNo),
    Inspect(TokenId),
    Clients,
}

/// What answers have to rest on.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    Anything,
    /// All that the client has written.
    OwnWrites,
    /// So many events more: they may not have happened yet.
    More(u64),
}

/// What all clients know together.
#[derive(Debug, Default)]
pub(super) struct Pool {
    tokens: Vec<Token>,
    /// Whether tokens have scopes, and are asked for them.
    has_scopes: bool,
}

impl Pool {
    /// What clients know at first. Scopes are a matter of every fourth seed: those that are pinned are the runs they were.
    pub(super) fn new(seed: u64) -> Self {
        Self { has_scopes: seed % 4 == 3, ..Self::default() }
    }

    /// Remembers a token in place of some other.
    pub(super) fn learn(&mut self, token: &Token, rng: &mut Rng) {
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.swap_remove(rng.below(TOKENS_MAX as u64) as usize);
        }
        self.tokens.push(token.clone());
    }

    /// Forgets a token that is dead, mostly: a pool of dead tokens asks little of anybody.
    pub(super) fn heard(&mut self, id: TokenId, verdict: Verdict, rng: &mut Rng) {
        let is_dead = matches!(verdict, Verdict::Revoked | Verdict::Expired | Verdict::Spent);
        if is_dead && rng.one_in(3) {
            self.tokens.retain(|token| token.id != id);
        }
    }

    /// A token: mostly a known one, now and then one with a wrong secret or none at all.
    fn token(&self, rng: &mut Rng) -> Token {
        if self.tokens.is_empty() || rng.one_in(40) {
            let mut bytes = [0; 32];
            rng.fill(&mut bytes);
            return Token::from_bytes(bytes);
        }
        let mut bytes = rng.pick(&self.tokens).to_bytes();
        if rng.one_in(40) {
            bytes[31] ^= 1;
        }
        Token::from_bytes(bytes)
    }
}

/// What a client asks next.
pub(super) fn next(pool: &Pool, is_admin: bool, rng: &mut Rng) -> Ask {
    match rng.below(100) {
        0..46 => validate(pool, rng),
        46..50 => look_up(pool, rng),
        _ => {
            let command = command(pool, is_admin, rng);
            Ask::Write(rng.percent(60).then(|| key(rng)), command)
        }
    }
}

fn key(rng: &mut Rng) -> [u8; 16] {
    let mut key = [0; 16];
    rng.fill(&mut key);
    key
}

fn validate(pool: &Pool, rng: &mut Rng) -> Ask {
    let count = 1 + rng.below(6) as usize;
    let tokens = (0..count).map(|_| pool.token(rng).to_bytes()).collect();
    let checks = match rng.below(3) {
        0 => vec![Asking::default()],
        1 => vec![Asking::random(pool, rng)],
        _ => (0..count).map(|_| Asking::random(pool, rng)).collect(),
    };
    let after = match rng.below(10) {
        0..2 => After::OwnWrites,
        2 => After::More(1 + rng.below(3)),
        _ => After::Anything,
    };
    Ask::Validate { tokens, checks, after, with_subjects: rng.one_in(2) }
}

fn look_up(pool: &Pool, rng: &mut Rng) -> Ask {
    match rng.below(5) {
        4 => Ask::Clients,
        0 => Ask::Claims(ClaimsNo(rng.below(16) as u32)),
        1 => Ask::Subject(SubjectNo(rng.below(12) as u32)),
        _ => Ask::Inspect(pool.token(rng).id),
    }
}

fn command(pool: &Pool, is_admin: bool, rng: &mut Rng) -> Command {
    match rng.below(100) {
        0..36 => issue(pool, rng),
        36..58 => consume(pool, rng),
        58..66 => {
            let binding = rng.one_in(3).then(|| Binding(*rng.pick(&BINDINGS)));
            Command::RenewToken { token: pool.token(rng), ttl_s: rng.within(1..8) as u32, binding }
        }
        66..89 => Command::Revoke(target(pool, rng)),
        89..99 if is_admin || rng.one_in(4) => change_rights(rng),
        89..99 => issue(pool, rng),
        _ => Command::CreateTenant { name: name(OTHER_TENANT) },
    }
}

fn issue(pool: &Pool, rng: &mut Rng) -> Command {
    // Rarely as many as take more than a batch.
    let count = if rng.one_in(150) { 70 } else { 1 + rng.below(3) };
    let (audience, scopes, grants) = *rng.pick(&CLAIMS);
    let scopes = scopes.iter().map(|&scope| scope.to_owned()).filter(|_| pool.has_scopes);
    let audience = audience.iter().map(|text| name(text));
    let grants = grants.iter().map(|text| text.parse().expect("a grant"));
    let ttl_s = if rng.one_in(8) { 60 } else { rng.within(1..8) as u32 };
    Command::IssueTokens(IssueTokens {
        tenant: tenant(rng),
        subjects: (0..count).map(|_| one_of(&SUBJECTS, rng)).collect(),
        claims: Claims::new(audience, scopes, grants, Default::default()).expect("claims"),
        ttl_s,
        not_before_s: if rng.one_in(8) { rng.below(u64::from(ttl_s) + 1) as u32 } else { 0 },
        renewable_s: if rng.one_in(3) { ttl_s + rng.below(8) as u32 } else { 0 },
        uses_max: if rng.percent(40) { 1 + rng.below(3) as u32 } else { 0 },
        parent: rng.percent(35).then(|| pool.token(rng).id),
        binding: rng.one_in(5).then(|| Binding(*rng.pick(&BINDINGS))),
    })
}

fn consume(pool: &Pool, rng: &mut Rng) -> Command {
    let asking = if rng.one_in(3) { Asking::random(pool, rng) } else { Asking::default() };
    Command::ConsumeToken(ConsumeToken {
        token: pool.token(rng),
        access: asking.access.map(|(action, resource)| Access { action, resource }),
        audience: asking.audience,
        scopes: asking.scopes,
        binding: asking.binding,
    })
}

fn target(pool: &Pool, rng: &mut Rng) -> RevokeTarget {
    match rng.below(100) {
        0..22 => RevokeTarget::Id(pool.token(rng).id),
        22..40 => RevokeTarget::Token(pool.token(rng)),
        40..72 => RevokeTarget::Subject { tenant: tenant(rng), subject: one_of(&SUBJECTS, rng) },
        72..88 => RevokeTarget::Family(pool.token(rng).id),
        88..92 => RevokeTarget::Client {
            tenant: tenant(rng),
            client: one_of(&[ADMIN, SERVICE, OTHER_SERVICE], rng),
        },
        92..98 => {
            let pattern = rng.pick(&PATTERNS).parse().expect("a pattern");
            RevokeTarget::Resource { tenant: tenant(rng), pattern }
        }
        _ => RevokeTarget::Tenant { tenant: tenant(rng) },
    }
}

fn change_rights(rng: &mut Rng) -> Command {
    let rights = Rights::from_bits(rng.below(32) as u8).expect("rights without admin");
    let tenant = if rng.one_in(5) { name("*") } else { tenant(rng) };
    let service = one_of(&[SERVICE, SERVICE, OTHER_SERVICE], rng);
    let change = |rights| ChangeRights { client: service.clone(), tenant: tenant.clone(), rights };
    match rng.below(8) {
        // Refused: nobody else administers everything.
        0 => Command::WithdrawRights(ChangeRights {
            client: name(ADMIN),
            tenant: name("*"),
            rights: rights.with(Rights::ADMIN),
        }),
        1..3 => Command::WithdrawRights(change(rights)),
        _ => Command::GrantRights(change(rights)),
    }
}

/// What a service may do from the beginning.
pub(super) fn first_grant(service: &str) -> Command {
    let rights = Rights::ISSUE.with(Rights::VALIDATE).with(Rights::REVOKE);
    Command::GrantRights(ChangeRights { client: name(service), tenant: name(FIRST_TENANT), rights })
}

fn tenant(rng: &mut Rng) -> Name {
    name(if rng.one_in(6) { OTHER_TENANT } else { FIRST_TENANT })
}

fn one_of(names: &[&str], rng: &mut Rng) -> Name {
    let picked = rng.pick(names);
    name(picked)
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}
