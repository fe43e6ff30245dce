//! The view: what readers ask for verdicts.
//!
//! A clone per shard. A validate takes no lock, queues nothing, writes nothing and never reads the log: index, slab and
//! registry are all it looks at. It is the same judge that the sequencer asks, so both always agree.

use std::cell::RefCell;
use std::sync::Arc;

pub use jeton_index::Reader;
use jeton_index::{Candidate, Found, Pin};

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
/// vain: at 10 M tokens one cost 64 ns in chunks of 16, 86 of 32 and 94 of 64 (`benches/validate.rs`).
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

/// A token that is asked about: its id, the digest of what was presented, and what is asked.
struct Asked<'a> {
    id: &'a [u8; 16],
    digest: &'a [u8; 32],
    check: Option<&'a Check<'a>>,
}

/// One validate under way: who asks, and when.
struct Asking<'a> {
    view: &'a View,
    caller: &'a Caller,
    now: Millis,
    /// Of the token before, `*` before the first, and what the caller may do there; mostly the next one has the same.
    tenant: TenantNo,
    may_validate: bool,
    may_inspect: bool,
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
        let mut asking = Asking::new(self, caller, now);
        SCRATCH.with_borrow_mut(|scratch| {
            let mut chunks = tokens.chunks(CHUNK_TOKENS).enumerate().peekable();
            pin.prefetch(tokens.iter().take(CHUNK_TOKENS).map(id_of));
            while let Some((chunk_at, chunk)) = chunks.next() {
                let are_some_further = pin.locate(chunk.iter().map(id_of), &mut scratch.candidates);
                let digests = scratch.digester.digest(chunk); // while the records are on their way
                if are_some_further {
                    pin.locate_further(chunk.iter().map(id_of), &mut scratch.candidates);
                }
                if let Some((_, next)) = chunks.peek() {
                    pin.prefetch(next.iter().map(id_of)); // to come while this chunk is judged
                }
                for (at, token) in chunk.iter().enumerate() {
                    let check = checks.at(chunk_at * CHUNK_TOKENS + at);
                    let asked = Asked { id: id_of(token), digest: &digests[at], check };
                    let candidate = &scratch.candidates[at];
                    // Pushed in both arms: an answer that came from either would have to lie in memory first, and what is
                    // written there in parts takes long to be read as a whole.
                    match pin.resolve_plain(asked.id, candidate) {
                        Some(found) => answers.push(asking.answer(Some(&found), &asked)),
                        None => answers.push(asking.answer_at_length(&pin, candidate, &asked)),
                    }
                }
            }
        });
    }

    /// Everything that is known of a token, for callers who may inspect in its tenant.
    #[must_use]
    pub fn inspect(&self, caller: &Caller, now: Millis, id: &TokenId) -> Option<Inspection> {
        let found = self.reader.pin().lookup(&id.0)?;
        let claims = self.registry.claim_set(ClaimsNo(found.claims()))?;
        let seen = Seen { found: &found, claims, extra: found.tail.as_ref().map(Extra::from_words) };
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

impl<'a> Asking<'a> {
    fn new(view: &'a View, caller: &'a Caller, now: Millis) -> Self {
        let tenant = TenantNo::EVERY;
        let mut asking = Self { view, caller, now, tenant, may_validate: false, may_inspect: false };
        asking.enter(tenant);
        asking
    }

    /// Looks up what the caller may do in a tenant. Each field is written by itself: returned together they would come through
    /// memory in parts and be read as a whole, which holds the next token up for some 7 ns (decision 0015).
    #[inline(never)]
    fn enter(&mut self, tenant: TenantNo) {
        self.tenant = tenant;
        self.may_validate = self.caller.may(Rights::VALIDATE, tenant);
        self.may_inspect = self.caller.may(Rights::INSPECT, tenant);
    }

    /// The answer about a token that has a tail, moved, or is not there: seldom asked about, so its code is kept out of the
    /// way.
    #[inline(never)]
    fn answer_at_length(&mut self, pin: &Pin<'_>, candidate: &Candidate, asked: &Asked<'_>) -> Answer {
        self.answer(pin.resolve(asked.id, candidate).as_ref(), asked)
    }

    #[inline(always)]
    fn answer(&mut self, found: Option<&Found>, asked: &Asked<'_>) -> Answer {
        // An unknown token is compared with something too.
        let is_right = has_digest_words(asked.digest, found.map_or([0; 4], Found::digest_words));
        let nothing = |asking: &Self| about_nothing(Verdict::Unknown, asking.caller);
        let Some(found) = found else { return nothing(self) };
        let number = ClaimsNo(found.claims());
        let Some(claims) = self.view.registry.claim_set(number) else { return nothing(self) };
        if claims.tenant != self.tenant {
            self.enter(claims.tenant);
        }
        let (Some(check), true) = (asked.check, self.may_validate) else { return nothing(self) };
        if !is_right {
            return told(Answer { verdict: Verdict::WrongSecret, ..Answer::default() }, self.may_inspect);
        }
        let extra = found.tail.as_ref().map(Extra::from_words);
        let seen = Seen { found, claims, extra };
        let facts = seen.facts();
        let verdict = match judge(&facts, self.now, check) {
            Verdict::ConsumeRequired if self.view.registry.log_failed() => Verdict::Unavailable,
            verdict => verdict,
        };
        if verdict == Verdict::Unknown {
            return nothing(self); // issued, not yet durable
        }
        let answer = Answer {
            verdict,
            flags: flags(&facts),
            seconds_left: facts.expires.left_after(self.now),
            claims: number,
            subject: SubjectNo(found.link()),
        };
        told(answer, self.may_inspect)
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

#[cfg(test)]
mod tests;
