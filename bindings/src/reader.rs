//! Reading in batches, losing nothing when a wait is given up.
//!
//! The core's reader works on our runtime: a fetch is a task that takes the reader along and brings
//! it back with a batch. A fetch belongs to the [`Reader`] and not to the [`Op`] that waits for it.
//! So a wait that times out, is cancelled or is interrupted loses no entry: the next call takes up
//! the same fetch. While the host is busy with one batch, the next is fetched.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::ops::{Deref, Range};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::task::JoinHandle;
use virtuallog::Entry;

use crate::error::{Error, Result, panicked};
use crate::op::Op;
use crate::per_process::PerProcess;
use crate::runtime;

/// Most entries that are fetched at a time, unless more are asked for: each fetch is a turn of our runtime,
/// and what it brings is bounded by the core's stretches of about 1 MiB anyway.
const FETCH_ENTRIES: usize = 8192;

/// Entries that follow each other in the log. Empty: the bounded read is at its end, or the log
/// that was followed was ended for good.
///
/// A part of what was fetched at once, which it shares with the other parts and keeps in memory: some
/// megabytes at most. Cloning and slicing copy no entry.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    fetched: Arc<Vec<Entry>>,
    part: Range<usize>,
}

impl Batch {
    /// The entries with these indexes. Panics beyond the end, as slices do.
    #[must_use]
    pub fn slice(&self, part: Range<usize>) -> Batch {
        assert!(part.start <= part.end && part.end <= self.len(), "{part:?} of {}", self.len());
        let part = self.part.start + part.start..self.part.start + part.end;
        Batch { fetched: self.fetched.clone(), part }
    }

    /// Takes entries off the front: all, if they are no more than `max`.
    fn split_front(&mut self, max: usize) -> Batch {
        let count = max.min(self.len());
        let front = self.slice(0..count);
        self.part.start += count;
        front
    }
}

impl Deref for Batch {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        &self.fetched[self.part.clone()]
    }
}

impl From<Vec<Entry>> for Batch {
    fn from(entries: Vec<Entry>) -> Self {
        Self { part: 0..entries.len(), fetched: Arc::new(entries) }
    }
}

/// Reads a range of a log, or follows the log, batch by batch.
pub struct Reader(PerProcess<Arc<Mutex<State>>>);

struct State {
    source: Source,
    /// Fetched beyond what the last call wanted.
    left: Batch,
    /// The next position to deliver.
    position: u64,
    /// Where the core's reader stands once `left` is delivered.
    fetched: u64,
    /// Whether a call waits at the moment.
    busy: bool,
    /// Who that is, for `close` to wake.
    waiter: Option<Waker>,
}

enum Source {
    Idle(virtuallog::Reader),
    Fetching(JoinHandle<(virtuallog::Reader, virtuallog::Result<Vec<Entry>>)>),
    /// It has told its end.
    Ended,
    Closed,
}

impl Reader {
    pub(crate) fn new(core: virtuallog::Reader) -> Self {
        let position = core.position().0;
        Self(PerProcess::new(Arc::new(Mutex::new(State {
            source: Source::Idle(core),
            left: Batch::default(),
            position,
            fetched: position,
            busy: false,
            waiter: None,
        }))))
    }

    /// The next position to deliver: what to save in order to resume.
    ///
    /// # Errors
    /// `CLOSED` in a child of `fork`.
    pub fn position(&self) -> Result<u64> {
        Ok(lock(self.0.get()?).position)
    }

    /// The next entries: at most `entries_max`, waiting for the first. An empty batch is the end.
    ///
    /// One call at a time; a second one beside it is `INVALID`. A timeout (`DEADLINE`) or a dropped
    /// `Op` loses nothing.
    pub fn next_batch(&self, entries_max: usize, timeout: Option<Duration>) -> Op<Batch> {
        let state = match self.0.get() {
            Ok(state) => state.clone(),
            Err(error) => return Op::ready(Err(error)),
        };
        if entries_max == 0 {
            return Op::ready(Err(Error::invalid("a batch has at least one entry: ask for 1")));
        }
        if mem::replace(&mut lock(&state).busy, true) {
            let message = "another call waits on this reader: give each thread or task its own";
            return Op::ready(Err(Error::invalid(message)));
        }
        let turn = Turn(state);
        Op::taking(async move {
            let batch = poll_fn(|context| lock(&turn.0).poll_batch(entries_max, context));
            match timeout {
                None => batch.await,
                Some(timeout) => tokio::time::timeout(timeout, batch)
                    .await
                    .unwrap_or_else(|_| Err(Error::deadline("next_batch"))),
            }
        })
    }

    /// Ends it: a call that waits says `CLOSED`, and so do later ones. Idempotent.
    pub fn close(&self) {
        if let Ok(state) = self.0.get() {
            let mut state = lock(state);
            state.left = Batch::default();
            if let Source::Fetching(fetch) = mem::replace(&mut state.source, Source::Closed) {
                fetch.abort();
            }
            let waiter = state.waiter.take();
            drop(state);
            waiter.into_iter().for_each(Waker::wake);
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn poll_batch(&mut self, entries_max: usize, context: &mut Context<'_>) -> Poll<Result<Batch>> {
        self.waiter = Some(context.waker().clone());
        if self.left.is_empty() {
            self.left = ready!(self.poll_fetch(entries_max, context))?.into();
        }
        let batch = self.left.split_front(entries_max);
        if self.left.is_empty() {
            // What was fetched is let go of with its last part.
            self.left = Batch::default();
        }
        Poll::Ready(Ok(self.deliver(batch)))
    }

    fn poll_fetch(
        &mut self,
        entries_max: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Vec<Entry>>> {
        self.start_fetch(entries_max)?;
        let fetch = match &mut self.source {
            Source::Fetching(fetch) => fetch,
            Source::Ended => return Poll::Ready(Ok(Vec::new())),
            Source::Idle(_) | Source::Closed => return Poll::Ready(Err(Error::closed("reader"))),
        };
        let (core, outcome) = match ready!(Pin::new(fetch).poll(context)) {
            Ok(brought) => brought,
            Err(error) => {
                self.source = Source::Closed;
                return Poll::Ready(Err(error
                    .try_into_panic()
                    .map_or_else(|_| Error::closed("reader"), |panic| panicked(&*panic))));
            }
        };
        self.fetched = core.position().0;
        self.source = Source::Idle(core);
        let batch = outcome?;
        if batch.is_empty() {
            self.source = Source::Ended;
        } else {
            self.start_fetch(entries_max)?;
        }
        Poll::Ready(Ok(batch))
    }

    /// Sends the core's reader off for the next batch, if it is at home.
    fn start_fetch(&mut self, entries_max: usize) -> Result<()> {
        let runtime = runtime::runtime()?;
        self.source = match mem::replace(&mut self.source, Source::Closed) {
            Source::Idle(mut core) => Source::Fetching(runtime.spawn(async move {
                let batch = core.next_batch(entries_max.max(FETCH_ENTRIES)).await;
                (core, batch)
            })),
            other => other,
        };
        Ok(())
    }

    fn deliver(&mut self, batch: Batch) -> Batch {
        self.position = match (self.left.is_empty(), batch.last()) {
            // Positions may skip: the core knows how far it has looked.
            (true, _) => self.fetched,
            (false, Some(last)) => last.position.0 + 1,
            (false, None) => self.position,
        };
        batch
    }
}

/// A call's turn at the reader.
struct Turn(Arc<Mutex<State>>);

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.0).busy = false;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
