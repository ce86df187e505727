//! A member: what it remembers of the instance under way, and what it answers.
//!
//! It takes part in one instance only, the one after the last that it applied: asked about an older
//! one it tells what was decided, asked about a later one it says how far it is, and is brought
//! forward. What it must not forget it gives back as [`Persist`], and the answer counts only once
//! that is durable. It does no I/O.
//!
//! A vote takes three things: the disk remembers all that it promised (the driver says so with
//! [`Acceptor::set_voting`]), this node with this very disk is a member, and no higher ballot was
//! promised. A ballot is promised *once*, not again: then a proposer that forgot which ballots it
//! used, since it was started again, cannot win one for a second time.

use std::collections::VecDeque;

use bytes::Bytes;

use super::messages::{
    Accept, Ask, Ballot, CatchUp, Decided, Malformed, Member, PaxosReply, PaxosRequest, Prepare,
    Promise, Put, State, Tell,
};
use super::registers::Registers;
use super::{Bug, Planted};

/// Most decided values that are kept to bring others forward without a snapshot.
pub const KEPT_MAX: usize = 64;
/// Most bytes of puts in them.
pub const KEPT_BYTES_MAX: usize = 8 << 20;

/// What must be durable, in this order, before the answer that came with it is sent.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Persist {
    /// Takes part in no lower ballot.
    #[prost(message, tag = "1")]
    Promise(Prepare),
    /// Accepted.
    #[prost(message, tag = "2")]
    Accept(Accept),
    /// The next instance, decided: what was promised and accepted in it is of no use any more.
    #[prost(message, tag = "3")]
    Decided(Decided),
    /// Replaces everything before it.
    #[prost(bytes = "bytes", tag = "4")]
    Snapshot(Bytes),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// What to write.
    pub persist: Vec<Persist>,
    /// Whether it has to be durable before the answer is sent. A decision need not be, unless it
    /// changes the members: it can be learned again from the majority that accepted it.
    pub sync: bool,
    /// The answer.
    pub reply: PaxosReply,
}

/// One node's part in every instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor {
    me: Member,
    voting: bool,
    registers: Registers,
    /// In the instance after the applied one; the lowest ballot when none.
    promised: Ballot,
    accepted: Option<Accept>,
    /// The last decided values, up to the applied one.
    kept: VecDeque<Decided>,
    kept_bytes: usize,
    planted: Planted,
}

impl Acceptor {
    /// The node and disk `me`, which has promised and accepted nothing. It does not vote yet.
    #[must_use]
    pub fn new(me: Member, registers: Registers) -> Self {
        Self {
            me,
            voting: false,
            registers,
            promised: Ballot::default(),
            accepted: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
            planted: Planted::here(),
        }
    }

    /// Plants a mistake.
    #[cfg(any(test, feature = "planted"))]
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Whether the disk is known to remember all that was promised on it.
    pub fn set_voting(&mut self, voting: bool) {
        self.voting = voting;
    }

    /// Whether it was said to remember.
    #[must_use]
    pub fn voting(&self) -> bool {
        self.voting
    }

    /// This node and its disk.
    #[must_use]
    pub fn me(&self) -> Member {
        self.me
    }

    /// What was decided so far, as far as this node knows.
    #[must_use]
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// Does again what was persisted earlier.
    ///
    /// # Errors
    /// It does not follow from what came before it.
    pub fn replay(&mut self, persist: Persist) -> Result<(), Malformed> {
        match persist {
            Persist::Snapshot(bytes) => self.restore(Registers::decode(bytes)?),
            Persist::Decided(decided) if decided.instance == self.registers.applied() + 1 => {
                decided.value.check()?;
                self.decide(decided);
            }
            Persist::Promise(promise) if promise.instance == self.registers.applied() + 1 => {
                self.promised = promise.ballot;
            }
            Persist::Accept(vote) if vote.instance == self.registers.applied() + 1 => {
                vote.value.check()?;
                self.promised = vote.ballot;
                self.accepted = Some(vote);
            }
            Persist::Promise(_) | Persist::Accept(_) | Persist::Decided(_) => {
                return Err(Malformed("a record is not of the instance that it stands in"));
            }
        }
        Ok(())
    }

    /// The shortest list that, replayed, gives this state: a fresh journal begins with it.
    #[must_use]
    pub fn image(&self) -> Vec<Persist> {
        let mut image = Vec::new();
        if self.registers.applied() == 0 {
            return image;
        }
        image.push(Persist::Snapshot(self.registers.encode()));
        image.extend(self.accepted.clone().map(Persist::Accept));
        if self.accepted.as_ref().is_none_or(|vote| vote.ballot < self.promised)
            && self.promised != Ballot::default()
        {
            let instance = self.registers.applied() + 1;
            image.push(Persist::Promise(Prepare { instance, ballot: self.promised }));
        }
        image
    }

    /// What brings a node forward that has applied `after`. Empty when there is nothing newer.
    #[must_use]
    pub fn catch_up(&self, after: u64) -> CatchUp {
        let applied = self.registers.applied();
        if after >= applied {
            return CatchUp::default();
        }
        match self.kept.iter().position(|decided| decided.instance == after + 1) {
            Some(first) => CatchUp {
                snapshot: Bytes::new(),
                decided: self.kept.iter().skip(first).cloned().collect(),
            },
            None => CatchUp { snapshot: self.registers.encode(), decided: Vec::new() },
        }
    }

    /// Answers a request. Total: nothing that a peer sends makes it panic.
    pub fn step(&mut self, request: PaxosRequest) -> Step {
        let blank = self.registers.applied() == 0;
        let ours = blank || request.cluster == self.registers.cluster();
        match request.ask {
            Some(Ask::Prepare(prepare)) if ours => self.prepare(prepare),
            Some(Ask::Accept(vote)) if ours => self.accept(vote),
            Some(Ask::Learn(catch_up)) if ours => {
                // What is damaged or foreign brings nobody forward, and the answer shows it.
                self.learn(catch_up, |registers| registers.cluster() == request.cluster)
            }
            Some(Ask::Fetch(after)) if ours => answer(Tell::CatchUp(self.catch_up(after))),
            Some(Ask::Read(())) if ours => answer(Tell::State(self.state())),
            _ => answer(Tell::State(State { storage: self.me.storage, ..State::default() })),
        }
    }

    /// Applies what was decided elsewhere, for the node itself: a step whose answer nobody awaits.
    pub fn learned(&mut self, catch_up: CatchUp) -> Step {
        let (blank, cluster) = (self.registers.applied() == 0, self.registers.cluster());
        self.learn(catch_up, |registers| blank || registers.cluster() == cluster)
    }

    fn learn(&mut self, catch_up: CatchUp, ours: impl Fn(&Registers) -> bool) -> Step {
        let (mut persist, mut sync) = (Vec::new(), false);
        if !catch_up.snapshot.is_empty()
            && let Ok(registers) = Registers::decode(catch_up.snapshot.clone())
            && registers.applied() > self.registers.applied()
            && ours(&registers)
        {
            self.restore(registers);
            persist.push(Persist::Snapshot(catch_up.snapshot));
            sync = true;
        }
        for decided in catch_up.decided {
            let blank = self.registers.applied() == 0;
            if !blank && decided.instance == self.registers.applied() + 1 {
                sync |= decided.value.members != self.registers.members();
                persist.push(Persist::Decided(decided.clone()));
                self.decide(decided);
            }
        }
        Step { persist, sync, reply: Tell::State(self.state()).into() }
    }

    fn prepare(&mut self, Prepare { instance, ballot }: Prepare) -> Step {
        if let Some(step) = self.elsewhere(instance) {
            return step;
        }
        if ballot <= self.promised {
            return answer(Tell::Refused(self.promised));
        }
        self.promised = ballot;
        let persist = match self.planted.has(Bug::PromiseNotPersisted) {
            true => Vec::new(),
            false => vec![Persist::Promise(Prepare { instance, ballot })],
        };
        let accepted = self.accepted.clone();
        Step { persist, sync: true, reply: Tell::Promise(Promise { accepted }).into() }
    }

    fn accept(&mut self, vote: Accept) -> Step {
        if let Some(step) = self.elsewhere(vote.instance) {
            return step;
        }
        if vote.ballot < self.promised {
            return answer(Tell::Refused(self.promised));
        }
        if self.accepted.as_ref().is_some_and(|accepted| accepted.ballot == vote.ballot) {
            // Asked again: a ballot has one value.
            return answer(Tell::Accepted(()));
        }
        self.promised = vote.ballot;
        self.accepted = Some(vote.clone());
        let persist = match self.planted.has(Bug::AcceptNotPersisted) {
            true => Vec::new(),
            false => vec![Persist::Accept(vote)],
        };
        Step { persist, sync: true, reply: Tell::Accepted(()).into() }
    }

    /// The answer where this node has no vote on `instance`; `None` where it has.
    fn elsewhere(&self, instance: u64) -> Option<Step> {
        if instance <= self.registers.applied() {
            return Some(answer(Tell::CatchUp(self.catch_up(instance.saturating_sub(1)))));
        }
        let next = instance == self.registers.applied() + 1;
        (!next || !self.votes()).then(|| answer(Tell::State(self.state())))
    }

    fn votes(&self) -> bool {
        let remembers = self.voting || self.planted.has(Bug::AmnesiacVotes);
        let member = self.registers.members().contains(&self.me)
            || self.planted.has(Bug::StrangerVotes)
            || self.planted.has(Bug::TwoMemberships);
        remembers && member && self.registers.applied() > 0
    }

    /// How far it is: the answer to [`Ask::Read`].
    #[must_use]
    pub fn state(&self) -> State {
        State {
            applied: self.registers.applied(),
            accepted: self.accepted.is_some(),
            counts: self.voting || self.planted.has(Bug::AmnesiacVotes),
            votes: self.votes(),
            storage: self.me.storage,
        }
    }

    fn restore(&mut self, registers: Registers) {
        self.registers = registers;
        (self.promised, self.accepted) = (Ballot::default(), None);
        self.kept.clear();
        self.kept_bytes = 0;
    }

    fn decide(&mut self, decided: Decided) {
        self.registers.apply_as(&decided, self.planted);
        (self.promised, self.accepted) = (Ballot::default(), None);
        self.kept_bytes += bytes_of(&decided);
        self.kept.push_back(decided);
        while self.kept.len() > KEPT_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            let oldest = self.kept.pop_front().expect("not empty above a limit");
            self.kept_bytes -= bytes_of(&oldest);
        }
    }
}

fn bytes_of(decided: &Decided) -> usize {
    decided.value.puts.iter().map(Put::len).sum()
}

fn answer(tell: Tell) -> Step {
    Step { persist: Vec::new(), sync: false, reply: tell.into() }
}
