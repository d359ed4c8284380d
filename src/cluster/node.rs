//! One node: what it can be asked, and what it answers.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    connections::Connections,
    drain::{Course, Drain},
    hub::Hub,
    topic::Topic,
};

/// What a node can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeQuestion {
    /// Who is connected, in the order of the nodes' names and on each as they came: a [`ConnectionPage`].
    Connections {
        /// Only those behind this one: its node's name and its own.
        after: Option<(String, String)>,
        /// At most so many of each node.
        limit: usize,
    },
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

/// Some of a node's connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionPage {
    /// Each an object.
    pub connections: Vec<Value>,
    /// Whether the node has more behind them.
    pub is_cut: bool,
}

/// What the connections of one page may take as text, in bytes.
const PAGE: usize = 1 << 20;

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

    /// What this node says, found out beside the threads on which sockets are served.
    pub(super) async fn answer(&self, question: NodeQuestion) -> Value {
        let node = self.clone();
        // No answer when the hub is shutting down.
        tokio::task::spawn_blocking(move || node.find_out(&question)).await.unwrap_or_default()
    }

    fn find_out(&self, question: &NodeQuestion) -> Value {
        match question {
            NodeQuestion::Connections { after, limit } => self.connections(after.as_ref(), *limit),
            NodeQuestion::Subscribers(topics) => {
                topics.iter().map(|topic| self.hub.subscribers(topic)).collect()
            }
            NodeQuestion::Standing => self.standing(),
            NodeQuestion::Drain { stop } => {
                self.drain.begin(*stop);
                self.standing()
            }
            NodeQuestion::Undrain => {
                self.drain.undo();
                self.standing()
            }
        }
    }

    fn connections(&self, after: Option<&(String, String)>, limit: usize) -> Value {
        let after = match after {
            Some((node, _)) if *node > self.name => return json!(ConnectionPage::default()),
            Some((node, connection)) if *node == self.name => Some(&**connection),
            _ => None,
        };
        let (list, is_cut) = self.connections.page(after, self.hub.head().offset, limit, PAGE);
        let named = list.iter().map(|connection| {
            // Only maps with keys that are no strings cannot be written, and there is none.
            let mut value = serde_json::to_value(connection).unwrap_or_default();
            value["node"] = json!(self.name);
            value
        });
        json!(ConnectionPage { connections: named.collect(), is_cut })
    }

    fn standing(&self) -> Value {
        json!({"state": self.drain.course(), "connections": self.connections.total()})
    }
}
