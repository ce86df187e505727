//! The sequencer of one loglet, for its one life: who is next, what is where, who has it.
//!
//! What it promises: no two batches at one position and no hole between them; a batch keeps its
//! position and is sent until it is committed or the loglet is sealed; it is acknowledged only when a
//! majority of LogServers said, unsealed and directly, that they have it (rule N3); one slow server
//! holds nobody back; a writer's batches are taken in order, and one that comes again gets the
//! position that it has (N17).
//!
//! The one idea: one queue of batches with a cursor per LogServer. A LogServer takes batches without a
//! hole, so its answer is one position, its durable tail, and covers all that went before. What the
//! majority's tails cover is committed; the end of that is the *known tail*.
//!
//! What it does not do: no clock, no connection, no bytes. The driver tells what came and does what
//! it is told, per server in the order of the effects. Its state is gone with the process and must not
//! be made again for the same loglet: what it gave out is forgotten. Read next: `writers.rs`.

use std::collections::VecDeque;
#[cfg(any(test, feature = "planted"))]
use std::hash::Hash;

use thiserror::Error;

use crate::limits::{COUNTER_MAX, DUPLICATES_MAX, REPLICAS_MAX};
use crate::log_server::LocalTail;
use crate::planted::{Bug, Planted};
use crate::types::{LogletPos, WriterId};
use crate::writers::{Claim, Sent, Writers};

/// What bounds a sequencer. Bytes are those of [`Append::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Most bytes that are not committed; one batch is always taken.
    pub window_bytes: usize,
    /// Most bytes that are under way to one LogServer; one batch always is.
    pub server_bytes: usize,
    /// Most committed bytes that are kept for LogServers that lack them. What is more they skip.
    pub retained_bytes: usize,
    /// Most writers that are remembered, but for those with a batch that is not committed.
    pub writers: usize,
    /// Most committed batches that are remembered of one writer.
    pub batches_per_writer: usize,
}

/// A batch to be appended. `B` is whatever stands for its bytes, `T` whatever names who waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Append<B, T> {
    /// The life of the writer that framed it.
    pub writer: WriterId,
    /// The writer's sequence number of its first entry.
    pub first_seq: u64,
    /// How many entries it has, at least one.
    pub count: u64,
    /// What it counts in all limits.
    pub bytes: usize,
    /// For the copy of a segment: where it has to land. Its writers are not looked at.
    pub at: Option<LogletPos>,
    /// True when it may have been sent before.
    pub resend: bool,
    /// Rises whenever the writer sends all again that was not answered.
    pub round: u64,
    /// The sequence number of the writer's oldest entry that was not answered when this was sent.
    pub floor: u64,
    /// The batch.
    pub batch: B,
    /// Who waits for the outcome.
    pub token: T,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect<B, T> {
    /// Send a batch to a LogServer.
    Store {
        /// Which LogServer.
        server: usize,
        /// The position of the batch.
        first: LogletPos,
        /// All below is committed: may be skipped by the LogServer, and read.
        known_tail: LogletPos,
        /// The batch.
        batch: B,
    },
    /// Answer an append: it is committed.
    Commit {
        /// Who waits.
        token: T,
        /// The position of the batch.
        first: LogletPos,
        /// All below is committed.
        known_tail: LogletPos,
    },
    /// Answer an append: it failed.
    Refuse {
        /// Who waits.
        token: T,
        /// Why.
        why: AppendRefusal,
    },
    /// Tell a LogServer the known tail, because nothing else will.
    Notice {
        /// Which LogServer.
        server: usize,
        /// All below is committed.
        known_tail: LogletPos,
    },
    /// A LogServer was found sealed: seal the others too and then call [`Sequencer::seal`]. Once.
    FinishSeal,
}

/// Why an append failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum AppendRefusal {
    /// The loglet is sealed. The batch may be stored, unless it was never taken.
    #[error("sealed")]
    Sealed,
    /// Not the writer's next batch. Surely not stored.
    #[error("out of order: the writer's next sequence number is {expected}")]
    OutOfOrder {
        /// The sequence number that would be taken.
        expected: u64,
    },
    /// The writer has sent all of it again since. This copy is not stored.
    #[error("sent again since")]
    Outrun,
    /// The window is full. Surely not stored.
    #[error("the window is full")]
    Busy,
    /// Too long ago to be remembered: it may be stored or not.
    #[error("too long ago to be remembered")]
    Forgotten,
    /// It was taken, and no majority can store it now. It stays where it is and may be stored later.
    #[error("no majority can store it now")]
    Stuck,
    /// A copy that does not go there. Surely not stored.
    #[error("the next position is {next}")]
    Misplaced {
        /// Where the next batch goes.
        next: LogletPos,
    },
}

/// A batch with its position.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held<B, T> {
    first: LogletPos,
    end: LogletPos,
    bytes: usize,
    batch: B,
    /// Who waits; nobody once it is committed.
    token: Option<T>,
    /// Who waits for the same, having sent it again.
    others: Vec<T>,
}

/// A LogServer as the sequencer sees it. Batches are numbered from 0, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Server {
    connected: bool,
    sealed: bool,
    /// The highest tail that it answered unsealed.
    tail: LogletPos,
    /// The first batch that it may still need.
    wanted: u64,
    /// The next batch to send.
    next: u64,
    /// What was sent on this connection and not answered: ends and sizes.
    under_way: VecDeque<(LogletPos, usize)>,
    under_way_bytes: usize,
    /// The known tail that it was told on this connection.
    told: Option<LogletPos>,
}

/// See the top of this file. Hashable, so that a model checker runs over the thing itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sequencer<B, T> {
    limits: Limits,
    planted: Planted,
    /// Where the next batch goes.
    next: LogletPos,
    known_tail: LogletPos,
    /// Committed batches that somebody lacks, then all others.
    log: VecDeque<Held<B, T>>,
    /// Number of the first batch in `log`.
    start: u64,
    /// Number of the first batch that is not committed.
    committed: u64,
    /// Bytes in `log` that are not committed, and that are.
    window: usize,
    retained: usize,
    servers: Vec<Server>,
    writers: Writers,
    /// A LogServer was found sealed: nothing new is taken, what was taken may still be committed.
    closing: bool,
    sealed: bool,
}

impl<B: Clone, T> Sequencer<B, T> {
    /// A sequencer for a loglet that was just created and is empty, on `servers` LogServers.
    ///
    /// # Panics
    /// When `servers` is even or above [`REPLICAS_MAX`].
    #[must_use]
    pub fn new(base: LogletPos, servers: usize, limits: Limits) -> Sequencer<B, T> {
        assert!(servers % 2 == 1 && servers <= REPLICAS_MAX, "no majority of {servers} is defined");
        let server = Server {
            connected: false,
            sealed: false,
            tail: base,
            wanted: 0,
            next: 0,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            told: None,
        };
        Sequencer {
            planted: Planted::here(),
            next: base,
            known_tail: base,
            log: VecDeque::new(),
            start: 0,
            committed: 0,
            window: 0,
            retained: 0,
            servers: vec![server; servers],
            writers: Writers::new(limits.writers, limits.batches_per_writer),
            limits,
            closing: false,
            sealed: false,
        }
    }

    /// With mistakes in it.
    #[doc(hidden)]
    #[must_use]
    pub fn planted(self, planted: Planted) -> Self {
        Sequencer { planted, ..self }
    }

    /// For a model checker: what does not depend on how LogServers are numbered, and each one's part.
    #[cfg(any(test, feature = "planted"))]
    #[doc(hidden)]
    pub fn parts(&self) -> (impl Hash, &[impl Hash])
    where
        B: Hash,
        T: Hash,
    {
        let counters = (self.next, self.known_tail, self.start, self.committed);
        let states = (self.window, self.retained, self.closing, self.sealed);
        ((counters, states, &self.log, &self.writers), &self.servers)
    }

    /// All below is committed. Only this, or a boundary in the chain, may be used for reading (N15).
    #[must_use]
    pub fn known_tail(&self) -> LogletPos {
        self.known_tail
    }

    /// True when everything fails from now on.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Bytes that were taken and are not committed.
    #[must_use]
    pub fn window(&self) -> usize {
        self.window
    }

    /// Takes a batch, or refuses it.
    pub fn append(&mut self, append: Append<B, T>, out: &mut Vec<Effect<B, T>>) {
        let room = !self.is_full(append.bytes);
        self.admit(append, room, out);
    }

    /// Refuses a batch as [`AppendRefusal::Busy`], because the driver has no room for it, unless it was
    /// taken before: then it has its position.
    pub fn turn_away(&mut self, append: Append<B, T>, out: &mut Vec<Effect<B, T>>) {
        self.admit(append, false, out);
    }

    fn admit(&mut self, append: Append<B, T>, room: bool, out: &mut Vec<Effect<B, T>>) {
        let known = match append.at {
            Some(at) => self.admit_copy(at, append.count),
            None => self.writers.admit(
                &Claim {
                    writer: append.writer,
                    first_seq: append.first_seq,
                    count: append.count,
                    resend: append.resend,
                    round: append.round,
                    floor: append.floor,
                },
                self.known_tail,
            ),
        };
        let refusal = match known {
            Ok(Some(sent)) => return self.again(sent, append.token, out),
            Ok(None) if self.closing => AppendRefusal::Sealed,
            Ok(None) if !room => AppendRefusal::Busy,
            Ok(None) => return self.take(append, out),
            Err(why) => why,
        };
        out.push(Effect::Refuse { token: append.token, why: refusal });
    }

    fn is_full(&self, bytes: usize) -> bool {
        self.window > 0 && self.window + bytes > self.limits.window_bytes
    }

    /// A copy goes where it was; between copies there may be gaps for ever. A gap has nothing to
    /// commit, so the known tail goes over it, once all before it is committed. That is allowed because
    /// nobody reads a copy before it is sealed and in the chain.
    fn admit_copy(&mut self, at: LogletPos, count: u64) -> Result<Option<Sent>, AppendRefusal> {
        let misplaced = AppendRefusal::Misplaced { next: self.next };
        if at.0 > COUNTER_MAX {
            return Err(misplaced);
        }
        if at < self.next {
            let sent = Sent { first: at, end: at.plus(count) };
            let held = sent.end <= self.known_tail || self.find(sent).is_some();
            return held.then_some(Some(sent)).ok_or(misplaced);
        }
        if at > self.next && !self.closing {
            if self.known_tail < self.next {
                return Err(AppendRefusal::Busy);
            }
            self.next = at;
            self.known_tail = at;
        }
        Ok(None)
    }

    fn find(&self, sent: Sent) -> Option<usize> {
        let at = self.log.binary_search_by_key(&sent.first, |held| held.first).ok()?;
        (self.log[at].end == sent.end).then_some(at)
    }

    /// A batch that was taken before: it has its position. If committed this is told even after the
    /// seal: a majority had it unsealed, so every boundary lies above.
    fn again(&mut self, sent: Sent, token: T, out: &mut Vec<Effect<B, T>>) {
        let known_tail = self.known_tail;
        if sent.end <= known_tail {
            return out.push(Effect::Commit { token, first: sent.first, known_tail });
        }
        let why = match self.find(sent).map(|at| &mut self.log[at].others) {
            Some(others) if others.len() < DUPLICATES_MAX => return others.push(token),
            Some(_) => AppendRefusal::Forgotten,
            None => AppendRefusal::Sealed,
        };
        out.push(Effect::Refuse { token, why });
    }

    fn take(&mut self, append: Append<B, T>, out: &mut Vec<Effect<B, T>>) {
        let Append { writer, first_seq, count, bytes, at, batch, token, .. } = append;
        let sent = Sent { first: self.next, end: self.next.plus(count) };
        if at.is_none() {
            self.writers.taken(writer, first_seq, sent, self.known_tail);
        }
        self.next = sent.end;
        self.window += bytes;
        let (first, end) = (sent.first, sent.end);
        let token = Some(token);
        self.log.push_back(Held { first, end, bytes, batch, token, others: Vec::new() });
        for server in 0..self.servers.len() {
            self.send(server, out);
        }
    }

    /// A LogServer answered, whether to a batch that it took or refused or to a question: its durable
    /// tail and its seal bit of one moment. Answers may come late, twice and in any order.
    ///
    /// After a `Gap`, and after any failure, what was sent behind is refused too: tell this answer,
    /// if there is one, and then start again with [`disconnected`](Self::disconnected) and
    /// [`connected`](Self::connected).
    pub fn answered(&mut self, server: usize, answer: LocalTail, out: &mut Vec<Effect<B, T>>) {
        if self.sealed {
            return;
        }
        if answer.sealed {
            self.found_sealed(server, out);
            if !self.planted.has(Bug::CountsSealed) {
                return;
            }
        }
        if answer.tail > self.next {
            // Somebody else wrote here, so the positions are not ours to give: the chain goes on with
            // another loglet.
            self.closing(out);
            return self.seal(out);
        }
        let peer = &mut self.servers[server];
        if answer.tail > peer.tail {
            peer.tail = answer.tail;
            while let Some(&(_, bytes)) =
                peer.under_way.front().filter(|(end, _)| *end <= peer.tail)
            {
                peer.under_way_bytes -= bytes;
                peer.under_way.pop_front();
            }
            let has = self.log.range((peer.wanted - self.start) as usize..);
            peer.wanted += has.take_while(|held| held.end <= peer.tail).count() as u64;
            peer.next = peer.next.max(peer.wanted);
            self.commit(out);
            self.release();
        }
        self.send(server, out);
    }

    fn found_sealed(&mut self, server: usize, out: &mut Vec<Effect<B, T>>) {
        self.servers[server].sealed = true;
        self.closing(out);
        let sealed = self.servers.iter().filter(|peer| peer.sealed).count();
        if sealed > self.servers.len() / 2 {
            self.seal(out);
        }
    }

    fn closing(&mut self, out: &mut Vec<Effect<B, T>>) {
        if !self.closing {
            self.closing = true;
            out.push(Effect::FinishSeal);
        }
    }

    /// The highest position such that a majority has everything below.
    fn majority_tail(&self) -> LogletPos {
        let mut tails = [LogletPos(0); REPLICAS_MAX];
        let tails = &mut tails[..self.servers.len()];
        for (tail, peer) in tails.iter_mut().zip(&self.servers) {
            *tail = peer.tail;
        }
        tails.sort_unstable();
        match self.planted.has(Bug::AcksAtOne) {
            true => tails[tails.len() - 1],
            false => tails[tails.len() / 2],
        }
    }

    fn commit(&mut self, out: &mut Vec<Effect<B, T>>) {
        let covered = self.majority_tail();
        let from = (self.committed - self.start) as usize;
        for held in self.log.range(from..).take_while(|held| held.end <= covered) {
            self.window -= held.bytes;
            self.retained += held.bytes;
            self.known_tail = held.end;
            self.committed += 1;
        }
        let known_tail = self.known_tail;
        for held in self.log.range_mut(from..(self.committed - self.start) as usize) {
            let first = held.first;
            let waiting = held.token.take().into_iter().chain(held.others.drain(..));
            out.extend(waiting.map(|token| Effect::Commit { token, first, known_tail }));
        }
    }

    /// Lets go of committed batches that nobody needs, and of others when they are too many.
    ///
    /// A server that was to get one of those next goes on at the known tail: one long gap, which it
    /// may skip, and it counts again at once. Batch by batch it would be behind for ever.
    fn release(&mut self) {
        while self.start < self.committed {
            let dropped = self.start;
            let mut lacking = self.servers.iter().filter(|p| p.wanted <= dropped && !p.sealed);
            if lacking.next().is_some() && self.retained <= self.limits.retained_bytes {
                return;
            }
            for peer in self.servers.iter_mut().filter(|peer| peer.wanted <= dropped) {
                match peer.next <= dropped {
                    true => (peer.wanted, peer.next) = (self.committed, self.committed),
                    false => peer.wanted = dropped + 1,
                }
            }
            let held = self.log.pop_front().expect("what was not let go of is there");
            self.retained -= held.bytes;
            self.start += 1;
        }
    }

    /// Sends a LogServer what it has not been sent, as far as its limit allows.
    fn send(&mut self, server: usize, out: &mut Vec<Effect<B, T>>) {
        let peer = &mut self.servers[server];
        if !peer.connected || peer.sealed {
            return;
        }
        while let Some(held) = self.log.get((peer.next - self.start) as usize) {
            let under_way = peer.under_way_bytes + held.bytes;
            if peer.under_way_bytes > 0 && under_way > self.limits.server_bytes {
                return;
            }
            peer.under_way_bytes = under_way;
            peer.under_way.push_back((held.end, held.bytes));
            peer.next += 1;
            peer.told = Some(self.known_tail);
            let (first, known_tail) = (held.first, self.known_tail);
            out.push(Effect::Store { server, first, known_tail, batch: held.batch.clone() });
        }
    }

    /// A LogServer can be sent to, on a new connection: sending starts again with the first batch that
    /// it is not known to have. Idempotent at the other end.
    pub fn connected(&mut self, server: usize, out: &mut Vec<Effect<B, T>>) {
        self.disconnected(server);
        let peer = &mut self.servers[server];
        peer.connected = true;
        self.send(server, out);
    }

    /// A LogServer cannot be sent to. What it answered counts on.
    pub fn disconnected(&mut self, server: usize) {
        let peer = &mut self.servers[server];
        peer.connected = false;
        peer.next = peer.wanted;
        peer.under_way.clear();
        peer.under_way_bytes = 0;
        peer.told = None;
    }

    /// Nobody need wait any more for what is not committed: a majority of the LogServers cannot store now,
    /// and nobody knows when they can. The batches stay, and are committed when they can be.
    pub fn let_go(&mut self, out: &mut Vec<Effect<B, T>>) {
        let from = (self.committed - self.start) as usize;
        for held in self.log.range_mut(from..) {
            let waiting = held.token.take().into_iter().chain(held.others.drain(..));
            out.extend(waiting.map(|token| Effect::Refuse { token, why: AppendRefusal::Stuck }));
        }
    }

    /// Tells the known tail to the LogServers that will not learn it with a batch. To be called when
    /// the driver has nothing more to tell for now: so a busy sequencer sends few notices, and an idle
    /// one sends them at once.
    pub fn notices(&mut self, out: &mut Vec<Effect<B, T>>) {
        let known_tail = self.known_tail;
        let end = self.start + self.log.len() as u64;
        for (server, peer) in self.servers.iter_mut().enumerate() {
            if peer.connected && peer.next == end && peer.told != Some(known_tail) {
                peer.told = Some(known_tail);
                out.push(Effect::Notice { server, known_tail });
            }
        }
    }

    /// The loglet is sealed, at a majority of LogServers or because the chain says so: what is not
    /// committed fails, and so does all that comes.
    pub fn seal(&mut self, out: &mut Vec<Effect<B, T>>) {
        self.closing = true;
        self.sealed = true;
        let why = AppendRefusal::Sealed;
        for held in self.log.drain(..) {
            let waiting = held.token.into_iter().chain(held.others);
            out.extend(waiting.map(|token| Effect::Refuse { token, why }));
        }
        (self.start, self.window, self.retained) = (self.committed, 0, 0);
        for peer in &mut self.servers {
            (peer.wanted, peer.next) = (self.committed, self.committed);
        }
    }
}

#[cfg(test)]
#[path = "sequencer_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "sequencer_oracle_tests.rs"]
mod oracle_tests;
