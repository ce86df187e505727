//! One log as this process sees it: the cached chain, its loglets, and how it learns of newer ones.
//!
//! The cached chain may be stale, and only two things show it: `Sealed` on append and a sealed tail
//! (paper §3.2). Whoever meets one comes to [`Log::view_beyond`], which waits for whoever is
//! reconfiguring, and completes the work itself if nobody does.
//!
//! A log that goes to another store shows nothing on append. So while its open segment is in another
//! store than its chain, a task watches the register, and follows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;
use virtuallog_protocol::chain::{Chain, Life, Segment};
use virtuallog_protocol::{LogPos, LogletPos};

use crate::appender::Appender;
use crate::env::{self, planted};
use crate::error::{Error, ErrorCode, Result};
use crate::home::Home;
use crate::loglet::{Loglet, LogletError};
use crate::loglets::elsewhere;
use crate::metastore::{MetaError, Versioned};
use crate::store::{Options, Store};
use crate::token::Token;

/// How long somebody else has to finish a reconfiguration before we do it. Jittered by up to as much
/// again, so that many who wait do not all begin at once.
const GRACE: Duration = Duration::from_millis(100);

/// Between two tries to follow a log that has moved to where it cannot be reached.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

/// How long opening a log waits for its tail, which is only needed to spare reading later.
const FIRST_TAIL_TIMEOUT: Duration = Duration::from_secs(1);

/// A log of a store, opened.
#[derive(Debug)]
pub(crate) struct Log {
    /// As it was opened.
    pub(crate) name: String,
    pub(crate) options: Options,
    pub(crate) runtime: Handle,
    pub(crate) appender: Appender,
    view: ArcSwap<View>,
    /// Held by the one task that completes a reconfiguration, and by whoever changes the view.
    pub(crate) completing: tokio::sync::Mutex<()>,
    closed: watch::Sender<bool>,
    /// Whether a task watches for the log to move.
    watched: AtomicBool,
}

/// One version of the chain, with its active loglet at hand.
#[derive(Debug)]
pub(crate) struct View {
    /// The register that the chain stands in.
    pub(crate) home: Arc<Home>,
    pub(crate) chain: Chain,
    /// `None` once the log was ended.
    pub(crate) active: Option<Arc<dyn Loglet>>,
    /// A tail of the active loglet that was seen: only ever too low.
    known_tail: AtomicU64,
    /// Loglets of this log that were opened from here, by number; shared between views of one home.
    opened: Arc<Mutex<HashMap<u32, Arc<dyn Loglet>>>>,
}

impl View {
    /// Opens the open segment of `chain`, or of a newer one if that loglet is gone by now.
    async fn open(mut home: Arc<Home>, mut chain: Chain, old: Option<&View>) -> Result<View> {
        loop {
            // What was opened from another store closes with it.
            let opened = match old.filter(|old| Arc::ptr_eq(&home, &old.home)) {
                Some(old) => old.opened.clone(),
                None => Arc::default(),
            };
            let active = match chain.life {
                Life::Open => {
                    match open_loglet(&home.store, &chain, chain.active(), &opened).await {
                        Ok(loglet) => Some(loglet),
                        // Replaced and retired since the chain was read, unless its register still
                        // names it.
                        Err(error @ LogletError::Unknown(_)) => {
                            match home.newer(&chain).await? {
                                Some(newer) => (home, chain) = newer,
                                None => return Err(read_error(chain.active(), error)),
                            }
                            continue;
                        }
                        Err(error) => return Err(read_error(chain.active(), error)),
                    }
                }
                _ => None,
            };
            let segment = chain.active();
            let known = match old {
                Some(old) if old.chain.active().loglet == segment.loglet => old.known_tail(),
                _ => segment.base,
            };
            opened
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|number, _| chain.segments.iter().any(|it| it.loglet == *number));
            return Ok(View { home, chain, active, known_tail: AtomicU64::new(known.0), opened });
        }
    }

    pub(crate) fn known_tail(&self) -> LogletPos {
        LogletPos(self.known_tail.load(Ordering::Acquire))
    }

    pub(crate) fn learn_tail(&self, tail: LogletPos) {
        self.known_tail.fetch_max(tail.0, Ordering::AcqRel);
    }

    /// Why nothing can be appended to a log that is over.
    pub(crate) fn over(&self) -> Error {
        Error::new(ErrorCode::Sealed, "the log was ended by `seal`: it can only be read")
    }

    /// A loglet's answer to an append as the caller sees it.
    pub(crate) fn append_error(&self, error: LogletError, token: &Token) -> Error {
        let segment = self.chain.active();
        match error {
            LogletError::Refused(error) => error,
            LogletError::OutOfOrder { .. } => Error::new(
                ErrorCode::Unavailable,
                "an earlier append of this writer failed: this one is surely not in the log",
            ),
            LogletError::InDoubt(_) if planted::has(planted::Bug::DoubtIsFailure) => {
                Error::new(ErrorCode::Unavailable, "surely not in the log")
            }
            LogletError::InDoubt(source) => {
                let message = "the outcome of the append is not known: resolve the error's token \
                               before appending it again";
                // That the disk is full helps to know; all else comes to the same.
                let full = source.downcast_ref::<Error>();
                let error = match full.filter(|why| why.code() == ErrorCode::DiskFull) {
                    Some(full) => Error::new(full.code(), format!("{}; {message}", full.message())),
                    None => Error::new(ErrorCode::Unavailable, message),
                };
                error.in_doubt().with_source(source).with_token(token.clone())
            }
            // Only what was refused is surely not stored (the contract's words).
            other => read_error(segment, other).in_doubt().with_token(token.clone()),
        }
    }
}

/// A loglet's failure as the caller sees it.
pub(crate) fn read_error(segment: &Segment, error: LogletError) -> Error {
    let index = segment.index;
    match error {
        LogletError::Refused(error) => error,
        LogletError::Trimmed { first_kept } => {
            trimmed(segment.to_log(first_kept.max(segment.base)))
        }
        LogletError::Sealed => Error::new(ErrorCode::Sealed, format!("segment {index} is sealed")),
        LogletError::Corrupt(what) => {
            Error::new(ErrorCode::Corrupt, format!("segment {index}: {what}"))
        }
        LogletError::Unknown(id) => Error::new(
            ErrorCode::DataLoss,
            format!("segment {index} should be in loglet {id}, which is not there: restore it"),
        ),
        error @ (LogletError::Unavailable(_)
        | LogletError::InDoubt(_)
        | LogletError::OutOfOrder { .. }) => {
            Error::new(ErrorCode::Unavailable, format!("segment {index}: {error}"))
                .with_source(error)
        }
    }
}

pub(crate) fn trimmed(first_kept: LogPos) -> Error {
    let message = format!("trimmed: the first position that is kept is {first_kept}");
    Error::new(ErrorCode::Trimmed, message).at(first_kept)
}

pub(crate) fn deleted(name: &str) -> Error {
    Error::new(ErrorCode::NotFound, format!("log `{name}` was deleted: create it again"))
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorCode::Closed, "the log was closed: open it again")
}

pub(crate) fn meta_error(error: MetaError) -> Error {
    match error {
        MetaError::Refused(error) => error,
        MetaError::Corrupt(what) => Error::new(
            ErrorCode::Corrupt,
            format!("the MetaStore is damaged: {what}; restore it from a copy"),
        ),
        MetaError::Conflict { current } => Error::new(
            ErrorCode::Conflict,
            format!("somebody else changed the chain first: it is at version {}", current.version),
        ),
        MetaError::Unavailable(source) => {
            Error::new(ErrorCode::Unavailable, "the MetaStore does not answer: try again")
                .with_source(source)
        }
    }
}

/// The chain in a register, or `None` when there is no log of that name.
pub(crate) fn decode_chain(name: &str, versioned: &Versioned) -> Result<Option<Chain>> {
    use virtuallog_protocol::ChainError;
    let Some(value) = &versioned.value else { return Ok(None) };
    let chain = Chain::decode(value).map_err(|error| match error {
        ChainError::Format(_) => Error::new(
            ErrorCode::Incompatible,
            format!("log `{name}`: {error}; use a newer version of virtuallog"),
        ),
        error => Error::new(ErrorCode::Corrupt, format!("log `{name}`: {error}; restore it")),
    })?;
    if chain.version == versioned.version {
        return Ok(Some(chain));
    }
    let message = format!(
        "log `{name}`: the chain says version {}, its register {}; restore it",
        chain.version, versioned.version
    );
    Err(Error::new(ErrorCode::Corrupt, message))
}

impl Log {
    pub(crate) async fn new(
        name: String,
        home: Arc<Home>,
        options: Options,
        chain: Chain,
    ) -> Result<Arc<Log>> {
        let log = Self::at(name, home, options, chain).await?;
        let view = log.view();
        if let Some(active) = &view.active
            // It can be read all the same, and appends will say what is wrong.
            && let Ok(Ok(tail)) = tokio::time::timeout(FIRST_TAIL_TIMEOUT, active.check_tail()).await
        {
            view.learn_tail(tail.position);
        }
        Ok(log)
    }

    /// A log to be reconfigured and nothing else: its tail is not looked for.
    pub(crate) async fn bare(
        name: String,
        store: Arc<Store>,
        options: Options,
        chain: Chain,
    ) -> Result<Arc<Log>> {
        let home = Arc::new(Home { name: name.clone(), store });
        Self::at(name, home, options, chain).await
    }

    pub(crate) async fn at(
        name: String,
        home: Arc<Home>,
        options: Options,
        chain: Chain,
    ) -> Result<Arc<Log>> {
        let view = View::open(home, chain, None).await?;
        let log = Arc::new(Log {
            name,
            options,
            runtime: Handle::current(),
            appender: Appender::new(),
            view: ArcSwap::from_pointee(view),
            completing: tokio::sync::Mutex::new(()),
            closed: watch::Sender::new(false),
            watched: AtomicBool::new(false),
        });
        log.watch_for_move();
        Ok(log)
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        match *self.closed.borrow() {
            true => Err(closed()),
            false => Ok(()),
        }
    }

    /// Returns when the log is closed.
    pub(crate) async fn until_closed(&self) {
        // The sender is ours, so waiting ends only with what is waited for.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        match self.options.read_only {
            false => Ok(()),
            true => Err(Error::invalid("the log was opened with `mode=read`: open it for writing")),
        }
    }

    /// True for the one call that closes it.
    pub(crate) fn close(&self) -> bool {
        self.appender.close();
        !self.closed.send_replace(true)
    }

    /// Reads the newest chain from the MetaStore and makes it the cached one.
    pub(crate) async fn fetch(self: &Arc<Self>) -> Result<Arc<View>> {
        let home = self.view().home.clone();
        self.learn(&home, &home.get().await?).await
    }

    /// Makes what was read from a register the cached chain, if it is newer; what the register leads
    /// to, if the log has moved.
    pub(crate) async fn learn(
        self: &Arc<Self>,
        home: &Arc<Home>,
        versioned: &Versioned,
    ) -> Result<Arc<View>> {
        let chain = decode_chain(&home.name, versioned)?.ok_or_else(|| deleted(&self.name))?;
        if chain.log != self.view().chain.log {
            return Err(deleted(&self.name));
        }
        let settled = home.clone().settle(chain).await?;
        let (home, chain) = settled.ok_or_else(|| deleted(&self.name))?;
        self.install(home, chain).await
    }

    /// Makes `chain` the cached one, if it is newer.
    pub(crate) async fn install(
        self: &Arc<Self>,
        home: Arc<Home>,
        chain: Chain,
    ) -> Result<Arc<View>> {
        let old = self.view();
        if chain.moment() <= old.chain.moment() {
            return Ok(old);
        }
        let view = Arc::new(View::open(home, chain, Some(&old)).await?);
        // Two may install at once: the newer one stays.
        self.view.rcu(|current| match current.chain.moment() < view.chain.moment() {
            true => view.clone(),
            false => current.clone(),
        });
        self.watch_for_move();
        Ok(self.view())
    }

    /// Sees to it that somebody follows if the log is about to move: its open segment is in another
    /// store already. It may then not be met by a seal for long, and the old store be gone by then.
    fn watch_for_move(self: &Arc<Self>) {
        if !is_leaving(&self.view()) || self.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let (weak, mut closed) = (Arc::downgrade(self), self.closed.subscribe());
        self.runtime.spawn(env::task(async move {
            while let Some(log) = weak.upgrade() {
                let view = log.view();
                if !is_leaving(&view) {
                    log.watched.store(false, Ordering::Release);
                    // Perhaps it is again, and whoever saw it found the flag up.
                    return log.watch_for_move();
                }
                drop(log);
                let (home, after) = (view.home.clone(), view.chain.version);
                drop(view);
                let changed = tokio::select! {
                    biased;
                    _ = closed.wait_for(|closed| *closed) => return,
                    changed = home.store.metastore.watch(&home.name, after) => changed,
                };
                let Some(log) = weak.upgrade() else { return };
                let learned = match &changed {
                    Ok(versioned) => log.learn(&home, versioned).await.map(drop),
                    Err(error) => Err(Error::new(ErrorCode::Unavailable, error.to_string())),
                };
                if let Err(error) = learned {
                    if error.code() == ErrorCode::NotFound {
                        return;
                    }
                    tracing::debug!(log = log.name, %error, "a log that moves is not followed yet");
                    drop(log);
                    tokio::time::sleep(FOLLOW_PAUSE).await;
                }
            }
        }));
    }

    /// The loglet of a segment.
    pub(crate) async fn loglet(&self, view: &View, segment: &Segment) -> Result<Arc<dyn Loglet>> {
        let opened = self.try_loglet(view, segment).await;
        opened.map_err(|error| read_error(segment, error))
    }

    /// The loglet of a segment, or what its provider says.
    pub(crate) async fn try_loglet(
        &self,
        view: &View,
        segment: &Segment,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        open_loglet(&view.home.store, &view.chain, segment, &view.opened).await
    }

    /// Waits until the chain shows the segment with this index closed (or gone), and gives that
    /// view. If nobody brings it there within the grace time, does it itself.
    pub(crate) async fn view_beyond(self: &Arc<Self>, index: u32) -> Result<Arc<View>> {
        let mut view = self.view();
        if !is_open(&view.chain, index) {
            return Ok(view);
        }
        view = self.fetch().await?;
        while is_open(&view.chain, index) {
            let home = view.home.clone();
            let watch = home.store.metastore.watch(&home.name, view.chain.version);
            match tokio::time::timeout(grace(), watch).await {
                Ok(versioned) => view = self.learn(&home, &versioned.map_err(meta_error)?).await?,
                Err(_) if self.options.read_only => view = self.fetch().await?,
                Err(_) => view = self.roll_forward(index).await?,
            }
        }
        Ok(view)
    }

    /// Whether a loglet's failure only shows that `view` is old: then there is a newer one now.
    ///
    /// # Errors
    /// The failure itself when it is not; what keeps the chain from being read.
    pub(crate) async fn if_outdated(
        self: &Arc<Self>,
        view: &View,
        segment: &Segment,
        error: LogletError,
    ) -> Result<()> {
        let gone = matches!(error, LogletError::Unknown(_) | LogletError::Trimmed { .. });
        if gone && self.fetch().await?.chain.moment() > view.chain.moment() {
            return Ok(());
        }
        Err(read_error(segment, error))
    }

    /// The position of the first entry that may be read.
    pub(crate) async fn first(self: &Arc<Self>) -> Result<LogPos> {
        loop {
            let view = self.fetch().await?;
            match self.first_of(&view).await {
                Ok(first) => return Ok(first),
                Err((segment, error)) => self.if_outdated(&view, &segment, error).await?,
            }
        }
    }

    /// Lets the loglet of a closed segment hear what was trimmed of it, before it is read from
    /// `position`: one replica alone may have missed that, and the cached chain that the segment is
    /// gone as a whole. If too few can tell, what is there is read.
    pub(crate) async fn learn_trim(self: &Arc<Self>, position: LogPos) {
        let view = self.view();
        let Some(segment) = view.chain.locate(position).filter(|s| s.stop.is_some()) else {
            return;
        };
        let trim_point = async {
            let loglet = self.try_loglet(&view, segment).await?;
            loglet.trim_point().await
        };
        if planted::has(planted::Bug::ReadsByOldChain) {
            let _ = tokio::time::timeout(FIRST_TAIL_TIMEOUT, trim_point).await;
            return;
        }
        let both = futures_util::future::join(self.fetch(), trim_point);
        // Not for as long as a trim point itself would be waited for.
        let _ = tokio::time::timeout(FIRST_TAIL_TIMEOUT, both).await;
    }

    async fn first_of(&self, view: &View) -> Result<LogPos, (Segment, LogletError)> {
        for segment in &view.chain.segments {
            let failed = |error| (segment.clone(), error);
            let loglet = self.try_loglet(view, segment).await;
            let point = loglet.map_err(failed)?.trim_point().await.map_err(failed)?;
            let first = segment.to_log(point.max(segment.base));
            match segment.stop {
                Some(stop) if first >= stop && segment.index != view.chain.active().index => {}
                _ => return Ok(first),
            }
        }
        unreachable!("the active segment ends the loop")
    }
}

/// Whether the open segment is in another store than the chain.
fn is_leaving(view: &View) -> bool {
    view.chain.life == Life::Open && view.chain.active().config.kind == elsewhere::KIND
}

pub(crate) fn is_open(chain: &Chain, index: u32) -> bool {
    chain.segment(index).is_some_and(|segment| segment.stop.is_none()) && chain.life == Life::Open
}

fn grace() -> Duration {
    let jitter = (env::random_u128() % 1000) as u32;
    GRACE + GRACE * jitter / 1000
}

async fn open_loglet(
    store: &Store,
    chain: &Chain,
    segment: &Segment,
    opened: &Mutex<HashMap<u32, Arc<dyn Loglet>>>,
) -> Result<Arc<dyn Loglet>, LogletError> {
    let lock = || opened.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loglet) = lock().get(&segment.loglet) {
        return Ok(loglet.clone());
    }
    let provider = store.provider(&segment.config.kind).map_err(LogletError::Refused)?;
    let loglet = provider.open(chain.loglet_id(segment), &segment.config).await?;
    Ok(lock().entry(segment.loglet).or_insert(loglet).clone())
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
