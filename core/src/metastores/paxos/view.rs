//! What a member knows to be decided, and who waits for more.
//!
//! A second copy of the acceptor's registers, brought forward by the same decisions once they are
//! persisted: its lock is held for moments, never while the disk works. A put waits here until an
//! instance decides it, whoever proposed that: it is known by its nonce.

use std::collections::BTreeSet;

use tokio::sync::oneshot;
use virtuallog_protocol::paxos::{
    Acceptor, Member, Outcome, Persist, Put, Recall, Register, Registers, State,
};

use crate::error::{Error, ErrorCode};
use crate::metastore::{MetaError, Version, Versioned};

/// What is decided and persisted here, and who waits for more.
#[derive(Debug)]
pub(super) struct View {
    pub(super) registers: Registers,
    /// The acceptor's answer to a read.
    pub(super) state: State,
    pub(super) waiting: Vec<Waiting>,
    /// Those who want what was begun to be finished.
    pub(super) finish: Vec<oneshot::Sender<()>>,
    /// Members that are being told what was decided.
    pub(super) taught: BTreeSet<Member>,
    /// Members that somebody wants, for as long as that one listens.
    pub(super) change: Option<(Vec<Member>, oneshot::Sender<()>)>,
}

/// A put without an answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) put: Put,
    /// No instance before this one decided it.
    pub(super) since: u64,
    pub(super) answer: oneshot::Sender<Result<Version, MetaError>>,
}

impl View {
    pub(super) fn new(acceptor: &Acceptor) -> Self {
        Self {
            registers: acceptor.registers().clone(),
            state: acceptor.state(),
            waiting: Vec::new(),
            finish: Vec::new(),
            taught: BTreeSet::new(),
            change: None,
        }
    }

    pub(super) fn versioned(&self, name: &str) -> Versioned {
        let Register { version, value } = self.registers.get(name);
        Versioned { value, version }
    }

    pub(super) fn conflict(&self, name: &str) -> MetaError {
        MetaError::Conflict { current: self.versioned(name) }
    }

    pub(super) fn outcome(&self, name: &str, outcome: Outcome) -> Result<Version, MetaError> {
        match outcome {
            Outcome::Written(version) => Ok(version),
            Outcome::Conflict(_) => Err(self.conflict(name)),
            Outcome::Full => {
                let message = "all registers together would be over their limit: trim logs, or \
                               delete some";
                Err(MetaError::Refused(Error::new(ErrorCode::TooLarge, message)))
            }
        }
    }

    /// Takes what a step of the acceptor persisted, and answers who waited for it.
    pub(super) fn take(&mut self, persist: Vec<Persist>, acceptor: &Acceptor) {
        self.state = acceptor.state();
        for persist in persist {
            match persist {
                Persist::Decided(decided) if decided.instance == self.registers.applied() + 1 => {
                    self.registers.apply(&decided);
                }
                Persist::Snapshot(_) => self.registers.clone_from(acceptor.registers()),
                Persist::Promise(_) | Persist::Accept(_) | Persist::Decided(_) => continue,
            }
            for waiting in std::mem::take(&mut self.waiting) {
                let answer = match self.registers.recall(waiting.put.nonce.into(), waiting.since) {
                    Recall::Known(outcome) => self.outcome(&waiting.put.name, outcome),
                    Recall::Forgotten => Err(unavailable("what became of it is forgotten")),
                    Recall::Absent => {
                        self.waiting.push(waiting);
                        continue;
                    }
                };
                // Whoever asked may be gone.
                let _ = waiting.answer.send(answer);
            }
        }
    }
}

pub(super) fn unavailable(why: &str) -> MetaError {
    MetaError::Unavailable(Error::new(ErrorCode::Unavailable, why).into())
}

pub(super) fn closing() -> MetaError {
    unavailable("this server is closing")
}

pub(super) fn out_of_reach() -> MetaError {
    unavailable("no majority of the MetaStore's members answers: see `status` for who is down")
}

pub(super) fn to_error(error: MetaError) -> Error {
    match error {
        MetaError::Refused(error) => error,
        other => Error::new(ErrorCode::Unavailable, other.to_string()).with_source(other),
    }
}
