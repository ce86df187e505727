//! A proposer: two phases towards a decision of the next instance.
//!
//! First a majority promises to take part in no lower ballot and tells what it accepted; then it
//! accepts the value of the highest ballot among that, or the proposer's own when there is none. So
//! what was decided is found again, and what was begun by somebody who died is finished. A proposer
//! whose instance went to another value proposes its own in the next one: that is its driver's loop.
//!
//! One attempt is under way at a time. It ends with exactly one of [`Action::Decided`],
//! [`Action::CatchUp`], [`Action::Free`] and [`Action::BackOff`], given that the driver reports each
//! call that it was told to make once, as answered or as failed; late reports change nothing.

use super::messages::{
    Accept, Ask, Ballot, CatchUp, Decided, Id, Member, PaxosRequest, Prepare, Tell, Value,
};
use super::registers::Registers;
use super::{Bug, Planted, majority};

/// Which call is answered: a ballot's first phase or its second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The instance.
    pub instance: u64,
    /// The ballot.
    pub ballot: Ballot,
    /// False in the first phase.
    pub accept: bool,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Call a member, and report the answer.
    Send {
        /// Whom.
        to: Member,
        /// Goes back with the report.
        attempt: Attempt,
        /// What to ask.
        request: PaxosRequest,
    },
    /// A member is behind: call it with [`Ask::Learn`] of what it lacks, and report the answer.
    Help {
        /// Whom.
        to: Member,
        /// Goes back with the report.
        attempt: Attempt,
        /// What it has applied.
        applied: u64,
    },
    /// Over: the instance has this value. Apply it and tell the members, those to come too.
    Decided(Decided),
    /// Over: this was decided meanwhile. Apply it; the next attempt is for a later instance.
    CatchUp(CatchUp),
    /// Over: there is nothing to finish, nothing was decided beyond what is applied.
    Free,
    /// Over for now: wait a random while, the longer the higher the round, before the next attempt.
    BackOff {
        /// The highest round that was seen in this instance.
        round: u64,
    },
}

/// Where a member stands in the phase under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Asked,
    /// Was behind and is being brought forward, once a phase.
    Helped,
    AskedAgain,
    Yes,
    No,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Run {
    cluster: Id,
    attempt: Attempt,
    members: Vec<Member>,
    marks: Vec<Mark>,
    /// Ours at first, then that of the highest ballot which the promises told of.
    value: Option<Value>,
    adopted: Ballot,
}

/// One node's attempts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer {
    node: u32,
    instance: u64,
    /// The highest round seen in `instance`.
    round: u64,
    run: Option<Run>,
    planted: Planted,
}

impl Proposer {
    /// A proposer of the node `node`. Nothing of it has to survive.
    #[must_use]
    pub fn new(node: u32) -> Self {
        Self { node, instance: 0, round: 0, run: None, planted: Planted::here() }
    }

    /// Plants a mistake.
    #[cfg(any(test, feature = "planted"))]
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// True when no attempt is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.run.is_none()
    }

    /// Begins an attempt at the instance after `registers`, in place of any attempt before. `None`
    /// proposes nothing and only finishes what was begun.
    pub fn propose(&mut self, registers: &Registers, value: Option<Value>, out: &mut Vec<Action>) {
        let instance = registers.applied() + 1;
        if instance != self.instance {
            (self.instance, self.round) = (instance, 0);
        }
        self.round = self.round.saturating_add(1);
        let ballot = Ballot { round: self.round, node: self.node };
        let members = match &value {
            Some(value) if self.planted.has(Bug::TwoMemberships) => value.members.clone(),
            _ => registers.members().to_vec(),
        };
        let run = Run {
            cluster: registers.cluster(),
            attempt: Attempt { instance, ballot, accept: false },
            marks: vec![Mark::Asked; members.len()],
            members,
            value,
            adopted: Ballot::default(),
        };
        out.extend(run.members.iter().map(|to| run.send(*to)));
        self.run = Some(run);
    }

    /// Takes the answer to a call; `None` when it failed or none will come.
    pub fn answered(
        &mut self,
        from: Member,
        attempt: Attempt,
        tell: Option<Tell>,
        out: &mut Vec<Action>,
    ) {
        let Some(run) = self.run.as_mut().filter(|run| run.attempt == attempt) else { return };
        let Some(index) = run.members.iter().position(|member| *member == from) else { return };
        let mark = run.marks[index];
        if matches!(mark, Mark::Yes | Mark::No) {
            return;
        }
        run.marks[index] = match tell {
            Some(Tell::Promise(promise)) if !attempt.accept => {
                if !self.planted.has(Bug::ValueNotAdopted) {
                    promise.accepted.into_iter().for_each(|vote| run.adopt(vote));
                }
                Mark::Yes
            }
            Some(Tell::Accepted(())) if attempt.accept => Mark::Yes,
            Some(Tell::Refused(ballot)) => {
                self.round = self.round.max(ballot.round);
                Mark::No
            }
            Some(Tell::CatchUp(catch_up)) => {
                self.run = None;
                out.push(Action::CatchUp(catch_up));
                return;
            }
            Some(Tell::State(state))
                if mark == Mark::Asked && state.applied < attempt.instance - 1 =>
            {
                out.push(Action::Help { to: from, attempt, applied: state.applied });
                Mark::Helped
            }
            Some(Tell::State(state))
                if mark == Mark::Helped && state.votes && state.applied == attempt.instance - 1 =>
            {
                out.push(run.send(from));
                Mark::AskedAgain
            }
            _ => Mark::No,
        };
        self.count(out);
    }

    fn count(&mut self, out: &mut Vec<Action>) {
        let Some(run) = &mut self.run else { return };
        let marked = |mark| run.marks.iter().filter(|m| **m == mark).count();
        let needed = match self.planted.has(Bug::MinoritySuffices) {
            true => 1,
            false => majority(run.members.len()),
        };
        if run.members.len() - marked(Mark::No) < needed {
            self.run = None;
            out.push(Action::BackOff { round: self.round });
        } else if marked(Mark::Yes) >= needed {
            match (run.attempt.accept, run.value.clone()) {
                (_, None) => {
                    self.run = None;
                    out.push(Action::Free);
                }
                (false, Some(_)) => {
                    run.attempt.accept = true;
                    run.marks.fill(Mark::Asked);
                    out.extend(run.members.iter().map(|to| run.send(*to)));
                }
                (true, Some(value)) => {
                    let instance = run.attempt.instance;
                    self.run = None;
                    out.push(Action::Decided(Decided { instance, value }));
                }
            }
        }
    }
}

impl Run {
    fn adopt(&mut self, vote: Accept) {
        if vote.ballot > self.adopted {
            (self.adopted, self.value) = (vote.ballot, Some(vote.value));
        }
    }

    fn send(&self, to: Member) -> Action {
        let Attempt { instance, ballot, accept } = self.attempt;
        let ask = match (&self.value, accept) {
            (Some(value), true) => Ask::Accept(Accept { instance, ballot, value: value.clone() }),
            _ => Ask::Prepare(Prepare { instance, ballot }),
        };
        Action::Send { to, attempt: self.attempt, request: PaxosRequest::new(self.cluster, ask) }
    }
}
