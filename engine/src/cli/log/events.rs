//! Events as people and programs read them: with names where the log has numbers.

use std::collections::HashMap;

use jeton_core::claims::Claims;
use jeton_core::event::{Entry, Fact, Recorded, Terms};
use jeton_core::rights::Rights;
use jeton_core::time::{Millis, Seconds};
use serde_json::{Map, Value, json};

use super::hex;
use crate::cli::output::{moment, moment_ms};

/// What the numbers of events stand for, learned from the events that introduce them.
#[derive(Debug)]
pub(super) struct Names {
    tenants: HashMap<u32, String>,
    clients: HashMap<u32, String>,
    subjects: HashMap<u32, String>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            tenants: HashMap::from([(0, "*".to_owned())]),
            clients: HashMap::from([(0, "jeton:engine".to_owned())]),
            subjects: HashMap::new(),
        }
    }
}

fn name(names: &HashMap<u32, String>, number: u32) -> Value {
    // An erased name leaves its number.
    names.get(&number).map_or_else(|| json!(number), |name| json!(name))
}

impl Names {
    /// Remembers what an event introduces.
    pub(super) fn learn(&mut self, entry: &Entry) {
        match &entry.event.fact {
            Fact::TenantCreated { tenant, name } => drop(self.tenants.insert(*tenant, name.clone())),
            Fact::ClientNamed { client, name } => drop(self.clients.insert(*client, name.clone())),
            Fact::SubjectNamed { subject, .. } => {
                let text = entry.detached.as_ref().and_then(|it| String::from_utf8(it.bytes.clone()).ok());
                self.subjects.extend(text.map(|text| (*subject, text)));
            }
            _ => {}
        }
    }

    /// An event as JSON: `sequence`, `time`, `actor`, `event`, and the fields of its kind.
    pub(super) fn json(&self, sequence: u64, time: Millis, entry: &Entry) -> Value {
        json!({
            "sequence": sequence,
            "time": moment_ms(time.0),
            "actor": name(&self.clients, entry.event.actor),
            "event": entry.event.fact.name(),
            "fields": self.fields(entry),
        })
    }

    /// An event on one line.
    pub(super) fn line(&self, sequence: u64, time: Millis, entry: &Entry) -> String {
        let fields = self.fields(entry);
        let fields = fields.as_object().into_iter().flatten().map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        });
        let fields: Vec<_> = fields.collect();
        let actor = self.clients.get(&entry.event.actor).map_or("?", String::as_str);
        format!("{sequence} {} {actor} {} {}", moment_ms(time.0), entry.event.fact.name(), fields.join(" "))
    }

    fn fields(&self, entry: &Entry) -> Value {
        let detached = entry.detached.as_ref().map(|detached| detached.bytes.as_slice());
        match &entry.event.fact {
            Fact::TenantCreated { tenant, name } => json!({ "tenant": name, "number": tenant }),
            Fact::ClientNamed { client, name } => json!({ "client": name, "number": client }),
            Fact::SubjectNamed { subject, tenant, .. } => json!({
                "subject": detached.map(String::from_utf8_lossy), "number": subject,
                "tenant": name(&self.tenants, *tenant),
            }),
            Fact::ClaimsInterned { claims, tenant, client, .. } => json!({
                "claims": claims, "tenant": name(&self.tenants, *tenant),
                "client": name(&self.clients, *client), "content": detached.map(claims_json),
            }),
            Fact::TokenIssued { id, claims, subject, issued_s, expires_s, terms, .. } => {
                let mut fields = json!({
                    "id": hex(id), "subject": name(&self.subjects, *subject), "claims": claims,
                    "issued": moment(Seconds(*issued_s)), "expires": moment(Seconds(*expires_s)),
                });
                if let (Some(terms), Some(fields)) = (terms, fields.as_object_mut()) {
                    add_terms(terms, fields);
                }
                fields
            }
            Fact::TokenRenewed { id, expires_s, .. } => {
                json!({ "id": hex(id), "expires": moment(Seconds(*expires_s)) })
            }
            Fact::TokenConsumed { id, uses_left } => json!({ "id": hex(id), "uses_left": uses_left }),
            Fact::TokenRevoked { id } => json!({ "id": hex(id) }),
            Fact::SubjectRevoked { subject } => json!({ "subject": name(&self.subjects, *subject) }),
            Fact::FamilyRevoked { root } => json!({ "root": hex(root) }),
            Fact::ClientRevoked { tenant, client } => {
                json!({ "tenant": name(&self.tenants, *tenant), "client": name(&self.clients, *client) })
            }
            Fact::TenantRevoked { tenant } => json!({ "tenant": name(&self.tenants, *tenant) }),
            Fact::ResourceRevoked { tenant, claims, .. } => json!({
                "tenant": name(&self.tenants, *tenant), "claims": claims,
                "resource": detached.map(String::from_utf8_lossy),
            }),
            Fact::RightsChanged { client, tenant, rights } => json!({
                "client": name(&self.clients, *client), "tenant": name(&self.tenants, *tenant),
                "rights": rights_text(*rights),
            }),
            Fact::CommandCompleted { key, outcome, .. } => {
                json!({ "key": hex(key), "outcome": outcome_json(outcome) })
            }
            Fact::TimePassed => json!({}),
        }
    }
}

fn add_terms(terms: &Terms, fields: &mut Map<String, Value>) {
    let mut add = |key: &str, value: Option<Value>| fields.extend(value.map(|value| (key.to_owned(), value)));
    add("not_before", (terms.not_before_ms > 0).then(|| json!(moment_ms(terms.not_before_ms))));
    add("uses", (terms.uses_max > 0).then(|| json!(terms.uses_max)));
    add(
        "renewable_until",
        (terms.renewable_until_s > 0).then(|| json!(moment(Seconds(terms.renewable_until_s)))),
    );
    add("family", terms.family.map(|root| json!(hex(&root))));
    add("bound", terms.binding.map(|_| json!(true)));
}

fn claims_json(bytes: &[u8]) -> Value {
    let Ok(claims) = Claims::decode(bytes) else { return Value::Null };
    json!({
        "audience": claims.audience().iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "scopes": claims.scopes(),
        "grants": claims.grants().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "attributes": claims.attributes().iter().map(|(key, value)| (key.to_string(), json!(value))).collect::<Map<_, _>>(),
    })
}

fn rights_text(bits: u8) -> String {
    Rights::from_bits(bits).map_or_else(|| format!("{bits:#b}"), |rights| rights.to_string())
}

fn outcome_json(outcome: &Recorded) -> Value {
    match outcome {
        Recorded::Issued { ids } => json!({ "issued": ids.iter().map(|id| hex(id)).collect::<Vec<_>>() }),
        Recorded::Renewed { expires_s } => json!({ "renewed_until": moment(Seconds(*expires_s)) }),
        Recorded::Consumed { uses_left, .. } => json!({ "consumed": true, "uses_left": uses_left }),
        Recorded::Revoked { revoked, broader } => json!({ "revoked": revoked, "broader": broader }),
        Recorded::RightsChanged { rights } => json!({ "rights": rights_text(*rights) }),
        Recorded::TenantCreated { tenant } => json!({ "tenant": tenant }),
    }
}
