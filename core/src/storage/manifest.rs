//! The checkpoint of a store: one small file that is replaced as a whole.
//!
//! The manifest says what is durable without the journal, and from where on the journal counts. Its
//! version stands for the whole store. Bytes are in `FORMAT.md`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use virtuallog_protocol::{LogId, LogletId, LogletPos};

use super::disk::Disk;
use super::state::{Extent, LogletState, Spared};
use super::whole::Whole;
use crate::error::Error;

/// Name of the file in the store's directory.
pub(crate) const MANIFEST: &str = FILE.name;
const FILE: Whole =
    Whole { name: "manifest", temporary: "manifest.new", magic: *b"VLM\x01", version: 2 };

/// What is durable, and where replay begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    /// Drawn when the store was created; every file of it carries the number.
    pub(crate) storage_id: u128,
    /// Rises with each start and each journal file. A copy with a lower one has forgotten something.
    pub(crate) counter: u64,
    /// Epoch of the journal file in which replay begins.
    pub(crate) epoch: u64,
    /// Sequence number of the first block in it.
    pub(crate) sequence: u64,
    /// Number of that journal file. It has to be there unless the store was closed.
    pub(crate) journal_file: u32,
    /// True when the store was closed: there is nothing to replay.
    pub(crate) clean: bool,
    /// The start of the machine in which this was written.
    pub(crate) boot: u64,
    /// Every loglet there is.
    pub(crate) loglets: BTreeMap<LogletId, LogletState>,
    /// What the counter was in which process.
    pub(crate) lives: Lives,
    /// Per log, what may still be created.
    pub(crate) spared: BTreeMap<LogId, Spared>,
}

/// Most lives of a disk that are told apart; what is older counts as its own.
const LIVES_MAX: usize = 128;

/// The generations that a disk was at, by process, the one under way last. Where each of them began is
/// chance, so that two copies of a disk which are both started go on with different ones: a generation
/// that others saw and that is not among these was shown by a newer copy, however often this one was
/// started since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lives(Vec<(u64, u64)>);

impl Lives {
    /// The life that was under way ended at `reached`, as far as the disk shows, and one begins at `first`.
    pub(crate) fn begin(&mut self, reached: u64, first: u64) {
        match self.0.last_mut() {
            Some(life) => life.1 = reached,
            // Of a disk that kept no account of them.
            None if reached > 0 => self.0.push((0, reached)),
            None => {}
        }
        self.0.push((first, first));
        let many = self.0.len().saturating_sub(LIVES_MAX);
        self.0.drain(..many);
    }

    /// Whether the disk was at a generation, in the life under way as far as `now`.
    pub(crate) fn had(&self, generation: u64, now: u64) -> bool {
        let Some((latest, before)) = self.0.split_last() else { return generation == 0 };
        let known = before.iter().any(|(first, last)| (*first..=*last).contains(&generation));
        let older = self.0.len() == LIVES_MAX && generation < self.0[0].0;
        generation == 0 || known || older || (latest.0..=now).contains(&generation)
    }
}

impl Manifest {
    /// Reads the manifest of the store in `root`; `None` when there is none.
    ///
    /// # Errors
    /// `CORRUPT`, `INCOMPATIBLE`, or what the disk said.
    pub(crate) fn read(disk: &dyn Disk, root: &Path) -> Result<Option<Manifest>, Error> {
        FILE.read(disk, root, |body| Wire::decode(body).ok()?.into_manifest())
    }

    /// Replaces the manifest. The outer error means that a sync failed and nothing is known; the
    /// inner one that the old manifest still stands.
    pub(crate) fn write(&self, disk: &dyn Disk, root: &Path) -> io::Result<io::Result<()>> {
        FILE.replace(disk, root, &Wire::from(self).encode_to_vec())
    }
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(bytes = "vec", tag = "1")]
    storage_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    counter: u64,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    #[prost(uint64, tag = "4")]
    sequence: u64,
    #[prost(uint32, tag = "5")]
    journal_file: u32,
    #[prost(bool, tag = "6")]
    clean: bool,
    #[prost(fixed64, tag = "7")]
    boot: u64,
    #[prost(message, repeated, tag = "8")]
    loglets: Vec<WireLoglet>,
    #[prost(message, repeated, tag = "9")]
    retired: Vec<WireRetired>,
    #[prost(message, repeated, tag = "11")]
    lives: Vec<WireLife>,
}

#[derive(Clone, PartialEq, Message)]
struct WireLife {
    #[prost(fixed64, tag = "1")]
    first: u64,
    #[prost(fixed64, tag = "2")]
    last: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WireLoglet {
    #[prost(bytes = "vec", tag = "1")]
    log: Vec<u8>,
    #[prost(uint32, tag = "2")]
    segment: u32,
    #[prost(uint64, tag = "3")]
    base: u64,
    #[prost(uint64, tag = "4")]
    tail: u64,
    #[prost(bool, tag = "5")]
    sealed: bool,
    #[prost(uint64, tag = "6")]
    trim: u64,
    #[prost(message, repeated, tag = "7")]
    files: Vec<WireFile>,
}

#[derive(Clone, PartialEq, Message)]
struct WireFile {
    #[prost(uint64, tag = "1")]
    base: u64,
    #[prost(uint64, tag = "2")]
    len: u64,
    #[prost(uint64, tag = "3")]
    start: u64,
    #[prost(uint64, tag = "4")]
    start_position: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WireRetired {
    #[prost(bytes = "vec", tag = "1")]
    log: Vec<u8>,
    #[prost(uint32, tag = "2")]
    bound: u32,
    /// Before there was this field: none, which was the rule then.
    #[prost(uint32, repeated, tag = "3")]
    named: Vec<u32>,
}

impl From<&Manifest> for Wire {
    fn from(manifest: &Manifest) -> Wire {
        let file = |extent: &Extent| WireFile {
            base: extent.base.0,
            len: extent.len,
            start: extent.start,
            start_position: extent.start_position.0,
        };
        let loglet = |(id, state): (&LogletId, &LogletState)| WireLoglet {
            log: id.log.0.to_le_bytes().to_vec(),
            segment: id.segment,
            base: state.base.0,
            tail: state.tail.0,
            sealed: state.sealed,
            trim: state.trim.0,
            files: state.extents().map(file).collect(),
        };
        let retired = |(log, spared): (&LogId, &Spared)| WireRetired {
            log: log.0.to_le_bytes().to_vec(),
            bound: spared.bound,
            named: spared.named.iter().copied().collect(),
        };
        Wire {
            storage_id: manifest.storage_id.to_le_bytes().to_vec(),
            counter: manifest.counter,
            epoch: manifest.epoch,
            sequence: manifest.sequence,
            journal_file: manifest.journal_file,
            clean: manifest.clean,
            boot: manifest.boot,
            loglets: manifest.loglets.iter().map(loglet).collect(),
            retired: manifest.spared.iter().map(retired).collect(),
            lives: manifest
                .lives
                .0
                .iter()
                .map(|(first, last)| WireLife { first: *first, last: *last })
                .collect(),
        }
    }
}

impl Wire {
    fn into_manifest(self) -> Option<Manifest> {
        let id = |bytes: &[u8]| Some(u128::from_le_bytes(bytes.try_into().ok()?));
        let mut loglets = BTreeMap::new();
        for wire in self.loglets {
            let mut extents: Vec<Extent> = wire
                .files
                .iter()
                .map(|file| Extent {
                    base: LogletPos(file.base),
                    len: file.len,
                    start: file.start,
                    start_position: LogletPos(file.start_position),
                })
                .collect();
            let active = extents.pop()?;
            let state = LogletState {
                base: LogletPos(wire.base),
                tail: LogletPos(wire.tail),
                sealed: wire.sealed,
                trim: LogletPos(wire.trim),
                older: Arc::new(extents),
                active,
            };
            let id = LogletId { log: LogId(id(&wire.log)?), segment: wire.segment };
            if !state.holds() || loglets.insert(id, state).is_some() {
                return None;
            }
        }
        let mut spared = BTreeMap::new();
        for wire in self.retired {
            spared.insert(LogId(id(&wire.log)?), Spared::by(wire.bound, &wire.named));
        }
        Some(Manifest {
            storage_id: id(&self.storage_id)?,
            counter: self.counter,
            epoch: self.epoch,
            sequence: self.sequence,
            journal_file: self.journal_file,
            clean: self.clean,
            boot: self.boot,
            lives: Lives(self.lives.iter().map(|life| (life.first, life.last)).collect()),
            loglets,
            spared,
        })
    }
}
