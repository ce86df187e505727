//! What a sequencer remembers of writers: rule N17.
//!
//! What it promises: a writer's batches are taken in sequence order only; one that was taken before
//! is known again, with its position; what may have been taken and is not remembered is refused as in
//! doubt. Nothing is forgotten while it is not committed, so a writer that comes back on a new
//! connection finds all that it waits for.
//!
//! The one idea: per writer the next sequence number and the positions of its last batches. A refused
//! batch does not move the number, so all later ones of that writer fail too and never overtake.
//!
//! Bounded: what was used longest ago goes first, by the clock rule: one second chance for who was
//! used since. From then on an unknown writer may be one that was forgotten.

use std::collections::{BTreeMap, VecDeque};

use crate::sequencer::AppendRefusal;
use crate::types::{LogletPos, WriterId};

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sent {
    pub(crate) first: LogletPos,
    pub(crate) end: LogletPos,
}

/// What a batch says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) writer: WriterId,
    pub(crate) first_seq: u64,
    pub(crate) count: u64,
    pub(crate) resend: bool,
    pub(crate) round: u64,
    pub(crate) floor: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Writer {
    /// The highest that was seen. What comes of an earlier one was sent again since: taken or refused,
    /// its answer would say nothing about the copy that counts.
    round: u64,
    next_seq: u64,
    /// The last batches: sequence number and place, ascending.
    batches: VecDeque<(u64, Sent)>,
    used: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writers {
    writers_max: usize,
    batches_max: usize,
    known: BTreeMap<WriterId, Writer>,
    /// All of `known`, in the order in which they are looked at when one has to go.
    clock: VecDeque<WriterId>,
    forgot: bool,
}

impl Writers {
    pub(crate) fn new(writers_max: usize, batches_max: usize) -> Writers {
        let (known, clock) = (BTreeMap::new(), VecDeque::new());
        Writers { writers_max, batches_max, known, clock, forgot: false }
    }

    /// `None` for a batch that is the writer's next, its place for one that was taken before.
    /// An unknown writer may begin with any number, since it goes on from another loglet, but only
    /// with its oldest one.
    pub(crate) fn admit(
        &mut self,
        claim: &Claim,
        known_tail: LogletPos,
    ) -> Result<Option<Sent>, AppendRefusal> {
        let Claim { writer: id, first_seq, count, resend, round, floor } = *claim;
        let Some(writer) = self.known.get_mut(&id) else {
            if resend && self.forgot {
                return Err(AppendRefusal::Forgotten);
            }
            if first_seq != floor {
                return Err(AppendRefusal::OutOfOrder { expected: floor });
            }
            self.make_room(known_tail);
            let batches = VecDeque::new();
            self.known.insert(id, Writer { round, next_seq: first_seq, batches, used: false });
            self.clock.push_back(id);
            return Ok(None);
        };
        writer.used = true;
        if round < writer.round && first_seq >= writer.next_seq {
            return Err(AppendRefusal::Outrun);
        }
        writer.round = writer.round.max(round);
        if first_seq >= writer.next_seq {
            let expected = writer.next_seq;
            let next = first_seq == expected;
            return next.then_some(None).ok_or(AppendRefusal::OutOfOrder { expected });
        }
        let at = writer.batches.binary_search_by_key(&first_seq, |(seq, _)| *seq);
        let sent = at.ok().map(|at| writer.batches[at].1);
        // Another length is another framing of the same entries: the first one may be stored.
        match sent.filter(|sent| sent.first.plus(count) == sent.end) {
            Some(sent) => Ok(Some(sent)),
            None => Err(AppendRefusal::Forgotten),
        }
    }

    /// A batch that [`admit`](Self::admit) found to be next was given its place.
    pub(crate) fn taken(&mut self, id: WriterId, seq: u64, sent: Sent, known_tail: LogletPos) {
        let writer = self.known.get_mut(&id).expect("admitted just now");
        writer.next_seq = seq + (sent.end.0 - sent.first.0);
        writer.batches.push_back((seq, sent));
        let committed = |(_, sent): &(u64, Sent)| sent.end <= known_tail;
        while writer.batches.len() > self.batches_max
            && writer.batches.front().is_some_and(committed)
        {
            writer.batches.pop_front();
        }
    }

    fn make_room(&mut self, known_tail: LogletPos) {
        // Twice around: the first time may only take chances away.
        for _ in 0..2 * self.clock.len() {
            if self.clock.len() < self.writers_max {
                return;
            }
            let id = self.clock.pop_front().expect("the loop counts them");
            let writer = self.known.get_mut(&id).expect("the clock has the known ones");
            let waits = writer.batches.back().is_some_and(|(_, sent)| sent.end > known_tail);
            if std::mem::take(&mut writer.used) || waits {
                self.clock.push_back(id);
            } else {
                self.known.remove(&id);
                self.forgot = true;
            }
        }
    }
}

#[cfg(test)]
#[path = "writers_tests.rs"]
mod tests;
