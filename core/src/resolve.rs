//! What became of an append that a seal caught: found or surely absent (no guess).
//!
//! Every batch carries its writer's life and a sequence number. Once the chain names where a sealed
//! segment ends, that segment's last part is immutable and readable. So a writer that was told
//! `Sealed` reads from where the log ended when it first sent the batch up to the boundary: a batch
//! with its mark is in the log, and a batch without may safely go into the next segment. Absent holds
//! only when every position was read. The papers leave duplicates here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use virtuallog_protocol::{LogPos, LogletPos, Segment, WriterId};

use crate::env;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Log, View};
use crate::loglet::{Loglet, LogletError};
use crate::token::Token;

/// Most bytes that one step of a resolution reads.
const STEP_BYTES: usize = 1 << 20;

/// One life of a writer, shared by everything of it that is under way.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) writer: WriterId,
    /// Whether its appender may still begin something in it.
    current: AtomicBool,
}

/// The lives of all writers of this process, whatever their store, since a log goes from one to
/// another: what is under way cannot be absent yet. By process, since a child has none of its parent's.
fn lives() -> MutexGuard<'static, BTreeMap<(u32, WriterId), Weak<Life>>> {
    static LIVES: Mutex<BTreeMap<(u32, WriterId), Weak<Life>>> = Mutex::new(BTreeMap::new());
    LIVES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Life {
    pub(crate) fn begin() -> Arc<Life> {
        let writer = WriterId(env::random_u128());
        let life = Arc::new(Life { writer, current: AtomicBool::new(true) });
        let mut lives = lives();
        lives.retain(|_, life| life.strong_count() > 0);
        lives.insert((env::process(), writer), Arc::downgrade(&life));
        life
    }

    /// Whether something of this writer may still go into the log from this process.
    pub(crate) fn is_busy(writer: WriterId) -> bool {
        let life = lives().get(&(env::process(), writer)).and_then(Weak::upgrade);
        let Some(life) = life else { return false };
        // Ours, and the appender's own while it is the current one.
        let at_rest = 1 + usize::from(life.current.load(Ordering::Acquire));
        Arc::strong_count(&life) > at_rest
    }

    /// Nothing more begins in it.
    pub(crate) fn end(&self) {
        self.current.store(false, Ordering::Release);
    }
}

impl Log {
    /// Where the entry that the token names is; `None` when it is not in the log and never will be.
    /// `at_rest`: its writer had nothing under way before `tail` was the tail.
    pub(crate) async fn look_up(
        self: &Arc<Self>,
        token: &Token,
        at_rest: bool,
        tail: LogPos,
    ) -> Result<Option<LogPos>> {
        let (view, complete) = 'chain: loop {
            let view = self.fetch().await?;
            // It may have gone on from the segment that it was sent to first into the ones after it.
            let mut complete = true;
            for segment in view.chain.segments.iter().filter(|s| s.index >= token.segment) {
                let to = segment.to_loglet(segment.stop.unwrap_or(tail).max(segment.start));
                let from = match segment.index == token.segment {
                    true => token.from.clamp(segment.base, to),
                    false => segment.base,
                };
                let look = match self.look_at(&view, segment, &[token.writer], from, to).await {
                    Ok(look) => look,
                    Err(error) => {
                        self.if_outdated(&view, segment, error).await?;
                        continue 'chain;
                    }
                };
                complete &= look.trimmed.is_none();
                if let Some(position) = locate(&look.found, token.writer, token.seq) {
                    return Ok(Some(position));
                }
            }
            break (view, complete);
        };
        match view.chain.segment(token.segment) {
            None => Err(crate::log::trimmed(view.chain.first())),
            Some(_) if !complete => Err(crate::log::trimmed(self.first().await?)),
            Some(segment) if segment.stop.is_some() && at_rest => Ok(None),
            Some(_) => Err(Error::new(
                ErrorCode::Unavailable,
                "still undecided: the segment that it was sent to is open; ask again later, or \
                 seal the segment with `reconfig_extend`",
            )),
        }
    }

    /// Waits until the chain names where `view`'s active segment ended, and reads the batches of
    /// `writers` in its last part.
    pub(crate) async fn sealed_part(
        self: &Arc<Self>,
        view: &Arc<View>,
        writers: &[WriterId],
        from: LogletPos,
    ) -> Result<Look> {
        let index = view.chain.active().index;
        let mut newer = self.view_beyond(index).await?;
        let look = loop {
            // Trimmed away: nothing is found, and nothing is absent.
            let Some(segment) = newer.chain.segment(index) else {
                return Ok(Look { trimmed: Some(newer.chain.first()), ..Look::default() });
            };
            let Some(stop) = segment.stop else { return Err(newer.over()) };
            let to = segment.to_loglet(stop);
            let from = from.max(segment.base).min(to);
            match self.look_at(&newer, segment, writers, from, to).await {
                Ok(look) => break look,
                // Since then it was trimmed away or copied elsewhere.
                Err(error) => self.if_outdated(&newer, segment, error).await?,
            }
            newer = self.view();
        };
        #[cfg(any(test, feature = "testing"))]
        let look = self.appender.mistake(self.options.planted, look, newer.chain.first());
        Ok(look)
    }

    async fn look_at(
        &self,
        view: &View,
        segment: &Segment,
        writers: &[WriterId],
        from: LogletPos,
        to: LogletPos,
    ) -> Result<Look, LogletError> {
        let loglet = self.try_loglet(view, segment).await?;
        sightings(&*loglet, segment, writers, from, to).await
    }
}

/// Batches in a stretch of a loglet, by their writer's mark.
pub(crate) type Found = BTreeMap<(WriterId, u64), Sighting>;

/// What a look at a stretch of a loglet gave.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) found: Found,
    /// What is kept begins here, when a part of the stretch was trimmed meanwhile: that part says nothing
    /// of absence.
    pub(crate) trimmed: Option<LogPos>,
}

/// What an append is told whose place was trimmed before anybody looked: it may have been in the log.
pub(crate) fn trimmed_meanwhile(first_kept: LogPos) -> Error {
    let message = "the append met the end of its segment, and the part of it where the append would be \
                   found was trimmed since";
    Error::new(ErrorCode::Trimmed, message).at(first_kept)
}

/// A batch of the writer, as it stands in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    pub(crate) first: LogPos,
    pub(crate) count: u64,
    pub(crate) crc: u32,
}

/// Reads all of `[from, to)` and notes the batches of `writers`.
///
/// # Errors
/// The loglet's: then nothing is known to be absent.
async fn sightings(
    loglet: &dyn Loglet,
    segment: &Segment,
    writers: &[WriterId],
    from: LogletPos,
    to: LogletPos,
) -> Result<Look, LogletError> {
    let mut found = Found::new();
    let mut trimmed = None;
    let mut at = from;
    while at < to {
        let batches = match loglet.read(at, to, STEP_BYTES).await {
            Err(LogletError::Trimmed { first_kept }) if first_kept > at => {
                trimmed = Some(segment.to_log(first_kept));
                at = first_kept;
                continue;
            }
            other => other?,
        };
        let Some(last) = batches.last() else { break };
        at = last.end();
        for batch in batches {
            let header = *batch.batch.header();
            if writers.contains(&header.writer) && batch.first < to {
                let first = segment.to_log(batch.first);
                let count = batch.batch.count();
                found.insert(
                    (header.writer, header.first_seq),
                    Sighting { first, count, crc: header.crc },
                );
            }
        }
    }
    Ok(Look { found, trimmed })
}

/// Where the entry with this sequence number is, if it was sighted.
pub(crate) fn locate(found: &Found, writer: WriterId, seq: u64) -> Option<LogPos> {
    let ((_, first_seq), sighting) = found.range((writer, 0)..=(writer, seq)).next_back()?;
    let index = seq - first_seq;
    (index < sighting.count).then(|| sighting.first.plus(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_inside_its_batch() {
        let sighting = Sighting { first: LogPos(100), count: 3, crc: 0 };
        let found = Found::from([((WriterId(1), 10), sighting)]);
        assert_eq!(locate(&found, WriterId(1), 9), None);
        assert_eq!(locate(&found, WriterId(1), 12), Some(LogPos(102)));
        assert_eq!(locate(&found, WriterId(1), 13), None);
        assert_eq!(locate(&found, WriterId(2), 12), None);
    }
}
