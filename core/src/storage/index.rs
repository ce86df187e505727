//! Where in a data file a position is: a sparse index, in memory only.
//!
//! One entry for so many bytes of a file, kept while the file is written and rebuilt by walking
//! stamps when it is not there. A bounded number of files has one, so memory grows neither with
//! entries nor with files. An index is only ever a place to start walking from: what is found there
//! is checked like everything else.

use std::collections::BTreeMap;
use std::sync::Mutex;

use virtuallog_protocol::LogletPos;

use super::data::FileKey;
use super::state::Extent;

/// Most files that have an index.
const FILES_MAX: usize = 1024;

/// The indexes of data files.
#[derive(Debug)]
pub(crate) struct IndexCache {
    every_bytes: u64,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    of: BTreeMap<FileKey, FileIndex>,
    clock: u64,
}

#[derive(Debug)]
struct FileIndex {
    /// Batches that start at least so many bytes apart: first position and offset.
    entries: Vec<(LogletPos, u64)>,
    /// All batches before this offset were looked at.
    walked: u64,
    /// Where the last reader stopped: position and offset of the next batch.
    hint: (LogletPos, u64),
    used: u64,
}

impl IndexCache {
    pub(crate) fn new(every_bytes: u64) -> IndexCache {
        IndexCache { every_bytes: every_bytes.max(1), files: Mutex::default() }
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().expect("no panic under this lock")
    }

    /// The best known place at or before the batch that holds `position`, and how far the file was
    /// walked. When the place is the end of what was walked, the caller walks on and says what it
    /// finds by [`note`](Self::note).
    pub(crate) fn locate(&self, key: FileKey, extent: &Extent, position: LogletPos) -> u64 {
        let mut files = self.files();
        files.clock += 1;
        let clock = files.clock;
        let Some(index) = files.of.get_mut(&key) else { return extent.start };
        index.used = clock;
        let n = index.entries.partition_point(|(first, _)| *first <= position);
        let indexed = if n == 0 { extent.start } else { index.entries[n - 1].1 };
        let hinted = if index.hint.0 <= position { index.hint.1 } else { 0 };
        indexed.max(hinted).max(extent.start)
    }

    /// Says that a batch starts at `offset` with position `first` and ends at `end`, where the
    /// next one starts. What does not follow on what is known is passed over.
    pub(crate) fn note(
        &self,
        key: FileKey,
        extent: &Extent,
        batches: impl IntoIterator<Item = (LogletPos, u64, u64)>,
    ) {
        let mut files = self.files();
        files.clock += 1;
        let clock = files.clock;
        if files.of.len() >= FILES_MAX && !files.of.contains_key(&key) {
            files.make_room();
        }
        let index = files.of.entry(key).or_insert_with(|| FileIndex {
            entries: Vec::new(),
            walked: extent.start,
            hint: (extent.base, extent.start),
            used: 0,
        });
        index.used = clock;
        for (first, offset, end) in batches {
            if offset != index.walked {
                continue;
            }
            let last = index.entries.last().map_or(extent.start, |(_, last)| *last);
            if offset - last.min(offset) >= self.every_bytes {
                index.entries.push((first, offset));
            }
            index.walked = end;
        }
    }

    /// Remembers where a reader stopped: the next batch starts at or after `position`, at `offset`.
    pub(crate) fn stopped(&self, key: FileKey, position: LogletPos, offset: u64) {
        if let Some(index) = self.files().of.get_mut(&key) {
            index.hint = (position, offset);
        }
    }

    /// Forgets a file that was removed.
    pub(crate) fn forget(&self, key: FileKey) {
        self.files().of.remove(&key);
    }
}

impl Files {
    /// Forgets a quarter of the files, those used least lately.
    fn make_room(&mut self) {
        let mut by_use: Vec<_> = self.of.iter().map(|(key, index)| (index.used, *key)).collect();
        by_use.sort_unstable();
        for (_, key) in &by_use[..by_use.len().div_ceil(4)] {
            self.of.remove(key);
        }
    }
}
