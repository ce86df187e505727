//! What a store knows of a loglet: where its bytes are and which positions they hold.
//!
//! The same small value is published to readers, written into the manifest and rebuilt by recovery.
//! It is copied and replaced, never shared while it changes; its size follows the number of data
//! files and not the number of entries.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use virtuallog_protocol::log_server::LocalLog;
use virtuallog_protocol::{LogletId, LogletPos};

use super::data::DATA_START;

/// One data file of a loglet, as far as its bytes are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The file's name: no batch in it starts below.
    pub(crate) base: LogletPos,
    /// Bytes that belong to the loglet; what follows them is nothing.
    pub(crate) len: u64,
    /// Where the first batch that is kept starts. What lies before may be a hole.
    pub(crate) start: u64,
    /// No batch from `start` on ends at or below this position.
    pub(crate) start_position: LogletPos,
}

impl Extent {
    /// A file without batches.
    pub(crate) fn empty(base: LogletPos) -> Extent {
        Extent { base, len: DATA_START, start: DATA_START, start_position: base }
    }
}

/// A loglet at one moment.
///
/// Invariants: extents have ascending bases, the last one takes appends; `base <= tail`, `base <= trim`,
/// and a trim beyond the tail is of what this copy has not got; `DATA_START <= start <= len` in each
/// extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogletState {
    /// The first position that the loglet could ever hold.
    pub(crate) base: LogletPos,
    /// The first unwritten position.
    pub(crate) tail: LogletPos,
    /// True once nothing can be appended any more.
    pub(crate) sealed: bool,
    /// The first position that was not trimmed.
    pub(crate) trim: LogletPos,
    /// Data files that are complete, in order.
    pub(crate) older: Arc<Vec<Extent>>,
    /// The data file that takes appends.
    pub(crate) active: Extent,
}

impl LogletState {
    /// A loglet that was just created.
    pub(crate) fn new(base: LogletPos) -> LogletState {
        LogletState {
            base,
            tail: base,
            sealed: false,
            trim: base,
            older: Arc::default(),
            active: Extent::empty(base),
        }
    }

    /// The part of it that rules are about.
    pub(crate) fn local_log(&self) -> LocalLog {
        let LogletState { base, trim, tail, sealed, .. } = *self;
        LocalLog { base, trim, tail, sealed }
    }

    /// All data files in order.
    pub(crate) fn extents(&self) -> impl DoubleEndedIterator<Item = &Extent> {
        self.older.iter().chain(std::iter::once(&self.active))
    }

    /// The data file that holds `position`, or would.
    pub(crate) fn extent_at(&self, position: LogletPos) -> Extent {
        let after = self.older.partition_point(|extent| extent.base <= position);
        match after {
            _ if self.active.base <= position => self.active,
            0 => *self.older.first().unwrap_or(&self.active),
            n => self.older[n - 1],
        }
    }

    /// The data file after the one with this base.
    pub(crate) fn extent_after(&self, base: LogletPos) -> Option<Extent> {
        self.extents().find(|extent| extent.base > base).copied()
    }

    /// Goes on in a new data file.
    pub(crate) fn roll(&mut self, base: LogletPos) {
        Arc::make_mut(&mut self.older).push(self.active);
        self.active = Extent::empty(base);
    }

    /// Gives up what lies below `keep_from`; returns the bases of the files that hold nothing else.
    pub(crate) fn trim_to(&mut self, keep_from: LogletPos) -> Vec<LogletPos> {
        self.trim = self.trim.max(keep_from);
        let trim = self.trim;
        let mut next = self.active.base;
        let mut dead = 0;
        for (i, extent) in self.older.iter().enumerate().rev() {
            if next <= trim {
                dead = i + 1;
                break;
            }
            next = extent.base;
        }
        match dead {
            0 => Vec::new(),
            n => Arc::make_mut(&mut self.older).drain(..n).map(|extent| extent.base).collect(),
        }
    }

    /// Moves the start of one file forward, if that file is still there.
    pub(crate) fn start_at(&mut self, file: LogletPos, start: u64, position: LogletPos) {
        let extent = match self.active.base == file {
            true => Some(&mut self.active),
            false => Arc::make_mut(&mut self.older).iter_mut().find(|e| e.base == file),
        };
        if let Some(extent) = extent.filter(|e| start > e.start && start <= e.len) {
            extent.start = start;
            extent.start_position = position;
        }
    }

    /// Whether the invariants hold: asked of everything that comes from a disk.
    pub(crate) fn holds(&self) -> bool {
        let mut above = None;
        let ascending = self.extents().all(|extent| above.replace(extent.base) < Some(extent.base));
        ascending
            && self.extents().all(|e| DATA_START <= e.start && e.start <= e.len)
            && self.base <= self.trim
            && self.base <= self.tail
            && self.active.base <= self.tail
    }
}

/// Which loglets of a log a store still makes: what every retirement that it heard of spares.
///
/// A number that is dead in one version of the chain is dead in all later ones, so this only shrinks,
/// and it does not matter in which order retirements are heard. What a store held and deleted is not
/// in it any more, so nothing that it makes is something that it forgot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spared {
    /// Everything from this number on.
    pub(crate) bound: u32,
    /// What the chain named below it.
    pub(crate) named: BTreeSet<u32>,
}

impl Spared {
    /// What one retirement spares.
    pub(crate) fn by(bound: u32, live: &[u32]) -> Spared {
        Spared { bound, named: live.iter().copied().filter(|number| *number < bound).collect() }
    }

    pub(crate) fn spares(&self, number: u32) -> bool {
        number >= self.bound || self.named.contains(&number)
    }

    /// What both spare.
    pub(crate) fn and(&self, other: &Spared) -> Spared {
        let both = |number: &&u32| self.spares(**number) && other.spares(**number);
        let named = self.named.union(&other.named).filter(both).copied();
        let bound = self.bound.max(other.bound);
        Spared { bound, named: named.filter(|number| *number < bound).collect() }
    }
}

/// A loglet that callers share: its published state, and whoever waits for it to change.
#[derive(Debug)]
pub(crate) struct Loglet {
    pub(crate) id: LogletId,
    /// Created since the store was opened.
    pub(crate) born_here: bool,
    state: Mutex<LogletState>,
    watch: watch::Sender<(LogletPos, bool)>,
}

impl Loglet {
    /// One that was found on the disk.
    pub(crate) fn found(id: LogletId, state: LogletState) -> Loglet {
        let (watch, _) = watch::channel((state.tail, state.sealed));
        Loglet { id, born_here: false, state: Mutex::new(state), watch }
    }

    /// One that was created just now.
    pub(crate) fn born(id: LogletId, state: LogletState) -> Loglet {
        Loglet { born_here: true, ..Loglet::found(id, state) }
    }

    /// The durable state.
    pub(crate) fn state(&self) -> LogletState {
        self.state.lock().expect("no panic under this lock").clone()
    }

    /// Replaces the durable state, and tells whoever listens.
    pub(crate) fn publish(&self, next: LogletState) {
        let mut state = self.state.lock().expect("no panic under this lock");
        let fits = next.holds() && next.tail >= state.tail && next.trim >= state.trim;
        if !fits {
            // Readers go on with what there was, so no panic under the lock.
            drop(state);
            panic!("a commit would leave the loglet {} in no state that there is", self.id);
        }
        let news = (next.tail, next.sealed);
        let changed = news != (state.tail, state.sealed);
        *state = next;
        if changed && self.watch.receiver_count() > 0 {
            self.watch.send_replace(news);
        }
    }

    /// The tail and the seal bit, now and at each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<(LogletPos, bool)> {
        let state = self.state.lock().expect("no panic under this lock");
        // Nobody may have been listening so far, so what the channel holds can be old.
        self.watch.send_replace((state.tail, state.sealed));
        self.watch.subscribe()
    }
}
