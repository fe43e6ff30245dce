//! The state digest: one hash over everything the state means, equal after a replay.
//!
//! It runs over entries in the order of their ids, without slot numbers and without tokens that were dead at the last
//! event's time: those may be reclaimed at any moment and mean nothing any more.

use super::{Known, State};
use crate::event::Recorded;
use crate::judge::is_dead;
use crate::numbers::ClientNo;
use crate::token::TokenId;

/// A hash under construction; texts go in with their length.
struct Fields(blake3::Hasher);

impl Fields {
    fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).0.update(bytes);
        self
    }

    fn outcome(&mut self, outcome: &Recorded) {
        let (kind, numbers) = match *outcome {
            Recorded::Issued { ref ids } => {
                ids.iter().for_each(|id| {
                    self.bytes(id);
                });
                (1, [ids.len() as u64, 0, 0, 0, 0])
            }
            Recorded::Renewed { expires_s } => (2, [expires_s.into(), 0, 0, 0, 0]),
            Recorded::Consumed { expires_s, claims, subject, flags, uses_left } => {
                (3, [expires_s.into(), claims.into(), subject.into(), flags.into(), uses_left.into()])
            }
            Recorded::Revoked { revoked, broader } => (4, [revoked, broader, 0, 0, 0]),
            Recorded::RightsChanged { rights } => (5, [rights.into(), 0, 0, 0, 0]),
            Recorded::TenantCreated { tenant } => (6, [tenant.into(), 0, 0, 0, 0]),
        };
        self.number(kind);
        numbers.into_iter().for_each(|number| {
            self.number(number);
        });
    }
}

impl State {
    /// The digest of this state. Takes time and memory in proportion to the tokens: for verification, not for
    /// the hot path. Revokes still under way count as carried out.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut fields = Fields(blake3::Hasher::new());
        fields.number(self.applied.0.0).number(self.applied.1.0);
        self.digest_names(&mut fields);
        self.digest_claim_sets(&mut fields);
        self.digest_rights(&mut fields);
        self.digest_keys(&mut fields);
        self.digest_tokens(&mut fields);
        *fields.0.finalize().as_bytes()
    }

    fn digest_names(&self, fields: &mut Fields) {
        for names in [&self.registry.tenants, &self.registry.clients] {
            fields.number(names.count() as u64);
            for (_, name) in names {
                fields.bytes(name.as_bytes());
            }
        }
        fields.number(self.registry.subjects.count() as u64);
        for (_, subject) in &self.registry.subjects {
            fields.number(u64::from(subject.tenant.0));
            fields.bytes(subject.name.as_deref().unwrap_or_default().as_bytes());
        }
    }

    fn digest_claim_sets(&self, fields: &mut Fields) {
        fields.number(self.registry.claim_sets.count() as u64);
        for (_, set) in &self.registry.claim_sets {
            fields.number(u64::from(set.tenant.0)).number(u64::from(set.client.0));
            fields.number(u64::from(set.is_dead())).bytes(&set.bytes);
        }
    }

    fn digest_rights(&self, fields: &mut Fields) {
        let mut callers: Vec<_> = self.callers.iter().collect();
        callers.sort_by_key(|(client, _)| **client);
        for (ClientNo(client), caller) in callers {
            for (tenant, rights) in caller.grants() {
                fields
                    .number(u64::from(*client))
                    .number(u64::from(tenant.0))
                    .number(u64::from(rights.bits()));
            }
        }
    }

    fn digest_keys(&self, fields: &mut Fields) {
        let mut keys: Vec<_> = self.keys.iter_at(self.applied.1).collect();
        keys.sort_by_key(|(scoped, _)| (scoped.client, scoped.key.0));
        for (scoped, record) in keys {
            fields.number(u64::from(scoped.client.0)).bytes(&scoped.key.0);
            fields.number(record.at.0).bytes(&record.payload);
            fields.outcome(&record.outcome);
        }
    }

    fn digest_tokens(&self, fields: &mut Fields) {
        let mut ids = Vec::with_capacity(self.index.len());
        self.index.for_each(|entry| ids.push(TokenId(entry.record.id)));
        ids.sort_unstable();
        for id in &ids {
            let Some(known) = self.known(id) else { continue };
            // What is decided and not published yet counts: a replay publishes everything.
            if !is_dead(&known.facts(), self.applied.1) {
                self.digest_token(fields, id, &known);
            }
        }
    }

    fn digest_token(&self, fields: &mut Fields, id: &TokenId, known: &Known<'_>) {
        let record = &known.entry.record;
        fields.bytes(&id.0).bytes(&record.digest);
        for number in [record.expires_s, record.issued_s, record.claims, known.subject().0] {
            fields.number(u64::from(number));
        }
        fields.number(u64::from(self.uses_left(known)));
        if let Some(extra) = &known.extra {
            fields.number(extra.not_before.0).number(u64::from(extra.uses_max));
            fields
                .number(u64::from(extra.renewable_until.0))
                .bytes(&extra.family.map_or([0; 16], |root| root.0));
            fields.bytes(extra.binding.as_ref().map_or(&[][..], |binding| &binding.0));
        }
    }
}
