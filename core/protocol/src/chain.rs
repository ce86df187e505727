//! The chain: which loglet holds which positions of a virtual log (paper §3.1, §3.2).
//!
//! A chain is the value of one register in the MetaStore. Every change is a function from a chain to
//! the next one, checked against the invariants below before it leaves this file; the caller writes
//! it conditionally. Positions of the log and of loglets are converted here and nowhere else.
//!
//! A reconfiguration is two changes. [`Chain::propose`] writes the complete target into `next`: the
//! point of no return, after which anyone may seal the active loglet and anyone can finish.
//! [`Chain::complete`] closes the active segment at the sealed tail and opens the target.
//!
//! A log goes to another MetaStore in three: [`Chain::arriving`] claims the register there with a copy
//! that still points back, [`Chain::moved`] makes the old register point there, [`Chain::arrived`] opens
//! the copy. The second is the point of no return; it carries the claim's nonce, and is written over
//! just the version that the claim copies, so that nothing can come between.
//!
//! # Invariants
//! 1. Segments are contiguous: each starts where the one before it stops; only the last is open.
//! 2. A boundary once written never changes; the first start never goes back.
//! 3. Versions rise by one. Segment indexes and loglet numbers come from one counter and are never
//!    used again, by no winner and by no loser.
//! 4. An ended log (`End` completed) and a moved one never change again, but for truncation.

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use crate::fields;
use crate::limits::{CHAIN_SEGMENTS_MAX, COUNTER_MAX, LOGLET_PARAMS_MAX};
use crate::record::crc32c;
use crate::types::{LogId, LogPos, LogletId, LogletPos};

const MAGIC: [u8; 4] = *b"VLC\x01";
/// The format that this code writes, and the highest that it reads.
pub const CHAIN_FORMAT: u32 = 1;

/// Highest index of a segment. Nothing ever counts that far.
const INDEX_MAX: u32 = 1 << 31;
/// Most of what a chain repeats: fields of its encoded form, by their numbers.
const FIELDS_MAX: &[(&[u32], usize)] = &[(&[5], CHAIN_SEGMENTS_MAX)];

/// Which kind of loglet, and all that its provider needs to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogletConfig {
    /// The registry's word for the kind: `local`, `memory`, `native`, …
    pub kind: String,
    /// Opaque to everybody but the provider.
    pub params: Bytes,
    /// How a user writes it: `local`, `native:3`.
    pub name: String,
}

/// A range of the log's positions, and the loglet that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The segment's identity, never used again. Tells apart empty segments at one position.
    pub index: u32,
    /// The number of the loglet that holds it. Another one than `index` after a modify.
    pub loglet: u32,
    /// The first position.
    pub start: LogPos,
    /// The position after the last, once the segment is sealed.
    pub stop: Option<LogPos>,
    /// The loglet's own position that stands for `start`.
    pub base: LogletPos,
    /// The kind of loglet and its parameters.
    pub config: LogletConfig,
}

impl Segment {
    /// The loglet's position for a position of this segment.
    #[must_use]
    pub fn to_loglet(&self, position: LogPos) -> LogletPos {
        assert!(position >= self.start, "position {position} lies before segment {}", self.index);
        self.base.plus(position.0 - self.start.0)
    }

    /// The log's position for a position of this segment's loglet.
    #[must_use]
    pub fn to_log(&self, position: LogletPos) -> LogPos {
        assert!(position >= self.base, "loglet position {position} lies before its base");
        self.start.plus(position.0 - self.base.0)
    }
}

/// What a reconfiguration that was begun leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another loglet goes on where the active one is sealed.
    Extend {
        /// Index of the segment to come, and number of its loglet.
        index: u32,
        /// What the loglet will be.
        config: LogletConfig,
    },
    /// The log ends where the active loglet is sealed.
    End,
}

/// Whether a log can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It can.
    Open,
    /// It was ended for good.
    Ended,
    /// It lives in another MetaStore, or still does ([`Chain::arriving`]): whoever meets this follows.
    Moved {
        /// Where it lives now.
        url: String,
    },
}

/// The chain of one log, at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The log's identity.
    pub log: LogId,
    /// The register's version that holds this value.
    pub version: u64,
    /// Drawn by the writer, to know its own write again when the outcome was lost.
    pub nonce: u128,
    /// In order; never empty.
    pub segments: Vec<Segment>,
    /// The reconfiguration that was begun and not completed.
    pub next: Option<Next>,
    /// The next index or loglet number to give out.
    pub next_index: u32,
    /// Loglet numbers that were taken out for copies under way: alive, though no segment names them.
    pub reserved: Vec<u32>,
    /// Whether the log can go on.
    pub life: Life,
    /// How often the log went to another MetaStore.
    pub moves: u32,
    /// The log is on its way here and still lives where `life` points to; this is a copy of that
    /// version of the chain there.
    pub copy_of: Option<u64>,
}

/// Why a change cannot be made to this chain, or why bytes are not a chain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChainError {
    /// Another reconfiguration is under way and has to be completed first.
    #[error("another reconfiguration is under way")]
    Busy,
    /// Nothing is under way that could be completed or withdrawn.
    #[error("no reconfiguration is under way")]
    NotBusy,
    /// The log was ended or moved.
    #[error("the log goes on no more")]
    Over,
    /// No such sealed segment.
    #[error("no sealed segment has index {0}")]
    NoSegment(u32),
    /// The chain has as many segments as it may.
    #[error("the chain has {CHAIN_SEGMENTS_MAX} segments: trim and truncate it first")]
    TooLong,
    /// The change breaks an invariant.
    #[error("the change breaks an invariant of the chain: {0}")]
    Broken(&'static str),
    /// The bytes are damaged.
    #[error("the chain's bytes are damaged: {0}")]
    Damaged(&'static str),
    /// A later version wrote it.
    #[error("the chain has format {0}, newer than this build reads ({CHAIN_FORMAT})")]
    Format(u32),
}

impl Chain {
    /// The first chain of a new log: one open segment from position 0.
    #[must_use]
    pub fn new(log: LogId, version: u64, nonce: u128, config: LogletConfig) -> Chain {
        let start = LogPos(0);
        let first = Segment { index: 0, loglet: 0, start, stop: None, base: LogletPos(0), config };
        let chain = Chain {
            log,
            version,
            nonce,
            segments: vec![first],
            next: None,
            next_index: 1,
            reserved: Vec::new(),
            life: Life::Open,
            moves: 0,
            copy_of: None,
        };
        chain.assert_invariants();
        chain
    }

    /// The last segment: the open one, unless the log was ended.
    #[must_use]
    pub fn active(&self) -> &Segment {
        self.segments.last().expect("a chain is never empty")
    }

    /// The first position that the chain still covers.
    #[must_use]
    pub fn first(&self) -> LogPos {
        self.segments[0].start
    }

    /// The segment that holds `position`, or will once it is written. Of several that start there
    /// the last, since the others are empty. `None` below the first segment and beyond an ended log.
    #[must_use]
    pub fn locate(&self, position: LogPos) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| segment.start <= position);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        segment.stop.is_none_or(|stop| position < stop).then_some(segment)
    }

    /// When in the log's life this chain is in force: greater is later. By moves and then by version,
    /// since versions in different MetaStores say nothing of each other.
    #[must_use]
    pub fn moment(&self) -> (u32, u64) {
        (self.moves, self.version)
    }

    /// The segment with this index.
    #[must_use]
    pub fn segment(&self, index: u32) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.index == index)
    }

    /// The identity of a segment's loglet.
    #[must_use]
    pub fn loglet_id(&self, segment: &Segment) -> LogletId {
        LogletId { log: self.log, segment: segment.loglet }
    }

    /// Begins a reconfiguration towards another loglet (`Some`) or the end of the log (`None`).
    ///
    /// # Errors
    /// `Busy`, `Over`, `TooLong`.
    pub fn propose(&self, config: Option<LogletConfig>, nonce: u128) -> Result<Chain, ChainError> {
        if self.next.is_some() {
            return Err(ChainError::Busy);
        }
        if self.segments.len() >= CHAIN_SEGMENTS_MAX {
            return Err(ChainError::TooLong);
        }
        self.change(nonce, |chain| {
            chain.next = Some(match config {
                None => Next::End,
                Some(config) => Next::Extend { index: chain.take_index(), config },
            });
            Ok(())
        })
    }

    /// Takes a reconfiguration back whose target does not answer. Legal only before anyone sealed:
    /// whoever completes makes sure of the target first.
    ///
    /// # Errors
    /// `NotBusy`, `Over`.
    pub fn withdraw(&self, nonce: u128) -> Result<Chain, ChainError> {
        self.change(nonce, |chain| chain.next.take().map(drop).ok_or(ChainError::NotBusy))
    }

    /// Puts another target in the place of one that does not answer. Legal at any time: whoever made
    /// the old one cannot write his chain any more, and its number is never used again.
    ///
    /// # Errors
    /// `NotBusy`, also when the log is to end; `Over`.
    pub fn retarget(&self, config: LogletConfig, nonce: u128) -> Result<Chain, ChainError> {
        self.change(nonce, |chain| match chain.next {
            Some(Next::Extend { .. }) => {
                chain.next = Some(Next::Extend { index: chain.take_index(), config });
                Ok(())
            }
            _ => Err(ChainError::NotBusy),
        })
    }

    /// Closes the active segment where its loglet was sealed, and goes on as `next` says.
    ///
    /// # Errors
    /// `NotBusy`, `Over`; `Broken` when the tail lies before the segment's start.
    pub fn complete(&self, sealed_tail: LogletPos, nonce: u128) -> Result<Chain, ChainError> {
        self.change(nonce, |chain| {
            let next = chain.next.take().ok_or(ChainError::NotBusy)?;
            let active = chain.segments.last_mut().expect("a chain is never empty");
            if sealed_tail < active.base {
                return Err(ChainError::Broken("a sealed tail lies before its segment"));
            }
            let boundary = active.to_log(sealed_tail);
            active.stop = Some(boundary);
            match next {
                Next::End => chain.life = Life::Ended,
                Next::Extend { index, config } => chain.segments.push(Segment {
                    index,
                    loglet: index,
                    start: boundary,
                    stop: None,
                    base: LogletPos(0),
                    config,
                }),
            }
            Ok(())
        })
    }

    /// Drops the leading sealed segments that hold nothing at or above `first_kept`. `None` when
    /// there is none.
    ///
    /// # Errors
    /// `Over` when the log has moved.
    pub fn truncate(&self, first_kept: LogPos, nonce: u128) -> Result<Option<Chain>, ChainError> {
        let sealed = &self.segments[..self.segments.len() - 1];
        let dead = sealed.partition_point(|s| s.stop.is_some_and(|stop| stop <= first_kept));
        if dead == 0 {
            return Ok(None);
        }
        if let Life::Moved { .. } = self.life {
            return Err(ChainError::Over);
        }
        let mut chain = self.clone();
        chain.segments.drain(..dead);
        chain.stamp(nonce);
        self.check_change(&chain)?;
        Ok(Some(chain))
    }

    /// Takes a loglet number out, for a copy that [`modify`](Self::modify) will put in place: so no
    /// two modifiers can ever make the same loglet.
    ///
    /// # Errors
    /// `Over`.
    pub fn reserve(&self, nonce: u128) -> Result<(Chain, u32), ChainError> {
        let mut number = 0;
        let chain = self.change(nonce, |chain| {
            number = chain.take_index();
            chain.reserved.push(number);
            Ok(())
        })?;
        Ok((chain, number))
    }

    /// Gives a reserved number up: its copy came to nothing. `None` when it is not reserved.
    ///
    /// # Errors
    /// `Over`.
    pub fn abandon(&self, loglet: u32, nonce: u128) -> Result<Option<Chain>, ChainError> {
        if !self.reserved.contains(&loglet) {
            return Ok(None);
        }
        let abandoned = self.change(nonce, |chain| {
            chain.reserved.retain(|number| *number != loglet);
            Ok(())
        });
        abandoned.map(Some)
    }

    /// The loglet numbers that must not be deleted, and the bound below which no other will ever be
    /// made: a number that is dead in one version is dead in all later ones.
    #[must_use]
    pub fn live(&self) -> (Vec<u32>, u32) {
        let named = self.segments.iter().map(|segment| segment.loglet);
        let live = named.chain(self.reserved.iter().copied()).collect();
        let bound = match &self.next {
            Some(Next::Extend { index, .. }) => *index,
            _ => self.next_index,
        };
        (live, bound)
    }

    /// Re-points a sealed segment to a loglet that already serves the same entries from `base` on.
    ///
    /// # Errors
    /// `NoSegment`, `Over`; `Broken` when the number was not reserved.
    pub fn modify(
        &self,
        index: u32,
        loglet: u32,
        base: LogletPos,
        config: LogletConfig,
        nonce: u128,
    ) -> Result<Chain, ChainError> {
        if !self.reserved.contains(&loglet) {
            return Err(ChainError::Broken("the loglet number was not reserved"));
        }
        self.change(nonce, |chain| {
            let segment = chain
                .segments
                .iter_mut()
                .find(|segment| segment.index == index && segment.stop.is_some())
                .ok_or(ChainError::NoSegment(index))?;
            (segment.loglet, segment.base, segment.config) = (loglet, base, config);
            chain.reserved.retain(|number| *number != loglet);
            Ok(())
        })
    }

    /// The last version in this MetaStore: the log lives at `url` now, where a claim with this nonce
    /// copies this very version.
    ///
    /// # Errors
    /// `Busy`, `Over`.
    pub fn moved(&self, url: String, nonce: u128) -> Result<Chain, ChainError> {
        if self.next.is_some() {
            return Err(ChainError::Busy);
        }
        self.change(nonce, |chain| {
            chain.life = Life::Moved { url };
            Ok(())
        })
    }

    /// A claim on the register of another MetaStore, at `version` there: a copy of this chain that
    /// points back to it, at `source`. `turn` says how a loglet's configuration reads from there.
    ///
    /// # Errors
    /// `Busy`, `Over`; `Broken` when a turned configuration is too long.
    pub fn arriving(
        &self,
        source: String,
        version: u64,
        nonce: u128,
        mut turn: impl FnMut(&LogletConfig) -> LogletConfig,
    ) -> Result<Chain, ChainError> {
        if self.life != Life::Open {
            return Err(ChainError::Over);
        }
        if self.next.is_some() {
            return Err(ChainError::Busy);
        }
        let mut claim = self.clone();
        for segment in &mut claim.segments {
            segment.config = turn(&segment.config);
        }
        (claim.version, claim.nonce, claim.moves) = (version, nonce, self.moves + 1);
        (claim.life, claim.copy_of) = (Life::Moved { url: source }, Some(self.version));
        claim.check()?;
        Ok(claim)
    }

    /// Whether this chain, the source of `claim`, has moved to where that claim stands.
    #[must_use]
    pub fn confirms(&self, claim: &Chain) -> bool {
        let moved = matches!(self.life, Life::Moved { .. }) && self.copy_of.is_none();
        moved && self.log == claim.log && self.nonce == claim.nonce
    }

    /// The log goes on here: its source confirms the claim that this chain is. Copies that were under
    /// way at the source came to nothing.
    ///
    /// # Errors
    /// `NotBusy` when this is no claim.
    pub fn arrived(&self, nonce: u128) -> Result<Chain, ChainError> {
        if self.copy_of.is_none() {
            return Err(ChainError::NotBusy);
        }
        let mut chain = self.clone();
        (chain.life, chain.copy_of) = (Life::Open, None);
        chain.reserved.clear();
        chain.stamp(nonce);
        self.check_change(&chain)?;
        Ok(chain)
    }

    fn change(
        &self,
        nonce: u128,
        edit: impl FnOnce(&mut Chain) -> Result<(), ChainError>,
    ) -> Result<Chain, ChainError> {
        if self.life != Life::Open {
            return Err(ChainError::Over);
        }
        let mut chain = self.clone();
        edit(&mut chain)?;
        chain.stamp(nonce);
        self.check_change(&chain)?;
        Ok(chain)
    }

    fn stamp(&mut self, nonce: u128) {
        self.version += 1;
        self.nonce = nonce;
    }

    fn take_index(&mut self) -> u32 {
        let index = self.next_index;
        self.next_index = index.checked_add(1).expect("2^32 reconfigurations are out of reach");
        index
    }

    /// Whether `new` may follow this chain: the invariants that speak of two versions.
    ///
    /// # Errors
    /// `Broken`, naming the invariant.
    pub fn check_change(&self, new: &Chain) -> Result<(), ChainError> {
        new.check()?;
        let broken = |why| Err(ChainError::Broken(why));
        if new.log != self.log || new.version != self.version + 1 {
            return broken("a change is one version of the same log");
        }
        if new.first() < self.first() || new.next_index < self.next_index {
            return broken("first position and index counter never go back");
        }
        for old in &self.segments {
            let Some(kept) = new.segment(old.index) else {
                if old.stop.is_some_and(|stop| stop <= new.first()) {
                    continue;
                }
                return broken("only dead leading segments are dropped");
            };
            if kept.start != old.start || (old.stop.is_some() && kept.stop != old.stop) {
                return broken("a boundary never changes");
            }
            if old.stop.is_none() && (kept.loglet, kept.base) != (old.loglet, old.base) {
                return broken("an open segment keeps its loglet");
            }
        }
        let known = |s: &&Segment| self.segment(s.index).is_none();
        if new
            .segments
            .iter()
            .filter(known)
            .any(|s| self.next.is_none() || s.index >= new.next_index)
        {
            return broken("a segment appears only by completing `next`");
        }
        Ok(())
    }

    /// The invariants that speak of one version.
    fn check(&self) -> Result<(), ChainError> {
        let broken = |why| Err(ChainError::Broken(why));
        let Some(last) = self.segments.last() else { return broken("a chain is never empty") };
        if self.segments.len() > CHAIN_SEGMENTS_MAX {
            return Err(ChainError::TooLong);
        }
        for pair in self.segments.windows(2) {
            if pair[0].stop != Some(pair[1].start) || pair[0].index >= pair[1].index {
                return broken("segments are contiguous and ascending");
            }
        }
        if self.segments.iter().any(|s| s.stop.is_some_and(|stop| stop < s.start)) {
            return broken("a segment stops at or after its start");
        }
        if self.counters().any(|counter| counter > COUNTER_MAX) || self.next_index > INDEX_MAX {
            return broken("nothing counts that far");
        }
        if (self.life == Life::Ended) != last.stop.is_some() {
            return broken("the last segment is open unless the log was ended");
        }
        if self.life != Life::Open && self.next.is_some() {
            return broken("a log that is over has no next");
        }
        if self.copy_of.is_some() && !matches!(self.life, Life::Moved { .. }) {
            return broken("a log on its way points back to where it lives");
        }
        let planned = match &self.next {
            Some(Next::Extend { config, .. }) => Some(config),
            _ => None,
        };
        let mut configs = self.segments.iter().map(|segment| &segment.config).chain(planned);
        if configs.any(|config| config.params.len() > LOGLET_PARAMS_MAX) {
            return broken("the parameters of a loglet have a limit");
        }
        let named = self.segments.iter().map(|s| s.loglet);
        let mut numbers: Vec<u32> = named.chain(self.reserved.iter().copied()).collect();
        numbers.sort_unstable();
        if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
            return broken("no loglet number is used twice");
        }
        let pending = match &self.next {
            Some(Next::Extend { index, .. }) => Some(*index),
            _ => None,
        };
        if numbers.into_iter().chain(pending).any(|number| number >= self.next_index)
            || pending.is_some_and(|index| index <= last.index)
        {
            return broken("indexes come from the counter");
        }
        Ok(())
    }

    /// Every number in it that is only ever added to.
    fn counters(&self) -> impl Iterator<Item = u64> + '_ {
        let of = |s: &Segment| [s.start.0, s.stop.map_or(0, u64::from), s.base.0];
        let others = [self.version, self.copy_of.unwrap_or(0), u64::from(self.moves) << 32];
        self.segments.iter().flat_map(of).chain(others)
    }

    fn assert_invariants(&self) {
        assert_eq!(self.check(), Ok(()), "{self:?}");
    }

    /// The bytes for the MetaStore.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let body = wire::Chain::from(self).encode_to_vec();
        let mut bytes = Vec::with_capacity(8 + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.into()
    }

    /// Reads what [`encode`](Self::encode) wrote. Unknown fields of later writers are ignored
    /// within one format; a later format is refused.
    ///
    /// # Errors
    /// `Damaged`, `Format`, or the invariant that the value breaks.
    pub fn decode(bytes: &[u8]) -> Result<Chain, ChainError> {
        let (head, body) = bytes.split_at_checked(8).ok_or(ChainError::Damaged("too short"))?;
        if head[..4] != MAGIC {
            return Err(ChainError::Damaged("not a chain"));
        }
        if head[4..] != crc32c(body).to_le_bytes() {
            return Err(ChainError::Damaged("checksum"));
        }
        if !fields::within(body, FIELDS_MAX) {
            return Err(ChainError::TooLong);
        }
        let wire = wire::Chain::decode(body).map_err(|_| ChainError::Damaged("fields"))?;
        if wire.format > CHAIN_FORMAT {
            return Err(ChainError::Format(wire.format));
        }
        let chain = Chain::try_from(wire)?;
        chain.check()?;
        Ok(chain)
    }
}

/// The encoded form. Field numbers are frozen; new fields take new numbers.
mod wire {
    use super::{Bytes, ChainError, LOGLET_PARAMS_MAX, Life, LogId, LogPos, LogletPos};

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Chain {
        #[prost(uint32, tag = "1")]
        pub(super) format: u32,
        #[prost(bytes = "bytes", tag = "2")]
        log: Bytes,
        #[prost(uint64, tag = "3")]
        version: u64,
        #[prost(bytes = "bytes", tag = "4")]
        nonce: Bytes,
        #[prost(message, repeated, tag = "5")]
        segments: Vec<Segment>,
        #[prost(message, optional, tag = "6")]
        next: Option<Next>,
        #[prost(uint32, tag = "7")]
        next_index: u32,
        #[prost(bool, tag = "8")]
        ended: bool,
        #[prost(string, optional, tag = "9")]
        moved_to: Option<String>,
        #[prost(uint32, repeated, tag = "10")]
        reserved: Vec<u32>,
        #[prost(uint32, tag = "11")]
        moves: u32,
        #[prost(uint64, optional, tag = "12")]
        copy_of: Option<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Segment {
        #[prost(uint32, tag = "1")]
        index: u32,
        #[prost(uint32, tag = "2")]
        loglet: u32,
        #[prost(uint64, tag = "3")]
        start: u64,
        #[prost(uint64, optional, tag = "4")]
        stop: Option<u64>,
        #[prost(uint64, tag = "5")]
        base: u64,
        #[prost(message, optional, tag = "6")]
        config: Option<Config>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Config {
        #[prost(string, tag = "1")]
        kind: String,
        #[prost(bytes = "bytes", tag = "2")]
        params: Bytes,
        #[prost(string, tag = "3")]
        name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Next {
        /// Absent: the log is to end.
        #[prost(message, optional, tag = "1")]
        config: Option<Config>,
        #[prost(uint32, tag = "2")]
        index: u32,
    }

    impl From<&super::LogletConfig> for Config {
        fn from(config: &super::LogletConfig) -> Self {
            let super::LogletConfig { kind, params, name } = config.clone();
            Self { kind, params, name }
        }
    }

    impl TryFrom<Config> for super::LogletConfig {
        type Error = ChainError;

        fn try_from(Config { kind, params, name }: Config) -> Result<Self, ChainError> {
            if kind.is_empty() || params.len() > LOGLET_PARAMS_MAX {
                return Err(ChainError::Damaged("configuration of a loglet"));
            }
            Ok(Self { kind, params, name })
        }
    }

    impl From<&super::Chain> for Chain {
        fn from(chain: &super::Chain) -> Self {
            let segment = |s: &super::Segment| Segment {
                index: s.index,
                loglet: s.loglet,
                start: s.start.0,
                stop: s.stop.map(|stop| stop.0),
                base: s.base.0,
                config: Some((&s.config).into()),
            };
            let next = |next: &super::Next| match next {
                super::Next::End => Next { config: None, index: 0 },
                super::Next::Extend { index, config } => {
                    Next { config: Some(config.into()), index: *index }
                }
            };
            Self {
                format: super::CHAIN_FORMAT,
                log: Bytes::copy_from_slice(&chain.log.0.to_be_bytes()),
                version: chain.version,
                nonce: Bytes::copy_from_slice(&chain.nonce.to_be_bytes()),
                segments: chain.segments.iter().map(segment).collect(),
                next: chain.next.as_ref().map(next),
                next_index: chain.next_index,
                reserved: chain.reserved.clone(),
                ended: chain.life == Life::Ended,
                moved_to: match &chain.life {
                    Life::Moved { url } => Some(url.clone()),
                    _ => None,
                },
                moves: chain.moves,
                copy_of: chain.copy_of,
            }
        }
    }

    impl TryFrom<Chain> for super::Chain {
        type Error = ChainError;

        fn try_from(wire: Chain) -> Result<Self, ChainError> {
            let id = |bytes: &Bytes| match <[u8; 16]>::try_from(&bytes[..]) {
                Ok(bytes) => Ok(u128::from_be_bytes(bytes)),
                Err(_) => Err(ChainError::Damaged("length of an identity")),
            };
            let segment = |s: Segment| {
                let config = s.config.ok_or(ChainError::Damaged("a segment has no loglet"))?;
                Ok(super::Segment {
                    index: s.index,
                    loglet: s.loglet,
                    start: LogPos(s.start),
                    stop: s.stop.map(LogPos),
                    base: LogletPos(s.base),
                    config: config.try_into()?,
                })
            };
            let next = |next: Next| match next.config {
                None => Ok(super::Next::End),
                Some(config) => {
                    Ok(super::Next::Extend { index: next.index, config: config.try_into()? })
                }
            };
            Ok(Self {
                log: LogId(id(&wire.log)?),
                version: wire.version,
                nonce: id(&wire.nonce)?,
                segments: wire.segments.into_iter().map(segment).collect::<Result<_, _>>()?,
                next: wire.next.map(next).transpose()?,
                next_index: wire.next_index,
                reserved: wire.reserved,
                life: match (wire.ended, wire.moved_to) {
                    (true, _) => Life::Ended,
                    (false, Some(url)) => Life::Moved { url },
                    (false, None) => Life::Open,
                },
                moves: wire.moves,
                copy_of: wire.copy_of,
            })
        }
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
