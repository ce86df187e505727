//! Moving a whole log to another store while it is used.
//!
//! 1. *Engine*: in the source's chain the log goes over to a loglet of the destination, as any log
//!    goes over to another loglet. It is used all the time; its chain stays where it is.
//! 2. *Chain*: a claim is written into the destination's MetaStore, a copy of the chain that points
//!    back; the source's register points to the destination; the copy is opened. Appends do not notice.
//! 3. *Copy*: the sealed segments that the log left behind are copied, one by one, by the destination's
//!    chain. The source then holds nothing any more but where the log went.
//!
//! Copying comes last, so that for long the log is only ever in one of two ordinary states: in the
//! source, or in the destination, whose own healing then works for it. Whoever begins again after an
//! interruption finds out how far it got and goes on from there; several at once do no harm. Once
//! the source points to the destination, anyone completes the chain's part (`home.rs`).
//!
//! What it does not do: move a log that was ended, or two names of one store into each other.

use std::cmp::Ordering;
use std::sync::Arc;

use tokio::sync::watch;
use virtuallog_protocol::chain::{Chain, ChainError, Life, LogletConfig, Segment};

use crate::env;
use crate::error::{Error, ErrorCode, Result};
use crate::home::Home;
use crate::log::{Log, View, decode_chain, meta_error};
use crate::loglets::elsewhere::{self, Away, Others, Reach};
use crate::metastore::{MetaError, Versioned};
use crate::store::{Options, Store};
use crate::url::{Location, LogUrl, Mode};

/// How often something is tried again that others changed meanwhile.
const TRIES_MAX: u32 = 32;

/// What a move is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MovePhase {
    /// The log goes over to a loglet of the destination.
    Engine,
    /// The chain goes to the destination's MetaStore.
    Chain,
    /// What was left behind is copied: the log lives in the destination already.
    Copy,
}

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MoveProgress {
    /// What it is at.
    pub phase: MovePhase,
    /// Sealed segments that were copied.
    pub segments_done: usize,
    /// Sealed segments that are to be copied, those included.
    pub segments_total: usize,
    /// Bytes that were copied, with what frames them.
    pub bytes_done: u64,
}

/// Moves the log `src` to `dst`, a name in another store, while it is used; gives its chain there.
/// Open handles follow, and so does whoever opens `src` later. With `leave_sealed` the sealed segments
/// stay in the source's store, which the log then needs as long as it keeps them. A `loglet` parameter
/// of `dst` says what the log is to be kept in.
///
/// Whatever ends it early (an error, a dropped future), the log goes on, in the source or in the
/// destination; the same call completes it. Takes as long as it takes: no deadline.
///
/// # Errors
/// `INVALID` for two names in one store, a store that nobody else can name, or `mode=read`;
/// `NOT_FOUND` when there is no log `src`; `SEALED` when it was ended; `CONFLICT` when there is another
/// log `dst`, when `src` lives in a third store, or when others change it all the time; otherwise what
/// keeps either store from working.
pub async fn move_log(
    src: &str,
    dst: &str,
    leave_sealed: bool,
    mut progress: impl FnMut(MoveProgress) + Send,
) -> Result<Chain> {
    let (src, dst) = (writable(src)?, writable(dst)?);
    let source = Arc::new(Store::reach(&src.location, Reach::Write, false, &[]).await?);
    let others = Others::new(Reach::Write, Vec::new());
    let moved = async {
        let from = Home { name: src.log_name()?.to_owned(), store: source.clone() };
        let to = Home {
            name: dst.log_name()?.to_owned(),
            store: others.store_at(&dst.location, true).await?,
        };
        if from.store.identity == to.store.identity {
            let message = "both names are in one store: a log moves from one store to another";
            return Err(Error::invalid(message));
        }
        let planned = dst.params.loglet.as_deref().unwrap_or(to.store.default_loglet());
        let planned = to.store.plan(planned)?;
        let mover = Mover { log: open(&from).await?, from, to, planned };
        let chain = mover.run(leave_sealed, &mut progress).await;
        mover.log.close();
        let released = mover.log.view().home.store.release().await;
        released.and(chain)
    };
    let moved = moved.await;
    let released = others.release().await.and(source.release().await);
    released.and(moved)
}

fn writable(url: &str) -> Result<LogUrl> {
    let parsed = LogUrl::parse(url)?;
    parsed.log_name()?;
    if parsed.params.mode == Some(Mode::Read) {
        return Err(Error::invalid(format!("`{url}` is to be read only: leave `mode=read` out")));
    }
    if parsed.location == Location::Fresh {
        let message = "a bare `memory:` is a log that nothing else can name: give it a name";
        return Err(Error::invalid(message));
    }
    Ok(parsed)
}

async fn open(from: &Home) -> Result<Arc<Log>> {
    let (home, chain) = from.store.find(&from.name, false, None).await?;
    Log::at(from.name.clone(), home, Options::internal(), chain).await
}

struct Mover {
    /// Follows by itself.
    log: Arc<Log>,
    from: Home,
    to: Home,
    /// What the log is to be kept in, as the destination's chain names it.
    planned: LogletConfig,
}

impl Mover {
    async fn run(
        &self,
        leave_sealed: bool,
        progress: &mut (impl FnMut(MoveProgress) + Send),
    ) -> Result<Chain> {
        let mut at = MoveProgress {
            phase: MovePhase::Engine,
            segments_done: 0,
            segments_total: 0,
            bytes_done: 0,
        };
        let mut was_there = false;
        for tries in 0.. {
            // Looked at first: whatever it holds, the view that is read after it is no older.
            let there = self.to.get().await?;
            let view = self.log.fetch().await?;
            if view.home.is(&self.to) {
                if !leave_sealed {
                    self.copy(at, progress).await?;
                }
                return Ok(self.log.fetch().await?.chain.clone());
            }
            self.check(&view)?;
            if tries == TRIES_MAX {
                break;
            }
            self.claimable(&there, &view).await?;
            at.segments_total = view.chain.segments.len() - 1;
            if view.chain.next.is_some() {
                // Somebody else's, or one of ours that was left.
                self.log.complete(view).await?;
                continue;
            }
            let mut here = Vec::new();
            for segment in &view.chain.segments {
                here.push(self.is_there(&view, segment).await);
            }
            if here.last() == Some(&true) {
                was_there = true;
                at.phase = MovePhase::Chain;
                progress(at);
                self.hand_over(&there, &view, &here).await?;
            } else if was_there && view.chain.active().config.kind == elsewhere::KIND {
                // Of two who take it to different stores the later one has its way, or none would.
                let name = &view.chain.active().config.name;
                let message = format!("somebody else moves the log: it is in `{name}` by now");
                return Err(Error::new(ErrorCode::Conflict, message));
            } else {
                progress(at);
                was_there = self.change_engine(&view).await? || was_there;
            }
        }
        let message = "others change the log or its name there all the time: try again later";
        Err(Error::new(ErrorCode::Conflict, message))
    }

    /// Whether the log can go from where it is.
    fn check(&self, view: &View) -> Result<()> {
        if !view.home.is(&self.from) {
            let url = view.home.url();
            let message = format!("the log lives at `{url}` now: move it from there");
            return Err(Error::new(ErrorCode::Conflict, message));
        }
        match view.chain.life {
            Life::Ended => {
                let message = "the log was ended by `seal`: copy its entries instead";
                Err(Error::new(ErrorCode::Sealed, message))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a name that another log has.
    async fn claimable(&self, there: &Versioned, view: &View) -> Result<()> {
        let Some(chain) = decode_chain(&self.to.name, there)? else { return Ok(()) };
        if chain.log == view.chain.log {
            return Ok(());
        }
        let home = Home { name: self.to.name.clone(), store: self.to.store.clone() };
        match Arc::new(home).settle(chain).await? {
            None => Ok(()),
            Some(_) => Err(Error::new(
                ErrorCode::Conflict,
                format!("there is another log `{}`: choose another name", self.to.url()),
            )),
        }
    }

    /// Whether a segment is held by a loglet of the destination.
    async fn is_there(&self, view: &View, segment: &Segment) -> bool {
        let Ok(Some(away)) = Away::of(&segment.config) else { return false };
        let store = view.home.store.others.store(&away.store).await;
        store.is_ok_and(|store| store.identity == self.to.store.identity)
    }

    /// Step 1. False: somebody else changed the chain first.
    async fn change_engine(&self, view: &View) -> Result<bool> {
        let store = crate::store::store_url(&self.to.store.location);
        let config = Away { store, config: self.planned.clone() }.config();
        match self.log.reconfigure(Some(config), view.chain.version).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == ErrorCode::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Step 2, once: whether it worked shows when the chain is read again. `there` was read before
    /// `view`; `held`: which segments a loglet of the destination holds.
    async fn hand_over(&self, there: &Versioned, view: &View, held: &[bool]) -> Result<()> {
        let broken = |error| Error::new(ErrorCode::Internal, format!("{error}"));
        let standing = decode_chain(&self.to.name, there)?
            .filter(|chain| chain.log == view.chain.log && chain.copy_of.is_some());
        // A claim that copies an older version, perhaps of an older stay, can come to nothing any more.
        let age = standing.as_ref().map(|claim| {
            (claim.moves, claim.copy_of).cmp(&(view.chain.moves + 1, Some(view.chain.version)))
        });
        let claim = match (age, standing) {
            (Some(Ordering::Greater), _) => return Ok(()),
            (Some(Ordering::Equal), Some(claim)) => claim,
            _ => {
                let claim = self.claim(there.version + 1, view, held).map_err(broken)?;
                match self.to.put(&claim).await {
                    Ok(()) => claim,
                    // Not ours, or perhaps ours: looked at again.
                    Err(MetaError::Conflict { .. } | MetaError::Unavailable(_)) => return Ok(()),
                    Err(error) => return Err(meta_error(error)),
                }
            }
        };
        let moved = view.chain.moved(self.to.url(), claim.nonce).map_err(broken)?;
        match view.home.put(&moved).await {
            Ok(()) | Err(MetaError::Conflict { .. } | MetaError::Unavailable(_)) => Ok(()),
            Err(error) => Err(meta_error(error)),
        }
    }

    /// The chain as it reads from the destination, pointing back.
    fn claim(&self, version: u64, view: &View, held: &[bool]) -> Result<Chain, ChainError> {
        let source = crate::store::store_url(&view.home.store.location);
        let mut held = held.iter();
        view.chain.arriving(view.home.url(), version, env::random_u128(), |config| {
            match (held.next(), Away::of(config)) {
                (Some(true), Ok(Some(away))) => away.config,
                (_, Ok(Some(_))) => config.clone(),
                _ => Away { store: source.clone(), config: config.clone() }.config(),
            }
        })
    }

    /// Step 3: copies every sealed segment that is in another store than the log.
    async fn copy(
        &self,
        mut at: MoveProgress,
        progress: &mut (impl FnMut(MoveProgress) + Send),
    ) -> Result<()> {
        at.phase = MovePhase::Copy;
        // What was trimmed need not be copied.
        let first = self.log.first().await?;
        self.log.truncate(first, None).await?;
        let mut failures = 0;
        loop {
            let view = self.log.fetch().await?;
            if !view.home.is(&self.to) {
                let url = view.home.url();
                let message = format!("somebody moved the log on to `{url}`");
                return Err(Error::new(ErrorCode::Conflict, message));
            }
            let left = |segment: &&Segment| {
                segment.stop.is_some() && matches!(Away::of(&segment.config), Ok(Some(_)))
            };
            let count = view.chain.segments.iter().filter(left).count();
            at.segments_total = at.segments_total.max(at.segments_done + count);
            at.segments_done = at.segments_total - count;
            progress(at);
            let Some(segment) = view.chain.segments.iter().find(left) else { return Ok(()) };
            let (index, loglet) = (segment.index, segment.loglet);
            let Err(error) = self.copy_one(index, view.chain.version, &mut at, progress).await
            else {
                failures = 0;
                continue;
            };
            failures += 1;
            // It may be gone, or copied by somebody else.
            let now = self.log.fetch().await?;
            let still = now.chain.segment(index).is_some_and(|segment| segment.loglet == loglet);
            if still && (error.code() != ErrorCode::Conflict || failures == TRIES_MAX) {
                return Err(error);
            }
        }
    }

    async fn copy_one(
        &self,
        index: u32,
        version: u64,
        at: &mut MoveProgress,
        progress: &mut (impl FnMut(MoveProgress) + Send),
    ) -> Result<()> {
        let (copied, mut shown) = watch::channel(0);
        let before = at.bytes_done;
        let copy = self.log.modify_and_count(index, self.planned.clone(), version, copied);
        let mut copy = std::pin::pin!(copy);
        loop {
            let done = tokio::select! {
                biased;
                done = &mut copy => Some(done),
                Ok(()) = shown.changed() => None,
            };
            at.bytes_done = before + *shown.borrow_and_update();
            match done {
                Some(done) => return done.map(drop),
                None => progress(*at),
            }
        }
    }
}

#[cfg(test)]
#[path = "relocate_tests.rs"]
mod tests;
