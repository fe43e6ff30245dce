//! The judge: the one place that says whether a token is good.
//!
//! Readers and the sequencer both ask here, so a consume can never pass where a validate would be denied.

use jeton_index::State as Bits;

use crate::check::Check;
use crate::extra::Extra;
use crate::mutation::mutated;
use crate::numbers::Binding;
use crate::registry::ClaimSet;
use crate::time::{Millis, Seconds};
use crate::token::digests_equal;
use crate::verdict::{Answer, AnswerFlags, Verdict};

/// What is known of a token whose secret was found right.
pub(crate) struct Facts<'a> {
    /// The state bits of its index word.
    pub(crate) bits: Bits,
    pub(crate) expires: Seconds,
    pub(crate) claims: &'a ClaimSet,
    pub(crate) extra: Option<&'a Extra>,
}

/// The verdict on a token; a limited-use token that passes everything is [`Verdict::ConsumeRequired`].
///
/// Everything that makes the token itself dead comes first, then what the holder must prove, then what was asked:
/// so `Forbidden` is only ever said of a live token.
#[inline]
pub(crate) fn judge(facts: &Facts<'_>, now: Millis, check: &Check<'_>) -> Verdict {
    if let Some(dead) = cause_of_death(facts, now) {
        return dead;
    }
    let Some(compiled) = &facts.claims.compiled else { return Verdict::Revoked };
    if !is_presented(facts, check.binding) {
        return Verdict::BindingMismatch;
    }
    if !facts.claims.audience_ok(check.audience) {
        return Verdict::Forbidden;
    }
    if check.access.as_ref().is_some_and(|access| !compiled.allows(access)) {
        return Verdict::Forbidden;
    }
    if check.scopes.as_ref().is_some_and(|scopes| !compiled.has_scopes(scopes)) {
        return Verdict::Forbidden;
    }
    if facts.bits.contains(Bits::LIMITED) { Verdict::ConsumeRequired } else { Verdict::Valid }
}

/// Why the token is good for nothing now, whatever is asked; `None` if it lives.
#[inline]
pub(crate) fn cause_of_death(facts: &Facts<'_>, now: Millis) -> Option<Verdict> {
    if facts.bits.contains(Bits::REVOKED) || facts.claims.is_dead() {
        return Some(Verdict::Revoked);
    }
    if facts.bits.contains(Bits::SPENT) {
        return Some(Verdict::Spent);
    }
    if !facts.bits.contains(Bits::LIVE) {
        return Some(Verdict::Unknown); // decided, not yet durable
    }
    if facts.extra.is_some_and(|extra| now < extra.not_before) {
        return Some(Verdict::NotYetValid);
    }
    let is_over =
        now >= facts.expires.millis() && !(mutated!(ExpiryOffByOne) && now == facts.expires.millis());
    is_over.then_some(Verdict::Expired)
}

/// Whether the token is dead for good: whatever happens, it is not valid again. One that is not durable yet, or whose time
/// has not come, is not.
pub(crate) fn is_dead(facts: &Facts<'_>, now: Millis) -> bool {
    cause_of_death(facts, now).is_some_and(|cause| !matches!(cause, Verdict::NotYetValid | Verdict::Unknown))
}

/// Whether the holder presented what the token is bound to, if it is bound to something.
pub(crate) fn is_presented(facts: &Facts<'_>, presented: Option<Binding>) -> bool {
    let bound_to = facts.extra.and_then(|extra| extra.binding).filter(|_| !mutated!(BindingNotAsked));
    bound_to
        .is_none_or(|bound_to| presented.is_some_and(|presented| digests_equal(&presented.0, &bound_to.0)))
}

/// The flags an answer about this token carries.
pub(crate) fn flags(facts: &Facts<'_>) -> AnswerFlags {
    let Some(extra) = facts.extra else { return AnswerFlags::default() };
    let rules = [
        (extra.uses_max > 0, AnswerFlags::LIMITED),
        (extra.renewable_until.0 > 0, AnswerFlags::RENEWABLE),
        (extra.binding.is_some(), AnswerFlags::BOUND),
    ];
    rules
        .into_iter()
        .filter(|(holds, _)| *holds)
        .fold(AnswerFlags::default(), |all, (_, flag)| all.with(flag))
}

/// What a caller is told: who may not inspect learns nothing of a token that is not live.
#[inline]
pub(crate) fn told(answer: Answer, may_inspect: bool) -> Answer {
    if may_inspect || answer.verdict.concealed() == answer.verdict { answer } else { Answer::default() }
}
