//! Publishes each projection on its topic when it changes: on the node that holds the lease.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    time::Duration,
};

use serde_json::{Value, value::RawValue};

use super::{ProjectionsInner, asked::Asked, plan::Projection, snapshot::ProjectionSnapshot};
use crate::{
    admission::OwnEvent,
    broker::{Batch, ReadError},
    duty::{Duty, Term, TermError},
    lease::Fence,
    telemetry::Limit,
    topic::{TopicFilter, TopicPattern},
};

/// How often it is looked whether time alone has changed something: a window slides, a source
/// falls silent.
const TICK: Duration = Duration::from_secs(1);

/// The `type` of what is published.
const KIND: &str = "projection";

/// Publishes what changes.
pub(super) struct Publisher<'a> {
    inner: &'a ProjectionsInner,
    /// The numbers of the projections that alone could not be published the last time.
    left_out: BTreeSet<usize>,
}

/// What the topics hold, by the number of the projection; without the time of the clock.
type PublishedValues = HashMap<usize, Value>;

impl<'a> Publisher<'a> {
    pub(super) fn new(inner: &'a ProjectionsInner) -> Self {
        Self { inner, left_out: BTreeSet::new() }
    }
}

impl Duty for Publisher<'_> {
    fn name(&self) -> String {
        "projections".to_owned()
    }

    async fn serve(&mut self, term: &Term) -> Result<(), TermError> {
        tokio::select! {
            () = term.over() => Ok(()),
            Err(failure) = self.follow(term) => Err(failure),
        }
    }
}

impl Publisher<'_> {
    async fn follow(&mut self, term: &Term) -> Result<Infallible, TermError> {
        let fence = term.fence();
        // What an earlier term published was made of what lay before it: of less, it would be taken back.
        self.inner.collector.progress().gets_to(term.began()).await?;
        self.inner.series.progress().gets_to(term.began()).await?;
        let mut published = self.published().await?;
        let pace = Duration::from_secs_f64(1.0 / self.inner.plan.max_hz);
        let (mut collected, mut series) =
            (self.inner.collector.changes(), self.inner.series.changes());
        loop {
            collected.mark_unchanged();
            series.mark_unchanged();
            self.left_out = self.publish(fence, &mut published).await?;
            // What changes meanwhile is published together.
            tokio::time::sleep(pace).await;
            let changed = async {
                tokio::select! {
                    _ = collected.changed() => {}
                    _ = series.changed() => {}
                }
            };
            // Whichever comes first: what it was makes no difference.
            let _ = tokio::time::timeout(TICK.saturating_sub(pace), changed).await;
        }
    }

    /// What the topics hold, so that a node which takes over repeats nothing.
    async fn published(&self) -> Result<PublishedValues, ReadError> {
        let projections = &self.inner.plan.projections;
        let topics = projections.iter().map(|projection| TopicPattern::from(&projection.topic));
        let newest = self.inner.broker.latest(TopicFilter::new(topics)).all().await?;
        let mut published = PublishedValues::new();
        // In the order of their offsets, so that the last of a topic is the newest.
        for record in newest.records() {
            let on = |projection: &Projection| projection.topic.as_str() == record.topic();
            let Some(number) = projections.iter().position(on) else { continue };
            if let Ok(mut value) = serde_json::from_slice(record.data()) {
                projections[number].shape.stop_clock(&mut value);
                published.insert(number, value);
            }
        }
        Ok(published)
    }

    /// Publishes what is not what its topic holds; nothing before anything has come that it shows.
    /// What cannot be published costs nothing else: gives which, and says so of those that could be the last time.
    async fn publish(
        &self,
        fence: &Fence,
        published: &mut PublishedValues,
    ) -> Result<BTreeSet<usize>, TermError> {
        let projections = &self.inner.plan.projections;
        let (mut events, mut changed) = (Vec::new(), Vec::new());
        let mut left_out = BTreeSet::new();
        for (number, projection) in projections.iter().enumerate() {
            let asked = Asked::default();
            let snapshot = match ProjectionSnapshot::take(self.inner, projection, asked).await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    if left_out.insert(number) && !self.left_out.contains(&number) {
                        let topic = &projection.topic;
                        tracing::warn!(%topic, %error, "a projection is not known and not published");
                    }
                    continue;
                }
            };
            let value = snapshot.render();
            let mut still = value.clone();
            projection.shape.stop_clock(&mut still);
            let is_news = match published.get(&number) {
                Some(before) => *before != still,
                None => snapshot.blank() != still,
            };
            if !is_news {
                continue;
            }
            if let Some(event) = self.event(projection, &value) {
                events.push(event);
            }
            changed.push((number, still));
        }
        let events = events.into_iter().collect::<Batch<'_>>().fenced(fence).what_fits(0);
        let left = self.inner.broker.publish(events).await?.left_out;
        for (number, still) in changed {
            let topic = &projections[number].topic;
            if !left.as_ref().is_some_and(|left| left.topics.contains(topic)) {
                published.insert(number, still);
            } else if left_out.insert(number) && !self.left_out.contains(&number) {
                tracing::warn!(%topic, "the log has no room for the topic of a projection");
            }
        }
        Ok(left_out)
    }

    /// None if it is too large to be one; that is counted, and said each time it changes.
    fn event(&self, projection: &Projection, value: &Value) -> Option<OwnEvent> {
        let (topic, text) = (&projection.topic, value.to_string());
        let most = self.inner.bounds.event;
        if text.len() > most {
            self.inner.telemetry.hit(Limit::Event);
            let bytes = text.len();
            tracing::warn!(%topic, bytes, most, "a projection is larger than limits.event and not published");
            return None;
        }
        let data = RawValue::from_string(text).ok()?;
        Some(OwnEvent::new(topic, KIND, self.inner.clock.now(), data))
    }
}
