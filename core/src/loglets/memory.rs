//! A loglet in this process's memory, gone with it: for `memory:` logs and tests.
//!
//! One mutex around one queue is the whole engine. An append is admitted, stored and answered inside
//! the call, on the caller's thread and with no lock held while it is answered, so it costs what a
//! lock and a push cost: it is the floor that benchmarks measure everything else against.
//! What it does not do: survive anything.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use virtuallog_protocol::{
    Batch, LogId, LogletConfig, LogletId, LogletPos, StampedBatch, Tail, WriterId,
};

use crate::error::{Error, ErrorCode};
use crate::loglet::{Ack, Loglet, LogletError, LogletProvider};

/// The kind of the loglets of [`MemoryProvider::new`].
pub const KIND: &str = "memory";

/// A loglet in memory.
pub struct MemoryLoglet {
    id: LogletId,
    state: Mutex<State>,
    /// Told after every change that a [`Loglet::wait_tail`] may wait for.
    changed: Notify,
}

/// # Invariants
/// 1. Batches are in ascending order, do not overlap, and end at or before `end`.
/// 2. `first_kept` never goes back and never passes the tail; every batch ends after it.
#[derive(Debug)]
struct State {
    /// How many positions one batch takes at least: 1, but for the gappy loglet of the test suites.
    slot: u64,
    /// Where the loglet starts.
    base: LogletPos,
    /// The position after the last batch.
    end: LogletPos,
    /// The first position that was not trimmed.
    first_kept: LogletPos,
    /// Nothing is taken any more.
    sealed: bool,
    /// It was retired while somebody still held it.
    gone: bool,
    /// Something was appended, so nothing can be filled in any more.
    appended: bool,
    /// What is kept.
    batches: VecDeque<(LogletPos, Batch)>,
    /// Each writer's next sequence number.
    writers: HashMap<WriterId, u64>,
}

impl MemoryLoglet {
    fn new(id: LogletId, base: LogletPos, slot: u64) -> Self {
        let state = State {
            slot,
            base,
            end: base,
            first_kept: base,
            sealed: false,
            gone: false,
            appended: false,
            batches: VecDeque::new(),
            writers: HashMap::new(),
        };
        Self { id, state: Mutex::new(state), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// The state, unless the loglet was retired.
    fn live(&self) -> Result<MutexGuard<'_, State>, LogletError> {
        let state = self.lock();
        if state.gone { Err(LogletError::Unknown(self.id)) } else { Ok(state) }
    }

    fn admit(&self, batch: Batch) -> Result<LogletPos, LogletError> {
        let mut state = self.live()?;
        if state.sealed {
            return Err(LogletError::Sealed);
        }
        let header = *batch.header();
        let next_seq = header.first_seq + batch.count();
        // A writer that is new here may start anywhere: its earlier entries are in other segments.
        let expected = state.writers.entry(header.writer).or_insert(header.first_seq);
        if *expected != header.first_seq {
            return Err(LogletError::OutOfOrder { expected: *expected });
        }
        *expected = next_seq;
        let first = state.tail();
        state.end = first.plus(batch.count());
        state.batches.push_back((first, batch));
        state.appended = true;
        Ok(first)
    }

    fn retire(&self) {
        let mut state = self.lock();
        state.gone = true;
        state.batches = VecDeque::new();
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    /// The end, rounded up to where the next batch goes.
    fn tail(&self) -> LogletPos {
        match self.slot {
            1 => self.end,
            slot => self.base.plus((self.end.0 - self.base.0).next_multiple_of(slot)),
        }
    }

    /// Index of the first batch that ends after `position`.
    fn find(&self, position: LogletPos) -> usize {
        self.batches.partition_point(|(first, batch)| first.plus(batch.count()) <= position)
    }
}

#[async_trait]
impl Loglet for MemoryLoglet {
    fn append(&self, batch: Batch, ack: Ack) {
        let outcome = self.admit(batch);
        if outcome.is_ok() {
            self.changed.notify_waiters();
        }
        ack.complete(outcome);
    }

    async fn check_tail(&self) -> Result<Tail<LogletPos>, LogletError> {
        let state = self.live()?;
        Ok(Tail { position: state.tail(), sealed: state.sealed })
    }

    async fn wait_tail(&self, known: LogletPos) -> Result<Tail<LogletPos>, LogletError> {
        loop {
            // Enlisted before the look, so that a change after the look is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let tail = self.check_tail().await?;
            if tail.sealed || tail.position > known {
                return Ok(tail);
            }
            changed.await;
        }
    }

    async fn read(
        &self,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, LogletError> {
        let state = self.live()?;
        if from < state.first_kept {
            return Err(LogletError::Trimmed { first_kept: state.first_kept });
        }
        let mut bytes = 0;
        let mut found = Vec::new();
        for (first, batch) in state.batches.range(state.find(from)..) {
            if *first >= to || from >= to || bytes >= bytes_max.max(1) {
                break;
            }
            let stamped = StampedBatch { loglet: self.id, first: *first, batch: batch.clone() };
            bytes += stamped.encoded_len();
            found.push(stamped);
        }
        Ok(found)
    }

    async fn prefix_trim(&self, keep_from: LogletPos) -> Result<LogletPos, LogletError> {
        let mut state = self.live()?;
        state.first_kept = state.first_kept.max(keep_from.min(state.tail()));
        let gone = state.find(state.first_kept);
        state.batches.drain(..gone);
        Ok(state.first_kept)
    }

    async fn trim_point(&self) -> Result<LogletPos, LogletError> {
        Ok(self.live()?.first_kept)
    }

    async fn seal(&self) -> Result<(), LogletError> {
        self.live()?.sealed = true;
        self.changed.notify_waiters();
        Ok(())
    }

    async fn fill(&self, first: LogletPos, batch: Batch) -> Result<(), LogletError> {
        let mut state = self.live()?;
        if state.sealed {
            return Err(LogletError::Sealed);
        }
        if state.appended || first < state.end {
            return Err(LogletError::Refused(Error::invalid(format!(
                "cannot fill in a batch at {first}: batches come in ascending order and before any \
                 append, and this loglet ends at {}",
                state.end
            ))));
        }
        state.end = first.plus(batch.count());
        state.batches.push_back((first, batch));
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }
}

impl fmt::Debug for MemoryLoglet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryLoglet({})", self.id)
    }
}

/// Makes loglets in memory and keeps them until they are retired.
pub struct MemoryProvider {
    kind: &'static str,
    slot: u64,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    loglets: BTreeMap<LogletId, (LogletConfig, LogletPos, Arc<MemoryLoglet>)>,
    /// For each log the lowest segment index that can still be created.
    bounds: HashMap<LogId, u32>,
}

impl MemoryProvider {
    /// A provider without any loglets, of the kind `memory`.
    #[must_use]
    pub fn new() -> Self {
        Self::with_slot(KIND, 1)
    }

    /// A provider of loglets that put each batch at a multiple of `slot` positions.
    pub(crate) fn with_slot(kind: &'static str, slot: u64) -> Self {
        Self { kind, slot, shelf: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().expect("no panic under this lock")
    }
}

impl Default for MemoryProvider {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl LogletProvider for MemoryProvider {
    fn kind(&self) -> &str {
        self.kind
    }

    fn plan(&self, args: &str) -> Result<LogletConfig, Error> {
        if !args.is_empty() {
            let kind = self.kind;
            return Err(Error::invalid(format!(
                "`{kind}:{args}`: the loglet `{kind}` takes nothing after its name, write `{kind}`"
            )));
        }
        Ok(LogletConfig { kind: self.kind.into(), params: Bytes::new(), name: self.kind.into() })
    }

    async fn create(
        &self,
        id: LogletId,
        config: &LogletConfig,
        base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let mut shelf = self.lock();
        if let Some((made_with, made_at, loglet)) = shelf.loglets.get(&id) {
            if made_with == config && *made_at == base {
                return Ok(loglet.clone());
            }
            return Err(LogletError::Refused(Error::new(
                ErrorCode::Conflict,
                format!("loglet {id} was made before with base {made_at} and other parameters"),
            )));
        }
        let bound = shelf.bounds.get(&id.log).copied().unwrap_or(0);
        if id.segment < bound {
            return Err(LogletError::Refused(Error::new(
                ErrorCode::NotFound,
                format!("loglet {id} was retired: the lowest that can be created is {bound}"),
            )));
        }
        let loglet = Arc::new(MemoryLoglet::new(id, base, self.slot));
        shelf.loglets.insert(id, (config.clone(), base, loglet.clone()));
        Ok(loglet)
    }

    async fn open(
        &self,
        id: LogletId,
        _config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        match self.lock().loglets.get(&id) {
            Some((_, _, loglet)) => Ok(loglet.clone()),
            None => Err(LogletError::Unknown(id)),
        }
    }

    async fn retire(&self, log: LogId, live: &[u32], bound: u32) -> Result<(), LogletError> {
        let mut shelf = self.lock();
        let known = shelf.bounds.entry(log).or_insert(0);
        *known = bound.max(*known);
        let ids = LogletId { log, segment: 0 }..LogletId { log, segment: bound };
        let over = shelf.loglets.range(ids).map(|(id, _)| *id);
        let over: Vec<LogletId> = over.filter(|id| !live.contains(&id.segment)).collect();
        for id in over {
            if let Some((_, _, loglet)) = shelf.loglets.remove(&id) {
                loglet.retire();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryProvider({})", self.kind)
    }
}
