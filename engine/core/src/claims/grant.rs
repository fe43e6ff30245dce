//! A grant: actions on the resources that a pattern matches, written `read,comment on journal/42`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::resource::{ResourceError, ResourcePattern, ResourceQuery};

/// The longest action, in bytes.
pub const ACTION_BYTES_MAX: usize = 64;
/// The most actions of one grant.
pub const ACTIONS_MAX: usize = 32;

/// Actions on the resources that a pattern matches. The actions are sorted and without repetition; `*` for all of them
/// stands alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    actions: Vec<Box<str>>,
    resource: ResourcePattern,
}

/// Why text is no grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The words ` on ` are missing between actions and resource.
    #[error("a grant is written: ACTION[,ACTION...] on RESOURCE")]
    Shape,
    /// An action is empty, too long or has a character that none may have.
    #[error("an action has 1 to {ACTION_BYTES_MAX} characters a-z 0-9 _ . : -, or is *")]
    Action,
    /// Too many actions.
    #[error("a grant has at most {ACTIONS_MAX} actions")]
    TooManyActions,
    /// The resource.
    #[error(transparent)]
    Resource(#[from] ResourceError),
}

/// Whether `text` is one concrete action.
pub(super) fn is_action(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.:-".contains(&byte);
    (1..=ACTION_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

impl Grant {
    /// A grant of `actions` on what `resource` matches.
    ///
    /// # Errors
    /// [`GrantError::Action`] or [`GrantError::TooManyActions`].
    pub fn new<'a>(
        actions: impl IntoIterator<Item = &'a str>,
        resource: ResourcePattern,
    ) -> Result<Self, GrantError> {
        let mut actions: BTreeSet<Box<str>> = actions.into_iter().map(Into::into).collect();
        if actions.is_empty() || !actions.iter().all(|action| &**action == "*" || is_action(action)) {
            return Err(GrantError::Action);
        }
        if actions.len() > ACTIONS_MAX {
            return Err(GrantError::TooManyActions);
        }
        if actions.contains("*") {
            actions.retain(|action| &**action == "*");
        }
        Ok(Self { actions: actions.into_iter().collect(), resource })
    }

    /// The actions, sorted; `*` alone for all.
    pub fn actions(&self) -> impl ExactSizeIterator<Item = &str> {
        self.actions.iter().map(|action| &**action)
    }

    /// The resources.
    #[must_use]
    pub fn resource(&self) -> &ResourcePattern {
        &self.resource
    }

    /// Whether this grant covers the query.
    #[must_use]
    pub fn covers(&self, query: &ResourceQuery<'_>) -> bool {
        let covers_action = self.actions.iter().any(|action| &**action == query.action() || &**action == "*");
        covers_action && self.resource.matches(query)
    }
}

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let (actions, resource) = text.split_once(" on ").ok_or(GrantError::Shape)?;
        Self::new(actions.split(',').map(str::trim), resource.trim().parse()?)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.actions.join(","), self.resource)
    }
}

impl Ord for Grant {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let text = |grant: &Self| grant.resource.to_string();
        (text(self), &self.actions).cmp(&(text(other), &other.actions))
    }
}

impl PartialOrd for Grant {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
