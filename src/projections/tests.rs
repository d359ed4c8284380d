//! Projections and series over one log.

use serde_json::{json, value::to_raw_value};

use super::*;
use crate::{admission::OwnEvent, broker::Batch, config, store::Store, topic::Topic};

/// 2026-11-20T12:00:00Z
const START: u64 = 1_795_176_000_000;

/// The projections that come with the hub, over a log of their own that nobody follows yet.
struct ProjectionBench {
    broker: Broker,
    store: Store,
    feed: Feed,
    series: Series,
    projections: Projections,
    telemetry: Telemetry,
    _folder: tempfile::TempDir,
}

impl ProjectionBench {
    fn new() -> Self {
        let config = config::Config::load(None, [], &[]).unwrap();
        let plan = config.plan().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (telemetry, clock) = (Telemetry::new(), Clock::system());
        let broker =
            Broker::open(config.journal, folder.path(), clock.clone(), telemetry.clone()).unwrap();
        let store = Store::open(folder.path(), clock.clone()).unwrap();
        let feed = Feed::new(broker.clone());
        let (log, rules) = (feed.clone(), plan.rules());
        let (kept, counted) = (store.clone(), telemetry.clone());
        let series = Series::new(config.series, rules, log, kept, clock.clone(), counted);
        let bounds = ProjectionBounds { keys: 10, event: 100_000 };
        let (shown, log, counted) = (series.clone(), feed.clone(), telemetry.clone());
        let projections = Projections::new(plan, shown, log, bounds, clock, counted);
        Self { broker, store, feed, series, projections, telemetry, _folder: folder }
    }
}

#[tokio::test]
async fn series_and_projections_share_the_payloads_that_one_of_them_has_parsed() {
    const EVENTS: u64 = 50;
    let ProjectionBench { broker, store, feed, series, projections, telemetry, _folder } =
        ProjectionBench::new();
    let stop = CancellationToken::new();
    let duties = Duties::new(store, broker.clone(), "here", telemetry);
    let running = [
        tokio::spawn(duties.clone().run(series.clone(), stop.clone())),
        tokio::spawn(projections.clone().run(duties, stop.clone())),
    ];
    projections.ready().await;
    for n in 0..EVENTS {
        let data = json!({"status": "success", "duration": n});
        let topic = Topic::parse("voicehive.calls").unwrap();
        let event = OwnEvent::new(&topic, "test", START, to_raw_value(&data).unwrap());
        let offset = broker.publish(event.into()).await.unwrap().position.offset;
        let both = async {
            projections.0.collector.progress().reaches(offset).await;
            series.progress().reaches(offset).await;
        };
        timeout(Duration::from_secs(60), both).await.expect("it is followed");
    }
    assert_eq!(feed.parsed(), EVENTS, "each for both, not for either");
    stop.cancel();
    for task in running {
        task.await.unwrap();
    }
}

/// A node without the lease publishes no projection, and so reads none.
#[tokio::test]
async fn what_nobody_read_kept_whole_blocks_in_memory() {
    const ROUNDS: u64 = 120;
    let ProjectionBench { broker, projections, _folder, .. } = ProjectionBench::new();
    let collector = projections.0.collector.clone();
    let following = tokio::spawn(async move { collector.run().await });
    let mut changes = projections.0.collector.changes();
    let began = changes.wait_for(|changes| *changes > 0);
    drop(timeout(Duration::from_secs(60), began).await.expect("it begins").unwrap());
    // Small enough to share a block with the event that is followed.
    let large = to_raw_value(&"x".repeat(100 << 10)).unwrap();
    let mut last = 0;
    for n in 0..ROUNDS {
        let event = |topic: &str, data| {
            let topic = Topic::parse(topic).unwrap();
            OwnEvent::new(&topic, "test", START, data)
        };
        let small = event("voicehive.calls", to_raw_value(&n).unwrap());
        let batch: Batch<'_> = [small, event("shop.large", large.clone())].into_iter().collect();
        last = broker.publish(batch).await.unwrap().position.offset;
    }
    let reached = projections.0.collector.progress().reaches(last);
    timeout(Duration::from_secs(60), reached).await.expect("it is followed");
    let applied = projections.0.collector.applied();
    assert!(last - applied <= 2 * 82, "{applied} of {last} were taken in: the rest waits whole");
    following.abort();
}
