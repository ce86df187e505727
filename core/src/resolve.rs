//! What became of an append that a seal caught: found or surely absent (no guess).
//!
//! Every batch carries its writer's life and a sequence number. Once the chain names where a sealed
//! segment ends, that segment's last part is immutable and readable. So a writer that was told
//! `Sealed` reads from where the log ended when it first sent the batch up to the boundary: a batch
//! with its mark is in the log, and a batch without may safely go into the next segment. Absent holds
//! only when every position was read. The papers leave duplicates here.
//!
//! A token answers the same question later, and elsewhere: it names the one segment where the append
//! can be. Where the writer sends it on, its token changes first; once somebody holds it, it is not sent
//! on (see `appender.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use virtuallog_protocol::{LogPos, LogletPos, Segment, WriterId};

use crate::error::{Error, ErrorCode, Result};
use crate::log::{Log, View};
use crate::loglet::{Loglet, LogletError};
use crate::token::Token;

/// Most bytes that one step of a resolution reads.
const STEP_BYTES: usize = 1 << 20;

impl Log {
    /// Where the entry that the token names is; `None` when it is not in the log and never will be: its
    /// segment ended without it, and it goes to no other one. `tail`: of the log, since the call began.
    pub(crate) async fn look_up(
        self: &Arc<Self>,
        token: &Token,
        tail: LogPos,
    ) -> Result<Option<LogPos>> {
        loop {
            let view = self.fetch().await?;
            let Some(segment) = view.chain.segment(token.segment) else {
                return Err(match token.segment > view.chain.active().index {
                    true => Error::invalid("the token is of another log"),
                    false => crate::log::trimmed(view.chain.first()),
                });
            };
            let to = segment.to_loglet(segment.stop.unwrap_or(tail).max(segment.start));
            let from = token.from.clamp(segment.base, to);
            let look = match self.look_at(&view, segment, &[token.writer], from, to).await {
                Ok(look) => look,
                Err(error) => {
                    self.if_outdated(&view, segment, error).await?;
                    continue;
                }
            };
            if let Some(position) = locate(&look.found, token.writer, token.seq) {
                return Ok(Some(position));
            }
            return match segment.stop {
                _ if look.trimmed.is_some() => Err(crate::log::trimmed(self.first().await?)),
                Some(_) => Ok(None),
                None => Err(Error::new(
                    ErrorCode::Unavailable,
                    "still undecided: the segment that it was sent to is open; ask again later, or \
                     seal the segment with `reconfig_extend`",
                )),
            };
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
