//! What clients of one log did and saw, and what the log's chain was at each version.
//!
//! An append is in the book from the moment it is submitted, in doubt, so that the death of its client
//! leaves it so. Times are a counter's. Values are unique in a log, and an entry's bytes follow from its
//! value, so that every byte that is read is compared with what was written (I14).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use virtuallog_protocol::chain::Chain;

use super::plan::Kind;
use crate::testing::Rng;
use crate::testing::history::{self, Final, NEVER, Op, Outcome, What};

/// One log's book.
pub(super) struct Book {
    pub(super) name: String,
    pub(super) kind: Kind,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    clock: u64,
    next_value: u64,
    ops: Vec<Op>,
    /// The chain at each version, encoded.
    chains: BTreeMap<u64, Vec<u8>>,
    /// The versions that the register had in calls that asked the MetaStore, as tails.
    register: Vec<Op>,
    /// Versions from which somebody was told to have changed the chain.
    won: BTreeMap<u64, String>,
    wrong: Vec<String>,
}

/// An entry's bytes.
pub(super) fn payload(value: u64) -> Bytes {
    let mut rng = Rng::new(value ^ 0x9e37_79b9);
    let len = match rng.below(40) {
        0 => 1000 + rng.below(4000),
        1 => 0,
        _ => rng.below(120),
    };
    let mut bytes = value.to_le_bytes().to_vec();
    while (bytes.len() as u64) < len + 8 {
        bytes.extend_from_slice(&rng.bits().to_le_bytes());
    }
    bytes.truncate(len as usize + 8);
    bytes.into()
}

/// The value of an entry, if its bytes are those of one.
pub(super) fn value_of(bytes: &[u8]) -> Option<u64> {
    let value = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (payload(value) == bytes).then_some(value)
}

impl Book {
    pub(super) fn new(name: String, kind: Kind) -> Book {
        Book { name, kind, pages: Mutex::default() }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything was ever done with the log, so that it is there.
    pub(super) fn is_begun(&self) -> bool {
        let pages = self.pages();
        pages.next_value > 0 || !pages.chains.is_empty()
    }

    /// An instant.
    pub(super) fn now(&self) -> u64 {
        let mut pages = self.pages();
        pages.clock += 1;
        pages.clock
    }

    /// Values for a batch that is submitted now. The number of the first one's operation, and the values.
    pub(super) fn submit(&self, count: u64) -> (usize, Vec<u64>) {
        let mut pages = self.pages();
        pages.clock += 1;
        let (at, first, invoked) = (pages.ops.len(), pages.next_value, pages.clock);
        pages.next_value += count;
        let values: Vec<u64> = (first..first + count).collect();
        for value in &values {
            let what = What::Append { value: *value, outcome: Outcome::Unknown };
            pages.ops.push(Op { invoked, returned: NEVER, what });
        }
        (at, values)
    }

    /// How a batch ended that began with operation `at`: `Some(first)` where it stands.
    pub(super) fn appended(&self, at: usize, count: u64, outcome: Outcome) {
        let mut pages = self.pages();
        pages.clock += 1;
        let returned = pages.clock;
        for number in 0..count {
            let op = &mut pages.ops[at + number as usize];
            let What::Append { outcome: known, .. } = &mut op.what else { continue };
            *known = match outcome {
                Outcome::Ok(first) => Outcome::Ok(first + number),
                other => other,
            };
            op.returned = if outcome == Outcome::Unknown { NEVER } else { returned };
        }
    }

    /// Notes what was seen in a call that began at `invoked` and ends now.
    pub(super) fn saw(&self, invoked: u64, seen: impl IntoIterator<Item = What>) {
        let mut pages = self.pages();
        pages.clock += 1;
        let returned = pages.clock;
        pages.ops.extend(seen.into_iter().map(|what| Op { invoked, returned, what }));
    }

    /// Something that must not be.
    pub(super) fn complain(&self, complaint: String) {
        let complaint = format!("{}: {complaint}", self.name);
        let mut pages = self.pages();
        if pages.wrong.len() < 20 {
            pages.wrong.push(complaint);
        }
    }

    /// Somebody saw this chain (I10, I11).
    pub(super) fn chain(&self, chain: &Chain) {
        let encoded = chain.encode().to_vec();
        let mut pages = self.pages();
        let known = pages.chains.entry(chain.version).or_insert_with(|| encoded.clone());
        if *known != encoded {
            let version = chain.version;
            drop(pages);
            self.complain(format!("I11: there are two chains of version {version}"));
        }
    }

    /// Somebody asked the MetaStore for this chain, or changed it to this one, in a call that began at
    /// `invoked` and ends now (I12).
    pub(super) fn asked(&self, invoked: u64, chain: &Chain) {
        self.chain(chain);
        let mut pages = self.pages();
        pages.clock += 1;
        let what = What::Tail { position: chain.version, sealed: false };
        let returned = pages.clock;
        pages.register.push(Op { invoked, returned, what });
    }

    /// The newest chain that anybody saw.
    pub(super) fn newest(&self) -> Option<Chain> {
        let pages = self.pages();
        pages.chains.values().next_back().and_then(|bytes| Chain::decode(bytes).ok())
    }

    /// Somebody was told to have changed the chain that had this version (I11).
    pub(super) fn won(&self, version: u64, who: String) {
        let before = self.pages().won.insert(version, who.clone());
        if let Some(other) = before {
            self.complain(format!("I11: both `{other}` and `{who}` changed version {version}"));
        }
    }

    pub(super) fn ops(&self) -> Vec<Op> {
        self.pages().ops.clone()
    }

    /// What is wrong by itself, and with the chains one after the other (I10), and with what was read of
    /// their register (I12): its version goes back as little as a tail does.
    pub(super) fn wrong(&self) -> Vec<String> {
        let pages = self.pages();
        let mut wrong = pages.wrong.clone();
        let last = Final { tail: u64::MAX, ..Final::default() };
        if let Err(why) = history::check(&pages.register, &last) {
            wrong.push(format!("{}: I12: of the chain's versions as tails: {why}", self.name));
        }
        let chains: Vec<Chain> =
            pages.chains.values().filter_map(|bytes| Chain::decode(bytes).ok()).collect();
        for pair in chains.windows(2) {
            if let Err(why) = follows(&pair[0], &pair[1]) {
                let (from, to) = (pair[0].version, pair[1].version);
                wrong.push(format!("{}: I10: version {to} after {from}: {why}", self.name));
            }
        }
        wrong
    }
}

/// Whether a chain may come some versions after another one.
fn follows(before: &Chain, after: &Chain) -> Result<(), String> {
    for pair in after.segments.windows(2) {
        if pair[0].stop != Some(pair[1].start) {
            return Err(format!("segments {} and {} do not meet", pair[0].index, pair[1].index));
        }
    }
    if after.first() < before.first() {
        return Err("it begins before what was given up".into());
    }
    if after.version == before.version + 1 {
        return before.check_change(after).map_err(|error| error.to_string());
    }
    for segment in &before.segments {
        let Some(now) = after.segment(segment.index) else {
            if segment.stop.is_some_and(|stop| stop <= after.first()) || segment.stop.is_none() {
                continue;
            }
            return Err(format!("segment {} is gone", segment.index));
        };
        if now.start != segment.start || (segment.stop.is_some() && now.stop != segment.stop) {
            return Err(format!("segment {} has other bounds", segment.index));
        }
        if segment.stop.is_none() && now.loglet != segment.loglet && now.stop.is_none() {
            return Err(format!("the open segment {} has another loglet", segment.index));
        }
    }
    Ok(())
}
