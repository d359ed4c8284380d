//! The log in one SQLite file.

/// x
pub struct Journal;
