//! How many newest values a topic may have.

use std::collections::HashSet;

use rusqlite::params;

use super::{file::JournalFile, topics::TopicId};
use crate::telemetry::Limit;

/// Topics whose keys in `latest` have not been counted since they changed.
#[derive(Default)]
pub(super) struct LatestCap {
    touched: HashSet<TopicId>,
}

impl LatestCap {
    /// A key of this topic changed.
    pub(super) fn touch(&mut self, topic: TopicId) {
        self.touched.insert(topic);
    }

    /// Above the number of keys a topic may have, those that changed longest ago go.
    pub(super) fn cap(&mut self, file: &JournalFile) -> rusqlite::Result<bool> {
        let most = file.shared.config.latest_keys;
        for id in std::mem::take(&mut self.touched) {
            let count: usize = file
                .connection
                .prepare_cached("SELECT count(*) FROM latest WHERE topic_id = ?")?
                .query_row([id], |row| row.get(0))?;
            if count > most {
                // A tenth more than needed, so that a topic at its limit does not pay every time.
                let surplus = count - most + most / 10;
                file.connection
                    .prepare_cached(
                        "DELETE FROM latest WHERE topic_id = ?1 AND offset IN (SELECT offset
                             FROM latest WHERE topic_id = ?1 ORDER BY offset LIMIT ?2)",
                    )?
                    .execute(params![id, surplus])?;
                file.shared.telemetry.hit(Limit::LatestKeys);
            }
        }
        Ok(false)
    }
}
