//! What a collection holds, and how much of it.

use std::{fmt, num::ParseIntError, str::FromStr};

use crate::time::Millis;

/// One kind of documents: a constant of whoever keeps them.
#[derive(Debug, Clone, Copy)]
pub struct CollectionKind {
    /// What it is called, for ever; a plural.
    pub name: &'static str,
    /// How many documents it may hold.
    pub most: usize,
    /// How many of them may be of one owner.
    pub most_of_owner: usize,
    /// Which writes are answered only when they are on the disk. The others may be lost when the power fails. With
    /// Redis its own settings decide; but these, and whatever changes or removes a document, are answered only when as
    /// many replicas have them as of an event.
    pub synced: Writes,
    /// Which writes those who [watch](super::Store::watch) are told of.
    pub told: Writes,
}

/// Some of the writes to a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Every one.
    All,
    /// What changes or removes a document, and not what makes one.
    Changes,
    /// Not one.
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

/// The most that one document may take, with its id and its owner, in bytes.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// A document as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<T> {
    /// Its name within the collection.
    pub id: String,
    /// Whose it is; theirs are counted together.
    pub owner: String,
    /// Another with each write.
    pub version: DocumentVersion,
    /// When it runs out; from then on it is as if it were not there.
    pub expires: Option<Millis>,
    /// What it says.
    pub body: T,
}

/// A document on its way into the store.
#[derive(Debug, Clone)]
pub struct NewDocument<T> {
    /// Its name within the collection.
    pub id: String,
    /// Whose it is; theirs are counted together.
    pub owner: String,
    /// When it runs out.
    pub expires: Option<Millis>,
    /// What it says.
    pub body: T,
}

/// Names one write of a document. It is random, so that a document that was removed and made again has another.
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
    /// Where the next page begins; None behind the last.
    pub next: Option<DocumentPlace>,
}

impl<T> DocumentPage<T> {
    /// A page of `documents`, behind which there may be more.
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

/// Behind which document a page begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentPlace {
    /// Its owner.
    pub owner: String,
    /// Its id.
    pub id: String,
}

/// Why a document is not kept. Nobody's goes to make room for another's.
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
