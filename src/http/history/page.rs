//! A page of history under way: read from the log and given out piece by piece.

use std::{collections::VecDeque, fmt::Write as _, sync::Arc};

use axum::body::Bytes;
use bytes::BytesMut;

use super::{CHUNK, HistoryRequest, PIECE, SEARCHED, new_epoch};
use crate::{
    broker::{LogChunk, ReadError},
    event::Record,
    http::AppState,
    position::{Offset, Position},
    protocol::Replay,
    topic::TopicFilter,
};

/// A page under way: what was given of it, and what is still to be read.
pub(super) struct Page {
    state: AppState,
    asked: HistoryRequest,
    is_forward: bool,
    /// The log's when the page was begun, and of the epoch that all its positions are of.
    pub(super) head: Position,
    /// The events lie in `(after, reached]`; `end` is where the last may lie, `until` where none lies behind it.
    after: Offset,
    reached: Offset,
    end: Offset,
    until: Offset,
    /// Read already.
    ready: Option<LogChunk>,
    events: usize,
    bytes: usize,
    searched: usize,
    is_over: bool,
    trimmed_through: Offset,
}

impl Page {
    /// A page with its first events: forward from `after` or `since`; without either, the newest before `before`.
    pub(super) async fn begin(
        asked: HistoryRequest,
        state: &AppState,
        user: &Arc<str>,
    ) -> Result<(Self, Option<Bytes>), ReadError> {
        let broker = &state.broker;
        let head = broker.head();
        let until =
            asked.before.map_or(head.offset, |before| before.saturating_sub(1).min(head.offset));
        let since = match asked.since {
            None | Some(Replay::Last(_) | Replay::Latest) => None,
            Some(Replay::SinceAgo(ago)) => Some(state.clock.now().saturating_sub(ago)),
            Some(Replay::SinceTime(time)) => Some(time),
        };
        let is_forward = asked.after.is_some() || since.is_some();
        let (start, end) = match since {
            _ if !is_forward => {
                let (hub, limit) = (&state.hub, asked.limit);
                let newest = hub.newest(Some(user), &asked.filter, limit, until, SEARCHED).await?;
                (newest.after, newest.until)
            }
            Some(time) => (broker.epochs().locate(time, until).await?, until),
            None => (0, until),
        };
        let start = start.max(asked.after.unwrap_or(0));
        let mut page = Self {
            // Another node may have told of more than this one has heard of, and gave what lies before that.
            head: Position { offset: head.offset.max(start), ..head },
            state: state.clone(),
            asked,
            is_forward,
            after: start,
            reached: start,
            end,
            until,
            ready: None,
            events: 0,
            bytes: 0,
            searched: 0,
            is_over: false,
            trimmed_through: 0,
        };
        if !is_forward {
            page.narrow().await?;
        }
        let first = page.piece().await?;
        Ok((page, first))
    }

    /// The bytes of events that a page has at most.
    fn most_bytes(&self) -> usize {
        self.state.settings.limits.body.as_usize()
    }

    /// Begins later, so that the newest of the page are not too many: only their sizes are kept meanwhile.
    async fn narrow(&mut self) -> Result<(), ReadError> {
        let (mut sizes, mut bytes) = (VecDeque::new(), 0);
        let mut reached = self.reached;
        while reached < self.end {
            let chunk = self.read(reached).await?;
            let through = chunk.reached.min(self.end);
            if through <= reached {
                break; // the log ends sooner than its head said
            }
            for record in matching(&chunk, reached, through, &self.asked.filter) {
                let size = self.asked.shown(record).len();
                bytes += size;
                sizes.push_back((record.offset(), size));
                while sizes.len() > self.asked.limit || sizes.len() > 1 && bytes > self.most_bytes()
                {
                    let Some((offset, size)) = sizes.pop_front() else { break };
                    self.after = offset;
                    bytes -= size;
                }
            }
            if reached == self.reached && through == self.end {
                self.ready = Some(chunk); // all there is
            }
            reached = through;
            tokio::task::yield_now().await; // what is in memory was read without waiting
        }
        self.reached = self.after;
        Ok(())
    }

    async fn read(&mut self, after: Offset) -> Result<LogChunk, ReadError> {
        let broker = &self.state.broker;
        let chunk = broker.read(after, self.end, &self.asked.filter, CHUNK).await?;
        if broker.epochs().newest() != self.head.epoch {
            return Err(new_epoch());
        }
        self.trimmed_through = self.trimmed_through.max(chunk.trimmed_through);
        Ok(chunk)
    }

    /// The next events, at most [`PIECE`] and one more; None when the page has all of them.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, ReadError> {
        let mut piece = BytesMut::new();
        while piece.is_empty() && !self.is_over && self.reached < self.end {
            if self.is_forward && self.searched >= SEARCHED {
                self.is_over = true;
                break;
            }
            let chunk = match self.ready.take() {
                Some(chunk) => chunk,
                None => self.read(self.reached).await?,
            };
            let is_read_whole = self.take(&chunk, &mut piece);
            // Of which retention may have left nothing.
            self.searched += if is_read_whole { CHUNK } else { PIECE };
            tokio::task::yield_now().await;
        }
        if piece.is_empty() {
            if !self.is_over {
                self.reached = self.reached.max(self.until);
            }
            self.is_over = true;
            return Ok(None);
        }
        Ok(Some(piece.freeze()))
    }

    /// Puts what is in `chunk` into `piece`, up to its size and the page's; whether that was all.
    fn take(&mut self, chunk: &LogChunk, piece: &mut BytesMut) -> bool {
        let (after, through) = (self.reached, chunk.reached.min(self.end));
        if through <= after {
            self.is_over = true; // the log ends sooner than its head said
            return true;
        }
        for record in matching(chunk, after, through, &self.asked.filter) {
            let json = self.asked.shown(record);
            let is_full = self.events == self.asked.limit
                || self.events > 0 && self.bytes + json.len() > self.most_bytes();
            if is_full {
                self.is_over = true;
                return false;
            }
            if piece.len() >= PIECE {
                return false;
            }
            if self.events > 0 {
                piece.extend_from_slice(b",");
            }
            // Copied, for sharing the block would keep its other events in memory as well.
            piece.extend_from_slice(&json);
            self.events += 1;
            self.bytes += json.len();
            self.reached = record.offset();
        }
        self.reached = through;
        true
    }

    /// `first` is for `before`, which asks for the page before this one; `next` is for `after`, which asks for the page
    /// after it. This page has everything that matches between the two.
    pub(super) fn tail(&self) -> Bytes {
        let head = self.head;
        let position = |offset| Position { offset, ..head };
        let (first, next) = (position(self.after.saturating_add(1)), position(self.reached));
        let mut out =
            format!("],\"position\":\"{head}\",\"first\":\"{first}\",\"next\":\"{next}\"");
        let lost = self.trimmed_through.min(self.reached);
        if lost > self.after {
            // Writing to memory cannot fail.
            let _ = write!(out, ",\"trimmed_through\":\"{}\"", position(lost));
        }
        out.push('}');
        out.into()
    }
}

/// The events in `(after, through]` that match.
fn matching<'a>(
    chunk: &'a LogChunk,
    after: Offset,
    through: Offset,
    filter: &'a TopicFilter,
) -> impl Iterator<Item = Record<'a>> {
    let records = chunk.blocks.iter().flat_map(move |block| block.records_after(after));
    records
        .take_while(move |record| record.offset() <= through)
        .filter(|record| filter.matches(record.topic()))
}
