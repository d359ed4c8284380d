//! What the journal need not know any more: old ids, and topics that hold nothing.

use std::collections::{HashMap, HashSet};

use super::{
    commit::MOST_AHEAD,
    dedupe::{self, Dedupe},
    file::JournalFile,
    state::has_newest,
    topics::TopicId,
};
use crate::{position::Offset, time::Millis};

/// Topics forgotten at a time, but for the hub's own: for that long whoever looks up a topic waits.
const FORGET_STEP: usize = 10_000;
/// Rows of old ids dropped in one statement.
const IDS_STEP: usize = 500;

/// Drops the ids that have left the window.
pub(super) fn drop_old_ids(
    file: &JournalFile,
    dedupe: &mut Dedupe,
    now: Millis,
) -> rusqlite::Result<bool> {
    dedupe.expire(file.shared.clock.elapsed());
    if !file.shared.clock.is_settled() {
        return Ok(false);
    }
    let from = now.saturating_sub(dedupe.window());
    let (mut dropped, mut through) = (0, None);
    {
        let mut select = file
            .connection
            .prepare_cached("SELECT first, received, hashes FROM ids ORDER BY first LIMIT ?")?;
        let mut rows = select.query([IDS_STEP])?;
        while let Some(row) = rows.next()? {
            let received: Millis = row.get(1)?;
            let is_over = if received > now.saturating_add(MOST_AHEAD) {
                // The clock was ahead then, and memory alone knows how long ago that is.
                !dedupe.knows_any(&dedupe::decode(&row.get::<_, Vec<u8>>(2)?))
            } else {
                received < from
            };
            if !is_over {
                break;
            }
            through = Some(row.get::<_, Offset>(0)?);
            dropped += 1;
        }
    }
    // A deletion takes the file's lock also where it finds nothing.
    if let Some(through) = through {
        file.connection.prepare_cached("DELETE FROM ids WHERE first <= ?")?.execute([through])?;
    }
    Ok(dropped == IDS_STEP)
}

/// At the limit of topics, those that hold nothing any more make room. So do the hub's own when
/// there are as many; but newest values of theirs, such as the registry of instances, outlive
/// retention.
pub(super) fn forget_topics(file: &JournalFile) -> rusqlite::Result<bool> {
    let shared = file.shared.clone();
    let due: Vec<(TopicId, Offset, bool)> = {
        let topics = shared.topics.read();
        let (limit, own) = (shared.config.max_topics, topics.reserved());
        let (is_full, is_own_full) = (topics.len() - own >= limit, own >= limit);
        if !is_full && !is_own_full {
            return Ok(false);
        }
        let empty = topics.iter().filter(|(_, state)| state.info.events == 0);
        let due = empty
            .map(|(id, state)| (id, state.info.trimmed_through, state.info.topic.is_reserved()));
        let due = due.filter(|(.., is_own)| if *is_own { is_own_full } else { is_full });
        let mut left = FORGET_STEP;
        let due = due.filter(|(.., is_own)| {
            let is_next = *is_own || left > 0;
            left = left.saturating_sub(usize::from(!is_own));
            is_next
        });
        due.collect()
    };
    let mut empty: HashMap<TopicId, Offset> = HashMap::new();
    for (id, through, is_own) in due {
        if !is_own || !has_newest(&file.connection, id)? {
            empty.insert(id, through);
        }
    }
    if empty.is_empty() {
        return Ok(false);
    }
    // What they lost is remembered by topic, for as many again as the log may hold.
    let (dropped, through) = {
        let topics = shared.topics.read();
        let more = empty.iter().map(|(id, lost)| (*id, *lost));
        let dropped = topics.too_many_forgotten(more, shared.config.max_topics);
        let through = dropped.iter().map(|(_, lost)| *lost).max().unwrap_or(0);
        let through = through.max(topics.forgotten_through());
        (dropped.into_iter().map(|(id, _)| id).collect::<HashSet<_>>(), through)
    };
    shared.topics.write().set_forgotten_through(through);
    let transaction = file.connection.unchecked_transaction()?;
    transaction.execute("UPDATE meta SET value = ? WHERE key = 'forgotten_through'", [through])?;
    for id in empty.keys() {
        transaction.prepare_cached("DELETE FROM latest WHERE topic_id = ?")?.execute([id])?;
    }
    for id in &dropped {
        transaction.prepare_cached("DELETE FROM topics WHERE id = ?")?.execute([id])?;
    }
    transaction.commit()?;
    let mut topics = shared.topics.write();
    empty.keys().for_each(|id| topics.forget(*id));
    topics.drop_forgotten(&dropped);
    Ok(false)
}
