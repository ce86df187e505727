//! One handle's appends to a loglet of another process's directory, and what becomes of them when
//! the way there is lost.
//!
//! Batches go out in call order and are kept until they are answered. When the way is lost, each of
//! those that went out may be stored. So on the next way they are looked for first, by their writer's
//! mark, from where the loglet ended when they were submitted: found means that they have their
//! position; the others go out again, in order. Two cases are different. The same owner may still get
//! the copy that was on its way: its store takes a writer's batches in sequence only, so one of the
//! two is refused, and then it is looked for again. Another owner can get nothing old: the lock was
//! free, so the former one writes no more. What cannot be decided, because it was trimmed, is in
//! doubt.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use virtuallog_protocol::{Batch, LogletId, LogletPos, WriterId};

use super::loglet::{about, batches};
use super::{Guest, Way};
use crate::cluster::{failure, unexpected};
use crate::error::{Error, ErrorCode};
use crate::loglet::{Ack, LogletError};
use crate::wire::frame::{Packet, READ_BYTES_MAX};
use crate::wire::messages::{Append, Bits, FailureKind, Read, Reply, Request};
use crate::wire::transport::{Lane, NetError};

/// Failed writers that are remembered: a writer's later batches stop coming once it was told.
const FAILED_MAX: usize = 64;

/// The appends that one handle has under way.
pub(super) struct Appends {
    weak: Weak<Appends>,
    id: LogletId,
    guest: Arc<Guest>,
    /// A tail of the loglet that was seen.
    known: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// Oldest first.
    out: VecDeque<Out>,
    next_key: u64,
    /// How many of `out`, from the front, went out on this way.
    gone_out: usize,
    /// The way in use; `None` while a task looks for the next one.
    way: Option<Arc<Way>>,
    /// Why there will be no way any more.
    over: Option<Error>,
    /// A thread is sending: only one at a time, so that order holds without a lock held.
    sending: bool,
    /// Writers whose batch failed, and which one has to come next: nothing overtakes it.
    failed: VecDeque<Mark>,
}

/// A batch's writer and sequence number.
type Mark = (WriterId, u64);

struct Out {
    key: u64,
    batch: Batch,
    /// Where a copy of a segment has to land.
    at: Option<LogletPos>,
    /// The tail that was known when it was submitted: it is not before this.
    from: LogletPos,
    /// The owner that it was sent to last.
    owner: Option<Bits>,
    /// That very owner may have it twice.
    twice: bool,
    ack: Ack,
}

impl Out {
    fn mark(&self) -> Mark {
        (self.batch.header().writer, self.batch.header().first_seq)
    }
}

impl State {
    /// Nothing of this writer is sent until the batch with this number comes.
    fn fail(&mut self, (writer, expected): Mark) {
        self.failed.retain(|(failed, _)| *failed != writer);
        self.failed.push_back((writer, expected));
        if self.failed.len() > FAILED_MAX {
            self.failed.pop_front();
        }
    }

    /// `None` for a batch that may be sent, or which one has to come first.
    fn in_order(&mut self, (writer, seq): Mark) -> Option<u64> {
        let at = self.failed.iter().position(|(failed, _)| *failed == writer)?;
        let expected = self.failed[at].1;
        if expected != seq {
            return Some(expected);
        }
        self.failed.remove(at);
        None
    }
}

type Answers = Vec<(Ack, Result<LogletPos, LogletError>)>;

/// What stands in a stretch of the loglet: position, length and checksum of each batch.
#[derive(Default)]
struct Look {
    found: BTreeMap<Mark, (LogletPos, u64, u32)>,
    /// Nothing of the stretch was trimmed.
    complete: bool,
}

impl Look {
    fn position(&self, batch: &Batch) -> Option<LogletPos> {
        let header = batch.header();
        let (first, count, crc) = *self.found.get(&(header.writer, header.first_seq))?;
        ((count, crc) == (batch.count(), header.crc)).then_some(first)
    }
}

impl fmt::Debug for Appends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Appends({})", self.id)
    }
}

fn in_doubt(why: &str) -> LogletError {
    LogletError::InDoubt(why.into())
}

impl Appends {
    /// `known`: a tail that the loglet had.
    pub(super) fn new(id: LogletId, guest: Arc<Guest>, known: LogletPos) -> Arc<Appends> {
        let appends = Arc::new_cyclic(|weak| Appends {
            weak: weak.clone(),
            id,
            guest: guest.clone(),
            known: AtomicU64::new(known.0),
            state: Mutex::new(State {
                out: VecDeque::new(),
                next_key: 0,
                gone_out: 0,
                way: None,
                over: None,
                sending: false,
                failed: VecDeque::new(),
            }),
        });
        guest.enlist(appends.weak.clone());
        appends.seek(0);
        appends
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a tail that was seen.
    pub(super) fn learn(&self, tail: LogletPos) {
        self.known.fetch_max(tail.0, Ordering::AcqRel);
    }

    /// Takes a batch, in call order; `at`: where a copy has to land.
    pub(super) fn append(&self, batch: Batch, at: Option<LogletPos>, ack: Ack) {
        if let Err(error) = self.guest.check_process() {
            return ack.complete(Err(LogletError::Refused(error)));
        }
        let from = LogletPos(self.known.load(Ordering::Acquire));
        let mut state = self.state();
        if let Some(error) = state.over.clone() {
            drop(state);
            return ack.complete(Err(LogletError::Refused(error)));
        }
        let key = state.next_key;
        state.next_key += 1;
        state.out.push_back(Out { key, batch, at, from, owner: None, twice: false, ack });
        drop(state);
        self.pump();
    }

    /// Sends what was not sent, unless another thread is at it or there is no way.
    fn pump(&self) {
        loop {
            let (key, way, packet) = {
                let mut state = self.state();
                let at = state.gone_out;
                let (false, Some(way)) = (state.sending, state.way.clone()) else { return };
                let Some(out) = state.out.get(at) else { return };
                let mark = out.mark();
                if let Some(expected) = state.in_order(mark) {
                    let out = state.out.remove(at).expect("just looked at");
                    drop(state);
                    out.ack.complete(Err(LogletError::OutOfOrder { expected }));
                    continue;
                }
                let out = &mut state.out[at];
                let resend = out.owner.replace(way.owner).is_some();
                let at = out.at.map(u64::from);
                let append = Append { loglet: self.id.into(), resend, at, ..Append::default() };
                let body = out.batch.as_bytes().clone();
                let next = (out.key, way, Packet::request(Request::Append(append), body));
                state.gone_out += 1;
                state.sending = true;
                next
            };
            let (weak, number) = (self.weak.clone(), way.number);
            let done = Box::new(move |answer| {
                if let Some(appends) = Weak::upgrade(&weak) {
                    appends.answered(key, number, answer);
                }
            });
            way.append.call(packet, done);
            self.state().sending = false;
        }
    }

    fn answered(&self, key: u64, number: u64, answer: Result<Packet, NetError>) {
        let reply = match answer {
            Ok(packet) => packet.to_reply(),
            Err(NetError::NotSent(error)) if error.code() == ErrorCode::Busy => {
                return self.complete(key, Err(LogletError::Refused(error)));
            }
            Err(_) => return self.guest.lose(number),
        };
        let outcome = match reply {
            Ok(Reply::Appended(appended)) => Ok(LogletPos(appended.first)),
            Ok(Reply::Failure(wrong)) if wrong.error().code() == ErrorCode::Closed => {
                return self.guest.lose(number);
            }
            Ok(Reply::Failure(wrong)) => match (self.went_twice(key), wrong.kind()) {
                (false, _) | (true, FailureKind::Sealed) => Err(failure(&wrong, self.id)),
                // The other copy was taken, most likely.
                (true, _) => return self.look_again(key),
            },
            Ok(_) => Err(LogletError::InDoubt(unexpected().into())),
            Err(error) => Err(LogletError::InDoubt(error.into())),
        };
        self.complete(key, outcome);
    }

    fn went_twice(&self, key: u64) -> bool {
        self.state().out.iter().any(|out| out.key == key && out.twice)
    }

    fn complete(&self, key: u64, outcome: Result<LogletPos, LogletError>) {
        let mut answers = Answers::new();
        {
            let mut state = self.state();
            // Nearly always the first one.
            let Some(at) = state.out.iter().position(|out| out.key == key) else { return };
            self.take(&mut state, at, outcome, &mut answers);
        }
        tell(answers);
        self.pump();
    }

    /// Takes a batch out with its answer.
    fn take(
        &self,
        state: &mut State,
        at: usize,
        outcome: Result<LogletPos, LogletError>,
        answers: &mut Answers,
    ) {
        let Some(out) = state.out.remove(at) else { return };
        if at < state.gone_out {
            state.gone_out -= 1;
        }
        let (writer, seq) = out.mark();
        match &outcome {
            Ok(first) => self.learn(first.plus(out.batch.count())),
            // The loglet itself takes none of the later ones.
            Err(LogletError::Sealed | LogletError::Unknown(_)) => {}
            Err(LogletError::OutOfOrder { expected }) => state.fail((writer, *expected)),
            Err(_) => state.fail((writer, seq)),
        }
        answers.push((out.ack, outcome));
    }

    /// The way with this number is lost.
    pub(super) fn lose(&self, number: u64) {
        let mut state = self.state();
        if state.way.as_ref().is_some_and(|way| way.number == number) {
            state.way = None;
            drop(state);
            self.seek(number);
        }
    }

    /// Lets a task find the next way after this one, and settle what was under way.
    fn seek(&self, after: u64) {
        let weak = self.weak.clone();
        self.guest.runtime.spawn(async move {
            let mut after = after;
            while let Some(appends) = weak.upgrade() {
                let guest = appends.guest.clone();
                drop(appends);
                let way = guest.way(after, None).await;
                let Some(appends) = weak.upgrade() else { return };
                match way {
                    Err(error) => return appends.give_up(&error),
                    Ok(way) => match appends.settle(&way).await {
                        Ok(()) => return,
                        Err(_) => {
                            guest.lose(way.number);
                            after = way.number;
                        }
                    },
                }
            }
        });
    }

    /// There will be no way.
    fn give_up(&self, error: &Error) {
        let out = {
            let mut state = self.state();
            state.over = Some(error.clone());
            std::mem::take(&mut state.out)
        };
        tell(out.into_iter().map(|out| {
            let outcome = match out.owner {
                None => LogletError::Refused(error.clone()),
                Some(_) => LogletError::InDoubt(error.clone().into()),
            };
            (out.ack, Err(outcome))
        }));
    }

    /// Finds out what became of all that went out before, then goes on.
    async fn settle(&self, way: &Arc<Way>) -> Result<(), NetError> {
        let from = {
            let state = self.state();
            state.out.iter().filter(|out| out.owner.is_some()).map(|out| out.from).min()
        };
        let look = match from {
            None => Ok(Look::default()),
            Some(from) => self.look(way, from).await?,
        };
        let mut answers = Answers::new();
        {
            let mut state = self.state();
            state.gone_out = 0;
            let mut at = 0;
            while let Some(out) = state.out.get(at) {
                let outcome = out.owner.and_then(|_| match &look {
                    Err(error) => Some(Err(in_doubt(&error.to_string()))),
                    Ok(look) => match look.position(&out.batch) {
                        None if !look.complete => {
                            Some(Err(in_doubt("the place where it would be was trimmed")))
                        }
                        position => position.map(Ok),
                    },
                });
                if let Some(outcome) = outcome {
                    self.take(&mut state, at, outcome, &mut answers);
                    continue;
                }
                let out = &mut state.out[at];
                out.twice = out.owner == Some(way.owner);
                at += 1;
            }
            state.way = Some(way.clone());
        }
        tell(answers);
        if !self.guest.is_in_use(way.number) {
            // Lost meanwhile, when nobody here used it yet.
            self.lose(way.number);
        }
        self.pump();
        Ok(())
    }

    /// One of two copies was refused: the other one is there, or it is not known why not.
    fn look_again(&self, key: u64) {
        let weak = self.weak.clone();
        self.guest.runtime.spawn(async move {
            let Some(appends) = weak.upgrade() else { return };
            let asked = {
                let state = appends.state();
                let out = state.out.iter().find(|out| out.key == key);
                out.map(|out| (out.batch.clone(), out.from)).zip(state.way.clone())
            };
            // A way that is lost settles it.
            let Some(((batch, from), way)) = asked else { return };
            let outcome = match appends.look(&way, from).await {
                Err(_) => return appends.guest.lose(way.number),
                Ok(Err(error)) => Err(in_doubt(&error.to_string())),
                Ok(Ok(look)) => {
                    let position = look.position(&batch);
                    position.ok_or_else(|| in_doubt("the owner of the store refused a copy of it"))
                }
            };
            appends.complete(key, outcome);
        });
    }

    /// Reads from `from` to the tail. The inner error is the loglet's.
    async fn look(
        &self,
        way: &Way,
        from: LogletPos,
    ) -> Result<Result<Look, LogletError>, NetError> {
        let wrong = |reply| match reply {
            Reply::Failure(wrong) => failure(&wrong, self.id),
            _ => LogletError::Unavailable(unexpected().into()),
        };
        let to = match self
            .guest
            .ask_over(way, Lane::Control, Request::GetTail(about(self.id)))
            .await?
            .0
        {
            Reply::LocalTail(tail) => LogletPos(tail.tail),
            other => return Ok(Err(wrong(other))),
        };
        let (mut look, mut at) = (Look { complete: true, ..Look::default() }, from);
        while at < to {
            let bytes_max = READ_BYTES_MAX as u64;
            let read = Read { loglet: self.id.into(), from: at.0, to: to.0, bytes_max };
            let (reply, body) = self.guest.ask_over(way, Lane::Read, Request::Read(read)).await?;
            let batches = match reply {
                Reply::Batches(_) => batches(self.id, body),
                other => Err(wrong(other)),
            };
            match batches {
                Ok(batches) => {
                    let Some(last) = batches.last() else { break };
                    at = last.end();
                    look.found.extend(batches.iter().map(|stamped| {
                        let (header, count) = (stamped.batch.header(), stamped.batch.count());
                        ((header.writer, header.first_seq), (stamped.first, count, header.crc))
                    }));
                }
                Err(LogletError::Trimmed { first_kept }) if first_kept > at => {
                    look.complete = false;
                    at = first_kept;
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(look))
    }
}

fn tell(answers: impl IntoIterator<Item = (Ack, Result<LogletPos, LogletError>)>) {
    for (ack, outcome) in answers {
        ack.complete(outcome);
    }
}

impl Drop for Appends {
    fn drop(&mut self) {
        // Each `Ack` says that its outcome is in doubt.
        self.state().out.clear();
    }
}
