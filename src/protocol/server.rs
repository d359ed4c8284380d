//! What the hub says, apart from events, whose frames the hub's views make.

use bytes::Bytes;
use serde::Serialize;

use super::{ErrorCode, Losses, MessageId, wire};
use crate::position::Position;

/// A message to one client.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServerMessage<'a> {
    /// The connection stands.
    Connected {
        /// Of the `connect`.
        id: &'a MessageId,
        /// The connection's name in logs and among the connections.
        conn: &'a str,
        /// Whose credentials these are.
        user: &'a str,
        /// Seconds until they run out; absent if they do not.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
        /// Seconds between pings.
        ping: u64,
        /// The newest position.
        head: Position,
        /// The hub's clock, RFC 3339.
        time: String,
        /// What this connection may ask for.
        limits: ConnectionLimits,
    },
    /// A subscription stands.
    Subscribed {
        /// Of the `subscribe`; absent where the request itself asked for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a MessageId>,
        /// Its name.
        sub: &'a str,
        /// Where it begins.
        #[serde(flatten)]
        start: SubscribedStart,
    },
    /// A subscription has ended.
    Unsubscribed {
        /// Of the `unsubscribe`; absent when the hub ended it.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a MessageId>,
        /// Its name.
        sub: &'a str,
        /// Why the hub ended it.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
    },
    /// The newer token was taken.
    Refreshed {
        /// Of the `refresh`.
        id: &'a MessageId,
        /// Seconds until it runs out.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
    },
    /// Events are stored.
    Ack {
        /// Of the `publish`.
        id: &'a MessageId,
        /// The highest of their positions.
        position: Position,
        /// How many were new.
        accepted: usize,
        /// How many had been stored before.
        duplicates: usize,
        /// Samples that become no series, though their events are stored.
        #[serde(skip_serializing_if = "Losses::is_empty")]
        dropped: &'a Losses,
    },
    /// Replay is over, what follows is live.
    Live {
        /// The subscription.
        sub: &'a str,
        /// Everything that matches up to here has been sent.
        position: Position,
        /// Whether a gap or newest values came first: see [`SubscribedStart::is_owing`].
        #[serde(skip)]
        was_owing: bool,
    },
    /// Events are missing.
    Gap {
        /// The subscription.
        sub: &'a str,
        /// The first position that may be missing.
        from: Position,
        /// The last position that may be missing.
        to: Position,
        /// Why.
        reason: GapReason,
        /// Where the subscription continues.
        position: Position,
    },
    /// A sign of life; to be answered with `pong`.
    Ping {
        /// The hub's clock, RFC 3339.
        time: String,
        /// The newest position.
        head: Position,
        /// The subscriptions that have been sent all that matches up to `head`.
        caught_up: Vec<&'a str>,
        /// Whether this node has not heard from its broker for a second.
        stale: bool,
    },
    /// The hub is going away; the close follows.
    Reconnect {
        /// When to come back, in milliseconds; each connection has its own.
        after_ms: u64,
    },
    /// A message was not carried out.
    Error {
        /// The message's id, if it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a MessageId>,
        /// The stable code.
        code: ErrorCode,
        /// What is wrong, for people.
        message: &'a str,
        /// Whether the same message may succeed later.
        retryable: bool,
    },
}

impl ServerMessage<'_> {
    /// The message as a frame ready to be written.
    pub fn frame(&self) -> Bytes {
        // Only a map with keys that are no strings could fail, and no message has one.
        wire::text(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SubscribedStart {
    /// What follows comes after this.
    pub position: Position,
    /// The newest position.
    pub head: Position,
    /// Whether nothing is missing; only a `resume` can be answered with false, and a gap follows.
    pub recovered: bool,
    /// Whether fewer follow than were asked for, though more may be kept: the search ended early, or begins behind a loss.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replay_truncated: bool,
    /// In mode `latest`: the most frames in a second, which may be fewer than were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hz: Option<f64>,
    /// Whether a gap or newest values that lie at or before the position come first.
    #[serde(skip)]
    pub is_owing: bool,
}

/// What one connection may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConnectionLimits {
    /// Bytes of one message.
    pub frame: u64,
    /// Subscriptions at a time.
    pub subscriptions: usize,
    /// Patterns of one subscription.
    pub patterns: usize,
    /// Events of one `replay.last`.
    pub replay: usize,
    /// Events of one `publish`.
    pub batch: usize,
    /// Bytes of one published event.
    pub event: u64,
    /// Messages in one second.
    pub messages_per_second: u32,
}

/// Why events are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// They are no longer kept.
    Retention,
    /// The position belongs to another history of the log.
    Epoch,
    /// A limit of the hub made it pass them over.
    Policy,
}

impl GapReason {
    /// The reason on the wire and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            GapReason::Retention => "retention",
            GapReason::Epoch => "epoch",
            GapReason::Policy => "policy",
        }
    }
}
