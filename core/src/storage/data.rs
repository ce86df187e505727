//! Data files: where the batches of a loglet stay, back to back as they came.
//!
//! A file opens with a page that says whose it is and, beside that, a *published slot*: how far the
//! file is durable, for readers in other processes. The slot is a hint for its owner (what it names
//! was acknowledged, so recovery that ends before it has lost something) and never more.
//!
//! [`DataFiles`] keeps a bounded number of them open. It is the only place that knows which of them
//! hold bytes that were not synced. Bytes are in `FORMAT.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use virtuallog_protocol::record::Crc32c;
use virtuallog_protocol::{LogId, LogletId, LogletPos};

use super::disk::{Disk, DiskFile, OpenMode, read_up_to};
use super::error::{Poison, StorageError};
use super::state::{Extent, LogletState};

/// Where the first batch of a data file starts.
pub(crate) const DATA_START: u64 = 4096;
/// Directory of all loglets in the store's directory.
pub(crate) const LOGLETS: &str = "loglets";

const FILE_MAGIC: [u8; 4] = *b"VLD\x01";
const SLOT_MAGIC: [u8; 4] = *b"VLP\x01";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 64;
/// The slot has a sector of its own, so that rewriting it cannot tear the header.
const SLOT_AT: u64 = 512;
const SLOT_LEN: usize = 64;
const SLOT_SEALED: u32 = 1;

/// Names one data file: the loglet, and the file's base.
pub(crate) type FileKey = (LogletId, LogletPos);

/// Where a loglet's data files are.
pub(crate) fn loglet_dir(root: &Path, id: LogletId) -> PathBuf {
    root.join(LOGLETS).join(id.to_string())
}

/// Where a data file is.
pub(crate) fn data_path(root: &Path, (id, base): FileKey) -> PathBuf {
    loglet_dir(root, id).join(format!("{:020}", base.0))
}

/// The loglet whose directory has this name. Only the one spelling that is written counts.
pub(crate) fn parse_loglet_dir(name: &str) -> Option<LogletId> {
    let (log, segment) = name.split_once('-')?;
    let log = LogId(u128::from_str_radix(log, 16).ok()?);
    let id = LogletId { log, segment: segment.parse().ok()? };
    (id.to_string() == name).then_some(id)
}

/// The base of the data file of this name.
pub(crate) fn parse_data_file(name: &str) -> Option<LogletPos> {
    let base: u64 = name.parse().ok()?;
    (format!("{base:020}") == name).then_some(LogletPos(base))
}

/// What a data file's published slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) tail: LogletPos,
    pub(crate) sealed: bool,
    pub(crate) trim: LogletPos,
    pub(crate) extent: Extent,
}

impl Slot {
    /// What is to be published in the file `extent` of a loglet in this state. A file that another
    /// follows says only that it is complete up to there: slots are written one after the other, and
    /// a reader that sees this one and not yet the next must not hear of what the next one holds.
    pub(crate) fn of(state: &LogletState, extent: Extent) -> Slot {
        let next = match extent.base == state.active.base {
            true => None,
            false => state.extent_after(extent.base),
        };
        let (tail, sealed) = next.map_or((state.tail, state.sealed), |next| (next.base, false));
        Slot { tail, sealed, trim: state.trim, extent }
    }

    pub(crate) fn write(&self, file: &dyn DiskFile, key: FileKey) -> io::Result<()> {
        file.write_all_at(&[IoSlice::new(&self.encode(key))], SLOT_AT)
    }

    /// Reads the slot; `None` when nothing was published in this file, or it is damaged.
    pub(crate) fn read(file: &dyn DiskFile, key: FileKey) -> io::Result<Option<Slot>> {
        // A page that is being written may be read half old and half new: look again.
        for _ in 0..4 {
            let mut bytes = [0; SLOT_LEN];
            let read = read_up_to(file, &mut bytes, SLOT_AT)?;
            if read < SLOT_LEN || bytes == [0; SLOT_LEN] {
                return Ok(None);
            }
            if let Some(slot) = Self::decode(&bytes, key) {
                return Ok(Some(slot));
            }
            std::thread::yield_now();
        }
        Ok(None)
    }

    fn encode(&self, key: FileKey) -> [u8; SLOT_LEN] {
        let mut bytes = [0; SLOT_LEN];
        bytes[..4].copy_from_slice(&SLOT_MAGIC);
        bytes[4..8].copy_from_slice(&(u32::from(self.sealed) * SLOT_SEALED).to_le_bytes());
        let long = [
            self.tail.0,
            self.extent.len,
            self.trim.0,
            self.extent.start,
            self.extent.start_position.0,
        ];
        for (i, value) in long.into_iter().enumerate() {
            bytes[8 + 8 * i..][..8].copy_from_slice(&value.to_le_bytes());
        }
        let crc = Self::checksum(&bytes, key);
        bytes[SLOT_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SLOT_LEN], key: FileKey) -> Option<Slot> {
        let int = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |i: usize| u64::from(int(8 + 8 * i)) | u64::from(int(12 + 8 * i)) << 32;
        if bytes[..4] != SLOT_MAGIC || int(SLOT_LEN - 4) != Self::checksum(bytes, key) {
            return None;
        }
        let extent = Extent {
            base: key.1,
            len: long(1),
            start: long(3),
            start_position: LogletPos(long(4)),
        };
        let sealed = int(4) & SLOT_SEALED != 0;
        Some(Slot { tail: LogletPos(long(0)), sealed, trim: LogletPos(long(2)), extent })
    }

    /// Covers whose slot it is too, so that a page which was written to a wrong place shows.
    fn checksum(bytes: &[u8; SLOT_LEN], (id, base): FileKey) -> u32 {
        let mut crc = Crc32c::new();
        crc.update(&id.log.0.to_le_bytes());
        crc.update(&id.segment.to_le_bytes());
        crc.update(&base.0.to_le_bytes());
        crc.update(&bytes[..SLOT_LEN - 4]);
        crc.finish()
    }
}

fn damaged_header(path: &Path) -> StorageError {
    StorageError::Corrupt(format!(
        "`{}` at byte 0: header is damaged or not of this store and loglet: restore it",
        path.display()
    ))
}

fn header(storage_id: u128, (id, base): FileKey) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..4].copy_from_slice(&FILE_MAGIC);
    bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
    bytes[8..24].copy_from_slice(&storage_id.to_le_bytes());
    bytes[24..40].copy_from_slice(&id.log.0.to_le_bytes());
    bytes[40..44].copy_from_slice(&id.segment.to_le_bytes());
    bytes[48..56].copy_from_slice(&base.0.to_le_bytes());
    let crc = virtuallog_protocol::record::crc32c(&bytes[..HEADER_LEN - 4]);
    bytes[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The data files of a store that are open, and which of them have to be synced.
#[derive(Debug)]
pub(crate) struct DataFiles {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    storage_id: u128,
    mode: OpenMode,
    open_max: usize,
    table: Mutex<Table>,
    poison: Arc<Poison>,
}

#[derive(Debug, Default)]
struct Table {
    open: BTreeMap<FileKey, Open>,
    dirty: BTreeSet<FileKey>,
    /// Loglets with data files whose names were not synced.
    dirs: BTreeSet<LogletId>,
    clock: u64,
}

#[derive(Debug)]
struct Open {
    file: Arc<dyn DiskFile>,
    used: u64,
}

/// What a checkpoint has to sync.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) files: BTreeMap<FileKey, Arc<dyn DiskFile>>,
    pub(crate) dirs: BTreeSet<LogletId>,
}

impl DataFiles {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        root: &Path,
        storage_id: u128,
        mode: OpenMode,
        open_max: usize,
        poison: Arc<Poison>,
    ) -> DataFiles {
        let table = Mutex::default();
        let root = root.to_owned();
        DataFiles { disk, root, storage_id, mode, open_max: open_max.max(4), table, poison }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().expect("no panic under this lock")
    }

    pub(crate) fn path(&self, key: FileKey) -> PathBuf {
        data_path(&self.root, key)
    }

    /// Makes a data file without batches. One of that name is emptied: only bytes that were never
    /// acknowledged can be in it.
    pub(crate) fn create(&self, key: FileKey) -> Result<Arc<dyn DiskFile>, StorageError> {
        let path = self.path(key);
        let fail = |e| StorageError::io("create", &path, e);
        self.table().open.remove(&key);
        self.disk.create_dir(&loglet_dir(&self.root, key.0)).map_err(fail)?;
        let file = self.disk.open(&path, OpenMode::Create).map_err(fail)?;
        self.write_header(file.as_ref(), key).map_err(fail)?;
        let mut table = self.table();
        table.dirs.insert(key.0);
        table.dirty.insert(key);
        self.insert(&mut table, key, &file)?;
        Ok(file)
    }

    /// Writes the first page except for the slot.
    pub(crate) fn write_header(&self, file: &dyn DiskFile, key: FileKey) -> io::Result<()> {
        file.write_all_at(&[IoSlice::new(&header(self.storage_id, key))], 0)?;
        // Also where the file is long enough: it may only seem so since a sync failed.
        file.write_all_at(&[IoSlice::new(&[0])], DATA_START - 1)
    }

    /// A data file that has to be there.
    ///
    /// # Errors
    /// `Corrupt` when it is missing or another store's or loglet's file.
    pub(crate) fn get(&self, key: FileKey) -> Result<Arc<dyn DiskFile>, StorageError> {
        self.get_if_made(key)?.ok_or_else(|| damaged_header(&self.path(key)))
    }

    /// As [`get`](Self::get); `None` when the file is being made and has no whole header page yet.
    pub(crate) fn get_if_made(
        &self,
        key: FileKey,
    ) -> Result<Option<Arc<dyn DiskFile>>, StorageError> {
        let mut table = self.table();
        table.clock += 1;
        let clock = table.clock;
        if let Some(open) = table.open.get_mut(&key) {
            open.used = clock;
            return Ok(Some(Arc::clone(&open.file)));
        }
        let path = self.path(key);
        let file = self.disk.open(&path, self.mode).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                StorageError::Corrupt(format!("`{}` is missing: restore it", path.display()))
            }
            _ => StorageError::io("open", &path, e),
        })?;
        let fail = |e| StorageError::io("read", &path, e);
        // The header is written before the file gets this long.
        if file.len().map_err(fail)? < DATA_START {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_LEN];
        let read = read_up_to(file.as_ref(), &mut bytes, 0).map_err(fail)?;
        if read < HEADER_LEN || bytes != header(self.storage_id, key) {
            return Err(damaged_header(&path));
        }
        self.insert(&mut table, key, &file)?;
        Ok(Some(file))
    }

    fn insert(
        &self,
        table: &mut Table,
        key: FileKey,
        file: &Arc<dyn DiskFile>,
    ) -> Result<(), StorageError> {
        if table.open.len() >= self.open_max {
            self.make_room(table)?;
        }
        table.clock += 1;
        table.open.insert(key, Open { file: Arc::clone(file), used: table.clock });
        Ok(())
    }

    /// Closes a quarter of the files, those used least lately. One with bytes that were not synced
    /// is synced first: after its last handle is gone, an error of the disk could go unheard.
    fn make_room(&self, table: &mut Table) -> Result<(), StorageError> {
        let mut by_use: Vec<_> = table
            .open
            .iter()
            .map(|(key, open)| (table.dirty.contains(key), open.used, *key))
            .collect();
        by_use.sort_unstable();
        by_use.truncate(self.open_max.div_ceil(4));
        for (dirty, _, key) in by_use {
            if dirty && let Some(open) = table.open.get(&key) {
                if let Err(e) = open.file.sync_data() {
                    let error = self.poison.set("sync", &self.path(key), e);
                    return Err(StorageError::Poisoned(error));
                }
                table.dirty.remove(&key);
            }
            table.open.remove(&key);
        }
        Ok(())
    }

    /// Notes that a file holds bytes that were not synced.
    pub(crate) fn mark_dirty(&self, key: FileKey) {
        self.table().dirty.insert(key);
    }

    /// Everything that is to be synced. The handles keep the files open until that is done.
    pub(crate) fn take_dirty(&self) -> Result<Dirty, StorageError> {
        let (keys, dirs) = {
            let mut table = self.table();
            (std::mem::take(&mut table.dirty), std::mem::take(&mut table.dirs))
        };
        let mut dirty = Dirty { files: BTreeMap::new(), dirs };
        let mut failed = None;
        for key in &keys {
            match self.get(*key) {
                Ok(file) => drop(dirty.files.insert(*key, file)),
                Err(e) => failed = Some(e),
            }
        }
        let Some(error) = failed else { return Ok(dirty) };
        // Nothing is synced yet, so all of it is left for the next attempt.
        let mut table = self.table();
        table.dirty.extend(keys);
        table.dirs.extend(dirty.dirs);
        Err(error)
    }

    /// Closes a file that is about to be removed.
    pub(crate) fn forget(&self, key: FileKey) {
        let mut table = self.table();
        table.open.remove(&key);
        table.dirty.remove(&key);
    }
}
