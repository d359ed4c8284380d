//! What a node makes of the log when retention has gone past it.

use super::*;
use crate::{
    broker::journal::RetentionRule,
    config::Config,
    instances::record::{Sign, removal},
};

const START: Millis = 1_795_176_000_000;

fn record(id: &str, now: Millis) -> Record {
    let (app, id) = (AppName::parse("tt").unwrap(), InstanceId::parse(id).unwrap());
    let mut record = Record::new(app, id, 3600, now);
    record.hear(Sign::Heartbeat, now);
    record
}

#[tokio::test]
async fn a_forgotten_instance_does_not_come_back_behind_a_gap() {
    let mut config = Config::load(None, [], &[]).unwrap();
    config.journal.retention = vec![RetentionRule {
        topics: vec![TopicPattern::parse("hub.instances.*").unwrap()],
        max_age: Some(Span::seconds(60)),
        max_bytes: None,
    }];
    let folder = tempfile::tempdir().unwrap();
    let (clock, telemetry) = (Clock::manual(START), Telemetry::new());
    let broker =
        Broker::open(config.journal, folder.path(), clock.clone(), telemetry.clone()).unwrap();
    let store = Store::open(folder.path(), clock.clone()).unwrap();
    let instances =
        Instances::new(config.instances, "here", broker.clone(), store, clock.clone(), telemetry)
            .unwrap();
    let up = |id: &str, now| record(id, now).event("instance.up", None, now).unwrap();

    broker.publish(vec![up("old", START)]).await.unwrap();
    let now = START + 50_000;
    clock.set(now);
    // So much of them that who reads does not come to the forgetting at once.
    let mut events: Vec<Event> = (0..2000).map(|n| up(&format!("i{n}"), now)).collect();
    events.insert(0, up("gone", now));
    let gone = record("gone", now);
    events.push(removal(&gone.app, &gone.instance_id, now).unwrap());
    broker.publish(events).await.unwrap();
    clock.set(START + 61_000);
    broker.maintain().await;

    let mut reader = Reader::new(instances.0.filter.clone(), broker.clone(), 0);
    while reader.reached() < broker.head().offset {
        instances.take_next(&mut reader).await.unwrap();
        assert_eq!(instances.get(&gone.app, &gone.instance_id), None);
    }
    assert_eq!(instances.list(|_| true).len(), 2001, "retention takes no instance away");
}
