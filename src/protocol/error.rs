//! Why a message is refused: stable codes.

use serde::Serialize;

/// Why a message was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Fields are missing or have the wrong type.
    BadMessage,
    /// There is no such message.
    UnknownType,
    /// The message needs an `id`.
    MissingId,
    /// `connect` came twice.
    AlreadyConnected,
    /// The `sub` is in use.
    SubInUse,
    /// There is no such `sub`.
    UnknownSub,
    /// A grant is missing.
    Forbidden,
    /// The credentials were refused.
    Unauthorized,
    /// A limit was hit; the message names it.
    LimitExceeded,
    /// An event was refused; the message names it.
    InvalidEvent,
    /// The hub cannot do it now.
    Unavailable,
}

impl ErrorCode {
    /// The code on the wire and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorCode::BadMessage => "bad_message",
            ErrorCode::UnknownType => "unknown_type",
            ErrorCode::MissingId => "missing_id",
            ErrorCode::AlreadyConnected => "already_connected",
            ErrorCode::SubInUse => "sub_in_use",
            ErrorCode::UnknownSub => "unknown_sub",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::LimitExceeded => "limit_exceeded",
            ErrorCode::InvalidEvent => "invalid_event",
            ErrorCode::Unavailable => "unavailable",
        }
    }

    /// Whether the same message may succeed later.
    pub const fn retryable(self) -> bool {
        matches!(self, ErrorCode::Unavailable)
    }
}
