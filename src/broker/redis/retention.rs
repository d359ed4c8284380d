//! Retention: what is too old or too much leaves the stream, and every topic's loss is noted first.
//!
//! The stream keeps everything for the longest age of all rules. What a shorter rule takes is only
//! marked; readers leave it out.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ::redis::cmd;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    RedisShared,
    names::off_the_workers,
    newest::{VALUES_AT_ONCE, read_newest},
    tail::{RawEntry, StreamEntry},
    topics::RedisTopics,
};
use crate::{
    position::Offset,
    redis::RedisFailure,
    telemetry::Limit,
    time::{Millis, rfc3339},
    topic::Topic,
};

/// How often retention looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long one node does it for all.
const TURN: Millis = 5_000;
/// Entries looked at in one step.
const STEP: usize = 64;
/// So far apart the clocks of Redis and of a node may be.
const MOST_APART: Millis = 60_000;
/// An entry that is ahead by more was received by a clock that has been put right since; `prelude.lua` has the same.
const MOST_AHEAD: Millis = 10_000;
/// Keys dropped in one call.
const KEYS: usize = 1000;

/// Looks after retention until `stop`, on one node at a time.
pub(super) async fn run(shared: Arc<RedisShared>, stop: CancellationToken) {
    let mut failing = false;
    loop {
        let work = async {
            tokio::time::sleep(INTERVAL).await;
            // Every node shows its own clock, also when it is not its turn.
            time(&shared).await?;
            if is_our_turn(&shared).await? {
                to_the_end(&shared).await?;
            }
            Ok::<(), RedisFailure>(())
        };
        let result = tokio::select! {
            () = stop.cancelled() => break,
            result = work => result,
        };
        match result {
            // That Redis is gone is said by the tail.
            Err(RedisFailure::Refused(error)) if !failing => {
                tracing::warn!(%error, "retention failed; trying again");
                failing = true;
            }
            Err(_) => {}
            Ok(()) => failing = false,
        }
    }
}

/// Does all there is to do.
pub(super) async fn to_the_end(shared: &RedisShared) -> Result<(), RedisFailure> {
    while step(shared).await? {}
    cap_latest(shared).await
}

/// Several nodes at it would do no harm, only the same work.
async fn is_our_turn(shared: &RedisShared) -> Result<bool, RedisFailure> {
    let key = shared.keys.of("maintainer");
    let mut claim = cmd("SET");
    claim.arg(&key).arg(&shared.node).arg("NX").arg("PX").arg(TURN);
    if shared.link.run::<Option<String>>(&claim).await?.is_some() {
        return Ok(true);
    }
    let holder: Option<String> = shared.link.run(cmd("GET").arg(&key)).await?;
    Ok(holder.as_deref() == Some(&*shared.node))
}

/// What one step takes away.
#[derive(Default)]
struct Cut {
    /// The last offset to leave the stream, and the bytes that leave.
    through: Option<Offset>,
    bytes: u64,
    marks: Vec<(String, Offset)>,
    topics: HashMap<Topic, Gone>,
    forget: Vec<Topic>,
    /// Whether there is more to do than was looked at.
    more: bool,
}

#[derive(Default)]
struct Gone {
    events: u64,
    bytes: u64,
    through: Offset,
}

/// One step; true if there is more to do.
async fn step(shared: &RedisShared) -> Result<bool, RedisFailure> {
    // Of topics that nothing was taken from since, what Redis told before is true.
    let trims: Option<u64> =
        shared.link.run(cmd("HGET").arg(&shared.scripts.meta).arg("trims")).await?;
    shared.trims.fetch_max(trims.unwrap_or(0), Ordering::AcqRel);
    let topics = shared.known_topics().await?;
    let mut cut = Cut::default();
    let now = time(shared).await?;
    cut_oldest(shared, &topics, now, &mut cut).await?;
    if let Some(now) = now {
        cut_short(shared, &topics, now, &mut cut).await?;
    }
    let (fresh, most) = (shared.names().await?.fresh(), shared.config.max_topics);
    let known = topics.clone();
    let (forget, dropped) = off_the_workers(move || {
        let forget: Vec<Topic> = known.empty(&fresh, most).cloned().collect();
        let dropped = known.too_many_forgotten(forget.len(), most);
        let dropped: Vec<Topic> = dropped.into_iter().cloned().collect();
        (forget, dropped)
    })
    .await?;
    cut.forget = forget;
    if cut.through.is_none() && cut.marks.is_empty() && cut.forget.is_empty() {
        return Ok(false);
    }
    let mut call = shared.scripts.trim(shared.clock.hand());
    call.arg(topics.trims);
    call.arg(cut.through.map_or(String::new(), |offset| offset.to_string())).arg(cut.bytes);
    call.arg(cut.marks.len());
    for (name, offset) in &cut.marks {
        call.arg(name).arg(*offset);
    }
    call.arg(cut.topics.len());
    for (topic, gone) in &cut.topics {
        call.arg(topic.as_str()).arg(gone.events).arg(gone.bytes).arg(gone.through);
    }
    call.arg(cut.forget.len());
    for topic in &cut.forget {
        call.arg(topic.as_str()).arg(shared.keys.of(&format!("latest:{topic}")));
    }
    call.arg(dropped.len());
    for topic in dropped {
        call.arg(topic.as_str());
    }
    let is_done: bool = shared.link.script(&call).await?;
    if !is_done {
        return Ok(false); // another node was quicker, or the log goes on in a new epoch
    }
    shared.load_topics().await?;
    let mut log = shared.log.lock();
    let through = shared.whole_blocks_through(shared.trimmed.load(Ordering::Acquire));
    log.ring.forget(through);
    // What was cut may have emptied topics.
    Ok(cut.more || cut.through.is_some() || !cut.topics.is_empty())
}

/// The time by Redis, if this node's clock bears it out; without it nothing is removed by its age.
async fn time(shared: &RedisShared) -> Result<Option<Millis>, RedisFailure> {
    if let Some(hand) = shared.clock.hand() {
        return Ok(Some(hand));
    }
    let (seconds, micros): (u64, u64) = shared.link.run(&cmd("TIME")).await?;
    let (now, ours) = (seconds * 1000 + micros / 1000, shared.clock.now());
    let is_apart = now.abs_diff(ours) > MOST_APART;
    let was_apart = shared.apart.swap(is_apart, Ordering::AcqRel);
    if is_apart && !was_apart {
        let (redis, node) = (rfc3339(now), rfc3339(ours));
        tracing::warn!(%redis, %node,
            "the clocks of Redis and of this node disagree: this node removes nothing by its age; check both");
    }
    if was_apart && !is_apart {
        tracing::info!("the clocks of Redis and of this node agree again");
    }
    let is_settled = !is_apart && shared.clock.is_settled();
    shared.telemetry.clock(shared.clock.jumps(), is_settled);
    Ok(is_settled.then_some(now))
}

/// What leaves the stream: older than every rule allows, or too much, but for the newest entry.
async fn cut_oldest(
    shared: &RedisShared,
    topics: &RedisTopics,
    now: Option<Millis>,
    cut: &mut Cut,
) -> Result<(), RedisFailure> {
    let oldest = now.unwrap_or(0).saturating_sub(longest_age(shared));
    let bytes: Option<u64> =
        shared.link.run(cmd("HGET").arg(&shared.scripts.meta).arg("bytes")).await?;
    let mut left = bytes.unwrap_or(0);
    let entries = shared.entries("-", STEP).await?;
    let last = entries.len().saturating_sub(1);
    let is_too_much = |index, entry: &StreamEntry| {
        let is_too_much = left > shared.config.max_bytes.0 && index < last;
        left = left.saturating_sub(entry.stored as u64);
        is_too_much
    };
    let now = now.unwrap_or(Millis::MAX);
    let old = beginning(shared, entries, now, oldest, is_too_much).await?;
    cut.more |= old.len() == STEP;
    for entry in old {
        cut.bytes += entry.stored as u64;
        cut.through = Some(entry.block.last());
        cut.take(&entry, topics, |_| true);
    }
    Ok(())
}

/// What rules take whose age is shorter than the stream's.
async fn cut_short(
    shared: &RedisShared,
    topics: &RedisTopics,
    now: Millis,
    cut: &mut Cut,
) -> Result<(), RedisFailure> {
    let longest = longest_age(shared);
    for (number, rule) in shared.rules.0.iter().enumerate() {
        if rule.max_age >= longest {
            continue;
        }
        // A changed rule is another rule, and looks at everything anew.
        let mark = format!("aged:{:?}:{}", rule.filter, rule.max_age);
        let ask = cmd("HGET").arg(&shared.scripts.meta).arg(&mark).clone();
        let seen: Option<Offset> = shared.link.run(&ask).await?;
        let from = seen.unwrap_or(0).max(cut.through.unwrap_or(0));
        let oldest = now.saturating_sub(rule.max_age);
        let entries = shared.entries(&format!("({from}-0"), STEP).await?;
        let old = beginning(shared, entries, now, oldest, |_, _| false).await?;
        for entry in &old {
            cut.take(entry, topics, |topic| shared.rules.of(topic) == number);
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
    shared: &RedisShared,
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
        && received_behind(shared, last.block.last(), now).await? < oldest
    {
        old.append(&mut ahead);
    }
    Ok(old)
}

/// When the first entry behind `after` was received that is not ahead of `now`; `now` if all are. By halving: those that
/// are ahead lie together.
async fn received_behind(
    shared: &RedisShared,
    after: Offset,
    now: Millis,
) -> Result<Millis, RedisFailure> {
    let (mut low, mut high, mut found) = (after, *shared.head.borrow(), now);
    while low < high {
        let middle = low + (high - low) / 2;
        match shared.entry(&format!("({middle}-0")).await? {
            Some(entry) if is_ahead(&entry, now) => low = entry.block.last(),
            Some(entry) => (found, high) = (received(&entry), middle),
            None => high = middle,
        }
    }
    Ok(found)
}

fn is_ahead(entry: &StreamEntry, now: Millis) -> bool {
    received(entry) > now.saturating_add(MOST_AHEAD)
}

fn longest_age(shared: &RedisShared) -> Millis {
    shared.rules.0.iter().map(|rule| rule.max_age).max().unwrap_or(Millis::MAX)
}

/// All of an entry was received at once.
fn received(entry: &StreamEntry) -> Millis {
    entry.block.record(0).map_or(0, |record| record.received())
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

/// Above the number of keys a topic may have in `latest`, those that changed longest ago go.
async fn cap_latest(shared: &RedisShared) -> Result<(), RedisFailure> {
    let full: Vec<Topic> = std::mem::take(&mut *shared.full.lock()).into_iter().collect();
    let most = shared.config.latest_keys;
    for topic in full {
        let key = shared.keys.of(&format!("latest:{topic}"));
        let mut by_age = HashMap::new();
        let mut cursor = 0u64;
        loop {
            let mut scan = cmd("HSCAN");
            scan.arg(&key).arg(cursor).arg("COUNT").arg(VALUES_AT_ONCE);
            let values: Vec<(Bytes, Bytes)>;
            (cursor, values) = shared.link.run(&scan).await?;
            // Copied, for of a large value only these are wanted.
            let age = |(name, value): (Bytes, Bytes)| {
                let origin = origin(&value)?.to_vec();
                Some((name, (read_newest(&value)?.0, origin)))
            };
            by_age.extend(values.into_iter().filter_map(age));
            if cursor == 0 {
                break;
            }
        }
        if by_age.len() <= most {
            continue;
        }
        // A tenth more than needed, so that a topic at its limit does not pay every time.
        let surplus = by_age.len() - most + most / 10;
        let mut by_age: Vec<_> = by_age.into_iter().collect();
        by_age.sort_unstable_by_key(|(_, (offset, _))| *offset);
        for pieces in by_age[..surplus.min(by_age.len())].chunks(KEYS) {
            let mut call = shared.scripts.cap(&key);
            for (name, (_, origin)) in pieces {
                call.arg(&**name).arg(&**origin);
            }
            shared.link.script::<bool>(&call).await?;
        }
        shared.telemetry.hit(Limit::LatestKeys);
    }
    Ok(())
}

/// What tells a newest value from one written later: the batch it came with.
fn origin(value: &[u8]) -> Option<&[u8]> {
    value.split(|byte| *byte == b' ').next()
}
