//! What a loglet is: a totally ordered, durable log in a *static* configuration (paper §3.4).
//!
//! A loglet elects nothing and replaces nothing. Whatever fails, it can be sealed, and the chain
//! goes on with another one. It never sees the chain or the MetaStore and does not know that it has
//! a successor. It speaks batches, in appends and in reads; positions are contiguous inside a batch
//! and may leave gaps between batches, which are never filled, the same for all readers for ever.
//!
//! # The contract
//! The conformance suite (feature `testing`) checks each clause on any loglet.
//! - **L1** Order and durability. A batch acknowledged at `p` stays readable there until trimmed. If
//!   append X returned before append Y began, X is before Y.
//! - **L2** Seal. After `seal` returned, no append that starts later is acknowledged: it gets
//!   [`LogletError::Sealed`]. Sealing is idempotent and never undone.
//! - **L3** An append that failed as *in doubt* may still become durable and be counted by a later
//!   tail check; one that failed definitely never shows.
//! - **L4** `check_tail` need not stop appends: it is a tail check and a seal check in one answer.
//! - **L5** If `seal` returned before `check_tail` began, it says `sealed`.
//! - **L6** Sealed tails may grow; each of them is a legal boundary.
//! - **L7** `read` is defined only below a tail that the caller was given.
//! - **L8** An unsealed tail never exceeds a later sealed tail. Take both from one snapshot. With two
//!   samples neither order is right by itself: bit first lets a zombie in between; tail first misses an
//!   append that was acknowledged before the seal, so a set bit asks for a second look at the tail.
//! - **L9** Every acknowledged position is below every sealed tail.
//! - **L10** Batches of one writer are taken in sequence order only. When one fails, all later ones of
//!   that writer fail too: they never overtake (rule N17).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;
use virtuallog_protocol::{Batch, LogId, LogletConfig, LogletId, LogletPos, StampedBatch, Tail};

use crate::entry::Placement;
use crate::error::{BoxError, Error};

/// For how long a loglet is placed anew that could not be made where it was placed, as somebody there had
/// only just died; and between two times.
pub(crate) const CREATE_AGAIN: Duration = Duration::from_secs(2);
pub(crate) const CREATE_PAUSE: Duration = Duration::from_millis(100);

/// Exactly what callers of a loglet branch on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogletError {
    /// The loglet is sealed. The append was not acknowledged; unless the loglet knows better it
    /// *may* be stored below the sealed tail, so the VirtualLog looks for it there.
    #[error("loglet is sealed")]
    Sealed,
    /// The position was trimmed away.
    #[error("trimmed: first kept position is {first_kept}")]
    Trimmed {
        /// The first position that can still be read.
        first_kept: LogletPos,
    },
    /// Surely not stored, and nothing else is wrong: `reason` says what to do.
    #[error("refused: {0}")]
    Refused(Error),
    /// The outcome is not known: the batch may or may not be stored.
    #[error("in doubt: {0}")]
    InDoubt(BoxError),
    /// The loglet cannot answer now; nothing is known to be wrong with its data.
    #[error("unavailable: {0}")]
    Unavailable(BoxError),
    /// Stored data fails its checks. It is never served and never cut.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// No loglet of that identity here, and it is not silently empty: it was never created, or it
    /// was deleted after its segment left the chain.
    #[error("unknown loglet {0}")]
    Unknown(LogletId),
    /// A batch of this writer did not arrive in sequence order (L10). Surely not stored.
    #[error("out of order: writer's next sequence number here is {expected}")]
    OutOfOrder {
        /// The sequence number that would be taken.
        expected: u64,
    },
}

/// The promise to answer one append, exactly once.
///
/// A loglet calls [`Ack::complete`] when the batch is durable or surely not; it may do so inside
/// `append` or on any thread. An `Ack` that is dropped answers *in doubt*, so a lost one cannot hang
/// a caller or turn into a false acknowledgement. A callback and not a future, because a future does
/// nothing until somebody polls it, and because the lone append then needs no extra task or wake-up.
pub struct Ack(Option<Box<Answer>>);

type Answer = dyn FnOnce(Result<LogletPos, LogletError>) + Send;

impl Ack {
    /// An `Ack` that runs `then` with the position of the batch's first entry, or the failure.
    /// `then` must not block.
    pub fn new(then: impl FnOnce(Result<LogletPos, LogletError>) + Send + 'static) -> Self {
        Self(Some(Box::new(then)))
    }

    /// Answers.
    pub fn complete(mut self, outcome: Result<LogletPos, LogletError>) {
        if let Some(then) = self.0.take() {
            then(outcome);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then(Err(LogletError::InDoubt("the loglet dropped the append".into())));
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ack")
    }
}

/// An ordering engine: the contract is at the top of this file.
#[async_trait]
pub trait Loglet: Send + Sync + fmt::Debug {
    /// Admits `batch` now, in call order, and answers through `ack` once all of it is durable.
    /// Never blocks.
    fn append(&self, batch: Batch, ack: Ack);

    /// As [`append`](Self::append), for a caller that has a thread to lend: may write and sync on
    /// it, which saves two thread hand-overs. Blocks on nothing else, so that the caller's deadline
    /// holds: what has to wait for others is answered later, as by `append`.
    fn append_blocking(&self, batch: Batch, ack: Ack) {
        self.append(batch, ack);
    }

    /// The first unwritten position, and whether the loglet is sealed (L4 to L6, L8).
    async fn check_tail(&self) -> Result<Tail<LogletPos>, LogletError>;

    /// Waits until the tail lies beyond `known` or the loglet is sealed: the tail, pushed. It may be
    /// older than a tail check would give.
    /// Dropping the future is free of consequence.
    async fn wait_tail(&self, known: LogletPos) -> Result<Tail<LogletPos>, LogletError>;

    /// Batches in order, from the one that contains `from` or else the first after it, as long as
    /// they start below `to`: at least one if there is one, then up to about `bytes_max`. Batches may
    /// reach outside the range on both sides; callers cut. Empty: nothing in the range. `to` is at
    /// most a tail that the caller was given (L7).
    ///
    /// # Errors
    /// `Trimmed` when `from` is below the trim point; `Corrupt` and never a shorter answer when
    /// stored bytes fail their checks.
    async fn read(
        &self,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, LogletError>;

    /// Gives up everything below `keep_from`, durably, and returns the first kept position, which
    /// never goes back and never passes the tail.
    async fn prefix_trim(&self, keep_from: LogletPos) -> Result<LogletPos, LogletError>;

    /// The first position that was not trimmed.
    async fn trim_point(&self) -> Result<LogletPos, LogletError>;

    /// Ends the loglet for good (L2). The bit is durable before this returns (N5).
    async fn seal(&self) -> Result<(), LogletError>;

    /// Stores a batch of another loglet's sealed segment at the same position, for
    /// `reconfig_modify`. In ascending order; the caller appends nothing. Answers when durable.
    async fn fill(&self, first: LogletPos, batch: Batch) -> Result<(), LogletError> {
        let _ = (first, batch);
        Err(LogletError::Refused(Error::invalid(
            "this kind of loglet cannot take over another one's segment: choose another kind",
        )))
    }
}

/// Makes and finds loglets of one kind. A third party registers its own
/// ([`Builder::provider`](crate::Builder::provider)).
#[async_trait]
pub trait LogletProvider: Send + Sync + fmt::Debug {
    /// The word before the colon in a loglet's name: `local` in `local`, `native` in `native:3`.
    fn kind(&self) -> &str;

    /// Turns what a user wrote after the colon into the parameters that the chain keeps, once
    /// [`place`](Self::place) completed them: whoever opens the loglet later needs nothing else.
    ///
    /// # Errors
    /// `INVALID`, naming what can be written there.
    fn plan(&self, args: &str) -> Result<LogletConfig, Error>;

    /// Chooses where a planned loglet will be, for kinds that can be in several places; `after`: the
    /// loglet that it is to follow or to replace. What it gives is complete, goes into the chain as
    /// the target of a reconfiguration, and is made by [`create`](Self::create). The default changes
    /// nothing.
    ///
    /// # Errors
    /// `UNAVAILABLE` when there is no place for it now; `INVALID` when there never is.
    async fn place(
        &self,
        planned: LogletConfig,
        after: Option<&LogletConfig>,
    ) -> Result<LogletConfig, Error> {
        let _ = after;
        Ok(planned)
    }

    /// The nodes that a loglet is on, for kinds that are on some.
    fn placement(&self, config: &LogletConfig) -> Option<Placement> {
        let _ = config;
        None
    }

    /// Makes the loglet, or finds it if it was made before with the same parameters: idempotent.
    /// Refuses an identity that was [retired](Self::retire).
    async fn create(
        &self,
        id: LogletId,
        config: &LogletConfig,
        base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError>;

    /// Finds a loglet that the chain names.
    ///
    /// # Errors
    /// [`LogletError::Unknown`] and never an empty one when it is not there.
    async fn open(
        &self,
        id: LogletId,
        config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError>;

    /// Deletes every loglet of `log` whose segment index is not in `live` and below `bound`, and refuses
    /// for ever to create one with an index below `bound`.
    async fn retire(&self, log: LogId, live: &[u32], bound: u32) -> Result<(), LogletError>;
}
