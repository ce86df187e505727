//! A loglet on this machine's disk, over the store that all loglets of a directory share.
//!
//! The store orders, syncs and recovers; this file only says it in a loglet's words. Reads go to a
//! thread that may block. [`ReadOnlyProvider`] opens the same loglets without a lock and without any
//! write, beside the owner in another process, and follows what the owner publishes by polling.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use virtuallog_protocol::{Batch, LogId, LogletConfig, LogletId, LogletPos, StampedBatch, Tail};

use crate::env;
use crate::error::{Error, ErrorCode};
use crate::loglet::{Ack, Loglet, LogletError, LogletProvider};
use crate::storage::{Done, LogletStatus, Place, ReadOnlyStorage, Storage, StorageError};

/// The kind of the loglets of this file.
pub const KIND: &str = "local";

/// Between two looks at what the owner published, when there was nothing new: it doubles from the
/// first to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

impl From<StorageError> for LogletError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Sealed => LogletError::Sealed,
            StorageError::Unknown(id) => LogletError::Unknown(id),
            StorageError::Trimmed { first_kept } => LogletError::Trimmed { first_kept },
            StorageError::OutOfOrder { expected } => LogletError::OutOfOrder { expected },
            StorageError::InDoubt(error) => LogletError::InDoubt(error.into()),
            StorageError::Corrupt(what) => LogletError::Corrupt(what),
            StorageError::DiskFull(e)
            | StorageError::Poisoned(e)
            | StorageError::Unavailable(e) => LogletError::Refused(e),
            other => LogletError::Refused(other.into()),
        }
    }
}

/// The store's answer to a request that gives no position, as a future.
fn reply<T: Send + 'static>(
    answer: impl FnOnce(LogletPos) -> T + Send + 'static,
) -> (Done, impl Future<Output = Result<T, LogletError>>) {
    let (tell, told) = oneshot::channel();
    let done: Done = Box::new(move |outcome| {
        let _ = tell.send(outcome.map(answer));
    });
    let wait = async {
        let gone = || LogletError::InDoubt("the store stopped before it answered".into());
        Ok(told.await.map_err(|_| gone())??)
    };
    (done, wait)
}

/// Runs `work` where it may block: on a thread of the runtime's own for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, LogletError> {
    let stopped = |_| LogletError::Unavailable("the runtime is shutting down".into());
    Ok(env::blocking(&Handle::current(), work).await.map_err(stopped)??)
}

/// A loglet of a store that this process owns.
#[derive(Debug)]
struct LocalLoglet {
    id: LogletId,
    storage: Arc<Storage>,
}

impl LocalLoglet {
    fn status(&self) -> Result<LogletStatus, LogletError> {
        self.storage.status(self.id).ok_or(LogletError::Unknown(self.id))
    }
}

#[async_trait]
impl Loglet for LocalLoglet {
    fn append(&self, batch: Batch, ack: Ack) {
        self.storage.append(self.id, Place::Tail, batch, done(ack));
    }

    fn append_blocking(&self, batch: Batch, ack: Ack) {
        self.storage.append_here(self.id, Place::Tail, batch, done(ack));
    }

    async fn check_tail(&self) -> Result<Tail<LogletPos>, LogletError> {
        let LogletStatus { tail, sealed, .. } = self.status()?;
        Ok(Tail { position: tail, sealed })
    }

    async fn wait_tail(&self, known: LogletPos) -> Result<Tail<LogletPos>, LogletError> {
        let mut tails = self.storage.subscribe(self.id).ok_or(LogletError::Unknown(self.id))?;
        loop {
            let (position, sealed) = *tails.borrow_and_update();
            if position > known || sealed {
                return Ok(Tail { position, sealed });
            }
            if tails.changed().await.is_err() {
                return Err(LogletError::Unknown(self.id));
            }
        }
    }

    async fn read(
        &self,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, LogletError> {
        let (id, storage) = (self.id, self.storage.clone());
        blocking(move || storage.read(id, from, to, bytes_max)).await
    }

    async fn prefix_trim(&self, keep_from: LogletPos) -> Result<LogletPos, LogletError> {
        let (done, trimmed) = reply(|kept| kept);
        self.storage.trim(self.id, keep_from, done);
        trimmed.await
    }

    async fn trim_point(&self) -> Result<LogletPos, LogletError> {
        Ok(self.status()?.trim)
    }

    async fn seal(&self) -> Result<(), LogletError> {
        let (done, sealed) = reply(drop);
        self.storage.seal(self.id, done);
        sealed.await
    }

    async fn fill(&self, first: LogletPos, batch: Batch) -> Result<(), LogletError> {
        let (done, filled) = reply(drop);
        self.storage.append(self.id, Place::At(first), batch, done);
        filled.await
    }
}

fn done(ack: Ack) -> Done {
    Box::new(|outcome| ack.complete(outcome.map_err(LogletError::from)))
}

pub(crate) fn plan(args: &str) -> Result<LogletConfig, Error> {
    match args {
        "" => Ok(LogletConfig { kind: KIND.into(), params: Bytes::new(), name: KIND.into() }),
        _ => Err(Error::invalid(format!("`local` takes nothing after it, not `{args}`"))),
    }
}

/// Local loglets of a store that this process owns.
pub struct LocalProvider {
    storage: Arc<Storage>,
}

impl LocalProvider {
    /// The loglets of this store.
    pub fn new(storage: Arc<Storage>) -> Self {
        Self { storage }
    }
}

impl fmt::Debug for LocalProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalProvider")
    }
}

#[async_trait]
impl LogletProvider for LocalProvider {
    fn kind(&self) -> &str {
        KIND
    }

    fn plan(&self, args: &str) -> Result<LogletConfig, Error> {
        plan(args)
    }

    async fn create(
        &self,
        id: LogletId,
        _config: &LogletConfig,
        base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let (done, created) = reply(drop);
        self.storage.create(id, base, done);
        created.await?;
        Ok(Arc::new(LocalLoglet { id, storage: self.storage.clone() }))
    }

    async fn open(
        &self,
        id: LogletId,
        _config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let loglet = LocalLoglet { id, storage: self.storage.clone() };
        loglet.status()?;
        Ok(Arc::new(loglet))
    }

    async fn retire(&self, log: LogId, live: &[u32], bound: u32) -> Result<(), LogletError> {
        let (done, retired) = reply(drop);
        self.storage.retire(log, live.to_vec(), bound, done);
        retired.await
    }
}

/// A loglet of a store that another process owns, or nobody.
#[derive(Debug)]
struct ReadOnlyLoglet {
    id: LogletId,
    storage: Arc<ReadOnlyStorage>,
}

impl ReadOnlyLoglet {
    async fn status(&self) -> Result<LogletStatus, LogletError> {
        let (id, storage) = (self.id, self.storage.clone());
        let status = blocking(move || storage.status(id)).await?;
        status.ok_or(LogletError::Unknown(self.id))
    }
}

fn read_only() -> Error {
    Error::invalid("the store was opened with `mode=read`: open it for writing")
}

#[async_trait]
impl Loglet for ReadOnlyLoglet {
    fn append(&self, _batch: Batch, ack: Ack) {
        ack.complete(Err(LogletError::Refused(read_only())));
    }

    async fn check_tail(&self) -> Result<Tail<LogletPos>, LogletError> {
        let LogletStatus { tail, sealed, .. } = self.status().await?;
        Ok(Tail { position: tail, sealed })
    }

    async fn wait_tail(&self, known: LogletPos) -> Result<Tail<LogletPos>, LogletError> {
        let mut pause = POLL.0;
        loop {
            let tail = self.check_tail().await?;
            if tail.position > known || tail.sealed {
                return Ok(tail);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL.1);
        }
    }

    async fn read(
        &self,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, LogletError> {
        let (id, storage) = (self.id, self.storage.clone());
        blocking(move || storage.read(id, from, to, bytes_max)).await
    }

    async fn prefix_trim(&self, _keep_from: LogletPos) -> Result<LogletPos, LogletError> {
        Err(LogletError::Refused(read_only()))
    }

    async fn trim_point(&self) -> Result<LogletPos, LogletError> {
        Ok(self.status().await?.trim)
    }

    async fn seal(&self) -> Result<(), LogletError> {
        Err(LogletError::Refused(read_only()))
    }
}

/// Local loglets of a store that somebody else owns.
pub(crate) struct ReadOnlyProvider {
    storage: Arc<ReadOnlyStorage>,
}

impl ReadOnlyProvider {
    pub(crate) fn new(storage: Arc<ReadOnlyStorage>) -> Self {
        Self { storage }
    }
}

impl fmt::Debug for ReadOnlyProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadOnlyProvider")
    }
}

#[async_trait]
impl LogletProvider for ReadOnlyProvider {
    fn kind(&self) -> &str {
        KIND
    }

    fn plan(&self, args: &str) -> Result<LogletConfig, Error> {
        plan(args)
    }

    async fn create(
        &self,
        _id: LogletId,
        _config: &LogletConfig,
        _base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        Err(LogletError::Refused(read_only()))
    }

    async fn open(
        &self,
        id: LogletId,
        _config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let loglet = ReadOnlyLoglet { id, storage: self.storage.clone() };
        match loglet.status().await {
            Ok(_) => Ok(Arc::new(loglet)),
            Err(error) => Err(error),
        }
    }

    async fn retire(&self, _log: LogId, _live: &[u32], _bound: u32) -> Result<(), LogletError> {
        Err(LogletError::Refused(Error::new(ErrorCode::Invalid, "the store is open for reading")))
    }
}
