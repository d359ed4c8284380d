//! A configuration of derived values or projections that makes no sense.

/// What makes no sense, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {message}")]
pub struct ProjectionFault {
    /// The key's path.
    pub key: String,
    /// For people.
    pub message: String,
}

impl ProjectionFault {
    pub(super) fn new(key: &str, message: impl Into<String>) -> Self {
        Self { key: key.to_owned(), message: message.into() }
    }
}
