//! What became of an append that a seal caught: found or surely absent (no guess).
//!
//! Every batch carries its writer's life and a sequence number. Once the chain names where a sealed
//! segment ends, that segment's last part is immutable and readable. So a writer that was told
//! `Sealed` reads from where the log ended when it first sent the batch up to the boundary: a batch
//! with its mark is in the log, and a batch without may safely go into the next segment. Absent holds
//! only when every position was read. The papers leave duplicates here.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use virtuallog_protocol::{LogPos, LogletPos, Segment, WriterId};

use crate::error::{Error, Result};
use crate::loglet::{Loglet, LogletError};

/// Most bytes that one step of a resolution reads.
const STEP_BYTES: usize = 1 << 20;

/// Names one append whose outcome is in doubt.
///
/// Write it down with `Display`, read it back with `FromStr`, in this process or another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub(crate) writer: WriterId,
    /// Of this entry, not of its batch.
    pub(crate) seq: u64,
    /// The segment that it was sent to first.
    pub(crate) segment: u32,
    /// The log's end in that segment when it was sent: it can only be at or after this.
    pub(crate) from: LogletPos,
}

impl Token {
    pub(crate) fn plus(&self, entries: u64) -> Token {
        Token { seq: self.seq + entries, ..self.clone() }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.writer, self.seq, self.segment, self.from)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Token> {
        let bad = || Error::invalid(format!("not a token of an append in doubt: `{text}`"));
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or_else(bad);
        let writer = WriterId(u128::from_str_radix(part()?, 16).map_err(|_| bad())?);
        let seq = part()?.parse().map_err(|_| bad())?;
        let segment = part()?.parse().map_err(|_| bad())?;
        let from = LogletPos(part()?.parse().map_err(|_| bad())?);
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Token { writer, seq, segment, from })
    }
}

/// Batches in a stretch of a loglet, by their writer's mark.
pub(crate) type Found = BTreeMap<(WriterId, u64), Sighting>;

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
pub(crate) async fn sightings(
    loglet: &dyn Loglet,
    segment: &Segment,
    writers: &[WriterId],
    from: LogletPos,
    to: LogletPos,
) -> Result<Found, LogletError> {
    let mut found = Found::new();
    let mut at = from;
    while at < to {
        let batches = loglet.read(at, to, STEP_BYTES).await?;
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
    Ok(found)
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
    fn tokens_can_be_written_down() {
        let token = Token { writer: WriterId(0xabc), seq: 7, segment: 3, from: LogletPos(9) };
        assert_eq!(token.to_string().parse::<Token>().expect("its own form"), token);
        for bad in ["", "1.2.3", "1.2.3.4.5", "g.1.1.1", "1.-1.1.1"] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }

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
