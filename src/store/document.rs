//! What a collection holds, and how much of it.

use std::{fmt, num::ParseIntError, str::FromStr};

use crate::time::Millis;

/// One kind of documents, declared as a constant by the module that stores them.
#[derive(Debug, Clone, Copy)]
pub struct CollectionKind {
    /// Its name, a plural. It is stored, so it must never change.
    pub name: &'static str,
    /// How many documents it may hold.
    pub most: usize,
    /// How many of them one owner may have.
    pub most_of_owner: usize,
    /// Which writes are answered only when they are on the disk. The others may be lost when the power fails. With
    /// Redis, its settings decide what is on the disk. There, these writes and all changes and removals of documents are
    /// answered only when as many replicas have them as must have an event.
    pub synced: Writes,
    /// Which writes notify those who [watch](super::Store::watch).
    pub told: Writes,
}

/// Some of the writes to a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// All writes.
    All,
    /// Changes and removals, but not the creation of a document.
    Changes,
    /// No writes.
    None,
}

impl Writes {
    pub(super) fn include(self, is_new: bool) -> bool {
        match self {
            Self::All => true,
            Self::Changes => !is_new,
            Self::None => false,
        }
    }
}

/// The largest size of a document with its id and its owner, in bytes.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// A stored document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<T> {
    /// Its name within the collection.
    pub id: String,
    /// Whose it is. `most_of_owner` limits the documents of one owner.
    pub owner: String,
    /// Changes with each write.
    pub version: DocumentVersion,
    /// When it expires; from then on nobody can read it.
    pub expires: Option<Millis>,
    /// Its content.
    pub body: T,
}

/// A document that is to be stored.
#[derive(Debug, Clone)]
pub struct NewDocument<T> {
    /// Its name within the collection.
    pub id: String,
    /// Whose it is. `most_of_owner` limits the documents of one owner.
    pub owner: String,
    /// When it expires.
    pub expires: Option<Millis>,
    /// Its content.
    pub body: T,
}

/// Identifies one write of a document. It is random, so that a document that was removed and created again has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentVersion(u64);

impl DocumentVersion {
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        getrandom::u64().map(Self)
    }
}

impl fmt::Display for DocumentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for DocumentVersion {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// Some documents of a collection.
#[derive(Debug)]
pub struct DocumentPage<T> {
    /// In an order of the store's own; those of one owner by their ids.
    pub documents: Vec<Document<T>>,
    /// Where the next page begins; None after the last page.
    pub next: Option<DocumentPlace>,
}

impl<T> DocumentPage<T> {
    /// A page of `documents`; `is_more` says whether others follow.
    pub(super) fn new(documents: Vec<Document<T>>, is_more: bool) -> Self {
        let last = documents.last().filter(|_| is_more);
        let next =
            last.map(|last| DocumentPlace { owner: last.owner.clone(), id: last.id.clone() });
        Self { documents, next }
    }
}

/// The most documents of one page.
pub const MAX_PAGE: usize = 1000;
/// The most bytes of one page, if it has more than one document.
pub(super) const PAGE_BYTES: usize = 4 << 20;

/// The document after which a page begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentPlace {
    /// Its owner.
    pub owner: String,
    /// Its id.
    pub id: String,
}

/// Why a document is not stored. The store never removes a document to make room for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {most} {name} {} already: end some, or wait until they run out",
    if *is_owners { "of this user" } else { "in all" })]
pub struct CollectionFull {
    /// What the collection is called.
    pub name: &'static str,
    /// How many there may be.
    pub most: usize,
    /// Whether they are all of one owner.
    pub is_owners: bool,
}
