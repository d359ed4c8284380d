//! The API keys that the store keeps.

use serde::{Deserialize, Serialize};

use super::AuthError;
use crate::{
    grants::Grants,
    store::{
        Collection, CollectionKind, Document, MAX_PAGE, NewDocument, Store, StoreError, Writes,
    },
    time::{Millis, Span},
};

/// API keys, each by its id; its owner is its name. One that is of no use any more stays for a year.
pub const KEYS: CollectionKind = CollectionKind {
    name: "keys",
    most: 1_000_000,
    most_of_owner: usize::MAX,
    synced: Writes::All,
    told: Writes::Changes,
};

/// How long a revoked or expired key is kept, so that its owner is told why it is refused. After that it is unknown,
/// and its place is free.
const KEPT: Span = Span::seconds(365 * 86_400);

/// An API key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKey {
    /// Its public part.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// Of its secret part.
    pub hash: String,
    /// What it may do.
    pub grants: Grants,
    /// A role, beside the grants.
    pub role: Option<String>,
    /// When it was made.
    pub created: Millis,
    /// When it runs out.
    pub expires: Option<Millis>,
    /// Whether it was taken back.
    pub revoked: bool,
}

/// The API keys that a store keeps. Cheap to clone.
#[derive(Clone)]
pub struct ApiKeys(Collection<StoredKey>);

impl ApiKeys {
    /// Those in `store`.
    pub fn new(store: &Store) -> Self {
        Self(store.collection(KEYS))
    }

    /// Keeps a new key.
    pub async fn put(&self, key: StoredKey) -> Result<(), StoreError> {
        self.0.put(self.document(key), None).await.map(drop)
    }

    /// The key of this id, whether or not it may still be used.
    pub async fn get(&self, id: &str) -> Result<Option<StoredKey>, StoreError> {
        Ok(self.0.get(id).await?.map(|found| found.body))
    }

    /// All keys, oldest first.
    pub async fn list(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.all(None).await
    }

    /// All keys of this name, oldest first.
    pub async fn named(&self, name: &str) -> Result<Vec<StoredKey>, StoreError> {
        self.all(Some(name)).await
    }

    async fn all(&self, name: Option<&str>) -> Result<Vec<StoredKey>, StoreError> {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = self.0.list(name, after, MAX_PAGE).await?;
            keys.extend(page.documents.into_iter().map(|found| found.body));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        keys.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(keys)
    }

    /// Revokes a key; false if there is none.
    pub async fn revoke(&self, id: &str) -> Result<bool, StoreError> {
        loop {
            let Some(Document { version, body, expires, .. }) = self.0.get(id).await? else {
                return Ok(false);
            };
            let was_revoked = body.revoked;
            let mut revoked = self.document(StoredKey { revoked: true, ..body });
            if was_revoked {
                // Written again, for nobody may have been told that it was done; kept no longer for that.
                revoked.expires = expires;
            }
            match self.0.put(revoked, Some(version)).await {
                // Somebody else has changed it meanwhile.
                Err(StoreError::Conflict) => {}
                put => return put.map(|_| true),
            }
        }
    }

    fn document(&self, key: StoredKey) -> NewDocument<StoredKey> {
        let over = if key.revoked { Some(self.0.now()) } else { key.expires };
        let expires = over.map(|over| over.saturating_add(KEPT.millis()));
        NewDocument { id: key.id.clone(), owner: key.name.clone(), expires, body: key }
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
