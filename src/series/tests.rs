//! Series against a naive computation that keeps every sample.

use std::sync::Arc;

use proptest::prelude::*;

use super::{track::TIERS, *};
use crate::{broker::Broker, config, store::Part, time::Millis};

/// 2026-11-20T12:00:00Z
const NOW: Millis = 1_795_176_000_000;

struct Bench {
    series: Series,
    packer: pack::Packer,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(flags: &[(&str, String)]) -> Self {
        let config = config::Config::load(None, [], flags).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (telemetry, clock) = (Telemetry::new(), Clock::manual(NOW));
        let broker =
            Broker::open(config.journal, folder.path(), clock.clone(), telemetry.clone()).unwrap();
        let store = Store::open(folder.path(), clock.clone()).unwrap();
        let rules = Arc::new([]);
        let series = Series::new(config.series, rules, broker, store, "one", clock, telemetry);
        Self { series, packer: pack::Packer::new().unwrap(), _folder: folder }
    }

    fn add(&self, value: Value, time: Millis, offset: Offset) -> Result<(), Dropped> {
        let sample = Sample {
            topic: None,
            name: name(),
            labels: Labels::default(),
            unit: None,
            value,
            time: None,
        };
        self.series.0.table.write().add("a.metrics", sample, time, offset, NOW)
    }

    /// What the task that holds the lease does, with everything up to `offset` in.
    async fn save(&mut self, clean: Offset, offset: Offset, now: Millis) {
        let inner = &*self.series.0;
        let places = inner.table.read().places();
        let mut parts: Vec<Part> = Vec::new();
        for place in places {
            let (row, columns) = {
                let table = inner.table.read();
                let track = table.track(place).unwrap();
                (track.row.clone(), track.wanting(clean))
            };
            for column in columns {
                let stored = self.series.stored(&row, column..column + 1).await.unwrap();
                let stored = stored.first().map(|(_, bytes)| &bytes[..]);
                inner.table.write().track_mut(place).unwrap().fill(column, stored).unwrap();
            }
            let mut table = inner.table.write();
            parts.extend(table.tend(place, clean, now, &mut self.packer).unwrap());
        }
        let fence = inner.store.lease(NAME, "one").await.unwrap().unwrap();
        inner.store.save(&fence, inner.broker.position(offset), parts).await.unwrap();
    }

    /// What a new process does: forgets everything and reads the store.
    async fn restart(&self) {
        let inner = &*self.series.0;
        let mut table = inner.new_table();
        for row in inner.store.rows(NAME).await.unwrap() {
            let parts = inner.store.parts(NAME, &row, track::hot_columns(NOW)).await.unwrap();
            table.restore(track::Track::restore(&row, parts, NOW).unwrap().unwrap());
        }
        *inner.table.write() = table;
    }
}

#[tokio::test]
async fn what_is_too_old_leaves_memory_and_store() {
    let mut bench = Bench::new();
    for (offset, hours) in [0, 1, 7, 30].into_iter().enumerate() {
        let time = NOW - hours * 3_600_000;
        bench.add(Value::Gauge(1.0), time, offset as Offset + 1).unwrap();
    }
    let row = bench.series.table().all().next().unwrap().row.clone();
    let day = 86_400_000;
    let mut kept = Vec::new();
    bench.save(0, 4, NOW).await;
    for days in [0, 1, 29, 40] {
        bench.save(4, 4, NOW + days * day).await;
        kept.push(bench.series.stored(&row, 0..u64::MAX).await.unwrap().len());
    }
    // The head, four chunks by the minute, those of the last hours by ten seconds, one by the second.
    assert_eq!(kept, [1 + 4 + 2 + 1, 1 + 4, 1 + 3, 1]);
    let (name, labels) = (name(), Labels::default());
    let count = bench.series.window(&name, &labels, Agg::Count, None, NOW, &|_| true);
    assert_eq!(count.await.unwrap(), Some(4.0), "what it ever was stays");
}

#[tokio::test]
async fn a_stretch_of_which_not_all_is_kept_is_null() {
    let hour = 3_600_000;
    let mut bench = Bench::with(&[("series.keep", "1d".to_owned())]);
    for n in 0..24 {
        let time = NOW - (23 - n) * hour;
        bench.add(Value::Total(n as f64), time, n + 1).unwrap();
    }
    // A day before lies at 4 o'clock, and the chunks of minutes begin at 3.
    let now = NOW + 16 * hour;
    bench.save(0, 24, now).await;
    for agg in [Agg::Count, Agg::Sum, Agg::Increase, Agg::Rate, Agg::Max] {
        let spec = QuerySpec {
            name: name(),
            labels: Labels::default(),
            from: NOW - 24 * hour,
            to: now,
            step: Some(Span::seconds(6 * 3600)),
            agg: Some(agg),
        };
        let columns = bench.series.query(&spec, now, &|_| true).await.unwrap();
        assert_eq!(columns.since * 1000, NOW - 9 * hour);
        assert_eq!(columns.times[0] * 1000, NOW - 12 * hour);
        let known: Vec<_> = columns.values[0].iter().map(Option::is_some).collect();
        // The hours until 9, 12 and 15 o'clock had samples, and nothing came later.
        assert_eq!(known, [false, true, true, false, false], "{agg}");
    }
}

#[tokio::test]
async fn who_has_long_been_silent_makes_room_when_it_is_wanted() {
    let mut bench = Bench::with(&[("series.max_series", "1".to_owned())]);
    bench.add(Value::Gauge(1.0), NOW, 1).unwrap();
    let other = |bench: &Bench| {
        let name = Name::new("b").unwrap();
        let (labels, value) = (Labels::default(), Value::Gauge(2.0));
        let sample = Sample { topic: None, name, labels, unit: None, value, time: None };
        bench.series.0.table.write().add("b.metrics", sample, NOW, 2, NOW)
    };
    bench.save(0, 1, NOW).await;
    assert_eq!(other(&bench), Err(Dropped::Cap));
    bench.save(1, 1, NOW + 31 * 86_400_000).await;
    assert_eq!(bench.series.room(), (0, 1));
    assert!(bench.series.0.store.rows(NAME).await.unwrap().is_empty());
    assert_eq!(other(&bench), Ok(()));
}

fn name() -> Name {
    Name::new("a.value").unwrap()
}

/// A sample that was sent, in the order of arrival.
#[derive(Debug, Clone, Copy)]
struct Sent {
    time: Millis,
    value: f64,
}

/// The samples of a stretch, by buckets of a tier, in order of time; within a bucket as they came.
fn naive(
    sent: &[Sent],
    kind: Kind,
    agg: Agg,
    width: Millis,
    (from, to): (Millis, Millis),
    reach: Millis,
    elapsed: f64,
) -> Option<f64> {
    // What each sample added to its counter.
    let mut newest: Option<Sent> = None;
    let added: Vec<f64> = sent
        .iter()
        .map(|one| match newest {
            None => {
                newest = Some(*one);
                0.0
            }
            Some(before) if one.time < before.time => 0.0,
            Some(before) => {
                newest = Some(*one);
                if one.value < before.value { one.value } else { one.value - before.value }
            }
        })
        .collect();
    let mut order: Vec<usize> = (0..sent.len()).collect();
    order.sort_by_key(|at| sent[*at].time / width);
    let inside = |at: &&usize| {
        let bucket = sent[**at].time / width * width;
        from <= bucket && bucket < to
    };
    let chosen: Vec<usize> = order.iter().filter(inside).copied().collect();
    let values: Vec<f64> = chosen.iter().map(|at| sent[*at].value).collect();
    let last = *values.last()?;
    let sum: f64 = values.iter().sum();
    let counted: f64 = chosen.iter().map(|at| added[*at]).sum();
    let increase = match kind {
        Kind::Counter => Some(counted),
        Kind::Gauge => {
            // The last of each bucket, and the last before.
            let mut lasts: Vec<(Millis, f64)> = Vec::new();
            for at in &order {
                let bucket = sent[*at].time / width * width;
                if bucket < reach || bucket >= to {
                    continue;
                }
                match lasts.last_mut() {
                    Some(found) if found.0 == bucket => found.1 = sent[*at].value,
                    _ => lasts.push((bucket, sent[*at].value)),
                }
            }
            let steps = lasts.windows(2).filter(|pair| pair[1].0 >= from);
            steps
                .map(|pair| {
                    let (before, after) = (pair[0].1, pair[1].1);
                    if after < before { after.max(0.0) } else { after - before }
                })
                .reduce(|a, b| a + b)
        }
    };
    match agg {
        Agg::Avg => (kind == Kind::Gauge).then(|| sum / values.len() as f64),
        Agg::Min => values.iter().copied().reduce(f64::min),
        Agg::Max => values.iter().copied().reduce(f64::max),
        Agg::Sum => Some(if kind == Kind::Gauge { sum } else { counted }),
        Agg::Last => Some(last),
        Agg::Count => Some(values.len() as f64),
        Agg::Increase => increase,
        Agg::Rate => increase.map(|increase| increase / elapsed),
        Agg::P95 => {
            if kind == Kind::Counter {
                return None;
            }
            let mut means: Vec<f64> = Vec::new();
            let bucket = |at: usize| sent[at].time / width;
            for group in chosen.chunk_by(|a, b| bucket(*a) == bucket(*b)) {
                let mean = group.iter().map(|at| sent[*at].value).sum::<f64>() / group.len() as f64;
                means.extend(group.iter().map(|_| mean));
            }
            means.sort_by(f64::total_cmp);
            let rank = (means.len() as f64 * 0.95).ceil() as usize;
            means.get(rank.max(1) - 1).copied()
        }
    }
}

const ALL: [Agg; 9] = [
    Agg::Avg,
    Agg::Min,
    Agg::Max,
    Agg::Sum,
    Agg::Last,
    Agg::Count,
    Agg::Rate,
    Agg::Increase,
    Agg::P95,
];

fn is_close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs())),
        (a, b) => a == b,
    }
}

/// Samples that come mostly in order, some late, some by days; what has been falls at times.
fn samples() -> impl Strategy<Value = Vec<(Millis, f64)>> {
    let age = prop_oneof![
        6 => 0u64..300_000,
        3 => 0u64..5 * 3_600_000,
        1 => 0u64..3 * 86_400_000,
    ];
    let value = prop_oneof![(0i64..1000).prop_map(|n| n as f64 / 10.0), 0.0..1000.0f64];
    proptest::collection::vec((age, value), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn rollups_are_what_all_samples_together_come_to(
        samples in samples(),
        is_counter in any::<bool>(),
        restarts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        step in prop_oneof![Just(1u64), Just(10), Just(60), Just(7200)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let kind = if is_counter { Kind::Counter } else { Kind::Gauge };
            let mut bench = Bench::new();
            let restarts: Vec<usize> =
                restarts.iter().map(|index| index.index(samples.len())).collect();
            let (mut sent, mut clean) = (Vec::new(), 0);
            for (at, (age, value)) in samples.iter().enumerate() {
                let (time, offset) = (NOW - age, at as Offset + 1);
                let what = if is_counter { Value::Total(*value) } else { Value::Gauge(*value) };
                bench.add(what, time, offset).unwrap();
                sent.push(Sent { time, value: *value });
                if restarts.contains(&at) {
                    // Saved twice, for a second save finds things half out of memory.
                    bench.save(clean, offset, NOW).await;
                    clean = offset;
                    bench.save(clean, offset, NOW).await;
                    if at % 2 == 0 {
                        bench.restart().await;
                        // What comes again after a crash is not counted again.
                        bench.add(what, time, offset).unwrap();
                    }
                }
            }
            let spans = [300_000, 5 * 3_600_000, 3 * 86_400_000];
            for span in spans.into_iter().filter(|span| span / 1000 / step <= 11_000) {
                for agg in ALL {
                    let spec = QuerySpec {
                        name: name(),
                        labels: Labels::default(),
                        from: NOW - span,
                        to: NOW + 1,
                        step: Some(Span::seconds(step)),
                        agg: Some(agg),
                    };
                    let columns = bench.series.query(&spec, NOW, &|_| true).await.unwrap();
                    let step = columns.step * 1000;
                    let fits = |tier: &&track::Tier| tier.width <= step;
                    let keep = bench.series.keep();
                    let kept = keep.iter().position(|keep| span <= *keep).unwrap();
                    let fine = TIERS.iter().rposition(|tier| fits(&tier)).unwrap();
                    let width = TIERS[fine.max(kept)].width;
                    for (at, time) in columns.times.iter().enumerate() {
                        let from = time * 1000;
                        let elapsed = (NOW - from.min(NOW)).clamp(width, step) as f64 / 1000.0;
                        let range = from..from + step;
                        let is_empty =
                            !sent.iter().any(|one| range.contains(&(one.time / width * width)));
                        let reach = columns.times[0] * 1000 - 600_000;
                        let range = (from, from + step);
                        let wanted = match is_empty {
                            true => None,
                            false => naive(&sent, kind, agg, width, range, reach, elapsed),
                        };
                        let found = columns.values[0][at];
                        assert!(
                            is_close(found, wanted),
                            "{agg} of {kind:?} at {} by {step} of {width}: {found:?}, not {wanted:?}",
                            NOW - from,
                        );
                    }
                }
            }
            let ever = async |agg| {
                let labels = Labels::default();
                bench.series.window(&name(), &labels, agg, None, NOW, &|_| true).await.unwrap()
            };
            let count = sent.len() as f64;
            assert_eq!(ever(Agg::Count).await, Some(count));
            assert!(is_close(ever(Agg::Max).await, sent.iter().map(|s| s.value).reduce(f64::max)));
            let all = (0, NOW + 1);
            assert!(is_close(ever(Agg::Sum).await, naive(&sent, kind, Agg::Sum, 1, all, 0, 1.0)));
        });
    }
}

#[tokio::test]
async fn a_series_that_cannot_be_read_begins_anew_and_costs_no_other() {
    let mut bench = Bench::new();
    bench.add(Value::Gauge(1.0), NOW, 1).unwrap();
    bench.save(0, 0, NOW).await;
    let inner = bench.series.0.clone();
    let fence = inner.store.lease(NAME, "one").await.unwrap().unwrap();
    let bytes = Some(Bytes::from_static(b"broken"));
    let broken = vec![Part { row: "broken".into(), column: track::HEAD, bytes }];
    inner.store.save(&fence, inner.broker.position(0), broken).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(bench.series.clone().run(stop.clone()));
    bench.series.changes().changed().await.unwrap();
    assert_eq!(bench.series.room().0, 1);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn offsets_that_a_lost_log_gives_anew_are_new_after_the_next_start_too() {
    let mut bench = Bench::new();
    bench.add(Value::Gauge(1.0), NOW, 7).unwrap();
    bench.save(0, 7, NOW).await; // of a log that has nothing now
    let fence = bench.series.0.store.lease(NAME, "one").await.unwrap().unwrap();
    bench.series.begin(Some(&fence)).await.unwrap();
    // No sample came until the next start, which finds a position that the log knows.
    bench.series.0.store.save_cursor(&fence, bench.series.0.broker.head()).await.unwrap();
    let (table, clean, _) = bench.series.begin(Some(&fence)).await.unwrap();
    assert_eq!(clean, bench.series.0.broker.head());
    *bench.series.0.table.write() = table;
    bench.add(Value::Gauge(2.0), NOW + 1000, 5).unwrap();
    let (name, labels) = (name(), Labels::default());
    let count = bench.series.window(&name, &labels, Agg::Count, None, NOW, &|_| true);
    assert_eq!(count.await.unwrap(), Some(2.0));
}

#[tokio::test]
async fn a_derived_value_is_not_forgotten_for_those_who_want_room() {
    let rule = "name = \"shop.orders\"\ntopic = \"shop.*\"\nop = \"count\"";
    let rule = toml::from_str::<derive::Config>(rule).unwrap().rule().unwrap();
    let bounds = Bounds { max_series: 1, max_per_topic: 1, keep: [1000, 2000, 3000] };
    let mut table = Table::new(bounds, Arc::new([rule.clone()]), Telemetry::new());
    let sample = Sample {
        topic: Some(rule.topic().clone()),
        name: Name::new("shop.orders").unwrap(),
        labels: Labels::default(),
        unit: None,
        value: Value::Gauge(1.0),
        time: None,
    };
    table.add("shop.*", sample.clone(), NOW, 1, NOW).unwrap();
    let other = Sample { topic: None, ..sample };
    assert_eq!(table.add("loud", other, NOW, 2, NOW), Err(Dropped::Cap));
    let mut packer = pack::Packer::new().unwrap();
    for place in table.places() {
        table.tend(place, 2, NOW + 86_400_000, &mut packer).unwrap();
    }
    assert_eq!(table.len(), 1);
}
