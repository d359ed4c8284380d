//! Outside formats → events: pure functions over bytes, one file per format.

pub mod lenient;
pub mod locanext;
pub mod native;
mod parts;
mod protobuf;
pub mod remote_write;
pub mod samples;
mod timestamps;
pub mod timetracker;
pub mod topic_template;

use serde::Deserialize;

use self::topic_template::TopicTemplate;
use crate::{
    admission::{BatchTooLong, EventTooLarge},
    event::{MAX_ATTRIBUTE_BYTES, NameError, PublisherName},
    telemetry::Limit,
    time::Millis,
};

/// `[ingest]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestConfig {
    /// `[ingest.remote_write]`
    pub remote_write: RemoteWriteConfig,
}

/// `[ingest.remote_write]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteWriteConfig {
    /// Where samples go.
    pub topic: TopicTemplate,
}

/// What an event gets where its producer said nothing.
#[derive(Debug, Clone, Copy)]
pub struct Defaults<'a> {
    /// The `source`: the principal's name.
    pub source: &'a str,
    /// Whose credentials they came with.
    pub publisher: &'a PublisherName,
    /// The `time`.
    pub now: Millis,
    /// Makes an `id`.
    pub new_id: fn() -> Box<str>,
}

/// Why nothing of a batch was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are not the format they claim to be.
    #[error("line {line}, column {column}: {message}")]
    Malformed {
        /// Counts from 1.
        line: usize,
        /// Counts from 1, in bytes.
        column: usize,
        /// What the reader stumbled over.
        message: String,
    },
    /// There is no event in it.
    #[error("the batch is empty: send at least one event")]
    Empty,
    /// It has too many events.
    #[error(transparent)]
    TooLong(#[from] BatchTooLong),
    /// Some events are wrong; all of them are listed.
    #[error("{} of the batch's events cannot be taken; nothing was stored", distinct(.0))]
    Items(Vec<BadItem>),
}

impl Refusal {
    /// The limit that was hit, if that was the reason.
    pub fn limit(&self) -> Option<Limit> {
        let too_large = |item: &BadItem| matches!(item.fault, Fault::TooLarge(_));
        match self {
            Refusal::TooLong(_) => Some(Limit::Batch),
            Refusal::Items(items) if items.iter().all(too_large) => Some(Limit::Event),
            _ => None,
        }
    }
}

/// What is wrong with one event of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadItem {
    /// The event's place in the batch, from 0.
    pub index: usize,
    /// The field it is about; None if it is about the whole event.
    pub field: Option<&'static str>,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What can be wrong with an event or one of its fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Another kind of JSON value.
    #[error("an event is a JSON object, not {0}")]
    NotAnObject(&'static str),
    /// The same field twice in one object.
    #[error("a field appears twice")]
    Repeated,
    /// `topic` has no default.
    #[error("an event needs a `topic`")]
    NoTopic,
    /// The topic is outside the grammar.
    #[error(transparent)]
    Topic(#[from] crate::topic::TopicError),
    /// A field without which nothing can be made of the rest.
    #[error("is needed")]
    Missing,
    /// The application was not named, and several or none could be meant.
    #[error("is needed: it is not clear of which application the instance is")]
    Unclear,
    /// A known field with a value of the wrong kind.
    #[error("must be {wanted}, not {found}")]
    WrongKind {
        /// What it would have to be.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The name of an application or an instance.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A known field with a value of the wrong type.
    #[error("must be a string, not {0}")]
    NotText(&'static str),
    /// A string escape that stands for no character.
    #[error("holds an escape that stands for no character")]
    BadEscape,
    /// An attribute that is there and says nothing.
    #[error("must not be empty: leave it out instead")]
    Blank,
    /// An attribute over [`MAX_ATTRIBUTE_BYTES`].
    #[error("has at most {MAX_ATTRIBUTE_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// No time as RFC 3339 writes it.
    #[error("must be RFC 3339 with a zone, such as 2026-11-20T12:00:00Z")]
    BadTime,
    /// The payload cannot be taken.
    #[error(transparent)]
    Data(#[from] crate::event::DataError),
    /// It is too large.
    #[error(transparent)]
    TooLarge(#[from] EventTooLarge),
}

fn distinct(items: &[BadItem]) -> usize {
    // Faults of one event stand together.
    items.chunk_by(|a, b| a.index == b.index).count()
}
