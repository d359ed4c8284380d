use std::{collections::BTreeMap, time::Duration};

use pulsehub::{
    admission::OwnEvent,
    broker::Batch,
    duty::{Duty, Term, TermError},
    follow::Feed,
    store::{Part, Store},
    time::Clock,
    topic::{Topic, TopicFilter, TopicPattern},
};

/// Counts events by type, and publishes the counts each second.
pub(crate) struct Counter {
    pub(crate) feed: Feed,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
}

impl Duty for Counter {
    fn name(&self) -> String {
        "counter".to_owned()
    }

    async fn serve(&mut self, term: &Term) -> Result<(), TermError> {
        let Self { feed, store, clock } = self;
        // What earlier terms kept, and up to where it counts: both are of one save.
        let mut counts = match store.parts("counter", "counts", vec![0]).await?.pop() {
            Some((_, counts)) => serde_json::from_slice(&counts).map_err(TermError::failed)?,
            None => BTreeMap::<String, u64>::new(),
        };
        let cursor = store.load_cursor("counter").await?;
        let all = TopicFilter::new([TopicPattern::parse("**").map_err(TermError::failed)?]);
        let mut follower = feed.resume("counter", all, cursor).await?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = term.over() => return Ok(()),
                delivery = follower.next() => for record in delivery?.records() {
                    let kind = record.kind().and_then(|kind| serde_json::from_slice(kind).ok());
                    *counts.entry(kind.unwrap_or_default()).or_default() += 1;
                },
                _ = ticks.tick() => {
                    let position = feed.broker().epochs().position(follower.reached());
                    let data = serde_json::value::to_raw_value(&counts).map_err(TermError::failed)?;
                    let (row, bytes) = ("counts".into(), Some(data.get().to_owned().into()));
                    store.save(term.fence(), position, vec![Part { row, column: 0, bytes }]).await?;
                    // Named after what was saved: told again, it is the same event.
                    let topic = Topic::parse("hub.counts").map_err(TermError::failed)?;
                    let event = OwnEvent::new(&topic, "counts", clock.now(), data);
                    let event = event.with_id(position.to_string());
                    let batch = Batch::from(event).fenced(term.fence());
                    feed.broker().publish(batch).await?;
                }
            }
        }
    }
}
