//! The plain values that operations take and give.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use virtuallog_protocol::LogPos;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position. Positions strictly increase from entry to entry and may skip.
    pub position: LogPos,
    /// What was appended.
    pub payload: Bytes,
    /// The writer's clock in microseconds since 1970 (UTC), taken when the entry's batch was
    /// framed. Information only: never used for order, and clocks may go back.
    pub written_at_micros: i64,
}

impl Entry {
    /// The writer's clock as a [`SystemTime`].
    #[must_use]
    pub fn written_at(&self) -> SystemTime {
        let distance = Duration::from_micros(self.written_at_micros.unsigned_abs());
        match self.written_at_micros {
            0.. => SystemTime::UNIX_EPOCH + distance,
            _ => SystemTime::UNIX_EPOCH - distance,
        }
    }
}

/// What `append_all` put into the log. Other writers' entries may lie in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Position of the first entry.
    pub first: LogPos,
    /// Position of the last entry.
    pub last: LogPos,
    /// How many entries.
    pub count: u64,
}

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this position.
    At(LogPos),
    /// At the first position that was not trimmed.
    First,
    /// At the tail as checked at the call: entries to come.
    Tail,
}

impl From<LogPos> for Start {
    fn from(position: LogPos) -> Self {
        Start::At(position)
    }
}

/// What `prefix_trim` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// The first position to keep, as asked.
    pub requested: LogPos,
    /// The first position that is kept.
    pub effective: LogPos,
    /// Why `effective` is not `requested`.
    pub limited_by: Option<TrimLimit>,
}

/// What held a trim back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrimLimit {
    /// Nothing beyond the tail can be trimmed.
    Tail,
    /// More than was asked had been trimmed before.
    AlreadyTrimmed,
}

impl TrimLimit {
    /// The word that every language and the command line use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TrimLimit::Tail => "tail",
            TrimLimit::AlreadyTrimmed => "already_trimmed",
        }
    }
}

/// What a reconfiguration would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The chain version that the plan speaks of: pass it as `if_version` to execute exactly this.
    pub version: u64,
    /// The active loglet as users write it.
    pub from: String,
    /// The loglet to come, with all that was left to defaults written out.
    pub to: String,
    /// Index of the segment that would be sealed.
    pub seals_segment: u32,
    /// The tail at the time of planning: the boundary will be here or later.
    pub tail: LogPos,
    /// Bytes that would have to be moved: none for an extend.
    pub bytes_to_move: u64,
    /// What stands against it, in sentences. Empty: it can be done.
    pub objections: Vec<String>,
    /// Where the active loglet is, if it is on nodes of a cluster.
    pub before: Option<Placement>,
    /// Where the loglet to come would be, if on nodes, as things are now.
    pub after: Option<Placement>,
}

/// The nodes that a loglet is on. A majority of them has to be there for it to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Numbers of the nodes that hold it.
    pub members: Vec<u32>,
    /// Number of the one that sequences it.
    pub sequencer: u32,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Segments looked at.
    pub segments: u64,
    /// Entries read, each with a right checksum.
    pub entries: u64,
    /// Bytes of payload.
    pub bytes: u64,
    /// What is wrong, in sentences that name segment and position. Empty: all is well.
    pub problems: Vec<String>,
}
