//! The registry: what the numbers in tokens and events stand for, readable from every shard without a lock.
//!
//! The sequencer's `State` is the only writer. Records are append-only and their numbers are never reused; what
//! changes in one (a claim set dies) is an atomic. The registry knows nothing of single tokens: those
//! are in the index.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use jeton_index::Watermark;

use crate::claims::CompiledClaims;
use crate::inspection::{ClaimsInfo, ClientInfo, SubjectInfo};
use crate::mutation::mutated;
use crate::numbers::{ClaimsNo, ClientNo, LogId, Partition, Sequence, SubjectNo, TenantNo};
use crate::rights::{Caller, Rights};

/// Parts of the table of callers.
const CALLER_PARTS: usize = 256;

/// The name of the tenant in which rights hold everywhere.
pub const EVERY_TENANT: &str = "*";

/// A claim set: whose it is, what it allows, and whether a wide revoke killed it. Every validate looks at one: what it needs if
/// nothing is asked of the token but that it lives is small and lies here, the rest behind a pointer.
#[derive(Debug)]
pub(crate) struct ClaimSet {
    /// The canonical bytes; empty once erased.
    pub(crate) bytes: Box<[u8]>,
    /// The event that introduced it: before that is durable, its number could still come to mean something else.
    pub(crate) since: Sequence,
    pub(crate) client: ClientNo,
    pub(crate) tenant: TenantNo,
    /// `None` once erased: then nothing is allowed, whatever the token.
    pub(crate) compiled: Option<Box<CompiledClaims>>,
    /// Whether it names no audience: then any service may accept its tokens.
    for_any_audience: bool,
    dead: AtomicBool,
}

/// A subject; the name is `None` once erased.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) tenant: TenantNo,
    pub(crate) name: Option<Box<str>>,
    /// The event that introduced it; see [`ClaimSet::since`].
    pub(crate) since: Sequence,
}

/// Callers by identity.
type CallersPart = HashMap<Arc<str>, Arc<Caller>>;

/// Everything that readers share with the sequencer beside the index.
#[derive(Debug)]
pub struct Registry {
    log: LogId,
    partition: Partition,
    pub(crate) tenants: boxcar::Vec<Box<str>>,
    pub(crate) clients: boxcar::Vec<Box<str>>,
    pub(crate) subjects: boxcar::Vec<Subject>,
    pub(crate) claim_sets: boxcar::Vec<ClaimSet>,
    /// Who may do what, as readers see it, in parts by the hash of the identity: a part is replaced as a whole, so that
    /// one request sees one state of its caller, and a change copies no more than a part.
    callers: Box<[ArcSwap<CallersPart>]>,
    caller_parts: RandomState,
    published: Watermark,
    log_failed: AtomicBool,
}

impl ClaimSet {
    pub(crate) fn new(
        tenant: TenantNo,
        client: ClientNo,
        bytes: &[u8],
        compiled: Option<CompiledClaims>,
        since: Sequence,
    ) -> Self {
        Self {
            bytes: bytes.into(),
            since,
            client,
            tenant,
            for_any_audience: compiled.as_ref().is_some_and(|compiled| compiled.audience_ok(None)),
            compiled: compiled.map(Box::new),
            dead: AtomicBool::new(false),
        }
    }

    /// As [`CompiledClaims::audience_ok`]; not if it is erased.
    #[inline]
    pub(crate) fn audience_ok(&self, audience: Option<&str>) -> bool {
        self.for_any_audience || self.compiled.as_ref().is_some_and(|compiled| compiled.audience_ok(audience))
    }

    /// Whether a wide revoke killed it. Acquire pairs with the Release of [`Self::kill`]: whoever learned of the
    /// revoke through any channel that synchronises sees it here.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }
}

impl Registry {
    pub(crate) fn new(log: LogId, partition: Partition) -> Self {
        let registry = Self {
            log,
            partition,
            tenants: boxcar::Vec::new(),
            clients: boxcar::Vec::new(),
            subjects: boxcar::Vec::new(),
            claim_sets: boxcar::Vec::new(),
            callers: (0..CALLER_PARTS).map(|_| ArcSwap::default()).collect(),
            caller_parts: RandomState::new(),
            published: Watermark::new(),
            log_failed: AtomicBool::new(false),
        };
        // Number 0 is taken everywhere: the tenant `*`, the engine itself, "no subject", "no claims".
        registry.tenants.push(EVERY_TENANT.into());
        registry.clients.push("jeton:engine".into());
        registry.subjects.push(Subject { tenant: TenantNo::EVERY, name: None, since: Sequence(0) });
        registry.claim_sets.push(ClaimSet::new(TenantNo::EVERY, ClientNo::ENGINE, &[], None, Sequence(0)));
        registry
    }

    /// The log this registry is made from.
    #[must_use]
    pub fn log(&self) -> (LogId, Partition) {
        (self.log, self.partition)
    }

    /// The last event that readers see the effect of.
    #[must_use]
    pub fn published(&self) -> Sequence {
        Sequence(self.published.get())
    }

    /// The last event whose names and claim sets are shown.
    fn shown(&self) -> Sequence {
        if mutated!(NumbersSeenEarly) { Sequence(u64::MAX) } else { self.published() }
    }

    /// Whoever reads this number sees every index word and record written for the events up to it.
    pub(crate) fn set_published(&self, sequence: Sequence) {
        self.published.raise(sequence.0);
    }

    /// Whether the log takes no more writes: then a token with limited uses cannot be answered.
    #[must_use]
    pub fn log_failed(&self) -> bool {
        self.log_failed.load(Ordering::Acquire)
    }

    pub(crate) fn set_log_failed(&self) {
        self.log_failed.store(true, Ordering::Release);
    }

    /// The client of this identity, as events made durable so far have it; a stranger otherwise.
    #[must_use]
    pub fn caller(&self, identity: &str) -> Arc<Caller> {
        self.callers_beside(identity).load().get(identity).cloned().unwrap_or_default()
    }

    fn callers_beside(&self, identity: &str) -> &ArcSwap<CallersPart> {
        &self.callers[self.caller_parts.hash_one(identity) as usize % CALLER_PARTS]
    }

    /// Changes one client's rights for readers.
    pub(crate) fn update_caller(
        &self,
        client: ClientNo,
        tenant: TenantNo,
        change: impl FnOnce(Rights) -> Rights,
    ) {
        let Some(name) = self.clients.get(client.0 as usize) else { return };
        let part = self.callers_beside(name);
        let mut callers = HashMap::clone(&part.load());
        let mut caller =
            callers.get(&**name).map_or_else(|| Caller::new(client), |caller| Caller::clone(caller));
        caller.set(tenant, change(caller.granted_in(tenant)));
        callers.insert((&**name).into(), Arc::new(caller));
        part.store(Arc::new(callers));
    }

    #[inline]
    pub(crate) fn claim_set(&self, claims: ClaimsNo) -> Option<&ClaimSet> {
        self.claim_sets.get(claims.0 as usize)
    }

    pub(crate) fn tenant_name(&self, tenant: TenantNo) -> &str {
        self.tenants.get(tenant.0 as usize).map_or("", |name| name)
    }

    pub(crate) fn client_name(&self, client: ClientNo) -> &str {
        self.clients.get(client.0 as usize).map_or("", |name| name)
    }

    /// A claim set, if the caller may validate or inspect in its tenant.
    #[must_use]
    pub fn claims(&self, caller: &Caller, claims: ClaimsNo) -> Option<ClaimsInfo> {
        let published = self.shown();
        let set = self.claim_set(claims).filter(|set| claims != ClaimsNo(0) && set.since <= published)?;
        may_read(caller, set.tenant).then(|| ClaimsInfo {
            claims,
            tenant: self.tenant_name(set.tenant).to_owned(),
            client: self.client_name(set.client).to_owned(),
            // Why a token is denied is for those to know who may inspect.
            revoked: set.is_dead() && caller.may(Rights::INSPECT, set.tenant),
            bytes: set.bytes.to_vec(),
        })
    }

    /// A subject, if the caller may validate or inspect in its tenant.
    #[must_use]
    pub fn subject(&self, caller: &Caller, subject: SubjectNo) -> Option<SubjectInfo> {
        let published = self.shown();
        let record = self.subjects.get(subject.0 as usize);
        let record = record.filter(|known| subject != SubjectNo(0) && known.since <= published)?;
        may_read(caller, record.tenant).then(|| SubjectInfo {
            subject,
            tenant: self.tenant_name(record.tenant).to_owned(),
            name: record.name.as_deref().map(str::to_owned),
        })
    }

    /// Every client with rights that the caller administers, by number; `None` for callers without the admin right
    /// anywhere.
    #[must_use]
    pub fn clients(&self, caller: &Caller) -> Option<Vec<ClientInfo>> {
        if !caller.may_somewhere(Rights::ADMIN) {
            return None;
        }
        let mut clients = Vec::new();
        for part in &self.callers {
            let part = part.load();
            clients.extend(part.iter().filter_map(|(name, known)| self.client_info(caller, name, known)));
        }
        clients.sort_by_key(|client| client.client);
        Some(clients)
    }

    /// A client with its rights in the tenants that the caller administers, if it has any.
    fn client_info(&self, caller: &Caller, name: &str, known: &Caller) -> Option<ClientInfo> {
        let administered = known.grants().filter(|(at, _)| caller.may(Rights::ADMIN, *at));
        let rights: Vec<_> =
            administered.map(|(at, rights)| (self.tenant_name(at).to_owned(), rights)).collect();
        let client = ClientInfo { client: known.client, name: name.to_owned(), rights };
        (!client.rights.is_empty()).then_some(client)
    }
}

fn may_read(caller: &Caller, tenant: TenantNo) -> bool {
    caller.may(Rights::VALIDATE, tenant) || caller.may(Rights::INSPECT, tenant)
}
