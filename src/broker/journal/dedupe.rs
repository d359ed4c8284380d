//! Which (publisher, topic, source, id) were stored lately, and where.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hasher as _,
};

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::{event::Event, position::Offset, time::Millis};

/// A keyed 128-bit hash of (publisher, topic, source, id): nobody without the key can make two alike.
pub(super) type IdHash = u128;

/// The ids of the dedupe window, bounded by age and number.
pub(super) struct Dedupe {
    hasher: SipHasher24,
    offsets: HashMap<IdHash, Offset>,
    /// When on the clock that never jumps, so that none makes us forget, or remember for ever.
    order: VecDeque<(Millis, IdHash)>,
    window: Millis,
    most: usize,
}

/// Bytes of one id in the table `ids`.
const STORED: usize = 24;

impl Dedupe {
    pub(super) fn new(key: &[u8; 16], window: Millis, most: usize) -> Self {
        let hasher = SipHasher24::new_with_key(key);
        Self { hasher, offsets: HashMap::new(), order: VecDeque::new(), window, most }
    }

    /// Another with the same key and bounds that knows no ids yet.
    pub(super) fn anew(&self) -> Self {
        Self { offsets: HashMap::new(), order: VecDeque::new(), ..*self }
    }

    pub(super) fn hash(&self, event: &Event) -> IdHash {
        let mut hasher = self.hasher;
        for part in [event.publisher.as_str(), event.topic.as_str(), &event.source, &event.id] {
            hasher.write_usize(part.len());
            hasher.write(part.as_bytes());
        }
        hasher.finish128().as_u128()
    }

    /// Where the event with this hash was stored first, if that is within the window.
    pub(super) fn find(&self, hash: IdHash) -> Option<Offset> {
        self.offsets.get(&hash).copied()
    }

    /// Whether one of these is within the window.
    pub(super) fn knows_any(&self, ids: &[(IdHash, Offset)]) -> bool {
        ids.iter().any(|(hash, _)| self.offsets.contains_key(hash))
    }

    pub(super) fn remember(&mut self, elapsed: Millis, ids: &[(IdHash, Offset)]) {
        for (hash, offset) in ids {
            self.offsets.insert(*hash, *offset);
            self.order.push_back((elapsed, *hash));
        }
        while self.order.len() > self.most {
            self.forget_oldest();
        }
    }

    /// Drops what has left the window.
    pub(super) fn expire(&mut self, elapsed: Millis) {
        // Not by subtraction: a process may be younger than the window.
        let window = self.window;
        while self.order.front().is_some_and(|(at, _)| at.saturating_add(window) < elapsed) {
            self.forget_oldest();
        }
    }

    /// How long an id is known.
    pub(super) fn window(&self) -> Millis {
        self.window
    }

    fn forget_oldest(&mut self) {
        if let Some((_, hash)) = self.order.pop_front() {
            self.offsets.remove(&hash);
        }
    }
}

/// The ids of one commit as the file holds them.
pub(super) fn encode(ids: &[(IdHash, Offset)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ids.len() * STORED);
    for (hash, offset) in ids {
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
    }
    out
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(stored: &[u8]) -> Vec<(IdHash, Offset)> {
    let (entries, _) = stored.as_chunks::<STORED>();
    entries
        .iter()
        .map(|entry| {
            let (hash, offset) = entry.split_at(16);
            let mut wide = [0; 16];
            wide.copy_from_slice(hash);
            let mut narrow = [0; 8];
            narrow.copy_from_slice(offset);
            (u128::from_le_bytes(wide), u64::from_le_bytes(narrow))
        })
        .collect()
}
