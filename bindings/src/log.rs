//! A log as the languages see it: the core's operations, with a deadline for each call.
//!
//! Appends never run on our runtime: they are submitted at the call, in call order, and their
//! [`Op`] only brings the answer. Everything else runs on our runtime, so that neither a host's
//! event loop nor its threads do the work, and is stopped when its `Op` is dropped.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use virtuallog::url::LogUrl;
use virtuallog::{
    Append, Chain, Entry, ErrorCode, LogPos, Plan, Start, Tail, Token, Trimmed, VerifyReport,
    VirtualLog,
};

use crate::error::{Error, Result, panic_guard};
use crate::op::Op;
use crate::per_process::PerProcess;
use crate::pipeline::Pipeline;
use crate::reader::Reader;
use crate::runtime;

/// The deadline of a call where neither the call, the options nor the URL gives one.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How long a call may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timeout {
    /// As long as the handle's own timeout says.
    #[default]
    Default,
    /// As long as it takes.
    Never,
    /// At most so long.
    After(Duration),
}

impl Timeout {
    /// For what takes as long as it has to copy or to read: no deadline unless the call gives one.
    pub(crate) fn or_never(self) -> Timeout {
        if self == Timeout::Default { Timeout::Never } else { self }
    }
}

/// Whether a log is opened to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No lock, no write; beside an owner in another process.
    Read,
    /// As the owner.
    Write,
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "read" => Ok(Mode::Read),
            "write" => Ok(Mode::Write),
            _ => Err(Error::invalid(format!("mode `{word}`: write `read` or `write`"))),
        }
    }
}

/// How to open a log. What is not given here is taken from the URL's parameters, then by default.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether a missing log is created. Default: true.
    pub create: Option<bool>,
    /// Default: write.
    pub mode: Option<Mode>,
    /// What the first segment of a log that is created is kept in.
    pub loglet: Option<String>,
    /// The default deadline of each call. Default: 10 s.
    pub timeout: Timeout,
    /// The limit on one entry, in bytes. Default: 1 MiB; at most 16 MiB.
    pub entry_bytes_max: Option<usize>,
    /// The limit on what is submitted and not answered, in bytes. Default: 32 MiB.
    pub in_flight_bytes_max: Option<usize>,
}

/// A handle to an open log. Methods may be called from any thread.
pub struct Log {
    core: PerProcess<VirtualLog>,
    timeout: Option<Duration>,
    name: String,
}

impl Log {
    /// Opens, and creates if need be, the log that `url` names.
    pub fn open(url: &str, options: Options) -> Op<Log> {
        let url = url.to_owned();
        Op::spawn(async move {
            let given = LogUrl::parse(&url)?.params.timeout;
            let timeout = match options.timeout {
                Timeout::Default => given.unwrap_or(Some(TIMEOUT_DEFAULT)),
                Timeout::Never => None,
                Timeout::After(timeout) => Some(timeout),
            };
            let core = within(timeout, "open", builder(&url, options).open()).await?;
            let name = core.name().to_owned();
            Ok(Log { core: PerProcess::new(core), timeout, name })
        })
    }

    /// The log's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The deadline of calls that name none. `None`: none.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Appends one entry; waits its turn when the window is full. Gives its position.
    pub fn append(&self, payload: Bytes, timeout: Timeout) -> Op<u64> {
        self.submit(timeout, |core| Ok(core.append(payload)))
    }

    /// As [`append`](Self::append), of bytes that stay the host's: no allocation of their own.
    pub fn append_slice(&self, payload: &[u8], timeout: Timeout) -> Op<u64> {
        self.submit(timeout, |core| Ok(core.append_slice(payload)))
    }

    /// Appends one batch, atomically and contiguously. Gives its first position.
    pub fn append_many(&self, payloads: Vec<Bytes>, timeout: Timeout) -> Op<u64> {
        self.submit(timeout, |core| Ok(core.append_many(payloads)))
    }

    /// As [`append`](Self::append), but `BUSY` at once when the window is full.
    ///
    /// # Errors
    /// `BUSY`, `CLOSED`.
    pub fn append_nowait(&self, payload: Bytes, timeout: Timeout) -> Result<Op<u64>> {
        let append = panic_guard(|| Ok(self.core.get()?.append_nowait(payload)?))?;
        Ok(self.answer(append, timeout))
    }

    fn submit(
        &self,
        timeout: Timeout,
        append: impl FnOnce(&VirtualLog) -> Result<Append>,
    ) -> Op<u64> {
        match panic_guard(|| append(self.core.get()?)) {
            Ok(append) => self.answer(append, timeout),
            Err(error) => Op::ready(Err(error)),
        }
    }

    fn answer(&self, append: Append, timeout: Timeout) -> Op<u64> {
        let timeout = self.resolve_timeout(timeout);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Op::append(append, deadline)
    }

    /// Appends on this thread, which writes and syncs itself where that saves a hop. Never call it
    /// on an executor's thread.
    ///
    /// # Errors
    /// The append's own.
    pub fn append_blocking(&self, payload: Bytes, timeout: Timeout) -> Result<u64> {
        let timeout = self.resolve_timeout(timeout);
        panic_guard(|| {
            let _entered = runtime::enter()?;
            Ok(self.core.get()?.append_blocking(payload, timeout)?.0)
        })
    }

    /// As [`append_blocking`](Self::append_blocking), of one batch.
    ///
    /// # Errors
    /// The append's own.
    pub fn append_many_blocking(&self, payloads: Vec<Bytes>, timeout: Timeout) -> Result<u64> {
        let timeout = self.resolve_timeout(timeout);
        panic_guard(|| {
            let _entered = runtime::enter()?;
            Ok(self.core.get()?.append_many_blocking(payloads, timeout)?.0)
        })
    }

    /// Appends many entries one after the other, pipelined, with back-pressure. The timeout
    /// bounds each wait for answers.
    ///
    /// # Errors
    /// `CLOSED`.
    pub fn pipeline(&self, timeout: Timeout) -> Result<Pipeline> {
        Ok(Pipeline::new(self.core.get()?.clone(), self.resolve_timeout(timeout)))
    }

    /// Waits for all that was submitted so far; the first failure that nobody saw is its error.
    pub fn flush(&self, timeout: Timeout) -> Op<()> {
        self.call(timeout, "flush", |core| async move { core.flush().await })
    }

    /// Where the log ends.
    pub fn check_tail(&self, timeout: Timeout) -> Op<Tail> {
        self.call(timeout, "check_tail", |core| async move { core.check_tail().await })
    }

    /// The first position that can be read.
    pub fn first(&self, timeout: Timeout) -> Op<u64> {
        self.call(timeout, "first", |core| async move { Ok(core.first().await?.0) })
    }

    /// Reads from `start` to `end`, or to the tail as checked now.
    pub fn read(&self, start: u64, end: Option<u64>, timeout: Timeout) -> Op<Reader> {
        self.call(timeout, "read", move |core| async move {
            Ok(Reader::new(core.read(LogPos(start), end.map(LogPos)).await?))
        })
    }

    /// The first entry at or after `start` and below `end` (or the tail as checked now).
    pub fn read_next(&self, start: u64, end: Option<u64>, timeout: Timeout) -> Op<Option<Entry>> {
        self.call(timeout, "read_next", move |core| async move {
            core.read_next(LogPos(start), end.map(LogPos)).await
        })
    }

    /// Follows the log from `start` on.
    pub fn subscribe(&self, start: Start, timeout: Timeout) -> Op<Reader> {
        self.call(timeout, "subscribe", move |core| async move {
            Ok(Reader::new(core.subscribe(start).await?))
        })
    }

    /// Gives up everything below `keep_from`.
    pub fn prefix_trim(&self, keep_from: u64, timeout: Timeout) -> Op<Trimmed> {
        self.call(timeout, "prefix_trim", move |core| async move {
            core.prefix_trim(LogPos(keep_from)).await
        })
    }

    /// Ends the log for good.
    pub fn seal(&self, timeout: Timeout) -> Op<Tail> {
        self.call(timeout, "seal", |core| async move { core.seal().await })
    }

    /// The newest chain.
    pub fn chain(&self, timeout: Timeout) -> Op<Chain> {
        self.call(timeout, "chain", |core| async move { core.chain().await })
    }

    /// Goes on in a new loglet.
    pub fn reconfig_extend(
        &self,
        loglet: String,
        if_version: Option<u64>,
        timeout: Timeout,
    ) -> Op<Chain> {
        self.call(timeout, "reconfig_extend", move |core| async move {
            core.reconfig_extend(&loglet, if_version).await
        })
    }

    /// Drops segments that were trimmed whole.
    pub fn reconfig_truncate(&self, if_version: Option<u64>, timeout: Timeout) -> Op<Chain> {
        self.call(timeout, "reconfig_truncate", move |core| async move {
            core.reconfig_truncate(if_version).await
        })
    }

    /// Moves a sealed segment into another loglet. Copies it, so it has no deadline unless one is given;
    /// when that passes the move may still complete: read the chain.
    pub fn reconfig_modify(
        &self,
        segment: u32,
        loglet: String,
        if_version: Option<u64>,
        timeout: Timeout,
    ) -> Op<Chain> {
        self.call(timeout.or_never(), "reconfig_modify", move |core| async move {
            core.reconfig_modify(segment, &loglet, if_version).await
        })
    }

    /// What [`reconfig_extend`](Self::reconfig_extend) would do.
    pub fn plan(&self, loglet: String, timeout: Timeout) -> Op<Plan> {
        self.call(timeout, "plan", move |core| async move { core.plan(&loglet).await })
    }

    /// Where an append in doubt ended up; `None`: surely not in the log.
    pub fn resolve(&self, token: &str, timeout: Timeout) -> Op<Option<u64>> {
        match Token::from_str(token) {
            Err(error) => Op::ready(Err(error.into())),
            Ok(token) => self.call(timeout, "resolve", move |core| async move {
                Ok(core.resolve(&token).await?.map(u64::from))
            }),
        }
    }

    /// Reads the whole log and checks every checksum. Has no deadline unless one is given.
    pub fn verify(&self, timeout: Timeout) -> Op<VerifyReport> {
        self.call(timeout.or_never(), "verify", |core| async move { core.verify(|_| ()).await })
    }

    /// Flushes and gives the handle's resources back; later calls say `CLOSED`. Idempotent. When
    /// time runs out, closing goes on.
    pub fn close(&self, timeout: Timeout) -> Op<()> {
        self.call(timeout, "close", |core| to_its_end(async move { core.close().await }))
    }

    fn call<T, F>(
        &self,
        timeout: Timeout,
        what: &'static str,
        call: impl FnOnce(VirtualLog) -> F,
    ) -> Op<T>
    where
        T: Send + 'static,
        F: Future<Output = virtuallog::Result<T>> + Send + 'static,
    {
        match self.core.get() {
            Err(error) => Op::ready(Err(error)),
            Ok(core) => Op::spawn(within(self.resolve_timeout(timeout), what, call(core.clone()))),
        }
    }

    fn resolve_timeout(&self, timeout: Timeout) -> Option<Duration> {
        match timeout {
            Timeout::Default => self.timeout,
            Timeout::Never => None,
            Timeout::After(timeout) => Some(timeout),
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Creates a log; `CONFLICT` if there is one of that name.
pub fn create(url: &str, loglet: Option<String>, timeout: Timeout) -> Op<()> {
    let url = url.to_owned();
    Op::spawn(within(or_default(timeout), "create", async move {
        virtuallog::create(&url, loglet.as_deref()).await
    }))
}

/// Deletes a log and all its entries; `NOT_FOUND` if there is none.
pub fn delete(url: &str, timeout: Timeout) -> Op<()> {
    let url = url.to_owned();
    let call = async move { virtuallog::delete(&url).await };
    Op::spawn(within(or_default(timeout), "delete", call))
}

/// The names of the logs in a store, sorted.
pub fn logs(url: &str, timeout: Timeout) -> Op<Vec<String>> {
    let url = url.to_owned();
    let call = async move { virtuallog::logs(&url).await };
    Op::spawn(within(or_default(timeout), "logs", call))
}

/// The deadline of a call that no handle has one for.
pub(crate) fn or_default(timeout: Timeout) -> Option<Duration> {
    match timeout {
        Timeout::Default => Some(TIMEOUT_DEFAULT),
        Timeout::Never => None,
        Timeout::After(timeout) => Some(timeout),
    }
}

/// The core gets no deadline of its own: a call may have a longer one here than its handle.
fn builder(url: &str, options: Options) -> virtuallog::Builder {
    let mut builder = VirtualLog::builder(url).timeout(None);
    if let Some(create) = options.create {
        builder = builder.create(create);
    }
    if options.mode == Some(Mode::Read) {
        builder = builder.read_only();
    }
    if let Some(loglet) = &options.loglet {
        builder = builder.loglet(loglet);
    }
    if let Some(bytes) = options.entry_bytes_max {
        builder = builder.entry_bytes_max(bytes);
    }
    if let Some(bytes) = options.in_flight_bytes_max {
        builder = builder.in_flight_bytes_max(bytes);
    }
    builder
}

/// Closing goes on when nobody waits for it any more.
pub(crate) async fn to_its_end(
    closing: impl Future<Output = virtuallog::Result<()>> + Send + 'static,
) -> virtuallog::Result<()> {
    tokio::spawn(closing).await.unwrap_or_else(|panic| {
        let error = virtuallog::Error::new(ErrorCode::Internal, "closing panicked");
        Err(error.with_source(panic))
    })
}

/// A deadline for calls that have no outcome in doubt: they may simply be made again.
pub(crate) async fn within<T>(
    timeout: Option<Duration>,
    what: &str,
    call: impl Future<Output = virtuallog::Result<T>>,
) -> Result<T> {
    match timeout {
        None => Ok(call.await?),
        Some(timeout) => match tokio::time::timeout(timeout, call).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Error::deadline(what)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What copies or reads as much as there is takes as long as that does, whatever the handle's deadline.
    #[test]
    fn a_handles_deadline_is_not_for_copies() {
        let folder = tempfile::tempdir().expect("there is room");
        let url = format!("file:{}/log", folder.path().display());
        let mut log = Log::open(&url, Options::default()).wait().expect("it opens");
        for _ in 0..4 {
            log.append_slice(&[7; 1 << 20], Timeout::Never).wait().expect("it appends");
        }
        log.reconfig_extend("local".into(), None, Timeout::Never).wait().expect("it extends");
        log.timeout = Some(Duration::ZERO);
        let moved = log.reconfig_modify(0, "local".into(), None, Timeout::Default).wait();
        assert_eq!(moved.expect("it has no deadline").segments.len(), 2);
        let report = log.verify(Timeout::Default).wait().expect("it has no deadline");
        assert_eq!(report.entries, 4);
        // The deadline is there for the others, and for these where it is given. On another log, since
        // what goes on behind a deadline may be in the way of the next call: that one is a CONFLICT then.
        let mut other = Log::open(&format!("{url}2"), Options::default()).wait().expect("it opens");
        other.timeout = Some(Duration::ZERO);
        let short = Timeout::After(Duration::ZERO);
        for outcome in [
            other.reconfig_extend("local".into(), None, Timeout::Default).wait(),
            log.reconfig_modify(0, "local".into(), None, short).wait(),
        ] {
            assert_eq!(outcome.expect_err("it has none to spend").code, ErrorCode::Deadline);
        }
    }
}
