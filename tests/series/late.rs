//! Samples that come late: each counts once, on every node, and none is taken for the newest.

use std::time::Duration;

use pulsehub::{
    store::Store,
    time::{Clock, Millis, parse_rfc3339, rfc3339},
};
use serde_json::{Value, json};

use super::{becomes, get};
use crate::support::{eventually, hub::TestHub, redis::RedisServer};

const HOUR: Millis = 3_600_000;

fn sample(time: Millis, value: u64) -> Value {
    json!({"topic": "t.metrics", "time": rfc3339(time), "data": {"n": value}})
}

/// What `agg` of `t.n` is at `time`, by steps of so many seconds.
async fn figure(hub: &TestHub, agg: &str, time: Millis, step: u64) -> Value {
    let from = time / 1000 / step * step;
    let to = from + step;
    let path = format!("/api/v1/series/query?name=t.n&agg={agg}&step={step}s&from={from}&to={to}");
    let columns = get(hub, &["**"], &path).await;
    assert_eq!((&columns["times"], &columns["step"]), (&json!([from]), &json!(step)), "{columns}");
    columns["values"][0][0].clone()
}

#[tokio::test]
async fn a_late_sample_is_not_the_last_of_its_bucket() {
    let start = parse_rfc3339("2026-11-20T12:00:00Z").unwrap();
    let mut hub = TestHub::with_clock(&[], Clock::manual(start)).await;
    // Into the newest bucket of every width, in memory.
    let newest = start - 60_000;
    hub.publish(json!([sample(newest + 900, 9), sample(newest + 100, 1)])).await;
    // Into one that is over, and into one of a day ago; of equal times the later counts.
    let (over, old) = (newest - 60_000, start - 24 * HOUR);
    hub.publish(json!([sample(over + 900, 20), sample(over + 300, 3), sample(over + 900, 10)]))
        .await;
    hub.publish(json!([sample(old + 900, 50), sample(old + 899, 5)])).await;
    becomes(&hub, "t.n", 9.0).await;
    let check = async |hub: &TestHub, old_last: f64| {
        for step in [1, 10, 60] {
            eventually("the last at each time", async || {
                let last = async |time| figure(hub, "last", time, step).await;
                (last(newest).await == 9.0 && last(over).await == 10.0).then_some(())
            })
            .await;
        }
        assert_eq!(figure(hub, "last", old, 60).await, old_last);
        assert_eq!(figure(hub, "count", over, 60).await, 3.0);
    };
    check(&hub, 50.0).await;
    hub.stop().await;
    hub.start_again().await;
    check(&hub, 50.0).await;
    // After a restart too, be the chunk in memory or only in the store.
    let late = [sample(newest + 899, 2), sample(over + 700, 4), sample(old + 500, 6)];
    hub.publish(late.as_slice().into()).await;
    eventually("what came late", async || {
        (figure(&hub, "count", old, 60).await == 3.0).then_some(())
    })
    .await;
    check_counts(&hub, &[(newest, 3.0), (over, 4.0)]).await;
    assert_eq!(figure(&hub, "last", newest, 60).await, 9.0);
    assert_eq!(figure(&hub, "last", over, 60).await, 10.0);
    assert_eq!(figure(&hub, "last", old, 60).await, 50.0);
    // And one that is not older than the last is.
    hub.publish(sample(old + 900, 7)).await;
    eventually("the later of equal times", async || {
        (figure(&hub, "last", old, 60).await == 7.0).then_some(())
    })
    .await;
    hub.stop().await;
    hub.start_again().await;
    eventually("and after a restart", async || {
        (figure(&hub, "last", old, 60).await == 7.0).then_some(())
    })
    .await;
    assert_eq!(figure(&hub, "last", newest, 60).await, 9.0);
}

async fn check_counts(hub: &TestHub, wanted: &[(Millis, f64)]) {
    for (time, count) in wanted {
        assert_eq!(figure(hub, "count", *time, 60).await, *count);
    }
}

/// All samples of `t.n` that a node knows of.
async fn count(hub: &TestHub) -> f64 {
    let path = "/api/v1/series/query?name=t.n&agg=count&from=12h&step=1h";
    let columns = get(hub, &["**"], path).await;
    let row = columns["values"][0].as_array().cloned().unwrap_or_default();
    row.iter().filter_map(Value::as_f64).sum()
}

#[tokio::test]
async fn a_backfill_is_counted_once_while_another_node_saves_it() {
    let redis = RedisServer::start().await;
    let flags = [("redis", redis.url()), ("series.save_every", "1s".to_owned())];
    let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let one = TestHub::with(&flags).await;
    let store = Store::join(redis.server(), Clock::system()).await.unwrap();
    let saved = async |before: Option<u64>| {
        eventually("a save", async || {
            let position = store.load_cursor("series").await.ok()?.map(|at| at.offset);
            (position > before).then_some(position)
        })
        .await
    };
    let two = TestHub::with(&flags).await;
    let now = Clock::system().now();
    one.publish(json!([sample(now - 6 * HOUR, 1), sample(now, 1)])).await;
    let mut sent = 2;
    // The chunk of six hours ago is in the store, and no longer in the memory of either node.
    let mut position = saved(saved(None).await).await;
    for _ in 0..3 {
        for _ in 0..40 {
            one.publish(sample(now - 6 * HOUR + sent, sent)).await;
            sent += 1;
            for hub in [&one, &two] {
                let found = count(hub).await;
                assert!(found <= sent as f64, "{found} samples of {sent}");
            }
        }
        position = saved(position).await;
    }
    for hub in [&one, &two] {
        eventually("all of it", async || (count(hub).await == sent as f64).then_some(())).await;
    }
}

#[tokio::test]
async fn late_samples_are_seen_at_once_after_the_log_was_lost() {
    let mut hub = TestHub::with(&[("series.save_every", "1h")]).await;
    let now = Clock::system().now();
    let old: Vec<_> = (0..30).map(|n| sample(now - 6 * HOUR + n, n)).collect();
    hub.publish(old.into()).await;
    hub.publish(sample(now, 1)).await;
    eventually("all of it", async || (count(&hub).await == 31.0).then_some(())).await;
    hub.stop().await;
    for file in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let gone = std::fs::remove_file(hub.data().join(file));
        assert!(gone.is_ok() || file != "journal.db", "{gone:?}");
    }
    hub.start_again().await;
    // Its offsets are given anew, below those that the chunk in the store was saved with.
    for more in 0..3 {
        hub.publish(sample(now - 6 * HOUR + 100 + more, 7)).await;
        let wanted = 32.0 + more as f64;
        eventually("one more", async || (count(&hub).await == wanted).then_some(())).await;
    }
    hub.stop().await;
    hub.start_again().await;
    eventually("after a restart", async || (count(&hub).await == 34.0).then_some(())).await;
    tokio::time::timeout(Duration::from_secs(30), hub.stop()).await.unwrap();
}
