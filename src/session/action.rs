//! What a session asks of the socket that drives it.

use bytes::Bytes;
use secrecy::SecretString;

use crate::{
    admission::Admitted,
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
    /// Notes whose it is, with [`Session::identify`](super::Session::identify), which may say that it closes instead.
    Identify(Option<Box<str>>),
    /// Asks the hub for a subscription and tells [`Session::subscribed`](super::Session::subscribed).
    Subscribe(Option<MessageId>, Subscription),
    /// Publishes and tells [`Session::published`](super::Session::published), also what the events lose.
    Publish(MessageId, Admitted, Losses),
    /// Writes a ping; see [`Session::ping`](super::Session::ping).
    Ping,
    /// Writes what is to be written, then a close frame.
    Close(CloseCode, String),
}
