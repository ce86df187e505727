//! A store as another process sees it: no lock, no write, and it follows the owner live.
//!
//! What is durable stands in the published slots of the data files, which the owner writes after each
//! commit, and in the manifest. Both only ever name what was acknowledged or recovered, and both only
//! grow, so the answer is the greater of the two. After the machine stopped without the store being
//! closed, slots and bytes may be of different ages; then there is no answer until an owner
//! recovered it.
//!
//! Directories are listed at each call. That costs microseconds and saves every kind of stale view:
//! files that were rolled, trimmed or retired are seen as they are.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use virtuallog_protocol::{LogletId, LogletPos, StampedBatch};

use super::chunks::Chunks;
use super::data::{
    DataFiles, FileKey, LOGLETS, Slot, loglet_dir, parse_data_file, parse_loglet_dir,
};
use super::disk::{Disk, OpenMode};
use super::error::{Poison, StorageError};
use super::index::IndexCache;
use super::manifest::Manifest;
use super::reading::{Source, VerifyReport};
use super::state::{Extent, LogletState};
use super::{LogletStatus, StorageOptions};
use crate::error::{Error, ErrorCode};

/// Most attempts to read something while the owner removes it.
const ATTEMPTS_MAX: usize = 16;

/// A store that another process may own.
#[derive(Debug)]
pub struct ReadOnlyStorage {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    boot: u64,
    manifest: Mutex<Arc<Manifest>>,
    files: DataFiles,
    index: IndexCache,
    chunks: Chunks,
}

impl ReadOnlyStorage {
    /// Looks at the store in `dir`.
    ///
    /// # Errors
    /// `NOT_FOUND`, `INCOMPATIBLE`, `CORRUPT`, or what the disk said.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<ReadOnlyStorage, Error> {
        let manifest = read_manifest(disk.as_ref(), dir)?;
        let options = StorageOptions::default();
        let files = DataFiles::new(
            Arc::clone(&disk),
            dir,
            manifest.storage_id,
            OpenMode::Read,
            options.open_files_max,
            Arc::new(Poison::default()),
        );
        Ok(ReadOnlyStorage {
            boot: disk.boot_id(),
            root: dir.to_owned(),
            manifest: Mutex::new(Arc::new(manifest)),
            files,
            index: IndexCache::new(options.index_every_bytes),
            chunks: Chunks::default(),
            disk,
        })
    }

    /// The durable state of a loglet, as it is now; `None` when there is no such loglet.
    ///
    /// # Errors
    /// `Unavailable` when the machine stopped before the store was closed and nobody recovered it.
    pub fn status(&self, id: LogletId) -> Result<Option<LogletStatus>, StorageError> {
        match self.state(id) {
            Ok(state) => {
                let LogletState { base, trim, tail, sealed, .. } = state;
                Ok(Some(LogletStatus { base, trim, tail, sealed }))
            }
            Err(StorageError::Unknown(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// As [`Storage::read`](super::Storage::read).
    ///
    /// # Errors
    /// As there.
    pub fn read(
        &self,
        id: LogletId,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, StorageError> {
        self.with_source(id, |source| source.read(from, to, bytes_max))
    }

    /// As [`Storage::verify`](super::Storage::verify).
    ///
    /// # Errors
    /// As there.
    pub fn verify(
        &self,
        id: LogletId,
        progress: &mut dyn FnMut(u64),
    ) -> Result<VerifyReport, StorageError> {
        self.with_source(id, |source| source.verify(progress))
    }

    /// All loglets that there are now.
    ///
    /// # Errors
    /// What the disk said.
    pub fn loglets(&self) -> Result<Vec<LogletId>, StorageError> {
        let dir = self.root.join(LOGLETS);
        let names = self.disk.list(&dir).map_err(|e| StorageError::io("list", &dir, e))?;
        let mut loglets = Vec::new();
        for id in names.iter().filter_map(|name| parse_loglet_dir(name)) {
            if self.status(id)?.is_some() {
                loglets.push(id);
            }
        }
        loglets.sort_unstable();
        Ok(loglets)
    }

    /// The owner may take files away under the reader's hands: a failure counts only if the loglet
    /// is still as it was.
    fn with_source<T>(
        &self,
        id: LogletId,
        mut read: impl FnMut(Source<'_>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut state = self.state(id)?;
        for attempt in 1.. {
            let source = Source {
                files: &self.files,
                index: &self.index,
                chunks: &self.chunks,
                id,
                state: &state,
            };
            let error = match read(source) {
                Err(e @ (StorageError::Corrupt(_) | StorageError::Unavailable(_))) => e,
                other => return other,
            };
            let now = self.state(id)?;
            let first = |state: &LogletState| state.extents().next().copied();
            let same = now.trim == state.trim
                && first(&now).map(|e| (e.base, e.start))
                    == first(&state).map(|e| (e.base, e.start));
            if same || attempt == ATTEMPTS_MAX {
                return Err(error);
            }
            state = now;
        }
        unreachable!("the loop ends by returning")
    }

    fn state(&self, id: LogletId) -> Result<LogletState, StorageError> {
        let manifest = self.trusted_manifest()?;
        let mut failed = None;
        for _ in 0..ATTEMPTS_MAX {
            match self.look(id, manifest.loglets.get(&id)) {
                Ok(Some(state)) => return Ok(state),
                Ok(None) => return Err(StorageError::Unknown(id)),
                // Removed between the listing and the look: look again.
                Err(e) => failed = Some(e),
            }
        }
        Err(failed.expect("every attempt failed"))
    }

    /// The greater of what the manifest and the slots say.
    fn look(
        &self,
        id: LogletId,
        known: Option<&LogletState>,
    ) -> Result<Option<LogletState>, StorageError> {
        let dir = loglet_dir(&self.root, id);
        let names = match self.disk.list(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| StorageError::io("list", &dir, e))?,
        };
        let mut bases: Vec<LogletPos> =
            names.iter().filter_map(|name| parse_data_file(name)).collect();
        bases.sort_unstable();
        let mut state = match (known, bases.first()) {
            (Some(known), _) => LogletState { older: Arc::default(), ..known.clone() },
            (None, Some(base)) => LogletState::new(*base),
            (None, None) => return Ok(None),
        };
        let mut extents: Vec<Extent> = Vec::new();
        // How far the files so far are known to be complete.
        let mut complete = None;
        for base in bases {
            let slot = self.slot((id, base))?;
            let from_manifest =
                known.and_then(|known| known.extents().find(|extent| extent.base == base).copied());
            let extent = match (slot.map(|slot| slot.extent), from_manifest) {
                (Some(a), Some(b)) => Extent {
                    base,
                    len: a.len.max(b.len),
                    start: a.start.max(b.start),
                    start_position: a.start_position.max(b.start_position),
                },
                (Some(one), None) | (None, Some(one)) => one,
                // Made for a commit that is still under way.
                (None, None) => {
                    state.tail = state.tail.min(base);
                    break;
                }
            };
            // The last slot was read before the owner went on here: it may have added to that file
            // first. What is known so far is true, and the next look sees the rest.
            if !extents.is_empty() && complete.is_none_or(|complete| complete < base) {
                break;
            }
            complete = slot.map(|slot| slot.tail).max(following(known, base));
            if let Some(slot) = slot {
                state.tail = state.tail.max(slot.tail);
                state.trim = state.trim.max(slot.trim);
                state.sealed |= slot.sealed;
            }
            extents.push(extent);
        }
        let Some(active) = extents.pop() else { return Ok(None) };
        state.active = active;
        state.older = Arc::new(extents);
        // A trimmed loglet that the manifest does not know shows no base any more.
        state.trim = state.trim.max(state.base);
        state.tail = state.tail.max(state.trim);
        Ok(Some(state))
    }

    /// What the owner published in a file. `None` when that is nothing so far.
    fn slot(&self, key: FileKey) -> Result<Option<Slot>, StorageError> {
        let Some(file) = self.files.get_if_made(key)? else { return Ok(None) };
        let slot = Slot::read(file.as_ref(), key)
            .map_err(|e| StorageError::io("read", &self.files.path(key), e))?;
        if slot.is_none() {
            // Its commit may be refused, and another file made under the same name.
            self.files.forget(key);
        }
        Ok(slot)
    }

    /// The manifest, if slots and bytes can be believed.
    fn trusted_manifest(&self) -> Result<Arc<Manifest>, StorageError> {
        let trusted = |m: &Manifest| m.clean || (m.boot == self.boot && self.boot != 0);
        let mut manifest = self.manifest.lock().expect("no panic under this lock");
        if !trusted(&manifest) {
            let fresh = read_manifest(self.disk.as_ref(), &self.root);
            *manifest = Arc::new(fresh.map_err(StorageError::Unavailable)?);
        }
        if trusted(&manifest) {
            return Ok(Arc::clone(&manifest));
        }
        Err(StorageError::Unavailable(Error::new(
            ErrorCode::Unavailable,
            "the machine stopped before this store was closed: open it once for writing to recover",
        )))
    }
}

/// Where the file after this one starts, as the manifest has it: up to there this one is complete.
fn following(known: Option<&LogletState>, base: LogletPos) -> Option<LogletPos> {
    let known = known.filter(|known| known.extents().any(|extent| extent.base == base))?;
    known.extent_after(base).map(|next| next.base)
}

fn read_manifest(disk: &dyn Disk, dir: &Path) -> Result<Manifest, Error> {
    Manifest::read(disk, dir)?.ok_or_else(|| super::no_store(dir))
}
