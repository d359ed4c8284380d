//! What a session allows as time goes by, which is passed in.

use std::{future::poll_fn, task::Poll, time::Duration};

use serde_json::value::to_raw_value;

use super::*;
use crate::{
    admission::{Admission, OwnEvent},
    auth::CredentialId,
    broker::Broker,
    bytesize::ByteSize,
    config::Config,
    connections::Connections,
    dialect::{Form, StreamForm},
    event::PublisherName,
    grants::Grants,
    hub::{Hub, Start, Subscription},
    position::Epoch,
    protocol::Mode,
    telemetry::Telemetry,
    time::Clock,
    topic::{OwnTopics, Topic},
};

fn terms(flags: &[(&str, &str)]) -> Arc<Terms> {
    let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let config = Config::load(None, [], &flags).unwrap();
    let terms = Terms {
        config: config.socket,
        limits: config.limits,
        telemetry: Telemetry::new(),
        connections: Connections::new(1, Telemetry::new()),
        admission: Admission::new(OwnTopics::default(), (&config.limits).into()),
    };
    terms.into()
}

fn at(begun: Instant, millis: u64) -> Now {
    let head = Position { epoch: Epoch::new(1), offset: 0 };
    Now { instant: begun + Duration::from_millis(millis), wall: millis, head, stale: false }
}

/// Whether a client may send so many frames at each of these milliseconds: five a second, seven at once.
fn may_send(sent: &[(u64, usize)]) -> bool {
    let terms = terms(&[("limits.messages_per_second", "5"), ("limits.subscriptions", "1")]);
    let begun = Instant::now();
    let at = |millis| at(begun, millis);
    let (client, waker) = (([127, 0, 0, 1], 9).into(), Arc::default());
    let mut session = Session::new(terms, client, waker, None, None, at(0));
    let mut frames =
        sent.iter().flat_map(|(millis, count)| std::iter::repeat_n(at(*millis), *count));
    frames.all(|now| session.other(false, now).is_empty())
}

#[test]
fn what_was_used_up_is_allowed_again_as_time_passes_and_never_more_than_at_once() {
    assert!(may_send(&[(0, 7)]) && !may_send(&[(0, 8)]));
    assert!(may_send(&[(0, 7), (200, 1), (1000, 4)]));
    assert!(!may_send(&[(0, 7), (199, 1)]));
    assert!(!may_send(&[(0, 7), (1000, 6)]));
    assert!(may_send(&[(60_000, 7)]) && !may_send(&[(60_000, 8)]));
}

#[test]
fn only_who_can_answer_a_ping_is_gone_when_it_is_not_answered() {
    let flags = [("socket.ping", "20s"), ("socket.pong_timeout", "5s")];
    let after_a_ping = |form| {
        let principal = Principal {
            name: "ada".into(),
            publisher: PublisherName::anonymous(),
            grants: Grants { subscribe: vec![TopicPattern::parse("a").unwrap()], publish: vec![] },
            admin: false,
            expires: None,
            credential: CredentialId::Token,
        };
        let (begun, terms) = (Instant::now(), terms(&flags));
        let only = Subscription {
            form,
            filter: TopicFilter::new([TopicPattern::parse("a").unwrap()]),
            mode: Mode::All,
            max_hz: None,
            start: Start::Live,
            owner: None,
        };
        let (client, waker) = (([127, 0, 0, 1], 9).into(), Arc::default());
        let principal = Some(Arc::new(principal));
        let (mut session, _) =
            Session::only(terms, client, waker, principal, only, at(begun, 0)).unwrap();
        assert!(matches!(session.tick(at(begun, 20_000))[..], [Action::Ping]));
        session.tick(at(begun, 25_000))
    };
    let simple = after_a_ping(Form::Events);
    assert!(matches!(simple[..], [Action::Close(CloseCode::Timeout, _)]), "{simple:?}");
    let stream = after_a_ping(Form::Stream(StreamForm { is_typed: false, is_bare: false }));
    assert!(stream.is_empty(), "{stream:?}");
}

#[tokio::test]
async fn a_subscription_that_always_had_more_kept_the_others_from_their_turn() {
    let (mut config, folder) = (Config::load(None, [], &[]).unwrap(), tempfile::tempdir().unwrap());
    config.hub.chunk_bytes = ByteSize(1024);
    let telemetry = Telemetry::new();
    let broker =
        Broker::open(config.journal, folder.path(), Clock::system(), telemetry.clone()).unwrap();
    let topic = |name: &str| Topic::parse(&format!("hub.{name}")).unwrap();
    let several = [("a", 20), ("b", 1)];
    for (name, count) in several {
        let data = to_raw_value(&"x".repeat(2000)).unwrap();
        let event = |_| OwnEvent::new(&topic(name), "test", 0, data.clone());
        broker.publish((0..count).map(event).collect()).await.unwrap();
    }
    let hub = Hub::new(broker, config.hub, telemetry.clone());
    let mut subscriptions = Subscriptions::default();
    for (name, count) in several {
        let asked = Subscription {
            form: Form::Messages(name.into()),
            filter: TopicFilter::new([TopicPattern::from(&topic(name))]),
            mode: Mode::All,
            max_hz: None,
            start: Start::Last(count),
            owner: None,
        };
        subscriptions.add_asked(&asked);
        let (cursor, _) = hub.subscribe(asked, Arc::default()).await.unwrap();
        subscriptions.follow(cursor);
    }
    let mut frames: Vec<Bytes> = Vec::new();
    for _ in 0..4 {
        // A byte is a burst: one frame at a time.
        let next = poll_fn(|cx| {
            let before = frames.len();
            let written = |frame| frames.push(frame);
            subscriptions.deliver(cx, 1, Dialect::HubV1, &telemetry, written).unwrap();
            if frames.len() > before { Poll::Ready(()) } else { Poll::Pending }
        });
        next.await;
    }
    let is_b = |frame: &Bytes| frame.windows(9).any(|part| part == b"\"sub\":\"b\"");
    assert!(frames.iter().any(is_b), "{frames:?}");
}
