//! The writer: one thread that gives offsets, commits, announces and answers, in this order.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{
    Request, commit::Commits, disk_room::DiskRoom, file::JournalFile, folder_lock::FolderLock,
    upkeep::JournalUpkeep,
};
use crate::broker::queue::QueuedBatch;

/// About how much one commit takes in; the rest waits for the next.
const GROUP_BYTES: usize = 4 << 20;
/// How often retention and merging get a turn.
const MAINTENANCE: Duration = Duration::from_millis(500);

/// The thread's parts.
pub(super) struct JournalWriter {
    pub(super) queue: mpsc::Receiver<Request>,
    pub(super) file: JournalFile,
    pub(super) commits: Commits,
    pub(super) upkeep: JournalUpkeep,
    pub(super) disk: DiskRoom,
    /// Keeps others out of the folder.
    pub(super) _lock: FolderLock,
}

impl JournalWriter {
    pub(super) fn run(mut self) {
        let mut maintenance = Instant::now() + MAINTENANCE;
        loop {
            let wait = maintenance.saturating_duration_since(Instant::now());
            let mut request = self.queue.recv_timeout(wait);
            if let Ok(Request::Publish(first)) = request {
                let (group, next) = self.gather(first);
                self.commits.commit(group, &mut self.file, &mut self.upkeep.latest, &mut self.disk);
                request = next.ok_or(mpsc::RecvTimeoutError::Timeout);
            }
            match request {
                Ok(Request::Maintain(done)) => {
                    while self.maintain() {}
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
                Ok(Request::Close) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Ok(Request::Publish(_)) | Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= maintenance {
                let more = self.look_after();
                let pause = if more { MAINTENANCE / 50 } else { MAINTENANCE };
                maintenance = Instant::now() + pause;
                if let Err(error) = self.file.measure() {
                    let what = "the journal's write-ahead log could not be started anew";
                    self.disk.failed(what, &error);
                }
            }
            self.file.ask_for_checkpoint();
        }
        self.file.finish();
    }

    /// What else is queued, up to the size of a group, and the first request of another kind.
    fn gather(&self, first: QueuedBatch) -> (Vec<QueuedBatch>, Option<Request>) {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while bytes < GROUP_BYTES {
            match self.queue.try_recv() {
                Ok(Request::Publish(batch)) => {
                    bytes += batch.bytes;
                    group.push(batch);
                }
                Ok(other) => return (group, Some(other)),
                Err(_) => break,
            }
        }
        (group, None)
    }

    /// Keeps the file and the reserve in order; true if there is more to do at once.
    fn look_after(&mut self) -> bool {
        let more = self.maintain();
        // On a full disk the room is needed for what deletes, until there is nothing left to delete.
        let waits = self.disk.is_full() && more;
        if waits { more } else { self.disk.look_after_the_reserve() | more }
    }

    /// Does a bounded piece of upkeep; true if there is more to do.
    fn maintain(&mut self) -> bool {
        let Self { file, commits, upkeep, disk, .. } = self;
        if commits.be_sure(file).is_err() {
            return false; // said when a publish fails of it
        }
        upkeep.maintain(file, &mut commits.dedupe, disk)
    }
}
