//! The view: what readers ask for verdicts.
//!
//! A clone per shard. A validate takes no lock, queues nothing, writes nothing and never reads the log: index, slab and
//! registry are all it looks at. It is the same judge that the sequencer asks, so both always agree.

use std::cell::RefCell;
use std::sync::Arc;

pub use jeton_index::Reader;
use jeton_index::{Candidate, Found};

use crate::check::{Check, Checks};
use crate::extra::Extra;
use crate::inspection::Inspection;
use crate::judge::{Facts, flags, judge, told};
use crate::numbers::{ClaimsNo, SubjectNo, TenantNo};
use crate::registry::{ClaimSet, Registry};
use crate::rights::{Caller, Rights};
use crate::time::{Millis, Seconds};
use crate::token::{DIGEST_BATCH, Digester, TokenId, has_digest_words};
use crate::verdict::{Answer, Verdict};

/// Tokens that are looked up together: as many as are hashed at a time. More cache lines than those of 16 tokens are asked for in
/// vain: at 10 M tokens one cost 76 ns in chunks of 16 and 99 in chunks of 64 (`benches/validate.rs`). For the same reason a
/// chunk is not looked up while the one before is judged: 83 ns instead of 67.
const CHUNK_TOKENS: usize = DIGEST_BATCH;

/// What readers see.
#[derive(Clone, Debug)]
pub struct View {
    reader: Reader,
    registry: Arc<Registry>,
}

/// Room for one chunk, reused so that a validate allocates nothing.
struct Scratch {
    digester: Digester,
    candidates: [Candidate; CHUNK_TOKENS],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch { digester: Digester::new(), candidates: [Candidate::NOWHERE; CHUNK_TOKENS] })
    };
}

/// A token that was found, with everything that belongs to it.
struct Seen<'a> {
    found: &'a Found,
    claims: &'a ClaimSet,
    extra: Option<Extra>,
}

impl Seen<'_> {
    fn facts(&self) -> Facts<'_> {
        Facts {
            bits: self.found.state,
            expires: Seconds(self.found.expires_s()),
            claims: self.claims,
            extra: self.extra.as_ref(),
        }
    }
}

impl View {
    /// A view of an index and a registry that belong together.
    #[must_use]
    pub fn new(reader: Reader, registry: Arc<Registry>) -> Self {
        Self { reader, registry }
    }

    /// What the numbers in answers stand for.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Answers for `tokens` (16 bytes id, 16 bytes secret) at `now`, appended to `answers` in order.
    ///
    /// A token of a tenant in which the caller may not validate is answered as unknown.
    pub fn validate(
        &self,
        caller: &Caller,
        now: Millis,
        tokens: &[[u8; 32]],
        checks: Checks<'_>,
        answers: &mut Vec<Answer>,
    ) {
        answers.reserve(tokens.len());
        let pin = self.reader.pin();
        SCRATCH.with_borrow_mut(|scratch| {
            for (chunk_at, chunk) in tokens.chunks(CHUNK_TOKENS).enumerate() {
                pin.prefetch(chunk.iter().map(id_of));
                let digests = scratch.digester.digest(chunk); // while the cache lines are on their way
                pin.locate(chunk.iter().map(id_of), &mut scratch.candidates);
                for (at, token) in chunk.iter().enumerate() {
                    let check = checks.at(chunk_at * CHUNK_TOKENS + at);
                    let found = pin.resolve(id_of(token), &scratch.candidates[at]);
                    answers.push(self.answer(caller, now, found.as_ref(), &digests[at], check));
                }
            }
        });
    }

    #[inline(always)]
    fn answer(
        &self,
        caller: &Caller,
        now: Millis,
        found: Option<&Found>,
        digest: &[u8; 32],
        check: Option<&Check<'_>>,
    ) -> Answer {
        // An unknown token is compared with something too: the time tells nothing.
        let is_right = has_digest_words(digest, found.map_or([0; 4], Found::digest_words));
        let Some(seen) = found.and_then(|found| self.complete(found)) else {
            return about_nothing(Verdict::Unknown, caller);
        };
        let tenant = seen.claims.tenant;
        let Some(check) = check.filter(|_| caller.may(Rights::VALIDATE, tenant)) else {
            return about_nothing(Verdict::Unknown, caller);
        };
        let may_inspect = caller.may(Rights::INSPECT, tenant);
        if !is_right {
            return told(Answer { verdict: Verdict::WrongSecret, ..Answer::default() }, may_inspect);
        }
        let facts = seen.facts();
        let verdict = match judge(&facts, now, check) {
            Verdict::ConsumeRequired if self.registry.log_failed() => Verdict::Unavailable,
            verdict => verdict,
        };
        if verdict == Verdict::Unknown {
            return about_nothing(Verdict::Unknown, caller); // issued, not yet durable
        }
        let answer = Answer {
            verdict,
            flags: flags(&facts),
            seconds_left: facts.expires.left_after(now),
            claims: ClaimsNo(seen.found.claims()),
            subject: SubjectNo(seen.found.link()),
        };
        told(answer, may_inspect)
    }

    #[inline]
    fn complete<'a>(&'a self, found: &'a Found) -> Option<Seen<'a>> {
        let claims = self.registry.claim_set(ClaimsNo(found.claims()))?;
        let extra = found.tail.as_ref().map(Extra::from_words);
        Some(Seen { found, claims, extra })
    }

    /// Everything that is known of a token, for callers who may inspect in its tenant.
    #[must_use]
    pub fn inspect(&self, caller: &Caller, now: Millis, id: &TokenId) -> Option<Inspection> {
        let pin = self.reader.pin();
        let found = pin.lookup(&id.0)?;
        let seen = self.complete(&found)?;
        if !caller.may(Rights::INSPECT, seen.claims.tenant) {
            return None;
        }
        let extra = seen.extra.unwrap_or_default();
        let record = seen.found.record();
        let subject = SubjectNo(record.link);
        let verdict = crate::judge::cause_of_death(&seen.facts(), now).unwrap_or(match extra.uses_max {
            0 => Verdict::Valid,
            _ => Verdict::ConsumeRequired,
        });
        Some(Inspection {
            id: *id,
            verdict,
            tenant: self.registry.tenant_name(seen.claims.tenant).to_owned(),
            subject: self.subject_name(subject),
            subject_no: subject,
            client: self.registry.client_name(seen.claims.client).to_owned(),
            claims: ClaimsNo(record.claims),
            issued: Seconds(record.issued_s),
            not_before: extra.not_before,
            expires: Seconds(record.expires_s),
            renewable_until: (extra.renewable_until.0 > 0).then_some(extra.renewable_until),
            uses: (extra.uses_max > 0)
                .then(|| (extra.uses_max, extra.uses_left(seen.found.state, seen.found.counter))),
            family: extra.family,
            bound: extra.binding.is_some(),
        })
    }

    fn subject_name(&self, subject: SubjectNo) -> Option<String> {
        let record = self.registry.subjects.get(subject.0 as usize)?;
        record.name.as_deref().map(str::to_owned)
    }

    /// The tenant with this number by name; for figures and messages.
    #[must_use]
    pub fn tenant_name(&self, tenant: TenantNo) -> &str {
        self.registry.tenant_name(tenant)
    }
}

/// The id half of a token's bytes.
#[inline]
fn id_of(token: &[u8; 32]) -> &[u8; 16] {
    token.first_chunk().expect("32 bytes begin with 16")
}

/// The answer about a token of which the caller can know nothing. Whoever may not inspect some of what it may validate is
/// told no more of what does not exist than of that.
fn about_nothing(verdict: Verdict, caller: &Caller) -> Answer {
    told(Answer { verdict, ..Answer::default() }, caller.inspects_all_it_validates())
}
