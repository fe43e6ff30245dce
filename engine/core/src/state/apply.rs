//! Folding events into the state: the same at assignment, in a replay and behind a snapshot.
//!
//! Denials take effect here, at once; what lets something become valid only comes back as a [`Publication`], for when
//! the event is durable.
//!
//! Issues, renewals, uses and revokes of single tokens carry results, not differences: applied once more, they change
//! nothing.

use jeton_index::{Record, State as Bits};

use super::keys::KeyRecord;
use super::names::ClaimsKey;
use super::{Known, State};
use crate::claims::Claims;
use crate::event::{Entry, Fact, ScopedKey, Terms};
use crate::extra::Extra;
use crate::judge::is_dead;
use crate::mutation::mutated;
use crate::numbers::{Binding, ClaimsNo, ClientNo, IdempotencyKey, Sequence, SubjectNo, TenantNo};
use crate::registry::{ClaimSet, Subject};
use crate::rights::{Caller, Rights};
use crate::time::{Millis, Seconds};
use crate::token::TokenId;

/// What an event lets become valid, once it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publication {
    /// A token.
    Token(TokenId),
    /// A token's new expiry, in the record with this number.
    Renewal(TokenId, u32),
    /// Rights of a client in a tenant.
    Rights(ClientNo, TenantNo, Rights),
}

/// Why an event cannot follow on what the state holds: the log is not one that this state machine wrote, or the
/// configured room does not suffice for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A number is used that no event has introduced, or introduced out of turn.
    #[error("{0} {1} is not the next one")]
    Number(&'static str, u32),
    /// The claims do not decode.
    #[error("claim set {0} does not decode")]
    Claims(u32),
    /// Rights with unknown bits.
    #[error("unknown rights {0:#b}")]
    Rights(u8),
    /// There is no room for another token.
    #[error("no room for another token: {0}")]
    Room(#[from] jeton_index::IndexFull),
}

/// Where an event stands.
#[derive(Clone, Copy, Debug)]
struct At {
    sequence: Sequence,
    time: Millis,
    actor: ClientNo,
}

impl State {
    /// Folds one event into the state.
    ///
    /// # Errors
    /// [`ApplyError`]: the state is then as before, and of no further use for this log.
    pub fn apply(
        &mut self,
        sequence: Sequence,
        time: Millis,
        entry: &Entry,
    ) -> Result<Option<Publication>, ApplyError> {
        let at = At { sequence, time, actor: ClientNo(entry.event.actor) };
        let publication = self.fold(at, entry)?;
        self.applied = (sequence, self.applied.1.max(time));
        Ok(publication)
    }

    /// Lets what an event allowed become valid for readers. Called once the event is durable.
    pub fn publish(&mut self, publication: &Publication) {
        match publication {
            Publication::Token(id) if mutated!(IssueOverRevoke) => {
                let entry = self.index.find(&id.0).expect("it was issued");
                let subject = SubjectNo(entry.record.link);
                self.unlist(subject, entry.slot);
                self.index.remove(&id.0);
                let bits = if entry.state.contains(Bits::LIMITED) { Bits::LIMITED } else { Bits::NONE };
                let slot = self.index.insert(&entry.record, entry.tail.as_ref(), bits.with(Bits::LIVE));
                self.lists.push(subject, slot.expect("a place was given up"));
            }
            Publication::Token(id) => drop(self.index.mark(&id.0, Bits::LIVE)),
            Publication::Renewal(id, slot) => {
                self.pending.end_renewal(id);
                self.name_record(*slot);
            }
            Publication::Rights(client, tenant, granted) => {
                let visible = self.pending.end_rights(*client, *tenant, *granted);
                self.registry.update_caller(*client, *tenant, |_| visible);
            }
        }
    }

    /// Asks for the memory that [`Self::publish`] will need.
    pub(crate) fn prefetch(&self, publication: &Publication) {
        if let Publication::Token(id) = publication {
            self.index.prefetch(&id.0);
        }
    }

    /// Asks for the memory that [`Self::apply`] will need.
    pub(crate) fn prefetch_for(&self, entry: &Entry) {
        match &entry.event.fact {
            Fact::TokenIssued { id, .. } | Fact::TokenRenewed { id, .. } => self.index.prefetch(id),
            Fact::TokenConsumed { id, .. } | Fact::TokenRevoked { id } => self.index.prefetch(id),
            _ => {}
        }
    }

    fn fold(&mut self, at: At, entry: &Entry) -> Result<Option<Publication>, ApplyError> {
        let detached = entry.detached.as_ref().map(|detached| detached.bytes.as_slice());
        match &entry.event.fact {
            Fact::TenantCreated { tenant, name } => self.fold_tenant(*tenant, name)?,
            Fact::ClientNamed { client, name } => self.fold_client(*client, name)?,
            Fact::SubjectNamed { subject, tenant, .. } => {
                self.fold_subject(at, SubjectNo(*subject), TenantNo(*tenant), detached)?;
            }
            Fact::ClaimsInterned { claims, tenant, client, .. } => {
                let owner = (TenantNo(*tenant), ClientNo(*client));
                self.fold_claims(at, ClaimsNo(*claims), owner, detached)?;
            }
            Fact::TokenIssued { .. } => return self.fold_issued(&entry.event.fact),
            Fact::TokenRenewed { id, expires_s, .. } => {
                return self.fold_renewed(at, TokenId(*id), *expires_s);
            }
            Fact::TokenConsumed { id, uses_left } => self.fold_consumed(&TokenId(*id), *uses_left)?,
            Fact::TokenRevoked { id } => drop(self.index.mark(id, Bits::REVOKED)),
            Fact::SubjectRevoked { subject } => {
                self.make_whole();
                let serials_before = self.index.serials_used() - u64::from(mutated!(NewestNotCovered));
                self.jobs.begin(&self.lists, SubjectNo(*subject), serials_before);
            }
            Fact::FamilyRevoked { root } => self.fold_family_revoked(&TokenId(*root)),
            Fact::ClientRevoked { tenant, client } => {
                self.kill_claim_sets(|set| set.tenant.0 == *tenant && set.client.0 == *client);
            }
            Fact::TenantRevoked { tenant } => self.kill_claim_sets(|set| set.tenant.0 == *tenant),
            Fact::ResourceRevoked { claims, .. } => {
                for number in claims {
                    self.kill_claim_set(ClaimsNo(*number));
                }
            }
            Fact::RightsChanged { client, tenant, rights } => {
                return self.fold_rights(ClientNo(*client), TenantNo(*tenant), *rights).map(Some);
            }
            Fact::CommandCompleted { key, payload, outcome } => {
                let key = ScopedKey { client: at.actor, key: IdempotencyKey(*key) };
                let record = KeyRecord { at: at.time, payload: *payload, outcome: outcome.clone() };
                self.keys.remember(key, record);
            }
            Fact::TimePassed => {}
        }
        Ok(None)
    }

    fn fold_tenant(&mut self, tenant: u32, name: &str) -> Result<(), ApplyError> {
        if is_new(tenant, self.registry.tenants.count(), "tenant")? {
            self.registry.tenants.push(name.into());
            if self.is_whole {
                self.names.insert_tenant(name, TenantNo(tenant));
            }
        }
        Ok(())
    }

    fn fold_client(&mut self, client: u32, name: &str) -> Result<(), ApplyError> {
        if is_new(client, self.registry.clients.count(), "client")? {
            self.registry.clients.push(name.into());
            if self.is_whole {
                self.names.insert_client(name, ClientNo(client));
            }
        }
        Ok(())
    }

    fn fold_subject(
        &mut self,
        at: At,
        subject: SubjectNo,
        tenant: TenantNo,
        detached: Option<&[u8]>,
    ) -> Result<(), ApplyError> {
        if !is_new(subject.0, self.registry.subjects.count(), "subject")? {
            return Ok(());
        }
        let name = detached.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        self.registry.subjects.push(Subject {
            tenant,
            name: name.as_deref().map(Into::into),
            since: at.sequence,
        });
        if let Some(name) = name.filter(|_| self.is_whole) {
            self.names.insert_subject(&self.registry, tenant, &name, subject);
        }
        Ok(())
    }

    fn fold_claims(
        &mut self,
        at: At,
        number: ClaimsNo,
        (tenant, client): (TenantNo, ClientNo),
        detached: Option<&[u8]>,
    ) -> Result<(), ApplyError> {
        if !is_new(number.0, self.registry.claim_sets.count(), "claim set")? {
            return Ok(());
        }
        let claims = detached.map(Claims::decode).transpose().map_err(|_| ApplyError::Claims(number.0))?;
        let bytes = detached.unwrap_or_default();
        let compiled = claims.as_ref().map(Claims::compile);
        self.registry.claim_sets.push(ClaimSet::new(tenant, client, bytes, compiled, at.sequence));
        if let Some(claims) = claims.filter(|_| self.is_whole) {
            self.names.insert_claim_set(ClaimsKey(tenant, client, *claims.hash()), number);
        }
        Ok(())
    }

    fn fold_issued(&mut self, fact: &Fact) -> Result<Option<Publication>, ApplyError> {
        let Fact::TokenIssued { id, digest, claims, subject, issued_s, expires_s, terms } = fact else {
            unreachable!("only called with an issue");
        };
        if self.index.find(id).is_some() {
            return Ok(None);
        }
        known_number(*claims, self.registry.claim_sets.count(), "claim set")?;
        known_number(*subject, self.registry.subjects.count(), "subject")?;
        let subject = SubjectNo(*subject);
        let extra = terms.as_deref().map(extra);
        let record = Record {
            id: *id,
            digest: *digest,
            expires_s: *expires_s,
            issued_s: *issued_s,
            claims: *claims,
            link: subject.0,
        };
        let is_limited = extra.is_some_and(|extra| extra.uses_max > 0);
        let bits = if is_limited { Bits::LIMITED } else { Bits::NONE };
        let slot = self.index.insert(&record, extra.map(Extra::to_words).as_ref(), bits)?;
        if self.is_whole {
            self.lists.push(subject, slot);
            if let Some(root) = extra.and_then(|extra| extra.family) {
                self.members.entry(root).or_default().push(TokenId(*id));
            }
        }
        Ok(Some(Publication::Token(TokenId(*id))))
    }

    /// A renewal of what is dead gives nothing, as it would if that had been reclaimed already.
    fn fold_renewed(
        &mut self,
        at: At,
        id: TokenId,
        expires_s: u32,
    ) -> Result<Option<Publication>, ApplyError> {
        let Some(known) = self.known(&id) else { return Ok(None) };
        let is_dead = is_dead(&known.facts(), self.applied.1.max(at.time));
        if is_dead || known.entry.record.expires_s == expires_s {
            return Ok(None);
        }
        let (subject, tail) = (known.subject(), known.entry.tail);
        let slot = self.index.prepare(&Record { expires_s, ..known.entry.record }, tail.as_ref())?;
        if self.is_whole {
            self.lists.push(subject, slot);
        }
        if mutated!(RenewalSeenAtOnce) {
            self.name_record(slot);
            return Ok(None);
        }
        self.pending.begin_renewal(id, Seconds(expires_s));
        Ok(Some(Publication::Renewal(id, slot)))
    }

    /// Lets a token's word name the record that a renewal prepared; what it had, or what it no longer needs, leaves the
    /// subject's list.
    fn name_record(&mut self, slot: u32) {
        let record = self.index.record(slot).expect("a renewal's record waits for its publication");
        let given_up = self.index.swap(slot);
        self.unlist(SubjectNo(record.link), given_up);
        if self.registry.claim_set(ClaimsNo(record.claims)).is_none_or(ClaimSet::is_dead) {
            // Dead already, where a round that walks through all may have been.
            self.note_killed_claims();
        }
    }

    /// Takes a slot out of its subject's list; a revoke on its way through the list goes on behind it.
    pub(super) fn unlist(&mut self, subject: SubjectNo, slot: u32) {
        if !self.is_whole {
            return;
        }
        self.jobs.step_over(&self.lists, subject, slot);
        self.lists.remove(subject, slot);
    }

    /// The number beside the record counts the uses spent; of one that has a single use the word says all.
    fn fold_consumed(&mut self, id: &TokenId, uses_left: u32) -> Result<(), ApplyError> {
        let Some(entry) = self.index.find(&id.0) else { return Ok(()) };
        if uses_left == 0 {
            self.index.mark(&id.0, Bits::SPENT);
        } else if let Some(extra) = entry.tail.as_ref().map(Extra::from_words) {
            self.index.set_counter(&id.0, u64::from(extra.uses_max.saturating_sub(uses_left)))?;
        }
        Ok(())
    }

    fn fold_family_revoked(&mut self, root: &TokenId) {
        self.make_whole();
        if !mutated!(FamilyForgetsRoot) {
            self.index.mark(&root.0, Bits::REVOKED);
        }
        for member in self.members.get(root).into_iter().flatten() {
            self.index.mark(&member.0, Bits::REVOKED);
        }
    }

    fn kill_claim_sets(&mut self, which: impl Fn(&ClaimSet) -> bool) {
        let matching: Vec<_> = self
            .registry
            .claim_sets
            .iter()
            .filter(|(_, set)| !set.is_dead() && which(set))
            .map(|(at, _)| at)
            .collect();
        for at in matching {
            self.kill_claim_set(ClaimsNo(u32::try_from(at).expect("claim sets are numbered in 32 bits")));
        }
    }

    fn kill_claim_set(&mut self, number: ClaimsNo) {
        self.note_killed_claims();
        let Some(set) = self.registry.claim_set(number) else { return };
        set.kill();
        if mutated!(DeadClaimsReused) {
            return;
        }
        let hash = *blake3::hash(&set.bytes).as_bytes();
        self.names.forget_claim_set(&ClaimsKey(set.tenant, set.client, hash));
    }

    fn fold_rights(
        &mut self,
        client: ClientNo,
        tenant: TenantNo,
        rights: u8,
    ) -> Result<Publication, ApplyError> {
        let rights = Rights::from_bits(rights).ok_or(ApplyError::Rights(rights))?;
        known_number(client.0, self.registry.clients.count(), "client")?;
        known_number(tenant.0, self.registry.tenants.count(), "tenant")?;
        self.callers.entry(client).or_insert_with(|| Caller::new(client)).set(tenant, rights);
        self.pending.begin_rights(client, tenant, rights);
        // Withdrawn at once; what is granted waits for its publication.
        self.registry.update_caller(client, tenant, |published| published.common(rights));
        Ok(Publication::Rights(client, tenant, rights))
    }

    /// Carries revokes by subject on by up to `budget` tokens, and reduces it by as many; returns what the oldest one
    /// revoked in all once it is finished. Whoever waits for revokes gets them in the order they were decided.
    pub fn mark_step(&mut self, budget: &mut usize) -> Option<u64> {
        self.jobs.step(&self.lists, &mut self.index, budget)
    }

    /// Whether a revoke by subject is still being carried out.
    #[must_use]
    pub fn is_marking(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Tokens of the family of `root` beside it.
    pub(super) fn family_members(&self, root: &TokenId) -> &[TokenId] {
        self.members.get(root).map_or(&[], Vec::as_slice)
    }

    /// The root of the family that a token is in, itself if it is in none.
    pub(super) fn family_root(&self, id: &TokenId, known: &Known<'_>) -> TokenId {
        known.extra.and_then(|extra| extra.family).unwrap_or(*id)
    }
}

fn extra(terms: &Terms) -> Extra {
    Extra {
        not_before: Millis(terms.not_before_ms),
        uses_max: terms.uses_max,
        renewable_until: Seconds(terms.renewable_until_s),
        family: terms.family.map(TokenId),
        binding: terms.binding.map(Binding),
    }
}

/// Whether `number` is the next one, or one that is there already.
fn is_new(number: u32, count: usize, what: &'static str) -> Result<bool, ApplyError> {
    match (number as usize).cmp(&count) {
        std::cmp::Ordering::Less => Ok(false),
        std::cmp::Ordering::Equal => Ok(true),
        std::cmp::Ordering::Greater => Err(ApplyError::Number(what, number)),
    }
}

fn known_number(number: u32, count: usize, what: &'static str) -> Result<(), ApplyError> {
    if (number as usize) < count { Ok(()) } else { Err(ApplyError::Number(what, number)) }
}
