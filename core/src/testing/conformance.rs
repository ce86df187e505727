//! The contract of a loglet (top of [`crate::loglet`]), clause by clause, on any loglet.
//!
//! ```no_run
//! # async fn prove() -> virtuallog::Result<()> {
//! # use std::sync::Arc;
//! # use virtuallog::loglets::memory::MemoryProvider as MyProvider;
//! use virtuallog::testing::conformance::{Subject, loglet_suite};
//!
//! let subject = Subject::new(Arc::new(MyProvider::new()), "")?;
//! loglet_suite(&subject).await.expect("the contract");
//! # Ok(())
//! # }
//! ```
//!
//! Each check is a function of its own, so that a failure has a name. [`basics`] are one client's
//! calls in a row; [`endings`] are what seals, orders and waits promise; [`clients`] lets appenders,
//! sealers, tail checkers, readers and trims race, and judges what they saw.
//! Needs a tokio runtime of several threads, with time. Writes nothing outside the provider.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use virtuallog_protocol::{
    Batch, BatchBuilder, LogId, LogletConfig, LogletId, LogletPos, StampedBatch, WriterId,
};

use super::ensure;
use crate::error::Error;
use crate::loglet::{Ack, Loglet, LogletError, LogletProvider};

pub mod basics;
pub mod clients;
pub mod endings;

/// Ends a check that hangs, for example since nobody was told of a new tail.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// How a check ends: `Err` is a sentence that says what is wrong.
pub type Verdict = Result<(), String>;

/// One named check.
pub type Check = (&'static str, for<'a> fn(&'a Subject) -> BoxFuture<'a, Verdict>);

/// Every check there is.
pub const CHECKS: &[Check] = &[
    ("l1_acked_batches_stay_where_they_are", |s| Box::pin(basics::acked_batches_stay(s))),
    ("l1_batches_of_every_shape_are_kept", |s| Box::pin(basics::every_shape_is_kept(s))),
    ("l1_everything_is_there_after_reopening", |s| Box::pin(basics::reopened(s))),
    ("l2_a_seal_is_final", |s| Box::pin(endings::a_seal_is_final(s))),
    ("l3_a_definite_failure_never_shows", |s| Box::pin(endings::definite_failures(s))),
    ("l5_l6_sealed_tails", |s| Box::pin(endings::sealed_tails(s))),
    ("l7_reads_answer_the_range", |s| Box::pin(basics::reads_answer_the_range(s))),
    ("l10_sequence_order", |s| Box::pin(endings::sequence_order(s))),
    ("tails_are_pushed", |s| Box::pin(endings::tails_are_pushed(s))),
    ("blocking_appends_return_answered", |s| Box::pin(endings::blocking_appends(s))),
    ("trims_are_exact", |s| Box::pin(basics::trims_are_exact(s))),
    ("fill_takes_over_a_segment", |s| Box::pin(basics::fill_takes_over(s))),
    ("create_is_idempotent", |s| Box::pin(basics::create_is_idempotent(s))),
    ("an_unknown_loglet_is_unknown", |s| Box::pin(basics::unknown_is_unknown(s))),
    ("retired_loglets_stay_gone", |s| Box::pin(basics::retired_stay_gone(s))),
    ("racing_clients", |s| Box::pin(clients::without_seal(s))),
    ("racing_clients_and_trims", |s| Box::pin(clients::with_trims(s))),
    ("l8_l9_racing_clients_and_seals", |s| Box::pin(clients::with_seals(s))),
];

/// Runs every check.
///
/// # Errors
/// The checks that failed, one a paragraph, each with what is wrong.
pub async fn loglet_suite(subject: &Subject) -> Verdict {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        match tokio::time::timeout(HANGS_AFTER, check(subject)).await {
            Ok(Ok(())) => {}
            Ok(Err(complaint)) => failed.push(format!("{name}: {complaint}")),
            Err(_) => failed.push(format!("{name}: hangs")),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n\n")) }
}

type Reopen = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn LogletProvider>> + Send + Sync>;

/// What is examined: a provider, and how to come back to what it stored.
pub struct Subject {
    /// `None` only while it is being opened again.
    provider: Mutex<Option<Arc<dyn LogletProvider>>>,
    config: LogletConfig,
    reopen: Option<Reopen>,
    /// How often the racing checks run.
    rounds: u64,
    /// Each loglet is of a log of its own, numbered from here.
    log: AtomicU64,
}

impl Subject {
    /// Examines the loglets that `provider` makes of `args` (what a user writes after the colon).
    ///
    /// # Errors
    /// What the provider's `plan` says.
    pub fn new(provider: Arc<dyn LogletProvider>, args: &str) -> Result<Self, Error> {
        let config = provider.plan(args)?;
        let provider = Mutex::new(Some(provider));
        Ok(Self { provider, config, reopen: None, rounds: 3, log: AtomicU64::new(1) })
    }

    /// Also checks what survives. `reopen` is called when every loglet and the provider were let go
    /// of; it may cut the power in between.
    #[must_use]
    pub fn reopening(
        mut self,
        reopen: impl Fn() -> BoxFuture<'static, Arc<dyn LogletProvider>> + Send + Sync + 'static,
    ) -> Self {
        self.reopen = Some(Box::new(reopen));
        self
    }

    /// Runs the racing checks `rounds` times instead of 3, each with other seeds.
    #[must_use]
    pub fn rounds(mut self, rounds: u64) -> Self {
        self.rounds = rounds;
        self
    }

    fn provider(&self) -> Arc<dyn LogletProvider> {
        let provider = self.provider.lock().expect("no panic under this lock");
        provider.clone().expect("checks reopen only while they hold no provider")
    }

    /// Lets go of the provider and opens another one, if it is known how.
    async fn reopen(&self) -> bool {
        let Some(reopen) = &self.reopen else { return false };
        *self.provider.lock().expect("no panic under this lock") = None;
        let provider = reopen().await;
        *self.provider.lock().expect("no panic under this lock") = Some(provider);
        true
    }

    fn fresh_log(&self) -> LogId {
        LogId(u128::from(self.log.fetch_add(1, Ordering::Relaxed)) | 0xc0_4f << 64)
    }

    async fn create(&self, id: LogletId, base: u64) -> Result<Arc<dyn Loglet>, String> {
        let made = self.provider().create(id, &self.config, LogletPos(base)).await;
        made.map_err(said("create"))
    }

    async fn open(&self, id: LogletId) -> Result<Arc<dyn Loglet>, String> {
        self.provider().open(id, &self.config).await.map_err(said("open"))
    }

    /// The first loglet of a new log.
    async fn fresh(&self, base: u64) -> Result<(LogletId, Arc<dyn Loglet>), String> {
        let id = LogletId { log: self.fresh_log(), segment: 0 };
        Ok((id, self.create(id, base).await?))
    }
}

impl Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subject({})", self.config.name)
    }
}

/// Puts a name before an error.
fn said<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Frames batches of one writer in sequence order.
#[derive(Clone, Debug)]
struct Writer {
    id: WriterId,
    next_seq: u64,
}

impl Writer {
    fn new(id: u128) -> Self {
        Self { id: WriterId(id), next_seq: 0 }
    }

    /// One batch with an entry for each value.
    fn frame(&mut self, values: impl IntoIterator<Item = u64>) -> Batch {
        let mut builder = BatchBuilder::with_capacity(64);
        values.into_iter().for_each(|value| builder.push(&payload(value)));
        let first_seq = self.next_seq;
        self.next_seq += u64::from(builder.count());
        builder.finish(self.id, first_seq, 1_700_000_000_000_000)
    }
}

/// Entries are unique and show any byte that changed: eight bytes of value, then a tail made of it.
fn payload(value: u64) -> Vec<u8> {
    let filler = (0..value * 7 % 61).map(|i| (value.wrapping_mul(31) + i) as u8);
    value.to_le_bytes().into_iter().chain(filler).collect()
}

fn value_of(entry: &[u8]) -> Result<u64, String> {
    let value = entry.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let value = value.filter(|value| payload(*value) == entry);
    value.ok_or_else(|| format!("I14: an entry reads as {entry:?}, which nobody wrote"))
}

/// Appends and waits.
async fn append(loglet: &Arc<dyn Loglet>, batch: Batch) -> Result<LogletPos, LogletError> {
    submit(loglet, batch).await.unwrap_or(Err(LogletError::InDoubt("no answer".into())))
}

/// Appends now; the answer comes later.
fn submit(
    loglet: &Arc<dyn Loglet>,
    batch: Batch,
) -> oneshot::Receiver<Result<LogletPos, LogletError>> {
    let (done, answer) = oneshot::channel();
    let ack = Ack::new(move |outcome| drop(done.send(outcome)));
    loglet.append(batch, ack);
    answer
}

/// Reads `from..to` in steps of about `bytes_max`, and checks the shape of each answer.
async fn read_range(
    id: LogletId,
    loglet: &Arc<dyn Loglet>,
    from: LogletPos,
    to: LogletPos,
    bytes_max: usize,
) -> Result<Vec<StampedBatch>, String> {
    let (mut at, mut found) = (from, Vec::new());
    while at < to {
        let step = loglet.read(at, to, bytes_max).await.map_err(said("read"))?;
        if step.is_empty() {
            break;
        }
        at = check_shape(id, at, to, &step)?;
        found.extend(step);
    }
    Ok(found)
}

/// What one answer to a read may look like; gives the end of its last batch.
fn check_shape(
    id: LogletId,
    from: LogletPos,
    to: LogletPos,
    step: &[StampedBatch],
) -> Result<LogletPos, String> {
    let mut at = from;
    for (i, batch) in step.iter().enumerate() {
        let (first, end) = (batch.first, batch.end());
        ensure!(batch.loglet == id, "a batch of {} was read from {id}", batch.loglet);
        ensure!(end > at, "L7: reading {from}..{to} gave {first}..{end}, which ends before {at}");
        ensure!(
            i == 0 || first >= at,
            "I2: batch {first}..{end} begins before {at}, in the last one"
        );
        ensure!(first < to, "L7: reading {from}..{to} gave a batch at {first}");
        at = end;
    }
    Ok(at)
}

/// Everything from the trim point to the tail, as written.
async fn read_all(id: LogletId, loglet: &Arc<dyn Loglet>) -> Result<Vec<StampedBatch>, String> {
    let from = loglet.trim_point().await.map_err(said("trim_point"))?;
    let tail = loglet.check_tail().await.map_err(said("check_tail"))?;
    read_range(id, loglet, from, tail.position, 4096).await
}

/// The batches that `loglet` holds are exactly `expected`.
async fn holds(id: LogletId, loglet: &Arc<dyn Loglet>, expected: &[(LogletPos, Batch)]) -> Verdict {
    let found = read_all(id, loglet).await?;
    let places = |batches: &[(LogletPos, Batch)]| -> Vec<String> {
        batches.iter().map(|(at, batch)| format!("{at}+{}", batch.count())).collect()
    };
    let found: Vec<_> = found.into_iter().map(|batch| (batch.first, batch.batch)).collect();
    let written: HashSet<&[u8]> = expected.iter().map(|(_, batch)| &batch.as_bytes()[..]).collect();
    ensure!(
        found.iter().all(|(_, batch)| written.contains(&batch.as_bytes()[..])),
        "I3/I14: a batch was read that is not one of those written, byte for byte"
    );
    ensure!(
        found == expected,
        "I1: {id} holds {:?} instead of {:?}",
        places(&found),
        places(expected)
    );
    Ok(())
}
