//! A search backwards for the last records that match, in bounded pieces.

use std::sync::Arc;

use super::ring::Ring;
use crate::{event::Block, position::Offset, topic::TopicFilter};

/// Records of the ring looked through at once, about.
const PIECE: usize = 4096;

/// Where the search stands.
#[derive(Debug, Clone)]
pub(super) struct LookBack {
    pub(super) filter: TopicFilter,
    /// Nothing above is wanted.
    pub(super) until: Offset,
    /// Everything from here on was looked through.
    pub(super) before: Offset,
    /// How many are wanted.
    pub(super) wanted: usize,
    /// How many are still to be found.
    pub(super) left: usize,
    /// The first that was found, so far; behind the end while none was.
    pub(super) first: Offset,
}

/// A stretch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewestStretch {
    /// The offset before its first.
    pub after: Offset,
    /// Its last.
    pub until: Offset,
    /// The first that was found in it; behind its last if none was.
    pub first: Offset,
    /// Whether what was wanted may lie before it too: the search has a bound.
    pub is_cut: bool,
}

/// Some blocks of the ring, and from where on it has all.
pub(super) type RecentPiece = (Vec<Arc<Block>>, Offset);

/// What came of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// The wanted records lie above this offset.
    Found(Offset),
    /// There may be more below.
    More,
    /// Memory holds no more: what it lacks lies up to this offset.
    End(Offset),
}

impl LookBack {
    pub(super) fn new(filter: &TopicFilter, count: usize, until: Offset) -> Self {
        let before = until.saturating_add(1);
        let filter = filter.clone();
        Self { filter, until, before, wanted: count, left: count, first: before }
    }

    /// What was found, behind `after`.
    pub(super) fn stretch(&self, after: Offset, is_cut: bool) -> NewestStretch {
        NewestStretch { after, until: self.until, first: self.first, is_cut }
    }

    /// The next piece of what is in memory; whoever has its lock gives it back before looking through it.
    pub(super) fn piece(&self, ring: &Ring) -> RecentPiece {
        (ring.below(self.before, PIECE), ring.from())
    }

    /// Looks through a piece.
    pub(super) fn through(&mut self, (blocks, from): RecentPiece) -> Looked {
        if blocks.is_empty() {
            return Looked::End(from.min(self.before - 1));
        }
        match blocks.iter().find_map(|block| self.take(block)) {
            Some(after) => Looked::Found(after),
            None => Looked::More,
        }
    }

    /// Looks through the next block backwards; the offset before the first wanted record if it is here.
    pub(super) fn take(&mut self, block: &Block) -> Option<Offset> {
        let before = self.before;
        self.before = before.min(block.first());
        for record in block.records().rev().skip_while(|record| record.offset() >= before) {
            if self.filter.matches(record.topic()) {
                self.left = self.left.saturating_sub(1);
                self.first = record.offset();
                if self.left == 0 {
                    return Some(record.offset() - 1);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::{
        event::{BlockBuilder, Event},
        topic::{Topic, TopicPattern},
    };

    #[test]
    fn no_search_copies_the_whole_ring_at_once() {
        const LAST: Offset = 3 * PIECE as Offset;
        let mut ring = Ring::new(0, usize::MAX);
        for offset in 1..=LAST {
            let mut builder = BlockBuilder::default();
            let event = Event {
                topic: Topic::parse(if offset == 7 { "rare" } else { "common" }).unwrap(),
                id: "1".into(),
                id_is_ours: true,
                publisher: crate::event::PublisherName::hub(),
                source: "s".into(),
                kind: None,
                time: "2026-11-20T12:00:00Z".into(),
                key: None,
                data: RawValue::from_string("1".into()).unwrap(),
            };
            builder.push(offset, 0, &event);
            ring.push(builder.finish());
        }
        let filter = |text: &str| TopicFilter::new([TopicPattern::parse(text).unwrap()]);
        let search = |filter: &TopicFilter, count| {
            let mut back = LookBack::new(filter, count, LAST);
            for pieces in 1.. {
                let piece = back.piece(&ring);
                assert!(piece.0.len() <= PIECE);
                match back.through(piece) {
                    Looked::More => {}
                    looked => return (looked, pieces),
                }
            }
            unreachable!()
        };
        assert_eq!(search(&filter("common"), 5), (Looked::Found(LAST - 5), 1));
        assert_eq!(search(&filter("rare"), 1), (Looked::Found(6), 3));
        assert_eq!(search(&filter("rare"), 2), (Looked::End(0), 4));
    }
}
