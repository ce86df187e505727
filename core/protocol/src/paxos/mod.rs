//! The embedded MetaStore's consensus: a sequence of single-decree Paxos instances (paper §3.3).
//!
//! Each instance decides one [`Value`]: a batch of conditional puts, and the members that vote on the
//! next instance. Nobody leads: any server proposes, in two round trips, and the next instance begins
//! only where the one before it is decided, so that two memberships are never in force at once.
//!
//! Read in this order: [`messages`] (the words, and the bytes between servers), [`registers`] (what
//! was decided, applied), [`acceptor`] (what a member remembers and answers), [`proposer`] (two
//! phases towards a decision), [`reader`] (a read that disturbs no proposer).
//!
//! # Invariants
//! 1. At most one value is decided in an instance: a promise and a vote are durable before they are
//!    answered, and a ballot is promised once, so that it stands for one value even when a proposer
//!    forgot that it used it.
//! 2. Only a member of an instance votes on it: by node *and* by disk, since a disk that was replaced
//!    has forgotten what it promised. A disk that may have forgotten by itself does not vote either.
//! 3. A put that was answered is never lost, and counts once: it is known again by its nonce.
//! 4. A read gives the state at some instant within it.
//!
//! Time, chance, the disk and the network are the driver's: it makes every call that is asked for,
//! reports each outcome once, and waits a random while after [`Action::BackOff`].

pub mod acceptor;
pub mod messages;
pub mod proposer;
pub mod reader;
pub mod registers;

pub use acceptor::{Acceptor, Persist, Step};
pub use messages::{
    Accept, Ask, Ballot, CatchUp, Decided, Id, Malformed, Member, PaxosReply, PaxosRequest,
    Prepare, Promise, Put, State, Tell, Value,
};
pub use proposer::{Action, Attempt, Proposer};
pub use reader::{Reader, Reading};
pub use registers::{MembersRefused, Outcome, Recall, Register, Registers};

/// Mistakes that a test can plant, to show that the model finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A promise is answered before it is durable.
    PromiseNotPersisted,
    /// A vote is answered before it is durable.
    AcceptNotPersisted,
    /// A disk that may have forgotten votes.
    AmnesiacVotes,
    /// A disk that is not in the list of members votes.
    StrangerVotes,
    /// The proposer counts the members that its own value installs.
    TwoMemberships,
    /// The proposer goes on with its own value although another one was accepted.
    ValueNotAdopted,
    /// One vote decides.
    MinoritySuffices,
    /// A read asks one member.
    ReadFromOne,
    /// A read overlooks what was accepted and may be decided.
    ReadIgnoresAccepted,
    /// A put is applied whatever version it expects.
    PlainPut,
}

#[cfg(feature = "planted")]
thread_local! {
    static HERE: std::cell::Cell<Planted> = const { std::cell::Cell::new(Planted::NONE) };
}

/// Plants mistakes in all members that are made on this thread from now on.
#[cfg(feature = "planted")]
pub fn plant(planted: Planted) {
    HERE.with(|here| here.set(planted));
}

/// The mistakes that are planted: none but in tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Planted(u32);

impl Planted {
    /// As it should be.
    pub const NONE: Planted = Planted(0);

    /// What a simulator [planted](plant) on this thread: nothing anywhere else.
    pub(crate) fn here() -> Planted {
        #[cfg(feature = "planted")]
        return HERE.with(std::cell::Cell::get);
        #[cfg(not(feature = "planted"))]
        Planted::NONE
    }

    /// These and `bug`.
    #[cfg(any(test, feature = "planted"))]
    #[must_use]
    pub fn with(self, bug: Bug) -> Planted {
        Planted(self.0 | 1 << bug as u32)
    }

    /// True when `bug` is among them.
    pub(crate) fn has(self, bug: Bug) -> bool {
        self.0 & (1 << bug as u32) != 0
    }
}

/// How many of `count` members are a majority.
#[must_use]
pub fn majority(count: usize) -> usize {
    count / 2 + 1
}

#[cfg(test)]
#[path = "../paxos_tests.rs"]
mod tests;

#[cfg(test)]
mod rounds_tests;
