//! What one step of retention takes away, and how it is found in the stream.

use std::{collections::HashMap, sync::Arc};

use super::{
    entry::{RawEntry, StreamEntry},
    progress::RedisProgress,
    stored::StoredLog,
    topics::RedisTopics,
};
use crate::{
    broker::journal::RetentionRules, position::Offset, redis::RedisFailure, time::Millis,
    topic::Topic,
};

/// Entries looked at in one step.
const STEP: usize = 64;
/// An entry that is ahead by more was received by a clock that has been put right since; `prelude.lua` has the same.
const MOST_AHEAD: Millis = 10_000;

/// What one step takes away.
#[derive(Default)]
pub(super) struct Cut {
    /// The last offset to leave the stream, and the bytes that leave.
    pub(super) through: Option<Offset>,
    pub(super) bytes: u64,
    pub(super) marks: Vec<(String, Offset)>,
    pub(super) topics: HashMap<Topic, Gone>,
    /// Whether there is more to do than was looked at.
    pub(super) more: bool,
}

#[derive(Default)]
pub(super) struct Gone {
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) through: Offset,
}

/// Looks in the stream for what is to go.
pub(super) struct CutSearch {
    pub(super) stored: Arc<StoredLog>,
    pub(super) progress: Arc<RedisProgress>,
    pub(super) rules: Arc<RetentionRules>,
    /// The most that the stream holds.
    pub(super) max_bytes: u64,
}

impl CutSearch {
    /// What leaves the stream: older than every rule allows, or too much, but for the newest entry.
    pub(super) async fn oldest(
        &self,
        topics: &RedisTopics,
        now: Option<Millis>,
        cut: &mut Cut,
    ) -> Result<(), RedisFailure> {
        let oldest = now.unwrap_or(0).saturating_sub(self.longest_age());
        let bytes: Option<u64> = self.stored.meta("bytes").await?;
        let mut left = bytes.unwrap_or(0);
        let entries = self.stored.entries("-", STEP).await?;
        let last = entries.len().saturating_sub(1);
        let is_too_much = |index, entry: &StreamEntry| {
            let is_too_much = left > self.max_bytes && index < last;
            left = left.saturating_sub(entry.stored as u64);
            is_too_much
        };
        let now = now.unwrap_or(Millis::MAX);
        let old = self.beginning(entries, now, oldest, is_too_much).await?;
        cut.more |= old.len() == STEP;
        for entry in old {
            cut.bytes += entry.stored as u64;
            cut.through = Some(entry.block.last());
            cut.take(&entry, topics, |_| true);
        }
        Ok(())
    }

    /// What rules take whose age is shorter than the stream's.
    pub(super) async fn short(
        &self,
        topics: &RedisTopics,
        now: Millis,
        cut: &mut Cut,
    ) -> Result<(), RedisFailure> {
        let longest = self.longest_age();
        for (number, rule) in self.rules.0.iter().enumerate() {
            if rule.max_age >= longest {
                continue;
            }
            // A changed rule is another rule, and looks at everything anew.
            let mark = format!("aged:{:?}:{}", rule.filter, rule.max_age);
            let seen: Option<Offset> = self.stored.meta(&mark).await?;
            let from = seen.unwrap_or(0).max(cut.through.unwrap_or(0));
            let oldest = now.saturating_sub(rule.max_age);
            let entries = self.stored.entries(&format!("({from}-0"), STEP).await?;
            let old = self.beginning(entries, now, oldest, |_, _| false).await?;
            for entry in &old {
                cut.take(entry, topics, |topic| self.rules.of(topic) == number);
            }
            cut.more |= old.len() == STEP;
            cut.marks.extend(old.last().map(|entry| (mark, entry.block.last())));
        }
        Ok(())
    }

    /// What a stretch of the stream begins with that is older than `oldest` or goes in any case.
    ///
    /// What a clock that was ahead received, and has been put right since, is as old as the next entry that is not ahead of
    /// `now`: it goes no sooner, and does not keep what lies behind it until its own time has come.
    async fn beginning(
        &self,
        stretch: Vec<RawEntry>,
        now: Millis,
        oldest: Millis,
        mut goes: impl FnMut(usize, &StreamEntry) -> bool,
    ) -> Result<Vec<StreamEntry>, RedisFailure> {
        let (mut old, mut ahead) = (Vec::new(), Vec::new());
        for (index, raw) in stretch.into_iter().enumerate() {
            let entry = StreamEntry::read(raw)?;
            if goes(index, &entry) || received(&entry) < oldest {
                old.append(&mut ahead);
                old.push(entry);
            } else if is_ahead(&entry, now) {
                ahead.push(entry);
            } else {
                return Ok(old);
            }
        }
        if let Some(last) = ahead.last()
            && self.received_behind(last.block.last(), now).await? < oldest
        {
            old.append(&mut ahead);
        }
        Ok(old)
    }

    /// When the first entry behind `after` was received that is not ahead of `now`; `now` if all are. By halving: those that
    /// are ahead lie together.
    async fn received_behind(&self, after: Offset, now: Millis) -> Result<Millis, RedisFailure> {
        let (mut low, mut high, mut found) = (after, self.progress.front.offset(), now);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.stored.entry(&format!("({middle}-0")).await? {
                Some(entry) if is_ahead(&entry, now) => low = entry.block.last(),
                Some(entry) => (found, high) = (received(&entry), middle),
                None => high = middle,
            }
        }
        Ok(found)
    }

    fn longest_age(&self) -> Millis {
        self.rules.0.iter().map(|rule| rule.max_age).max().unwrap_or(Millis::MAX)
    }
}

impl Cut {
    /// Counts what leaves with an entry and has not left before.
    fn take(&mut self, entry: &StreamEntry, topics: &RedisTopics, is_cut: impl Fn(&str) -> bool) {
        for record in entry.block.records() {
            let name = record.topic();
            if !is_cut(name) || record.offset() <= topics.trimmed(name) {
                continue;
            }
            let Ok(topic) = Topic::parse(name) else { continue };
            let gone = self.topics.entry(topic).or_default();
            if record.offset() <= gone.through {
                continue; // counted under another rule
            }
            gone.events += 1;
            gone.bytes += record.json().len() as u64;
            gone.through = record.offset();
        }
    }
}

fn is_ahead(entry: &StreamEntry, now: Millis) -> bool {
    received(entry) > now.saturating_add(MOST_AHEAD)
}

/// All of an entry was received at once.
fn received(entry: &StreamEntry) -> Millis {
    entry.block.record(0).map_or(0, |record| record.received())
}
