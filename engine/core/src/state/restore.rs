//! A state from the parts of a snapshot.
//!
//! What validation needs is there at once. The lists of subjects' tokens, the families and the names follow from it: they are
//! made by the time the first event or command asks for them ([`State::make_whole`]), which may be after the first validates.

use jeton_index::{IndexImage, Reader, State as Bits};

use super::keys::KeyRecord;
use super::names::ClaimsKey;
use super::{Publication, State, StateConfig, index_config};
use crate::claims::Claims;
use crate::event::ScopedKey;
use crate::extra::Extra;
use crate::mutation::mutated;
use crate::numbers::{ClaimsNo, ClientNo, IdempotencyKey, LogId, Partition, Sequence, SubjectNo, TenantNo};
use crate::registry::{ClaimSet, Subject};
use crate::rights::{Caller, Rights};
use crate::snapshot::load::Lists;
use crate::snapshot::parts::{
    ArchivedClaimSetPart, ArchivedCounterPart, ArchivedKeyPart, ArchivedRestPart, ArchivedSubjectPart, access,
};
use crate::snapshot::{Manifest, SnapshotError};
use crate::time::Millis;
use crate::token::TokenId;

impl Lists {
    /// Slots with the uses spent.
    pub(crate) fn counters(&self) -> Result<Vec<(u32, u64)>, SnapshotError> {
        let mut counters = Vec::new();
        for part in &self.counters {
            let part: &rkyv::vec::ArchivedVec<ArchivedCounterPart> = access(part, "counters")?;
            counters.extend(part.iter().map(|counter| (counter.slot.to_native(), counter.spent.to_native())));
        }
        Ok(counters)
    }
}

impl State {
    /// The state that the parts of a snapshot hold, and the reading half of its index.
    ///
    /// # Errors
    /// [`SnapshotError`]: they contradict one another.
    pub(crate) fn restored(
        manifest: &Manifest,
        config: StateConfig,
        image: IndexImage,
        lists: &Lists,
    ) -> Result<(Self, Reader), SnapshotError> {
        let (index, reader) = jeton_index::restore(index_config(&config), image)?;
        let log = (LogId(manifest.log), Partition(manifest.partition));
        let mut state = Self::around(index, log, config.tokens_max);
        state.is_whole = false;
        state.applied = (Sequence(manifest.sequence), Millis(manifest.time_ms));
        let rest: &ArchivedRestPart = access(&lists.rest, "names and rights")?;
        for name in rest.tenants.iter() {
            state.registry.tenants.push((&**name).into());
        }
        for name in rest.clients.iter() {
            state.registry.clients.push((&**name).into());
        }
        lists.subjects.iter().try_for_each(|part| state.restore_subjects(part))?;
        lists.claim_sets.iter().try_for_each(|part| state.restore_claim_sets(part))?;
        lists.keys.iter().try_for_each(|part| state.restore_keys(part))?;
        state.restore_rights(rest)?;
        for number in rest.dead_claim_sets.iter() {
            let set = state.registry.claim_set(ClaimsNo(number.to_native()));
            set.ok_or_else(|| damaged("a claim set that was never interned is dead"))?.kill();
        }
        for slot in rest.renewals.iter() {
            let is_written = state.index.is_written(slot.to_native());
            let record = state.index.record(slot.to_native()).filter(|_| is_written);
            let id = TokenId(record.ok_or_else(|| damaged("a renewal has no record"))?.id);
            if state.index.find(&id.0).is_some_and(|entry| entry.slot == slot.to_native()) {
                return Err(damaged("a renewal was carried out before it was durable"));
            }
            state.publish(&Publication::Renewal(id, slot.to_native()));
        }
        state.begin_rounds_here();
        Ok((state, reader))
    }

    fn restore_subjects(&mut self, part: &rkyv::util::AlignedVec<16>) -> Result<(), SnapshotError> {
        let part: &rkyv::vec::ArchivedVec<ArchivedSubjectPart> = access(part, "subjects")?;
        for subject in part.iter() {
            self.registry.subjects.push(Subject {
                tenant: TenantNo(subject.tenant.to_native()),
                name: subject.name.as_ref().map(|name| (&**name).into()),
                since: Sequence(subject.since.to_native()),
            });
        }
        Ok(())
    }

    fn restore_claim_sets(&mut self, part: &rkyv::util::AlignedVec<16>) -> Result<(), SnapshotError> {
        let part: &rkyv::vec::ArchivedVec<ArchivedClaimSetPart> = access(part, "claim sets")?;
        for set in part.iter() {
            let (tenant, client) = (TenantNo(set.tenant.to_native()), ClientNo(set.client.to_native()));
            let bytes = set.bytes.as_ref().map(|bytes| bytes.as_slice());
            let claims = bytes.map(Claims::decode).transpose();
            let compiled =
                claims.map_err(|_| damaged("a claim set does not decode"))?.map(|claims| claims.compile());
            let since = Sequence(set.since.to_native());
            let set = ClaimSet::new(tenant, client, bytes.unwrap_or_default(), compiled, since);
            self.registry.claim_sets.push(set);
        }
        Ok(())
    }

    fn restore_keys(&mut self, part: &rkyv::util::AlignedVec<16>) -> Result<(), SnapshotError> {
        let part: &rkyv::vec::ArchivedVec<ArchivedKeyPart> = access(part, "idempotency keys")?;
        for key in part.iter() {
            let outcome = rkyv::deserialize::<_, rkyv::rancor::Failure>(&key.outcome);
            let record = KeyRecord {
                at: Millis(key.at_ms.to_native()),
                payload: key.payload,
                outcome: outcome.map_err(|_| damaged("an outcome does not decode"))?,
            };
            let key = ScopedKey { client: ClientNo(key.client.to_native()), key: IdempotencyKey(key.key) };
            self.keys.remember(key, record);
        }
        Ok(())
    }

    fn restore_rights(&mut self, rest: &ArchivedRestPart) -> Result<(), SnapshotError> {
        for part in rest.rights.iter() {
            let rights =
                Rights::from_bits(part.rights).ok_or_else(|| damaged("rights that there are not"))?;
            let (client, tenant) = (ClientNo(part.client.to_native()), TenantNo(part.tenant.to_native()));
            self.callers.entry(client).or_insert_with(|| Caller::new(client)).set(tenant, rights);
            self.registry.update_caller(client, tenant, |_| rights);
        }
        Ok(())
    }

    /// Makes what follows from the rest: the lists of subjects' tokens, families, and names by which numbers are found. Nothing
    /// if that was done; a tenth of a microsecond for each token and subject otherwise.
    ///
    /// A token of a subject that there is not comes of a snapshot that contradicts itself: no revoke by subject would reach
    /// it, so it is taken for revoked.
    pub fn make_whole(&mut self) {
        if self.is_whole {
            return;
        }
        self.is_whole = true;
        let Self { index, lists, members, registry, names, .. } = self;
        let subjects = registry.subjects.count();
        let mut of_nobody = Vec::new();
        index.for_each_by_age(|slot, record, tail| {
            if record.link as usize >= subjects {
                of_nobody.push(record.id);
                return;
            }
            if !mutated!(SnapshotUnlisted) {
                lists.push(SubjectNo(record.link), slot);
            }
            if let Some(root) = tail.and_then(|tail| Extra::from_words(tail).family) {
                members.entry(root).or_default().push(TokenId(record.id));
            }
        });
        for id in of_nobody {
            index.mark(&id, Bits::REVOKED);
        }
        for (number, name) in registry.tenants.iter().skip(1) {
            names.insert_tenant(name, TenantNo(number_u32(number)));
        }
        for (number, name) in registry.clients.iter().skip(1) {
            names.insert_client(name, ClientNo(number_u32(number)));
        }
        for (number, subject) in registry.subjects.iter().skip(1) {
            if let Some(name) = &subject.name {
                names.insert_subject(registry, subject.tenant, name, SubjectNo(number_u32(number)));
            }
        }
        for (number, set) in registry.claim_sets.iter().skip(1) {
            if !set.is_dead() && set.compiled.is_some() {
                let key = ClaimsKey(set.tenant, set.client, *blake3::hash(&set.bytes).as_bytes());
                names.insert_claim_set(key, ClaimsNo(number_u32(number)));
            }
        }
    }
}

fn damaged(what: &str) -> SnapshotError {
    SnapshotError::Damaged(what.to_owned())
}

fn number_u32(number: usize) -> u32 {
    u32::try_from(number).expect("everything is numbered in 32 bits")
}
