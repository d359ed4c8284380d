//! Who waits for changes, and of which collections.

use parking_lot::Mutex;
use tokio::sync::watch;

use super::CollectionKind;

/// Those who wait. Held to count, or to add one.
#[derive(Default)]
pub(super) struct Watchers(Mutex<Vec<Watcher>>);

struct Watcher {
    names: Box<[&'static str]>,
    count: watch::Sender<u64>,
}

impl Watchers {
    /// Moves with each change of one of these.
    pub(super) fn watch(&self, kinds: &[CollectionKind]) -> watch::Receiver<u64> {
        let names = kinds.iter().map(|kind| kind.name).collect();
        let (count, receiver) = watch::channel(0);
        let mut watchers = self.0.lock();
        watchers.retain(|watcher| watcher.count.receiver_count() > 0);
        watchers.push(Watcher { names, count });
        receiver
    }

    /// Tells those who wait for one of the collections that `has_changed` knows by its name.
    pub(super) fn tell(&self, has_changed: impl Fn(&str) -> bool) {
        for Watcher { names, count } in &*self.0.lock() {
            if names.iter().any(|name| has_changed(name)) {
                count.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }
}
