//! API keys: `phk_<id>_<secret>`, of which the store holds a hash.

use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::{AuthError, api_keys::StoredKey, is_name};
use crate::{
    grants::Grants,
    id::{self, RandomError},
    time::Millis,
};

const PREFIX: &str = "phk_";
/// Longer than any key we make, short enough to look up whatever comes.
const MAX_BYTES: usize = 128;

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

/// Why no key was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// The name cannot stand in a log line.
    #[error("the name of a key has 1 to 256 bytes and no control characters")]
    Name,
    /// There is nothing to make a secret of.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl ApiKey {
    /// Whether `text` means to be an API key, by its beginning; a JWT never begins so.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Reads a key as its owner shows it.
    pub fn parse(text: &str) -> Result<Self, AuthError> {
        let parts = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        match parts {
            Some((id, secret)) if text.len() <= MAX_BYTES => {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned().into() })
            }
            _ => Err(AuthError::Invalid("an API key looks like phk_<id>_<secret>")),
        }
    }

    /// Makes a key: itself, to be shown once, and what the store keeps.
    pub fn make(new: NewApiKey, now: Millis) -> Result<(SecretString, StoredKey), MakeError> {
        if !is_name(&new.name) {
            return Err(MakeError::Name);
        }
        let (id, secret) = (id::short()?, id::secret()?);
        let stored = StoredKey {
            id: id.clone(),
            name: new.name,
            hash: id::hash(secret.expose_secret()),
            grants: new.grants,
            role: new.role,
            created: now,
            expires: new.expires,
            revoked: false,
        };
        Ok((format!("{PREFIX}{id}_{}", secret.expose_secret()).into(), stored))
    }

    pub(super) fn matches(&self, hash: &str) -> bool {
        id::hash(self.secret.expose_secret()).as_bytes().ct_eq(hash.as_bytes()).into()
    }
}
