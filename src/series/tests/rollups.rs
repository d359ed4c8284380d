//! Rollups on two nodes against a naive computation that keeps every sample.

use proptest::prelude::*;

use super::*;

/// How long raw samples are kept.
const RAW: Millis = 3_600_000;

/// A sample that was sent, in the order of arrival.
#[derive(Debug, Clone, Copy)]
struct Sent {
    time: Millis,
    value: f64,
}

/// The samples of a stretch, by buckets of a resolution, in order of time; of equal times as they came.
fn naive(
    sent: &[Sent],
    kind: Kind,
    agg: Aggregate,
    width: Millis,
    (from, to): (Millis, Millis),
    reach: Millis,
    elapsed: f64,
) -> Option<f64> {
    // Seconds are made of raw samples, which are read in order of time; of those before the raw hour nothing is known.
    let in_order: Vec<Sent>;
    let sent = if width == 1000 {
        let mut raw: Vec<_> = sent.iter().filter(|one| one.time > NOW - RAW).copied().collect();
        raw.sort_by_key(|one| one.time);
        in_order = raw;
        &in_order
    } else {
        sent
    };
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
    order.sort_by_key(|at| sent[*at].time);
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
        Aggregate::Avg => (kind == Kind::Gauge).then(|| sum / values.len() as f64),
        Aggregate::Min => values.iter().copied().reduce(f64::min),
        Aggregate::Max => values.iter().copied().reduce(f64::max),
        Aggregate::Sum => Some(if kind == Kind::Gauge { sum } else { counted }),
        Aggregate::Last => Some(last),
        Aggregate::Count => Some(values.len() as f64),
        Aggregate::Increase => increase,
        Aggregate::Rate => increase.map(|increase| increase / elapsed),
        Aggregate::P95 => {
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

const ALL: [Aggregate; 9] = [
    Aggregate::Avg,
    Aggregate::Min,
    Aggregate::Max,
    Aggregate::Sum,
    Aggregate::Last,
    Aggregate::Count,
    Aggregate::Rate,
    Aggregate::Increase,
    Aggregate::P95,
];

fn is_close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs())),
        (a, b) => a == b,
    }
}

/// When a sample was and what it is: mostly of the last minutes, some late, some by days, some at
/// equal times; what has been falls at times.
fn sample() -> impl Strategy<Value = (Millis, f64)> {
    let age = prop_oneof![
        4 => 0u64..300_000,
        3 => (0u64..40).prop_map(|n| n * 137),
        2 => 0u64..5 * 3_600_000,
        3 => (0u64..40).prop_map(|n| 4 * 3_600_000 + n * 977),
        1 => 0u64..3 * 86_400_000,
    ];
    let value = prop_oneof![(0i64..1000).prop_map(|n| n as f64 / 10.0), 0.0..1000.0f64];
    (age, value)
}

/// What happens to two nodes.
#[derive(Debug, Clone)]
enum Happening {
    /// Samples are published.
    Publish(Vec<(Millis, f64)>),
    /// A node takes in what the log has.
    Follow(usize),
    /// A node looks after so many of its series; who has the lease writes them.
    LookAfter(usize, usize),
    /// A node dies and starts again.
    Restart(usize),
    /// The lease passes to a node.
    Lease(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let node = 0..2usize;
    prop_oneof![
        6 => proptest::collection::vec(sample(), 1..12).prop_map(Happening::Publish),
        5 => node.clone().prop_map(Happening::Follow),
        6 => (node.clone(), 1..3usize).prop_map(|(node, count)| Happening::LookAfter(node, count)),
        1 => node.clone().prop_map(Happening::Restart),
        1 => node.prop_map(Happening::Lease),
    ]
}

/// The raw samples are those that were sent, and rollups before them have all others once.
async fn check_raw(series: &Series, name: &Name, sent: &[Sent]) {
    let query = |from| SelectQuery {
        name: Some(name.as_str()),
        matches: &|_| true,
        from,
        to: NOW,
        most_series: 1,
        most_samples: 1_000_000,
    };
    let mut wanted: Vec<_> = sent.iter().filter(|one| one.time > NOW - RAW).collect();
    wanted.sort_by_key(|one| one.time);
    wanted.reverse();
    wanted.dedup_by_key(|one| one.time);
    wanted.reverse();
    let wanted: Vec<_> = wanted.iter().map(|one| (one.time, one.value)).collect();
    let points = |found: &Selection| -> Vec<_> {
        found.series[0].raw.iter().map(|one| (one.time, one.value)).collect()
    };
    let found = series.select(query(NOW - RAW + 1)).await.unwrap();
    assert_eq!(points(&found), wanted);
    assert!(!found.is_rolled_up && found.series[0].rollups.is_empty());
    let found = series.select(query(NOW - 4 * 86_400_000)).await.unwrap();
    assert!(found.is_rolled_up);
    let since = found.raw_since;
    let newer = |(time, _): &(Millis, f64)| *time >= since;
    assert_eq!(points(&found), wanted.iter().copied().filter(newer).collect::<Vec<_>>());
    let counted: f64 = found.series[0].rollups.iter().map(|rollup| rollup.count).sum();
    assert_eq!(counted, sent.iter().filter(|one| one.time < since).count() as f64);
}

/// What a node answers about the series of a name is what all samples come to.
async fn check(node: &Upkeep, sent: &[Sent], kind: Kind, step: u64) {
    let series = &node.series;
    let name = Name::new(if kind == Kind::Gauge { "value" } else { "total" }).unwrap();
    let spans = [300_000, 5 * 3_600_000, 3 * 86_400_000];
    for span in spans.into_iter().filter(|span| span / 1000 / step <= 4_000) {
        for agg in ALL {
            let spec = QuerySpec {
                name: name.clone(),
                labels: Labels::default(),
                from: NOW - span,
                to: NOW + 1,
                step: Some(Span::seconds(step)),
                agg: Some(agg),
            };
            let columns = series.query(&spec, NOW, &|_| true).await.unwrap();
            let step = columns.step * 1000;
            let kept = series.keep().resolutions.iter().position(|keep| span <= *keep).unwrap();
            let fits = |resolution: &Resolution| resolution.width <= step;
            let width = RESOLUTIONS[RESOLUTIONS.iter().rposition(fits).unwrap().max(kept)].width;
            for (at, time) in columns.times.iter().enumerate() {
                let from = time * 1000;
                let elapsed = (NOW - from.min(NOW)).clamp(width, step) as f64 / 1000.0;
                let range = from..from + step;
                let is_empty = !sent.iter().any(|one| range.contains(&(one.time / width * width)));
                let reach = columns.times[0] * 1000 - 600_000;
                let range = (from, from + step);
                let wanted = match is_empty {
                    true => None,
                    false => naive(sent, kind, agg, width, range, reach, elapsed),
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
    check_raw(series, &name, sent).await;
    let labels = Labels::default();
    let ever = async |agg| series.window(&name, &labels, agg, None, NOW, &|_| true).await.unwrap();
    assert_eq!(ever(Aggregate::Count).await, Some(sent.len() as f64));
    let newest = sent.iter().max_by_key(|one| one.time).map(|one| one.value);
    assert_eq!(ever(Aggregate::Last).await, newest, "the later of equal times");
    assert!(is_close(
        ever(Aggregate::Max).await,
        sent.iter().map(|one| one.value).reduce(f64::max)
    ));
    let all = naive(sent, kind, Aggregate::Sum, 1, (0, NOW + 1), 0, 1.0);
    assert!(is_close(ever(Aggregate::Sum).await, all));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn rollups_are_what_all_samples_together_come_to(
        first in sample(),
        happenings in proptest::collection::vec(happening(), 1..40),
        step in prop_oneof![Just(1u64), Just(10), Just(60), Just(7200)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::with(&[("journal.sync", "normal".to_owned())]);
            let mut holder = 0;
            let mut nodes = [bench.node(true).await, bench.node(false).await];
            let mut sent = Vec::new();
            for happening in [Happening::Publish(vec![first])].into_iter().chain(happenings) {
                match happening {
                    Happening::Publish(samples) => {
                        for (age, value) in samples {
                            let time = NOW - age;
                            bench.publish(time, value).await;
                            // What was sent before adds nothing, as far back as that is known.
                            let same = |one: &Sent| one.time == time && one.value == value;
                            if time <= NOW - RAW || !sent.iter().any(same) {
                                sent.push(Sent { time, value });
                            }
                        }
                    }
                    Happening::Follow(at) => follow(&mut nodes[at]).await,
                    Happening::LookAfter(at, count) => {
                        let node = &mut nodes[at];
                        if node.round.places.is_empty() {
                            node.begin_round().await.unwrap();
                        }
                        node.round.slice = count;
                        node.slice().await.unwrap();
                    }
                    Happening::Restart(at) => nodes[at] = bench.node(at == holder).await,
                    // Who loses it finds its writing refused, and both begin with what is written.
                    Happening::Lease(to) => {
                        holder = to;
                        nodes = [bench.node(to == 0).await, bench.node(to == 1).await];
                    }
                }
            }
            for node in &mut nodes {
                follow(node).await;
                check(node, &sent, Kind::Gauge, step).await;
                check(node, &sent, Kind::Counter, step).await;
            }
            save(&mut nodes[holder]).await;
            let fresh = bench.node(false).await;
            check(&fresh, &sent, Kind::Gauge, step).await;
            check(&fresh, &sent, Kind::Counter, step).await;
        });
    }
}
