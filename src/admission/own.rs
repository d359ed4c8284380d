//! What the hub itself publishes.

use std::ops::Deref;

use serde_json::value::RawValue;

use super::Admitted;
use crate::{
    event::{Event, PublisherName, new_id},
    time::{Millis, rfc3339},
    topic::Topic,
};

/// An event that the hub makes in its own name. It needs no grant, and nothing that others send becomes one.
#[derive(Debug, Clone)]
pub struct OwnEvent(Event);

impl OwnEvent {
    /// An event of this `kind` that happens `now`.
    pub fn new(topic: &Topic, kind: &str, now: Millis, data: Box<RawValue>) -> Self {
        Self(Event {
            topic: topic.clone(),
            id: new_id(),
            id_is_ours: true,
            publisher: PublisherName::hub(),
            source: "hub".into(),
            kind: Some(kind.into()),
            time: rfc3339(now).into(),
            key: None,
            data,
        })
    }

    /// The same about one of the things that the topic is about.
    pub fn with_key(mut self, key: &str) -> Self {
        self.0.key = Some(key.into());
        self
    }

    /// The same by the word of one that the hub asks.
    pub fn with_source(mut self, source: &str) -> Self {
        self.0.source = source.into();
        self
    }

    /// The same under an id by which it is known again, so that it is stored once however often it is tried.
    pub fn with_id(mut self, id: String) -> Self {
        self.0.id = id.into();
        self.0.id_is_ours = false;
        self
    }
}

impl Deref for OwnEvent {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.0
    }
}

impl From<OwnEvent> for Admitted {
    fn from(event: OwnEvent) -> Self {
        Self(vec![event.0])
    }
}

impl FromIterator<OwnEvent> for Admitted {
    fn from_iter<I: IntoIterator<Item = OwnEvent>>(events: I) -> Self {
        Self(events.into_iter().map(|event| event.0).collect())
    }
}

impl Extend<OwnEvent> for Admitted {
    fn extend<I: IntoIterator<Item = OwnEvent>>(&mut self, events: I) {
        self.0.extend(events.into_iter().map(|event| event.0));
    }
}
