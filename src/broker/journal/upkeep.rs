//! Upkeep: retention, merging and tidying up, in small steps between commits.

use super::{
    dedupe::Dedupe,
    disk_room::DiskRoom,
    file::JournalFile,
    forget,
    latest_cap::LatestCap,
    merge::Merging,
    trim::{self, Trimming},
};
use crate::time::Millis;

/// What has to be looked after, and how far it has come.
pub(super) struct JournalUpkeep {
    pub(super) trimming: Trimming,
    pub(super) latest: LatestCap,
    pub(super) merging: Merging,
}

/// A bounded piece at a time; whether there is more to do.
type UpkeepStep =
    fn(&mut JournalUpkeep, &mut JournalFile, &mut Dedupe, Millis) -> rusqlite::Result<bool>;

const UPKEEP: [UpkeepStep; 9] = [
    LOOK_THROUGH,
    TRIM_EXPIRED,
    TRIM_TOTAL,
    TRIM_TOPICS,
    CAP_LATEST,
    DROP_OLD_IDS,
    FORGET_TOPICS,
    MERGE,
    VACUUM,
];
/// What frees room on a full disk.
const MAKING_ROOM: [UpkeepStep; 6] =
    [LOOK_THROUGH, TRIM_EXPIRED, TRIM_TOTAL, TRIM_TOPICS, DROP_OLD_IDS, VACUUM_ALL];

const LOOK_THROUGH: UpkeepStep = |upkeep, file, _, now| upkeep.trimming.look_through(file, now);
const TRIM_EXPIRED: UpkeepStep = |_, file, _, now| trim::trim_expired(file, now);
const TRIM_TOTAL: UpkeepStep = |_, file, _, _| trim::trim_total(file);
const TRIM_TOPICS: UpkeepStep = |_, file, _, _| trim::trim_topics(file);
const CAP_LATEST: UpkeepStep = |upkeep, file, _, _| upkeep.latest.cap(file);
const DROP_OLD_IDS: UpkeepStep = |_, file, dedupe, now| forget::drop_old_ids(file, dedupe, now);
const FORGET_TOPICS: UpkeepStep = |_, file, _, _| forget::forget_topics(file);
const MERGE: UpkeepStep = |upkeep, file, _, _| upkeep.merging.merge(file);
const VACUUM: UpkeepStep = |_, file, _, _| file.vacuum(FREE_PAGES);
const VACUUM_ALL: UpkeepStep = |_, file, _, _| file.vacuum(0);

/// So many free pages the next commits will use.
const FREE_PAGES: u32 = 1023;

impl JournalUpkeep {
    /// Does a bounded piece of each; true if there is more to do.
    pub(super) fn maintain(
        &mut self,
        file: &mut JournalFile,
        dedupe: &mut Dedupe,
        disk: &mut DiskRoom,
    ) -> bool {
        let now = file.shared.clock.now();
        let steps: &[UpkeepStep] = if disk.is_full() { &MAKING_ROOM } else { &UPKEEP };
        let mut more = false;
        for step in steps {
            let done = step(self, file, dedupe, now).and_then(|again| {
                if disk.is_full() {
                    file.truncate_log()?;
                }
                Ok(again)
            });
            match done {
                Ok(again) => more |= again,
                Err(error) => {
                    file.is_unsure = true;
                    disk.failed("the journal's upkeep failed; trying again", &error);
                    return false;
                }
            }
        }
        more
    }
}
