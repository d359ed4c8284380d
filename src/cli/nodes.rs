//! `pulsehub nodes`: which nodes there are and how each stands.

use clap::Args;
use serde::Deserialize;

use super::{CommandFailure, client::ClientArgs};

/// List the nodes of a hub and how each stands
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub nodes --url http://hub-1:8080

One line a node: its name, serving, draining or stopping, and how many receive events from it.
Takes an admin's token (`pulsehub token --sub me --role admin`). A node that does not answer within
a second makes the command fail.")]
pub(super) struct NodesCommand {
    #[command(flatten)]
    client: ClientArgs,
}

impl NodesCommand {
    pub(super) async fn run(self) -> Result<(), CommandFailure> {
        let hub = self.client.hub()?;
        let url = hub.at("/api/v1/nodes")?;
        NodesAnswer::read(&hub.send(|client| client.get(url)).await?)?.show()
    }
}

/// What the hub answers about its nodes.
#[derive(Deserialize)]
pub(super) struct NodesAnswer {
    nodes: Vec<NodeLine>,
}

#[derive(Deserialize)]
struct NodeLine {
    node: String,
    /// Absent of one that did not answer, as is the other.
    state: Option<String>,
    connections: Option<u64>,
}

impl NodesAnswer {
    pub(super) fn read(text: &str) -> Result<Self, CommandFailure> {
        serde_json::from_str(text)
            .map_err(|error| anyhow::anyhow!("the hub's answer cannot be read: {error}").into())
    }

    /// How many receive events from all that answered.
    pub(super) fn connections(&self) -> u64 {
        self.nodes.iter().filter_map(|entry| entry.connections).sum()
    }

    /// Only the node of this name.
    pub(super) fn only(mut self, node: &str) -> Self {
        self.nodes.retain(|entry| entry.node == node);
        self
    }

    /// Prints a line for each node; fails if one did not answer.
    pub(super) fn show(&self) -> Result<(), CommandFailure> {
        let mut silent = Vec::new();
        for NodeLine { node, state, connections } in &self.nodes {
            match (state, connections) {
                (Some(state), Some(1)) => println!("{node}\t{state}\t1 connection"),
                (Some(state), Some(count)) => println!("{node}\t{state}\t{count} connections"),
                _ => {
                    println!("{node}\tno answer");
                    silent.push(node.as_str());
                }
            }
        }
        if silent.is_empty() {
            return Ok(());
        }
        Err(anyhow::anyhow!("no answer within a second from {}", silent.join(", ")).into())
    }
}
