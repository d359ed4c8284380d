//! Series from the log to the store and back, with time and the lease in the tests' hands.

mod compact;
mod crowded;
mod raw;
mod rollups;
mod tally;

use std::sync::Arc;

use serde_json::{json, value::to_raw_value};

use super::{
    follow::Upkeep, intake::Arrived, resolution::HEAD, resolution::RESOLUTIONS,
    resolution::Resolution, room::SeriesBounds, *,
};
use crate::{
    admission::OwnEvent, broker::Broker, config, duty::Duties, lease::Fence, store::Part,
    time::Millis, topic::Topic,
};

/// 2026-11-20T12:00:00Z
const NOW: Millis = 1_795_176_000_000;

/// A log and a store, and who keeps series of them.
struct Bench {
    broker: Broker,
    store: Store,
    clock: Clock,
    config: SeriesConfig,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(flags: &[(&str, String)]) -> Self {
        let config = config::Config::load(None, [], flags).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let broker =
            Broker::open(config.journal, folder.path(), clock.clone(), Telemetry::new()).unwrap();
        let store = Store::open(folder.path(), clock.clone()).unwrap();
        Self { broker, store, clock, config: config.series, _folder: folder }
    }

    fn series(&self) -> Series {
        let (feed, store) = (Feed::new(self.broker.clone()), self.store.clone());
        let clock = self.clock.clone();
        Series::new(self.config, Arc::new([]), feed, store, clock, Telemetry::new())
    }

    /// A node as it is when it has just started, with the lease or without.
    async fn node(&self, has_lease: bool) -> Upkeep {
        let mut node = self.series().begin(has_lease.then(fence)).await.unwrap();
        node.catch_up();
        node
    }

    /// Publishes one value to a gauge and as the total of a counter.
    async fn publish(&self, time: Millis, value: f64) {
        let samples = [
            json!({"name": "value", "value": value}),
            json!({"name": "total", "type": "counter", "value": value}),
        ];
        let event = event(time, &json!({"samples": samples}));
        self.broker.publish(event.into()).await.unwrap();
    }
}

/// An event with samples.
fn event(time: Millis, data: &serde_json::Value) -> OwnEvent {
    let topic = Topic::parse("a.samples").unwrap();
    OwnEvent::new(&topic, "samples", time, to_raw_value(data).unwrap()).with_source("s")
}

/// The lease of the only node.
fn fence() -> Fence {
    Fence::new(NAME, 0)
}

/// Adds one sample to the series `value`, past the log.
fn add(node: &Upkeep, value: Value, time: Millis, offset: Offset) -> Result<(), Dropped> {
    add_as(node, Kind::Gauge, value, time, offset)
}

fn add_as(
    node: &Upkeep,
    kind: Kind,
    value: Value,
    time: Millis,
    offset: Offset,
) -> Result<(), Dropped> {
    add_sample(
        node,
        Sample { hint: SampleHint::kind(kind), ..sample("value", value) },
        time,
        offset,
    )
}

fn add_sample(node: &Upkeep, sample: Sample, time: Millis, offset: Offset) -> Result<(), Dropped> {
    let topic = format!("{}.metrics", sample.name);
    let mut table = node.series.0.table.write();
    table.applied = offset;
    table.add(&Arrived { topic: &topic, publisher: "key:p", sample, time, offset, now: NOW })
}

/// A sample without labels.
fn sample(name: &str, value: Value) -> Sample {
    let (name, labels) = (Name::new(name).unwrap(), Labels::default());
    Sample { topic: None, name, labels, hint: SampleHint::default(), value, time: None }
}

/// Takes in what the log has.
async fn follow(node: &mut Upkeep) {
    while node.reader.reached() < node.series.0.feed.broker().head().offset {
        let delivery = node.reader.next().await.unwrap();
        node.take_in(&delivery).await.unwrap();
        node.catch_up();
    }
}

/// One round through all series; with the lease they are written.
async fn save(node: &mut Upkeep) {
    node.begin_round().await.unwrap();
    node.round.slice = usize::MAX;
    node.slice().await.unwrap();
}

/// What is stored of the series with the shortest name.
async fn stored(bench: &Bench) -> usize {
    let rows = bench.store.rows(NAME).await.unwrap();
    let chunks = RESOLUTIONS.iter().enumerate().flat_map(|(at, resolution)| {
        let numbers =
            (NOW - 40 * 86_400_000) / resolution.span()..=(NOW + 86_400_000) / resolution.span();
        numbers.map(move |number| resolution::column(at, number))
    });
    let columns: Vec<_> = chunks.chain([HEAD]).chain((0..10).map(resolution::raw_column)).collect();
    bench.store.parts(NAME, &rows[0], columns).await.unwrap().len()
}

#[tokio::test]
async fn what_is_too_old_leaves_memory_and_store() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    for (offset, hours) in [0, 1, 7, 30].into_iter().enumerate() {
        let time = NOW - hours * 3_600_000;
        add(&node, Value::Reading(1.0), time, offset as Offset + 1).unwrap();
    }
    let day = 86_400_000;
    let mut kept = Vec::new();
    save(&mut node).await;
    for days in [0, 1, 29, 40] {
        bench.clock.set(NOW + days * day);
        save(&mut node).await;
        kept.push(stored(&bench).await);
    }
    // The head, four chunks by the minute, those of the last hours by ten seconds, one of raw samples.
    assert_eq!(kept, [1 + 4 + 2 + 1, 1 + 4, 1 + 3, 1]);
    let (name, labels) = (name(), Labels::default());
    let count = node.series.window(&name, &labels, Aggregate::Count, None, NOW, &|_| true);
    assert_eq!(count.await.unwrap(), Some(4.0), "what it ever was stays");
}

#[tokio::test]
async fn a_stretch_of_which_not_all_is_kept_is_null() {
    let hour = 3_600_000;
    let bench = Bench::with(&[("series.keep", "1d".to_owned())]);
    let mut node = bench.node(true).await;
    for n in 0..24 {
        let time = NOW - (23 - n) * hour;
        add_as(&node, Kind::Counter, Value::Reading(n as f64), time, n + 1).unwrap();
    }
    // A day before lies at 4 o'clock, and the chunks of minutes begin at 3.
    let now = NOW + 16 * hour;
    bench.clock.set(now);
    save(&mut node).await;
    for agg in
        [Aggregate::Count, Aggregate::Sum, Aggregate::Increase, Aggregate::Rate, Aggregate::Max]
    {
        let spec = QuerySpec {
            name: name(),
            labels: Labels::default(),
            from: NOW - 24 * hour,
            to: now,
            step: Some(Span::seconds(6 * 3600)),
            agg: Some(agg),
        };
        let columns = node.series.query(&spec, now, &|_| true).await.unwrap();
        assert_eq!(columns.since * 1000, NOW - 9 * hour);
        assert_eq!(columns.times[0] * 1000, NOW - 12 * hour);
        let known: Vec<_> = columns.values[0].iter().map(Option::is_some).collect();
        // The hours until 9, 12 and 15 o'clock had samples, and nothing came later.
        assert_eq!(known, [false, true, true, false, false], "{agg}");
    }
}

#[tokio::test]
async fn who_has_long_been_silent_makes_room_when_it_is_wanted() {
    let bench = Bench::with(&[("series.max_series", "1".to_owned())]);
    let mut node = bench.node(true).await;
    add(&node, Value::Reading(1.0), NOW, 1).unwrap();
    let other = |node: &Upkeep| add_sample(node, sample("b", Value::Reading(2.0)), NOW, 2);
    save(&mut node).await;
    assert_eq!(other(&node), Err(Dropped::Cap));
    bench.clock.set(NOW + 31 * 86_400_000);
    save(&mut node).await;
    assert_eq!(node.series.room(), (0, 1));
    assert!(bench.store.rows(NAME).await.unwrap().is_empty());
    assert_eq!(other(&node), Ok(()));
}

fn name() -> Name {
    Name::new("value").unwrap()
}

#[tokio::test]
async fn a_series_that_cannot_be_read_begins_anew_and_costs_no_other() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    add(&node, Value::Reading(1.0), NOW, 1).unwrap();
    save(&mut node).await;
    let bytes = Some(Bytes::from_static(b"broken"));
    let broken = vec![Part { row: "broken".into(), column: HEAD, bytes }];
    bench.store.save(&fence(), bench.broker.epochs().position(0), broken).await.unwrap();
    let series = bench.series();
    let stop = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(
        Duties::new(bench.store.clone(), bench.broker.clone(), "one", Telemetry::new())
            .run(series.clone(), stop.clone()),
    );
    series.changes().changed().await.unwrap();
    assert_eq!(series.room().0, 1);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_chunk_that_cannot_be_read_costs_only_itself() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    let old = NOW - 86_400_000;
    bench.publish(old, 1.0).await;
    bench.publish(NOW, 2.0).await;
    follow(&mut node).await;
    save(&mut node).await;
    save(&mut node).await; // what is written leaves memory
    let column = resolution::column(2, RESOLUTIONS[2].place(old).0);
    let bytes = Some(Bytes::from_static(b"broken"));
    let rows = bench.store.rows(NAME).await.unwrap();
    let part = |row: String| Part { row: row.into(), column, bytes: bytes.clone() };
    let broken = rows.into_iter().map(part).collect();
    bench.store.save(&fence(), bench.broker.head(), broken).await.unwrap();
    let spec = QuerySpec {
        name: name(),
        labels: Labels::default(),
        from: old - 3_600_000,
        to: NOW + 1000,
        step: Some(Span::seconds(7200)),
        agg: Some(Aggregate::Sum),
    };
    let columns = node.series.query(&spec, NOW, &|_| true).await.unwrap();
    let known: Vec<_> = columns.values[0].iter().flatten().collect();
    assert_eq!(known, [&2.0]);
    // What comes for it is taken in, and written over it.
    bench.publish(old, 3.0).await;
    follow(&mut node).await;
    save(&mut node).await;
    let columns = node.series.query(&spec, NOW, &|_| true).await.unwrap();
    let known: Vec<_> = columns.values[0].iter().flatten().collect();
    assert_eq!(known, [&3.0, &2.0]);
}

#[tokio::test]
async fn offsets_that_a_lost_log_gives_anew_are_new_after_the_next_start_too() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    add(&node, Value::Reading(1.0), NOW, 7).unwrap();
    save(&mut node).await; // of a log that has nothing now
    bench.node(true).await;
    // No sample came until the next start, which finds a position that the log knows.
    bench.store.save(&fence(), bench.broker.head(), Vec::new()).await.unwrap();
    let node = bench.node(true).await;
    assert_eq!(node.clean, bench.broker.head());
    add(&node, Value::Reading(2.0), NOW + 1000, 5).unwrap();
    let (name, labels) = (name(), Labels::default());
    let count = node.series.window(&name, &labels, Aggregate::Count, None, NOW, &|_| true);
    assert_eq!(count.await.unwrap(), Some(2.0));
}

#[tokio::test]
async fn what_has_grown_large_is_written_before_its_time() {
    let flags = [("series.save_every", "1h".to_owned()), ("series.save_bytes", "1 MiB".to_owned())];
    let bench = Bench::with(&flags);
    let mut node = bench.node(true).await;
    // Buckets of two samples need all their figures: 48 bytes each.
    let topics = 200;
    let samples = |n: u64| {
        let sample = |name: u64| json!({"name": format!("n{name}"), "value": n % 7 + name});
        json!({"samples": (0..topics).map(sample).collect::<Vec<_>>()})
    };
    for n in 0..600 {
        let time = NOW - 600_000 + n * 1000;
        let two = [1, 2].map(|value| event(time + value * 300, &samples(n * value)));
        bench.broker.publish(two.into_iter().collect()).await.unwrap();
    }
    follow(&mut node).await;
    let saved = bench.store.load_cursor(NAME).await.unwrap();
    assert!(saved.is_some_and(|at| at.offset > 0), "{saved:?}");
    let (name, labels) = (Name::new("n7").unwrap(), Labels::default());
    let window = Some(Span::seconds(900));
    let count = node.series.window(&name, &labels, Aggregate::Count, window, NOW, &|_| true);
    assert_eq!(count.await.unwrap(), Some(1200.0));
}

#[tokio::test]
async fn what_comes_before_the_loss_of_a_log_is_noticed_is_not_lost_too() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    add(&node, Value::Reading(1.0), NOW, 7).unwrap();
    save(&mut node).await; // of a log that has nothing now
    let series = bench.series();
    bench.publish(NOW + 1, 2.0).await;
    let mut node = series.begin(Some(fence())).await.unwrap();
    follow(&mut node).await;
    assert_eq!(series.newest(&name(), &Labels::default()).unwrap().value, 2.0);
}

#[tokio::test]
async fn a_derived_value_is_not_forgotten_for_those_who_want_room() {
    let rule = "name = \"shop.orders\"\ntopic = \"shop.*\"\nop = \"count\"";
    let rule = toml::from_str::<derive::DeriveConfig>(rule).unwrap().rule().unwrap();
    let one = SeriesBounds {
        series: 1,
        of_topic: 1,
        of_publisher: 1,
        bytes: 1000,
        bytes_of_publisher: 1000,
    };
    let keep = resolution::Keep { raw: 1000, resolutions: [1000, 2000, 3000] };
    let bounds = Bounds { room: one, keep, growth: 1000 };
    let mut table = Table::new(bounds, Arc::new([rule.clone()]), Telemetry::new());
    let sample =
        Sample { topic: Some(rule.topic().clone()), ..sample("shop.orders", Value::Reading(1.0)) };
    let arrived = |topic, sample: &Sample, offset| Arrived {
        topic,
        publisher: "key:p",
        sample: sample.clone(),
        time: NOW,
        offset,
        now: NOW,
    };
    table.add(&arrived("shop.one", &sample, 1)).unwrap();
    let other = Sample { topic: None, ..sample.clone() };
    assert_eq!(table.add(&arrived("loud", &other, 2)), Err(Dropped::Cap));
    // Nor is it kept out by those who were quicker.
    let mut full = Table::new(bounds, Arc::new([rule.clone()]), Telemetry::new());
    full.add(&arrived("loud", &other, 1)).unwrap();
    assert_eq!(
        full.add(&arrived("loud", &Sample { name: Name::new("x").unwrap(), ..other.clone() }, 2)),
        Err(Dropped::Cap)
    );
    full.add(&arrived("shop.one", &sample, 3)).unwrap();
    let mut packer = pack::Packer::new().unwrap();
    for place in table.begin_round() {
        table.tend(place, 2, NOW + 86_400_000, &mut packer).unwrap();
    }
    assert_eq!(table.len(), 1);
}
