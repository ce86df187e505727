//! A tail check: where does the loglet end, and is it sealed (paper fig. 6).
//!
//! What it promises, of a [`Step::Tail`]: it is not below anything that was acknowledged before the
//! check began; an unsealed one is not above any later boundary; everything below a sealed one is on a
//! majority.
//!
//! The one idea: take the smallest-tail majority among the answers, and its highest tail X (the median
//! once all answered: rule N11). A majority answered with at most X, so nothing above was committed
//! then. When a majority shows at least X as well, all below is on a majority: X is the tail. Else the
//! tails have to be brought there: unsealed servers by waiting, sealed ones by repair. One rule, for
//! answers that are all sealed or all unsealed. The boxes of the figure:
//!
//! | answers | what is done |
//! |---|---|
//! | all sealed, X on a majority | `Tail(X, sealed)` |
//! | all sealed, tails differ | `Repair` up to X, then `Tail(X, sealed)` |
//! | some sealed, no majority of them | `SealAll`, once; then they are all sealed |
//! | none sealed, X on a majority | `Tail(X, unsealed)` |
//! | none sealed, tails differ | `WaitFor` X, or a seal |
//!
//! Never by known tails: one that a repair raised would make a check end above the boundary (N1). The
//! majority at X are answers that each showed tail and seal bit in one snapshot (N6).
//!
//! What it does not do: it sends nothing and waits for nothing. The driver asks all, tells answers as
//! they come and calls [`TailCheck::step`] after each. Read next: `repair.rs`.

#[cfg(any(test, feature = "planted"))]
use std::hash::Hash;

use crate::limits::REPLICAS_MAX;
use crate::log_server::LocalTail;
use crate::planted::{Bug, Planted};
use crate::repair::Plan;
use crate::types::{LogletPos, Tail};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for more answers.
    Wait,
    /// The check is over.
    Tail(Tail<LogletPos>),
    /// Seal all LogServers, and tell what they answer to that.
    SealAll,
    /// Repair by this plan, tell this check what the LogServers that were repaired answer, and ask again.
    Repair(Plan),
    /// Ask these again, to be answered when their tail is at least `target` or they are sealed.
    WaitFor {
        /// What is waited for.
        target: LogletPos,
        /// The LogServers below it.
        servers: Vec<usize>,
    },
    /// So many refused that no majority is left.
    Lost,
}

/// What one LogServer showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Seen {
    Nothing,
    /// It has no vote in this check.
    Refused,
    /// With the same seal bit: the first tail, from which X comes, so that a log that goes on is not
    /// chased; and the last, which shows what it has by now.
    Tails {
        first: LogletPos,
        last: LogletPos,
        sealed: bool,
    },
}

/// One tail check. All answers must be to questions that were asked after it began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TailCheck {
    servers: Vec<Seen>,
    /// Below it all is committed, or given up by a trim.
    known_tail: LogletPos,
    /// `SealAll` was said.
    sealing: bool,
    planted: Planted,
}

impl TailCheck {
    /// A check of a loglet on `servers` LogServers that begins at `base`. To seal the loglet as well,
    /// ask with seals: their answers are answers.
    ///
    /// # Panics
    /// When `servers` is even or above [`REPLICAS_MAX`].
    #[must_use]
    pub fn new(base: LogletPos, servers: usize) -> TailCheck {
        assert!(servers % 2 == 1 && servers <= REPLICAS_MAX, "no majority of {servers} is defined");
        let servers = vec![Seen::Nothing; servers];
        TailCheck { servers, known_tail: base, sealing: false, planted: Planted::here() }
    }

    /// With mistakes in it.
    #[doc(hidden)]
    #[must_use]
    pub fn planted(self, planted: Planted) -> Self {
        TailCheck { planted, ..self }
    }

    /// For a model checker: what does not depend on how LogServers are numbered, and each one's part.
    #[cfg(any(test, feature = "planted"))]
    #[doc(hidden)]
    #[must_use]
    pub fn parts(&self) -> (impl Hash, &[impl Hash]) {
        ((self.known_tail, self.sealing), &self.servers)
    }

    /// A LogServer answered, to whatever it was asked. Answers may come in any order.
    pub fn answered(&mut self, server: usize, answer: LocalTail) {
        let LocalTail { tail, sealed } = answer;
        self.servers[server] = match self.servers[server] {
            Seen::Tails { sealed: true, .. } if !sealed => return,
            Seen::Tails { first, last, sealed: before } if before == sealed => {
                Seen::Tails { first: first.min(tail), last: last.max(tail), sealed }
            }
            _ => Seen::Tails { first: tail, last: tail, sealed },
        };
    }

    /// A LogServer does not know the loglet, may have forgotten (N7), or stopped to answer during a
    /// repair: what it showed before is dropped, so that the check goes on with the others.
    pub fn refused(&mut self, server: usize) {
        self.servers[server] = Seen::Refused;
    }

    /// All below `known_tail` is committed or trimmed, so it needs no repair (N13). The sequencer's
    /// word, passed on by a LogServer, or a trim point; never what a repair reached (N15).
    pub fn known_tail(&mut self, known_tail: LogletPos) {
        self.known_tail = self.known_tail.max(known_tail);
    }

    /// What to do. `all_in`: no more first answers will come soon, so it goes on with what it has where
    /// it would else wait for all, which spares waiting and repairs.
    pub fn step(&mut self, all_in: bool) -> Step {
        let n = self.servers.len();
        let majority = n / 2 + 1;
        let answered = |of: bool| {
            let all = self.servers.iter().enumerate();
            all.filter_map(move |(server, seen)| match *seen {
                Seen::Tails { first, last, sealed } if sealed == of => Some((server, first, last)),
                _ => None,
            })
        };
        let voting = self.servers.iter().filter(|seen| **seen != Seen::Refused).count();
        if voting < majority {
            return Step::Lost;
        }
        let (sealed, open) = (answered(true).count(), answered(false).count());
        // Once they are being sealed, those that showed no seal will answer again.
        let in_so_far = if self.sealing { sealed } else { sealed + open };
        let more = !all_in && in_so_far < voting;
        if sealed >= majority || (sealed > 0 && self.planted.has(Bug::OneSealIsEnough)) {
            return self.sealed(&answered(true).collect::<Vec<_>>(), more);
        }
        if sealed + open < majority {
            return Step::Wait;
        }
        if sealed > 0 && self.planted.has(Bug::MixesUnsealed) {
            return self.sealed(&answered(true).chain(answered(false)).collect::<Vec<_>>(), more);
        }
        match (self.sealing, sealed) {
            (true, _) => Step::Wait,
            (false, 0) => self.open(&answered(false).collect::<Vec<_>>(), more),
            (false, _) => {
                self.sealing = true;
                Step::SealAll
            }
        }
    }

    /// X, and whether a majority has it.
    fn settle(&self, group: &[(usize, LogletPos, LogletPos)]) -> (LogletPos, bool) {
        let majority = self.servers.len() / 2 + 1;
        let mut firsts: Vec<LogletPos> = group.iter().map(|(_, first, _)| *first).collect();
        firsts.sort_unstable();
        let x = firsts[majority.min(firsts.len()) - 1];
        (x, group.iter().filter(|(.., last)| *last >= x).count() >= majority)
    }

    fn sealed(&self, group: &[(usize, LogletPos, LogletPos)], more: bool) -> Step {
        let (x, on_majority) = self.settle(group);
        let tail = |position| Step::Tail(Tail { position, sealed: true });
        if self.planted.has(Bug::SmallestTail) {
            let smallest = group.iter().map(|(_, first, _)| *first).min();
            return tail(smallest.expect("a majority is not empty"));
        }
        let skips = self.planted.has(Bug::SkipsRepair) || self.planted.has(Bug::OneSealIsEnough);
        if on_majority || x <= self.known_tail || skips {
            return tail(x);
        }
        match more {
            true => Step::Wait,
            false => {
                let servers = group.iter().map(|(server, _, last)| (*server, *last)).collect();
                Step::Repair(Plan { from: self.known_tail, to: x, servers })
            }
        }
    }

    fn open(&self, group: &[(usize, LogletPos, LogletPos)], more: bool) -> Step {
        let (x, on_majority) = self.settle(group);
        let tail = |position| Step::Tail(Tail { position, sealed: false });
        if self.planted.has(Bug::ShowsLocalTail) {
            let highest = group.iter().map(|(.., last)| *last).max();
            return tail(highest.expect("a majority is not empty"));
        }
        let known = self.planted.has(Bug::TrustsKnownTail) && x <= self.known_tail;
        match on_majority || known {
            true => tail(x),
            false if more => Step::Wait,
            false => {
                let below = group.iter().filter(|(.., last)| *last < x);
                Step::WaitFor { target: x, servers: below.map(|(server, ..)| *server).collect() }
            }
        }
    }
}

#[cfg(test)]
#[path = "tail_quorum_tests.rs"]
mod tests;
