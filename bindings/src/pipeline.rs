//! `append_all`: many entries one after the other, pipelined, with back-pressure.
//!
//! The host pushes entries as it comes by them, so that its iterator runs on its own thread, and
//! waits for [`room`](Pipeline::room) when the pipeline says that it is full. Each entry is
//! submitted at once: an entry never waits here for the next one to fill up a batch.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use virtuallog::{Append, Appended, LogPos, VirtualLog};

use crate::error::{Result, panic_guard};
use crate::op::Op;
use crate::per_process::PerProcess;
use crate::runtime;

/// Full beyond so many entries, or so many bytes, without an answer.
const ENTRIES_MAX: usize = 8192;
const BYTES_MAX: usize = 16 << 20;

/// One `append_all` under way.
#[derive(Debug)]
pub struct Pipeline {
    core: PerProcess<(VirtualLog, Arc<Mutex<State>>)>,
    timeout: Option<Duration>,
}

#[derive(Debug, Default)]
struct State {
    /// Not answered yet, oldest first, with their sizes.
    waiting: VecDeque<(Append, usize)>,
    waiting_bytes: usize,
    appended: Option<Appended>,
}

impl Pipeline {
    /// `timeout` bounds each wait for answers.
    pub(crate) fn new(log: VirtualLog, timeout: Option<Duration>) -> Self {
        Self { core: PerProcess::new((log, Arc::default())), timeout }
    }

    /// Submits an entry. True: the pipeline is full, wait for [`room`](Self::room).
    ///
    /// # Errors
    /// `CLOSED` in a child of `fork`. What becomes of the entry, `room` and `finish` tell.
    pub fn push(&self, payload: Bytes) -> Result<bool> {
        let (log, state) = self.core.get()?;
        panic_guard(|| {
            let _entered = runtime::enter()?;
            let bytes = payload.len();
            let append = log.append(payload);
            let mut state = lock(state);
            state.waiting.push_back((append, bytes));
            state.waiting_bytes += bytes;
            Ok(state.waiting.len() >= ENTRIES_MAX || state.waiting_bytes >= BYTES_MAX)
        })
    }

    /// Waits until the pipeline is at most half full. The error is the first failed append's.
    pub fn room(&self) -> Op<()> {
        self.settle(ENTRIES_MAX / 2, BYTES_MAX / 2).map(|_| ())
    }

    /// Waits for every answer. `None`: nothing was pushed. The error is the first failed append's.
    pub fn finish(&self) -> Op<Option<Appended>> {
        self.settle(0, 0)
    }

    fn settle(&self, entries: usize, bytes: usize) -> Op<Option<Appended>> {
        let state = match self.core.get() {
            Ok((_, state)) => state.clone(),
            Err(error) => return Op::ready(Err(error)),
        };
        let timeout = self.timeout;
        Op::here(async move {
            let settled = poll_fn(|context| lock(&state).poll_settled(entries, bytes, context));
            let Some(timeout) = timeout else { return settled.await };
            match tokio::time::timeout(timeout, settled).await {
                Ok(outcome) => outcome,
                Err(_) => lock(&state).expire(),
            }
        })
    }
}

impl State {
    fn poll_settled(
        &mut self,
        entries: usize,
        bytes: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Appended>>> {
        while self.waiting.len() > entries || self.waiting_bytes > bytes {
            let Some((append, _)) = self.waiting.front_mut() else { break };
            let outcome = ready!(Pin::new(append).poll(context));
            self.take_oldest(outcome?);
        }
        Poll::Ready(Ok(self.appended))
    }

    /// Gives up on the oldest append that has no answer yet: its error says what is known.
    fn expire(&mut self) -> Result<Option<Appended>> {
        while let Some((append, _)) = self.waiting.front_mut() {
            let outcome = append.expire();
            self.take_oldest(outcome?);
        }
        Ok(self.appended)
    }

    fn take_oldest(&mut self, position: LogPos) {
        let bytes = self.waiting.pop_front().map_or(0, |(_, bytes)| bytes);
        self.waiting_bytes -= bytes;
        self.count(position);
    }

    fn count(&mut self, position: LogPos) {
        let appended =
            self.appended.get_or_insert(Appended { first: position, last: position, count: 0 });
        appended.last = position;
        appended.count += 1;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
