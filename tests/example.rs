//! The duty that docs/architecture.md shows: what stands there compiles and works.

mod counter;

use pulsehub::{
    broker::Broker, config::Config, duty::Duties, event::Event, follow::Feed, store::Store,
    telemetry::Telemetry, time::Clock,
};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::counter::Counter;
use crate::support::{admitted, event, eventually, filter};

#[test]
fn it_stands_in_the_page_and_is_short() {
    let (page, code) =
        (include_str!("../docs/architecture.md"), include_str!("example/counter.rs"));
    assert!(page.contains(&format!("```rust\n{code}```\n")), "copy tests/example/counter.rs there");
    assert!(code.lines().count() < 60);
    let line = r#"background.run("counter", |stop| duties.clone().run(counter, stop));"#;
    let app = include_str!("../src/app/makers.rs");
    assert!(page.contains(line) && app.contains(&line.replace("counter", "series")));
}

#[tokio::test]
async fn it_counts_and_goes_on_where_it_was() {
    let journal = Config::load(None, [], &[]).unwrap().journal;
    let folder = tempfile::tempdir().unwrap();
    let (clock, telemetry) = (Clock::system(), Telemetry::new());
    let broker = Broker::open(journal, folder.path(), clock.clone(), telemetry.clone()).unwrap();
    let store = Store::open(folder.path(), clock.clone()).unwrap();
    let feed = Feed::new(broker.clone());
    let duties = Duties::new(store.clone(), broker.clone(), "here", telemetry);
    for (round, counts) in [json!({"a": 2, "b": 1}), json!({"a": 4, "b": 2})].iter().enumerate() {
        let (background, serving) = (TaskTracker::new(), CancellationToken::new());
        let counter = Counter { feed: feed.clone(), store: store.clone(), clock: clock.clone() };
        background.spawn(duties.clone().run(counter, serving.clone()));
        // It counts from its first save on.
        eventually("a save", async || store.load_cursor("counter").await.unwrap()).await;
        for (n, kind) in ["a", "b", "a"].into_iter().enumerate() {
            let event = event("t.x", "s", &format!("{round} {n}"), None, "1");
            let event = Event { kind: Some(kind.into()), ..event };
            broker.publish(admitted(vec![event])).await.unwrap();
        }
        eventually("the counts", async || {
            let newest = broker.latest(filter(&["hub.counts"])).all().await.unwrap();
            let data: Value = serde_json::from_slice(newest.record(0)?.data()).unwrap();
            (data == *counts).then_some(())
        })
        .await;
        serving.cancel();
        background.close();
        background.wait().await;
    }
}
