//! What a session allows as time goes by, which is passed in.

use std::time::Duration;

use super::*;
use crate::{
    admission::Admission, config::Config, position::Epoch, telemetry::Telemetry, topic::OwnTopics,
};

/// Whether a client may send so many frames at each of these milliseconds: five a second, seven at once.
fn may_send(sent: &[(u64, usize)]) -> bool {
    let flags = [("limits.messages_per_second", "5"), ("limits.subscriptions", "1")];
    let config =
        Config::load(None, [], &flags.map(|(key, value)| (key, value.to_owned()))).unwrap();
    let terms = Terms {
        config: config.socket,
        limits: config.limits,
        telemetry: Telemetry::new(),
        admission: Admission::new(OwnTopics::default(), (&config.limits).into()),
    };
    let begun = Instant::now();
    let head = Position { epoch: Epoch::new(1), offset: 0 };
    let at = |millis| Now {
        instant: begun + Duration::from_millis(millis),
        wall: millis,
        head,
        stale: false,
    };
    let mut session = Session::new(terms.into(), "s".into(), Dialect::HubV1, None, None, at(0));
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
