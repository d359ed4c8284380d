//! The newest values of a filter in pieces, in the order of their offsets: however many there are, and however slowly
//! they are taken, little of them is in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{Broker, ReadError};
use crate::{
    event::{Block, BlockBuilder},
    position::Offset,
    topic::{Topic, TopicFilter},
};

/// What is kept of where the next values lie, in bytes; for those behind them the topics are searched again.
const PLACES: usize = 256 << 10;
/// Values read at a time for those who want all of them, in bytes.
const PIECE: usize = 1 << 20;
/// What a value costs in a piece beside its bytes.
const VALUE_OVERHEAD: usize = 64;

/// Reads the newest record of each matching (topic, key), from the oldest of them on. One that changes meanwhile is left
/// out: what it is now lies behind the end, and comes as an event.
pub struct LatestReader {
    broker: Broker,
    filter: TopicFilter,
    /// Everything up to here was given.
    after: Offset,
    until: Offset,
    /// Where the next ones lie.
    places: VecDeque<LatestPlace>,
    /// Whether there are none behind these.
    is_searched: bool,
}

/// Where a value lies.
#[derive(Debug, Clone)]
pub(super) struct LatestPlace {
    pub(super) offset: Offset,
    pub(super) topic: Topic,
    pub(super) key: Box<[u8]>,
    /// Its stored form, in bytes.
    pub(super) bytes: usize,
}

/// The oldest of the values that a search comes across, in any order.
pub(super) struct LatestSearch {
    after: Offset,
    until: Offset,
    is_cut: bool,
    places: BTreeMap<Offset, LatestPlace>,
    cost: usize,
    /// The values themselves, if all of them fit into one piece.
    values: Option<BTreeMap<Offset, Arc<Block>>>,
    room: usize,
}

impl LatestReader {
    pub(super) fn new(broker: Broker, filter: TopicFilter) -> Self {
        let (after, until, places) = (0, Offset::MAX, VecDeque::new());
        Self { broker, filter, after, until, places, is_searched: false }
    }

    /// Leaves out the values above `until`.
    pub fn up_to(self, until: Offset) -> Self {
        Self { until, ..self }
    }

    /// The next values, about `budget` bytes of them and at least one; None when there are no more.
    pub async fn next(&mut self, budget: usize) -> Result<Option<Arc<Block>>, ReadError> {
        loop {
            if self.places.is_empty() && !self.is_searched {
                let search = LatestSearch::new(self.after, self.until, budget);
                let found = self.search(search).await?;
                self.is_searched = !found.is_cut;
                if let Some(values) = found.values {
                    return Ok(joined(values.into_values()));
                }
                self.places = found.places.into_values().collect();
            }
            if self.places.is_empty() {
                return Ok(None);
            }
            let mut bytes = 0;
            let piece = self.places.iter().take_while(|place| {
                let fits = bytes < budget;
                bytes += place.bytes + VALUE_OVERHEAD;
                fits
            });
            let piece: Vec<LatestPlace> = piece.cloned().collect();
            self.after = piece.last().map_or(self.after, |place| place.offset);
            let count = piece.len();
            let values = self.at(piece).await?;
            self.places.drain(..count);
            if let Some(values) = joined(values.into_iter()) {
                return Ok(Some(values));
            }
        }
    }

    /// All that are left, in one block: for topics of which it is known that there is little.
    pub async fn all(mut self) -> Result<Arc<Block>, ReadError> {
        let mut builder = BlockBuilder::default();
        while let Some(values) = self.next(PIECE).await? {
            values.records().for_each(|record| builder.push_record(record));
        }
        Ok(builder.finish())
    }

    /// Whether the next piece may take a search of many topics.
    pub fn has_to_search(&self) -> bool {
        self.places.is_empty() && !self.is_searched && !self.filter.is_literal()
    }

    /// Whether everything was given.
    pub fn is_over(&self) -> bool {
        self.places.is_empty() && self.is_searched
    }

    /// Searches the topics for values, which `search` takes in.
    async fn search(&self, search: LatestSearch) -> Result<LatestSearch, ReadError> {
        match &self.broker {
            Broker::Journal(journal) => journal.search_latest(&self.filter, search).await,
            Broker::Redis(redis) => redis.latest().search(&self.filter, search).await,
        }
    }

    /// The values at these places, in order; one that has changed meanwhile is left out.
    async fn at(&self, places: Vec<LatestPlace>) -> Result<Vec<Arc<Block>>, ReadError> {
        match &self.broker {
            Broker::Journal(journal) => journal.latest_at(places).await,
            Broker::Redis(redis) => redis.latest().at(&places).await,
        }
    }
}

/// Values in the order of their offsets, as one block.
fn joined(values: impl Iterator<Item = Arc<Block>>) -> Option<Arc<Block>> {
    let mut builder = BlockBuilder::default();
    for block in values {
        block.records().for_each(|record| builder.push_record(record));
    }
    (!builder.is_empty()).then(|| builder.finish())
}

impl LatestPlace {
    fn cost(&self) -> usize {
        size_of::<(Offset, Self)>() + self.key.len()
    }
}

impl LatestSearch {
    fn new(after: Offset, until: Offset, budget: usize) -> Self {
        let values = Some(BTreeMap::new());
        Self { after, until, is_cut: false, places: BTreeMap::new(), cost: 0, values, room: budget }
    }

    /// Where the wanted values lie: in `(after, until]`, which becomes less as they are found.
    pub(super) fn bounds(&self) -> (Offset, Offset) {
        (self.after, self.until)
    }

    pub(super) fn wants(&self, offset: Offset) -> bool {
        self.after < offset && offset <= self.until
    }

    /// Whether the value itself is of use, and not only where it lies.
    pub(super) fn wants_values(&self) -> bool {
        self.values.is_some()
    }

    /// Takes in one that [`wants`](Self::wants) says is wanted, with its value if that is of use.
    pub(super) fn take_in(&mut self, place: LatestPlace, value: Option<Arc<Block>>) {
        match (&mut self.values, value) {
            (Some(values), Some(value)) if place.bytes + VALUE_OVERHEAD <= self.room => {
                self.room -= place.bytes + VALUE_OVERHEAD;
                values.insert(place.offset, value);
            }
            (values, _) => *values = None,
        }
        self.cost += place.cost();
        // A search of Redis may come across one twice.
        if let Some(before) = self.places.insert(place.offset, place) {
            self.cost -= before.cost();
        }
        while self.cost > PLACES && self.places.len() > 1 {
            let Some((offset, place)) = self.places.pop_last() else { break };
            self.cost -= place.cost();
            self.until = offset - 1;
            self.is_cut = true;
            self.values = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_keeps_the_oldest_and_goes_on_behind_them() {
        let mut search = LatestSearch::new(10, 1_000_000, 100);
        let take_in = |search: &mut LatestSearch, offset: Offset| {
            if search.wants(offset) {
                let topic = Topic::parse("t").unwrap();
                let key = vec![b'k'; 200].into();
                search.take_in(LatestPlace { offset, topic, key, bytes: 50 }, None);
            }
        };
        (0..20_000).rev().for_each(|offset| take_in(&mut search, offset));
        assert!(search.is_cut && search.cost <= PLACES && search.values.is_none());
        let kept: Vec<Offset> = search.places.keys().copied().collect();
        assert_eq!(kept, (11..=search.until).collect::<Vec<_>>(), "none between them is left out");
        assert!(kept.len() > 500 && !search.wants(search.until + 1) && !search.wants(10));
        let cost = search.cost;
        take_in(&mut search, 11);
        assert_eq!(search.cost, cost, "one twice");
    }
}
