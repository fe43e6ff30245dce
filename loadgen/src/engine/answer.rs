//! What comes back: whether it answers what was asked, whether it is true, how long it took.

use std::time::Instant;

use super::slot::Slot;
use super::{AGAIN_MAX, Engine};
use crate::layout::GROUP_TOKENS;
use crate::peer::{Reply, TokenBytes};
use crate::workload::kind::Kind;

impl Engine<'_> {
    /// Checks an answer and records how long it took.
    pub(super) fn take(&mut self, at: Instant, id: u64, reply: &Reply<'_>) {
        (self.heard, self.waits_since) = (at, at);
        let Some(number) = self.slots.answered(id) else {
            self.sample.wrong(|| format!("an answer to request {id:#x}, which nobody waits for"));
            return;
        };
        let is_answer = self.check(number, reply);
        let slot = self.slots.of(number);
        // What gets done in a time is what is answered in it, also to what was asked before: with 16,000 in flight at a server
        // that answers as many a second, everything in the first second is that.
        if is_answer && (self.from..self.until).contains(&at) {
            self.sample.counts.achieved += 1;
            self.sample.counts.tokens += slot.probes.len() as u64;
        }
        if is_answer && slot.due >= self.from {
            let (kind, due, sent) = (slot.kind, slot.due, slot.at);
            self.sample.record(kind, at.saturating_duration_since(due), at.saturating_duration_since(sent));
        }
        self.slots.release(number, at + self.shared.workload.think.0);
    }

    /// Whether the reply answers what was asked; notes what it says, and whether it is true.
    fn check(&mut self, number: u32, reply: &Reply<'_>) -> bool {
        let (slot, truth, sample) = (self.slots.of(number), &self.shared.truth, &mut self.sample);
        match (slot.kind, reply) {
            (Kind::Validate, Reply::Verdicts(verdicts)) if verdicts.len() == slot.probes.len() => {
                for (probe, verdict) in slot.probes.iter().zip(*verdicts) {
                    if !truth.is_right(*probe, *verdict) {
                        sample.wrong(|| {
                            let (ask, word) = (probe.ask(), verdict.word());
                            if probe.is_of_issued() {
                                return format!("a token that this run issued was {word}");
                            }
                            let (role, number) = truth.layout.role(probe.position());
                            format!("token {number} of those that are {role:?}, asked about as {ask:?}, was {word}")
                        });
                    }
                }
            }
            (Kind::Issue, Reply::Issued(tokens)) => {
                let wanted = usize::from(slot.tokens);
                if tokens.len() != wanted || has_twins(tokens) {
                    let count = tokens.len();
                    sample.wrong(|| {
                        format!("an issue of {wanted} tokens brought {count}, or two of them are one")
                    });
                } else {
                    tokens.iter().for_each(|token| self.issued.put(*token));
                }
            }
            (Kind::Revoke, Reply::Revoked(count)) => {
                // One that was refused and is asked for again may have been carried out.
                if *count != 1 && !(*count == 0 && slot.is_again) {
                    sample.wrong(|| format!("a revoke of one token revoked {count}"));
                }
                truth.victim_is_dead(slot.number);
            }
            (Kind::RevokeSubject, Reply::Revoked(count)) => {
                if *count != u64::from(GROUP_TOKENS) && !(*count == 0 && slot.is_again) {
                    sample
                        .wrong(|| format!("a revoke of a subject of {GROUP_TOKENS} tokens revoked {count}"));
                }
                truth.group_is_dead(slot.number);
            }
            (Kind::Consume, Reply::Consumed { verdict, uses_left }) => {
                if !truth.consumed(slot.number, slot.before, *verdict, *uses_left) {
                    sample.wrong(|| {
                        let (word, number) = (verdict.word(), slot.number);
                        format!("a consume of limited token {number} was {word} with {uses_left} uses left")
                    });
                }
            }
            (Kind::Renew, Reply::Renewed { expires_s }) => {
                if !truth.renewed(slot.number, slot.before, *expires_s) {
                    sample
                        .wrong(|| format!("a renewal shortened the life of renewable token {}", slot.number));
                }
            }
            (kind, Reply::Refused) => {
                sample.counts.refused += 1;
                self.note_refused(kind, number);
                return false;
            }
            (kind, other) => {
                sample.error(|| format!("a {} was answered: {}", kind.name(), words(other)));
                self.note_refused(kind, number);
                return false;
            }
        }
        true
    }

    /// What was not done has to be done another time: until then both answers are right.
    fn note_refused(&mut self, kind: Kind, slot: u32) {
        let slot: &Slot = self.slots.of(slot);
        if matches!(kind, Kind::Revoke | Kind::RevokeSubject) && self.again.len() < AGAIN_MAX {
            self.again.push_back((kind, slot.number));
        }
    }
}

fn has_twins(tokens: &[TokenBytes]) -> bool {
    // A few tokens at most in all workloads but those that fill: comparing each with its next finds a server that repeats.
    tokens.windows(2).any(|pair| pair[0] == pair[1]) || tokens.contains(&[0; 32])
}

fn words(reply: &Reply<'_>) -> String {
    match reply {
        Reply::Failed(words) => words.clone(),
        Reply::Verdicts(verdicts) => format!("{} verdicts", verdicts.len()),
        Reply::Issued(tokens) => format!("{} tokens", tokens.len()),
        other => format!("{other:?}"),
    }
}
