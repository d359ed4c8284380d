//! A group of batches as the arguments of one script: the block, the ids, what changes by topic.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ::redis::{ScriptInvocation, Value};
use sha2::{Digest as _, Sha256};

use super::{
    RedisBatch,
    scripts::{LogScripts, text},
};
use crate::{
    broker::{codec::Compressor, journal::JournalConfig},
    event::{Block, BlockBuilder, Event, Record},
    lease::Fence,
    position::{Epoch, Offset},
};

/// Enough of a SHA-256 that no two ids share it, made to or not.
type RedisIdHash = [u8; 16];

/// Where each event of a group is, as far as is known.
pub(super) struct WriteGroup {
    pub(super) batches: Vec<RedisBatch>,
    /// One for each event of all batches, in order.
    items: Vec<WriteItem>,
    /// The last offset given to the group; 0 if none was.
    pub(super) last: Offset,
}

struct WriteItem {
    hash: RedisIdHash,
    offset: Option<Offset>,
    /// Whether it was new.
    is_fresh: bool,
}

/// A batch's offsets, and how many of its events were new.
pub(super) type WriteOutcome = (Vec<Offset>, usize);

/// What a script said to a group.
pub(super) enum ScriptAnswer {
    /// Stored from this offset on; these topics have too many newest values.
    Stored { first: Offset, full: Vec<String> },
    /// Some are stored already: their numbers within the call, and offsets. Nothing was stored.
    Duplicates(Vec<(usize, Offset)>),
    /// There would be too many topics, by these. Nothing was stored.
    TooManyTopics(Vec<String>),
    /// The log is not the one we follow. Nothing was stored.
    Moved,
    /// The lease is another's. Nothing was stored.
    Fenced,
}

impl WriteGroup {
    pub(super) fn new(batches: Vec<RedisBatch>) -> Self {
        let events = batches.iter().flat_map(|batch| batch.events.iter());
        let items =
            events.map(|event| WriteItem { hash: hash(event), offset: None, is_fresh: false });
        Self { items: items.collect(), batches, last: 0 }
    }

    /// The numbers of the events still to be stored, the first of each id.
    pub(super) fn open(&self) -> Vec<usize> {
        let mut seen = HashSet::new();
        let open = self.items.iter().enumerate().filter(|(_, item)| item.offset.is_none());
        open.filter(|(_, item)| seen.insert(item.hash)).map(|(number, _)| number).collect()
    }

    /// Takes in what was said to a call with these numbers.
    pub(super) fn stored(&mut self, open: &[usize], first: Offset) {
        for (number, offset) in open.iter().zip(first..) {
            if let Some(item) = self.items.get_mut(*number) {
                (item.offset, item.is_fresh) = (Some(offset), true);
            }
            self.last = offset;
        }
        self.spread();
    }

    pub(super) fn found(&mut self, open: &[usize], duplicates: &[(usize, Offset)]) {
        for (index, offset) in duplicates {
            let number = index.checked_sub(1).and_then(|index| open.get(index));
            if let Some(item) = number.and_then(|number| self.items.get_mut(*number)) {
                item.offset = Some(*offset);
            }
        }
        self.spread();
    }

    /// An id has one offset, however often it is in the group.
    fn spread(&mut self) {
        let known = self.items.iter().filter_map(|item| Some((item.hash, item.offset?)));
        let known: HashMap<RedisIdHash, Offset> = known.collect();
        for item in self.items.iter_mut().filter(|item| item.offset.is_none()) {
            item.offset = known.get(&item.hash).copied();
        }
    }

    /// Each batch with its offsets and how many of them were new; None where one is still open.
    pub(super) fn outcomes(self) -> Vec<(RedisBatch, Option<WriteOutcome>)> {
        let mut items = self.items.into_iter();
        let mut outcomes = Vec::with_capacity(self.batches.len());
        for batch in self.batches {
            let own: Vec<WriteItem> = items.by_ref().take(batch.events.len()).collect();
            let fresh = own.iter().filter(|item| item.is_fresh).count();
            let offsets: Option<Vec<Offset>> = own.iter().map(|item| item.offset).collect();
            outcomes.push((batch, offsets.map(|offsets| (offsets, fresh))));
        }
        outcomes
    }
}

/// Makes the calls that store groups.
pub(super) struct GroupCalls {
    pub(super) scripts: Arc<LogScripts>,
    pub(super) config: JournalConfig,
    pub(super) compressor: Compressor,
}

impl GroupCalls {
    /// The call that stores the events of `group` numbered `open`, in `epoch` or not at all; `name` is the same for what is
    /// one call sent again.
    pub(super) fn call(
        &mut self,
        group: &WriteGroup,
        open: &[usize],
        epoch: Epoch,
        name: &str,
    ) -> std::io::Result<ScriptInvocation<'_>> {
        let Self { scripts, config, compressor } = self;
        let keys = &scripts.keys;
        let events: Vec<&Event> =
            group.batches.iter().flat_map(|batch| batch.events.iter()).collect();
        let mut builder = BlockBuilder::default();
        for (offset, event) in (1..).zip(open.iter().filter_map(|number| events.get(*number))) {
            builder.push(offset, 0, event);
        }
        let block = builder.finish();
        let mut call = scripts.publish();
        let changes = changes(&block);
        for change in &changes {
            call.key(keys.latest(change.topic));
        }
        call.arg(epoch.to_string());
        call.arg(keys.of("ids:")).arg(config.dedupe_window.millis()).arg(config.dedupe_ids);
        call.arg(config.max_topics).arg(config.latest_keys);
        let fence = group.batches.iter().find_map(|batch| batch.terms.fence.as_ref());
        call.arg(fence.map_or(String::new(), |fence| keys.of(&fence.key())));
        call.arg(fence.map_or(0, Fence::token)).arg(name);
        call.arg(pack(&block, compressor)?).arg(open.len()).arg(block.origins());
        for item in open.iter().filter_map(|number| group.items.get(*number)) {
            call.arg(&item.hash[..]);
        }
        call.arg(changes.len());
        for change in &changes {
            change.put(&mut call);
        }
        Ok(call)
    }
}

impl ScriptAnswer {
    pub(super) fn read(answer: &[Value]) -> Option<Self> {
        let texts = |value: &Value| -> Option<Vec<String>> {
            let Value::Array(values) = value else { return None };
            values.iter().map(|value| text(value).map(str::to_owned)).collect()
        };
        match (text(answer.first()?)?, answer) {
            ("ok", [_, first, full]) => {
                Some(Self::Stored { first: text(first)?.parse().ok()?, full: texts(full)? })
            }
            ("duplicates", [_, found]) => {
                let found = texts(found)?;
                let (pairs, _) = found.as_chunks::<2>();
                let pair = |[index, offset]: &[String; 2]| {
                    Some((index.parse().ok()?, offset.parse().ok()?))
                };
                Some(Self::Duplicates(pairs.iter().map(pair).collect::<Option<_>>()?))
            }
            ("topics", [_, topics]) => Some(Self::TooManyTopics(texts(topics)?)),
            ("moved", _) => Some(Self::Moved),
            ("fenced", _) => Some(Self::Fenced),
            _ => None,
        }
    }
}

fn hash(event: &Event) -> RedisIdHash {
    let mut hasher = Sha256::new();
    for part in [event.publisher.as_str(), event.topic.as_str(), &event.source, &event.id] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut hash = RedisIdHash::default();
    hash.copy_from_slice(&hasher.finalize()[..16]);
    hash
}

/// What a block changes about one topic.
struct Change<'a> {
    topic: &'a str,
    events: u64,
    bytes: u64,
    last: Offset,
    /// The newest record of each key, "" for records without.
    newest: HashMap<&'a [u8], Record<'a>>,
}

fn changes(block: &Block) -> Vec<Change<'_>> {
    let mut by_topic: HashMap<&str, Change<'_>> = HashMap::new();
    for record in block.records() {
        let topic = record.topic();
        let change = by_topic.entry(topic).or_insert_with(|| Change {
            topic,
            events: 0,
            bytes: 0,
            last: 0,
            newest: HashMap::new(),
        });
        change.events += 1;
        change.bytes += record.json().len() as u64;
        change.last = record.offset();
        change.newest.insert(record.key().unwrap_or_default(), record);
    }
    by_topic.into_values().collect()
}

impl Change<'_> {
    fn put(&self, call: &mut ScriptInvocation<'_>) {
        let is_ours = self.topic == "hub" || self.topic.starts_with("hub.");
        call.arg(self.topic).arg(u8::from(is_ours)).arg(self.events).arg(self.bytes).arg(self.last);
        let (removed, kept): (Vec<_>, Vec<_>) =
            self.newest.iter().partition(|(_, record)| record.is_removal());
        call.arg(kept.len());
        for (key, record) in kept {
            let mut single = BlockBuilder::default();
            single.push_record(*record);
            call.arg(*key).arg(single.finish().encode_plain());
        }
        call.arg(removed.len());
        for (key, _) in removed {
            call.arg(*key);
        }
    }
}

/// A block's bytes behind one that tells how they are packed; its publishers stand beside it, so that
/// nodes of a version that does not know them still read it.
fn pack(block: &Block, compressor: &mut Compressor) -> std::io::Result<Vec<u8>> {
    let (codec, mut body) = compressor.encode_body(block.encode_plain())?;
    body.insert(0, codec as u8);
    Ok(body)
}
