//! What can be set on a store, and what cannot be set wrongly.

use super::journal::PAGE;
use crate::error::Error;

/// How a store works. The default is what production uses; sizes are made small by tests.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// Most bytes of a journal file. The first one of a store is smaller, so that it opens fast.
    pub journal_file_bytes: u64,
    /// Most journal files in use; when there are as many, commits wait for a checkpoint.
    pub journal_files_max: usize,
    /// A data file that reaches this is followed by another.
    pub data_file_bytes: u64,
    /// Bytes of a data file for each entry of its index.
    pub index_every_bytes: u64,
    /// Most data files that are open at a time.
    pub open_files_max: usize,
    /// True: a directory that is empty or not there becomes a store. False: that is `NOT_FOUND`, and
    /// nothing is written.
    pub create: bool,
    /// False: no threads. Whoever asks commits and keeps house on its own thread, in a fixed order.
    pub background: bool,
    /// The identity of a store that is created; drawn when it is not given.
    pub storage_id: Option<u128>,
    /// Without threads: told whenever something waits, for one who then has it committed. `None`:
    /// whoever asks commits.
    #[cfg(any(test, feature = "testing"))]
    pub told: Option<std::sync::Arc<tokio::sync::Notify>>,
    /// A mistake to make, so that tests can show that they would see it.
    #[cfg(any(test, feature = "testing"))]
    pub planted: Option<PlantedBug>,
}

/// Mistakes that a store can be told to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Answer before the journal is synced.
    AckBeforeSync,
    /// Never sync a directory.
    NoDirSync,
    /// Take the first bad block for the journal's end, whatever follows.
    CutAtBadBlock,
    /// Answer a seal before it is durable.
    SealNotSynced,
    /// Replace the manifest before the data files are synced.
    RecycleBeforeSync,
}

/// The first journal file of a store has so many bytes, or the most that a file may have.
const FIRST_JOURNAL_BYTES: u64 = 4 << 20;
/// What appends leave in the journal's last file for seals and trims on a full disk, at most.
const RESERVE_BYTES: u64 = 64 << 10;

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            journal_file_bytes: 64 << 20,
            journal_files_max: 4,
            data_file_bytes: 64 << 20,
            index_every_bytes: 64 << 10,
            open_files_max: 256,
            create: true,
            background: true,
            storage_id: None,
            #[cfg(any(test, feature = "testing"))]
            told: None,
            #[cfg(any(test, feature = "testing"))]
            planted: None,
        }
    }
}

impl StorageOptions {
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.journal_file_bytes = self.journal_file_bytes / PAGE * PAGE;
        if self.journal_file_bytes < 2 * PAGE || self.journal_files_max < 2 {
            return Err(Error::invalid(
                "a journal needs two files of 8192 bytes at least: raise `journal_file_bytes` or \
                 `journal_files_max`",
            ));
        }
        Ok(self)
    }

    pub(crate) fn first_journal_bytes(&self) -> u64 {
        FIRST_JOURNAL_BYTES.min(self.journal_file_bytes)
    }

    pub(crate) fn reserve_bytes(&self) -> u64 {
        (self.journal_file_bytes / 4).min(RESERVE_BYTES) / PAGE * PAGE
    }

    /// Whether one who asks has to commit, because nobody else does.
    pub(crate) fn caller_commits(&self) -> bool {
        #[cfg(any(test, feature = "testing"))]
        if self.told.is_some() {
            return false;
        }
        !self.background
    }

    /// Tells the one who commits where there are no threads, if there is one.
    pub(crate) fn tell(&self) {
        #[cfg(any(test, feature = "testing"))]
        if let Some(told) = &self.told {
            told.notify_one();
        }
    }

    pub(crate) fn planted(&self, bug: PlantedBug) -> bool {
        #[cfg(any(test, feature = "testing"))]
        return self.planted == Some(bug);
        #[cfg(not(any(test, feature = "testing")))]
        return {
            let _ = bug;
            false
        };
    }

    /// Whether recovery compares what it found with what was published to readers.
    pub(crate) fn checks_slots(&self) -> bool {
        !self.planted(PlantedBug::CutAtBadBlock)
    }
}
