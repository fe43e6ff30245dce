//! From names to numbers: the sequencer's side of the registry.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

use crate::numbers::{ClaimsNo, ClientNo, SubjectNo, TenantNo};
use crate::registry::Registry;

/// Looks numbers up by name. Subject names, of which there are millions, are not held a second time: the table holds
/// numbers and compares through the registry.
#[derive(Debug)]
pub(super) struct Names {
    tenants: HashMap<Box<str>, TenantNo>,
    clients: HashMap<Box<str>, ClientNo>,
    /// In parts by hash: the pause of a table that doubles is that of a part.
    subjects: Box<[HashTable<SubjectNo>]>,
    hasher: RandomState,
    /// Live claim sets; a dead one is forgotten, so that the next issue interns a new number.
    claim_sets: HashMap<ClaimsKey, ClaimsNo>,
}

/// Parts of the table of subjects.
const SUBJECT_PARTS: usize = 1_024;

/// The part that a hash belongs to, by bits that a table does not look at first.
fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % SUBJECT_PARTS
}

impl Default for Names {
    fn default() -> Self {
        Self {
            tenants: HashMap::new(),
            clients: HashMap::new(),
            subjects: (0..SUBJECT_PARTS).map(|_| HashTable::new()).collect(),
            hasher: RandomState::new(),
            claim_sets: HashMap::new(),
        }
    }
}

/// What makes two claim sets the same: tenant, client and the blake3 hash of the canonical bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClaimsKey(pub(super) TenantNo, pub(super) ClientNo, pub(super) [u8; 32]);

impl Names {
    pub(super) fn tenant(&self, name: &str) -> Option<TenantNo> {
        if name == crate::registry::EVERY_TENANT {
            Some(TenantNo::EVERY)
        } else {
            self.tenants.get(name).copied()
        }
    }

    pub(super) fn insert_tenant(&mut self, name: &str, tenant: TenantNo) {
        self.tenants.insert(name.into(), tenant);
    }

    pub(super) fn client(&self, name: &str) -> Option<ClientNo> {
        self.clients.get(name).copied()
    }

    pub(super) fn insert_client(&mut self, name: &str, client: ClientNo) {
        self.clients.insert(name.into(), client);
    }

    pub(super) fn subject(&self, registry: &Registry, tenant: TenantNo, name: &str) -> Option<SubjectNo> {
        let is_it = |number: &SubjectNo| {
            registry
                .subjects
                .get(number.0 as usize)
                .is_some_and(|subject| subject.tenant == tenant && subject.name.as_deref() == Some(name))
        };
        let hash = self.hasher.hash_one((tenant, name));
        self.subjects[part_of(hash)].find(hash, is_it).copied()
    }

    /// Makes a subject that lies in the registry findable.
    pub(super) fn insert_subject(
        &mut self,
        registry: &Registry,
        tenant: TenantNo,
        name: &str,
        number: SubjectNo,
    ) {
        let Self { subjects, hasher, .. } = self;
        let rehash = |number: &SubjectNo| {
            let subject = &registry.subjects[number.0 as usize];
            hasher.hash_one((subject.tenant, subject.name.as_deref().unwrap_or_default()))
        };
        let hash = hasher.hash_one((tenant, name));
        subjects[part_of(hash)].insert_unique(hash, number, rehash);
    }

    pub(super) fn claim_set(&self, key: &ClaimsKey) -> Option<ClaimsNo> {
        self.claim_sets.get(key).copied()
    }

    pub(super) fn insert_claim_set(&mut self, key: ClaimsKey, claims: ClaimsNo) {
        self.claim_sets.insert(key, claims);
    }

    pub(super) fn forget_claim_set(&mut self, key: &ClaimsKey) {
        self.claim_sets.remove(key);
    }
}
