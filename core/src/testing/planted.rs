//! Loglets in memory that break one clause each: they show that the conformance suite notices.
//!
//! [`Plant::Zombies`] is no bug. It does what a replicated loglet may do: an append that comes after
//! the seal is not acknowledged and yet stored, so that sealed tails grow (L3, L6). Some bugs can be
//! seen only beside it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::yield_now;
use virtuallog_protocol::{
    Batch, BatchBuilder, LogId, LogletConfig, LogletId, LogletPos, StampedBatch, Tail, WriterId,
};

use crate::error::Error;
use crate::loglet::{Ack, Loglet, LogletError, LogletProvider};
use crate::loglets::memory::MemoryProvider;

/// What is done otherwise than by the memory loglet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Nothing wrong: appends that meet the seal are stored and not acknowledged.
    Zombies,
    /// One append gets through after the seal.
    SealLetsOneThrough,
    /// The seal bit is sampled first and the tail second, with zombies in between.
    TailAfterSealBit,
    /// The tail is sampled first and the seal bit second, and the older tail is given as sealed.
    TailBeforeSealBit,
    /// Every fifth append is acknowledged and lost, as if it had never been synced.
    AckBeforeStored,
    /// A read goes on past its end.
    ReadPastEnd,
    /// Every fifth append is told the position of the one before.
    PositionsReused,
    /// Batches are taken in whatever order they come.
    Overtaking,
    /// A trim gives up the whole batch that it points into.
    TrimTooMuch,
    /// Opening a loglet that is not there makes an empty one.
    UnknownIsEmpty,
    /// A trim below the trim point takes what was trimmed back.
    TrimGoesBack,
    /// A tail check does not see the last batch.
    StaleTail,
}

impl Plant {
    /// Every bug, with a check of the suite that has to find it.
    pub const BUGS: &[(Plant, &str)] = &[
        (Plant::SealLetsOneThrough, "l2_a_seal_is_final"),
        (Plant::TailAfterSealBit, "l8_l9_racing_clients_and_seals"),
        (Plant::TailBeforeSealBit, "l8_l9_racing_clients_and_seals"),
        (Plant::AckBeforeStored, "l1_acked_batches_stay_where_they_are"),
        (Plant::ReadPastEnd, "l7_reads_answer_the_range"),
        (Plant::PositionsReused, "l1_acked_batches_stay_where_they_are"),
        (Plant::Overtaking, "l10_sequence_order"),
        (Plant::TrimTooMuch, "trims_are_exact"),
        (Plant::UnknownIsEmpty, "an_unknown_loglet_is_unknown"),
        (Plant::TrimGoesBack, "trims_are_exact"),
        (Plant::StaleTail, "l1_acked_batches_stay_where_they_are"),
    ];
}

/// A provider of memory loglets with one thing planted into each.
#[derive(Debug)]
pub struct PlantedProvider {
    plant: Plant,
    inner: MemoryProvider,
    /// One for each identity: handles share what was planted.
    made: Mutex<Vec<(LogletId, Arc<PlantedLoglet>)>>,
}

impl PlantedProvider {
    /// A provider without any loglets.
    #[must_use]
    pub fn new(plant: Plant) -> Self {
        Self { plant, inner: MemoryProvider::new(), made: Mutex::default() }
    }

    fn wrap(&self, id: LogletId, inner: Arc<dyn Loglet>) -> Arc<dyn Loglet> {
        let mut made = self.made.lock().expect("no panic under this lock");
        if let Some((_, loglet)) = made.iter().find(|(other, _)| *other == id) {
            return loglet.clone();
        }
        let state = Mutex::default();
        let loglet = PlantedLoglet { plant: self.plant, inner, state, sealed: Notify::new() };
        let loglet = Arc::new(loglet);
        made.push((id, loglet.clone()));
        loglet
    }
}

#[async_trait]
impl LogletProvider for PlantedProvider {
    fn kind(&self) -> &str {
        "planted"
    }

    fn plan(&self, args: &str) -> Result<LogletConfig, Error> {
        self.inner.plan(args)
    }

    async fn create(
        &self,
        id: LogletId,
        config: &LogletConfig,
        base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        Ok(self.wrap(id, self.inner.create(id, config, base).await?))
    }

    async fn open(
        &self,
        id: LogletId,
        config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        if self.plant == Plant::UnknownIsEmpty && self.inner.open(id, config).await.is_err() {
            return self.create(id, config, LogletPos(0)).await;
        }
        Ok(self.wrap(id, self.inner.open(id, config).await?))
    }

    async fn retire(&self, log: LogId, live: &[u32], bound: u32) -> Result<(), LogletError> {
        self.inner.retire(log, live, bound).await
    }
}

struct PlantedLoglet {
    plant: Plant,
    inner: Arc<dyn Loglet>,
    state: Mutex<State>,
    /// Told at the seal, where the inner loglet is not sealed itself.
    sealed: Notify,
}

#[derive(Default)]
struct State {
    sealed: bool,
    appends: u64,
    /// Firsts of batches that reads do not show.
    lost: BTreeSet<LogletPos>,
    /// Where the batch before was put.
    before: Option<LogletPos>,
    /// What a trim that goes back pretends.
    trimmed: Option<LogletPos>,
}

impl PlantedLoglet {
    fn zombies(&self) -> bool {
        use Plant::{TailAfterSealBit, TailBeforeSealBit, Zombies};
        matches!(self.plant, Zombies | TailAfterSealBit | TailBeforeSealBit)
    }

    /// What the inner loglet says of a batch at once, since it is one in memory.
    fn store(&self, batch: Batch) -> Result<LogletPos, LogletError> {
        let (done, outcome) = std::sync::mpsc::sync_channel(1);
        self.inner.append(batch, Ack::new(move |outcome| drop(done.send(outcome))));
        outcome.recv().expect("a memory loglet answers inside the call")
    }

    fn admit(&self, batch: Batch) -> Result<LogletPos, LogletError> {
        let mut state = self.state.lock().expect("no panic under this lock");
        state.appends += 1;
        let fifth = state.appends.is_multiple_of(5);
        let outcome = match self.store(batch.clone()) {
            Err(LogletError::OutOfOrder { .. }) if self.plant == Plant::Overtaking => {
                self.store(as_another_writer(&batch, state.appends))
            }
            outcome => outcome,
        };
        if self.zombies() && state.sealed {
            return Err(LogletError::Sealed);
        }
        let position = outcome?;
        let before = state.before.replace(position);
        match self.plant {
            Plant::AckBeforeStored if fifth => drop(state.lost.insert(position)),
            Plant::PositionsReused if fifth => return Ok(before.unwrap_or(position)),
            _ => {}
        }
        Ok(position)
    }
}

/// The same entries under another writer's name, which the inner loglet takes in any order.
fn as_another_writer(batch: &Batch, salt: u64) -> Batch {
    let mut builder = BatchBuilder::with_capacity(64);
    batch.entries().for_each(|entry| builder.push(&entry));
    builder.finish(WriterId(u128::MAX - u128::from(salt)), batch.header().first_seq, 0)
}

#[async_trait]
impl Loglet for PlantedLoglet {
    fn append(&self, batch: Batch, ack: Ack) {
        let outcome = self.admit(batch);
        let leaks = self.plant == Plant::SealLetsOneThrough;
        let sealed = leaks && self.state.lock().expect("no panic under this lock").sealed;
        if sealed {
            // The one append after the seal was let through: now seal in earnest.
            let _ = futures_util::FutureExt::now_or_never(self.inner.seal());
        }
        ack.complete(outcome);
    }

    async fn check_tail(&self) -> Result<Tail<LogletPos>, LogletError> {
        let sealed = || self.state.lock().expect("no panic under this lock").sealed;
        if self.plant == Plant::TailAfterSealBit {
            let bit = sealed();
            for _ in 0..3 {
                yield_now().await;
            }
            return Ok(Tail { sealed: bit, ..self.inner.check_tail().await? });
        }
        let mut tail = self.inner.check_tail().await?;
        let samples_once = self.plant == Plant::TailBeforeSealBit;
        for _ in 0..if samples_once { 3 } else { 0 } {
            yield_now().await;
        }
        let bit = sealed();
        if bit && !samples_once {
            // The tail that was sampled before the bit may be older than the last ack (L9).
            tail = self.inner.check_tail().await?;
        }
        if self.plant == Plant::StaleTail {
            let before = self.state.lock().expect("no panic under this lock").before;
            tail.position = before.unwrap_or(tail.position);
        }
        Ok(Tail { sealed: tail.sealed || bit, ..tail })
    }

    async fn wait_tail(&self, known: LogletPos) -> Result<Tail<LogletPos>, LogletError> {
        let mut sealed = std::pin::pin!(self.sealed.notified());
        sealed.as_mut().enable();
        let tail = self.check_tail().await?;
        if tail.sealed || tail.position > known {
            return Ok(tail);
        }
        tokio::select! {
            () = sealed => self.check_tail().await,
            tail = self.inner.wait_tail(known) => tail,
        }
    }

    async fn read(
        &self,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, LogletError> {
        let to = match self.plant {
            Plant::ReadPastEnd if from < to => LogletPos(u64::MAX),
            _ => to,
        };
        let lost = self.state.lock().expect("no panic under this lock").lost.clone();
        let mut found = self.inner.read(from, to, bytes_max).await?;
        found.retain(|batch| !lost.contains(&batch.first));
        Ok(found)
    }

    async fn prefix_trim(&self, keep_from: LogletPos) -> Result<LogletPos, LogletError> {
        let tail = self.inner.check_tail().await?.position;
        match self.plant {
            Plant::TrimTooMuch => {
                let next = self.inner.read(keep_from, tail, 1).await.unwrap_or_default();
                let end = next.first().filter(|next| next.first < keep_from).map(StampedBatch::end);
                self.inner.prefix_trim(end.unwrap_or(keep_from)).await
            }
            Plant::TrimGoesBack => {
                self.inner.prefix_trim(keep_from).await?;
                let kept = keep_from.min(tail);
                self.state.lock().expect("no panic under this lock").trimmed = Some(kept);
                Ok(kept)
            }
            _ => self.inner.prefix_trim(keep_from).await,
        }
    }

    async fn trim_point(&self) -> Result<LogletPos, LogletError> {
        let pretended = self.state.lock().expect("no panic under this lock").trimmed;
        match pretended {
            Some(pretended) => Ok(pretended),
            None => self.inner.trim_point().await,
        }
    }

    async fn seal(&self) -> Result<(), LogletError> {
        let first = {
            let mut state = self.state.lock().expect("no panic under this lock");
            !std::mem::replace(&mut state.sealed, true)
        };
        self.sealed.notify_waiters();
        let keeps_open = self.zombies() || (self.plant == Plant::SealLetsOneThrough && first);
        if keeps_open { Ok(()) } else { self.inner.seal().await }
    }

    async fn fill(&self, first: LogletPos, batch: Batch) -> Result<(), LogletError> {
        if self.state.lock().expect("no panic under this lock").sealed {
            return Err(LogletError::Sealed);
        }
        self.inner.fill(first, batch).await
    }
}

impl fmt::Debug for PlantedLoglet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlantedLoglet({:?})", self.plant)
    }
}
