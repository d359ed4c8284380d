//! Start-up: lock the folder, open the file, read what the writer must know — never the journal.

use std::{
    path::Path,
    sync::{Arc, mpsc},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::{
    Journal, JournalConfig, JournalInner, JournalOpenError, JournalShared, Sync,
    commit::Commits,
    config::RetentionRules,
    dedupe::Dedupe,
    disk_room::DiskRoom,
    file::JournalFile,
    folder_lock::FolderLock,
    latest_cap::LatestCap,
    merge::Merging,
    meta::{IdentifyError, identify, is_kept_under},
    reader::Readers,
    schema,
    state::{JournalState, newest_received},
    trim::Trimming,
    upkeep::JournalUpkeep,
    writer::JournalWriter,
};
use crate::{
    broker::{
        front::LogFront,
        queue::{QUEUE_LENGTH, QueueRoom},
    },
    sqlite::{self, Reserve},
    telemetry::Telemetry,
    time::Clock,
};

pub(super) fn open(
    config: JournalConfig,
    folder: &Path,
    clock: Clock,
    telemetry: Telemetry,
) -> Result<Journal, JournalOpenError> {
    let setup = |error: String| JournalOpenError::Setup { path: folder.to_owned(), error };
    sqlite::make_folder(folder)?;
    let lock = FolderLock::take(folder)?;
    let path = folder.join(schema::FILE);
    let connection = sqlite::open(&path, &schema::IDENTITY).or_else(|error| {
        if !error.is_full() {
            return Err(error);
        }
        sqlite::give_up_reserve(folder);
        sqlite::open(&path, &schema::IDENTITY)
    })?;
    let damaged = |error| sqlite::OpenError::of(&path, error);
    let sync = match config.sync {
        Sync::Full => "full",
        Sync::Normal => "normal",
    };
    connection.pragma_update(None, "synchronous", sync).map_err(damaged)?;
    let rules = RetentionRules::new(&config);
    clock.meet(newest_received(&connection).map_err(damaged)?);
    let identity = identify(&connection, &rules).map_err(|error| match error {
        IdentifyError::Sqlite(error) => damaged(error).into(),
        IdentifyError::Random(error) => setup(error.to_string()),
    })?;
    let is_kept_under = is_kept_under(&connection, &rules).map_err(damaged)?;
    let reserve = Reserve::new(folder, config.reserve.0);
    let dedupe =
        Dedupe::new(&identity.dedupe_key, config.dedupe_window.millis(), config.dedupe_ids);
    let mut state =
        JournalState::load(&connection, &config, &rules, dedupe, &clock).map_err(damaged)?;
    state.head = state.head.max(identity.lineage.base());
    let queue_bytes = config.queue_bytes.as_usize();
    let room = QueueRoom::new(queue_bytes, config.queue_timeout.0, telemetry.clone());
    let shared = Arc::new(JournalShared {
        front: LogFront::new(identity.lineage, state.head, config.recent_bytes.as_usize()),
        rules,
        clock,
        telemetry,
        topics: RwLock::new(state.topics),
        config,
    });
    let readers = Arc::new(Readers::new(shared.clone(), &path).map_err(damaged)?);
    let (requests, queue) = mpsc::sync_channel(QUEUE_LENGTH);
    let disk = DiskRoom::new(reserve, shared.telemetry.clone());
    let file = JournalFile::new(shared.clone(), connection, path, state.stored_bytes)
        .map_err(|error| setup(error.to_string()))?;
    let writer = JournalWriter {
        queue,
        file,
        commits: Commits {
            dedupe: state.dedupe,
            received: state.received,
            is_noted: identity.is_noted,
        },
        upkeep: JournalUpkeep {
            trimming: Trimming { looked_through: (!is_kept_under).then_some(0) },
            latest: LatestCap::default(),
            merging: Merging::default(),
        },
        disk,
        _lock: lock,
    };
    let writer = std::thread::Builder::new()
        .name("journal".into())
        .spawn(move || writer.run())
        .map_err(|error| setup(error.to_string()))?;
    Ok(Journal(Arc::new(JournalInner {
        shared,
        readers,
        requests,
        reading: Arc::new(Semaphore::new(READING)),
        queue: room,
        writer: Mutex::new(Some(writer)),
    })))
}

/// Who reads the file at a time.
const READING: usize = 16;
