//! Reconfiguration: write the target, seal, write the new chain (paper §3.2; rules D1 to D18).
//!
//! 1. *Propose*: write the complete target into the chain's `next`. From here on anyone can finish.
//! 2. *Prepare*: make the target's loglet; if it cannot be made, take `next` back.
//! 3. *Seal* the active loglet and check its tail: the boundary.
//! 4. *Install*: write the chain with the segment closed there and the target open.
//!
//! Steps 2 to 4 are idempotent, so that any number of parties may do them at once: one conditional
//! write wins, and the others read what it wrote. They run as a task of their own, which a dropped
//! future cannot strand. Appends and tail checks wait only between 3 and 4.
//!
//! Every change is made to one view and written where that view was read. If the log has moved to
//! another store meanwhile the write fails, and what it fails with is the chain there.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{StreamExt, TryStreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use virtuallog_protocol::chain::{Chain, ChainError, Life, LogletConfig, Next, Segment};
use virtuallog_protocol::{LogPos, LogletId, LogletPos, StampedBatch};

use crate::env::{self, planted, sometimes};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Log, View, meta_error, read_error};
use crate::loglet::{CREATE_AGAIN, CREATE_PAUSE, Loglet, LogletError};
use crate::metastore::MetaError;

/// How often one attempt replaces a target that cannot be made.
const RETARGETS_MAX: u32 = 2;
/// How long it may take to learn whether the active loglet is sealed, when its successor cannot be made.
const SEAL_LOOK: Duration = Duration::from_secs(4);
/// Bytes that a copy of a sealed segment reads at a time.
const COPY_BYTES: usize = 1 << 20;

/// Batches of a copy that are out at once, at most.
const FILLS_MAX: usize = 64;

/// A copy of a sealed segment that is to take its place.
struct Copy {
    index: u32,
    number: u32,
    config: LogletConfig,
    version: u64,
    /// Bytes that were copied so far.
    copied: watch::Sender<u64>,
}

fn chain_error(error: ChainError) -> Error {
    match error {
        ChainError::Busy => Error::new(
            ErrorCode::Conflict,
            "another reconfiguration is under way: read the chain and decide again",
        ),
        ChainError::Over => Error::new(ErrorCode::Sealed, "the log was ended: its chain is final"),
        ChainError::NoSegment(index) => Error::invalid(format!(
            "no sealed segment has index {index}: see the chain for those that have"
        )),
        ChainError::TooLong => Error::new(ErrorCode::TooLarge, error.to_string()),
        error => Error::new(ErrorCode::Internal, error.to_string()).with_source(error),
    }
}

impl Log {
    /// Writes the next version of the chain where `view` was read. `Ok(Err(view))`: another version
    /// was there.
    async fn write(
        self: &Arc<Self>,
        view: &View,
        chain: &Chain,
    ) -> Result<Result<Arc<View>, Arc<View>>> {
        let home = &view.home;
        match home.put(chain).await {
            Ok(()) => Ok(Ok(self.install(home.clone(), chain.clone()).await?)),
            Err(MetaError::Conflict { current }) => {
                sometimes!("a conditional put was lost to another one");
                Ok(Err(self.learn(home, &current).await?))
            }
            Err(error @ MetaError::Unavailable(_)) => {
                // It may have been written: our nonce says so (rule D6).
                let view = self.fetch().await?;
                match view.chain.moment() {
                    moment if moment < chain.moment() => Err(meta_error(error)),
                    _ if view.chain.nonce == chain.nonce => Ok(Ok(view)),
                    _ => Ok(Err(view)),
                }
            }
            Err(error) => Err(meta_error(error)),
        }
    }

    /// Goes over to another loglet, or ends the log (`None`), if the chain is still at `version`.
    pub(crate) async fn reconfigure(
        self: &Arc<Self>,
        config: Option<LogletConfig>,
        version: u64,
    ) -> Result<Arc<View>> {
        let (log, moves) = (self.clone(), self.view().chain.moves);
        let task = self.runtime.spawn(env::task(async move {
            let begun = Instant::now();
            let mut view = log.fetch().await?;
            if view.chain.moment() != (moves, version) {
                return Err(moved_on(version, &view));
            }
            if view.chain.next.is_some() {
                log.complete(view).await?;
                return Err(moved_on(version, &log.view()));
            }
            loop {
                let error = match log.propose(&view, config.as_ref(), version).await {
                    Err(error) if error.code() == ErrorCode::Unavailable => error,
                    outcome => return outcome,
                };
                let again = log.fetch().await?;
                // Proposed and taken back, and nothing else.
                let taken_back = again.chain.next.is_none()
                    && again.chain.moment() == (moves, view.chain.version + 2)
                    && again.chain.active() == view.chain.active();
                if !taken_back || begun.elapsed() > CREATE_AGAIN {
                    return Err(error);
                }
                view = again;
                tokio::time::sleep(CREATE_PAUSE).await;
            }
        }));
        task.await.unwrap_or_else(|error| Err(task_failed(&error)))
    }

    /// Places and writes the next target, and completes that, on a chain that came from `version`.
    async fn propose(
        self: &Arc<Self>,
        view: &Arc<View>,
        planned: Option<&LogletConfig>,
        version: u64,
    ) -> Result<Arc<View>> {
        let config = match planned.cloned() {
            Some(planned) => {
                Some(view.home.store.place(planned, Some(&view.chain.active().config)).await?)
            }
            None => None,
        };
        let proposed = view.chain.propose(config, env::random_u128()).map_err(chain_error)?;
        let target = proposed.next.clone();
        let view = match self.write(view, &proposed).await? {
            Ok(view) => self.complete(view).await?,
            Err(view) => return Err(moved_on(version, &view)),
        };
        // Somebody for whom the target did not answer may have taken it back.
        match reached(&view.chain, target.as_ref()) {
            true => Ok(view),
            false => Err(moved_on(version, &view)),
        }
    }

    /// Finishes what the chain's `next` says, whoever began it. Gives the view in which it is done.
    pub(crate) async fn complete(self: &Arc<Self>, view: Arc<View>) -> Result<Arc<View>> {
        let _one_at_a_time = self.completing.lock().await;
        let mut view = view;
        if self.view().chain.moment() > view.chain.moment() {
            view = self.view();
        }
        let mut target = view.chain.next.clone();
        let mut replaced = 0;
        while view.chain.next.is_some() && view.chain.next == target {
            let sealed = match self.prepare(&view).await {
                Ok(None) => self.seal_active(&view).await,
                Ok(Some(_)) if replaced == RETARGETS_MAX => {
                    let message = "no place for the next loglet answers: try again";
                    return Err(Error::new(ErrorCode::Unavailable, message));
                }
                Ok(Some(newer)) => {
                    replaced += 1;
                    target = newer.chain.next.clone();
                    view = newer;
                    continue;
                }
                Err(error) => Err(error),
            };
            let tail = match sealed {
                Ok(tail) => tail,
                // Perhaps only because somebody else was faster.
                Err(error) => {
                    let newer = self.fetch().await?;
                    let goes_on = newer.chain.moment() > view.chain.moment()
                        && (newer.chain.next == target || reached(&newer.chain, target.as_ref()));
                    if !goes_on {
                        return Err(error);
                    }
                    view = newer;
                    continue;
                }
            };
            let chain = view.chain.complete(tail, env::random_u128()).map_err(chain_error)?;
            let index = view.chain.active().index;
            view = match self.write(&view, &chain).await? {
                Ok(view) => view,
                Err(view) => {
                    let stop = view.chain.segment(index).and_then(|segment| segment.stop);
                    if stop != chain.segment(index).and_then(|segment| segment.stop) {
                        sometimes!("two reconfigurers met different tails");
                    }
                    view
                }
            };
        }
        Ok(view)
    }

    /// Makes the loglet that `next` names. If that cannot be done, and nobody for whom it could has
    /// sealed yet, `next` is taken back; once sealed, it is replaced by another one of the same kind, in
    /// another place if there is one: then there is a newer view. In the same place too, because a
    /// loglet whose sequencer was lost before it began cannot be made any more.
    async fn prepare(self: &Arc<Self>, view: &Arc<View>) -> Result<Option<Arc<View>>> {
        let Some(Next::Extend { index, config }) = &view.chain.next else { return Ok(None) };
        let id = LogletId { log: view.chain.log, segment: *index };
        let made = match view.home.store.provider(&config.kind) {
            Ok(provider) => provider.create(id, config, LogletPos(0)).await.map(drop),
            Err(error) => Err(LogletError::Refused(error)),
        };
        let Err(error) = made else { return Ok(None) };
        let message = format!("loglet `{}` cannot be made: {error}", config.name);
        let error = match error {
            LogletError::Refused(error) => error,
            error => Error::new(ErrorCode::Unavailable, message).with_source(error),
        };
        let segment = view.chain.active();
        let active = self.loglet(view, segment).await?;
        // A tail check may wait for a sequencer that is gone, until somebody seals: that would be us. Where
        // too few answer it cannot be told: taken back is what can be begun anew, in a better place.
        let looked = tokio::time::timeout(SEAL_LOOK, active.check_tail()).await;
        let sealed = match looked {
            Ok(Err(LogletError::Unavailable(_))) | Err(_) => false,
            Ok(tail) => tail.map_err(|e| read_error(segment, e))?.sealed,
        };
        if !sealed {
            if let Ok(withdrawn) = view.chain.withdraw(env::random_u128()) {
                self.write(view, &withdrawn).await?.ok();
            }
            return Err(error);
        }
        let placed = view.home.store.place(config.clone(), Some(config)).await?;
        let other = view.chain.retarget(placed, env::random_u128()).map_err(chain_error)?;
        Ok(Some(match self.write(view, &other).await? {
            Ok(view) | Err(view) => view,
        }))
    }

    async fn seal_active(&self, view: &Arc<View>) -> Result<LogletPos> {
        let segment = view.chain.active();
        let active = self.loglet(view, segment).await?;
        let failed = |error| read_error(segment, error);
        active.seal().await.map_err(failed)?;
        let tail = active.check_tail().await.map_err(failed)?;
        assert!(tail.sealed, "a tail check that begins after a seal says sealed (L5)");
        if planted::has(planted::Bug::BoundaryFromMemory) {
            return Ok(view.known_tail().min(tail.position));
        }
        Ok(tail.position)
    }

    /// The active loglet is sealed, the grace time is over, and the chain does not show it.
    pub(crate) async fn roll_forward(self: &Arc<Self>, index: u32) -> Result<Arc<View>> {
        let log = self.clone();
        let task = self.runtime.spawn(env::task(async move {
            let view = log.fetch().await?;
            if view.chain.next.is_some() {
                return log.complete(view).await;
            }
            let active = view.chain.active();
            if active.index != index || active.stop.is_some() {
                return Ok(view);
            }
            // Sealed without a target, so from outside: go on with one of the same kind.
            let store = &view.home.store;
            let config = store.place(active.config.clone(), Some(&active.config)).await?;
            let next = view.chain.propose(Some(config), env::random_u128()).map_err(chain_error)?;
            match log.write(&view, &next).await? {
                Ok(view) => log.complete(view).await,
                Err(view) => Ok(view),
            }
        }));
        task.await.unwrap_or_else(|error| Err(task_failed(&error)))
    }

    /// Drops the leading segments that hold nothing at or above `first_kept`, then their loglets.
    pub(crate) async fn truncate(
        self: &Arc<Self>,
        first_kept: LogPos,
        version: Option<u64>,
    ) -> Result<Arc<View>> {
        let moves = self.view().chain.moves;
        let mut view = self.fetch().await?;
        loop {
            let stale = |version: &u64| view.chain.moment() != (moves, *version);
            if let Some(version) = version.filter(stale) {
                return Err(moved_on(version, &view));
            }
            let too_far = planted::has(planted::Bug::TruncatesTooFar);
            let stop = view.chain.segments[0].stop.filter(|_| too_far);
            let first_kept = stop
                .filter(|stop| first_kept > view.chain.first() && first_kept < *stop)
                .unwrap_or(first_kept);
            let change =
                view.chain.truncate(first_kept, env::random_u128()).map_err(chain_error)?;
            let Some(chain) = change else { return Ok(view) };
            match self.write(&view, &chain).await? {
                Ok(written) => {
                    retire_dead(&view.chain, &written).await;
                    return Ok(written);
                }
                // Somebody else's change: this one is made again on top of it (rule D10).
                Err(newer) => view = newer,
            }
        }
    }

    /// Moves a sealed segment to another loglet: copy, verify, re-point the chain.
    pub(crate) async fn modify(
        self: &Arc<Self>,
        index: u32,
        config: LogletConfig,
        version: u64,
    ) -> Result<Arc<View>> {
        self.modify_and_count(index, config, version, watch::Sender::new(0)).await
    }

    /// As [`modify`](Self::modify); `copied` shows how many bytes were copied so far.
    pub(crate) async fn modify_and_count(
        self: &Arc<Self>,
        index: u32,
        config: LogletConfig,
        version: u64,
        copied: watch::Sender<u64>,
    ) -> Result<Arc<View>> {
        let (log, moves) = (self.clone(), self.view().chain.moves);
        let task = self.runtime.spawn(env::task(async move {
            let view = log.fetch().await?;
            if view.chain.moment() != (moves, version) {
                return Err(moved_on(version, &view));
            }
            sealed_segment(&view, index)?;
            let (reserved, number) = view.chain.reserve(env::random_u128()).map_err(chain_error)?;
            let view = match log.write(&view, &reserved).await? {
                Ok(view) => view,
                Err(view) => return Err(moved_on(version, &view)),
            };
            let copy = Copy { index, number, config, version, copied };
            let modified = log.move_segment(view, copy).await;
            if modified.is_err() {
                log.abandon(number).await;
            }
            modified
        }));
        task.await.unwrap_or_else(|error| Err(task_failed(&error)))
    }

    /// Copies a sealed segment to the loglet whose number was reserved, and re-points the chain to it.
    async fn move_segment(self: &Arc<Self>, mut view: Arc<View>, copy: Copy) -> Result<Arc<View>> {
        let Copy { index, number, config, version, copied } = copy;
        let old = sealed_segment(&view, index)?.clone();
        let (home, config) = (view.home.clone(), view.home.store.place(config, None).await?);
        let target = self.copy(&view, &old, number, &config, &copied).await?;
        loop {
            // In another store the copy's configuration would mean something else.
            if sealed_segment(&view, index)?.loglet != old.loglet || !view.home.is(&home) {
                return Err(moved_on(version, &view));
            }
            // What was trimmed while the copy was made stays trimmed.
            let failed = |error| read_error(&old, error);
            let source = self.loglet(&view, &old).await?;
            let trimmed = source.trim_point().await.map_err(failed)?;
            target.prefix_trim(trimmed).await.map_err(failed)?;
            let nonce = env::random_u128();
            let chain = view.chain.modify(index, number, old.base, config.clone(), nonce);
            match self.write(&view, &chain.map_err(chain_error)?).await? {
                Ok(written) => {
                    // And once more, for a trim that the old chain led to the source.
                    let trimmed = source.trim_point().await.map_err(failed)?;
                    target.prefix_trim(trimmed).await.map_err(failed)?;
                    retire_dead(&view.chain, &written).await;
                    return Ok(written);
                }
                Err(newer) => view = newer,
            }
        }
    }

    /// Gives the number of a copy that came to nothing back, and with it the copy.
    async fn abandon(self: &Arc<Self>, number: u32) {
        while let Ok(view) = self.fetch().await {
            match view.chain.abandon(number, env::random_u128()) {
                Ok(Some(chain)) => match self.write(&view, &chain).await {
                    Ok(Ok(written)) => return retire_dead(&view.chain, &written).await,
                    Ok(Err(_)) => {}
                    Err(_) => return,
                },
                _ => return,
            }
        }
    }

    /// Makes loglet `number` hold what `segment` holds, at the same positions, and seals it.
    async fn copy(
        &self,
        view: &Arc<View>,
        segment: &Segment,
        number: u32,
        config: &LogletConfig,
        copied: &watch::Sender<u64>,
    ) -> Result<Arc<dyn Loglet>> {
        let failed = |error| read_error(segment, error);
        let source = self.loglet(view, segment).await?;
        let stop = segment.to_loglet(segment.stop.expect("the segment is sealed"));
        let first = source.trim_point().await.map_err(failed)?.max(segment.base).min(stop);
        let id = LogletId { log: view.chain.log, segment: number };
        let provider = view.home.store.provider(&config.kind)?;
        let mut batches = match first < stop {
            true => source.read(first, stop, COPY_BYTES).await.map_err(failed)?,
            false => Vec::new(),
        };
        // The trim point may lie inside the first batch, which is copied whole.
        let base = batches.first().map_or(first, |batch| batch.first.min(first));
        let target = provider.create(id, config, base).await.map_err(failed)?;
        while let Some(last) = batches.last() {
            let at = last.end();
            fill(&*target, &batches).await.map_err(failed)?;
            let bytes: usize = batches.iter().map(|batch| batch.batch.as_bytes().len()).sum();
            copied.send_modify(|copied| *copied += bytes as u64);
            batches = match at < stop {
                true => source.read(at, stop, COPY_BYTES).await.map_err(failed)?,
                false => Vec::new(),
            };
        }
        target.prefix_trim(first).await.map_err(failed)?;
        target.seal().await.map_err(failed)?;
        same_content(&*source, &*target, first, stop).await.map_err(failed)?;
        Ok(target)
    }
}

/// Stores a stretch of batches, many at once: in order, since a queue of futures begins its oldest first.
async fn fill(target: &dyn Loglet, batches: &[StampedBatch]) -> Result<(), LogletError> {
    let fill = |batch: &StampedBatch| target.fill(batch.first, batch.batch.clone());
    let fills: Vec<_> = batches.iter().map(fill).collect();
    futures_util::stream::iter(fills).buffered(FILLS_MAX).try_collect().await
}

/// Both loglets hold the same batches in the range.
async fn same_content(
    source: &dyn Loglet,
    target: &dyn Loglet,
    first: LogletPos,
    stop: LogletPos,
) -> Result<(), LogletError> {
    let key = |b: &StampedBatch| (b.first, b.batch.count(), b.batch.header().crc);
    let mut at = first;
    while at < stop {
        let (left, right) =
            (source.read(at, stop, COPY_BYTES).await?, target.read(at, stop, COPY_BYTES).await?);
        let common = left.len().min(right.len());
        let differ = left.iter().map(key).zip(right.iter().map(key)).any(|(l, r)| l != r);
        if differ || (common == 0 && left.len() != right.len()) {
            return Err(LogletError::Corrupt(format!("the copy differs from position {at} on")));
        }
        let Some(last) = left[..common].last() else { break };
        at = last.end();
    }
    Ok(())
}

/// Deletes loglets that no chain will name again, here and in the stores that the chain led to.
/// What fails stays for the next time.
async fn retire_dead(before: &Chain, now: &View) {
    let (live, bound) = now.chain.live();
    let store = &now.home.store;
    store.retire(now.chain.log, &live, bound).await;
    for other in store.others.named(before).await {
        other.retire(now.chain.log, &live, bound).await;
    }
}

/// Whether the chain is where a reconfiguration led, or beyond.
fn reached(chain: &Chain, target: Option<&Next>) -> bool {
    match target {
        Some(Next::Extend { index, .. }) => chain.segments.iter().any(|s| s.index >= *index),
        _ => chain.life == Life::Ended,
    }
}

fn sealed_segment(view: &View, index: u32) -> Result<&Segment> {
    let segment = view.chain.segment(index).filter(|segment| segment.stop.is_some());
    segment.ok_or_else(|| chain_error(ChainError::NoSegment(index)))
}

fn moved_on(version: u64, view: &View) -> Error {
    if view.chain.life == Life::Ended {
        return chain_error(ChainError::Over);
    }
    let message = format!(
        "the chain is at version {}, not {version}: read it and decide again",
        view.chain.version
    );
    Error::new(ErrorCode::Conflict, message)
}

fn task_failed(error: &tokio::task::JoinError) -> Error {
    Error::new(ErrorCode::Internal, format!("a reconfiguration ended early: {error}"))
}
