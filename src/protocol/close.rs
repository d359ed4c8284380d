//! Why the hub closes a socket, and what the client then does.

use std::{fmt, time::Duration};

/// The close codes of docs/protocol.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The hub is restarting: come back after the delay told before.
    Restarting,
    /// The hub has no room: back off.
    Overloaded,
    /// A message broke the protocol.
    BadMessage,
    /// No, invalid or revoked credentials.
    Unauthorized,
    /// The origin or a grant was refused.
    Forbidden,
    /// None of the offered subprotocols is spoken here.
    UnsupportedProtocol,
    /// No `connect` in time, or no pong.
    Timeout,
    /// Simple mode only: events are missing.
    Gap,
    /// Too many connections or messages.
    TooMany,
    /// The token ran out.
    Expired,
    /// A write could not be taken for `write_timeout`.
    TooSlow,
}

impl CloseCode {
    /// The number on the wire (RFC 6455 section 7.4; 4000–4999 are the application's).
    pub const fn number(self) -> u16 {
        match self {
            CloseCode::Restarting => 1012,
            CloseCode::Overloaded => 1013,
            CloseCode::BadMessage => 4400,
            CloseCode::Unauthorized => 4401,
            CloseCode::Forbidden => 4403,
            CloseCode::UnsupportedProtocol => 4406,
            CloseCode::Timeout => 4408,
            CloseCode::Gap => 4410,
            CloseCode::TooMany => 4429,
            CloseCode::Expired => 4440,
            CloseCode::TooSlow => 4441,
        }
    }

    /// The code's name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            CloseCode::Restarting => "restarting",
            CloseCode::Overloaded => "overloaded",
            CloseCode::BadMessage => "bad_message",
            CloseCode::Unauthorized => "unauthorized",
            CloseCode::Forbidden => "forbidden",
            CloseCode::UnsupportedProtocol => "unsupported_protocol",
            CloseCode::Timeout => "timeout",
            CloseCode::Gap => "gap",
            CloseCode::TooMany => "too_many",
            CloseCode::Expired => "expired",
            CloseCode::TooSlow => "too_slow",
        }
    }

    /// How long a client is told to stay away, by a `reconnect` before the close, if it should come back unchanged but
    /// not at once. [`Restarting`](Self::Restarting) has a delay of its own for each client.
    pub const fn pause(self) -> Option<Duration> {
        match self {
            CloseCode::Overloaded => Some(Duration::from_secs(5)),
            CloseCode::Timeout | CloseCode::TooMany => Some(Duration::from_secs(2)),
            _ => None,
        }
    }

    /// Whether connecting again, without anybody changing anything, can help.
    pub const fn retryable(self) -> bool {
        !matches!(
            self,
            CloseCode::BadMessage | CloseCode::Forbidden | CloseCode::UnsupportedProtocol
        )
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.name())
    }
}
