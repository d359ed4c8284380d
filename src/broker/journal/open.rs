//! Start-up: lock the folder, open the file, read what the writer must know — never the journal.

use std::{
    fs::{File, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, mpsc},
};

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{Semaphore, watch};

use super::{
    Config, Inner, Journal, OpenError, QUEUE_LENGTH, Shared, Sync,
    config::Rules,
    dedupe::{self, Dedupe},
    reader::Readers,
    retention::has_newest,
    schema,
    topics::{Amount, Topics},
    writer::Writer,
};
use crate::{
    broker::{lineage::Lineage, ring::Ring},
    position::{Epoch, Offset},
    sqlite::{self, Reserve},
    telemetry::Telemetry,
    time::{Clock, Millis},
    topic::Topic,
};

pub(super) fn open(
    config: Config,
    folder: &Path,
    clock: Clock,
    telemetry: Telemetry,
) -> Result<Journal, OpenError> {
    let setup = |error: String| OpenError::Setup { path: folder.to_owned(), error };
    sqlite::make_folder(folder)?;
    let lock = lock(folder)?;
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
    let rules = Rules::new(&config);
    clock.meet(newest_received(&connection).map_err(damaged)?);
    let identity = identify(&connection, &rules).map_err(|error| match error {
        IdentifyError::Sqlite(error) => damaged(error).into(),
        IdentifyError::Random(error) => setup(error.to_string()),
    })?;
    let is_kept_under = is_kept_under(&connection, &rules).map_err(damaged)?;
    let reserve = Reserve::new(folder, config.reserve.0);
    let mut state =
        State::load(&connection, &config, &rules, identity.dedupe_key, &clock).map_err(damaged)?;
    state.head = state.head.max(identity.lineage.base());
    let room = config.queue_bytes.as_usize().min(Semaphore::MAX_PERMITS);
    let shared = Arc::new(Shared {
        lineage: identity.lineage,
        rules,
        clock,
        telemetry,
        topics: RwLock::new(state.topics),
        ring: Mutex::new(Ring::new(state.head, config.recent_bytes.as_usize())),
        head: watch::Sender::new(state.head),
        config,
    });
    let readers = Arc::new(Readers::new(shared.clone(), &path).map_err(damaged)?);
    let (requests, queue) = mpsc::sync_channel(QUEUE_LENGTH);
    let writer = Writer::new(
        shared.clone(),
        connection,
        queue,
        path,
        lock,
        reserve,
        identity.dedupe_key,
        state.dedupe,
        state.received,
        state.stored_bytes,
        identity.is_noted,
        (!is_kept_under).then_some(0),
    )
    .map_err(|error| setup(error.to_string()))?;
    let writer = std::thread::Builder::new()
        .name("journal".into())
        .spawn(move || writer.run())
        .map_err(|error| setup(error.to_string()))?;
    Ok(Journal(Arc::new(Inner {
        shared,
        readers,
        requests,
        reading: Arc::new(Semaphore::new(READING)),
        room: Arc::new(Semaphore::new(room)),
        writer: Mutex::new(Some(writer)),
    })))
}

/// Who reads the file at a time.
const READING: usize = 16;

/// The lock is the open file; it ends with the writer, whatever happens to the process.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let io = |error| sqlite::OpenError::Io { path: path.clone(), error };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(error).into()),
    }
}

struct Identity {
    lineage: Lineage,
    /// Whether the file knows of the newest epoch.
    is_noted: bool,
    dedupe_key: [u8; 16],
}

enum IdentifyError {
    Sqlite(rusqlite::Error),
    Random(getrandom::Error),
}

impl From<rusqlite::Error> for IdentifyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Begins an epoch, the first or one more.
///
/// Nobody can tell a file from its copy, or whether it has lost its end: so every start is a fork.
fn identify(connection: &Connection, rules: &Rules) -> Result<Identity, IdentifyError> {
    let name = getrandom::u64().map_err(IdentifyError::Random)?;
    let identity = match lineage(connection)? {
        None => {
            let mut dedupe_key = [0; 16];
            getrandom::fill(&mut dedupe_key).map_err(IdentifyError::Random)?;
            let lineage = Lineage::of(Epoch::new(name));
            connection.execute(
                "INSERT INTO meta(key, value) VALUES ('lineage', ?), ('dedupe_key', ?), ('head', 0),
                     ('forgotten_through', 0), ('rules', ?)",
                params![lineage.to_string(), dedupe_key, rules.fingerprint()],
            )?;
            Identity { lineage, is_noted: true, dedupe_key }
        }
        Some(mut lineage) => {
            let dedupe_key = meta(connection, "dedupe_key")?;
            lineage.begin(Epoch::new(name), meta(connection, "head")?);
            let is_noted = match begin(connection, &lineage) {
                // The first commit notes it.
                Err(error) if sqlite::is_full(&error) => false,
                begun => begun.map(|()| true)?,
            };
            Identity { lineage, is_noted, dedupe_key }
        }
    };
    Ok(identity)
}

/// Whether the log was kept under these rules; under others every block has to be looked at anew.
pub(super) fn is_kept_under(connection: &Connection, rules: &Rules) -> rusqlite::Result<bool> {
    Ok(meta::<String>(connection, "rules")? == rules.fingerprint())
}

/// When the newest event that is kept was received; 0 if there is none.
fn newest_received(connection: &Connection) -> rusqlite::Result<Millis> {
    connection.query_row(
        "SELECT coalesce((SELECT last_received FROM blocks ORDER BY first DESC LIMIT 1), 0)",
        [],
        |row| row.get(0),
    )
}

/// The epochs the file knows; None in a new file.
pub(super) fn lineage(connection: &Connection) -> rusqlite::Result<Option<Lineage>> {
    let Some(text) = meta::<String>(connection, "lineage").optional()? else {
        let epoch: Option<i64> = meta(connection, "epoch").optional()?;
        return Ok(epoch.map(|epoch| Lineage::of(Epoch::new(epoch as u64))));
    };
    let unreadable = || rusqlite::Error::InvalidColumnName("meta.lineage".to_owned());
    Lineage::parse(&text).map(Some).ok_or_else(unreadable)
}

fn begin(connection: &Connection, lineage: &Lineage) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    note(&transaction, lineage)?;
    transaction.commit()
}

/// Writes the epochs down, in a file of whatever version.
pub(super) fn note(transaction: &Connection, lineage: &Lineage) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO meta(key, value) VALUES ('lineage', ?1) ON CONFLICT DO UPDATE SET value = ?1",
        [lineage.to_string()],
    )?;
    transaction
        .execute("UPDATE meta SET value = max(value, ?) WHERE key = 'head'", [lineage.base()])?;
    transaction.execute("DELETE FROM meta WHERE key = 'epoch'", [])?;
    transaction.pragma_update(None, "user_version", schema::IDENTITY.version)
}

fn meta<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<T> {
    connection.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0))
}

/// What the file says at a moment when nobody writes to it.
pub(super) struct State {
    pub(super) head: Offset,
    pub(super) received: Millis,
    pub(super) stored_bytes: u64,
    pub(super) topics: Topics,
    pub(super) dedupe: Dedupe,
}

impl State {
    pub(super) fn load(
        connection: &Connection,
        config: &Config,
        rules: &Rules,
        dedupe_key: [u8; 16],
        clock: &Clock,
    ) -> rusqlite::Result<Self> {
        let meta = |key: &str| -> rusqlite::Result<u64> {
            connection.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0))
        };
        let received = newest_received(connection)?;
        let stored_bytes = connection.query_row(
            "SELECT coalesce((SELECT sum(length(body)) FROM blocks), 0)",
            [],
            |row| row.get(0),
        )?;
        let mut topics = Topics::default();
        topics.set_forgotten_through(meta("forgotten_through")?);
        let mut rows = connection.prepare("SELECT id, topic, trimmed_through FROM topics")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(1)?;
            let topic = Topic::parse(&name).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(
                    1,
                    rusqlite::types::Type::Text,
                    Box::new(error),
                )
            })?;
            topics.insert(row.get(0)?, topic, row.get(2)?, rules);
        }
        let mut rows = connection.prepare(
            "SELECT topic_id, sum(events), sum(bytes), max(last), max(last_received)
             FROM block_topics GROUP BY topic_id",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let amount = Amount {
                events: row.get(1)?,
                bytes: row.get(2)?,
                last_offset: row.get(3)?,
                last_received: row.get(4)?,
            };
            topics.add(row.get(0)?, amount);
        }
        if topics.len() - topics.reserved() >= config.max_topics {
            // Those without newest values were forgotten before; with the others retention forgets their values.
            let empty: Vec<_> = topics
                .iter()
                .filter(|(_, state)| state.info.events == 0 && !state.info.topic.is_reserved())
                .map(|(id, _)| id)
                .collect();
            for id in empty {
                if !has_newest(connection, id)? {
                    topics.forget(id);
                }
            }
        }
        let mut dedupe = Dedupe::new(&dedupe_key, config.dedupe_window.millis(), config.dedupe_ids);
        // By a clock that is in doubt nothing is forgotten but what was old for the newest event.
        let now = if clock.is_settled() { clock.now() } else { received };
        let from = now.saturating_sub(dedupe.window());
        let mut rows = connection
            .prepare("SELECT received, hashes FROM ids WHERE received >= ? ORDER BY first")?;
        let mut rows = rows.query([from])?;
        while let Some(row) = rows.next()? {
            let (age, hashes): (Millis, Vec<u8>) = (now.saturating_sub(row.get(0)?), row.get(1)?);
            dedupe.remember(clock.elapsed().saturating_sub(age), &dedupe::decode(&hashes));
        }
        Ok(Self { head: meta("head")?, received, stored_bytes, topics, dedupe })
    }
}
