//! Reading: entries in order across segments, bounded or for ever.
//!
//! A reader goes no further than what is surely the log: in a closed segment up to the boundary that
//! the chain names, in the open one up to a tail that its loglet showed unsealed. When the loglet
//! turns out sealed it waits for the chain, so that it never shows an entry that the chain cuts off.
//! While the caller works on one stretch, the next one is already being read.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_core::future::BoxFuture;
use tokio::task::JoinHandle;
use virtuallog_protocol::record::BatchKind;
use virtuallog_protocol::{LogPos, LogletPos, StampedBatch};

use crate::entry::Entry;
use crate::env;
use crate::error::{Error, Result};
use crate::log::{Log, View};
use crate::loglet::{Loglet, LogletError};

/// Bytes that are asked for at a time: large enough to hide the hand-over to another thread.
const READ_BYTES: usize = 1 << 20;

/// Reads entries in order; made by [`read`](crate::VirtualLog::read) and
/// [`subscribe`](crate::VirtualLog::subscribe).
///
/// Also a `Stream` of `Result<Entry>`. An error is given once and ends nothing: the next call tries
/// again from [`position`](Self::position). Everything is cancel-safe: an entry that was not handed
/// out is handed out by the next call. Holds at most two stretches of about 1 MiB in memory.
pub struct Reader {
    ready: VecDeque<Entry>,
    position: LogPos,
    cursor: Step,
}

/// The cursor rests, or is away getting entries.
enum Step {
    Resting(Box<Cursor>),
    Away(BoxFuture<'static, (Box<Cursor>, Result<Vec<Entry>>)>),
    Moving,
}

/// Where a reader is, apart from what it has at hand.
struct Cursor {
    log: Arc<Log>,
    next: LogPos,
    /// `None`: for ever.
    end: Option<LogPos>,
    /// What lies below is surely the log, in the segment with this index.
    known: (u32, LogPos),
    ahead: Option<Ahead>,
}

/// A stretch that is being read while the one before it is worked on.
struct Ahead {
    segment: u32,
    from: LogletPos,
    to: LogletPos,
    batches: JoinHandle<Result<Vec<StampedBatch>, LogletError>>,
    /// Keeps the store open that is read from, if the log moves on to another one.
    _view: Arc<View>,
}

impl Reader {
    pub(crate) fn new(log: Arc<Log>, start: LogPos, end: Option<LogPos>) -> Self {
        let cursor = Cursor { log, next: start, end, known: (u32::MAX, start), ahead: None };
        Self { ready: VecDeque::new(), position: start, cursor: Step::Resting(Box::new(cursor)) }
    }

    /// The next position to deliver: what to save in order to resume.
    #[must_use]
    pub fn position(&self) -> LogPos {
        self.position
    }

    /// The next entries: at least one and at most `entries_max`, waiting for the first. Empty: a
    /// bounded read is at its end, or the log was ended and all of it was read.
    ///
    /// # Errors
    /// `TRIMMED` when the position was trimmed away, `CORRUPT`, `UNAVAILABLE`, `CLOSED`.
    pub async fn next_batch(&mut self, entries_max: usize) -> Result<Vec<Entry>> {
        if !std::future::poll_fn(|context| self.poll_fill(context)).await? {
            return Ok(Vec::new());
        }
        let count = self.ready.len().min(entries_max.max(1));
        let batch: Vec<Entry> = match count == self.ready.len() {
            // Not moved one by one.
            true => std::mem::take(&mut self.ready).into(),
            false => self.ready.drain(..count).collect(),
        };
        self.deliver(&batch[count - 1]);
        Ok(batch)
    }

    /// The next entry, waiting for it; `None` at the end.
    ///
    /// # Errors
    /// As [`next_batch`](Self::next_batch).
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        std::future::poll_fn(|context| self.poll_entry(context)).await
    }

    fn poll_entry(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Entry>>> {
        if !ready!(self.poll_fill(context))? {
            return Poll::Ready(Ok(None));
        }
        let entry = self.ready.pop_front().expect("just filled");
        self.deliver(&entry);
        Poll::Ready(Ok(Some(entry)))
    }

    fn deliver(&mut self, last: &Entry) {
        self.position = last.position.plus(1);
    }

    /// Makes sure that an entry is at hand. False: there is none and never will be.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<bool>> {
        loop {
            if !self.ready.is_empty() {
                return Poll::Ready(Ok(true));
            }
            match std::mem::replace(&mut self.cursor, Step::Moving) {
                Step::Resting(mut cursor) => {
                    self.cursor = Step::Away(Box::pin(async move {
                        let entries = cursor.advance().await;
                        (cursor, entries)
                    }));
                }
                Step::Away(mut away) => {
                    let Poll::Ready((cursor, entries)) = away.as_mut().poll(context) else {
                        self.cursor = Step::Away(away);
                        return Poll::Pending;
                    };
                    self.position = self.position.max(cursor.skipped_to(&entries));
                    self.cursor = Step::Resting(cursor);
                    let entries = entries?;
                    if entries.is_empty() {
                        return Poll::Ready(Ok(false));
                    }
                    self.ready = entries.into();
                }
                Step::Moving => unreachable!("a poll leaves the cursor in its place"),
            }
        }
    }
}

impl Stream for Reader {
    type Item = Result<Entry>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_entry(context).map(Result::transpose)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("position", &self.position).finish_non_exhaustive()
    }
}

/// What the cursor finds at its place.
enum Place {
    /// Entries may stand in this range of a segment.
    Range {
        index: u32,
        loglet: Arc<dyn Loglet>,
        from: LogletPos,
        to: LogletPos,
    },
    /// Look again: something changed.
    Again,
    End,
}

impl Cursor {
    /// The next entries; empty at the end.
    async fn advance(&mut self) -> Result<Vec<Entry>> {
        let log = self.log.clone();
        loop {
            log.check_open()?;
            let view = log.view();
            let place = tokio::select! {
                biased;
                () = log.until_closed() => return Err(crate::log::closed()),
                place = self.place(&view) => place?,
            };
            let (index, loglet, from, to) = match place {
                Place::End => return Ok(Vec::new()),
                Place::Again => continue,
                Place::Range { index, loglet, from, to } => (index, loglet, from, to),
            };
            // What was read ahead may end earlier: nothing is known of what lies beyond its end.
            let (batches, read_to) = match self.take_ahead(index, from, to).await {
                Some(ahead) => ahead,
                None => (loglet.read(from, to, READ_BYTES).await, to),
            };
            match batches {
                Ok(batches) => {
                    let entries = self.cut(&view, index, &batches, read_to);
                    self.read_ahead(&view, index, loglet, to);
                    if !entries.is_empty() {
                        return Ok(entries);
                    }
                }
                Err(error) => self.failed(&view, index, error).await?,
            }
        }
    }

    /// Where the next entries stand. Waits at the tail.
    async fn place(&mut self, view: &Arc<View>) -> Result<Place> {
        if self.end.is_some_and(|end| self.next >= end) {
            return Ok(Place::End);
        }
        let Some(segment) = view.chain.locate(self.next) else {
            return match self.next < view.chain.first() {
                true => Err(crate::log::trimmed(self.log.first().await?)),
                // An ended log was read to its end.
                false => Ok(Place::End),
            };
        };
        let loglet = match self.log.try_loglet(view, segment).await {
            Ok(loglet) => loglet,
            Err(error) => {
                return self.failed(view, segment.index, error).await.map(|()| Place::Again);
            }
        };
        let from = segment.to_loglet(self.next);
        let below = match segment.stop {
            Some(stop) => stop,
            None if self.end.is_some() => self.end.expect("just looked"),
            None => {
                if self.known.0 != segment.index || self.known.1 <= self.next {
                    let tail = match loglet.wait_tail(from).await {
                        Ok(tail) => tail,
                        Err(error) => {
                            let again = self.failed(view, segment.index, error).await;
                            return again.map(|()| Place::Again);
                        }
                    };
                    if tail.sealed {
                        self.log.view_beyond(segment.index).await?;
                        return Ok(Place::Again);
                    }
                    self.known = (segment.index, segment.to_log(tail.position));
                }
                self.known.1
            }
        };
        let below = self.end.map_or(below, |end| end.min(below));
        let (index, to) = (segment.index, segment.to_loglet(below));
        Ok(Place::Range { index, loglet, from, to })
    }

    /// The entries of `batches` that lie in the range, and the cursor behind them.
    fn cut(
        &mut self,
        view: &View,
        index: u32,
        batches: &[StampedBatch],
        to: LogletPos,
    ) -> Vec<Entry> {
        let segment = view.chain.segment(index).expect("it was located in this view");
        let from = segment.to_loglet(self.next);
        let count: u64 = batches.iter().map(|b| b.batch.count()).sum();
        let mut entries = Vec::with_capacity(count as usize);
        for stamped in batches {
            let header = stamped.batch.header();
            if header.kind != BatchKind::Data {
                continue;
            }
            let mut at = stamped.first;
            for payload in stamped.batch.entries() {
                if at >= from && at < to {
                    let position = segment.to_log(at);
                    let written_at_micros = header.written_at;
                    entries.push(Entry { position, payload, written_at_micros });
                }
                at = at.plus(1);
            }
        }
        // Nothing came: all of the range is empty for ever.
        let done = batches.last().map_or(to, |last| last.end().min(to));
        self.next = segment.to_log(done);
        entries
    }

    /// Starts on the rest of the range, if there is one.
    fn read_ahead(&mut self, view: &Arc<View>, index: u32, loglet: Arc<dyn Loglet>, to: LogletPos) {
        let segment = view.chain.segment(index).expect("it was located in this view");
        let from = match self.next >= segment.start {
            true => segment.to_loglet(self.next),
            false => return,
        };
        if from < to {
            let read = async move { loglet.read(from, to, READ_BYTES).await };
            let batches = self.log.runtime.spawn(env::task(read));
            let _view = view.clone();
            self.ahead = Some(Ahead { segment: index, from, to, batches, _view });
        }
    }

    /// What was read ahead, if it is what is wanted now.
    async fn take_ahead(
        &mut self,
        segment: u32,
        from: LogletPos,
        to: LogletPos,
    ) -> Option<(Result<Vec<StampedBatch>, LogletError>, LogletPos)> {
        let ahead = self.ahead.as_mut()?;
        if (ahead.segment, ahead.from) != (segment, from) || ahead.to > to {
            self.ahead = None;
            return None;
        }
        let (batches, to) = ((&mut ahead.batches).await.ok(), ahead.to);
        self.ahead = None;
        Some((batches?, to))
    }

    /// A loglet failed. Passes when the chain has moved on and it is worth another try.
    async fn failed(&mut self, view: &Arc<View>, index: u32, error: LogletError) -> Result<()> {
        let segment = view.chain.segment(index).expect("it was located in this view");
        let gone = matches!(error, LogletError::Trimmed { .. } | LogletError::Unknown(_));
        if gone {
            let first = self.log.first().await?;
            if self.next < first {
                return Err(crate::log::trimmed(first));
            }
        }
        let outdated = self.log.if_outdated(view, segment, error).await;
        outdated.map_err(|error| error.at(self.next))
    }

    /// The position that the reader is at once there was nothing to hand out.
    fn skipped_to(&self, entries: &Result<Vec<Entry>>) -> LogPos {
        match entries {
            Ok(entries) => entries.first().map_or(self.next, |entry| entry.position),
            Err(_) => self.next,
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.batches.abort();
    }
}

/// Refuses a range that cannot be.
pub(crate) fn check_range(start: LogPos, end: Option<LogPos>, tail: LogPos) -> Result<()> {
    if start > tail {
        let message =
            format!("position {start} lies beyond the tail {tail}: read from the tail on");
        return Err(Error::invalid(message).at(tail));
    }
    match end {
        Some(end) if end > tail => Err(Error::invalid(format!(
            "the end {end} lies beyond the tail {tail}: leave it out to read up to the tail"
        ))
        .at(tail)),
        Some(end) if end < start => {
            Err(Error::invalid(format!("the range ends at {end}, before its start {start}")))
        }
        _ => Ok(()),
    }
}
