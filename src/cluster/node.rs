//! One node: what it can be asked, and what it answers.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    drain::{Course, Drain},
    hub::Hub,
    session::Connections,
    topic::Topic,
};

/// What a node can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Who is connected: an array of objects.
    Connections,
    /// How many subscriptions match each of these: an array of numbers.
    Subscribers(Vec<Topic>),
    /// How it stands: a [`Standing`].
    Standing,
    /// To send its clients elsewhere: a [`Standing`].
    Drain {
        /// And to end.
        stop: bool,
    },
    /// To take clients again: a [`Standing`].
    Undrain,
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What it does with those who come.
    pub state: Course,
    /// How many receive events from it.
    pub connections: usize,
}

/// This node. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    name: String,
    connections: Connections,
    hub: Hub,
    drain: Drain,
}

impl Node {
    /// The node that people call `name`.
    pub fn new(name: String, connections: Connections, hub: Hub, drain: Drain) -> Self {
        Self { name, connections, hub, drain }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn answer(&self, question: &Question) -> Value {
        match question {
            Question::Connections => self.connections(),
            Question::Subscribers(topics) => {
                topics.iter().map(|topic| self.hub.subscribers(topic)).collect()
            }
            Question::Standing => self.standing(),
            Question::Drain { stop } => {
                self.drain.begin(*stop);
                self.standing()
            }
            Question::Undrain => {
                self.drain.undo();
                self.standing()
            }
        }
    }

    fn connections(&self) -> Value {
        let list = self.connections.list(self.hub.head().offset);
        let named = list.iter().map(|connection| {
            // Only maps with keys that are no strings cannot be written, and there is none.
            let mut value = serde_json::to_value(connection).unwrap_or_default();
            value["node"] = json!(self.name);
            value
        });
        named.collect()
    }

    fn standing(&self) -> Value {
        json!({"state": self.drain.course(), "connections": self.connections.len()})
    }
}
