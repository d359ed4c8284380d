//! API keys: `phk_<id>_<secret>`, of which the store holds a hash.

use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::AuthError;
use crate::{
    grants::Grants,
    id::{self, RandomError},
    store::{Store, StoredKey},
    time::Millis,
};

const PREFIX: &str = "phk_";

/// A key as its owner shows it.
pub struct ApiKey {
    /// Its public part.
    pub id: String,
    secret: SecretString,
}

/// What a new key may do.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Whose it is; also the default `source` of what it publishes.
    pub name: String,
    /// What it may read and write.
    pub grants: Grants,
    /// A role, beside the grants.
    pub role: Option<String>,
    /// When it runs out.
    pub expires: Option<Millis>,
}

impl ApiKey {
    /// Reads what looks like a key; None for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Some(Self { id: id.to_owned(), secret: secret.to_owned().into() })
    }

    /// Makes a key: itself, to be shown once, and what the store keeps.
    pub fn make(new: NewApiKey, now: Millis) -> Result<(SecretString, StoredKey), RandomError> {
        let (id, secret) = (id::short()?, id::secret()?);
        let stored = StoredKey {
            id: id.clone(),
            name: new.name,
            hash: id::hash(&secret),
            grants: new.grants,
            role: new.role,
            created: now,
            expires: new.expires,
            revoked: false,
        };
        Ok((format!("{PREFIX}{id}_{secret}").into(), stored))
    }

    pub(super) fn matches(&self, hash: &str) -> bool {
        id::hash(self.secret.expose_secret()).as_bytes().ct_eq(hash.as_bytes()).into()
    }
}

/// The stored key, if it may be used now.
pub(super) async fn stored(store: &Store, id: &str, now: Millis) -> Result<StoredKey, AuthError> {
    let stored = store
        .key(id)
        .await
        .map_err(|error| AuthError::Unavailable(error.to_string()))?
        .ok_or(AuthError::Invalid("the API key is unknown"))?;
    if stored.revoked {
        return Err(AuthError::Revoked);
    }
    if stored.expires.is_some_and(|expires| expires <= now) {
        return Err(AuthError::Expired);
    }
    Ok(stored)
}
