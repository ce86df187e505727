//! What the acceptors of the MetaStore answered, behind which they may not go back (I16): a handler
//! around a server's own one, which reads along.
//!
//! An acceptor that promised or voted never promises as low a ballot of that instance again, never votes
//! for a lower one, and takes part in no instance before it. An answer is compared with those that were
//! given before its request came, because answers overtake each other. What it does not see: what an
//! acceptor tells the proposer of its own server, which takes no message.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use virtuallog_protocol::paxos::{Ask, Ballot, PaxosReply, PaxosRequest, Tell};

use crate::env::sometimes;
use crate::error::Result;
use crate::wire::frame::Packet;
use crate::wire::messages::{Hello, Reply, Request, Welcome};
use crate::wire::serve::{Answer, Caller, Handler};

/// An instance, and a ballot in it.
type Place = (u64, Ballot);

/// What the acceptor of one machine answered.
#[derive(Debug, Default)]
pub(super) struct Answered(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    highest: Place,
    wrong: Vec<String>,
}

impl Answered {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody relies on it any more: the machine's disk was damaged, or is another one.
    pub(super) fn forget(&self) {
        *self.told() = Told::default();
    }

    /// Where it went back since the last call.
    pub(super) fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut self.told().wrong)
    }

    /// It answered what was asked of it at `place` when `before` was the highest that it had answered.
    fn hear(&self, place: Place, before: Place, tell: &Tell) {
        let (what, back) = match tell {
            Tell::Promise(_) => ("promised", place <= before),
            Tell::Accepted(()) => ("voted for", place < before),
            Tell::State(state) if !state.counts => {
                sometimes!("an acceptor that may have forgotten refused to vote");
                return;
            }
            _ => return,
        };
        let mut told = self.told();
        told.highest = told.highest.max(place);
        if back {
            told.wrong.push(format!("I16: it {what} {place:?} after it had answered {before:?}"));
        }
    }
}

/// A server's handler, and who reads along.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) answered: Arc<Answered>,
}

impl Handler for Witness {
    fn greet(&self, hello: &Hello) -> Result<Welcome> {
        self.handler.greet(hello)
    }

    fn handle(&self, from: &Caller, request: Request, body: Bytes, answer: Answer) {
        let asked = match request {
            Request::Paxos(_) => PaxosRequest::from_bytes(body.clone()).ok(),
            _ => None,
        };
        let place = match asked.and_then(|request| request.ask) {
            Some(Ask::Prepare(prepare)) => (prepare.instance, prepare.ballot),
            Some(Ask::Accept(vote)) => (vote.instance, vote.ballot),
            _ => return self.handler.handle(from, request, body, answer),
        };
        let (answered, before) = (self.answered.clone(), self.answered.told().highest);
        let heard = Answer::new(move |packet: Packet| {
            let reply = packet.to_reply().expect("a server's answer can be decoded");
            if let (Reply::Paxos(_), Ok(tell)) =
                (&reply, PaxosReply::from_bytes(packet.body.clone()))
            {
                tell.tell.iter().for_each(|tell| answered.hear(place, before, tell));
            }
            answer.with(reply, packet.body);
        });
        self.handler.handle(from, request, body, heard);
    }

    fn gone(&self, from: &Caller) {
        self.handler.gone(from);
    }

    fn is_stopped(&self) -> bool {
        self.handler.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acceptor_that_goes_back_is_noticed() {
        let promise = Tell::Promise(Default::default());
        let ballot = |round| Ballot { round, node: 1 };
        let wrong = |before, place, tell: &Tell| {
            let answered = Answered::default();
            answered.hear(before, Place::default(), &promise);
            let highest = answered.told().highest;
            answered.hear(place, highest, tell);
            answered.take_wrong().len()
        };
        let before = (7, ballot(2));
        for (place, promised, voted) in [
            ((7, ballot(1)), 1, 1),
            ((7, ballot(2)), 1, 0),
            ((7, ballot(3)), 0, 0),
            ((6, ballot(3)), 1, 1),
            ((8, ballot(1)), 0, 0),
        ] {
            assert_eq!(wrong(before, place, &promise), promised, "promise of {place:?}");
            assert_eq!(wrong(before, place, &Tell::Accepted(())), voted, "vote for {place:?}");
            assert_eq!(wrong(before, place, &Tell::Refused(ballot(9))), 0);
        }
    }

    /// An answer that was under way when a higher one was given says nothing wrong.
    #[test]
    fn answers_may_overtake_each_other() {
        let answered = Answered::default();
        let (low, high) = ((7, Ballot { round: 1, node: 1 }), (7, Ballot { round: 2, node: 1 }));
        let promise = Tell::Promise(Default::default());
        answered.hear(high, Place::default(), &promise);
        answered.hear(low, Place::default(), &promise);
        assert!(answered.take_wrong().is_empty() && answered.told().highest == high);
    }
}
