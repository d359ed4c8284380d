//! What a session asks of the socket that drives it.

use std::sync::Arc;

use bytes::Bytes;
use secrecy::SecretString;

use crate::{
    admission::Admitted,
    auth::Principal,
    hub::Subscription,
    protocol::{CloseCode, Losses, MessageId},
};

/// What the driver of a session does next, in order.
#[derive(Debug)]
pub enum Action {
    /// Writes a frame.
    Send(Bytes),
    /// Checks a token and tells [`Session::authenticated`](super::Session::authenticated).
    Authenticate(SecretString),
    /// Notes who this is, if one more connection of theirs is allowed; else closes.
    Identify(Arc<Principal>, Option<Box<str>>),
    /// Starts a subscription and tells [`Session::subscribed`](super::Session::subscribed).
    Subscribe(Option<MessageId>, Arc<str>, Subscription),
    /// Ends a subscription.
    Unsubscribe(Arc<str>),
    /// Publishes and tells [`Session::published`](super::Session::published), also what the events lose.
    Publish(MessageId, Admitted, Losses),
    /// Writes a ping; see [`Session::ping`](super::Session::ping).
    Ping,
    /// Writes what is to be written, then a close frame.
    Close(CloseCode, String),
}
