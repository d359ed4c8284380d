//! Who hits a bound of series is told which label exploded, and costs nobody else anything.

use super::*;
use crate::event::{Event, PublisherName};

/// An event with a series for each user.
fn of_users(publisher: &str, users: std::ops::Range<u32>) -> Event {
    let row = |user: u32| json!(["logins", {"user_id": format!("user number {user}"), "region": "eu"}, 1]);
    let rows: Vec<_> = users.map(row).collect();
    let data = to_raw_value(&json!({"rows": rows})).unwrap();
    Event {
        topic: Topic::parse(&format!("{publisher}.samples")).unwrap(),
        id: "1".into(),
        id_is_ours: true,
        publisher: PublisherName::key(publisher),
        source: "s".into(),
        kind: Some("samples".into()),
        time: crate::time::rfc3339(NOW).into(),
        key: None,
        data,
    }
}

/// Takes in an event past the log.
fn take_in(node: &Upkeep, event: &Event, offset: Offset) {
    let mut table = node.series.0.table.write();
    for sample in extract::found_in(event).samples {
        let (topic, publisher) = (event.topic.as_str(), event.publisher.as_str());
        let _ = table.add(&Arrived { topic, publisher, sample, time: NOW, offset, now: NOW });
    }
}

async fn told(flag: (&str, &str), wanted: &str) {
    let bench = Bench::with(&[(flag.0, flag.1.to_owned())]);
    let node = bench.node(true).await;
    let losses = |events: &[Event]| {
        let mut losses = crate::protocol::Losses::default();
        node.series.crowded_out(events, &mut losses);
        serde_json::to_value(&losses).unwrap()
    };
    let flood = of_users("loud", 0..20_000);
    assert_eq!(losses(std::slice::from_ref(&flood)), json!({"reasons": []}));
    take_in(&node, &flood, 1);
    let full = node.series.room().0;
    assert!(full < 20_000, "{flag:?}: {full}");
    let again = [of_users("quiet", 0..3), of_users("loud", 19_990..20_003)];
    let said = format!(
        "event 1: there is no room for another series: {wanted}: the label `user_id` of loud.samples has {full} values"
    );
    assert_eq!(losses(&again), json!({"sample": 13, "reasons": [said]}));
    // Those that are there go on.
    assert_eq!(losses(&[of_users("loud", 0..3)]), json!({"reasons": []}));
    bench.clock.set(NOW + 60_000);
    assert_eq!(losses(&again), json!({"reasons": []}), "a minute later there may be room");
}

#[tokio::test]
async fn who_hits_a_bound_is_told_which_label_exploded() {
    told(("series.max_series", "100"), "`series.max_series` is reached").await;
    told(("series.max_per_topic", "100"), "`series.max_per_topic` is reached").await;
    told(("series.max_per_publisher", "100"), "`series.max_per_publisher` is reached").await;
    told(("series.max_bytes", "1 MiB"), "`series.max_bytes` is reached").await;
    let flag = ("series.max_bytes_per_publisher", "1 MiB");
    told(flag, "`series.max_bytes_per_publisher` is reached").await;
}

#[tokio::test]
async fn a_flood_of_one_credential_leaves_the_others_their_room() {
    let flags =
        [("series.max_per_publisher", "100".to_owned()), ("series.max_series", "150".to_owned())];
    let bench = Bench::with(&flags);
    let mut node = bench.node(true).await;
    take_in(&node, &of_users("loud", 0..1000), 1);
    take_in(&node, &of_users("quiet", 0..40), 2);
    let of = |node: &Upkeep, topic: &str| node.series.names(|one| *one.topic == *topic).len();
    assert_eq!((of(&node, "loud.samples"), of(&node, "quiet.samples")), (100, 40));
    // Whose they are is known after a restart.
    save(&mut node).await;
    let node = bench.node(true).await;
    take_in(&node, &of_users("loud", 1000..1010), 3);
    take_in(&node, &of_users("quiet", 40..50), 4);
    assert_eq!((of(&node, "loud.samples"), of(&node, "quiet.samples")), (100, 50));
}

#[tokio::test]
async fn series_that_had_long_been_silent_kept_their_bytes_for_ever() {
    for flag in ["series.max_bytes", "series.max_bytes_per_publisher"] {
        let bench = Bench::with(&[(flag, "1 MiB".to_owned())]);
        let mut node = bench.node(true).await;
        take_in(&node, &of_users("loud", 0..20_000), 1);
        let full = node.series.room().0;
        bench.clock.set(NOW + 31 * 86_400_000);
        save(&mut node).await;
        assert!(node.series.room().0 < full, "{flag}: {} of {full}", node.series.room().0);
    }
}
