//! The log as it lies in Redis: under which keys, and the questions that several ask about it.

use ::redis::{Cmd, FromRedisValue, cmd};

use super::entry::{RawEntry, StreamEntry};
use crate::redis::{Keys, Link, RedisFailure, Server};

/// The log, for whoever asks Redis about it. The tail and the writer have connections of their own.
pub(super) struct StoredLog {
    pub(super) link: Link,
    pub(super) keys: LogKeys,
}

/// The keys of the log.
#[derive(Clone)]
pub(super) struct LogKeys {
    all: Keys,
    /// A hash: the head, the lineage, what retention did.
    pub(super) meta: String,
    /// The stream.
    pub(super) log: String,
    /// A hash: each topic's numbers.
    pub(super) topics: String,
    /// The nodes that said hello lately.
    pub(super) nodes: String,
}

impl StoredLog {
    pub(super) fn new(server: Server, keys: LogKeys) -> Self {
        Self { link: Link::new(server), keys }
    }

    /// A field of what is known of the whole log.
    pub(super) async fn meta<T: FromRedisValue>(
        &self,
        field: &str,
    ) -> Result<Option<T>, RedisFailure> {
        self.link.run(cmd("HGET").arg(&self.keys.meta).arg(field)).await
    }

    /// Entries from an id on, as Redis answers them: all of them unpacked may be a thousand times as large.
    pub(super) async fn entries(
        &self,
        from: &str,
        count: usize,
    ) -> Result<Vec<RawEntry>, RedisFailure> {
        self.range(cmd("XRANGE").arg(&self.keys.log).arg(from).arg("+"), count).await
    }

    /// Entries from an id back, the newest first.
    pub(super) async fn entries_back(
        &self,
        from: &str,
        count: usize,
    ) -> Result<Vec<RawEntry>, RedisFailure> {
        self.range(cmd("XREVRANGE").arg(&self.keys.log).arg(from).arg("-"), count).await
    }

    /// Some fields of a hash and their values, about `count` of them, and where to go on; 0 at the beginning and the end.
    pub(super) async fn scan<T: FromRedisValue>(
        &self,
        hash: &str,
        cursor: u64,
        count: usize,
    ) -> Result<(u64, Vec<(T, T)>), RedisFailure> {
        self.link.run(cmd("HSCAN").arg(hash).arg(cursor).arg("COUNT").arg(count)).await
    }

    /// The first entry from an id on.
    pub(super) async fn entry(&self, from: &str) -> Result<Option<StreamEntry>, RedisFailure> {
        self.entries(from, 1).await?.into_iter().next().map(StreamEntry::read).transpose()
    }

    async fn range(&self, command: &mut Cmd, count: usize) -> Result<Vec<RawEntry>, RedisFailure> {
        self.link.run(command.arg("COUNT").arg(count)).await
    }
}

impl LogKeys {
    /// Those that begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        let all = Keys::new(prefix);
        Self {
            meta: all.of("meta"),
            log: all.of("log"),
            topics: all.of("topics"),
            nodes: all.of("nodes"),
            all,
        }
    }

    /// The key called `name`.
    pub(super) fn of(&self, name: &str) -> String {
        self.all.of(name)
    }

    /// The hash of a topic's newest values.
    pub(super) fn latest(&self, topic: &str) -> String {
        self.of(&format!("latest:{topic}"))
    }
}
