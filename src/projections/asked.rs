//! What a request may ask of a projection beside what is configured.

use std::collections::BTreeMap;

use super::buckets::Hours;
use crate::json;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// How far its charts go back.
    pub hours: Option<Hours>,
    /// How many rows its lists have.
    pub rows: Option<RowLimit>,
    /// Which rows: for each of these members, the values it may have.
    pub filters: BTreeMap<String, Vec<String>>,
}

/// How many rows of a list: 1 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLimit(usize);

/// A number of rows that no list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from 1 to 1000")]
pub struct RowLimitError;

impl RowLimit {
    pub(super) fn rows(self) -> usize {
        self.0
    }
}

impl std::str::FromStr for RowLimit {
    type Err = RowLimitError;

    fn from_str(text: &str) -> Result<Self, RowLimitError> {
        let rows = json::read_whole::<usize>(text).filter(|rows| (1..=1000).contains(rows));
        rows.map(Self).ok_or(RowLimitError)
    }
}
