//! Samples as they were sent: bits, stale markers, what comes late or twice, and where rollups begin.

use super::*;
use crate::ingest::samples::STALE;

fn query<'a>(name: &'a str, from: Millis, to: Millis) -> SelectQuery<'a> {
    let (most_series, most_samples) = (100, 100_000);
    SelectQuery { name: Some(name), matches: &|_| true, from, to, most_series, most_samples }
}

/// The raw samples of the last hour, by their bits.
async fn raw(node: &Upkeep, name: &str) -> Vec<(Millis, u64)> {
    let found = node.series.select(query(name, NOW - 3_599_999, NOW + 60_000)).await.unwrap();
    let raw = &found.series[0].raw;
    raw.iter().map(|sample| (sample.time, sample.value.to_bits())).collect()
}

#[tokio::test]
async fn every_bit_of_a_sample_comes_back_after_restarts() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    let odd = [0x7ff8_0000_0000_0001, 0xfff8_dead_beef_0000, STALE, 0x8000_0000_0000_0000, 1];
    let mut sent = Vec::new();
    for n in 0..400u64 {
        // Several each second, and some late.
        let time = NOW - 600_000 + n * 300 - if n % 7 == 3 { 90_000 + n } else { 0 };
        let value = match n % 5 {
            0 => f64::from_bits(odd[n as usize / 5 % odd.len()]),
            1 => f64::INFINITY,
            _ => n as f64 / 10.0,
        };
        add(&node, Value::Reading(value), time, n + 1).unwrap();
        sent.push((time, value.to_bits()));
        if n % 90 == 89 {
            save(&mut node).await;
            node = bench.node(true).await;
            // Offsets up to here are in the store.
            add(&node, Value::Reading(value), time, n + 1).unwrap();
        }
    }
    sent.sort_by_key(|(time, _)| *time);
    assert_eq!(raw(&node, "value").await, sent);
    save(&mut node).await;
    assert_eq!(raw(&bench.node(false).await, "value").await, sent);
}

#[tokio::test]
async fn an_equal_time_and_value_adds_nothing() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    let mut offset = 0;
    let mut add_at = |node: &Upkeep, ago: u64, value: f64| {
        offset += 1;
        add(node, Value::Reading(value), NOW - ago, offset).unwrap();
    };
    for (ago, value) in [(3000, 1.0), (2000, 2.0), (1000, 3.0)] {
        add_at(&node, ago, value);
        add_at(&node, ago, value);
    }
    save(&mut node).await;
    let node = bench.node(true).await;
    // Late, and after a restart; another value of that time counts instead.
    add_at(&node, 3000, 1.0);
    add_at(&node, 1000, 3.0);
    add_at(&node, 2000, 2.5);
    let point = |ago, value: f64| (NOW - ago, value.to_bits());
    assert_eq!(raw(&node, "value").await, [point(3000, 1.0), point(2000, 2.5), point(1000, 3.0)]);
    let (name, labels) = (name(), Labels::default());
    let count = node.series.window(&name, &labels, Aggregate::Count, None, NOW, &|_| true);
    assert_eq!(count.await.unwrap(), Some(4.0));
}

#[tokio::test]
async fn of_equal_times_the_one_that_came_last_counts_in_whatever_chunk_it_is() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    let time = |n: u64| NOW - 600_000 + n * 2000;
    let mut offset = 0;
    let mut add_at = |node: &Upkeep, time: Millis, value: f64| {
        offset += 1;
        add(node, Value::Reading(value), time, offset).unwrap();
    };
    // The chunk of what came in order is not over yet when the first of late ones is.
    (0..110).for_each(|n| add_at(&node, time(n), 1.0));
    for n in 0..109 {
        add_at(&node, time(n), 2.0);
        add_at(&node, time(n) + 1, 3.0);
    }
    let values = |raw: Vec<(Millis, u64)>| -> Vec<f64> {
        raw.into_iter().map(|(_, bits)| f64::from_bits(bits)).collect()
    };
    let wanted: Vec<f64> = [2.0, 3.0].repeat(109).into_iter().chain([1.0]).collect();
    assert_eq!(values(raw(&node, "value").await), wanted);
    save(&mut node).await;
    let node = bench.node(true).await;
    assert_eq!(values(raw(&node, "value").await), wanted);
}

#[tokio::test]
async fn seconds_that_hubs_kept_once_are_read_as_raw_samples() {
    use super::chunk::{Bucket, Chunk};
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    add(&node, Value::Reading(9.0), NOW, 1).unwrap();
    save(&mut node).await;
    // As they left it: no raw samples, but the last of each second.
    let row = bench.store.rows(NAME).await.unwrap().remove(0);
    let (_, head) = bench.store.parts(NAME, &row, vec![HEAD]).await.unwrap().remove(0);
    let mut head: serde_json::Value = serde_json::from_slice(&head).unwrap();
    head.as_object_mut().unwrap().remove("raw").unwrap();
    let finest = RESOLUTIONS[0];
    let (number, index) = finest.place(NOW - 60_000);
    head["known"][0] = json!([number, number]);
    let mut chunk = Chunk::default();
    chunk.add(index, Bucket::of(5.0, 0.0, 400));
    chunk.add(index + 2, Bucket::of(7.0, 2.0, 0));
    let chunk = chunk.pack(&mut pack::Packer::new().unwrap()).unwrap();
    let part = |column, bytes: Bytes| Part { row: row.as_str().into(), column, bytes: Some(bytes) };
    let parts = vec![
        part(HEAD, serde_json::to_vec(&head).unwrap().into()),
        part(resolution::column(0, number), chunk),
    ];
    bench.store.save(&fence(), bench.broker.epochs().position(1), parts).await.unwrap();
    let mut node = bench.node(true).await;
    let point = |time, value: f64| (time, value.to_bits());
    let old = [point(NOW - 60_000 + 400, 5.0), point(NOW - 58_000, 7.0)];
    assert_eq!(raw(&node, "value").await, old);
    // With what comes now, and after another restart: none of it twice.
    add(&node, Value::Reading(10.0), NOW + 1000, 2).unwrap();
    save(&mut node).await;
    let node = bench.node(true).await;
    assert_eq!(raw(&node, "value").await, [old[0], old[1], point(NOW + 1000, 10.0)]);
}

#[tokio::test]
async fn each_event_counts_in_a_derived_series() {
    let rule = "name = \"shop.orders\"\ntopic = \"shop.*\"\nop = \"count\"";
    let rule = toml::from_str::<derive::DeriveConfig>(rule).unwrap().rule().unwrap();
    let bench = Bench::new();
    let (feed, store, clock) =
        (Feed::new(bench.broker.clone()), bench.store.clone(), bench.clock.clone());
    let rules = Arc::new([rule.clone()]);
    let series = Series::new(bench.config, rules, feed, store, clock, Telemetry::new());
    let mut node = series.begin(Some(fence())).await.unwrap();
    node.catch_up();
    let one =
        Sample { topic: Some(rule.topic().clone()), ..sample("shop.orders", Value::Reading(1.0)) };
    for offset in 1..4 {
        add_sample(&node, one.clone(), NOW - 1000, offset).unwrap();
    }
    assert_eq!(raw(&node, "shop.orders").await.len(), 3);
}

#[tokio::test]
async fn a_late_delta_makes_no_fall_in_the_total() {
    let bench = Bench::new();
    let node = bench.node(true).await;
    for (offset, (ago, added)) in
        [(9000, 5.0), (5000, 5.0), (7000, 2.0), (1000, 1.0)].into_iter().enumerate()
    {
        add(&node, Value::Added(added), NOW - ago, offset as Offset + 1).unwrap();
    }
    let point = |ago, value: f64| (NOW - ago, value.to_bits());
    assert_eq!(raw(&node, "value").await, [point(9000, 5.0), point(5000, 12.0), point(1000, 13.0)]);
}

#[tokio::test]
async fn rollups_know_that_a_series_has_ended() {
    let hour = 3_600_000;
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    let old = NOW - 2 * hour;
    for (offset, (after, value)) in
        [(1, Some(7.0)), (4, Some(3.0)), (6, None), (33, None), (52, None), (58, Some(1.0))]
            .into_iter()
            .enumerate()
    {
        let value = value.map_or(Value::Stale, Value::Reading);
        add(&node, value, old + after * 1000, offset as Offset + 1).unwrap();
    }
    let check = async |node: &Upkeep| {
        let found = node.series.select(query("value", old, NOW)).await.unwrap();
        let rollups = &found.series[0].rollups;
        let shown: Vec<_> =
            rollups.iter().map(|one| ((one.start - old) / 1000, one.count, one.is_stale)).collect();
        assert_eq!(shown, [(0, 2.0, true), (30, 0.0, true), (50, 1.0, false)]);
        let first = rollups[0];
        assert_eq!((first.width, first.sum, first.increase, first.last), (10_000, 10.0, 3.0, 3.0));
        assert_eq!((first.min, first.max, first.last_at), (3.0, 7.0, old + 4000));
        assert!(found.is_rolled_up && found.series[0].raw.is_empty());
    };
    check(&node).await;
    save(&mut node).await;
    let node = bench.node(true).await;
    check(&node).await;
    // Where nothing was counted there is no answer.
    let spec = QuerySpec {
        name: name(),
        labels: Labels::default(),
        from: old,
        to: old + 60_000,
        step: Some(Span::seconds(10)),
        agg: Some(Aggregate::Count),
    };
    let columns = node.series.query(&spec, NOW, &|_| true).await.unwrap();
    let wanted = [Some(2.0), None, None, None, None, Some(1.0)];
    assert_eq!(columns.values[0], wanted);
}

#[tokio::test]
async fn raw_samples_leave_memory_and_store_after_their_hour() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    for n in 0..1000u64 {
        add(&node, Value::Reading(n as f64), NOW - 1_000_000 + n * 1000, n + 1).unwrap();
    }
    save(&mut node).await;
    let before = stored(&bench).await;
    bench.clock.set(NOW + 3_600_001);
    save(&mut node).await;
    assert!(stored(&bench).await + 5 < before, "{before}");
    let found = node.series.select(query("value", NOW - 1_000_000, NOW)).await.unwrap();
    assert!(found.is_rolled_up && found.series[0].raw.is_empty());
    assert_eq!(found.series[0].rollups.iter().map(|one| one.count).sum::<f64>(), 1000.0);
    // What is too much is refused before it is read.
    let few = SelectQuery { most_samples: 99, ..query("value", NOW - 1_000_000, NOW) };
    assert!(matches!(node.series.select(few).await, Err(QueryError::TooManySamples { most: 99 })));
    let none = SelectQuery { most_series: 0, ..few };
    assert!(matches!(node.series.select(none).await, Err(QueryError::TooMany { found: 1, .. })));
}

/// Run it alone: it tells the memory of the process before and after.
#[tokio::test]
#[ignore = "prints figures for docs/performance.md"]
async fn what_a_series_takes() {
    const SERIES: u64 = 1000;
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
    };
    for every in [15_000, 1000] {
        let bench = Bench::new();
        let mut node = bench.node(true).await;
        let of = |series: u64| Sample {
            name: Name::exact("a_metric_of_some_length_total").unwrap(),
            labels: Labels::exact([
                ("instance", "10.0.0.17:9100"),
                ("job", "node"),
                ("n", &*series.to_string()),
            ])
            .unwrap(),
            ..sample("x", Value::Reading(0.0))
        };
        let samples: Vec<_> = (0..SERIES).map(of).collect();
        let mut walk = vec![5000i64; samples.len()];
        let (mut dice, mut offset, before) = (88_172_645_463_325_252u64, 0, resident());
        for time in (NOW - 5_400_000..NOW).step_by(every) {
            for (sample, value) in samples.iter().zip(&mut walk) {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                *value += (dice % 41) as i64 - 20;
                offset += 1;
                let value = Value::Reading(*value as f64 / 100.0);
                let (sample, topic) = (Sample { value, ..sample.clone() }, "a.samples");
                let arrived =
                    Arrived { topic, publisher: "key:p", sample, time, offset, now: time };
                node.series.0.table.write().add(&arrived).unwrap();
            }
            node.series.0.table.write().applied = offset;
            if time % 300_000 < every as u64 {
                bench.clock.set(time);
                save(&mut node).await;
            }
        }
        let each = (resident() - before) / SERIES as f64;
        println!("a sample every {every} ms: {each:.0} bytes a series");
    }
}
