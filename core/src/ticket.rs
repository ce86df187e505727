//! The answer to an append, shared by all entries of a batch.
//!
//! One allocation a batch and not one an entry: an [`Append`] is a ticket and an index into it. It
//! can be polled by any executor, or waited on by a thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use virtuallog_protocol::LogPos;

use crate::error::{Error, ErrorCode, Result};
use crate::token::Token;

/// Where the outcome of one batch will stand.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    /// Position of the first entry, or why there is none. Written once.
    outcome: OnceLock<Result<LogPos>>,
    waiters: Mutex<Waiters>,
    settled: Condvar,
    /// Whether a caller was told of the failure.
    seen: AtomicBool,
    /// Whether a caller's time ran out, so that he was told that it is in doubt.
    doubted: AtomicBool,
    /// Whether the window took it: [`WAITING`], [`ADMITTED`] or [`WITHDRAWN`].
    turn: AtomicU8,
    name: Mutex<Name>,
}

/// What names an append if its outcome stays in doubt.
#[derive(Debug, Default)]
struct Name {
    token: Option<Token>,
    /// Whether it is in an error that somebody has or will have.
    told: bool,
}

const ADMITTED: u8 = 0;
const WAITING: u8 = 1;
const WITHDRAWN: u8 = 2;

#[derive(Debug, Default)]
struct Waiters {
    wakers: Vec<Option<Waker>>,
    threads: usize,
}

impl Ticket {
    /// A ticket for one entry that waits for room in the window.
    pub(crate) fn waiting() -> Self {
        Self { turn: AtomicU8::new(WAITING), ..Self::default() }
    }

    /// Gives the entry its turn; false when it was withdrawn before.
    pub(crate) fn admit(&self) -> bool {
        self.turn.compare_exchange(WAITING, ADMITTED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes an entry back that still waits for its turn; false when it is too late for that.
    pub(crate) fn withdraw(&self, error: Error) -> bool {
        let turn = &self.turn;
        turn.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
            && self.settle(Err(error))
    }

    fn name(&self) -> MutexGuard<'_, Name> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names it by where it goes. False when a caller holds a name that says another segment: then it
    /// must not go there, since he takes it for absent once that segment ended without it.
    #[must_use]
    pub(crate) fn call(&self, token: Token) -> bool {
        let mut name = self.name();
        let elsewhere = name.token.as_ref().is_some_and(|known| known.segment != token.segment);
        if name.told && elsewhere {
            return false;
        }
        name.token = Some(token);
        true
    }

    /// Its name, to be told because time ran out.
    pub(crate) fn tell_name(&self) -> Option<Token> {
        let mut name = self.name();
        name.told = true;
        name.token.clone()
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the outcome unless there is one, and wakes everybody. True if it was written.
    pub(crate) fn settle(&self, outcome: Result<LogPos>) -> bool {
        if self.outcome.set(outcome).is_err() {
            return false;
        }
        let (wakers, threads) = {
            let mut waiters = self.waiters();
            (std::mem::take(&mut waiters.wakers), waiters.threads)
        };
        if threads > 0 {
            self.settled.notify_all();
        }
        wakers.into_iter().flatten().for_each(Waker::wake);
        true
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// The failure, if there is one that nobody was told of; telling it now. Who was told of a doubt knows
    /// as much.
    pub(crate) fn take_unseen_failure(&self) -> Option<Error> {
        let error = self.outcome.get()?.as_ref().err()?;
        let told = self.seen.swap(true, Ordering::Relaxed) || self.doubted.load(Ordering::Relaxed);
        (!told).then(|| error.clone())
    }

    pub(crate) fn is_seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// Waits for the outcome without telling it.
    pub(crate) async fn wait(self: Arc<Self>) {
        let mut append = Append::of(self, 0);
        std::future::poll_fn(move |context| append.poll_settled(context)).await;
    }
}

/// An append under way: a future that gives the entry's position (of a batch: the first).
///
/// The append was submitted when this was made; the future only brings the answer. Dropping it lets
/// go of the answer, not of the append. It may be polled by any executor and moved between threads.
#[must_use = "the outcome of an append is told only to whoever awaits it, or to `flush`"]
pub struct Append {
    ticket: Arc<Ticket>,
    index: u64,
    /// Where this future's waker stands in the ticket.
    slot: Option<usize>,
    timeout: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Append {
    pub(crate) fn of(ticket: Arc<Ticket>, index: u64) -> Self {
        Self { ticket, index, slot: None, timeout: None }
    }

    pub(crate) fn failed(error: Error) -> Self {
        let ticket = Ticket::default();
        ticket.settle(Err(error));
        Self::of(Arc::new(ticket), 0)
    }

    /// The same append, answered with `DEADLINE` when `timeout` passes first: in doubt once it was
    /// sent, definite when it was still waiting for its turn. Needs a tokio runtime.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(Box::pin(tokio::time::sleep(timeout)));
        self
    }

    /// Waits on this thread. Never call it on an executor's thread. `None`: time ran out; the
    /// append goes on, and one may wait again or call [`expire`](Self::expire).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<LogPos>> {
        let until = Instant::now().checked_add(timeout);
        let mut waiters = self.ticket.waiters();
        waiters.threads += 1;
        while !self.ticket.is_settled() {
            let left = match until {
                None => Duration::MAX,
                Some(until) => until.saturating_duration_since(Instant::now()),
            };
            if left.is_zero() {
                break;
            }
            let woken = self.ticket.settled.wait_timeout(waiters, left.min(LONGEST_WAIT));
            waiters = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiters.threads -= 1;
        drop(waiters);
        self.told()
    }

    /// Waits on this thread for as long as it takes. Never call it on an executor's thread.
    ///
    /// # Errors
    /// The append's own.
    pub fn wait(mut self) -> Result<LogPos> {
        loop {
            if let Some(outcome) = self.wait_timeout(Duration::MAX) {
                return outcome;
            }
        }
    }

    /// Gives up waiting: the outcome if it is there, else `DEADLINE`. An append that still waited
    /// for its turn is withdrawn and surely not in the log; any other is in doubt.
    ///
    /// # Errors
    /// The append's own, or `DEADLINE`.
    pub fn expire(&mut self) -> Result<LogPos> {
        self.ticket.withdraw(withdrawn());
        self.told().unwrap_or_else(|| {
            self.ticket.doubted.store(true, Ordering::Relaxed);
            Err(deadline(self.ticket.tell_name()).for_entry(self.index))
        })
    }

    fn told(&self) -> Option<Result<LogPos>> {
        let outcome = self.ticket.outcome.get()?;
        Some(match outcome {
            Ok(first) => Ok(first.plus(self.index)),
            Err(error) => {
                self.ticket.seen.store(true, Ordering::Relaxed);
                Err(error.clone().for_entry(self.index))
            }
        })
    }

    fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.ticket.is_settled() {
            return Poll::Ready(());
        }
        let mut waiters = self.ticket.waiters();
        // The outcome is written before the wakers are taken, so this order misses no wake-up.
        if self.ticket.is_settled() {
            return Poll::Ready(());
        }
        match self.slot.and_then(|slot| waiters.wakers.get_mut(slot)) {
            Some(Some(waker)) => waker.clone_from(context.waker()),
            Some(empty) => *empty = Some(context.waker().clone()),
            None => {
                self.slot = Some(waiters.wakers.len());
                waiters.wakers.push(Some(context.waker().clone()));
            }
        }
        Poll::Pending
    }
}

/// `Condvar` adds its timeout to the clock, so a wait "for ever" is cut into pieces of a day.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

fn withdrawn() -> Error {
    let message = "time ran out before the append had its turn: it is surely not in the log";
    Error::new(ErrorCode::Deadline, message)
}

/// Time ran out on an append that was taken: nobody knows yet how it ends.
pub(crate) fn deadline(token: Option<Token>) -> Error {
    let error = Error::new(
        ErrorCode::Deadline,
        "time ran out before the append was answered: it may be in the log; \
         resolve the error's token before appending it again",
    );
    match token {
        None => error.in_doubt(),
        Some(token) => error.in_doubt().with_token(token),
    }
}

impl Future for Append {
    type Output = Result<LogPos>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.poll_settled(context).is_ready() {
            // A task that awaits nothing but settled ones, refused with `BUSY` say, lets others run.
            std::task::ready!(tokio::task::coop::poll_proceed(context)).made_progress();
            return Poll::Ready(self.told().expect("it is settled"));
        }
        if let Some(sleep) = &mut self.timeout
            && sleep.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(self.expire());
        }
        Poll::Pending
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.filter(|_| !self.ticket.is_settled())
            && let Some(waker) = self.ticket.waiters().wakers.get_mut(slot)
        {
            *waker = None;
        }
    }
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append").field("outcome", &self.ticket.outcome.get()).finish()
    }
}
