//! Dialects: the bytes in which a client is spoken to, one module each. A session decides what is said, as a
//! [`ServerMessage`]; its dialect says how.

mod frame;
mod hub_v1;
mod simple;
mod sse;

use bytes::Bytes;
use serde::Serialize;

pub use self::{
    frame::{Form, Frame},
    sse::StreamForm,
};
use crate::protocol::{ClientMessage, CloseCode, MessageError, ServerMessage, wire};

/// A way to speak with a client; its name is that of the connections that speak it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Dialect {
    /// A WebSocket with messages both ways.
    #[serde(rename = "websocket")]
    HubV1,
    /// A WebSocket of events alone.
    #[serde(rename = "simple")]
    Simple,
    /// A response of events alone.
    #[serde(rename = "sse")]
    Sse,
}

impl Dialect {
    /// The bytes of a message; None if the dialect has none for it.
    pub fn say(self, message: &ServerMessage<'_>) -> Option<Bytes> {
        match self {
            Dialect::HubV1 => Some(message.frame()),
            Dialect::Simple => simple::say(message),
            Dialect::Sse => sse::say(message),
        }
    }

    /// What a client's text asks for; None where the dialect reads no messages.
    pub fn hear(self, text: &str) -> Option<Result<ClientMessage<'_>, MessageError>> {
        self.listens().then(|| ClientMessage::parse(text))
    }

    /// Whether clients may say anything.
    pub fn listens(self) -> bool {
        matches!(self, Dialect::HubV1)
    }

    /// The last bytes of a conversation: when to come back and why it closes, if the dialect has messages for that.
    pub fn close(self, code: CloseCode, reason: &str, after_ms: Option<u64>) -> Vec<u8> {
        let close = match self {
            Dialect::HubV1 | Dialect::Simple => wire::close(code.number(), reason),
            Dialect::Sse => return Vec::new(), // the response just ends
        };
        let reconnect = after_ms.map(|after_ms| ServerMessage::Reconnect { after_ms });
        let mut bytes = Vec::from(reconnect.and_then(|said| self.say(&said)).unwrap_or_default());
        bytes.extend_from_slice(&close);
        bytes
    }

    /// Whether a client answers pings, so that its silence shows that it is gone.
    pub fn is_answered(self) -> bool {
        !matches!(self, Dialect::Sse)
    }
}
