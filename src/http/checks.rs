//! What every path that takes events asks of them before they are published, and counts.

use std::collections::BTreeSet;

use super::{AppState, Problem};
use crate::{
    auth::Principal,
    event::Event,
    ingest::{Bounds, Refusal},
    protocol::Losses,
    topic::Topic,
};

/// How much one batch may hold.
pub(super) fn bounds(state: &AppState) -> Bounds {
    let limits = &state.settings.limits;
    Bounds { event: limits.event.as_usize(), batch: limits.batch }
}

/// A refusal, its limit counted.
pub(super) fn refused(refusal: Refusal, state: &AppState) -> Problem {
    refusal.limit().into_iter().for_each(|limit| state.telemetry.hit(limit));
    Problem::from(refusal)
}

/// Topics or missing grants named in one answer, at most.
const MOST_NAMED: usize = 20;

/// Refuses who may not publish some of these.
pub(super) fn check_grants(
    principal: &Principal,
    events: &[Event],
    state: &AppState,
) -> Result<(), Problem> {
    check_topics(events, state)?;
    let missing = topics(events, |topic| !principal.may_publish(topic));
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<_> = missing.iter().map(|topic| format!("publish {topic}")).collect();
    Err(Problem::forbidden(&missing))
}

/// Refuses events for topics on which nobody but the hub publishes.
pub(super) fn check_topics(events: &[Event], state: &AppState) -> Result<(), Problem> {
    let own = topics(events, |topic| state.terms.own_topics.hold(topic));
    if own.is_empty() { Ok(()) } else { Err(Problem::reserved_topics(&own)) }
}

/// The topics of these events that `is_meant` picks, at most [`MOST_NAMED`].
fn topics(events: &[Event], is_meant: impl Fn(&Topic) -> bool) -> BTreeSet<&Topic> {
    let mut found = BTreeSet::new();
    for event in events {
        if found.len() < MOST_NAMED && is_meant(&event.topic) {
            found.insert(&event.topic);
        }
    }
    found
}

/// Counts what could not be kept.
pub(super) fn count(losses: &Losses, state: &AppState) {
    losses.counts().for_each(|(what, count)| state.telemetry.dropped(what, count));
}
