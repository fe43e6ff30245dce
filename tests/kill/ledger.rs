//! What one client was told, and what a server may therefore say: the checked part of the kill loop.
//!
//! A client has its own identity, subjects, resources and families, and one write under way at a time: so everything it
//! was told binds exactly, and only the one write that a kill cut off may have happened or not. What it turned out to be
//! then stays.

use std::collections::BTreeMap;

use jeton_client::{Answer, IdempotencyKey, Seconds, Sequence, Token, Verdict};

/// A write, in the ledger's terms: tokens by their place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Issue `count` tokens.
    Issue {
        /// For this subject.
        subject: u32,
        /// So many.
        count: usize,
        /// For this resource: a claim set of its own.
        resource: u32,
        /// With so many uses; 0 for no limit.
        uses: u32,
        /// That can be renewed.
        renewable: bool,
        /// Into the family of this token.
        parent: Option<usize>,
        /// Under this key.
        key: IdempotencyKey,
    },
    /// Revoke.
    Revoke {
        /// What.
        target: Target,
        /// Under this key.
        key: Option<IdempotencyKey>,
    },
    /// Spend a use.
    Consume {
        /// Of this token.
        token: usize,
        /// Under this key.
        key: IdempotencyKey,
    },
    /// Extend a token's life to its end.
    Renew {
        /// Which.
        token: usize,
    },
}

/// What a revoke is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One token.
    Id(usize),
    /// All of a subject.
    Subject(u32),
    /// The family of a token.
    Family(usize),
    /// All that this client asked for.
    Client,
    /// All for a resource.
    Resource(u32),
}

/// What a server said to a write.
#[derive(Clone, Debug)]
pub enum Told {
    /// The tokens, when they expire, and where their renewable life ends.
    Issued(Vec<Token>, Seconds, Seconds),
    /// How many tokens or claim sets died.
    Revoked(u64),
    /// The verdict, and the uses left.
    Consumed(Verdict, u32),
    /// When it expires now.
    Renewed(Seconds),
    /// The token is not good for it.
    Dead(Verdict),
}

/// A token and what is known of it.
#[derive(Clone, Debug)]
struct Held {
    token: Token,
    subject: u32,
    resource: u32,
    /// The first of its family.
    root: usize,
    /// Revoked by id, subject or family.
    is_marked: bool,
    /// Its claim set was revoked.
    is_buried: bool,
    uses: Option<Uses>,
    /// When it expires: not before, and not after.
    expires: (Seconds, Seconds),
    /// The end of its renewable life, if it can be renewed.
    until: Option<Seconds>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    max: u32,
    /// Answered as granted.
    granted: u32,
    /// Known to be spent, by what the server said was left.
    spent: u32,
    /// Asked for and never answered: spent or not.
    open: u32,
}

impl Held {
    fn is_dead(&self) -> bool {
        self.is_marked || self.is_buried
    }

    /// What may be said of it while it lives.
    fn alive(&self, one_more: bool) -> Vec<Verdict> {
        let Some(uses) = self.uses else { return vec![Verdict::Valid] };
        let most = uses.spent + uses.open + u32::from(one_more);
        let mut verdicts = Vec::new();
        if uses.spent < uses.max {
            verdicts.push(Verdict::ConsumeRequired);
        }
        if most >= uses.max {
            verdicts.push(Verdict::Spent);
        }
        verdicts
    }
}

/// Everything one client was told.
#[derive(Debug, Default)]
pub struct Ledger {
    tokens: Vec<Held>,
    /// The write under way, or cut off.
    pending: Option<Write>,
    /// How many tokens of a subject may exist that nobody was ever given: of issues that were never answered.
    ghosts: BTreeMap<u32, u64>,
    /// The last write with a key that was answered, to be asked again.
    answered: Option<(Write, u64)>,
    /// The last event that an answer named.
    pub sequence: Sequence,
    /// Acknowledged writes, in all.
    pub writes: u64,
    /// Writes that a kill cut off, in all.
    pub cut_off: u64,
}

type Checked = Result<(), String>;

impl Ledger {
    /// Every token, in order.
    pub fn tokens(&self) -> Vec<Token> {
        self.tokens.iter().map(|held| held.token.clone()).collect()
    }

    /// A token.
    pub fn token(&self, at: usize) -> &Token {
        &self.tokens[at].token
    }

    /// The places of tokens that are not known to be dead: all, those with uses, those that another may be issued
    /// under, and those that can be renewed.
    pub fn living(&self) -> [Vec<usize>; 4] {
        let of = |is: &dyn Fn(&Held) -> bool| {
            let places = self.tokens.iter().enumerate().filter(|(_, held)| !held.is_dead() && is(held));
            places.map(|(at, _)| at).collect()
        };
        [
            of(&|_| true),
            of(&|held| held.uses.is_some()),
            of(&|held| held.uses.is_none() && !self.tokens[held.root].is_marked),
            of(&|held| held.until.is_some()),
        ]
    }

    /// A write is about to be sent.
    ///
    /// # Panics
    /// If the one before was not answered: it is to be settled first.
    pub fn begin(&mut self, write: Write) {
        assert!(self.pending.is_none(), "one write at a time");
        self.pending = Some(write);
    }

    /// The write that was cut off, if one was.
    pub fn pending(&self) -> Option<&Write> {
        self.pending.as_ref()
    }

    /// The last write with a key that was answered, if it can be asked again.
    pub fn answered(&self) -> Option<&Write> {
        self.answered.as_ref().map(|(write, _)| write)
    }

    /// The write was not carried out, and the server said so.
    pub fn refused(&mut self) {
        self.pending = None;
    }

    fn covered(&self, target: Target) -> Vec<usize> {
        let root = match target {
            Target::Family(at) => self.tokens[at].root,
            _ => usize::MAX,
        };
        let is_in = |(at, held): &(usize, &Held)| match target {
            Target::Id(one) => *at == one,
            Target::Subject(subject) => held.subject == subject,
            Target::Family(_) => held.root == root,
            Target::Client => true,
            Target::Resource(resource) => held.resource == resource,
        };
        self.tokens.iter().enumerate().filter(is_in).map(|(at, _)| at).collect()
    }

    /// How many a revoke has to report: at least, and at most.
    fn reported(&self, target: Target) -> (u64, u64) {
        let covered = self.covered(target);
        let ghosts: u64 = self.ghosts.values().sum();
        let count =
            |is: &dyn Fn(&Held) -> bool| covered.iter().filter(|at| is(&self.tokens[**at])).count() as u64;
        match target {
            Target::Id(_) => {
                let living = count(&|held| !held.is_dead());
                (living, living)
            }
            // It counts those in a dead claim set too, unless they were marked before; which a revoke that found nothing
            // alive does not do.
            Target::Subject(subject) => {
                let most = count(&|held| !held.is_marked || held.is_buried);
                let ghosts = self.ghosts.get(&subject).copied().unwrap_or(0);
                (count(&|held| !held.is_dead()), most + ghosts)
            }
            Target::Family(_) => {
                let living = count(&|held| !held.is_dead());
                (living, living + ghosts)
            }
            // These count claim sets.
            Target::Client | Target::Resource(_) => {
                let living = count(&|held| !held.is_dead());
                (u64::from(living > 0), u64::MAX)
            }
        }
    }

    fn kill(&mut self, target: Target) {
        let is_wide = matches!(target, Target::Client | Target::Resource(_));
        for at in self.covered(target) {
            let held = &mut self.tokens[at];
            if is_wide { held.is_buried = true } else { held.is_marked = true }
        }
        match target {
            Target::Subject(subject) => drop(self.ghosts.remove(&subject)),
            // Dead, but not marked: a revoke by subject still counts them.
            Target::Client | Target::Resource(_) | Target::Family(_) | Target::Id(_) => {}
        }
    }

    /// The write under way was answered; `again` says that it was sent a second time after it was cut off.
    ///
    /// # Errors
    /// What cannot be.
    pub fn told(&mut self, told: Told, sequence: Sequence, again: bool) -> Checked {
        let write = self.pending.take().ok_or("an answer to nothing")?;
        let outcome = self.judge(&write, told, again).map_err(|what| format!("{write:?}: {what}"))?;
        self.sequence = self.sequence.max(sequence);
        self.writes += 1;
        if let Some(figure) = outcome.filter(|_| is_keyed(&write)) {
            self.answered = Some((write, figure));
        }
        Ok(())
    }

    /// Judges an answer; returns the figure that a repetition has to tell again, unless it is decided anew.
    fn judge(&mut self, write: &Write, told: Told, again: bool) -> Result<Option<u64>, String> {
        match (write, told) {
            (Write::Issue { .. }, Told::Issued(tokens, expires, until)) => {
                self.issue(write, tokens, expires, until)?;
                Ok(Some(0))
            }
            (Write::Revoke { target, key }, Told::Revoked(count)) => {
                let (least, most) = self.reported(*target);
                // It may have happened before it was cut off, and then there was nothing left to do. A key remembers the
                // first report; that of a revoke by subject comes with a later commit, which the kill may have cost.
                let may_be_over = again && (key.is_none() || matches!(target, Target::Subject(_)));
                let is_due = (least..=most).contains(&count) || (may_be_over && count == 0);
                if !is_due {
                    return Err(format!("it reports {count}, not {least} to {most}"));
                }
                self.kill(*target);
                Ok(Some(count))
            }
            (Write::Consume { token, .. }, Told::Consumed(verdict, left)) => {
                self.consume(*token, verdict, left)?;
                Ok((verdict == Verdict::Valid).then_some(u64::from(left)))
            }
            (Write::Renew { token }, Told::Renewed(expires)) => {
                let held = &mut self.tokens[*token];
                if held.is_dead()
                    || expires < held.expires.0
                    || held.until.is_none_or(|until| expires > until)
                {
                    return Err(format!("{held:?} expires at {expires:?} now"));
                }
                held.expires = (expires, expires);
                Ok(None)
            }
            (Write::Renew { token }, Told::Dead(verdict)) => {
                let held = &self.tokens[*token];
                let is_due = match verdict {
                    Verdict::Revoked => held.is_dead(),
                    Verdict::Spent => !held.is_dead() && held.alive(false).contains(&verdict),
                    _ => false,
                };
                is_due.then_some(None).ok_or_else(|| format!("{held:?} is said to be {verdict:?}"))
            }
            (_, told) => Err(format!("{told:?} is no answer to it")),
        }
    }

    fn issue(&mut self, write: &Write, tokens: Vec<Token>, expires: Seconds, until: Seconds) -> Checked {
        let Write::Issue { subject, count, resource, uses, renewable, parent, .. } = write else {
            return Err("no issue".to_owned());
        };
        if tokens.len() != *count {
            return Err(format!("{} tokens", tokens.len()));
        }
        for token in tokens {
            if self.tokens.iter().any(|held| held.token.id == token.id) {
                return Err(format!("{} was issued before", token.id));
            }
            let root = parent.map_or(self.tokens.len(), |parent| self.tokens[parent].root);
            self.tokens.push(Held {
                token,
                subject: *subject,
                resource: *resource,
                root,
                is_marked: false,
                is_buried: false,
                uses: (*uses > 0).then_some(Uses { max: *uses, ..Uses::default() }),
                expires: (expires, expires),
                until: renewable.then_some(until),
            });
        }
        Ok(())
    }

    fn consume(&mut self, at: usize, verdict: Verdict, left: u32) -> Checked {
        let held = &mut self.tokens[at];
        let is_dead = held.is_dead();
        let uses = held.uses.as_mut().ok_or("it has no limit")?;
        match verdict {
            Verdict::Revoked if is_dead => Ok(()),
            Verdict::Valid if !is_dead => {
                let spent = uses.max.checked_sub(left).ok_or("more uses are left than there were")?;
                // This one, and of those never answered none or all.
                if !(uses.spent + 1..=uses.spent + 1 + uses.open).contains(&spent) {
                    return Err(format!("{left} uses are left of {uses:?}"));
                }
                uses.granted += 1;
                (uses.spent, uses.open) = (spent, 0);
                if uses.granted > uses.max {
                    return Err(format!("granted more often than it can be: {uses:?}"));
                }
                Ok(())
            }
            Verdict::Spent if !is_dead && uses.spent + uses.open >= uses.max => {
                (uses.spent, uses.open) = (uses.max, 0);
                Ok(())
            }
            other => Err(format!("{other:?}, of {uses:?}, dead: {is_dead}")),
        }
    }

    /// A write that was answered under its key was sent again.
    ///
    /// # Errors
    /// What cannot be.
    pub fn told_again(&mut self, told: Told) -> Checked {
        let (write, first) = self.answered.take().ok_or("nothing was answered before")?;
        let same = |now: u64| {
            let text = || format!("{write:?}: it was told {first} first, and {now} under the same key");
            (now == first).then_some(()).ok_or_else(text)
        };
        match (&write, told) {
            (Write::Revoke { .. }, Told::Revoked(count)) => same(count),
            (Write::Consume { .. }, Told::Consumed(Verdict::Valid, left)) => same(u64::from(left)),
            // At most one live token for each subject of the key: those of the first time are dead.
            (Write::Issue { count, .. }, Told::Issued(tokens, expires, until)) => {
                let first = self.tokens.len() - count;
                self.tokens[first..].iter_mut().for_each(|held| held.is_marked = true);
                self.issue(&write, tokens, expires, until)
            }
            (_, told) => Err(format!("{write:?}: {told:?} under the same key")),
        }
    }

    /// Whether the last answered write can be asked again with a figure that must be the same.
    pub fn can_ask_again(&self) -> bool {
        match &self.answered {
            Some((Write::Issue { parent, count, .. }, _)) => {
                // Its tokens are still the last of the ledger, and nothing else decides whether it is taken.
                parent.is_none() && self.tokens.len() >= *count && self.pending.is_none()
            }
            Some((Write::Renew { .. }, _)) | None => false,
            Some(_) => true,
        }
    }

    /// Checks what was said of tokens, whatever the write under way came to.
    ///
    /// # Errors
    /// The first token of which that cannot be.
    pub fn check(&self, places: &[usize], answers: &[Answer]) -> Checked {
        if places.len() != answers.len() {
            return Err("not one answer for each token".to_owned());
        }
        let covered = match self.pending {
            Some(Write::Revoke { target, .. }) => self.covered(target),
            _ => Vec::new(),
        };
        let mut fate: Option<bool> = None;
        for (at, answer) in places.iter().zip(answers) {
            let held = &self.tokens[*at];
            let consumed = matches!(self.pending, Some(Write::Consume { token, .. }) if token == *at);
            let (alive, is_covered) = (held.alive(consumed), covered.binary_search(at).is_ok());
            let is_revoked = answer.verdict == Verdict::Revoked;
            let may_be = match (held.is_dead(), is_covered) {
                (true, _) => is_revoked,
                (false, true) => is_revoked || alive.contains(&answer.verdict),
                (false, false) => alive.contains(&answer.verdict),
            };
            if !may_be {
                return Err(format!(
                    "{held:?} is said to be {:?}; under way: {:?}",
                    answer.verdict, self.pending
                ));
            }
            if is_covered && !held.is_dead() && *fate.get_or_insert(is_revoked) != is_revoked {
                return Err(format!("{:?} happened in part: {held:?} is {:?}", self.pending, answer.verdict));
            }
        }
        Ok(())
    }

    /// The write that was cut off is not sent again: what it came to is what `answers`, one for each token, say.
    ///
    /// # Errors
    /// What cannot be.
    pub fn settle(&mut self, answers: &[Answer]) -> Checked {
        let all: Vec<usize> = (0..self.tokens.len()).collect();
        self.check(&all, answers)?;
        match self.pending.take() {
            None => {}
            Some(Write::Revoke { target, .. }) => {
                let covered = self.covered(target);
                let living = covered.iter().find(|at| !self.tokens[**at].is_dead());
                if living.is_some_and(|at| answers[*at].verdict == Verdict::Revoked) {
                    // Of tokens that nobody was given nobody can tell whether they died with the others.
                    let ghosts = self.ghosts.clone();
                    self.kill(target);
                    self.ghosts = ghosts;
                }
            }
            Some(Write::Consume { token, .. }) => {
                let uses = self.tokens[token].uses.as_mut().ok_or("it has no limit")?;
                uses.open += 1;
                if answers[token].verdict == Verdict::Spent {
                    (uses.spent, uses.open) = (uses.max, 0);
                }
            }
            Some(Write::Renew { token }) => {
                let held = &mut self.tokens[token];
                held.expires.1 = held.until.unwrap_or(held.expires.1);
            }
            Some(Write::Issue { subject, count, .. }) => {
                *self.ghosts.entry(subject).or_default() += count as u64;
            }
        }
        Ok(())
    }

    /// Checks what an inspection says of a token, and holds the server to it from now on.
    ///
    /// # Errors
    /// What cannot be.
    pub fn inspected(&mut self, at: usize, expires: Seconds, uses: Option<(u32, u32)>) -> Checked {
        let pending = self.pending.as_ref();
        let is_renewed = matches!(pending, Some(Write::Renew { token }) if *token == at);
        let is_consumed = matches!(pending, Some(Write::Consume { token, .. }) if *token == at);
        let held = &mut self.tokens[at];
        let latest = if is_renewed { held.until.unwrap_or(held.expires.1) } else { held.expires.1 };
        if expires < held.expires.0 || expires > latest {
            return Err(format!("{held:?} expires at {expires:?}"));
        }
        if !is_renewed {
            held.expires = (expires, expires);
        }
        match (&mut held.uses, uses) {
            (None, None) => Ok(()),
            (Some(known), Some((max, left))) => {
                let spent = max.saturating_sub(left);
                let most = known.spent + known.open + u32::from(is_consumed);
                if known.max != max || spent < known.spent || spent > most {
                    return Err(format!("{known:?}: {left} uses are left of {max}"));
                }
                if !is_consumed {
                    (known.spent, known.open) = (spent, 0);
                }
                Ok(())
            }
            (known, told) => Err(format!("{known:?} is said to be {told:?}")),
        }
    }
}

fn is_keyed(write: &Write) -> bool {
    match write {
        Write::Issue { .. } | Write::Consume { .. } => true,
        Write::Revoke { key, .. } => key.is_some(),
        Write::Renew { .. } => false,
    }
}
