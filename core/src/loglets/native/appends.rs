//! A client's appends to one native loglet: through its sequencer, and through the loss of it.
//!
//! Batches go out in call order over one link and are kept until they are answered. When the link is
//! lost, two things can be true, and a task finds out which: the sequencer is still there, then all
//! that was not answered goes out again, marked, and the sequencer tells what it knows already; or it
//! is not, then nothing is acknowledged any more until the loglet is sealed, and all that was out
//! is answered `Sealed`, to be looked for in the sealed segment. Who finds a sequencer silent tells the
//! other members, who decide.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use tokio::runtime::Handle;
use virtuallog_protocol::{Batch, LogletId, LogletPos};

use super::quorum::Quorum;
use crate::cluster::{failure, unexpected};
use crate::env::{self, planted};
use crate::error::{Error, ErrorCode};
use crate::loglet::{Ack, LogletError};
use crate::wire::frame::Packet;
use crate::wire::messages::{self, FailureKind, Reply, Request};
use crate::wire::transport::{Lane, NetError};

/// Between two looks at a sequencer that is lost: it doubles from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Before a link that took no more is tried again, unless an answer made room earlier. Others use it too.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// A sequencer that answers nothing for so long, with something under way, is looked after.
const PATIENCE: Duration = Duration::from_millis(300);

/// The appends that one handle has under way.
pub(super) struct Appends {
    weak: Weak<Appends>,
    id: LogletId,
    quorum: Arc<Quorum>,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    out: VecDeque<Out>,
    next_key: u64,
    /// How many of `out`, from the front, went out in this round.
    gone_out: usize,
    /// Rises whenever all that was not answered goes out again. A sequencer takes nothing of a writer
    /// that belongs to an earlier round than it has seen, and only successes of earlier ones count
    /// here: so of several copies of a batch only the last one is refused for good. Of the process, so
    /// that rounds rise also from one handle of a loglet to the next.
    round: u64,
    phase: Phase,
    /// Something that went out will not be answered: all of it has to go out again.
    lost: bool,
    /// A task looks whether answers come.
    watched: bool,
    /// Recoveries since the last answer.
    fruitless: u32,
    /// A thread is sending: only one at a time, so that order holds without a lock held.
    sending: bool,
    /// The link takes no more just now: what was not sent waits, and all that comes behind it.
    full: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Flowing,
    /// A task looks for the sequencer or the seal.
    Recovering,
    /// Sealed, or so long over that it was deleted.
    Over,
}

struct Out {
    key: u64,
    /// The sequence number of its first entry.
    seq: u64,
    batch: Bytes,
    at: Option<LogletPos>,
    /// It went over a link before.
    sent: bool,
    ack: Ack,
}

fn is_busy(error: &Error) -> bool {
    error.code() == ErrorCode::Busy
}

impl fmt::Debug for Appends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(state) = self.state.try_lock() else { return write!(f, "Appends({})", self.id) };
        f.debug_struct("Appends")
            .field("phase", &state.phase)
            .field("out", &state.out.len())
            .field("gone_out", &state.gone_out)
            .field("lost", &state.lost)
            .field("fruitless", &state.fruitless)
            .finish_non_exhaustive()
    }
}

impl Appends {
    /// Must be called in a runtime.
    pub(super) fn new(id: LogletId, quorum: Arc<Quorum>) -> Arc<Appends> {
        Arc::new_cyclic(|weak| Appends {
            weak: weak.clone(),
            id,
            quorum,
            runtime: Handle::current(),
            state: Mutex::new(State { round: env::rising(), ..State::default() }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch, in call order; `at`: where a copy has to land.
    pub(super) fn append(&self, batch: Batch, at: Option<LogletPos>, ack: Ack) {
        {
            let mut state = self.state();
            if state.phase == Phase::Over {
                drop(state);
                return ack.complete(Err(LogletError::Sealed));
            }
            let seq = batch.header().first_seq;
            let key = state.next_key;
            state.next_key += 1;
            let batch = batch.as_bytes().clone();
            state.out.push_back(Out { key, seq, batch, at, sent: false, ack });
            if !std::mem::replace(&mut state.watched, true) {
                let weak = self.weak.clone();
                self.runtime.spawn(env::task(watch(weak)));
            }
        }
        self.pump();
    }

    /// Sends what was not sent, unless another thread is at it.
    fn pump(&self) {
        loop {
            let (key, round, resend, packet) = {
                let mut state = self.state();
                let state = &mut *state;
                if state.sending || state.full || state.phase != Phase::Flowing {
                    return;
                }
                let at = state.gone_out;
                let floor = state.out.front().map_or(0, |out| out.seq);
                let Some(out) = state.out.get_mut(at) else { return };
                let resend = std::mem::replace(&mut out.sent, true);
                let request = Request::Append(messages::Append {
                    loglet: self.id.into(),
                    resend,
                    at: out.at.map(u64::from),
                    round: state.round,
                    floor,
                });
                let packet = Packet::request(request, out.batch.clone());
                let next = (out.key, state.round, resend, packet);
                state.gone_out += 1;
                state.sending = true;
                next
            };
            let weak = self.weak.clone();
            let sequencer = self.quorum.sequencer();
            match self.quorum.net.link(sequencer, Lane::Append) {
                Ok(link) => link.call(
                    packet,
                    Box::new(move |answer| {
                        let Some(appends) = weak.upgrade() else { return };
                        match answer {
                            Err(NetError::NotSent(error)) if is_busy(&error) && !resend => {
                                appends.wait(key);
                            }
                            answer => appends.answered(key, round, answer),
                        }
                    }),
                ),
                Err(error) => self.answered(key, round, Err(NetError::NotSent(error))),
            }
            self.state().sending = false;
        }
    }

    /// The link takes no more now: nothing of this batch went out. It is tried again, and what comes
    /// behind it waits too.
    fn wait(&self, key: u64) {
        {
            let mut state = self.state();
            let Some(at) = state.out.iter().position(|out| out.key == key) else { return };
            state.gone_out = state.gone_out.min(at);
            state.out[at].sent = false;
            if std::mem::replace(&mut state.full, true) {
                return;
            }
        }
        let weak = self.weak.clone();
        self.runtime.spawn(env::task(async move {
            tokio::time::sleep(FULL_PAUSE).await;
            let Some(appends) = weak.upgrade() else { return };
            appends.state().full = false;
            appends.pump();
        }));
    }

    fn answered(&self, key: u64, round: u64, answer: Result<Packet, NetError>) {
        let reply = answer.map(|packet| packet.to_reply());
        if !matches!(reply, Ok(Ok(Reply::Appended(_)))) {
            let state = self.state();
            // Another copy goes out, or went: what becomes of this one is no answer.
            let forgets = planted::has(planted::Bug::ForgetsRounds);
            if (state.round != round || state.lost) && !forgets {
                return;
            }
        }
        let Ok(reply) = reply else { return self.lose() };
        let outcome = match reply {
            Ok(Reply::Appended(appended)) => {
                self.quorum.learn_known_tail(appended.known_tail.into());
                self.state().fruitless = 0;
                Ok(LogletPos(appended.first))
            }
            Ok(Reply::Failure(wrong)) => match wrong.kind() {
                FailureKind::NotSequencer | FailureKind::Unavailable | FailureKind::Unknown => {
                    return self.lose();
                }
                FailureKind::Refused if wrong.error().code() == ErrorCode::Closed => {
                    return self.lose();
                }
                FailureKind::Sealed => {
                    self.complete(key, Err(LogletError::Sealed));
                    // Not by the other members, perhaps.
                    return self.recover();
                }
                _ => Err(failure(&wrong, self.id)),
            },
            Ok(_) => Err(LogletError::InDoubt(unexpected().into())),
            Err(error) => Err(LogletError::InDoubt(error.into())),
        };
        self.complete(key, outcome);
    }

    fn complete(&self, key: u64, outcome: Result<LogletPos, LogletError>) {
        let mut state = self.state();
        // Nearly always the first one.
        let Some(at) = state.out.iter().position(|out| out.key == key) else { return };
        let Some(out) = state.out.remove(at) else { return };
        if at < state.gone_out {
            state.gone_out -= 1;
        }
        state.full = false;
        drop(state);
        out.ack.complete(outcome);
        self.pump();
    }

    fn lose(&self) {
        self.state().lost = true;
        self.recover();
    }

    /// The link or the sequencer may be lost: lets a task find out what is true.
    fn recover(&self) {
        let again = {
            let mut state = self.state();
            if state.phase != Phase::Flowing {
                return;
            }
            state.phase = Phase::Recovering;
            state.fruitless += 1;
            state.fruitless > 1
        };
        let weak = self.weak.clone();
        self.runtime.spawn(env::task(async move {
            let mut pause = PAUSE.0;
            if again {
                tokio::time::sleep(PAUSE.1).await;
            }
            while let Some(appends) = weak.upgrade() {
                if appends.settle().await {
                    return;
                }
                drop(appends);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }));
    }

    /// True when it is known how to go on.
    async fn settle(&self) -> bool {
        // One that is there and still brings nothing may be cut off from the other members: it would
        // never learn that they sealed the loglet and went on.
        let stuck = self.state().fruitless > 1;
        // At once, since a sequencer that hangs answers nothing.
        let sequencing = std::pin::pin!(self.quorum.is_sequencing());
        let end = std::pin::pin!(self.quorum.end());
        let (sequencing, end) = match futures_util::future::select(sequencing, end).await {
            Either::Left((true, other)) if stuck => {
                let end = other.await;
                (end.is_none(), end)
            }
            Either::Left((true, _)) => (true, None),
            Either::Right((Some(end), _)) => (false, Some(end)),
            Either::Left((false, other)) => (false, other.await),
            Either::Right((None, other)) => (other.await, None),
        };
        if sequencing {
            let mut state = self.state();
            if std::mem::take(&mut state.lost) {
                state.gone_out = 0;
                state.round = env::rising();
            }
            state.phase = Phase::Flowing;
            drop(state);
            self.pump();
            return true;
        }
        if let Some(end) = end {
            let out = {
                let mut state = self.state();
                state.phase = Phase::Over;
                state.gone_out = 0;
                std::mem::take(&mut state.out)
            };
            for out in out {
                out.ack.complete(Err(match end {
                    LogletError::Unknown(id) => LogletError::Unknown(id),
                    _ => LogletError::Sealed,
                }));
            }
            return true;
        }
        self.quorum.suspect_sequencer().await;
        false
    }
}

/// Notices a sequencer that hangs: its link stays up and brings nothing. Ends when nothing is under
/// way.
async fn watch(appends: Weak<Appends>) {
    let mut oldest = None;
    loop {
        tokio::time::sleep(PATIENCE).await;
        let Some(appends) = appends.upgrade() else { return };
        let first = {
            let mut state = appends.state();
            let first = state.out.front().map(|out| out.key);
            state.watched = first.is_some();
            first
        };
        match first {
            None => return,
            Some(_) if first == oldest => appends.recover(),
            Some(_) => oldest = first,
        }
    }
}

impl Drop for Appends {
    fn drop(&mut self) {
        // Each `Ack` says that its outcome is in doubt.
        self.state().out.clear();
    }
}
