//! What numbers in answers stand for, remembered. Void as soon as the log is another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jeton_core::inspection::{ClaimsInfo, SubjectInfo};
use jeton_core::numbers::{ClaimsNo, LogId, SubjectNo};

/// Claim sets and subjects of one log. A number always stands for the same, so nothing in here goes stale; that a claim
/// set was revoked is told by verdicts, never by this.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    log: LogId,
    claims: HashMap<ClaimsNo, Arc<ClaimsInfo>>,
    subjects: HashMap<SubjectNo, Arc<SubjectInfo>>,
}

impl Cache {
    fn with<R>(&self, log: LogId, act: impl FnOnce(&mut Content) -> R) -> R {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if content.log != log {
            *content = Content { log, ..Content::default() };
        }
        act(&mut content)
    }

    pub(crate) fn claims(&self, log: LogId, number: ClaimsNo) -> Option<Arc<ClaimsInfo>> {
        self.with(log, |content| content.claims.get(&number).cloned())
    }

    pub(crate) fn subject(&self, log: LogId, number: SubjectNo) -> Option<Arc<SubjectInfo>> {
        self.with(log, |content| content.subjects.get(&number).cloned())
    }

    pub(crate) fn keep_claims(&self, log: LogId, max: usize, info: &Arc<ClaimsInfo>) {
        self.with(log, |content| keep(&mut content.claims, max, info.claims, info));
    }

    pub(crate) fn keep_subject(&self, log: LogId, max: usize, info: &Arc<SubjectInfo>) {
        self.with(log, |content| keep(&mut content.subjects, max, info.subject, info));
    }
}

/// A full cache starts over: what is in use comes back with one request each.
fn keep<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, Arc<V>>, max: usize, key: K, value: &Arc<V>) {
    if map.len() >= max {
        map.clear();
    }
    map.insert(key, Arc::clone(value));
}
