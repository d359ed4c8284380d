//! A broker and a hub without sockets, in tight memory, with publishers and readers by chance.

use std::{collections::BTreeSet, future::poll_fn, sync::Arc, task::Poll};

use pulsehub::{
    broker::{
        Broker,
        journal::{JournalConfig, RetentionRule, Sync},
    },
    bytesize::ByteSize,
    dialect::{Form, Frame},
    hub::{self, Cursor, CursorItem, Hub, TaskWaker},
    position::Offset,
    telemetry::Telemetry,
    time::{Clock, Span},
    topic::TopicFilter,
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{
    admitted,
    checker::{Answer, Sent},
    dice::Dice,
    event, filter,
};

pub(super) const START: u64 = 1_800_000_000_000;
pub(super) const TOPICS: [&str; 6] = ["a.x", "a.y", "b.x", "b.y.z", "c", "short.a"];
const FILTERS: [&[&str]; 8] = [
    &["**"],
    &["a.*"],
    &["b.**", "c"],
    &["*.x"],
    &["c"],
    &["a.x", "b.x"],
    &["short.*", "c"],
    &["none.such"],
];

/// Everything of one throw of the dice.
pub(super) struct World {
    pub(super) broker: Broker,
    pub(super) hub: Hub,
    pub(super) clock: Clock,
    finished: watch::Sender<bool>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl World {
    /// Memory so small that cursors fall behind it, by chance; the `retention` rules are the caller's.
    pub(super) fn new(dice: &mut Dice, retention: Vec<RetentionRule>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let config = JournalConfig {
            sync: Sync::Normal,
            max_age: Span::seconds(3600),
            max_bytes: ByteSize(1 << 30),
            retention,
            dedupe_window: Span::seconds(120),
            dedupe_ids: 1000,
            latest_keys: 100,
            max_topics: 1000,
            reserve: ByteSize(0),
            recent_bytes: ByteSize(dice.one_of(&[1, 600, 2000, 1 << 20])),
            queue_bytes: ByteSize(1 << 20),
            queue_timeout: Span::seconds(30),
        };
        let broker = Broker::open(config, folder.path(), clock.clone(), Telemetry::new()).unwrap();
        let config = hub::HubConfig {
            tail_bytes: ByteSize(dice.one_of(&[0, 700, 3000, 1 << 20])),
            chunk_bytes: ByteSize(dice.one_of(&[1, 300, 2000, 1 << 16])),
            replay_bytes: ByteSize(dice.one_of(&[1 << 20])),
            latest_keys: dice.within(1..12) as usize,
            latest_bytes: ByteSize(dice.one_of(&[200, 1000, 1 << 20])),
            max_hz: 60.0,
        };
        let hub = Hub::new(broker.clone(), config, Telemetry::new());
        let stop = CancellationToken::new();
        let running = tokio::spawn(hub.clone().run(stop.clone()));
        let finished = watch::Sender::new(false);
        Self { broker, hub, clock, finished, stop, running, folder }
    }

    /// The file of the log.
    pub(super) fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("journal.db")
    }

    /// Publishes batches of chance one after the other, each event with an id beginning with `name`.
    pub(super) fn publisher(
        &self,
        mut dice: Dice,
        name: String,
        batches: u64,
    ) -> JoinHandle<Vec<Sent>> {
        let broker = self.broker.clone();
        tokio::spawn(async move {
            let mut sent = Vec::new();
            for batch in 0..batches {
                let size = if dice.once_in(3) { dice.within(2..9) } else { 1 };
                let events: Vec<_> = (0..size)
                    .map(|n| {
                        let key = format!("k{}", dice.within(0..5));
                        let data = "1".repeat(dice.within(1..40) as usize);
                        let id = format!("{name}-{batch}-{n}");
                        event(dice.one_of(&TOPICS), &name, &id, Some(&key), &data)
                    })
                    .collect();
                let published = broker.publish(admitted(events.clone())).await.unwrap();
                for (event, offset) in events.iter().zip(published.offsets) {
                    let (id, topic) = (event.id.to_string(), event.topic.as_str().to_owned());
                    sent.push(Sent { id, topic, answer: Answer::Stored(offset) });
                }
                dawdle(&mut dice).await;
            }
            sent
        })
    }

    /// Resolves once `offset` is dispatched or nothing more is published.
    pub(super) fn reached(&self, offset: Offset) -> impl Future<Output = ()> + Send + use<> {
        let (mut tail, mut finished) = (self.broker.tail(), self.finished.subscribe());
        async move {
            tokio::select! {
                _ = tail.wait_for(|head| *head >= offset) => {}
                _ = finished.wait_for(|finished| *finished) => {}
            }
        }
    }

    pub(super) fn reader(&self, cursor: Cursor, waker: Arc<TaskWaker>, dice: Dice) -> Reader {
        let (tail, finished) = (self.broker.tail(), self.finished.subscribe());
        Reader { hub: self.hub.clone(), cursor, waker, dice, tail, finished }
    }

    /// Tells readers that nothing follows what is published by now; gives the last offset.
    pub(super) async fn finish(&self) -> Offset {
        let last = self.broker.head().offset;
        while self.hub.head().offset < last {
            tokio::task::yield_now().await;
        }
        self.finished.send_replace(true);
        last
    }

    /// Ends the hub and the log; gives the offsets the log still held.
    pub(super) async fn close(self) -> BTreeSet<Offset> {
        let (until, everything) = (self.broker.head().offset, filter(&["**"]));
        let (mut kept, mut position) = (BTreeSet::new(), 0);
        while position < until {
            let chunk = self.broker.read(position, until, &everything, 1 << 20).await.unwrap();
            let records = chunk.blocks.iter().flat_map(|block| block.records_after(position));
            kept.extend(records.map(|record| record.offset()));
            position = chunk.reached;
        }
        self.stop.cancel();
        self.running.await.unwrap();
        self.broker.close().await;
        kept
    }
}

pub(super) fn any_filter(dice: &mut Dice) -> TopicFilter {
    filter(dice.one_of(&FILTERS))
}

/// Lets others go first, a number of times.
pub(super) async fn dawdle(dice: &mut Dice) {
    for _ in 0..dice.within(0..12) {
        tokio::task::yield_now().await;
    }
}

/// Follows one subscription, now and then falling asleep until much has been published.
pub(super) struct Reader {
    hub: Hub,
    cursor: Cursor,
    waker: Arc<TaskWaker>,
    dice: Dice,
    tail: watch::Receiver<Offset>,
    finished: watch::Receiver<bool>,
}

impl Reader {
    /// The next item; None once everything published has come.
    pub(super) async fn next(&mut self) -> Option<CursorItem> {
        if self.dice.once_in(12) {
            let awake = *self.tail.borrow() + self.dice.within(1..60);
            tokio::select! {
                _ = self.tail.wait_for(|head| *head >= awake) => {}
                _ = self.finished.wait_for(|finished| *finished) => {}
            }
        }
        dawdle(&mut self.dice).await;
        loop {
            let finished = *self.finished.borrow();
            let item = poll_fn(|cx| {
                self.waker.listen(cx.waker());
                let head = self.hub.head().offset;
                match self.cursor.poll_next(cx) {
                    Poll::Ready(item) => Poll::Ready(Some(item)),
                    Poll::Pending if self.cursor.settle(head) && finished => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            });
            tokio::select! {
                item = item => return item,
                _ = self.finished.changed(), if !finished => {}
            }
        }
    }

    pub(super) fn position(&self) -> Offset {
        self.cursor.position().offset
    }
}

/// What a frame of [`Form::Messages`] says.
pub(super) fn read_message(frame: &Frame) -> Value {
    let header = match frame.bytes[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    serde_json::from_slice(&frame.bytes[header..]).unwrap()
}

pub(super) fn form() -> Form {
    Form::Messages("s".into())
}
