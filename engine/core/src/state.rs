//! The state that events fold into, and the rules by which commands become events.
//!
//! `decide` reads, `apply` writes, and nothing else does either: after a replay of the same events the state is the
//! same ([`State::digest`]). The state owns the writer half of the index; there is no second map of tokens beside it.
//! It asks no clock, draws no random number and knows neither log nor client: time and entropy are arguments.

use std::collections::HashMap;
use std::sync::Arc;

use jeton_index::{
    Entry as IndexEntry, IndexConfig, IndexError, Reader, SEGMENT_RECORDS, State as Bits, Writer,
};
use rustc_hash::FxHashMap;

use crate::extra::Extra;
use crate::judge::Facts;
use crate::mutation::limit;
use crate::numbers::{ClientNo, LogId, Partition, Sequence, SubjectNo, TenantNo};
use crate::registry::{ClaimSet, Registry};
use crate::rights::Caller;
use crate::time::{Millis, Seconds};
use crate::token::{Token, TokenId, digest};

mod apply;
mod cut;
mod decide;
mod digest_of;
mod fingerprint;
mod issue;
mod keys;
mod lists;
mod names;
mod pending;
mod reclaim;
mod restore;
mod revoke;
mod rights;

pub use apply::{ApplyError, Publication};
pub use decide::{Decided, Decision, Entropy};
pub use keys::{KEY_MEMORY_MS, KEYS_MAX};

/// The longest lifetime of a token, renewals included: 10 years.
pub const LIFETIME_S_MAX: u32 = 10 * 365 * 24 * 60 * 60;
/// The most tokens one family may hold: they are marked in one go when it is revoked.
pub const FAMILY_TOKENS_MAX: usize = 4_096;
/// The most claim sets, dead ones too. A revoke by resource asks each live one of its tenant, at some 50 ns.
pub const CLAIM_SETS_MAX: u32 = 1 << 20;
/// Subject numbers stay below this: a record's link has 31 bits.
pub const SUBJECTS_MAX: u32 = 1 << 31;

/// How much room to prepare.
#[derive(Clone, Copy, Debug)]
pub struct StateConfig {
    /// Tokens to have room for from the start; more are made room for in steps.
    pub tokens_initial: usize,
    /// The most tokens to hold at a time; past that issues are refused. One with terms beyond the ordinary counts as two,
    /// and so does one that is being renewed; a dead one counts until it is reclaimed.
    pub tokens_max: u32,
    /// Records in a segment, which is what memory is given back by: a power of two from 4 to 65,536. Only tests have
    /// reason to make it small.
    pub segment_records: u32,
    /// Whether to ask for huge pages.
    pub huge_pages: bool,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            tokens_initial: 1 << 16,
            tokens_max: 100_000_000,
            segment_records: SEGMENT_RECORDS,
            huge_pages: true,
        }
    }
}

/// The state: index, registry and what only the sequencer needs to know.
#[derive(Debug)]
pub struct State {
    index: Writer,
    /// Whether `names`, `lists` and `members` are filled: behind a snapshot they are only once they are needed.
    is_whole: bool,
    registry: Arc<Registry>,
    names: names::Names,
    /// Rights as decided; readers see them later (grants) or earlier (withdrawals) in the registry.
    callers: FxHashMap<ClientNo, Caller>,
    lists: lists::Lists,
    jobs: lists::MarkJobs,
    pending: pending::Pending,
    /// Members of each family beside its root, by the root; none is empty.
    members: HashMap<TokenId, Vec<TokenId>>,
    reclaim: reclaim::Reclaim,
    keys: keys::KeyMemory,
    /// The last event applied and its time.
    applied: (Sequence, Millis),
    tokens_max: u32,
}

fn index_config(config: &StateConfig) -> IndexConfig {
    IndexConfig {
        tokens_initial: config.tokens_initial,
        slots_max: config.tokens_max,
        segment_records: config.segment_records,
        huge_pages: config.huge_pages,
    }
}

/// A token in the index, with everything a rule may ask about it, as it will be once all that was decided is carried
/// out and durable: with the expiry of a renewal that is not published yet, and dead if a revoke under way covers it.
pub(crate) struct Known<'a> {
    pub(crate) entry: IndexEntry,
    /// Whether readers see it as revoked, not only whoever asks here.
    pub(crate) is_marked_revoked: bool,
    pub(crate) extra: Option<Extra>,
    pub(crate) claims: &'a ClaimSet,
}

impl Known<'_> {
    pub(crate) fn subject(&self) -> SubjectNo {
        SubjectNo(self.entry.record.link)
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            bits: self.entry.state,
            expires: Seconds(self.entry.record.expires_s),
            claims: self.claims,
            extra: self.extra.as_ref(),
        }
    }
}

impl State {
    /// An empty state for a log, and the reading half of its index.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn new(log: LogId, partition: Partition, config: StateConfig) -> Result<(Self, Reader), IndexError> {
        let (index, reader) = jeton_index::new(index_config(&config))?;
        Ok((Self::around(index, (log, partition), config.tokens_max), reader))
    }

    /// A state with nothing beside this index.
    fn around(index: Writer, (log, partition): (LogId, Partition), tokens_max: u32) -> Self {
        Self {
            index,
            is_whole: true,
            registry: Arc::new(Registry::new(log, partition)),
            names: names::Names::default(),
            callers: FxHashMap::default(),
            lists: lists::Lists::default(),
            jobs: lists::MarkJobs::default(),
            pending: pending::Pending::default(),
            members: HashMap::new(),
            reclaim: reclaim::Reclaim::default(),
            keys: keys::KeyMemory::default(),
            applied: (Sequence(0), Millis(0)),
            tokens_max,
        }
    }

    // ---- what it knows ----

    /// What readers share with this state.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The last event applied.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.applied.0
    }

    /// The time of the last event applied.
    #[must_use]
    pub fn last_time(&self) -> Millis {
        self.applied.1
    }

    /// Tokens in the index, live or dead.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.index.len()
    }

    /// For one of the deliberate mistakes.
    #[cfg(feature = "mutations")]
    pub(crate) fn forget_keys(&mut self) {
        self.keys.clear();
    }

    /// Whether the index is growing into a larger table ([`Self::growth_step`]).
    #[must_use]
    pub fn is_growing(&self) -> bool {
        self.index.is_growing()
    }

    /// Carries the growth of the index on a little, so that it does not wait for the next issues: while two tables are
    /// in use, lookups cost more.
    pub fn growth_step(&mut self) {
        const BUCKETS: usize = 512; // a fraction of a millisecond
        self.index.step_growth(limit!(growth_buckets, BUCKETS));
    }

    /// Bytes taken by index, slabs and lists: the View's own accounting. Names of subjects are apart.
    #[must_use]
    pub fn memory(&self) -> StateMemory {
        let index = self.index.memory();
        StateMemory {
            index_bytes: index.index_bytes,
            slab_bytes: index.slab_bytes,
            list_bytes: self.lists.memory(),
        }
    }

    /// The rights of a client, as decided.
    pub(crate) fn caller(&self, client: ClientNo) -> &Caller {
        const STRANGER: &Caller = &Caller::STRANGER;
        self.callers.get(&client).unwrap_or(STRANGER)
    }

    /// The token with this id.
    pub(crate) fn known(&self, id: &TokenId) -> Option<Known<'_>> {
        let mut entry = self.index.find(&id.0)?;
        let extra = entry.tail.as_ref().map(Extra::from_words);
        let is_marked_revoked = entry.state.contains(Bits::REVOKED);
        let covered_below = self.jobs.covered_below(SubjectNo(entry.record.link));
        if covered_below > 0 && self.index.serial(entry.slot) < covered_below {
            entry.state = entry.state.with(Bits::REVOKED);
        }
        if let Some(expires) = self.pending.renewed_until(id) {
            entry.record.expires_s = expires.0;
        }
        let claims = self.registry.claim_sets.get(entry.record.claims as usize)?;
        Some(Known { entry, is_marked_revoked, extra, claims })
    }

    /// The token presented, if its secret is right and the client holds `rights` in its tenant; whoever does not
    /// is told no more than if there were no such token.
    pub(crate) fn presented(
        &self,
        token: &Token,
        actor: ClientNo,
        rights: crate::rights::Rights,
    ) -> Option<Known<'_>> {
        let known = self.known(&token.id)?;
        let digest = digest(&token.id, &token.secret);
        let right = crate::token::digests_equal(&digest.0, &known.entry.record.digest);
        (right && self.caller(actor).may(rights, known.claims.tenant)).then_some(known)
    }

    fn tenant_of(&self, name: &str) -> Option<TenantNo> {
        self.names.tenant(name)
    }
}

/// What a state takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateMemory {
    /// Index words.
    pub index_bytes: usize,
    /// Token records and extra records.
    pub slab_bytes: usize,
    /// Links of the subjects' lists.
    pub list_bytes: usize,
}

impl StateMemory {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> usize {
        self.index_bytes + self.slab_bytes + self.list_bytes
    }
}

#[cfg(test)]
mod tests;
