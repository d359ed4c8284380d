//! Followers: cursors over the log for whoever makes something of events, from an offset on and then as they come.
//! History and live are one.

mod delivery;

pub use self::delivery::Delivery;
use crate::{
    broker::{Broker, ReadError, Resumption},
    position::{Offset, Position},
    topic::TopicFilter,
};

/// A place in the log that moves on.
pub struct Follower {
    filter: TopicFilter,
    broker: Broker,
    at: Offset,
    /// Whether the next delivery has to say that something is missing.
    has_gap: bool,
    /// What retention took up to here has been said.
    told: Offset,
}

/// About how much one delivery holds, in bytes.
const CHUNK: usize = 256 << 10;

impl Follower {
    /// Reads what `filter` matches and lies above `after`.
    pub fn new(filter: TopicFilter, broker: Broker, after: Offset) -> Self {
        Self { filter, broker, at: after, has_gap: false, told: after }
    }

    /// The same from a saved cursor: behind a gap where what lay behind it was lost; without one, from now on.
    pub async fn resume(
        filter: TopicFilter,
        broker: Broker,
        cursor: Option<Position>,
    ) -> Result<Self, ReadError> {
        let Some(position) = cursor else {
            let head = broker.head().offset;
            return Ok(Self::new(filter, broker, head));
        };
        Ok(match broker.resume(position).await? {
            Resumption::From(offset) => Self::new(filter, broker, offset),
            Resumption::Lost(to) => Self::new(filter, broker, to.offset).behind_gap(),
        })
    }

    /// The same, where something before `after` is known to be missing.
    pub fn behind_gap(mut self) -> Self {
        self.has_gap = true;
        self
    }

    /// Everything up to here was given or does not match.
    pub fn reached(&self) -> Offset {
        self.at
    }

    /// Waits for what comes next. When the wait is broken off, nothing is skipped.
    pub async fn next(&mut self) -> Result<Delivery, ReadError> {
        let mut tail = self.broker.tail();
        loop {
            let head = *tail.borrow_and_update();
            if let Some(delivery) = self.next_up_to(head).await? {
                return Ok(delivery);
            }
            // A closed log sends no more, and nothing is left to wait for.
            if tail.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What comes next and lies no further than `head`, which is in the log; None if nothing does.
    pub async fn next_up_to(&mut self, head: Offset) -> Result<Option<Delivery>, ReadError> {
        while self.at < head {
            let chunk = self.broker.read(self.at, head, &self.filter, CHUNK).await?;
            // What is left beside what retention took is given all the same.
            if chunk.trimmed_through > self.told.max(self.at) {
                self.has_gap = true;
                self.told = chunk.trimmed_through;
            }
            let after = std::mem::replace(&mut self.at, chunk.reached);
            let delivery = Delivery {
                blocks: chunk.blocks,
                filter: self.filter.clone(),
                after,
                has_gap: self.has_gap,
                position: self.broker.position(self.at),
            };
            if self.has_gap || delivery.records().next().is_some() {
                self.has_gap = false;
                return Ok(Some(delivery));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::journal::RetentionRule,
        config::Config,
        event::Event,
        telemetry::Telemetry,
        time::{Clock, Span},
        topic::{Topic, TopicPattern},
    };
    use serde_json::value::RawValue;

    fn event(topic: &str, id: String, bytes: usize) -> Event {
        Event {
            topic: Topic::parse(topic).unwrap(),
            id: id.into(),
            id_is_ours: false,
            publisher: crate::event::PublisherName::hub(),
            source: "s".into(),
            kind: None,
            time: "2026-11-20T12:00:00Z".into(),
            key: None,
            data: RawValue::from_string("1".repeat(bytes)).unwrap(),
        }
    }

    #[tokio::test]
    async fn what_retention_left_beside_what_it_took_is_read() {
        let mut journal = Config::load(None, [], &[]).unwrap().journal;
        let rule = |topic: &str, seconds| RetentionRule {
            topics: vec![TopicPattern::parse(topic).unwrap()],
            max_age: Some(Span::seconds(seconds)),
            max_bytes: None,
        };
        journal.retention = vec![rule("short", 60), rule("long", 100_000)];
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_795_176_000_000);
        let broker = Broker::open(journal, folder.path(), clock.clone(), Telemetry::new()).unwrap();
        for n in 0..9 {
            let topic = if n % 2 == 0 { "long" } else { "short" };
            // Of which one is about as much as is read at a time: the gap is told once even so.
            broker.publish(vec![event(topic, n.to_string(), CHUNK)]).await.unwrap();
        }
        // The last of all is of those that go.
        broker.publish(vec![event("short", "last".into(), 1)]).await.unwrap();
        clock.set(1_795_176_061_000);
        broker.maintain().await;
        let everything = TopicFilter::new([TopicPattern::parse("**").unwrap()]);
        let mut follower = Follower::new(everything, broker.clone(), 0);
        let (mut offsets, mut gaps) = (Vec::new(), 0);
        let head = broker.head().offset;
        while let Some(delivery) = follower.next_up_to(head).await.unwrap() {
            gaps += u32::from(delivery.has_gap);
            offsets.extend(delivery.records().map(|record| record.offset()));
        }
        assert_eq!((offsets, gaps), (vec![1, 3, 5, 7, 9], 1));
    }
}
