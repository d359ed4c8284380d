//! What a node makes of the log when retention has gone past it, or when it falls behind.

use std::{path::Path, time::Duration};

use serde_json::value::RawValue;

use super::*;
use crate::{
    auth::{Principal, Role},
    broker::{Broker, journal::RetentionRule},
    config::Config,
    follow::Progress,
    grants::Grants,
    instances::record::removal,
    topic::{Topic, TopicPattern},
};

const START: Millis = 1_795_176_000_000;

fn record(id: &str, now: Millis) -> InstanceRecord {
    let (app, id) = (AppName::parse("tt").unwrap(), InstanceId::parse(id).unwrap());
    let mut record = InstanceRecord::new(app, id, 3600, now);
    record.hear(Sign::Heartbeat, now);
    record
}

/// A registry with a log and a store of its own.
fn registry(config: Config, folder: &Path, clock: &Clock) -> Instances {
    let telemetry = Telemetry::new();
    let broker = Broker::open(config.journal, folder, clock.clone(), telemetry.clone()).unwrap();
    let store = Store::open(folder, clock.clone()).unwrap();
    Instances::new(config.instances, Feed::new(broker), store, clock.clone(), telemetry).unwrap()
}

fn duties(instances: &Instances) -> Duties {
    let (broker, store) = (instances.known.broker(), instances.known.store());
    Duties::new(store.clone(), broker.clone(), "here", Telemetry::new())
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
    let clock = Clock::manual(START);
    let instances = registry(config, folder.path(), &clock);
    let broker = instances.known.broker().clone();
    let up = |id: &str, now| record(id, now).event("instance.up", None, now).unwrap();

    broker.publish(up("old", START).into()).await.unwrap();
    let now = START + 50_000;
    clock.set(now);
    // So much of them that who reads does not come to the forgetting at once.
    let mut events: Vec<OwnEvent> = (0..2000).map(|n| up(&format!("i{n}"), now)).collect();
    events.insert(0, up("gone", now));
    let gone = record("gone", now);
    events.push(removal(&gone.app, &gone.instance_id, now).unwrap());
    broker.publish(events.into_iter().collect()).await.unwrap();
    clock.set(START + 61_000);
    broker.maintain().await;

    let mut keeping_up = instances.known.keep_up(Some(0), Progress::default());
    while keeping_up.reached() < broker.head().offset {
        keeping_up.step().await;
        assert_eq!(instances.get(&gone.app, &gone.instance_id), None);
    }
    assert_eq!(instances.list(|_| true).len(), 2001, "retention takes no instance away");
}

#[tokio::test]
async fn a_start_does_not_read_again_what_says_nothing_of_instances() {
    let folder = tempfile::tempdir().unwrap();
    let instances =
        registry(Config::load(None, [], &[]).unwrap(), folder.path(), &Clock::manual(START));
    let (broker, store) = (instances.known.broker(), instances.known.store());
    let topic = Topic::parse("t.a").unwrap();
    let other = |_| OwnEvent::new(&topic, "other", START, RawValue::NULL.to_owned());
    broker.publish((0..100).map(other).collect()).await.unwrap();
    instances.load().await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(instances.clone().run(duties(&instances), stop.clone()));
    for round in 1..3 {
        let head = broker.head();
        let is_noted = async {
            while store.load_cursor(NAME).await.unwrap() != Some(head) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let noted = tokio::time::timeout(Duration::from_secs(60), is_noted).await;
        noted.unwrap_or_else(|_| panic!("round {round}: it begins before what is known"));
        broker.publish((round * 100..round * 100 + 100).map(other).collect()).await.unwrap();
    }
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn no_older_key_stays_good_when_the_log_may_name_one_that_was_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let instances =
        registry(Config::load(None, [], &[]).unwrap(), folder.path(), &Clock::manual(START));
    let InstanceRecord { app, instance_id: id, .. } = &record("one", START);
    let stop = CancellationToken::new();
    let running = tokio::spawn(instances.clone().run(duties(&instances), stop.clone()));
    let admin = Role::admin();
    let grants = Grants { subscribe: admin.subscribe, publish: admin.publish };
    let speaker =
        instances.keys().claim(app, id).speaker(&Principal { grants, ..Principal::hub() });
    instances.register(&speaker.unwrap(), Registration::default()).await.unwrap();
    instances.keys().rotate(app, id).await.unwrap();
    let good = async || {
        let mut keys = instances.keys.keys.list().await.unwrap();
        keys.retain(|key| !key.revoked);
        keys
    };
    let named = || instances.get(app, id).unwrap().key.unwrap().id;
    assert_eq!(good().await[0].id, named());
    stop.cancel();
    running.await.unwrap();

    // From here on the log is not followed.
    let behind = instances.keys().rotate(app, id).await;
    assert!(matches!(behind, Err(KeyError::Behind)), "{:?}", behind.err());
    assert_eq!(good().await, []);
    let running = tokio::spawn(instances.clone().run(duties(&instances), CancellationToken::new()));
    instances.keys().rotate(app, id).await.unwrap();
    let good = good().await;
    assert_eq!((good.len(), &good[0].id), (1, &named()));
    running.abort();
}

#[tokio::test]
async fn late_is_told_and_up_never() {
    let folder = tempfile::tempdir().unwrap();
    let instances =
        registry(Config::load(None, [], &[]).unwrap(), folder.path(), &Clock::manual(START));
    let broker = instances.known.broker().clone();
    let up = record("one", START);
    broker.publish(up.event("instance.up", None, START).unwrap().into()).await.unwrap();
    instances.load().await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(instances.clone().run(duties(&instances), stop.clone()));
    // Both were written by who knew nothing of the other.
    let (mut late, mut heard) = (up.clone(), up);
    let previous = late.pulse.enter(InstanceState::Late, START + 1);
    assert_eq!(heard.hear(Sign::Heartbeat, START + 2), None);
    let told = [
        late.event("instance.late", previous, START + 1).unwrap(),
        heard.event("instance.heartbeat", None, START + 2).unwrap(),
    ];
    broker.publish(told.into_iter().collect()).await.unwrap();
    let told = async {
        loop {
            let newest = broker.latest(instances.known.filter.clone()).all().await.unwrap();
            let data = newest.record(0).unwrap();
            if data.kind() == Some(b"\"instance.up\"") && data.offset() > 3 {
                return String::from_utf8(data.data().to_vec()).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(60), told).await.expect("up is told");
    assert!(told.contains("\"previous\":\"late\"") && told.contains("\"state\":\"up\""), "{told}");
    stop.cancel();
    running.await.unwrap();
}
