//! `pulsehub drain`: sends a node's clients elsewhere, for a while or before it ends.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::{
    CommandFailure,
    client::{ClientArgs, HubClient},
    nodes::NodesAnswer,
};
use crate::time::Span;

/// Send the clients of a node elsewhere
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub drain --node hub-1:8080 --wait 1m
  pulsehub drain --node hub-1:8080 --stop
  pulsehub drain --node hub-1:8080 --undo

Any node may be asked; `pulsehub nodes` lists their names. The node turns not ready, so that load
balancers send nobody, and tells its sockets one by one to come back, spread over `http.drain`.
With --stop it ends after that, as by SIGTERM. Takes an admin's token:
`pulsehub token --sub me --role admin`.")]
pub(super) struct DrainCommand {
    /// The node's name, or `all`
    #[arg(long)]
    node: String,
    /// End the node after its clients were told
    #[arg(long)]
    stop: bool,
    /// Let the node take clients again
    #[arg(long, conflicts_with = "stop")]
    undo: bool,
    /// Wait until nobody receives events from it, at most this long
    #[arg(long, value_name = "TIME", conflicts_with_all = ["stop", "undo"])]
    wait: Option<Span>,
    #[command(flatten)]
    client: ClientArgs,
}

/// How often it is asked whether somebody is left.
const ASK_EVERY: Duration = Duration::from_millis(250);

impl DrainCommand {
    pub(super) async fn run(self) -> Result<(), CommandFailure> {
        let Self { node, stop, undo, wait, client } = self;
        let client = client.hub()?;
        let mut url = client.at("/api/v1/drain")?;
        let answer = if undo {
            url.query_pairs_mut().append_pair("node", &node);
            client.send(|http| http.delete(url)).await?
        } else {
            client.send(|http| http.post(url).json(&json!({"node": node, "stop": stop}))).await?
        };
        NodesAnswer::read(&answer)?.show()?;
        match wait {
            Some(longest) => wait_until_empty(&client, &node, longest.0).await,
            None => Ok(()),
        }
    }
}

async fn wait_until_empty(
    client: &HubClient,
    node: &str,
    longest: Duration,
) -> Result<(), CommandFailure> {
    let url = client.at("/api/v1/nodes")?;
    let began = Instant::now();
    loop {
        let all = NodesAnswer::read(&client.send(|http| http.get(url.clone())).await?)?;
        let asked = if node == "all" { all } else { all.only(node) };
        if asked.connections() == 0 {
            return asked.show();
        }
        if began.elapsed() >= longest {
            asked.show()?;
            return Err(anyhow::anyhow!("somebody is left after {longest:?}").into());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
