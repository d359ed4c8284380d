//! The limits whose hits are counted.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Which limit was hit: a key of the configuration's `[limits]`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LimitLabel {
    pub(super) limit: Limit,
}

/// The limits that are counted, each named as its configuration key.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of a request's body, decompressed.
    Body,
    /// Bytes of a small body, such as a sign-in.
    SmallBody,
    /// Bytes of all bodies together, or of one user's.
    Bodies,
    /// Bytes of all bodies of requests without credentials, or of those of one address.
    StrangerBodies,
    /// Bytes of all answers that are not read yet, or of one user's.
    Answers,
    /// Bytes of one event.
    Event,
    /// Events in one batch.
    Batch,
    /// Bytes of one message on a socket.
    Frame,
    /// Subscriptions of one connection.
    Subscriptions,
    /// Patterns of one subscription.
    Patterns,
    /// Events of one replay.
    Replay,
    /// Bytes of history looked through for one replay.
    ReplayBytes,
    /// Connections in total.
    Connections,
    /// Connections from one address.
    ConnectionsPerAddress,
    /// Connections of one principal.
    ConnectionsPerPrincipal,
    /// Different subscriptions of one principal.
    ViewsPerPrincipal,
    /// Bytes of newest values that all views hold.
    TailBytes,
    /// Questions of one principal at a time.
    Questions,
    /// Messages from one client in a second.
    MessagesPerSecond,
    /// Wrong sign-ins a minute from one address.
    WrongSignIns,
    /// Tickets, sign-in links or sessions of one principal.
    PassesPerPrincipal,
    /// Header lines or bytes of a request.
    Headers,
    /// Time for a request's body to arrive.
    BodyTimeout,
    /// Time for a write to a socket.
    WriteTimeout,
    /// Bytes waiting to be stored.
    PublishQueue,
    /// Topics in the log.
    Topics,
    /// Keys of one topic in `latest`.
    LatestKeys,
    /// Instances in the registry.
    Instances,
}

impl Limit {
    /// The limit's name in metrics, answers and the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Body => "body",
            Limit::SmallBody => "small_body",
            Limit::Bodies => "bodies",
            Limit::StrangerBodies => "stranger_bodies",
            Limit::Answers => "answers",
            Limit::Event => "event",
            Limit::Batch => "batch",
            Limit::Frame => "frame",
            Limit::Subscriptions => "subscriptions",
            Limit::Patterns => "patterns",
            Limit::Replay => "replay",
            Limit::ReplayBytes => "replay_bytes",
            Limit::Connections => "connections",
            Limit::ConnectionsPerAddress => "connections_per_address",
            Limit::ConnectionsPerPrincipal => "connections_per_principal",
            Limit::ViewsPerPrincipal => "views_per_principal",
            Limit::TailBytes => "tail_bytes",
            Limit::Questions => "questions",
            Limit::MessagesPerSecond => "messages_per_second",
            Limit::WrongSignIns => "wrong_sign_ins",
            Limit::PassesPerPrincipal => "passes_per_principal",
            Limit::Headers => "headers",
            Limit::BodyTimeout => "body_timeout",
            Limit::WriteTimeout => "write_timeout",
            Limit::PublishQueue => "publish_queue",
            Limit::Topics => "topics",
            Limit::LatestKeys => "latest_keys",
            Limit::Instances => "instances",
        }
    }
}

impl EncodeLabelValue for Limit {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.name())
    }
}
