//! A read that gives the newest decided state and takes no promise, so that it stops no proposer.
//!
//! It asks all members how far they are. Were an instance beyond what is applied here decided, then a
//! majority of its members had accepted it, and so had one of any majority that answers: that one
//! would say that it is further, or that it accepted something. When a majority says neither, the
//! state here is the newest at some instant between question and answer.

use super::messages::{Member, State, Tell};
use super::registers::Registers;
use super::{Bug, Planted, majority};

/// What a read comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    /// Too few answered so far.
    Wait,
    /// The state here is the newest.
    Newest,
    /// This member is further: call it with [`Ask::Fetch`](super::Ask::Fetch), apply, look again.
    CatchUp {
        /// Whom.
        from: Member,
    },
    /// Something was accepted that may be decided: [propose](super::Proposer::propose) `None`, then
    /// read again.
    Finish,
    /// Everybody was heard and there is no majority: the members changed, or too few can be reached.
    Again,
}

/// One read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    /// Who was asked, and what each said.
    asked: Vec<(Member, Answer)>,
    planted: Planted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Awaited,
    None,
    State(State),
}

impl Reader {
    /// A read of the state of `members`, those of the registers that are applied here. The driver
    /// calls each with [`Ask::Read`](super::Ask::Read) and reports the answers.
    #[must_use]
    pub fn new(members: &[Member]) -> Self {
        let asked = members.iter().map(|member| (*member, Answer::Awaited)).collect();
        Self { asked, planted: Planted::here() }
    }

    /// Plants a mistake.
    #[cfg(any(test, feature = "planted"))]
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Takes an answer; `None` when the call failed or none will come. The first one counts.
    pub fn answered(&mut self, from: Member, tell: Option<Tell>) {
        let awaited = |(member, answer): &&mut (Member, Answer)| {
            *member == from && *answer == Answer::Awaited
        };
        if let Some((_, answer)) = self.asked.iter_mut().find(awaited) {
            *answer = match tell {
                // A disk that may have forgotten, or another one than was asked, proves nothing.
                Some(Tell::State(state)) if state.counts && state.storage == from.storage => {
                    Answer::State(state)
                }
                _ => Answer::None,
            };
        }
    }

    /// What the answers so far mean to one who has applied `registers`.
    #[must_use]
    pub fn reading(&self, registers: &Registers) -> Reading {
        let applied = registers.applied();
        let states = || {
            self.asked.iter().filter_map(|(member, answer)| match answer {
                Answer::State(state) => Some((*member, *state)),
                Answer::Awaited | Answer::None => None,
            })
        };
        let ahead = states().filter(|(_, state)| state.applied > applied);
        if let Some((from, _)) = ahead.max_by_key(|(_, state)| state.applied) {
            return Reading::CatchUp { from };
        }
        let members = registers.members();
        let counted = states().filter(|(member, _)| members.contains(member)).count();
        let needed = match self.planted.has(Bug::ReadFromOne) {
            true => 1,
            false => majority(members.len()),
        };
        if counted < needed {
            let all = self.asked.iter().all(|(_, answer)| *answer != Answer::Awaited);
            return if all { Reading::Again } else { Reading::Wait };
        }
        let accepted = states().any(|(_, state)| state.applied == applied && state.accepted);
        if accepted && !self.planted.has(Bug::ReadIgnoresAccepted) {
            return Reading::Finish;
        }
        Reading::Newest
    }
}
