//! A session's subscriptions: the one place where they stand, from the moment they are asked for.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::{
    dialect::{Dialect, Form},
    hub::{Cursor, CursorItem, Gap, Lag, Subscription},
    position::Offset,
    protocol::{CloseCode, ServerMessage},
    telemetry::Telemetry,
    topic::TopicFilter,
};

/// All subscriptions of a session.
#[derive(Default)]
pub(super) struct Subscriptions {
    all: Vec<SubscriptionState>,
    /// Who is asked next, so that none starves.
    turn: usize,
}

/// How far a subscription has come.
pub(super) enum SubscriptionState {
    /// The hub was asked for it.
    Expected(Form, TopicFilter),
    Following(Cursor),
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn has(&self, sub: &str) -> bool {
        self.all.iter().any(|one| one.sub() == sub)
    }

    /// Notes one that the hub is asked for.
    pub(super) fn add_asked(&mut self, asked: &Subscription) {
        self.all.reserve_exact(1); // most clients have one
        self.all.push(SubscriptionState::Expected(asked.form.clone(), asked.filter.clone()));
    }

    /// The hub has given what was expected.
    pub(super) fn follow(&mut self, cursor: Cursor) {
        if let Some(one) = self.all.iter_mut().find(|one| one.sub() == cursor.sub()) {
            *one = SubscriptionState::Following(cursor);
        }
    }

    /// Ends one; false if there is none of this name.
    pub(super) fn end(&mut self, sub: &str) -> bool {
        let before = self.all.len();
        self.all.retain(|one| one.sub() != sub);
        self.all.len() < before
    }

    /// Ends and returns those that match what is not granted any more.
    pub(super) fn end_unless(
        &mut self,
        granted: impl Fn(&TopicFilter) -> bool,
    ) -> Vec<SubscriptionState> {
        self.all.extract_if(.., |one| !granted(one.filter())).collect()
    }

    /// Writes what they have, up to about `burst` bytes of events; or says how the session ends.
    pub(super) fn deliver(
        &mut self,
        cx: &mut Context<'_>,
        burst: usize,
        dialect: Dialect,
        telemetry: &Telemetry,
        mut write: impl FnMut(Bytes),
    ) -> Result<(), (CloseCode, String)> {
        let (mut bytes, mut events, mut frames, mut asked) = (0, 0, 0, 0);
        let mut end = Ok(());
        while bytes < burst
            && let Some((sub, item)) = self.next(cx, &mut asked)
        {
            match item {
                CursorItem::Frame(frame) => {
                    bytes += frame.bytes.len();
                    events += frame.events as u64;
                    frames += 1;
                    write(frame.bytes);
                }
                CursorItem::Live { position, was_owing } => {
                    dialect
                        .say(&ServerMessage::Live { sub, position, was_owing })
                        .into_iter()
                        .for_each(&mut write);
                }
                CursorItem::Gap(Gap { from, to, reason }) => {
                    telemetry.gap(reason.name());
                    match dialect.say(&ServerMessage::Gap { sub, from, to, reason, position: to }) {
                        Some(frame) => write(frame),
                        // Who cannot be told comes back and asks anew.
                        None => {
                            let reason = format!("{from} to {to} are missing: {}", reason.name());
                            end = Err((CloseCode::Gap, reason));
                        }
                    }
                    break;
                }
                CursorItem::Failed(error) => {
                    tracing::error!(%error, "a subscriber's history cannot be read");
                    end = Err((CloseCode::Overloaded, error.to_string()));
                    // Until it closes, which may wait for other work, nobody asks the log in vain.
                    *self = Self::default();
                    break;
                }
            }
        }
        if bytes >= burst {
            self.turn += 1; // it may have more at once, and the others as well
        }
        if frames > 0 {
            telemetry.deliveries.inc_by(events);
            telemetry.frames.inc_by(frames);
        }
        end
    }

    /// What comes next, of which subscription. In one turn of the task, `asked` counts from 0 those that had no more.
    fn next(&mut self, cx: &mut Context<'_>, asked: &mut usize) -> Option<(&str, CursorItem)> {
        while *asked < self.all.len() {
            let at = self.turn % self.all.len();
            if let SubscriptionState::Following(cursor) = &mut self.all[at]
                && let Poll::Ready(item) = cursor.poll_next(cx)
            {
                return Some((self.all[at].sub(), item));
            }
            self.turn = at + 1;
            *asked += 1;
        }
        None
    }

    /// Those that have all that matches up to `head`: see [`Cursor::settle`].
    pub(super) fn settle(&mut self, head: Offset) -> Vec<&str> {
        let mut settled = Vec::new();
        for one in &mut self.all {
            if let SubscriptionState::Following(cursor) = one
                && cursor.settle(head)
            {
                settled.push(cursor.sub());
            }
        }
        settled
    }

    /// How to find out how far each is behind.
    pub(super) fn lags(&self) -> Box<[Lag]> {
        let lags = self.all.iter().filter_map(|one| match one {
            SubscriptionState::Following(cursor) => Some(cursor.lag()),
            SubscriptionState::Expected(..) => None,
        });
        lags.collect()
    }
}

impl SubscriptionState {
    pub(super) fn sub(&self) -> &str {
        match self {
            SubscriptionState::Expected(form, _) => form.sub(),
            SubscriptionState::Following(cursor) => cursor.sub(),
        }
    }

    fn filter(&self) -> &TopicFilter {
        match self {
            SubscriptionState::Expected(_, filter) => filter,
            SubscriptionState::Following(cursor) => cursor.filter(),
        }
    }
}
