//! The tables of `journal.db`.

use crate::sqlite::FileIdentity;

/// The file's name in the data folder.
pub(super) const FILE: &str = "journal.db";

/// `pulj` and the version of the tables below.
pub(super) const IDENTITY: FileIdentity = FileIdentity {
    application_id: u32::from_be_bytes(*b"pulj"),
    version: 2,
    schema: "
    -- `lineage` has the epochs as broker/lineage.rs writes them; version 1 had one `epoch`, for good.
    -- Who knows only version 1 does not know the form of today's blocks either and would call them damaged.
    CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    -- One row per block: a run of events committed together, or merged since. first and last are
    -- offsets; expires is when retention has to look at it; body is Block::encode, codec 1 = zstd.
    CREATE TABLE blocks(first INTEGER PRIMARY KEY, last INTEGER NOT NULL,
        first_received INTEGER NOT NULL, last_received INTEGER NOT NULL,
        expires INTEGER NOT NULL, events INTEGER NOT NULL, raw_bytes INTEGER NOT NULL,
        codec INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE INDEX blocks_expires ON blocks(expires);
    CREATE INDEX blocks_received ON blocks(last_received);
    CREATE INDEX blocks_small ON blocks(first) WHERE raw_bytes < 65536;
    CREATE TABLE topics(id INTEGER PRIMARY KEY, topic TEXT NOT NULL UNIQUE,
        trimmed_through INTEGER NOT NULL DEFAULT 0);
    -- Which blocks hold a topic, and how much of it.
    CREATE TABLE block_topics(topic_id INTEGER NOT NULL, first INTEGER NOT NULL,
        last INTEGER NOT NULL, last_received INTEGER NOT NULL, events INTEGER NOT NULL,
        bytes INTEGER NOT NULL, PRIMARY KEY(topic_id, first)) WITHOUT ROWID;
    -- The ids of the dedupe window, one row per commit: 16 bytes of hash and 8 of offset each.
    CREATE TABLE ids(first INTEGER PRIMARY KEY, received INTEGER NOT NULL, hashes BLOB NOT NULL);
    -- The newest event of each (topic, key); record is a block of one.
    CREATE TABLE latest(topic_id INTEGER NOT NULL, key BLOB NOT NULL, offset INTEGER NOT NULL,
        record BLOB NOT NULL, PRIMARY KEY(topic_id, key)) WITHOUT ROWID;
    ",
};

/// Blocks up to this much JSON are made and merged; a larger single event has a block of its own.
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// Blocks below this are merged with their neighbours; the index `blocks_small` knows it too.
pub(super) const SMALL_BYTES: i64 = 64 << 10;
