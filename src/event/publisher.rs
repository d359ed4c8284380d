//! Who published an event, as the credentials say and not the event.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The principal that an event came from: the hub, somebody without a name, an API key by its name, or a token by its
/// issuer and subject. A rotated key keeps its name, so a retry with the new key is the same event.
///
/// It is stored as one text, which is different for any two of them: a subject has no control characters, and the
/// issuer comes last.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublisherName(Arc<str>);

impl PublisherName {
    /// The hub itself.
    pub fn hub() -> Self {
        Self("hub".into())
    }

    /// All who come without credentials.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }

    /// The holder of the API key with this name.
    pub fn key(name: &str) -> Self {
        Self(format!("key:{name}").into())
    }

    /// The subject of a token of this issuer; the issuer is empty if the token has none.
    pub fn token(issuer: &str, subject: &str) -> Self {
        Self(format!("token:{subject}\n{issuer}").into())
    }

    /// Somebody who signed in by a link that the hub printed.
    pub fn link(name: &str) -> Self {
        Self(format!("link:{name}").into())
    }

    /// Of passes that an earlier version stored, which did not say.
    pub fn unnamed() -> Self {
        Self::token("", "")
    }

    /// What it is stored and compared as.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, shared.
    pub fn text(&self) -> &Arc<str> {
        &self.0
    }

    /// What is read back from a log.
    pub(super) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// What admins are shown.
    pub fn shown(&self) -> Value {
        match self.0.split_once(':') {
            Some(("token", rest)) => {
                let (subject, issuer) = rest.split_once('\n').unwrap_or((rest, ""));
                json!({"kind": "token", "name": subject, "issuer": issuer})
            }
            Some((kind, name)) => json!({"kind": kind, "name": name}),
            None => json!({"kind": *self.0}),
        }
    }
}

impl fmt::Debug for PublisherName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublisherName({:?})", self.0)
    }
}
