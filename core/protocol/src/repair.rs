//! Repair: brings sealed LogServers up to a position by copying batches from those that have them.
//!
//! What it promises: batches are stored in ascending order, each where it was; nothing is left out
//! that is not committed, trimmed or empty for ever; whatever changes meanwhile is either no matter or
//! a [`RepairStep::Restart`].
//!
//! The one idea: go up from the lowest local tail with one chunk of batches at a time, which every
//! server gets that lacks it. Repairs are idempotent, since one sequencer never puts two batches at one
//! position: two at once, or one that takes over from one that died, only meet what is there
//! already. So a tail that moved is no reason to begin again (rule N12), but a server that is gone is.
//!
//! A source may lack what it once skipped; then the next one is asked. What all of the sealed majority
//! lack is empty for ever: whatever was committed is on one of them, and whatever was not and lies below
//! the target is on the one whose tail the target is.
//!
//! What it does not do: it raises no known tail (N15), and it does not seal. The driver does one step
//! after the other. It begins at the known tail (N13): all below is on a majority, and stays so.

#[cfg(any(test, feature = "planted"))]
use std::hash::Hash;

use crate::log_server::LocalTail;
use crate::types::LogletPos;

/// What is to be repaired.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// All below is committed, or trimmed, and needs no copy.
    pub from: LogletPos,
    /// Everybody's tail is to be here at least.
    pub to: LogletPos,
    /// The sealed LogServers that answered, a majority, and their tails.
    pub servers: Vec<(usize, LogletPos)>,
}

/// A batch on its way from one LogServer to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Copied<B> {
    /// Its position.
    pub first: LogletPos,
    /// The position after its last entry.
    pub end: LogletPos,
    /// The batch.
    pub batch: B,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairStep<B> {
    /// Read batches from a LogServer, from the one that contains `from`, below `to`, as many as may be
    /// in memory at once and at least one if there is one. Then [`Repair::fetched`], [`Repair::trimmed`] or [`Repair::failed`].
    Fetch {
        /// The source.
        server: usize,
        /// The first position that is lacked.
        from: LogletPos,
        /// Where the source ends.
        to: LogletPos,
    },
    /// Repair a LogServer with these, in this order. Then [`Repair::stored`] with its last answer, or
    /// [`Repair::failed`].
    Store {
        /// The LogServer.
        server: usize,
        /// What it lacks.
        batches: Vec<Copied<B>>,
    },
    /// All have what they lacked.
    Done,
    /// A LogServer that was counted on is gone: drop it from the tail check, and go on from there.
    Restart,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    server: usize,
    /// It has, has skipped, or does without everything below.
    at: LogletPos,
    /// It was asked for the batch that comes next, and has it not.
    lacks: bool,
    /// It can be read from no more.
    gone: bool,
}

/// One repair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repair<B> {
    to: LogletPos,
    members: Vec<Member>,
    /// Contiguous batches that some members lack.
    chunk: Vec<Copied<B>>,
    /// The lowest batch above a gap that a source showed.
    above: LogletPos,
    restart: bool,
}

impl<B: Clone> Repair<B> {
    /// Begins to repair by `plan`.
    #[must_use]
    pub fn new(plan: Plan) -> Repair<B> {
        let Plan { from, to, servers } = plan;
        let member = |(server, tail): (usize, LogletPos)| Member {
            server,
            at: tail.max(from),
            lacks: false,
            gone: false,
        };
        let members = servers.into_iter().map(member).collect();
        Repair { to, members, chunk: Vec::new(), above: to, restart: false }
    }

    /// For a model checker: what does not depend on how LogServers are numbered, and each one's part
    /// with its number.
    #[cfg(any(test, feature = "planted"))]
    #[doc(hidden)]
    pub fn parts(&self) -> (impl Hash, impl Iterator<Item = (usize, impl Hash)>)
    where
        B: Hash,
    {
        let part = |(rank, member): (usize, &Member)| {
            (member.server, (rank, member.at, member.lacks, member.gone))
        };
        (
            (self.to, &self.chunk, self.above, self.restart),
            self.members.iter().enumerate().map(part),
        )
    }

    /// The first position that somebody lacks.
    fn at(&self) -> LogletPos {
        self.members.iter().map(|member| member.at).min().unwrap_or(self.to)
    }

    /// What to do; the same again until its outcome was told.
    #[must_use]
    pub fn step(&mut self) -> RepairStep<B> {
        loop {
            if self.restart {
                return RepairStep::Restart;
            }
            let at = self.at();
            if at >= self.to {
                return RepairStep::Done;
            }
            if let Some(store) = self.store() {
                return store;
            }
            self.chunk.clear();
            let open = |member: &&Member| member.at > at && !member.lacks;
            let source = self.members.iter().filter(open).min_by_key(|member| member.gone);
            match source {
                Some(source) if source.gone => self.restart = true,
                Some(source) => {
                    let to = source.at.min(self.to);
                    return RepairStep::Fetch { server: source.server, from: at, to };
                }
                None => self.skip_to(self.above),
            }
        }
    }

    /// The part of the chunk that a member lacks.
    fn store(&self) -> Option<RepairStep<B>> {
        let end = self.chunk.last()?.end;
        let lacking = self.members.iter().find(|member| member.at < end)?;
        let lacked = self.chunk.iter().filter(|copied| copied.end > lacking.at);
        Some(RepairStep::Store { server: lacking.server, batches: lacked.cloned().collect() })
    }

    /// Below `position` there is nothing to copy.
    fn skip_to(&mut self, position: LogletPos) {
        for member in &mut self.members {
            member.at = member.at.max(position);
        }
        self.next_chunk();
    }

    fn next_chunk(&mut self) {
        self.above = self.to;
        for member in &mut self.members {
            member.lacks = false;
        }
    }

    fn member(&mut self, server: usize) -> &mut Member {
        let member = self.members.iter_mut().find(|member| member.server == server);
        member.expect("only those that were asked answer")
    }

    /// The source that was to be read has these, ascending. What lies behind a gap is not kept: that
    /// the source skipped it does not mean that it is nowhere.
    pub fn fetched(&mut self, server: usize, batches: Vec<Copied<B>>) {
        let mut next = self.at();
        let to = self.to;
        let all = batches.into_iter().filter(|copied| copied.end > next && copied.first < to);
        let mut all = all.collect::<Vec<_>>().into_iter().peekable();
        while let Some(copied) = all.next_if(|copied| copied.first <= next) {
            next = copied.end;
            self.chunk.push(copied);
        }
        if self.chunk.is_empty() {
            self.above = all.next().map_or(self.above, |copied| self.above.min(copied.first));
            self.member(server).lacks = true;
        } else {
            self.next_chunk();
        }
    }

    /// The source was trimmed: everything below `first_kept` is given up, everywhere. The tail check
    /// has to be told too ([`TailCheck::known_tail`](crate::tail_quorum::TailCheck::known_tail)).
    pub fn trimmed(&mut self, first_kept: LogletPos) {
        self.skip_to(first_kept);
    }

    /// A LogServer that was to be repaired answered.
    pub fn stored(&mut self, server: usize, answer: LocalTail) {
        let member = self.member(server);
        // One that takes nothing would be tried for ever.
        let moved = answer.sealed && answer.tail > member.at;
        member.at = member.at.max(answer.tail);
        self.restart |= !moved;
    }

    /// A LogServer did not answer, refused, or could not read. A source is replaced if there is another
    /// one; one that is to be repaired is not.
    pub fn failed(&mut self, server: usize) {
        let to = self.to;
        let member = self.member(server);
        member.gone = true;
        self.restart |= member.at < to;
    }
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
