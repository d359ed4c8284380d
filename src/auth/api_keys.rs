//! The API keys that the store keeps.

use super::AuthError;
pub use crate::store::StoredKey;
use crate::{
    store::{Store, StoreError},
    time::Millis,
};

/// The API keys that a store keeps. Cheap to clone.
#[derive(Clone)]
pub struct ApiKeys(Store);

impl ApiKeys {
    /// Those in `store`.
    pub fn new(store: &Store) -> Self {
        Self(store.clone())
    }

    /// Keeps a new key.
    pub async fn put(&self, key: StoredKey) -> Result<(), StoreError> {
        self.0.put_key(key).await
    }

    /// The key of this id, whether or not it may still be used.
    pub async fn get(&self, id: &str) -> Result<Option<StoredKey>, StoreError> {
        self.0.key(id).await
    }

    /// All keys, oldest first.
    pub async fn list(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.0.keys().await
    }

    /// All keys of this name, oldest first.
    pub async fn named(&self, name: &str) -> Result<Vec<StoredKey>, StoreError> {
        let mut keys = self.list().await?;
        keys.retain(|key| key.name == name);
        Ok(keys)
    }

    /// Takes a key back; false if there is none.
    pub async fn revoke(&self, id: &str) -> Result<bool, StoreError> {
        self.0.revoke_key(id).await
    }
}

/// Refuses a key that was taken back or has run out.
pub(super) fn check_usable(key: &StoredKey, now: Millis) -> Result<(), AuthError> {
    if key.revoked {
        return Err(AuthError::Revoked);
    }
    if key.expires.is_some_and(|expires| expires <= now) {
        return Err(AuthError::Expired);
    }
    Ok(())
}
