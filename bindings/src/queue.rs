//! Many operations, told to a host's event loop in batches.
//!
//! The queue is a small executor of its own. [`submit`](CompletionQueue::submit) polls an operation
//! once (but one whose answer a cancel would lose), on the host's thread; what is not ready stays here in
//! a slot, with a waker that does nothing but note the slot. Only the edge from none to some noted slots
//! wakes the host, through its [`HostWaker`]: one byte on a socket, one call into a loop. The host then
//! comes with [`drain`](CompletionQueue::drain), which polls the noted operations on the host's own
//! thread. So an append needs no task of ours, and no thread of ours ever runs host code or takes its lock.
//!
//! Deadlines cost one timer a queue: it looks through what is under way when the first of them is over.
//!
//! Slots and their wakers are used again, so that an operation costs neither an allocation nor a look-up
//! here; a waker that is late only has somebody else's operation polled once more. Tags, by which hosts
//! know operations, are a slot and how often it was used, and never the same again: a late answer can
//! never settle another operation.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use tokio::sync::Notify;
use virtuallog::ErrorCode;

use crate::error::{Error, Result};
use crate::op::Op;
use crate::per_process::PerProcess;
use crate::runtime;

/// Bits of a tag, from the lowest: the slot, and how often that was used. Together they are a whole number
/// of JavaScript.
const SLOT_BITS: u32 = 28;
const USE_BITS: u32 = 25;
const SLOTS_MAX: usize = 1 << SLOT_BITS;
const USES_MAX: u64 = 1 << USE_BITS;

/// Gets the host to call [`CompletionQueue::drain`] soon. Called on any thread, so it must neither
/// block nor run host code.
pub trait HostWaker: Send + Sync {
    /// Wakes the host.
    fn wake(&self);
}

/// Wakes a host that watches the other end of a socket: there is a byte in it while there may be something
/// to drain. The host reads the bytes off before it drains.
#[derive(Clone, Debug)]
pub struct SocketWaker(Arc<UnixStream>);

impl SocketWaker {
    /// A waker, and the host's end. Both ends never block.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the process has no descriptors left.
    pub fn pair() -> Result<(Self, UnixStream)> {
        let pair = || {
            let (waker, host) = UnixStream::pair()?;
            waker.set_nonblocking(true)?;
            host.set_nonblocking(true)?;
            Ok((waker, host))
        };
        let (waker, host) = pair().map_err(|error: std::io::Error| {
            Error::new(ErrorCode::Unavailable, format!("cannot make a pair of sockets: {error}"))
        })?;
        Ok((Self(Arc::new(waker)), host))
    }
}

impl HostWaker for SocketWaker {
    fn wake(&self) {
        // A full socket has woken the host already; a closed one has none to wake, and must not be a
        // signal, which would end a host that does not ignore it.
        #[cfg(target_vendor = "apple")]
        let _ = std::io::Write::write(&mut &*self.0, &[0]);
        #[cfg(not(target_vendor = "apple"))]
        let _ = rustix::net::send(&*self.0, &[0], rustix::net::SendFlags::NOSIGNAL);
    }
}

/// What a drain found: each answered tag with its outcome.
#[derive(Debug)]
pub struct Done<V> {
    /// In the order in which they were answered.
    pub outcomes: Vec<(u64, Result<V>)>,
    /// True when more is waiting: drain again soon, there will be no further wake-up for it.
    pub more: bool,
}

/// A host's queue of operations. All methods may be called from any thread.
pub struct CompletionQueue<V>(PerProcess<Arc<Inner<V>>>);

struct Inner<V> {
    /// Held while operations are polled, so that none can be answered while it is between
    /// here and its poller. Never taken by a wake-up.
    pending: Mutex<Pending<V>>,
    ready: Arc<Ready>,
}

struct Pending<V> {
    slots: Vec<Slot<V>>,
    /// Slots without an operation, but for those whose count is used up.
    free: Vec<usize>,
    /// How many slots have one.
    under_way: usize,
    closed: bool,
    /// When deadlines are looked at next; `None`: nobody does.
    looks_at: Option<Instant>,
}

struct Slot<V> {
    op: Option<Op<V>>,
    /// How often it was used before the one that is in it.
    uses: u64,
    waker: Waker,
}

impl<V> Pending<V> {
    /// A slot for an operation.
    fn slot(&mut self, ready: &Arc<Ready>) -> Result<usize> {
        if let Some(at) = self.free.pop() {
            return Ok(at);
        }
        let at = self.slots.len();
        if at == SLOTS_MAX {
            let message = "2^28 operations are under way in this event loop: await some first";
            return Err(Error::new(ErrorCode::Busy, message));
        }
        let waker = Waker::from(Arc::new(SlotWaker { at, ready: ready.clone() }));
        self.slots.push(Slot { op: None, uses: 0, waker });
        Ok(at)
    }

    fn tag(&self, at: usize) -> u64 {
        self.slots[at].uses << SLOT_BITS | at as u64
    }

    /// Takes an operation out of its slot.
    fn take(&mut self, at: usize) -> Option<Op<V>> {
        let slot = &mut self.slots[at];
        let op = slot.op.take()?;
        slot.uses += 1;
        self.under_way -= 1;
        // A slot whose count is used up is given up, rather than begin again with tags of the past.
        if slot.uses < USES_MAX {
            self.free.push(at);
        }
        Some(op)
    }
}

/// The side that wake-ups see.
struct Ready {
    noted: Mutex<Noted>,
    host: Box<dyn HostWaker>,
    /// A deadline came that is earlier than the one that is waited for.
    earlier: Notify,
}

#[derive(Default)]
struct Noted {
    slots: Vec<usize>,
    /// Whether the host was woken and has not yet taken all of `slots`.
    signalled: bool,
    closed: bool,
}

impl<V: Send + 'static> CompletionQueue<V> {
    /// An empty queue that wakes the host by `host`.
    pub fn new(host: impl HostWaker + 'static) -> Self {
        let (noted, earlier) = (Mutex::default(), Notify::new());
        let ready = Arc::new(Ready { noted, host: Box::new(host), earlier });
        let (slots, free) = (Vec::new(), Vec::new());
        let pending = Pending { slots, free, under_way: 0, closed: false, looks_at: None };
        Self(PerProcess::new(Arc::new(Inner { pending: Mutex::new(pending), ready })))
    }

    /// Takes an operation in and gives its tag; [`drain`](Self::drain) will give its outcome.
    ///
    /// # Errors
    /// `CLOSED` after [`close`](Self::close) or in a child of `fork`: the operation is dropped.
    pub fn submit(&self, mut op: Op<V>) -> Result<u64> {
        let inner = self.0.get()?;
        let mut pending = lock(&inner.pending);
        if pending.closed {
            return Err(Error::closed("event loop's queue"));
        }
        let at = pending.slot(&inner.ready)?;
        let tag = pending.tag(at);
        let waker = &pending.slots[at].waker;
        let mut deadline = None;
        if op.takes() {
            // Polled by `drain` alone, which gives its answer out: in between a cancel would lose it.
            waker.wake_by_ref();
        } else {
            match op.poll_once(&mut Context::from_waker(waker)) {
                Poll::Pending => deadline = op.deadline(),
                // Even what is known at once comes through `drain`: the host has one path.
                Poll::Ready(outcome) => {
                    waker.wake_by_ref();
                    op = Op::ready(outcome);
                }
            }
        }
        pending.slots[at].op = Some(op);
        pending.under_way += 1;
        match deadline.map_or(Ok(()), |deadline| inner.look_at(&mut pending, deadline)) {
            Ok(()) => Ok(tag),
            Err(error) => {
                drop(pending.take(at));
                Err(error)
            }
        }
    }

    /// Answers at most `max` of what became ready.
    ///
    /// # Errors
    /// `CLOSED` in a child of `fork`.
    pub fn drain(&self, max: usize) -> Result<Done<V>> {
        let inner = self.0.get()?;
        let mut pending = lock(&inner.pending);
        let (slots, more) = inner.ready.take(max);
        let mut outcomes = Vec::with_capacity(slots.len());
        for at in slots {
            // A slot may be noted twice, after its operation was cancelled, or before a close.
            let Some(Slot { op: Some(op), waker, .. }) = pending.slots.get_mut(at) else {
                continue;
            };
            if let Poll::Ready(outcome) = op.poll_once(&mut Context::from_waker(waker)) {
                outcomes.push((pending.tag(at), outcome));
                drop(pending.take(at));
            }
        }
        Ok(Done { outcomes, more })
    }

    /// Drops an operation whose outcome nobody wants; false when it was given out before. An append
    /// stays submitted.
    pub fn cancel(&self, tag: u64) -> bool {
        let Ok(inner) = self.0.get() else { return false };
        let mut pending = lock(&inner.pending);
        let at = tag as usize & (SLOTS_MAX - 1);
        let is_it = at < pending.slots.len() && pending.tag(at) == tag;
        let removed = if is_it { pending.take(at) } else { None };
        drop(pending);
        // Dropped without the lock.
        removed.is_some()
    }

    /// Drops every operation and wakes the host no more. Idempotent.
    pub fn close(&self) {
        let Ok(inner) = self.0.get() else { return };
        lock(&inner.ready.noted).closed = true;
        let slots = {
            let mut pending = lock(&inner.pending);
            pending.closed = true;
            pending.under_way = 0;
            pending.free.clear();
            std::mem::take(&mut pending.slots)
        };
        drop(slots);
    }

    /// How many operations are not answered yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.get().map_or(0, |inner| lock(&inner.pending).under_way)
    }

    /// Whether every operation was answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V: Send + 'static> Inner<V> {
    /// Sees to it that deadlines are looked at when this one is over.
    fn look_at(self: &Arc<Self>, pending: &mut Pending<V>, deadline: Instant) -> Result<()> {
        match pending.looks_at {
            Some(next) if next <= deadline => return Ok(()),
            Some(_) => self.ready.earlier.notify_one(),
            None => {
                let look = look(Arc::downgrade(self), self.ready.clone(), deadline);
                runtime::runtime()?.spawn(look);
            }
        }
        pending.looks_at = Some(deadline);
        Ok(())
    }

    /// Notes what is late, and gives the next deadline.
    fn late(&self) -> Option<Instant> {
        let mut pending = lock(&self.pending);
        let (now, mut next) = (Instant::now(), None);
        for (at, slot) in pending.slots.iter().enumerate() {
            match slot.op.as_ref().and_then(Op::deadline) {
                Some(deadline) if deadline <= now => self.ready.note(at),
                Some(deadline) => next = Some(next.map_or(deadline, |n: Instant| n.min(deadline))),
                None => {}
            }
        }
        pending.looks_at = next;
        next
    }
}

/// Looks at the deadlines of a queue, as long as there are any. Keeps no queue alive.
async fn look<V: Send + 'static>(queue: Weak<Inner<V>>, ready: Arc<Ready>, first: Instant) {
    let mut next = Some(first);
    while let Some(at) = next {
        let over = tokio::time::timeout_at(at.into(), ready.earlier.notified()).await.is_err();
        let Some(inner) = queue.upgrade() else { return };
        next = if over { inner.late() } else { lock(&inner.pending).looks_at };
    }
}

impl<V> fmt::Debug for CompletionQueue<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompletionQueue")
    }
}

impl Ready {
    fn note(&self, at: usize) {
        let mut noted = lock(&self.noted);
        if noted.closed {
            return;
        }
        noted.slots.push(at);
        if !std::mem::replace(&mut noted.signalled, true) {
            drop(noted);
            self.host.wake();
        }
    }

    fn take(&self, max: usize) -> (Vec<usize>, bool) {
        let mut noted = lock(&self.noted);
        if noted.slots.len() > max {
            let rest = noted.slots.split_off(max);
            return (std::mem::replace(&mut noted.slots, rest), true);
        }
        noted.signalled = false;
        (std::mem::take(&mut noted.slots), false)
    }
}

/// Notes a slot.
struct SlotWaker {
    at: usize,
    ready: Arc<Ready>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.ready.note(self.at);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.note(self.at);
    }
}

/// Operations catch their panics, so a poisoned lock guards nothing that is half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::oneshot;
    use virtuallog::ErrorCode;

    use super::*;

    #[derive(Clone, Default)]
    struct Counter(Arc<AtomicUsize>);

    impl HostWaker for Counter {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Counter {
        fn wakes(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn waiting() -> (oneshot::Sender<u32>, Op<u32>) {
        let (send, receive) = oneshot::channel();
        (send, Op::here(async { receive.await.map_err(|_| Error::closed("test")) }))
    }

    #[test]
    fn many_answers_wake_the_host_once() {
        let counter = Counter::default();
        let queue = CompletionQueue::new(counter.clone());
        let (sends, ops): (Vec<_>, Vec<_>) = (0..10).map(|_| waiting()).unzip();
        let tags: Vec<u64> = ops.into_iter().map(|op| queue.submit(op).expect("open")).collect();
        assert_eq!((counter.wakes(), queue.len()), (0, 10));
        for (number, send) in (0..).zip(sends) {
            send.send(number).expect("it waits");
        }
        assert_eq!(counter.wakes(), 1);
        let first = queue.drain(7).expect("same process");
        assert!(first.more);
        let second = queue.drain(7).expect("same process");
        assert!(!second.more);
        let outcomes = first.outcomes.into_iter().chain(second.outcomes);
        let told: Vec<_> = outcomes.map(|(tag, outcome)| (tag, outcome.expect("sent"))).collect();
        assert_eq!(told, tags.into_iter().zip(0..).collect::<Vec<_>>());
        assert_eq!((counter.wakes(), queue.is_empty()), (1, true));
    }

    #[test]
    fn a_known_answer_and_a_cancelled_operation() {
        let counter = Counter::default();
        let queue = CompletionQueue::new(counter.clone());
        let tag = queue.submit(Op::ready(Ok(1))).expect("open");
        let (send, op) = waiting();
        let cancelled = queue.submit(op).expect("open");
        assert!(queue.cancel(cancelled) && !queue.cancel(cancelled));
        assert!(send.is_closed(), "what is cancelled is dropped");
        let done = queue.drain(8).expect("same process");
        assert_eq!(done.outcomes, [(tag, Ok(1))]);
        assert_eq!(counter.wakes(), 1);
    }

    #[test]
    fn what_is_taken_is_not_lost_by_a_cancel() {
        let left = Arc::new(AtomicUsize::new(1));
        let take = || {
            let left = left.clone();
            Op::taking(async move { Ok(left.fetch_sub(1, Ordering::Relaxed)) })
                .map(|taken| taken * 10)
        };
        let queue = CompletionQueue::new(Counter::default());
        let cancelled = queue.submit(take()).expect("open");
        assert!(queue.cancel(cancelled));
        let tag = queue.submit(take()).expect("open");
        assert_eq!(queue.drain(8).expect("same process").outcomes, [(tag, Ok(10))]);
    }

    #[test]
    fn a_slot_is_used_again_and_a_tag_never() {
        let queue = CompletionQueue::new(Counter::default());
        let inner = queue.0.get().expect("same process");
        let drained = || queue.drain(8).expect("same process").outcomes;
        let first = queue.submit(Op::ready(Ok(1))).expect("open");
        assert_eq!(drained(), [(first, Ok(1))]);
        let (send, op) = waiting();
        let second = queue.submit(op).expect("open");
        assert_eq!(second, first + (1 << SLOT_BITS), "the same slot");
        assert!(!queue.cancel(first) && queue.len() == 1);
        // As a waker of the first one would, that somebody kept.
        inner.ready.note(0);
        assert!(drained().is_empty());
        send.send(2).expect("it waits");
        assert_eq!(drained(), [(second, Ok(2))]);
        lock(&inner.pending).slots[0].uses = USES_MAX - 1;
        let last = queue.submit(Op::ready(Ok(3))).expect("open");
        assert!(last < 1 << 53, "a whole number of JavaScript");
        assert_eq!(drained(), [(last, Ok(3))]);
        assert_eq!(queue.submit(Op::ready(Ok(4))).expect("open"), 1, "that slot is given up");
        assert!(!queue.cancel(u64::MAX));
    }

    struct Bell(std::sync::mpsc::Sender<()>);

    impl HostWaker for Bell {
        fn wake(&self) {
            let _ = self.0.send(());
        }
    }

    /// Pending until its deadline, as an append that gets no answer.
    fn late(after: Duration) -> Op<u32> {
        let deadline = Instant::now() + after;
        let future = std::future::poll_fn(move |_| match Instant::now() >= deadline {
            true => Poll::Ready(Err(Error::deadline("test"))),
            false => Poll::Pending,
        });
        Op::here(future).due(deadline)
    }

    #[test]
    fn deadlines_are_told_in_their_order() {
        let (bell, rings) = std::sync::mpsc::channel();
        let queue = CompletionQueue::new(Bell(bell));
        let last = queue.submit(late(Duration::from_millis(60))).expect("open");
        let never = queue.submit(late(Duration::from_secs(3600)).map(|n| n)).expect("open");
        let first = queue.submit(late(Duration::from_millis(20)).settle(|_| 7)).expect("open");
        let mut told = Vec::new();
        while told.len() < 2 {
            rings.recv().expect("it rings");
            told.extend(queue.drain(8).expect("same process").outcomes);
        }
        assert_eq!(told, [(first, Ok(7)), (last, Err(Error::deadline("test")))]);
        assert!(queue.cancel(never));
        // Waited for by a thread, and as a future.
        assert!(
            late(Duration::ZERO).wait().is_err() && late(Duration::from_millis(9)).wait().is_err()
        );
        let awaited = Op::spawn(late(Duration::from_millis(9)));
        assert!(awaited.wait().is_err());
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_wakes_nobody() {
        let counter = Counter::default();
        let queue = CompletionQueue::new(counter.clone());
        let (send, op) = waiting();
        queue.submit(op).expect("open");
        queue.close();
        queue.close();
        assert!(send.is_closed());
        assert_eq!(queue.submit(Op::ready(Ok(1))).expect_err("closed").code, ErrorCode::Closed);
        assert_eq!(counter.wakes(), 0);
        // What was noted before.
        let queue = CompletionQueue::new(counter);
        queue.submit(Op::ready(Ok(1))).expect("open");
        queue.close();
        assert!(queue.drain(8).expect("same process").outcomes.is_empty() && queue.is_empty());
    }
}
