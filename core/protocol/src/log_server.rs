//! What a LogServer decides about one loglet: whether it takes a batch, and what it answers.
//!
//! What it promises: a server's entries ascend and are taken without a hole, but for what is known to
//! be committed elsewhere; a sealed server takes nothing from a sequencer, whatever it already holds.
//!
//! The one idea: the state is four words, so it is copied. The store decides each request at the
//! moment that it takes it from its one queue, against a state that includes the earlier requests of
//! the same block, and answers with *that* state once the block is synced. So a seal is ordered with
//! appends (rule N4), and tail and seal bit are one snapshot (N6). An answer must not be taken from the
//! state after the block: a repair later in the block may have raised that tail.
//!
//! What it does not do: it knows no bytes, no disk, no known tail; it creates and forgets no loglet.
//! Read next: `sequencer.rs`, which sends; `tail_quorum.rs`, which asks.

use thiserror::Error;

use crate::planted::{Bug, Planted};
use crate::types::LogletPos;

/// One server's state of one loglet, as small as decisions need it. `base <= trim` and `base <= tail`; a
/// trim beyond the tail is of what others have and this one lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalLog {
    /// The first position that it could ever hold.
    pub base: LogletPos,
    /// The first position that was not trimmed.
    pub trim: LogletPos,
    /// The first position that it did not write. It may have skipped positions below.
    pub tail: LogletPos,
    /// True once it takes nothing from a sequencer any more.
    pub sealed: bool,
}

/// A server's local tail and seal bit, from one snapshot (rule N6).
///
/// A type of its own, because it is evidence and not where the loglet ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalTail {
    /// The first position that the server did not write.
    pub tail: LogletPos,
    /// True when the server was sealed.
    pub sealed: bool,
}

/// What becomes of a batch that is not refused. Both are answered with the local tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is written, and the answer waits until it is durable.
    Write,
    /// It is here or was skipped: nothing is written, and the answer waits for what was taken before.
    Held,
}

/// Why a batch is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// The loglet is sealed here. The answer carries tail and seal bit, and counts for no append.
    #[error("sealed")]
    Sealed,
    /// Something before it is missing here and not known to be committed: send from `tail` on.
    #[error("gap: the local tail is {tail}")]
    Gap {
        /// The first position that is missing.
        tail: LogletPos,
    },
    /// It begins below the tail and ends above: not a batch that one sequencer gave this position.
    #[error("conflict: the batch lies across the local tail {tail}")]
    Conflict {
        /// The local tail.
        tail: LogletPos,
    },
    /// A repair came to a server that is not sealed: seal it first (rule N10).
    #[error("not sealed: only a sealed loglet is repaired")]
    NotSealed,
}

impl LocalLog {
    /// A loglet that was just created, whose first position will be `base`.
    #[must_use]
    pub fn new(base: LogletPos) -> LocalLog {
        LocalLog { base, trim: base, tail: base, sealed: false }
    }

    /// Decides on a batch of `count` entries that the sequencer put at `first`. Everything below
    /// `known_tail` is committed, so it may be skipped.
    ///
    /// The seal comes first: a sealed server that says yes to a batch which it got by repair lets the
    /// sequencer acknowledge what somebody else already cut off (rule N2).
    ///
    /// # Errors
    /// `Sealed`, `Gap`, `Conflict`. Nothing is written then.
    pub fn store(
        &self,
        first: LogletPos,
        count: u64,
        known_tail: LogletPos,
    ) -> Result<Verdict, Refusal> {
        self.store_with(Planted::here(), first, count, known_tail)
    }

    /// [`store`](Self::store) with a mistake in it.
    #[doc(hidden)]
    pub fn store_with(
        &self,
        planted: Planted,
        first: LogletPos,
        count: u64,
        known_tail: LogletPos,
    ) -> Result<Verdict, Refusal> {
        let held = first.plus(count) <= self.tail;
        if self.sealed && !(held && planted.has(Bug::SealedTakesDuplicate)) {
            return Err(Refusal::Sealed);
        }
        if first > self.tail && known_tail < first && !planted.has(Bug::TakesGap) {
            return Err(Refusal::Gap { tail: self.tail });
        }
        self.place(first, held)
    }

    /// Decides on a batch of `count` entries that a repair brings to `first`. It bypasses the seal,
    /// and so needs it (rule N10). It may leave out what the repair found trimmed, committed or empty.
    ///
    /// # Errors
    /// `NotSealed`, `Conflict`. Nothing is written then.
    pub fn repair(&self, first: LogletPos, count: u64) -> Result<Verdict, Refusal> {
        match self.sealed {
            true => self.place(first, first.plus(count) <= self.tail),
            false => Err(Refusal::NotSealed),
        }
    }

    fn place(&self, first: LogletPos, held: bool) -> Result<Verdict, Refusal> {
        match first >= self.tail {
            true => Ok(Verdict::Write),
            false if held => Ok(Verdict::Held),
            false => Err(Refusal::Conflict { tail: self.tail }),
        }
    }

    /// A batch that ends at `end` was written after [`Verdict::Write`].
    pub fn written(&mut self, end: LogletPos) {
        assert!(end > self.tail, "a local tail only rises");
        self.tail = end;
    }

    /// Sets the seal bit. It must be durable before it is answered (rule N5).
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    /// Gives up everything below `keep_from`, which the loglet is known to reach; returns the first
    /// position kept. A server that lacks some of it must not stop at what it has: the others who were
    /// told may be gone when this one is asked for the trim point.
    pub fn trim(&mut self, keep_from: LogletPos) -> LogletPos {
        self.trim = self.trim.max(keep_from);
        self.trim
    }

    /// What it answers: tail and seal bit of one moment.
    #[must_use]
    pub fn answer(&self) -> LocalTail {
        LocalTail { tail: self.tail, sealed: self.sealed }
    }
}

#[cfg(test)]
#[path = "log_server_tests.rs"]
mod tests;
