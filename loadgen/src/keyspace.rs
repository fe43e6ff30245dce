//! The key space: 32 bytes a token, by position, and the names of the subjects they belong to.
//!
//! The tokens lie in a mapping: of a file that a later run can use again, with a note beside it that says what they are, or
//! of memory alone.

mod mapping;
mod saved;

pub(crate) use self::mapping::Mapping;
pub(crate) use self::saved::{Saved, TokenFile};
use crate::layout::GROUP_TOKENS;
use crate::peer::TokenBytes;

/// Names that are kept for issues while the load runs.
const NAMES_MAX: u32 = 4_096;

/// Tokens by position.
#[derive(Debug)]
pub(crate) struct KeySpace {
    tokens: Mapping,
    /// Tells the subjects of this key space from those of others on the same server.
    tag: String,
    subjects: u32,
    names: Vec<String>,
}

impl KeySpace {
    /// The tokens there, of so many subjects.
    pub(crate) fn new(tokens: Mapping, subjects: u32, tag: String) -> Self {
        let most = subjects.min(NAMES_MAX);
        // One issue's worth more than there are, so that any stretch of them begins anywhere.
        let beyond = u32::from(crate::workload::ISSUE_BATCH_MAX);
        let names = (0..most + beyond).map(|number| format!("load-{tag}-{}", number % most)).collect();
        Self { tokens, tag, subjects, names }
    }

    /// The token at a position.
    pub(crate) fn at(&self, position: u32) -> TokenBytes {
        self.tokens.at(position)
    }

    /// Puts a token at a position.
    pub(crate) fn put(&mut self, position: u32, token: &TokenBytes) {
        self.tokens.put(position, token);
    }

    /// The subject of the token at a position that is left alone or revoked singly.
    pub(crate) fn subject(&self, position: u32) -> String {
        format!("load-{}-{}", self.tag, position % self.subjects)
    }

    /// The subject of a group.
    pub(crate) fn group_subject(&self, number: u32) -> String {
        format!("load-{}-group-{number}", self.tag)
    }

    /// The subject of the token with this number among the members of groups.
    pub(crate) fn member_subject(&self, number: u32) -> String {
        self.group_subject(number / GROUP_TOKENS)
    }

    /// So many subjects in a row, beginning with any of them.
    pub(crate) fn subjects(&self, from: u32, count: usize) -> &[String] {
        let most = self.subjects.min(NAMES_MAX);
        let from = (from % most) as usize;
        &self.names[from..from + count]
    }
}
