//! What one node asks all of them, itself included; without others it asks itself alone.

mod mailbox;
mod node;

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use self::mailbox::Mailbox;
pub use self::node::{ConnectionPage, Node, NodeQuestion, Standing};
use crate::redis::{RedisFailure, Server};

/// All nodes, as one of them sees them. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    own: Node,
    others: Option<Mailbox>,
}

/// What the nodes answered.
#[derive(Debug, Clone)]
pub struct NodeAnswers<T> {
    /// The name of each node that answered, and what, by name.
    pub given: Vec<(String, T)>,
    /// The names of those that did not answer in time, or nothing that can be read. One that was
    /// started again answers for what is left of it from before.
    pub missing: Vec<String>,
}

impl Cluster {
    /// A node without others.
    pub fn alone(own: Node) -> Self {
        Self { own, others: None }
    }

    /// A node among those that share the Redis at `server`, which calls it `id`.
    pub fn join(own: Node, server: Server, id: String) -> Self {
        let mailbox = Mailbox::new(server, id, own.name().to_owned());
        Self { own, others: Some(mailbox) }
    }

    /// Asks every node, or the one called `name`; of no node there are no answers and nobody is missing.
    ///
    /// # Errors
    /// Redis cannot be reached, which is not needed to ask this node alone. Some of the others may have
    /// heard the question then; this one has not.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        question: &NodeQuestion,
        name: Option<&str>,
    ) -> Result<NodeAnswers<T>, RedisFailure> {
        let is_own = name == Some(self.own.name());
        let mut found = match &self.others {
            Some(mailbox) if !is_own => mailbox.ask(question, name).await?,
            _ => mailbox::Replies::default(),
        };
        // After the others: what cannot be asked of all is not done by this one alone.
        if is_own || name.is_none() {
            let answer = self.own.answer(question.clone()).await;
            found.answers.push((self.own.name().to_owned(), answer));
        }
        let mut answers = NodeAnswers { given: Vec::new(), missing: found.missing };
        for (node, answer) in found.answers {
            match serde_json::from_value(answer) {
                Ok(answer) => answers.given.push((node, answer)),
                Err(error) => {
                    tracing::warn!(%error, node, "what a node answers cannot be read");
                    answers.missing.push(node);
                }
            }
        }
        let NodeAnswers { given, missing } = &mut answers;
        missing.retain(|missing| given.iter().all(|(name, _)| name != missing));
        answers.given.sort_by(|(a, _), (b, _)| a.cmp(b));
        answers.missing.sort();
        Ok(answers)
    }

    /// Answers others until `stop`, and then is a node no more.
    pub async fn run(self, stop: CancellationToken) {
        let Self { own, others: Some(mailbox) } = self else { return };
        mailbox.serve(&own, stop).await;
    }

    /// Takes this node from the list of those that are asked; to be called when its log is closed.
    pub async fn leave(&self) {
        let Some(mailbox) = &self.others else { return };
        if let Err(failure) = mailbox.leave().await {
            // The list forgets it by itself, after some seconds.
            tracing::debug!(%failure, "this node could not say that it leaves");
        }
    }
}
