//! By what metrics are told apart.

use prometheus_client::encoding::EncodeLabelSet;

/// A `[[source]]`, by its name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceLabel {
    pub(super) source: String,
}

/// A [duty](crate::duty), by its name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DutyLabel {
    pub(super) duty: String,
}

/// What of a request could not be kept although the rest was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DroppedPart {
    /// A number that JSON cannot express: it is replaced by null.
    Number,
    /// A time that cannot be read: the time of arrival is used.
    Timestamp,
    /// A field of another kind or size than it should have.
    Field,
    /// One of several points.
    Point,
    /// A sample that becomes no series; its event is stored nevertheless.
    Sample,
    /// An instance for which the registry has no room, or for which the caller may not speak.
    Instance,
}

impl DroppedPart {
    /// Its name in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            DroppedPart::Number => "number",
            DroppedPart::Timestamp => "timestamp",
            DroppedPart::Field => "field",
            DroppedPart::Point => "point",
            DroppedPart::Sample => "sample",
            DroppedPart::Instance => "instance",
        }
    }
}

/// A code of the protocol, as answered.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CodeLabel {
    pub(super) code: &'static str,
}

/// A [part of a request](DroppedPart).
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PartLabel {
    pub(super) part: &'static str,
}

/// The state of an instance.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StateLabel {
    pub(super) state: &'static str,
}

/// Why something is missing.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    pub(super) reason: &'static str,
}
