//! The handle that users hold: one log, whatever its chain looks like at the moment (paper §3.1).
//!
//! Every operation is here, each a few lines over the files that do the work: `appender.rs`,
//! `reader.rs`, `reconfig.rs`, `resolve.rs`. The MetaStore is asked on open, after a seal and to
//! reconfigure, never to append or to read.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use virtuallog_protocol::chain::{Chain, Life, LogletConfig, Segment};
use virtuallog_protocol::{LogPos, Tail};

use crate::appender::WhenFull;
use crate::entry::{Appended, Entry, Plan, Start, TrimLimit, Trimmed, VerifyReport};
use crate::env::planted;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Log;
use crate::parcel::{Payload, Payloads};
use crate::reader::{Reader, check_range};
use crate::store::Builder;
use crate::ticket::Append;
use crate::token::Token;

/// Appends that `append_all` has out at once, at most.
const APPEND_ALL_OUT_MAX: usize = 8 * 1024;
/// Entries that `verify` takes at a time.
const VERIFY_ENTRIES: usize = 1024;

/// A virtual log, opened.
///
/// Cloning is cheap; clones are the same writer. All methods may be called from any thread and any
/// executor, but a tokio runtime has to exist while the log is open: its one task finishes what
/// dropped futures leave (`open` takes the runtime that it is called in).
///
/// # Cancellation
/// Dropping the future of an append lets go of the answer, never of the append; everything else that
/// is dropped stops, but for a reconfiguration, which goes on to its end.
///
/// # Deadlines
/// A call without one of its own ends after the log's timeout (10 s unless the URL says otherwise)
/// with `DEADLINE`; subscriptions wait for ever.
#[derive(Clone, Debug)]
pub struct VirtualLog {
    log: Arc<Log>,
}

impl VirtualLog {
    pub(crate) fn from_log(log: Arc<Log>) -> Self {
        Self { log }
    }

    #[cfg(test)]
    pub(crate) fn inner(&self) -> Arc<Log> {
        self.log.clone()
    }

    /// Opens the log that `url` names, creating it if it is missing.
    ///
    /// # Errors
    /// `INVALID` for a wrong URL; `NOT_FOUND` when it is missing and may not be created; `LOCKED`
    /// when another process owns the store; `CORRUPT`, `INCOMPATIBLE`, `DATA_LOSS` for what is there.
    pub async fn open(url: &str) -> Result<VirtualLog> {
        Self::builder(url).open().await
    }

    /// Opens with options that the URL does not carry.
    #[must_use]
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    /// The log's name, as it was opened: where it lives now it may have another.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.log.name
    }

    /// Appends one entry. It is submitted here and now, in call order; the future brings its
    /// position once it is durable. When the window of appends in flight is full the entry waits its
    /// turn, and keeps it.
    ///
    /// # Errors
    /// By the future: `TOO_LARGE`, `SEALED`, `CLOSED`, `DISK_FULL`, `DEADLINE`, `UNAVAILABLE`; see
    /// [`Error::is_in_doubt`] for whether the entry may be in the log all the same.
    pub fn append(&self, payload: impl Into<Bytes>) -> Append {
        let payload = Payloads::One(Payload::Kept(payload.into()));
        let append = self.log.appender.submit(&self.log, payload, WhenFull::Wait);
        append.unwrap_or_else(Append::failed)
    }

    /// As [`append`](Self::append), of bytes that stay the caller's: they are copied straight into the
    /// batch, without an allocation of their own.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_slice(&self, payload: &[u8]) -> Append {
        let payload = Payloads::One(Payload::Lent(payload));
        let append = self.log.appender.submit(&self.log, payload, WhenFull::Wait);
        append.unwrap_or_else(Append::failed)
    }

    /// Appends entries as one batch, atomic and contiguous; the future brings the first position.
    /// At least one entry, at most 1,024 and 4 MiB.
    ///
    /// # Errors
    /// By the future, as [`append`](Self::append); `INVALID` for an empty batch.
    pub fn append_many<P: Into<Bytes>>(&self, payloads: impl IntoIterator<Item = P>) -> Append {
        let payloads = Payloads::Together(payloads.into_iter().map(Into::into).collect());
        let append = self.log.appender.submit(&self.log, payloads, WhenFull::Wait);
        append.unwrap_or_else(Append::failed)
    }

    /// As [`append`](Self::append), but never waits for room in the window.
    ///
    /// # Errors
    /// At the call: `BUSY` when the window is full, and all that is known before sending.
    pub fn append_nowait(&self, payload: impl Into<Bytes>) -> Result<Append> {
        self.log.appender.submit(
            &self.log,
            Payloads::One(Payload::Kept(payload.into())),
            WhenFull::Refuse,
        )
    }

    /// Appends everything that `payloads` gives, pipelined, taking no more from it than there is
    /// room for. `None` when it gave nothing. Stops at the first failure; what came before is in
    /// the log.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_all<P: Into<Bytes>>(
        &self,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Option<Appended>> {
        let mut out = VecDeque::new();
        let mut done: Option<Appended> = None;
        let mut payloads = payloads.into_iter().map(Into::<Bytes>::into).peekable();
        loop {
            let room = out.len() < APPEND_ALL_OUT_MAX;
            if room && let Some(payload) = payloads.peek() {
                let append = match out.is_empty() {
                    true => Ok(self.append(payload.clone())),
                    false => self.append_nowait(payload.clone()),
                };
                match append {
                    Err(error) if error.code() == ErrorCode::Busy => {}
                    append => {
                        // The first failure is the one to tell: that of the oldest.
                        out.push_back(append.unwrap_or_else(Append::failed));
                        payloads.next();
                        continue;
                    }
                }
            }
            let Some(append) = out.pop_front() else { return Ok(done) };
            let position = append.await?;
            let first = done.map_or(position, |done| done.first);
            let count = done.map_or(0, |done| done.count) + 1;
            done = Some(Appended { first, last: position, count });
        }
    }

    /// Appends one entry and waits on this thread, which may write and sync itself: no hand-over to
    /// another thread when nothing else is under way. `timeout` `None`: the log's own. Never call it on
    /// an executor's thread.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_blocking(
        &self,
        payload: impl Into<Bytes>,
        timeout: Option<Duration>,
    ) -> Result<LogPos> {
        let payload = Payloads::One(Payload::Kept(payload.into()));
        wait(self.log.appender.submit_here(&self.log, payload)?, timeout)
    }

    /// As [`append_many`](Self::append_many), waiting as
    /// [`append_blocking`](Self::append_blocking) does.
    ///
    /// # Errors
    /// As [`append_many`](Self::append_many).
    pub fn append_many_blocking<P: Into<Bytes>>(
        &self,
        payloads: impl IntoIterator<Item = P>,
        timeout: Option<Duration>,
    ) -> Result<LogPos> {
        let payloads = Payloads::Together(payloads.into_iter().map(Into::into).collect());
        wait(self.log.appender.submit_here(&self.log, payloads)?, timeout)
    }

    /// Waits until everything that was submitted so far has its answer.
    ///
    /// # Errors
    /// The first failure that nobody was told of.
    pub async fn flush(&self) -> Result<()> {
        self.timed(self.log.appender.flush()).await
    }

    /// The first unwritten position, and whether the log was ended. Linearizable: every append that
    /// was acknowledged before the call is below it.
    ///
    /// # Errors
    /// `UNAVAILABLE`, `DEADLINE`, `CLOSED`.
    pub async fn check_tail(&self) -> Result<Tail> {
        self.timed(self.tail()).await
    }

    async fn tail(&self) -> Result<Tail> {
        loop {
            let view = self.log.view();
            let segment = view.chain.active();
            if let (Life::Ended, Some(stop)) = (&view.chain.life, segment.stop) {
                return Ok(Tail { position: stop, sealed: true });
            }
            let Some(active) = &view.active else { return Err(view.over()) };
            if planted::has(planted::Bug::TailFromMemory) {
                return Ok(Tail { position: segment.to_log(view.known_tail()), sealed: false });
            }
            let tail = match active.check_tail().await {
                Ok(tail) => tail,
                Err(error) => {
                    self.log.if_outdated(&view, segment, error).await?;
                    continue;
                }
            };
            if !tail.sealed {
                view.learn_tail(tail.position);
                return Ok(Tail { position: segment.to_log(tail.position), sealed: false });
            }
            if planted::has(planted::Bug::ShowsUndecidedTail) {
                return Ok(Tail { position: segment.to_log(tail.position), sealed: false });
            }
            self.log.view_beyond(segment.index).await?;
        }
    }

    /// The first position that was not trimmed.
    ///
    /// # Errors
    /// `UNAVAILABLE`, `DEADLINE`, `CLOSED`.
    pub async fn first(&self) -> Result<LogPos> {
        self.timed(self.log.first()).await
    }

    /// Reads `[start, end)`; `None`: up to the tail as it is now. The reader ends there.
    ///
    /// # Errors
    /// `INVALID` for a range that ends before it starts or lies beyond the tail; `TRIMMED` by the
    /// reader.
    pub async fn read(&self, start: LogPos, end: Option<LogPos>) -> Result<Reader> {
        let tail = self.check_tail().await?.position;
        check_range(start, end, tail)?;
        self.log.learn_trim(start).await;
        Ok(Reader::new(self.log.clone(), start, Some(end.unwrap_or(tail))))
    }

    /// The first entry in `[start, end)` (`None`: up to the tail as it is now), if there is one.
    ///
    /// # Errors
    /// As [`read`](Self::read), and `TRIMMED`.
    pub async fn read_next(&self, start: LogPos, end: Option<LogPos>) -> Result<Option<Entry>> {
        let mut reader = self.read(start, end).await?;
        self.timed(reader.next()).await
    }

    /// Follows the log from `start`: entries as they become durable, for ever. Ends only when the
    /// log does.
    ///
    /// # Errors
    /// `INVALID` for a position beyond the tail; `TRIMMED` by the reader.
    pub async fn subscribe(&self, start: impl Into<Start>) -> Result<Reader> {
        let start = match start.into() {
            Start::First => self.first().await?,
            Start::Tail => self.check_tail().await?.position,
            Start::At(position) => {
                check_range(position, None, self.check_tail().await?.position)?;
                self.log.learn_trim(position).await;
                position
            }
        };
        Ok(Reader::new(self.log.clone(), start, None))
    }

    /// Gives up everything below `keep_from`, durably. It cannot be undone. Never passes the tail,
    /// never goes back; says what it did.
    ///
    /// # Errors
    /// `UNAVAILABLE`, `DEADLINE`, `CLOSED`, `INVALID` when the log is open for reading only.
    pub async fn prefix_trim(&self, keep_from: LogPos) -> Result<Trimmed> {
        self.log.check_writable()?;
        self.timed(self.trim(keep_from)).await
    }

    async fn trim(&self, requested: LogPos) -> Result<Trimmed> {
        // Rule D12: learn the tail first, so that nothing is promised about what is not there.
        let tail = self.tail().await?.position;
        let first = self.log.first().await?;
        let (wanted, limited_by) = match requested {
            below if below < first => (first, Some(TrimLimit::AlreadyTrimmed)),
            beyond if beyond > tail => (tail, Some(TrimLimit::Tail)),
            exact => (exact, None),
        };
        if wanted > first && !self.trim_to(wanted).await? {
            // Somebody else trimmed further meanwhile.
            let (effective, limited_by) =
                (self.log.first().await?, Some(TrimLimit::AlreadyTrimmed));
            return Ok(Trimmed { requested, effective, limited_by });
        }
        Ok(Trimmed { requested, effective: wanted, limited_by })
    }

    /// False: the chain begins beyond it already.
    async fn trim_to(&self, wanted: LogPos) -> Result<bool> {
        loop {
            let view = self.log.truncate(wanted, None).await?;
            if wanted < view.chain.first() {
                return Ok(false);
            }
            // The last segment that starts there: the ones before it are dead or empty.
            let segment = view.chain.locate(wanted).unwrap_or(view.chain.active());
            let trimmed = match self.log.try_loglet(&view, segment).await {
                Ok(loglet) => loglet.prefix_trim(segment.to_loglet(wanted)).await,
                Err(error) => Err(error),
            };
            match trimmed {
                Ok(_) => {
                    // A copy that took the loglet's place meanwhile may not have heard of it.
                    let now = self.log.fetch().await?;
                    let same = |of: &Segment| of.loglet == segment.loglet;
                    let stays = now.chain.segment(segment.index).is_none_or(same);
                    if stays && now.home.is(&view.home) {
                        return Ok(true);
                    }
                }
                Err(error) => self.log.if_outdated(&view, segment, error).await?,
            }
        }
    }

    /// Ends the log for good and gives its final tail. Appends say `SEALED` from then on; reading
    /// goes on. Nothing undoes it. Idempotent.
    ///
    /// # Errors
    /// `CONFLICT` when a reconfiguration was under way; `UNAVAILABLE`, `DEADLINE`, `CLOSED`.
    pub async fn seal(&self) -> Result<Tail> {
        self.log.check_writable()?;
        self.timed(async {
            let view = self.log.fetch().await?;
            if view.chain.life == Life::Open
                && let Err(error) = self.log.reconfigure(None, view.chain.version).await
                && self.log.fetch().await?.chain.life != Life::Ended
            {
                return Err(error);
            }
            self.tail().await
        })
        .await
    }

    /// The chain as the MetaStore has it now.
    ///
    /// # Errors
    /// `UNAVAILABLE`, `DEADLINE`, `CLOSED`.
    pub async fn chain(&self) -> Result<Chain> {
        self.log.check_open()?;
        self.timed(async { Ok(self.log.fetch().await?.chain.clone()) }).await
    }

    /// Goes over to another loglet, named as users write it (`local`, `memory`), and gives the new
    /// chain. Only if the chain is still at `if_version` (`None`: the version that this handle saw
    /// last). Appends and reads go on; appends pause between seal and write.
    ///
    /// When it ends early (deadline, dropped future) the reconfiguration goes on: read the chain.
    ///
    /// # Errors
    /// `CONFLICT` when the chain moved on; `INVALID` for a loglet that this store cannot have;
    /// `SEALED`, `DISK_FULL`, `UNAVAILABLE`, `DEADLINE`, `CLOSED`.
    pub async fn reconfig_extend(&self, loglet: &str, if_version: Option<u64>) -> Result<Chain> {
        self.log.check_writable()?;
        let config = self.log.view().home.store.plan(loglet)?;
        let version = if_version.unwrap_or_else(|| self.log.view().chain.version);
        self.timed(async {
            let view = self.log.reconfigure(Some(config), version).await?;
            Ok(view.chain.clone())
        })
        .await
    }

    /// Drops leading sealed segments that hold nothing that was not trimmed, and gives the chain,
    /// unchanged when there are none.
    ///
    /// # Errors
    /// As [`reconfig_extend`](Self::reconfig_extend).
    pub async fn reconfig_truncate(&self, if_version: Option<u64>) -> Result<Chain> {
        self.log.check_writable()?;
        self.timed(async {
            let first = self.log.first().await?;
            let view = self.log.truncate(first, if_version).await?;
            Ok(view.chain.clone())
        })
        .await
    }

    /// Moves the sealed segment with this index to another loglet: copies it, verifies the copy,
    /// re-points the chain. Takes as long as the copy does: no deadline. Readers are not disturbed.
    ///
    /// # Errors
    /// As [`reconfig_extend`](Self::reconfig_extend); `INVALID` when no sealed segment has the index.
    pub async fn reconfig_modify(
        &self,
        segment: u32,
        loglet: &str,
        if_version: Option<u64>,
    ) -> Result<Chain> {
        self.log.check_writable()?;
        let config = self.log.view().home.store.plan(loglet)?;
        let version = if_version.unwrap_or_else(|| self.log.view().chain.version);
        Ok(self.log.modify(segment, config, version).await?.chain.clone())
    }

    /// What [`reconfig_extend`](Self::reconfig_extend) to `loglet` would do. Does nothing.
    ///
    /// # Errors
    /// `INVALID` for a name that is no loglet; `UNAVAILABLE`, `DEADLINE`, `CLOSED`.
    pub async fn plan(&self, loglet: &str) -> Result<Plan> {
        self.log.check_open()?;
        let config = self.log.view().home.store.plan(loglet)?;
        self.timed(async {
            let view = self.log.fetch().await?;
            let tail = self.tail().await?;
            let mut objections = Vec::new();
            if tail.sealed {
                objections.push("the log was ended: nothing can be appended to it".to_owned());
            }
            if view.chain.next.is_some() {
                objections.push("another reconfiguration is under way".to_owned());
            }
            let active = view.chain.active();
            let store = &view.home.store;
            let placed = store.place(config.clone(), Some(&active.config)).await;
            let config = placed.unwrap_or_else(|error| {
                objections.push(error.message().to_owned());
                config
            });
            let placement = |config: &LogletConfig| {
                store.provider(&config.kind).ok().and_then(|provider| provider.placement(config))
            };
            let (before, after) = (placement(&active.config), placement(&config));
            Ok(Plan {
                version: view.chain.version,
                from: active.config.name.clone(),
                to: config.name,
                seals_segment: active.index,
                tail: tail.position,
                bytes_to_move: 0,
                objections,
                before,
                after,
            })
        })
        .await
    }

    /// What became of an append in doubt: its position, or `None` when it is surely not in the log
    /// and never will be.
    ///
    /// # Errors
    /// `UNAVAILABLE` while it is undecided: the segment that it was sent to is still open and does
    /// not hold it. It is decided at the latest when that segment is sealed. `TRIMMED` when the
    /// place where it would be is gone.
    pub async fn resolve(&self, token: &Token) -> Result<Option<LogPos>> {
        self.log.check_open()?;
        self.timed(async {
            let tail = self.tail().await?.position;
            self.log.look_up(token, tail).await
        })
        .await
    }

    /// Reads the whole log and checks every checksum and both ends of every segment. `progress` is
    /// told how many entries were read so far. Takes as long as it takes: no deadline.
    ///
    /// # Errors
    /// Only what keeps it from looking; what it finds is in the report.
    pub async fn verify(&self, mut progress: impl FnMut(u64) + Send) -> Result<VerifyReport> {
        let tail = self.tail().await?.position;
        let first = self.log.first().await?;
        let view = self.log.fetch().await?;
        let mut report = VerifyReport::default();
        for segment in &view.chain.segments {
            let start = segment.start.max(first);
            let stop = segment.stop.unwrap_or(tail).max(start);
            report.segments += 1;
            let mut reader = Reader::new(self.log.clone(), start, Some(stop));
            loop {
                match reader.next_batch(VERIFY_ENTRIES).await {
                    Ok(entries) if entries.is_empty() => break,
                    Ok(entries) => {
                        report.entries += entries.len() as u64;
                        report.bytes += entries.iter().map(|e| e.payload.len() as u64).sum::<u64>();
                        progress(report.entries);
                    }
                    Err(error) if error.code() == ErrorCode::Closed => return Err(error),
                    Err(error) => {
                        let (index, at) = (segment.index, reader.position());
                        let problem = format!("segment {index}, from position {at}: {error}");
                        report.problems.push(problem);
                        break;
                    }
                }
            }
        }
        Ok(report)
    }

    /// Waits for everything that was submitted, then gives the log's resources back. Idempotent;
    /// calls on any clone say `CLOSED` from then on. The store closes with its last log.
    ///
    /// # Errors
    /// The first failure that nobody was told of. It is closed all the same.
    pub async fn close(&self) -> Result<()> {
        if !self.log.close() {
            return Ok(());
        }
        let flushed = match self.log.options.timeout {
            None => self.log.appender.flush().await,
            Some(timeout) => {
                let flush = tokio::time::timeout(timeout, self.log.appender.flush());
                flush.await.unwrap_or_else(|_| Err(timed_out()))
            }
        };
        let released = self.log.view().home.store.release().await;
        flushed.and(released)
    }

    /// Runs a call under the log's own deadline.
    async fn timed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.log.check_open()?;
        match self.log.options.timeout {
            None => call.await,
            Some(timeout) => {
                tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| Err(timed_out()))
            }
        }
    }
}

fn timed_out() -> Error {
    Error::new(
        ErrorCode::Deadline,
        "time ran out: try again, or open the log with a longer `timeout`",
    )
}

fn wait(mut append: Append, timeout: Option<Duration>) -> Result<LogPos> {
    match timeout {
        None => append.wait(),
        Some(timeout) => append.wait_timeout(timeout).unwrap_or_else(|| append.expire()),
    }
}
