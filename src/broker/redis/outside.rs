//! The log as it lies in Redis, for those who export it or check it: they are no node, and follow nothing.

use ::redis::cmd;

use super::{
    entry::{RawEntry, StreamEntry},
    reader,
    stored::{LogKeys, StoredLog},
    topics::RedisTopics,
};
use crate::{
    broker::{journal::Report, lineage::Lineage},
    event::Block,
    position::Offset,
    redis::{RedisFailure, RedisOpenError, Server},
};

/// Entries of one answer.
const COUNT: usize = 64;

/// Why what was read of a log so far may be another's than the rest.
const MOVED: &str =
    "the log went on in a new epoch meanwhile, and some of this may be lost: do it again";

/// Hands every block above `after` to `each`, in order, without what retention took, until that says stop.
pub async fn export<E>(
    server: Server,
    after: Offset,
    mut each: impl FnMut(&Block) -> Result<(), E>,
) -> Result<Result<(), E>, RedisOpenError> {
    let log = ExportedLog::open(server).await?;
    let mut at = after;
    loop {
        let raw = log.entries(at).await.map_err(|failure| log.refuse(&failure))?;
        if raw.is_empty() {
            return Ok(Ok(()));
        }
        // After the entries: what retention has taken meanwhile it has noted.
        let topics = log.topics().await.map_err(|failure| log.refuse(&failure))?;
        for raw in raw {
            let entry = StreamEntry::read(raw).map_err(|failure| log.refuse(&failure))?;
            at = entry.block.last();
            if !log.lineage.holds(entry.epoch, at) {
                return Err(log.refuse(&RedisFailure::Refused(MOVED.to_owned())));
            }
            if let Some(block) = reader::kept(&entry.block, &topics)
                && let Err(stop) = each(&block)
            {
                return Ok(Err(stop));
            }
        }
    }
}

/// Reads the whole log and tells what is wrong with it. An epoch that begins meanwhile is no fault of
/// the log's, but then nothing can be said of what was read before: it is refused, as an export is.
pub async fn check(server: Server) -> Result<Report, RedisOpenError> {
    let log = ExportedLog::open(server).await?;
    examine(&log).await.map_err(|failure| log.refuse(&failure))
}

async fn examine(log: &ExportedLog) -> Result<Report, RedisFailure> {
    let mut report = Report::default();
    let mut before = None;
    let mut at = 0;
    loop {
        let raw = log.entries(at).await?;
        if raw.is_empty() {
            break;
        }
        for raw in raw {
            let id = raw.0.clone();
            at = id.split_once('-').and_then(|(offset, _)| offset.parse().ok()).ok_or_else(
                || RedisFailure::Refused(format!("the log has an entry {id}, which no hub wrote")),
            )?;
            report.blocks += 1;
            match StreamEntry::read(raw) {
                Err(failure) => report.faults.push(failure.to_string()),
                Ok(entry) => {
                    report.events += entry.block.len() as u64;
                    let is_foreign = !log.lineage.holds(entry.epoch, at);
                    if is_foreign && log.has_moved().await? {
                        return Err(RedisFailure::Refused(MOVED.to_owned()));
                    }
                    let is_hole = |before| {
                        log.lineage.remembers(before) && !log.lineage.joins(before, entry.before)
                    };
                    if before.is_some_and(is_hole) {
                        let fault = "does not begin where the one before ends";
                        report.faults.push(format!("the entry {id} of the log {fault}"));
                    }
                    if is_foreign {
                        report.faults.push(format!("the entry {id} is of another epoch"));
                    }
                }
            }
            before = Some(at);
        }
    }
    // After the entries, to which nodes may have added meanwhile.
    report.head = log.head().await?;
    if at > report.head {
        if log.has_moved().await? {
            return Err(RedisFailure::Refused(MOVED.to_owned()));
        }
        report.faults.push(format!("events up to {at} lie beyond the head {}", report.head));
    }
    Ok(report)
}

struct ExportedLog {
    server: Server,
    stored: StoredLog,
    lineage: Lineage,
}

impl ExportedLog {
    async fn open(server: Server) -> Result<Self, RedisOpenError> {
        let refuse = |reason: String| RedisOpenError { server: server.to_string(), reason };
        let stored = StoredLog::new(server.clone(), LogKeys::new(&server.config().prefix));
        // As Redis keeps it.
        let lineage: Result<Option<String>, _> = stored.meta("lineage").await;
        let lineage = lineage.map_err(|failure| refuse(failure.to_string()))?;
        let lineage = lineage.ok_or_else(|| {
            let prefix = &server.config().prefix;
            refuse(format!("holds no log under `cluster.prefix` {prefix:?}"))
        })?;
        let lineage = Lineage::parse(&lineage)
            .ok_or_else(|| refuse(format!("the log's lineage is unreadable: {lineage:?}")))?;
        Ok(Self { stored, lineage, server })
    }

    /// Whether the lineage is another than when this was opened.
    async fn has_moved(&self) -> Result<bool, RedisFailure> {
        let now: Option<String> = self.stored.meta("lineage").await?;
        Ok(now.as_deref().and_then(Lineage::parse).as_ref() != Some(&self.lineage))
    }

    async fn entries(&self, after: Offset) -> Result<Vec<RawEntry>, RedisFailure> {
        self.stored.entries(&format!("({after}-0"), COUNT).await
    }

    async fn topics(&self) -> Result<RedisTopics, RedisFailure> {
        let StoredLog { link, keys } = &self.stored;
        let forgotten: Option<Offset> = self.stored.meta("forgotten_through").await?;
        let entries: Vec<(String, String)> = link.run(cmd("HGETALL").arg(&keys.topics)).await?;
        Ok(RedisTopics::new(0, forgotten.unwrap_or(0), entries))
    }

    async fn head(&self) -> Result<Offset, RedisFailure> {
        Ok(self.stored.meta("head").await?.unwrap_or(0))
    }

    fn refuse(&self, failure: &RedisFailure) -> RedisOpenError {
        RedisOpenError { server: self.server.to_string(), reason: failure.to_string() }
    }
}
