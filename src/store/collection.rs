//! A collection: named documents, each with an owner, a version, and perhaps a time when it expires.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    CollectionKind, Document, DocumentPage, DocumentPlace, DocumentVersion, MAX_DOCUMENT, MAX_PAGE,
    NewDocument, SecretError, Store, StoreError,
};
use crate::time::Millis;

/// The documents of one kind in a store, as JSON. Cheap to clone.
pub struct Collection<T> {
    store: Store,
    kind: CollectionKind,
    body: PhantomData<fn() -> T>,
}

impl<T> Clone for Collection<T> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), kind: self.kind, body: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> Collection<T> {
    pub(super) fn new(store: Store, kind: CollectionKind) -> Self {
        Self { store, kind, body: PhantomData }
    }

    /// The time by which documents expire.
    pub fn now(&self) -> Millis {
        match &self.store {
            Store::Local(local) => local.now(),
            Store::Shared(shared) => shared.now(),
        }
    }

    /// The document with this id.
    pub async fn get(&self, id: &str) -> Result<Option<Document<T>>, StoreError> {
        let found = match &self.store {
            Store::Local(local) => local.get(self.kind, id.to_owned()).await,
            Store::Shared(shared) => shared.get(self.kind, id).await,
        };
        found?.map(read).transpose()
    }

    /// The documents of one owner, or of all, that come after `after`: at most `limit`, [`MAX_PAGE`], and a few MiB.
    pub async fn list(
        &self,
        owner: Option<&str>,
        after: Option<DocumentPlace>,
        limit: usize,
    ) -> Result<DocumentPage<T>, StoreError> {
        let limit = limit.min(MAX_PAGE);
        let page = match &self.store {
            Store::Local(local) => {
                local.list(self.kind, owner.map(str::to_owned), after, limit).await
            }
            Store::Shared(shared) => shared.list(self.kind, owner, after, limit).await,
        }?;
        let documents = page.documents.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(DocumentPage { documents, next: page.next })
    }

    /// Stores a document. It replaces the version `over`; without `over`, there must be no document with its id. Otherwise
    /// the error is [`StoreError::Conflict`], or [`StoreError::Full`] if there is no room for another document.
    pub async fn put(
        &self,
        new: NewDocument<T>,
        over: Option<DocumentVersion>,
    ) -> Result<DocumentVersion, StoreError> {
        let NewDocument { id, owner, expires, body } = new;
        let body = serde_json::to_string(&body).map_err(unreadable)?;
        let bytes = id.len() + owner.len() + body.len();
        if bytes > MAX_DOCUMENT {
            return Err(StoreError::TooLarge { name: self.kind.name, bytes });
        }
        let random = DocumentVersion::random();
        let version = random.map_err(|error| SecretError::Random(error.into()))?;
        let document = Document { id, owner, version, expires, body };
        match &self.store {
            Store::Local(local) => local.put(self.kind, document, over).await,
            Store::Shared(shared) => shared.put(self.kind, &document, over).await,
        }?;
        Ok(version)
    }

    /// Removes a document and returns it. If `over` is given, the document must still have this version. If several
    /// callers remove it at the same time, only one gets it.
    pub async fn delete(
        &self,
        id: &str,
        over: Option<DocumentVersion>,
    ) -> Result<Option<Document<T>>, StoreError> {
        let found = match &self.store {
            Store::Local(local) => local.delete(self.kind, id.to_owned(), over).await,
            Store::Shared(shared) => shared.delete(self.kind, id, over).await,
        };
        found?.map(read).transpose()
    }
}

fn read<T: DeserializeOwned>(stored: Document<String>) -> Result<Document<T>, StoreError> {
    let Document { id, owner, version, expires, body } = stored;
    let body = serde_json::from_str(&body).map_err(unreadable)?;
    Ok(Document { id, owner, version, expires, body })
}

fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::Unreadable(error.to_string())
}
