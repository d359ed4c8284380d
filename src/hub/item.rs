//! What a cursor gives out.

use crate::{broker::ReadError, dialect::Frame, position::Position, protocol::GapReason};

/// What comes next for a subscription.
#[derive(Debug)]
pub enum CursorItem {
    /// Events.
    Frame(Frame),
    /// Events are missing.
    Gap(Gap),
    /// What follows is live. Said once.
    Live {
        /// Everything up to here has been sent.
        position: Position,
        /// Whether a gap or newest values came first.
        was_owing: bool,
    },
    /// The log could not be read; asking again tries again.
    Failed(ReadError),
}

/// Events that will not come. `from` and `to` are inclusive, and the subscription continues after `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first that may be missing.
    pub from: Position,
    /// The last that may be missing.
    pub to: Position,
    /// Why.
    pub reason: GapReason,
}
