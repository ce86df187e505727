//! The LogServer's role: other people's batches, in the order of one queue, on this node's disk.
//!
//! What is decided is `log_server` of `core/protocol`, inside the store, where a request is taken from
//! the queue. What is here is the rest: the known tails that sequencers tell, questions that wait for a
//! tail, and reads.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};
use virtuallog_protocol::{LogId, LogletId, LogletPos};

use crate::env::{self, planted};
use crate::error::{Error, ErrorCode};
use crate::loglets::native::HOLD;
use crate::storage::{Done, LogletStatus, Place, Storage, StorageError};
use crate::wire::frame::{READ_BYTES_MAX, get_batch, get_batches, put_batches};
use crate::wire::messages::{
    self, Failure, FailureKind, LocalTail, Nothing, Notice, Read, Reply, WaitTail,
};
use crate::wire::serve::Answer;

/// Reads that are at the disk at once; more wait.
const READS_MAX: usize = 32;
/// Reads that wait or are at the disk; more are refused.
const READS_WAITING_MAX: usize = 4096;

/// Loglets on this node's disk.
#[derive(Debug)]
pub(crate) struct LogServer {
    pub(crate) storage: Arc<Storage>,
    runtime: Handle,
    /// How far each loglet may be read, as its sequencer told since this process started (rule N15).
    known: RwLock<BTreeMap<LogletId, Arc<watch::Sender<LogletPos>>>>,
    reads: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// A store's error as it is told over the network.
pub(crate) fn storage_failure(error: StorageError) -> Reply {
    Reply::Failure(match error {
        StorageError::Sealed => Failure::new(FailureKind::Sealed, "the loglet is sealed", 0),
        StorageError::Gap { tail } => {
            Failure::new(FailureKind::Gap, "something before it is missing here", tail.0)
        }
        error => crate::cluster::to_failure(&crate::loglet::LogletError::from(error)),
    })
}

fn unknown(id: LogletId) -> Reply {
    Reply::Failure(Failure::new(FailureKind::Unknown, format!("unknown loglet {id}"), 0))
}

impl LogServer {
    pub(crate) fn new(storage: Arc<Storage>) -> LogServer {
        LogServer {
            storage,
            runtime: Handle::current(),
            known: RwLock::default(),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            waiting: Arc::new(Semaphore::new(READS_WAITING_MAX)),
        }
    }

    fn known(&self, id: LogletId) -> Arc<watch::Sender<LogletPos>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&id) {
            return known.clone();
        }
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(id).or_insert_with(|| Arc::new(watch::Sender::new(LogletPos(0)))).clone()
    }

    fn learn(&self, id: LogletId, tail: LogletPos) {
        self.known(id).send_if_modified(|known| {
            let higher = tail > *known;
            *known = tail.max(*known);
            higher
        });
    }

    fn local_tail(&self, id: LogletId) -> Option<LocalTail> {
        self.storage.status(id)?;
        let known_tail = self.known(id).borrow().0;
        // After it: what is known to be committed may be more than is here, and never more sealed.
        let LogletStatus { trim, tail, sealed, .. } = self.storage.status(id)?;
        Some(LocalTail { tail: tail.0, sealed, known_tail, trim: trim.0 })
    }

    /// The answer to a request that gives a position.
    fn done(answer: Answer, reply: impl FnOnce(LogletPos) -> Reply + Send + 'static) -> Done {
        Box::new(move |outcome| answer.reply(outcome.map_or_else(storage_failure, reply)))
    }

    /// From a sequencer.
    pub(crate) fn store(&self, store: &messages::Store, body: &Bytes, answer: Answer) {
        let id = store.loglet.into();
        let known_tail = LogletPos(store.known_tail);
        let batch = match get_batch(body) {
            Ok(batch) => batch,
            Err(error) => return answer.refuse(&error),
        };
        if self.storage.status(id).is_none() {
            return answer.reply(unknown(id));
        }
        self.learn(id, known_tail);
        let place = Place::Store { first: LogletPos(store.first), known_tail };
        let reply = |tail| Reply::LocalTail(Reply::local_tail(tail, false));
        self.storage.append(id, place, batch, Self::done(answer, reply));
    }

    pub(crate) fn notice(&self, notice: &Notice) {
        let id = notice.loglet.into();
        if self.storage.status(id).is_some() {
            self.learn(id, LogletPos(notice.known_tail));
        }
    }

    pub(crate) fn seal(&self, id: LogletId, answer: Answer) {
        let reply = |tail| Reply::LocalTail(Reply::local_tail(tail, true));
        self.storage.seal(id, Self::done(answer, reply));
    }

    pub(crate) fn tail(&self, id: LogletId, answer: Answer) {
        answer.reply(self.local_tail(id).map_or_else(|| unknown(id), Reply::LocalTail));
    }

    /// Answers when what is waited for is there, or after [`HOLD`].
    pub(crate) fn wait_tail(self: &Arc<Self>, wait: WaitTail, answer: Answer) {
        let id = wait.loglet.into();
        let there = move |tail: &LocalTail| {
            tail.sealed
                || wait.local.is_some_and(|local| tail.tail >= local)
                || wait.known.is_some_and(|known| tail.known_tail > known)
        };
        let Some(mut local) = self.storage.subscribe(id) else {
            return answer.reply(unknown(id));
        };
        let mut known = self.known(id).subscribe();
        let server = self.clone();
        self.runtime.spawn(env::task(async move {
            let changes = async {
                loop {
                    known.mark_unchanged();
                    local.mark_unchanged();
                    match server.local_tail(id) {
                        Some(tail) if !there(&tail) => {}
                        _ => return,
                    }
                    tokio::select! {
                        biased;
                        changed = known.changed() => if changed.is_err() { return },
                        changed = local.changed() => if changed.is_err() { return },
                    }
                }
            };
            let _ = tokio::time::timeout(HOLD, changes).await;
            server.tail(id, answer);
        }));
    }

    pub(crate) fn read(self: &Arc<Self>, read: Read, answer: Answer) {
        let Ok(waiting) = self.waiting.clone().try_acquire_owned() else {
            let message = "too many reads wait at this node already: try again";
            return answer.refuse(&Error::new(ErrorCode::Busy, message));
        };
        let server = self.clone();
        self.runtime.spawn(env::task(async move {
            let _waiting = waiting;
            let Ok(_reading) = server.reads.clone().acquire_owned().await else { return };
            let storage = server.storage.clone();
            let work = move || {
                let bytes_max = (read.bytes_max as usize).min(READ_BYTES_MAX);
                let (from, to) = (LogletPos(read.from), LogletPos(read.to));
                let batches = storage.read(read.loglet.into(), from, to, bytes_max)?;
                Ok::<_, StorageError>(put_batches(&batches))
            };
            match env::blocking(&server.runtime, work).await {
                Ok(Ok(body)) => answer.with(Reply::Batches(Nothing {}), body),
                Ok(Err(error)) => answer.reply(storage_failure(error)),
                Err(_) => {}
            }
        }));
    }

    /// One batch after the other, so that a later one is never there without an earlier one.
    pub(crate) fn repair(self: &Arc<Self>, id: LogletId, body: Bytes, answer: Answer) {
        let batches = match get_batches(body) {
            Ok(batches) => batches,
            Err(error) => return answer.refuse(&error),
        };
        if let Some(wrong) = batches.iter().find(|batch| batch.loglet != id) {
            let message = format!("a batch of loglet {} in a repair of {id}", wrong.loglet);
            return answer.refuse(&Error::invalid(message));
        }
        let server = self.clone();
        self.runtime.spawn(env::task(async move {
            for batch in batches {
                let (tell, told) = oneshot::channel();
                let done: Done = Box::new(move |outcome| {
                    let _ = tell.send(outcome);
                });
                server.storage.append(id, Place::Repair(batch.first), batch.batch, done);
                match told.await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return answer.reply(storage_failure(error)),
                    Err(_) => return,
                }
            }
            server.tail(id, answer);
        }));
    }

    /// Of a loglet that is here and nowhere else.
    pub(crate) fn trim(&self, id: LogletId, keep_from: LogletPos, answer: Answer) {
        self.storage.trim(id, keep_from, Self::kept(answer));
    }

    /// Of a loglet of which this is one copy. Whoever asks knows that it reaches up to `keep_from`, and
    /// counts on it that this server says so from now on, however little it has.
    pub(crate) fn trim_beyond(&self, id: LogletId, keep_from: LogletPos, answer: Answer) {
        match planted::has(planted::Bug::TrimsWhatItHas) {
            true => self.storage.trim(id, keep_from, Self::kept(answer)),
            false => self.storage.trim_beyond(id, keep_from, Self::kept(answer)),
        }
    }

    fn kept(answer: Answer) -> Done {
        Self::done(answer, |kept| {
            Reply::LocalTail(LocalTail { trim: kept.0, ..LocalTail::default() })
        })
    }

    /// Makes a loglet; `then` gets the answer's place once it is durable.
    pub(crate) fn create(
        &self,
        id: LogletId,
        base: LogletPos,
        answer: Answer,
        then: impl FnOnce(Answer) + Send + 'static,
    ) {
        let done: Done = Box::new(move |outcome| match outcome {
            Ok(_) => then(answer),
            Err(error) => answer.reply(storage_failure(error)),
        });
        self.storage.create(id, base, done);
    }

    pub(crate) fn retire(&self, log: LogId, live: Vec<u32>, bound: u32, answer: Answer) {
        let bound = if planted::has(planted::Bug::KeepsTheDead) { 0 } else { bound };
        let dead =
            |id: &LogletId| id.log == log && id.segment < bound && !live.contains(&id.segment);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|id, _| !dead(id));
        drop(known);
        self.storage.retire(log, live, bound, Self::done(answer, |_| Reply::Done(Nothing {})));
    }
}
