//! Reading a journal from outside, while a hub runs or not: for export and for a check-up.

use std::path::Path;

use rusqlite::Connection;

use super::{JournalOpenError, meta, schema};
use crate::{
    broker::codec,
    event::Block,
    position::{Epoch, Offset},
    sqlite,
};

/// What a check-up found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Blocks that were read.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// The newest offset ever given.
    pub head: Offset,
    /// What is wrong, a sentence each; empty when all is well.
    pub faults: Vec<String>,
}

/// Hands every block of the journal in `folder` to `each`, in order, until that says stop.
pub fn export<E>(
    folder: &Path,
    after: Offset,
    mut each: impl FnMut(Epoch, &Block) -> Result<(), E>,
) -> Result<Result<(), E>, JournalOpenError> {
    let path = folder.join(schema::FILE);
    let connection = open_file(&path)?;
    let damaged = |error| sqlite::OpenError::Damaged { path: path.clone(), error };
    let lineage = meta::lineage(&connection).map_err(damaged)?;
    let mut select = connection
        .prepare("SELECT codec, body FROM blocks WHERE last > ? ORDER BY first")
        .map_err(damaged)?;
    let mut rows = select.query([after]).map_err(damaged)?;
    while let Some(row) = rows.next().map_err(damaged)? {
        let body = (|| Ok((row.get(0)?, row.get(1)?)))();
        let (codec, body) = body.map_err(damaged)?;
        let block = codec::decode(codec, body).map_err(|error| JournalOpenError::Setup {
            path: path.clone(),
            error: error.to_string(),
        })?;
        let epoch = lineage.as_ref().map_or(Epoch::new(0), |epochs| epochs.epoch_of(block.last()));
        if let Err(stop) = each(epoch, &block) {
            return Ok(Err(stop));
        }
    }
    Ok(Ok(()))
}

/// Reads the whole journal in `folder` and tells what is wrong with it.
pub fn check(folder: &Path) -> Result<Report, JournalOpenError> {
    let path = folder.join(schema::FILE);
    let connection = open_file(&path)?;
    let damaged = |error| sqlite::OpenError::Damaged { path: path.clone(), error };
    examine(&connection).map_err(|error| damaged(error).into())
}

fn examine(connection: &Connection) -> rusqlite::Result<Report> {
    let mut report = Report { head: meta(connection, "head")?, ..Report::default() };
    if let Err(error) = meta::lineage(connection) {
        report.faults.push(format!("the epochs cannot be read: {error}"));
    }
    let mut quick = connection.prepare("PRAGMA quick_check")?;
    let mut rows = quick.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            report.faults.push(format!("SQLite: {line}"));
        }
    }
    let mut select =
        connection.prepare("SELECT first, last, events, codec, body FROM blocks ORDER BY first")?;
    let mut rows = select.query([])?;
    let mut before = 0;
    while let Some(row) = rows.next()? {
        let (first, last, events): (Offset, Offset, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        report.blocks += 1;
        match codec::decode(row.get(3)?, row.get(4)?) {
            Err(error) => report.faults.push(format!("block {first}–{last}: {error}")),
            Ok(block) => {
                report.events += block.len() as u64;
                if (block.first(), block.last(), block.len() as u64) != (first, last, events) {
                    report.faults.push(format!("block {first}–{last} holds other events"));
                }
                if first <= before {
                    report.faults.push(format!("block {first}–{last} overlaps the one before"));
                }
                before = last;
            }
        }
    }
    if before > report.head {
        report.faults.push(format!("events up to {before} lie beyond the head {}", report.head));
    }
    let counted: u64 =
        connection
            .query_row("SELECT coalesce(sum(events), 0) FROM block_topics", [], |row| row.get(0))?;
    if counted != report.events {
        report
            .faults
            .push(format!("the topics count {counted} events, the blocks {}", report.events));
    }
    Ok(report)
}

fn open_file(path: &Path) -> Result<Connection, JournalOpenError> {
    let io = |error| sqlite::OpenError::Io { path: path.to_owned(), error };
    std::fs::metadata(path).map_err(io)?; // a look must not make a file
    sqlite::check_header(path, &schema::IDENTITY)?;
    let damaged = |error| sqlite::OpenError::Damaged { path: path.to_owned(), error };
    Ok(sqlite::open_read_only(path).map_err(damaged)?)
}

fn meta<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<T> {
    connection.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0))
}
