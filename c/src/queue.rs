//! Where operations that do not wait tell their outcome, for programs with an event loop of their own.
//!
//! Readiness is one descriptor: a socket with a byte in it while there may be something to take. No
//! thread of the library ever runs the program's code, and results are written by the thread that takes
//! them.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use virtuallog_bindings::{CompletionQueue, Error, ErrorCode, HostWaker, Op, Result, SocketWaker};

use crate::call::{Cross, Landing, Out};
use crate::error::{guarded, status, tell};
use crate::given;
use crate::handles::{self, Held};
use crate::types::{VLOG_FOREVER, vlog_completion, vlog_error, vlog_queue, vlog_status};

/// What the program holds as a `vlog_queue`.
pub struct Queue {
    queue: CompletionQueue<Delivery>,
    /// The program's end. The other one is the waker's, and stays open as long as any operation could
    /// use it: so a byte never goes to a descriptor that means something else by then.
    socket: UnixStream,
    /// For what this side has to say to itself.
    waker: SocketWaker,
    closed: AtomicBool,
}

/// An operation that was answered, and was not told yet.
struct Delivery {
    context: u64,
    outcome: Result<Landing>,
}

impl Held for Queue {
    fn name() -> &'static str {
        "queue"
    }

    fn freed(&self) {
        self.close();
    }
}

impl Queue {
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.queue.close();
        // Whoever waits sees the end of the stream, at once and from now on.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    fn new() -> Result<Self> {
        let (waker, socket) = SocketWaker::pair()?;
        let queue = CompletionQueue::new(waker.clone());
        Ok(Self { queue, socket, waker, closed: AtomicBool::new(false) })
    }

    /// Takes an operation in and gives its number.
    ///
    /// # Errors
    /// `CLOSED`.
    pub(crate) fn submit<T: Cross>(&self, op: Op<T>, out: Out<T::C>, context: u64) -> Result<u64> {
        self.queue.submit(op.settle(move |outcome| Delivery {
            context,
            outcome: outcome.map(|value| value.landing(out)),
        }))
    }

    /// Fills `room` from its start with what was answered, and gives how many that was: 0 when the time
    /// is over.
    fn next(&self, room: &mut [vlog_completion], deadline: Deadline) -> Result<usize> {
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::new(ErrorCode::Closed, "this queue is closed: make another"));
            }
            // The bytes first: what is answered from here on writes another.
            let _ = (&self.socket).read(&mut [0; 16]);
            let done = self.queue.drain(room.len())?;
            if done.more {
                self.waker.wake();
            }
            if !done.outcomes.is_empty() {
                let count = done.outcomes.len();
                for (slot, (_, outcome)) in room.iter_mut().zip(done.outcomes) {
                    *slot = completion(outcome);
                }
                return Ok(count);
            }
            if deadline.is_over() {
                return Ok(0);
            }
            wait(&self.socket, deadline)?;
        }
    }
}

/// Until when a thread waits on a descriptor. `None`: for ever.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// In so many milliseconds: 0 is over at once, `VLOG_FOREVER` never is.
    ///
    /// # Errors
    /// `INVALID` for any other negative number.
    pub(crate) fn after(timeout_ms: i64) -> Result<Self> {
        match u64::try_from(timeout_ms) {
            Ok(ms) => Ok(Self(Instant::now().checked_add(Duration::from_millis(ms)))),
            Err(_) if timeout_ms == VLOG_FOREVER => Ok(Self(None)),
            Err(_) => {
                Err(Error::invalid(format!("a timeout of {timeout_ms} ms: write VLOG_FOREVER")))
            }
        }
    }

    fn left(self) -> Option<Duration> {
        self.0.map(|until| until.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn is_over(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

/// Waits until the socket can be read, the deadline is over, or a signal came.
pub(crate) fn wait(socket: &UnixStream, deadline: Deadline) -> Result<()> {
    let left = deadline.left().map(|left| Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => {
            Err(Error::new(ErrorCode::Internal, format!("cannot wait on the queue: {errno}")))
        }
    }
}

fn completion(outcome: Result<Delivery>) -> vlog_completion {
    let (context, landed) = match outcome {
        Ok(Delivery { context, outcome }) => (context, outcome),
        // An operation's own failure is in its delivery: this one has none.
        Err(error) => (0, Err(error)),
    };
    match landed {
        Ok(landing) => {
            let value = match landing {
                Landing::Later(land) => land(),
                Landing::Number(number, out) => {
                    // SAFETY: who submitted the operation keeps what `out` leads to until now.
                    unsafe { out.write(number) };
                    number
                }
            };
            vlog_completion {
                context,
                value,
                status: vlog_status::VLOG_OK,
                error: vlog_error::NONE,
            }
        }
        Err(error) => {
            vlog_completion { context, value: 0, status: status(error.code), error: tell(&error) }
        }
    }
}

/// Makes a queue. `vlog_free` it, which also closes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_queue_new(
    queue: *mut vlog_queue,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if queue.is_null() {
            return Err(given::null("queue"));
        }
        let made = handles::insert(Queue::new()?);
        // SAFETY: it is not null.
        unsafe { queue.write(made) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// The descriptor that can be read while there may be something to take, for `poll`, `epoll` and event
/// loops; -1 for a dead handle. Only to be watched, and taken out of the loop before the queue is freed.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_queue_fd(queue: vlog_queue) -> i32 {
    handles::get::<Queue>(queue).map_or(-1, |queue| queue.socket.as_raw_fd())
}

/// Takes what was answered: at most `max` completions, into `completions`; `*count` says how many. Writes
/// the results of those operations to where their calls said.
///
/// Waits `timeout_ms` for the first one: 0 does not wait, `VLOG_FOREVER` has no deadline. That time ran
/// out is `VLOG_OK` with a count of 0. In an event loop: with 0, whenever the descriptor can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_queue_next(
    queue: vlog_queue,
    completions: *mut vlog_completion,
    max: usize,
    timeout_ms: i64,
    count: *mut usize,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if completions.is_null() || count.is_null() || max == 0 {
            return Err(Error::invalid("give room for one completion at least, and a count"));
        }
        if !completions.is_aligned()
            || isize::try_from(max.saturating_mul(size_of::<vlog_completion>())).is_err()
        {
            return Err(Error::invalid("`completions` leads to `max` completions: give an array"));
        }
        // SAFETY: not null; written before anything else can fail, so that it always says something.
        unsafe { count.write(0) };
        let deadline = Deadline::after(timeout_ms)?;
        let queue = handles::get::<Queue>(queue)?;
        // SAFETY: the caller's word that there is room for `max`. They are plain data: whatever is in
        // there is overwritten and never looked at.
        let room = unsafe { std::slice::from_raw_parts_mut(completions, max) };
        let taken = queue.next(room, deadline)?;
        // SAFETY: not null.
        unsafe { count.write(taken) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// Lets go of an operation, by the number that `vlog_call.id` got. True: nothing is told of it and
/// nothing written; an append stays submitted. False: it was told, or is being told by another thread.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_queue_cancel(queue: vlog_queue, id: u64) -> bool {
    handles::get::<Queue>(queue).is_ok_and(|queue| queue.queue.cancel(id))
}

/// Drops what was not told (an append stays submitted), so that nothing is written any more, and ends a
/// `vlog_queue_next` in another thread with `VLOG_CLOSED`. Again: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_queue_close(queue: vlog_queue) {
    if let Ok(queue) = handles::get::<Queue>(queue) {
        queue.close();
    }
}

/// How many operations were not told yet; 0 for a dead handle.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_queue_len(queue: vlog_queue) -> usize {
    handles::get::<Queue>(queue).map_or(0, |queue| queue.queue.len())
}
