//! What a delivery brings for the series, taken apart before any lock is held, and the stored chunks
//! that have to be in memory before it goes into them.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Series, SeriesInner, extract::extract, metadata::SeriesMetadata, resolution::HEAD,
    sample::Sample, tally::Count,
};
use crate::{
    event::PublisherName,
    follow::Delivery,
    position::{Offset, Position},
    store::StoreError,
    time::Millis,
    topic::TopicPattern,
};

/// How many rows are read from the store side by side.
pub(super) const READERS: usize = 16;

/// A sample on its way to its series.
#[derive(Debug, Clone)]
pub(super) struct Arrived<'a> {
    /// The topic of its event, and who published it.
    pub(super) topic: &'a str,
    pub(super) publisher: &'a str,
    pub(super) sample: Sample,
    /// When it counts.
    pub(super) time: Millis,
    /// Of its event.
    pub(super) offset: Offset,
    /// What time it is.
    pub(super) now: Millis,
}

/// What is said of the name of a series: in which topic, of which name, and what.
pub(super) type Said<'a> = (&'a str, Box<str>, SeriesMetadata);

/// Chunks of a series that have to be read from the store before samples are added to them.
pub(super) struct Lacking {
    /// Where the series is.
    pub(super) place: usize,
    /// Its row in the store.
    pub(super) row: Box<str>,
    /// The chunks' columns.
    pub(super) columns: BTreeSet<u64>,
}

impl Arrived<'_> {
    /// Whose series it is for.
    pub(super) fn topic(&self) -> &str {
        self.sample.topic.as_ref().map_or(self.topic, TopicPattern::as_str)
    }
}

impl SeriesInner {
    /// The samples in a delivery, in order, and what is said of the names of series, with its topic; counts those that are
    /// left out.
    pub(super) fn take_apart<'a>(
        &self,
        delivery: &'a Delivery,
        count: &mut Count,
    ) -> (Vec<Arrived<'a>>, Vec<Said<'a>>) {
        // What was kept before a clock went astray is kept.
        let now = self.clock.settled();
        let (mut arrived, mut said) = (Vec::new(), Vec::new());
        for event in delivery.events() {
            let record = event.record();
            let found = extract(record, &self.rules, || event.payload());
            let Some((time, found)) = found else { continue };
            let received = record.received();
            let now = now.max(received);
            let (topic, offset) = (record.topic(), record.offset());
            let publisher = record.publisher().map_or("", PublisherName::as_str);
            said.extend(found.metadata.into_iter().map(|(name, said)| (topic, name, said)));
            arrived.extend(found.samples.into_iter().map(|sample| {
                let mut time = sample.time.unwrap_or(time);
                if !self.is_plausible(time, received) {
                    time = received;
                    count.retime(offset);
                }
                Arrived { topic, publisher, sample, time, offset, now }
            }));
            found.dropped.into_iter().for_each(|reason| count.put(offset, Err(reason)));
        }
        (arrived, said)
    }

    /// Where to go on when what the store has lies beyond the log: at `to`, but not past anything of
    /// that epoch that came while we run. Only a head that has moved meanwhile lies there.
    pub(super) fn behind_loss(&self, to: Position) -> Position {
        if self.began.epoch == to.epoch && self.began.offset < to.offset { self.began } else { to }
    }

    /// Whether a producer's time can be true of what came at `received`.
    fn is_plausible(&self, time: Millis, received: Millis) -> bool {
        self.config.times(received).contains(&time)
    }
}

/// Reads chunks, each with the head of its series, from the store.
pub(super) async fn fetch(
    series: &Series,
    lacking: Vec<Lacking>,
) -> Result<Vec<(Lacking, Vec<(u64, Bytes)>)>, StoreError> {
    let fetched = stream::iter(lacking).map(|lacking| async move {
        let columns = lacking.columns.iter().copied().chain([HEAD]).collect();
        let parts = series.stored(&lacking.row, columns).await?;
        Ok((lacking, parts))
    });
    fetched.buffer_unordered(READERS).try_collect().await
}
