//! Judges what clients of one log saw: exact linearizability without a search.
//!
//! Positions already give the order of the appends that took effect, so each of them only needs an
//! instant inside its window, in order. An append's window is its call. A tail or a read that *saw*
//! an entry ends the window of that entry at its own return; one that saw it *unwritten* starts the
//! window at its own start. The history is legal exactly if the running maximum of the starts never
//! passes an end. That is one pass over the operations and one over the entries. (Invariants I1 to I6,
//! I8, I9 and I13 of the project's reliability notes, and the clauses of the loglet contract from L2 to
//! L9: the names in the sentences are theirs.)
//!
//! What was trimmed away, and what a log says it lost, cannot be read back. There the entries are those
//! that an acknowledgement or a read put at a position: unknown ones may lie between, so that the verdict
//! on them is milder, but it is the same rule, and no two answers may contradict each other.
//!
//! Positions may skip, as loglets may: between its first and its last position a log holds entries
//! and gaps, and a gap reads as empty for ever. A tail is a number that never goes back in real time
//! also where it only moves inside a gap.
//!
//! Time is a counter and no clock: [`Recorder`] draws from one, so the order of two calls is known
//! whenever one ended before the other began.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The end of a call that never ended.
pub const NEVER: u64 = u64::MAX;

/// Most complaints that one check gives: the first ones tell the story.
const COMPLAINTS_MAX: usize = 20;

/// One call, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// When it began.
    pub invoked: u64,
    /// When it ended.
    pub returned: u64,
    /// What it did and what it saw.
    pub what: What,
}

/// What a call did and saw. Values are unique in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// One entry was appended (a batch is several of these with the same times).
    Append {
        /// What was appended.
        value: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// A tail check: the first unwritten position.
    Tail {
        /// The tail.
        position: u64,
        /// Whether it said that the log is sealed.
        sealed: bool,
    },
    /// A read found an entry.
    Value {
        /// Where.
        position: u64,
        /// What stood there.
        value: u64,
    },
    /// A read found no entry from `from` up to `to`.
    Empty {
        /// The first position looked at.
        from: u64,
        /// The position after the last.
        to: u64,
    },
    /// A reader went from `from` to `to`, where it brought an entry or ended: unlike where a read found
    /// nothing, which something may stand in later, nothing may ever stand between, whatever the times.
    Passed {
        /// Where it was.
        from: u64,
        /// Where it went.
        to: u64,
    },
    /// A read was told that the position was trimmed away.
    Trimmed {
        /// The position asked for.
        position: u64,
        /// The first that was said to be kept.
        first_kept: u64,
    },
    /// A trim.
    Trim {
        /// The first kept position, as answered.
        first_kept: u64,
    },
    /// A seal that succeeded.
    Seal,
}

/// How an append ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At this position.
    Ok(u64),
    /// Surely not in the log.
    Failed,
    /// It may be in the log; `returned` does not bound when it gets there.
    Unknown,
}

/// The whole log, read back when all calls have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Final {
    /// The first kept position.
    pub base: u64,
    /// The tail.
    pub tail: u64,
    /// Position and value of every entry.
    pub entries: Vec<(u64, u64)>,
}

/// Collects operations of many threads on one counter.
#[derive(Debug, Default)]
pub struct Recorder {
    clock: AtomicU64,
    ops: Mutex<Vec<Op>>,
}

impl Recorder {
    /// An instant: later than every one drawn before.
    pub fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Notes a call that began at `invoked` and ends now.
    pub fn done(&self, invoked: u64, what: What) {
        let returned = self.now();
        self.note(Op { invoked, returned, what });
    }

    /// Notes a call with times of its own.
    pub fn note(&self, op: Op) {
        self.ops.lock().expect("no panic under this lock").push(op);
    }

    /// Everything noted so far.
    #[must_use]
    pub fn take(&self) -> Vec<Op> {
        std::mem::take(&mut self.ops.lock().expect("no panic under this lock"))
    }
}

/// Judges a history. `last` is what the log holds in the end.
///
/// # Errors
/// What is wrong, in sentences that begin with the invariant's name.
pub fn check(ops: &[Op], last: &Final) -> Result<(), String> {
    check_with_losses(ops, last, &[])
}

/// As [`check`], of a log that says of some ranges of positions that it lost what stood there: they are
/// judged by what was known of them before. No entry of `last` lies in one.
///
/// # Errors
/// As [`check`].
pub fn check_with_losses(ops: &[Op], last: &Final, lost: &[(u64, u64)]) -> Result<(), String> {
    let mut judge = Judge::new(ops, last, lost);
    judge.appends(ops);
    judge.observations(ops);
    judge.windows();
    judge.tails(ops);
    judge.seals(ops);
    judge.trims(ops);
    if judge.complaints.is_empty() {
        return Ok(());
    }
    judge.complaints.truncate(COMPLAINTS_MAX);
    Err(judge.complaints.join("\n"))
}

struct Judge<'a> {
    last: &'a Final,
    lost: &'a [(u64, u64)],
    /// Position and value of what stands in the log, and of what is known to have stood where it cannot
    /// be read any more.
    entries: Vec<(u64, u64)>,
    /// The earliest instant at which entry `i` may take effect; one more for the entry after all.
    earliest: Vec<u64>,
    /// The latest.
    latest: Vec<u64>,
    /// Where each value stands.
    places: HashMap<u64, usize>,
    complaints: Vec<String>,
}

impl<'a> Judge<'a> {
    fn new(ops: &[Op], last: &'a Final, lost: &'a [(u64, u64)]) -> Self {
        let mut judge = Self {
            last,
            lost,
            entries: Vec::new(),
            earliest: Vec::new(),
            latest: Vec::new(),
            places: HashMap::new(),
            complaints: Vec::new(),
        };
        let mut after = last.base;
        for (position, _) in &last.entries {
            if *position < after || *position >= last.tail {
                judge.complain(format!("I8: position {position} is out of order in the final log"));
            }
            after = position + 1;
        }
        judge.entries = judge.remembered(ops);
        judge.entries.extend(&last.entries);
        judge.entries.sort_unstable();
        judge.places.reserve(judge.entries.len());
        for i in 0..judge.entries.len() {
            let (position, value) = judge.entries[i];
            if let Some(other) = judge.places.insert(value, i) {
                let other = judge.entries[other].0;
                judge.complain(format!("I2: value {value} is at {other} and at {position}"));
            }
        }
        judge.earliest = vec![0; judge.entries.len() + 1];
        judge.latest = vec![NEVER; judge.entries.len()];
        judge
    }

    /// Whether what stands at a position could be read back.
    fn is_readable(&self, position: u64) -> bool {
        position >= self.last.base
            && !self.lost.iter().any(|(from, to)| (*from..*to).contains(&position))
    }

    /// The entries that somebody was told of where nothing can be read any more.
    fn remembered(&mut self, ops: &[Op]) -> Vec<(u64, u64)> {
        let mut known = HashMap::new();
        for op in ops {
            let (What::Append { value, outcome: Outcome::Ok(position) }
            | What::Value { position, value }) = op.what
            else {
                continue;
            };
            if self.is_readable(position) {
                continue;
            }
            let other = *known.entry(position).or_insert(value);
            if other != value {
                self.complain(format!("I2: values {other} and {value} were both at {position}"));
            }
        }
        known.into_iter().collect()
    }

    fn complain(&mut self, complaint: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(complaint);
        }
    }

    /// How many entries lie below `position`.
    fn index(&self, position: u64) -> usize {
        self.entries.partition_point(|(at, _)| *at < position)
    }

    /// Somebody saw all of the first `index` entries before `returned`: later ones bound earlier.
    fn seen(&mut self, index: usize, returned: u64) {
        if let Some(last) = index.checked_sub(1) {
            self.latest[last] = self.latest[last].min(returned);
        }
    }

    /// Somebody saw at `invoked` or later that entry `index`, and so all after it, was not written.
    fn not_seen(&mut self, index: usize, invoked: u64) {
        self.earliest[index] = self.earliest[index].max(invoked);
    }

    fn appends(&mut self, ops: &[Op]) {
        let mut written = vec![false; self.entries.len()];
        for op in ops {
            let What::Append { value, outcome } = op.what else { continue };
            let place = self.places.get(&value).copied();
            let found = place.map(|i| self.entries[i].0);
            match (outcome, found) {
                (Outcome::Ok(position), Some(at)) if at != position => {
                    self.complain(format!(
                        "I1: value {value}, acknowledged at {position}, is at {at}"
                    ));
                }
                // Where it cannot be read it is known by this very answer, or by one that contradicts it.
                (Outcome::Ok(position), None) if self.is_readable(position) => {
                    self.complain(format!(
                        "I1: value {value}, acknowledged at {position}, is lost"
                    ));
                }
                (Outcome::Failed, Some(at)) => {
                    self.complain(format!(
                        "I3: value {value} failed for good and is in the log, at {at}"
                    ));
                }
                _ => {}
            }
            let Some(i) = place else { continue };
            if std::mem::replace(&mut written[i], true) {
                self.complain(format!("harness: value {value} was appended twice"));
            }
            self.earliest[i] = self.earliest[i].max(op.invoked);
            if matches!(outcome, Outcome::Ok(_)) {
                self.latest[i] = self.latest[i].min(op.returned);
            }
        }
        for (i, _) in written.iter().enumerate().filter(|(_, written)| !**written) {
            let (position, value) = self.entries[i];
            self.complain(format!("I3: value {value} at {position} was never appended"));
        }
    }

    fn observations(&mut self, ops: &[Op]) {
        for op in ops {
            match op.what {
                What::Tail { position, .. } if position > self.last.tail => {
                    let tail = self.last.tail;
                    self.complain(format!("I5: a tail of {position} lies beyond the log's {tail}"));
                }
                What::Tail { position, .. } => {
                    let index = self.index(position);
                    self.seen(index, op.returned);
                    self.not_seen(index, op.invoked);
                }
                What::Value { position, value } => {
                    let index = self.index(position);
                    if self.entries.get(index) == Some(&(position, value)) {
                        self.seen(index + 1, op.returned);
                    } else if self.is_readable(position) {
                        self.complain(format!(
                            "I2/I6: a read saw value {value} at {position}, where the log has another"
                        ));
                    }
                }
                What::Empty { from, to } => {
                    let index = self.index(from);
                    if index < self.index(to) {
                        self.not_seen(index, op.invoked);
                    }
                }
                What::Passed { from, to } => {
                    let index = self.index(from);
                    if from > to || index < self.index(to) {
                        let missed = self.entries.get(index).filter(|(at, _)| *at < to);
                        self.complain(format!(
                            "I6: a reader went from {from} to {to}, past {missed:?}"
                        ));
                    }
                }
                _ => {}
            }
        }
    }

    fn windows(&mut self) {
        let mut instant = 0;
        for i in 0..self.latest.len() {
            instant = instant.max(self.earliest[i]);
            if instant > self.latest[i] {
                let (position, value) = self.entries[i];
                self.complain(format!(
                    "I4/I5/I6: value {value} at {position} took effect not before {instant}, but was \
                     seen by {}",
                    self.latest[i]
                ));
            }
        }
    }

    /// In real time tails never go back, not even inside a gap, and sealed stays sealed.
    fn tails(&mut self, ops: &[Op]) {
        let tails = || {
            ops.iter().filter_map(|op| match op.what {
                What::Tail { position, sealed } => Some((op, position, sealed)),
                _ => None,
            })
        };
        let mut by_start: Vec<_> = tails().collect();
        let mut by_end = by_start.clone();
        by_start.sort_by_key(|(op, ..)| op.invoked);
        by_end.sort_by_key(|(op, ..)| op.returned);
        let (mut ended, mut highest, mut was_sealed) = (by_end.into_iter().peekable(), 0, false);
        for (op, position, sealed) in by_start {
            while let Some((_, before, sealed)) = ended.next_if(|(e, ..)| e.returned < op.invoked) {
                highest = highest.max(before);
                was_sealed |= sealed;
            }
            if position < highest {
                self.complain(format!("I5: the tail went back from {highest} to {position}"));
            }
            if was_sealed && !sealed {
                self.complain(format!("L2: a tail of {position} is unsealed after a sealed one"));
            }
        }
        // Any sealed tail is a legal boundary, whenever it was taken (L6), so it bounds all others.
        let unsealed =
            tails().filter(|(.., sealed)| !sealed).map(|(_, position, _)| position).max();
        let boundary =
            tails().filter(|(.., sealed)| *sealed).map(|(_, position, _)| position).min();
        let (Some(boundary), unsealed) = (boundary, unsealed.unwrap_or(0)) else { return };
        if unsealed > boundary {
            self.complain(format!(
                "L8: the unsealed tail {unsealed} exceeds the sealed {boundary}"
            ));
        }
        for op in ops {
            match op.what {
                What::Append { value, outcome: Outcome::Ok(position) } if position >= boundary => {
                    self.complain(format!(
                        "L9/I9: value {value} was acknowledged at {position}, past the boundary \
                         {boundary}"
                    ));
                }
                _ => {}
            }
        }
    }

    fn seals(&mut self, ops: &[Op]) {
        let seals = ops.iter().filter(|op| op.what == What::Seal);
        let Some(sealed_at) = seals.map(|op| op.returned).min() else { return };
        for op in ops.iter().filter(|op| op.invoked > sealed_at) {
            match op.what {
                What::Append { value, outcome: Outcome::Ok(position) } => self.complain(format!(
                    "L2/I9: value {value} was appended after the seal and acknowledged at {position}"
                )),
                What::Tail { position, sealed: false } => self.complain(format!(
                    "L5: a tail check after the seal said {position}, not sealed"
                )),
                _ => {}
            }
        }
    }

    /// Trims are monotonic in real time, and below one there is nothing but "trimmed".
    fn trims(&mut self, ops: &[Op]) {
        let mut trims: Vec<(u64, u64)> = Vec::new();
        for op in ops {
            match op.what {
                What::Trim { first_kept } if first_kept > self.last.base => {
                    self.complain(format!("I13: a trim to {first_kept} was undone"));
                }
                What::Trim { first_kept } => trims.push((op.returned, first_kept)),
                What::Trimmed { position, first_kept }
                    if position >= first_kept || first_kept > self.last.base =>
                {
                    self.complain(format!(
                        "I13: {position} was called trimmed, with {first_kept} the first kept"
                    ));
                }
                _ => {}
            }
        }
        trims.sort_unstable();
        let mut kept_from = 0;
        for trim in &mut trims {
            kept_from = kept_from.max(trim.1);
            trim.1 = kept_from;
        }
        for op in ops {
            let before = trims.partition_point(|(returned, _)| *returned < op.invoked);
            let Some((_, kept_from)) = before.checked_sub(1).map(|i| trims[i]) else { continue };
            match op.what {
                What::Value { position, .. } if position < kept_from => {
                    self.complain(format!("I13: {position} was read after a trim to {kept_from}"))
                }
                What::Trim { first_kept } if first_kept < kept_from => self.complain(format!(
                    "I13: the trim point went back from {kept_from} to {first_kept}"
                )),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
