//! One operation under way, whoever waits for it.
//!
//! An [`Op`] is a future that needs no executor of its own: an event loop polls it through the
//! [`CompletionQueue`](crate::CompletionQueue), a host's executor polls it directly, and a thread
//! waits on it with a timeout, again and again if it likes. Work that must not run on a host's
//! thread was spawned on our runtime before; then the `Op` only brings the answer.
//!
//! A deadline costs nothing while answers come: an `Op` that has one only says when it wants to be polled
//! again, and whoever waits for it sees to that. For thousands of appends under way that is one timer.
//!
//! Dropping or cancelling an `Op` stops such work, but never an append: that was submitted at the
//! call, and only its answer is let go of. A panic inside is `INTERNAL`.
//!
//! Appends are what there are thousands of. So the answer to one is held as it is and not in a box, and
//! neither polling nor converting it costs more than one small allocation.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Sleep;
use virtuallog::Append;

use crate::error::{Error, Result, panic_guard, panicked};
use crate::per_process::PerProcess;
use crate::runtime;

type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// An operation's answer to come. Give it up after it answered: it answers once.
#[must_use = "an operation tells its outcome only to whoever waits for it"]
pub struct Op<T> {
    source: PerProcess<Source<T>>,
    takes: bool,
    /// Polled from then on it has an answer; nothing wakes anybody for that.
    deadline: Option<Instant>,
    /// The timer for it, where this is awaited as a future.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// Where an answer comes from.
enum Source<T> {
    /// Polled inside our runtime: what it waits for may ask for it.
    Future(BoxFuture<T>),
    /// An append, and what its outcome is turned into, once. Needs no runtime around it.
    Append(Append, Option<Convert<T>>),
}

type Convert<T> = Box<dyn FnOnce(Result<u64>) -> Result<T> + Send>;

impl Op<u64> {
    /// The answer to an append, `DEADLINE` if it is polled without one when `deadline` is over.
    pub(crate) fn append(append: Append, deadline: Option<Instant>) -> Self {
        // It holds nothing, so the box is no allocation.
        let source = Source::Append(append, Some(Box::new(|outcome| outcome)));
        Self { source: PerProcess::new(source), takes: false, deadline, alarm: None }
    }
}

impl<T: Send + 'static> Op<T> {
    /// Polled wherever the caller polls: for futures that never block and only bring an answer.
    pub(crate) fn here(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        let source = PerProcess::new(Source::Future(Box::pin(future)));
        Self { source, takes: false, deadline: None, alarm: None }
    }

    /// As [`here`](Self::here), of an answer that is taken out of somewhere, such as entries of a
    /// reader: once polled out it is lost unless it is given on, so nobody polls before he can.
    pub(crate) fn taking(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self { takes: true, ..Self::here(future) }
    }

    pub(crate) fn takes(&self) -> bool {
        self.takes
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Runs on our runtime from now on, also while nobody polls; stopped when this is dropped.
    pub(crate) fn spawn(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        match runtime::runtime() {
            Err(error) => Self::ready(Err(error)),
            Ok(runtime) => Self::here(Spawned::new(runtime.spawn(future))),
        }
    }

    /// The same operation, which has an answer if it is polled when `deadline` is over.
    #[cfg(test)]
    pub(crate) fn due(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// An answer that is known already.
    pub(crate) fn ready(outcome: Result<T>) -> Self {
        Self::here(std::future::ready(outcome))
    }

    /// One that a skin refuses: its error comes the way that every other does.
    pub fn failed(error: Error) -> Self {
        Self::ready(Err(error))
    }

    /// The same operation with its answer converted.
    pub fn map<U: Send + 'static>(self, convert: impl FnOnce(T) -> U + Send + 'static) -> Op<U> {
        self.then(|outcome| outcome.map(convert))
    }

    /// The same operation with its outcome, good or bad, turned into a value.
    pub fn settle<U: Send + 'static>(
        self,
        convert: impl FnOnce(Result<T>) -> U + Send + 'static,
    ) -> Op<U> {
        self.then(|outcome| Ok(convert(outcome)))
    }

    fn then<U: Send + 'static>(
        self,
        convert: impl FnOnce(Result<T>) -> Result<U> + Send + 'static,
    ) -> Op<U> {
        let (takes, deadline) = (self.takes, self.deadline);
        let source = match self.source.into_inner() {
            Err(error) => return Op::ready(convert(Err(error))),
            Ok(Source::Future(future)) => {
                let future = AssertUnwindSafe(future).catch_unwind();
                let caught = |caught: thread::Result<Result<T>>| {
                    caught.unwrap_or_else(|panic| Err(panicked(&*panic)))
                };
                Source::Future(Box::pin(async move { convert(caught(future.await)) }))
            }
            Ok(Source::Append(append, before)) => {
                let before = before.expect("it was not answered yet");
                let convert = move |outcome| convert(panic_guard(|| before(outcome)));
                Source::Append(append, Some(Box::new(convert)))
            }
        };
        Op { source: PerProcess::new(source), takes, deadline, alarm: None }
    }

    /// Waits on this thread. `None`: time ran out, the operation goes on, and one may wait again.
    ///
    /// For threads of the host only: on a thread of an executor it would block other tasks.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<T>> {
        let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
        let waker = Waker::from(unpark.clone());
        let until = Instant::now().checked_add(timeout);
        let mut deadline = self.deadline;
        loop {
            if let Poll::Ready(outcome) = self.poll_once(&mut Context::from_waker(&waker)) {
                return Some(outcome);
            }
            while !unpark.woken.swap(false, Ordering::AcqRel) {
                let left = |until: Instant| until.saturating_duration_since(Instant::now());
                if deadline.is_some_and(|deadline| left(deadline).is_zero()) {
                    // Once: it answers now.
                    deadline = None;
                    break;
                }
                match (until.map(left), deadline.map(left)) {
                    (Some(Duration::ZERO), _) => return None,
                    (None, None) => thread::park(),
                    (Some(one), Some(other)) => thread::park_timeout(one.min(other)),
                    (Some(left), None) | (None, Some(left)) => thread::park_timeout(left),
                }
            }
        }
    }

    /// Waits on this thread for as long as it takes.
    ///
    /// # Errors
    /// The operation's own.
    pub fn wait(mut self) -> Result<T> {
        loop {
            if let Some(outcome) = self.wait_timeout(Duration::MAX) {
                return outcome;
            }
        }
    }

    /// Polls without a timer: the caller polls again at the deadline.
    pub(crate) fn poll_once(&mut self, context: &mut Context<'_>) -> Poll<Result<T>> {
        let deadline = self.deadline;
        let guarded = || -> Result<Poll<Result<T>>> {
            match self.source.get_mut()? {
                Source::Future(future) => {
                    let _entered = runtime::enter()?;
                    Ok(future.as_mut().poll(context))
                }
                Source::Append(append, convert) => {
                    let outcome = match Pin::new(&mut *append).poll(context) {
                        Poll::Ready(outcome) => outcome,
                        Poll::Pending if deadline.is_some_and(|at| at <= Instant::now()) => {
                            append.expire()
                        }
                        Poll::Pending => return Ok(Poll::Pending),
                    };
                    let convert = convert.take().expect("it is polled until it answers");
                    Ok(Poll::Ready(convert(outcome.map(u64::from).map_err(Error::from))))
                }
            }
        };
        match catch_unwind(AssertUnwindSafe(guarded)) {
            Ok(Ok(poll)) => poll,
            Ok(Err(error)) => Poll::Ready(Err(error)),
            Err(panic) => Poll::Ready(Err(panicked(&*panic))),
        }
    }
}

impl<T: Send + 'static> Future for Op<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let polled = self.poll_once(context);
        let Some(deadline) = self.deadline.filter(|_| polled.is_pending()) else { return polled };
        let _entered = match runtime::enter() {
            Ok(entered) => entered,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let sleep = || Box::pin(tokio::time::sleep_until(deadline.into()));
        match self.alarm.get_or_insert_with(sleep).as_mut().poll(context) {
            Poll::Ready(()) => self.poll_once(context),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for Op<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Op")
    }
}

/// Wakes a thread that waits.
struct Unpark {
    thread: Thread,
    /// Tells a wake-up from the ones that `park` makes up.
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// A task on our runtime that ends when nobody wants its answer any more.
struct Spawned<T> {
    task: JoinHandle<Result<T>>,
    abort: AbortHandle,
}

impl<T> Spawned<T> {
    fn new(task: JoinHandle<Result<T>>) -> Self {
        Self { abort: task.abort_handle(), task }
    }
}

impl<T> Future for Spawned<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.task).poll(context).map(|joined| match joined {
            Ok(outcome) => outcome,
            Err(error) => Err(error
                .try_into_panic()
                .map_or_else(|_| Error::closed("operation"), |panic| panicked(&*panic))),
        })
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use virtuallog::ErrorCode;

    use super::*;

    #[test]
    fn a_wait_that_ends_early_may_be_repeated() {
        let (send, receive) = oneshot::channel();
        let mut op = Op::spawn(async { Ok(receive.await.expect("it is sent")) });
        assert!(op.wait_timeout(Duration::ZERO).is_none());
        send.send(7).expect("the operation waits");
        assert_eq!(op.wait(), Ok(7));
    }

    #[test]
    fn a_panic_is_internal_here_and_on_the_runtime() {
        for op in
            [Op::<()>::here(async { panic!("here") }), Op::<()>::spawn(async { panic!("there") })]
        {
            assert_eq!(op.wait().expect_err("it panicked").code, ErrorCode::Internal);
        }
    }

    #[test]
    fn dropping_stops_the_task() {
        struct Telltale(Option<oneshot::Sender<()>>);
        impl Drop for Telltale {
            fn drop(&mut self) {
                let _ = self.0.take().expect("dropped once").send(());
            }
        }
        let (send, receive) = oneshot::channel();
        let telltale = Telltale(Some(send));
        let op = Op::<()>::spawn(async move {
            let _held = telltale;
            std::future::pending().await
        });
        drop(op);
        Op::here(async { Ok(receive.await) }).wait().expect("it answers").expect("it was dropped");
    }
}
