//! A stand-in with the agreed names, until the branch `auth` is merged.

use std::{collections::BTreeMap, sync::Arc};

use secrecy::SecretString;
use serde::Deserialize;

use crate::{
    time::{Millis, Span},
    topic::{Topic, TopicPattern},
};

/// What may be read and written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Patterns that may be subscribed to.
    pub subscribe: Vec<TopicPattern>,
    /// Patterns that may be published to.
    pub publish: Vec<TopicPattern>,
}

/// Who it is.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Its name.
    pub name: Arc<str>,
    /// What it may do.
    pub grants: Grants,
    /// Whether it may do everything.
    pub admin: bool,
    /// When the credentials run out.
    pub expires: Option<Millis>,
}

impl Principal {
    /// Whether it may subscribe.
    pub fn may_subscribe(&self, pattern: &TopicPattern) -> bool {
        self.grants.subscribe.iter().any(|grant| grant.contains(pattern))
    }

    /// Whether it may publish.
    pub fn may_publish(&self, topic: &Topic) -> bool {
        !topic.is_reserved()
            && self.grants.publish.iter().any(|grant| grant.matches(topic.as_str()))
    }
}

/// Why credentials are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No good.
    #[error("the credentials are not valid: {0}")]
    Invalid(&'static str),
    /// Too late.
    #[error("the credentials have expired")]
    Expired,
    /// Too early.
    #[error("the credentials are not valid yet")]
    NotYetValid,
    /// Taken back.
    #[error("the credentials were revoked")]
    Revoked,
    /// Cannot tell.
    #[error("credentials cannot be checked: {0}")]
    Unavailable(String),
}

/// `[auth]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "a stand-in")]
pub struct Config {
    pub issuer: String,
    pub audience: Vec<String>,
    pub not_before_leeway: Span,
    pub roles_claim: String,
    pub subscribe_claim: String,
    pub publish_claim: String,
    pub query_token: bool,
    #[serde(default)]
    pub keys: Vec<KeyConfig>,
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
    pub anonymous: Option<Grants>,
}

/// `[[auth.keys]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "a stand-in")]
pub struct KeyConfig {
    pub kid: Option<String>,
    pub algorithm: String,
    pub secret: Option<SecretString>,
    pub pem: Option<SecretString>,
    pub pem_file: Option<String>,
}

/// `[auth.roles.x]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "a stand-in")]
pub struct Role {
    #[serde(default)]
    pub subscribe: Vec<TopicPattern>,
    #[serde(default)]
    pub publish: Vec<TopicPattern>,
    #[serde(default)]
    pub admin: bool,
}
