//! The disk of a LogServer: one store directory, shared by all its loglets.
//!
//! What it promises: a batch, a seal, a trim, a creation that was answered `Ok` survives any crash of
//! process or machine. What was never acknowledged may be there or not, but whole. Damage is
//! reported, never served and never cut away. A failed sync stops the store until it is opened again.
//!
//! The one idea: every commit writes its batches twice, to the data file of their loglet, where they
//! stay and are read, and to a journal shared by all, which is what is synced. Data files are synced
//! by checkpoints. So a commit costs one sync however many loglets it touches, readers never need
//! the journal, and a quiet loglet keeps no journal file from being used again.
//!
//! What it does not do: it knows nothing of chains, quorums or clients, and assigns positions only
//! when asked to. Calls block; futures belong to the callers.
//!
//! Read in this order: `disk.rs` (the seam), `state.rs`, `journal.rs`, `data.rs`, `whole.rs` and
//! `manifest.rs` (the bytes), `stage.rs` and `commit.rs` (how anything becomes durable), `recovery.rs`,
//! `keep.rs`, `reading.rs`, `readonly.rs`, `identity.rs`.
#![doc = include_str!("FORMAT.md")]

mod chunks;
mod commit;
mod data;
mod defer;
mod direct;
pub mod disk;
pub(crate) mod error;
mod identity;
mod index;
mod journal;
mod keep;
mod manifest;
mod options;
mod reading;
mod readonly;
mod recovery;
mod reply;
mod stage;
mod state;
pub(crate) mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::thread::JoinHandle;

use tokio::sync::watch;
use virtuallog_protocol::{Batch, LogId, LogletId, LogletPos, StampedBatch};

pub use self::disk::{Disk, RealDisk, lock_fds};
pub use self::error::StorageError;
pub use self::identity::Identity;
pub use self::options::{PlantedBug, StorageOptions};
pub use self::reading::VerifyReport;
pub use self::readonly::ReadOnlyStorage;
pub use self::stage::Place;

use self::chunks::Chunks;
use self::commit::{Committer, Queue, Request};
use self::data::DataFiles;
use self::disk::{LockGuard, LockOutcome, OpenMode};
use self::error::{Poison, io_error};
use self::identity::Remembered;
use self::index::IndexCache;
use self::keep::{Keep, Ring};
use self::manifest::Lives;
use self::reading::Source;
use self::reply::Reply;
use self::state::{Loglet, Spared};
use crate::env::planted;
use crate::error::{Error, ErrorCode};

const KEEP_THREAD: &str = "virtuallog-keep";

/// What is called with the outcome of a request, exactly once, with no lock of the store held. It
/// must not block. Appends get what their [`Place`] says, seals the tail, creations the base, trims
/// the first position kept, retirements the bound.
pub type Done = Box<dyn FnOnce(Result<LogletPos, StorageError>) + Send>;

/// The durable state of a loglet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogletStatus {
    /// The first position that it could ever hold.
    pub base: LogletPos,
    /// The first position that was not trimmed.
    pub trim: LogletPos,
    /// The first unwritten position.
    pub tail: LogletPos,
    /// True once nothing can be appended any more.
    pub sealed: bool,
}

/// A store that this process owns.
pub struct Storage {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Name of the thread that commits and answers.
pub(crate) const COMMIT_THREAD: &str = "virtuallog-commit";

/// What the threads share.
pub(crate) struct Inner {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    options: StorageOptions,
    storage_id: u128,
    /// The process that opened it.
    process: u32,
    boot: u64,
    /// What the generation was in which process.
    lives: Lives,
    /// Of the newest journal file in which something is durable.
    generation: AtomicU64,
    poison: Arc<Poison>,
    queue: Mutex<Queue>,
    /// Something waits that nobody is at.
    wake: Condvar,
    committer: Mutex<Committer>,
    known: RwLock<Known>,
    files: DataFiles,
    index: IndexCache,
    chunks: Chunks,
    keep: Keep,
    ring: Mutex<Ring>,
    remembered: Mutex<Remembered>,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

/// All loglets, in an order that does not depend on chance.
#[derive(Debug, Default)]
struct Known {
    loglets: BTreeMap<LogletId, Arc<Loglet>>,
    spared: BTreeMap<LogId, Spared>,
}

impl Storage {
    /// Takes the store in `dir`, recovers it, and starts its threads. Makes the store when the
    /// directory is empty, and the directory when its parent is there, unless `options.create` says
    /// no.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is no store and none is to be made; `LOCKED` when another process has it; `INVALID` when the directory holds something else;
    /// `CORRUPT` and `DATA_LOSS` with nothing changed; `INCOMPATIBLE`; or what the disk said.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: StorageOptions,
    ) -> Result<Arc<Storage>, Error> {
        let options = options.checked()?;
        if options.create {
            make_root(disk.as_ref(), dir)?;
        }
        // Before the lock, so that nothing is written into a directory that is no store.
        if recovery::look(disk.as_ref(), dir)?.is_none() && !options.create {
            return Err(no_store(dir));
        }
        let lock = take_lock(disk.as_ref(), dir)?;
        let boot = disk.boot_id();
        let manifest = match recovery::look(disk.as_ref(), dir)? {
            Some(manifest) => manifest,
            None if !options.create => return Err(no_store(dir)),
            None => recovery::create(disk.as_ref(), dir, &options, boot)?,
        };
        let remembered = Mutex::new(Remembered::read(disk.as_ref(), dir)?);
        let poison = Arc::new(Poison::default());
        let storage_id = manifest.storage_id;
        let files = DataFiles::new(
            Arc::clone(&disk),
            dir,
            storage_id,
            OpenMode::Write,
            options.open_files_max,
            Arc::clone(&poison),
        );
        let recovered = recovery::recover(&disk, &files, dir, manifest, &options, boot)?;
        // Recovery synced what it wrote, so nothing of it is left to a checkpoint.
        files.take_dirty()?;
        let loglets = recovered.manifest.loglets.into_iter();
        let known = Known {
            loglets: loglets.map(|(id, state)| (id, Arc::new(Loglet::found(id, state)))).collect(),
            spared: recovered.manifest.spared,
        };
        let inner = Arc::new(Inner {
            root: dir.to_owned(),
            storage_id,
            process: disk.process(),
            boot,
            lives: recovered.manifest.lives,
            generation: AtomicU64::new(recovered.manifest.counter),
            poison,
            queue: Mutex::default(),
            wake: Condvar::new(),
            committer: Mutex::new(recovered.committer),
            known: RwLock::new(known),
            files,
            index: IndexCache::new(options.index_every_bytes),
            chunks: Chunks::default(),
            keep: Keep::default(),
            ring: Mutex::new(recovered.ring),
            remembered,
            lock: Mutex::new(Some(lock)),
            disk,
            options,
        });
        for id in recovered.dead {
            inner.delete_loglet_dir(id)?;
        }
        let storage = Storage { inner: Arc::clone(&inner), threads: Mutex::default() };
        if inner.options.background {
            storage.start_threads()?;
            inner.keep.prepare();
        }
        Ok(Arc::new(storage))
    }

    fn start_threads(&self) -> Result<(), Error> {
        let spawn = |name: &str, run: fn(&Inner)| {
            let inner = Arc::clone(&self.inner);
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || run(&inner)).map_err(|e| {
                Error::new(ErrorCode::Unavailable, format!("cannot start the thread `{name}`: {e}"))
            })
        };
        let mut threads = self.threads.lock().expect("no panic under this lock");
        threads.push(spawn(COMMIT_THREAD, Inner::run_commit)?);
        threads.push(spawn(KEEP_THREAD, Inner::run_keep)?);
        Ok(())
    }

    /// Finishes what was asked for, says in the store that all of it was, and lets go of it.
    /// Everything that comes later is refused. Doing it again is fine, and so is doing it in a child
    /// after a fork, where it does nothing: the store is the parent's.
    ///
    /// # Errors
    /// What stopped the store before, or what failed now. The store is let go all the same.
    pub fn close(&self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        if inner.check_process().is_err() {
            if let Ok(mut threads) = self.threads.try_lock() {
                // They are not in this process, so there is nothing to detach from.
                std::mem::forget(std::mem::take(&mut *threads));
            }
            return Ok(());
        }
        let from_done = {
            let mut queue = inner.queue();
            if std::mem::replace(&mut queue.stop, true) {
                return Ok(());
            }
            inner.options.background && queue.leader == Some(std::thread::current().id())
        };
        inner.wake.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().expect("no panic under this lock"));
        let finish = move || inner.close(threads);
        if !from_done {
            return finish();
        }
        // The last handle went away inside a completion: its thread cannot wait for itself.
        let spawned = std::thread::Builder::new().name("virtuallog-close".to_owned()).spawn(finish);
        spawned.map(drop).map_err(|e| {
            Error::new(ErrorCode::Unavailable, format!("cannot start a thread to close: {e}"))
        })
    }

    /// Puts a batch at its place and returns at once; requests are taken in the order of the calls.
    ///
    /// `done` gets `Sealed`, `Unknown`, `OutOfOrder`, `Position`, `Gap`, `Conflict`, `NotSealed`,
    /// `DiskFull` or `Unavailable` when the batch is surely not stored by this call, `InDoubt` and
    /// `Poisoned` when the store failed.
    pub fn append(&self, id: LogletId, place: Place, batch: Batch, done: Done) {
        self.submit(Request::Append { id, place, batch, done: Reply::new(done) });
    }

    /// As [`append`](Self::append), on the caller's own thread when nobody else is committing, which
    /// saves two thread hand-overs. Returns after `done` was called. Not for use within a `done`.
    pub fn append_here(&self, id: LogletId, place: Place, batch: Batch, done: Done) {
        let answered = Arc::new((Mutex::new(false), Condvar::new()));
        let signal = Signal(Arc::clone(&answered));
        let done = Reply::new(Box::new(move |outcome| {
            // When this ends, however it does.
            let _signal = signal;
            done(outcome);
        }));
        let is_answered = || *answered.0.lock().expect("no panic under this lock");
        if self.inner.enqueue(Request::Append { id, place, batch, done }, true) {
            // Without a thread to take over, the leader stays until nothing waits.
            self.inner.lead(|| self.inner.options.background && is_answered());
        }
        let mut guard = answered.0.lock().expect("no panic under this lock");
        while !*guard {
            guard = answered.1.wait(guard).expect("no panic under this lock");
        }
    }

    /// Until the answer is dropped, what this thread asks for wakes nobody; then it does, or this
    /// thread writes it itself ([`Deferred::lead`](defer::Deferred::lead)). For a thread that has
    /// something more urgent to do first. Within another one of the same thread it does nothing.
    pub(crate) fn defer(&self) -> defer::Deferred<'_> {
        defer::Deferred::begin(&self.inner)
    }

    /// Makes a loglet that starts at `base`. One that is there with the same base is fine.
    pub fn create(&self, id: LogletId, base: LogletPos, done: Done) {
        self.submit(Request::Create { id, base, done: Reply::new(done) });
    }

    /// Ends a loglet for good.
    pub fn seal(&self, id: LogletId, done: Done) {
        self.submit(Request::Seal { id, done: Reply::new(done) });
    }

    /// Gives up what lies below `keep_from`, at most up to the tail.
    pub fn trim(&self, id: LogletId, keep_from: LogletPos, done: Done) {
        self.submit(Request::Trim { id, keep_from, beyond: false, done: Reply::new(done) });
    }

    /// As [`trim`](Self::trim), also beyond the tail: for a copy that has not got all of a loglet which
    /// is known to reach that far. What comes to those positions later is taken, and is trimmed.
    pub fn trim_beyond(&self, id: LogletId, keep_from: LogletPos, done: Done) {
        self.submit(Request::Trim { id, keep_from, beyond: true, done: Reply::new(done) });
    }

    /// Deletes every loglet of `log` below segment `bound` that is not in `live`, and refuses for
    /// ever to [`create`](Self::create) such a one: a message that comes late makes no loglet anew.
    /// One in `live` that this store missed until now can still be made.
    pub fn retire(&self, log: LogId, live: Vec<u32>, bound: u32, done: Done) {
        self.submit(Request::Retire { log, live, bound, done: Reply::new(done) });
    }

    fn submit(&self, request: Request) {
        if self.inner.enqueue(request, false) {
            self.inner.lead(|| false);
        }
    }

    /// Commits one block of what waits, where a simulator decides when. True when there was something.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn commit_waiting(&self) -> bool {
        {
            let mut queue = self.inner.queue();
            if queue.leading || queue.requests.is_empty() {
                return false;
            }
            queue.leading = true;
        }
        let committed = std::cell::Cell::new(false);
        self.inner.lead(|| committed.replace(true));
        true
    }

    /// Has a mark written, if the last block has none after it, as a store with threads does when idle.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn mark(&self) {
        if self.inner.keep.is_unmarked() {
            self.inner.enqueue(Request::Mark, false);
        }
    }

    /// The durable state of a loglet. No I/O.
    #[must_use]
    pub fn status(&self, id: LogletId) -> Option<LogletStatus> {
        let state = self.inner.loglet(id)?.state();
        let state::LogletState { base, trim, tail, sealed, .. } = state;
        Some(LogletStatus { base, trim, tail, sealed })
    }

    /// Tail and seal bit of a loglet, now and whenever they change.
    #[must_use]
    pub fn subscribe(&self, id: LogletId) -> Option<watch::Receiver<(LogletPos, bool)>> {
        Some(self.inner.loglet(id)?.subscribe())
    }

    /// Batches in order, from the one that contains `from` or else the first after it, as long as
    /// they start below `to`: at least one if there is one, then up to about `bytes_max`. Positions
    /// that were passed over are not there, and nothing else stands in their place. The batches share
    /// buffers with what was read around them, in all `bytes_max`, 64 KiB and one batch at most.
    /// Blocks on the disk; any number of threads may read at a time.
    ///
    /// # Errors
    /// `Trimmed`, `Unknown`, `Unavailable`; `Corrupt` and never a shorter answer.
    pub fn read(
        &self,
        id: LogletId,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, StorageError> {
        self.inner.with_source(id, |source| source.read(from, to, bytes_max))
    }

    /// Checks every byte that a loglet holds; `progress` is told of bytes as they are done.
    ///
    /// # Errors
    /// `Corrupt`, naming the first place that does not hold.
    pub fn verify(
        &self,
        id: LogletId,
        progress: &mut dyn FnMut(u64),
    ) -> Result<VerifyReport, StorageError> {
        self.inner.with_source(id, |source| source.verify(progress))
    }

    /// All loglets that there are.
    #[must_use]
    pub fn loglets(&self) -> Vec<LogletId> {
        self.inner.loglet_ids()
    }

    /// The identity of this disk, drawn when the store was created.
    #[must_use]
    pub fn storage_id(&self) -> u128 {
        self.inner.storage_id
    }

    /// Higher with each start and each journal file: at a start above every one there was before,
    /// and then one more with each journal file. It is told once something is durable that shows
    /// it, and before anything in that journal file is acknowledged.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    /// Whether the disk was ever at this generation, in this process or one before. If anybody was shown
    /// one that it never was at, the disk has forgotten something: an older image of it was put back, or
    /// another copy of it was used. However often it was started since, as each start goes on with
    /// generations of its own.
    #[must_use]
    pub fn was_at(&self, generation: u64) -> bool {
        // In this order: what was shown is not above what is read after.
        let now = self.generation();
        self.inner.lives.had(generation, now)
            || (planted::has(planted::Bug::StartConfirms) && generation <= now)
    }

    /// Whether the loglet was created by this process, since it opened the store. Only then is it
    /// certain that nobody in this process or before it gave out positions of the loglet.
    #[must_use]
    pub fn born_here(&self, id: LogletId) -> bool {
        self.inner.loglet(id).is_some_and(|loglet| loglet.born_here)
    }

    /// Why the store does nothing any more, if that is so.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.inner.poison.error()
    }
}

/// Wakes the one who waits in `append_here`.
struct Signal(Arc<(Mutex<bool>, Condvar)>);

impl Drop for Signal {
    fn drop(&mut self) {
        *self.0.0.lock().expect("no panic under this lock") = true;
        self.0.1.notify_one();
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            tracing::warn!("the store was not closed in order and recovers when it is opened: {e}");
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("dir", &self.inner.root).finish_non_exhaustive()
    }
}

impl Inner {
    /// A fork gives a child everything that is in memory, and the parent goes on with the same
    /// files: what the child wrote would go over it. Locks can be held for ever there by threads
    /// that it does not have, so this comes before any.
    fn check_process(&self) -> Result<(), StorageError> {
        match self.disk.process() == self.process {
            true => Ok(()),
            false => Err(StorageError::Unavailable(Error::new(
                ErrorCode::Closed,
                "the store was opened before a fork, by another process: open another",
            ))),
        }
    }

    /// Fails when the store was closed, or stopped, or is another process's.
    fn check_open(&self) -> Result<(), StorageError> {
        self.check_process()?;
        self.poison.check()?;
        match *self.lock.lock().expect("no panic under this lock") {
            Some(_) => Ok(()),
            None => Err(StorageError::Unavailable(closed())),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic under this lock")
    }

    /// The thread `virtuallog-commit`.
    fn run_commit(&self) {
        loop {
            {
                let mut queue = self.queue();
                while queue.leading || queue.requests.is_empty() {
                    if queue.stop && !queue.leading {
                        return;
                    }
                    queue = self.wake.wait(queue).expect("no panic under this lock");
                }
                queue.leading = true;
            }
            self.lead(|| false);
        }
    }

    fn close(&self, threads: Vec<JoinHandle<()>>) -> Result<(), Error> {
        // In the order of their start: commits may still need the other one's checkpoints.
        for thread in threads {
            if thread.thread().name() == Some(KEEP_THREAD) {
                self.keep.stop();
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        let outcome = self.guarded(|| self.finish()).and_then(|finished| finished);
        *self.lock.lock().expect("no panic under this lock") = None;
        outcome.map_err(Error::from)
    }

    /// The end of a store: a mark, a checkpoint that leaves nothing to replay.
    fn finish(&self) -> Result<(), StorageError> {
        if self.options.background {
            // What is left may ask for a last block, which comes with the mark.
            self.keep_rest();
        }
        {
            let mut queue = self.queue();
            while queue.leading && self.options.background {
                queue = self.wake.wait(queue).expect("no panic under this lock");
            }
            queue.requests.push_back(Request::Mark);
            queue.leading = true;
        }
        self.lead(|| false);
        self.keep_rest();
        self.poison.check()?;
        let committer = self.committer.lock().expect("a panic in the leader poisons the store");
        self.checkpoint(&self.snapshot(&committer, true))
    }

    fn loglet(&self, id: LogletId) -> Option<Arc<Loglet>> {
        self.known.read().expect("no panic under this lock").loglets.get(&id).cloned()
    }

    fn loglet_ids(&self) -> Vec<LogletId> {
        self.known.read().expect("no panic under this lock").loglets.keys().copied().collect()
    }

    fn spared_so_far(&self, log: LogId) -> Spared {
        let known = self.known.read().expect("no panic under this lock");
        known.spared.get(&log).cloned().unwrap_or_default()
    }

    fn add_loglet(&self, loglet: Arc<Loglet>) {
        self.known.write().expect("no panic under it").loglets.insert(loglet.id, loglet);
    }

    fn forget_loglets(
        &self,
        ids: impl Iterator<Item = LogletId>,
        spared: &BTreeMap<LogId, Spared>,
    ) {
        let ids: BTreeSet<LogletId> = ids.collect();
        if ids.is_empty() && spared.is_empty() {
            return;
        }
        let mut known = self.known.write().expect("no panic under this lock");
        known.loglets.retain(|id, _| !ids.contains(id));
        known.spared.extend(spared.iter().map(|(log, spared)| (*log, spared.clone())));
    }

    /// Reads from a snapshot of the loglet. What a trim took away under the reader's hands is not
    /// damage, so a failure counts only if the loglet is still as it was.
    fn with_source<T>(
        &self,
        id: LogletId,
        mut read: impl FnMut(Source<'_>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        loop {
            self.check_open()?;
            let state = self.loglet(id).ok_or(StorageError::Unknown(id))?.state();
            let source = Source {
                files: &self.files,
                index: &self.index,
                chunks: &self.chunks,
                id,
                state: &state,
            };
            let error = match read(source) {
                Err(e @ (StorageError::Corrupt(_) | StorageError::Unavailable(_))) => e,
                other => return other,
            };
            let now = self.loglet(id).ok_or(StorageError::Unknown(id))?.state();
            let starts = |state: &state::LogletState| {
                state.extents().map(|e| (e.base, e.start)).next().expect("one at least")
            };
            if (now.trim, starts(&now)) == (state.trim, starts(&state)) {
                return Err(error);
            }
        }
    }
}

/// The answer to calls that come after `close`.
fn closed() -> Error {
    Error::new(ErrorCode::Closed, "the store was closed: open it again")
}

fn no_store(dir: &Path) -> Error {
    let message = format!("`{}` is not a store: create it, or correct the path", dir.display());
    Error::new(ErrorCode::NotFound, message)
}

/// The directory of a store.
fn make_root(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    match disk.list(dir) {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(io_error("list", dir, e)),
    }
    disk.create_dir(dir).map_err(|e| io_error("create", dir, e))
}

fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn LockGuard>, Error> {
    let path = dir.join("LOCK");
    match disk.lock(&path).map_err(|e| io_error("lock", &path, e))? {
        LockOutcome::Held(guard) => Ok(guard),
        LockOutcome::Taken { owner } => {
            let owner = if owner.is_empty() { "unknown" } else { &owner };
            let message = format!(
                "`{}` is in use by process {owner}: open it with `mode=read`, or stop that process",
                dir.display()
            );
            Err(Error::new(ErrorCode::Locked, message))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
