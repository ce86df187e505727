//! Opening a store: from what a crash left to a state that takes appends.
//!
//! Two passes over the journal. The first only reads: it finds the journal's end (rule T) and what
//! every loglet will look like, and any damage ends it with nothing changed. The second writes the
//! batches to the data files again, the same bytes at the same places, whatever is there: the page
//! cache may show bytes that a failed sync never brought to the disk. Then files and directories are
//! synced, a fresh journal file is made, and the manifest that names it is written. Until that last
//! step a crash leads to the same recovery again.
//!
//! Work follows the length of the journal and the number of data files, not what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use virtuallog_protocol::{LogId, LogletId, LogletPos};

use super::commit::Committer;
use super::data::{
    DATA_START, DataFiles, FileKey, LOGLETS, Slot, data_path, loglet_dir, parse_data_file,
    parse_loglet_dir,
};
use super::disk::{Disk, OpenMode};
use super::error::{StorageError, io_error};
use super::identity::NAMES;
use super::journal::{self, Control, JOURNAL, JournalFile, PAGE, Record, Replay, journal_path};
use super::keep::Ring;
use super::manifest::{Lives, MANIFEST, Manifest};
use super::state::{Extent, LogletState, Spared};
use super::{PlantedBug, StorageOptions};
use crate::env::{self, planted};
use crate::error::{Error, ErrorCode};

/// Epochs and start counters: the start is above these bits; below are chance, for each start, and the
/// journal file in it.
const START_SHIFT: u32 = 40;
/// The counter of a store's first start: of one that is new there is no copy.
const FIRST: u64 = 1 << 20;

/// A store that can be appended to.
pub(crate) struct Recovered {
    pub(crate) manifest: Manifest,
    pub(crate) committer: Committer,
    pub(crate) ring: Ring,
    /// Directories of loglets that are gone; to be removed.
    pub(crate) dead: Vec<LogletId>,
}

/// What replay found, apart from the manifest's state that it changed.
#[derive(Default)]
struct Replayed {
    /// Files that were created after the manifest was written.
    created: BTreeSet<FileKey>,
    /// Files that get bytes again.
    written: BTreeSet<FileKey>,
    /// Files that the manifest named.
    durable: BTreeMap<FileKey, u64>,
    changed: BTreeSet<LogletId>,
    /// Files that nothing needs: trimmed, or made for a commit that did not come to be.
    dead: BTreeSet<FileKey>,
}

/// Makes the directories of a new store. Nothing is durable in it until its first manifest is.
pub(crate) fn create(
    disk: &dyn Disk,
    root: &Path,
    options: &StorageOptions,
    boot: u64,
) -> Result<Manifest, Error> {
    for dir in [JOURNAL, LOGLETS] {
        let dir = root.join(dir);
        disk.create_dir(&dir).map_err(|e| io_error("create", &dir, e))?;
    }
    // Also when they were there: whoever made them may have been killed before this.
    let parent = match root.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
        other => other,
    };
    for dir in parent.into_iter().chain([root]) {
        disk.sync_dir(dir).map_err(|e| io_error("sync", dir, e))?;
    }
    let storage_id = match options.storage_id {
        Some(id) => id,
        None => {
            let mut id = [0; 16];
            getrandom::fill(&mut id).map_err(|e| {
                Error::new(ErrorCode::Unavailable, format!("the system gives no random bits: {e}"))
            })?;
            u128::from_le_bytes(id)
        }
    };
    Ok(Manifest {
        storage_id,
        counter: 0,
        epoch: 0,
        sequence: 1,
        journal_file: 0,
        clean: true,
        boot,
        lives: Lives::default(),
        loglets: BTreeMap::new(),
        spared: BTreeMap::new(),
    })
}

/// The folder of the registers, which the MetaStore keeps beside the loglets.
const REGISTERS: &str = "meta";

/// By which the owner of a store is reached.
const SOCKETS: [&str; 2] = ["socket", "socket.new"];

/// Whether the directory is new or holds a store, without changing it.
///
/// # Errors
/// `INVALID` when it holds something else; `DATA_LOSS` when it is a store that lost its manifest.
pub(crate) fn look(disk: &dyn Disk, root: &Path) -> Result<Option<Manifest>, Error> {
    let manifest = Manifest::read(disk, root)?;
    if manifest.is_some() {
        return Ok(manifest);
    }
    let names = disk.list(root).map_err(|e| io_error("list", root, e))?;
    let mut known = vec![JOURNAL, LOGLETS, REGISTERS, "LOCK", "manifest.new"];
    known.extend(NAMES);
    known.extend(SOCKETS);
    if let Some(other) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Error::invalid(format!(
            "`{}` is not a store and not empty (it holds `{other}`): choose another directory",
            root.display()
        )));
    }
    // Neither a loglet nor a block is written before the first manifest is durable, and neither
    // a register nor whose disk it is.
    let loglets = root.join(LOGLETS);
    let mut used = names.iter().any(|name| name == REGISTERS || NAMES.contains(&name.as_str()));
    used |= match disk.list(&loglets) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        other => !other.map_err(|e| io_error("list", &loglets, e))?.is_empty(),
    };
    if names.iter().any(|name| name == JOURNAL) {
        used |= journal::is_used(disk, root)?;
    }
    match used {
        false => Ok(None),
        true => Err(data_loss(&root.join(MANIFEST), "is missing")),
    }
}

/// Brings the store in `root` to a state that takes appends.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    files: &DataFiles,
    root: &Path,
    manifest: Manifest,
    options: &StorageOptions,
    boot: u64,
) -> Result<Recovered, Error> {
    let journals = journal::list(disk.as_ref(), root)?;
    let mut recovery = Recovery { disk: disk.as_ref(), files, root, options, manifest };
    let named = recovery.manifest.journal_file;
    if !recovery.manifest.clean && !journals.iter().any(|file| file.number == named) {
        return Err(data_loss(&journal_path(root, named), "is missing"));
    }
    let mut replayed = Replayed::default();
    for (id, state) in &recovery.manifest.loglets {
        replayed.durable.extend(state.extents().map(|e| ((*id, e.base), e.len)));
    }
    let end = recovery.plan(&journals, &mut replayed)?;
    recovery.check_files(&replayed)?;
    replayed.dead = recovery.dead_files()?;
    let dead = recovery.check_directories(&replayed)?;
    recovery.write(&journals, &replayed)?;

    let clean = recovery.manifest.clean;
    let mut manifest = recovery.manifest;
    let reached = manifest.counter.max(end.epoch);
    manifest.counter = match reached {
        0 => FIRST,
        _ => after(reached + options.journal_files_max as u64),
    };
    manifest.epoch = manifest.counter;
    let lives = manifest.lives.clone();
    manifest.lives.begin(reached, manifest.counter);
    manifest.sequence = end.sequence;
    manifest.clean = false;
    manifest.boot = boot;
    let reuse = clean.then_some(named);
    let fresh = fresh_journal(disk.as_ref(), root, journals.clone(), reuse, options);
    let (active, mut ring, old) = match fresh {
        // No room for another file: once the manifest says so, the old ones are not needed.
        Err(e) if e.code() == ErrorCode::DiskFull => {
            manifest.clean = true;
            replace(disk.as_ref(), root, &manifest)?;
            manifest.clean = false;
            manifest.counter = after(manifest.counter);
            manifest.epoch = manifest.counter;
            manifest.lives = lives;
            manifest.lives.begin(reached, manifest.counter);
            fresh_journal(disk.as_ref(), root, journals, Some(named), options)?
        }
        other => other?,
    };
    manifest.journal_file = active.number;
    replace(disk.as_ref(), root, &manifest)?;
    for file in old {
        // Of no use any more; one that stays is removed at the next start.
        let _ = disk.remove_file(&journal_path(root, file.number));
    }
    ring.spares.sort_by_key(|file| std::cmp::Reverse(file.len));
    let committer = Committer {
        epoch: manifest.epoch,
        sequence: manifest.sequence,
        offset: 0,
        marked: true,
        writers: BTreeMap::new(),
        active,
    };
    for id in &replayed.changed {
        let Some(state) = manifest.loglets.get(id) else { continue };
        for extent in state.extents() {
            publish(files, state, (*id, extent.base), *extent);
        }
    }
    Ok(Recovered { manifest, committer, ring, dead })
}

/// Where the counter goes on in another process: above all before, at a place that another copy of the
/// disk does not draw.
fn after(counter: u64) -> u64 {
    let chance = env::random_u128() as u64 & ((1 << (START_SHIFT - 1)) - 1);
    (((counter >> START_SHIFT) + 1) << START_SHIFT) | chance
}

fn replace(disk: &dyn Disk, root: &Path, manifest: &Manifest) -> Result<(), Error> {
    let written = manifest.write(disk, root).and_then(|written| written);
    written.map_err(|e| io_error("replace", &root.join(MANIFEST), e))
}

/// For readers in other processes; they fall behind if this fails, no more.
fn publish(files: &DataFiles, state: &LogletState, key: FileKey, extent: Extent) {
    let slot = Slot::of(state, extent);
    let written = files.get(key).and_then(|file| {
        slot.write(file.as_ref(), key)
            .map_err(|e| StorageError::io("publish in", &files.path(key), e))
    });
    if let Err(e) = written {
        tracing::warn!("readers in other processes are not told of what was recovered: {e}");
    }
}

/// The journal file to go on with. After a clean end the old ones are used again under the new
/// epoch, up to number `reuse`, which the manifest names: a later one may be what a start left that
/// failed before the file's name was durable. Otherwise a new file is made, since one of the old ones
/// may be why the store stopped.
fn fresh_journal(
    disk: &dyn Disk,
    root: &Path,
    journals: Vec<JournalFile>,
    reuse: Option<u32>,
    options: &StorageOptions,
) -> Result<(JournalFile, Ring, Vec<JournalFile>), Error> {
    let first_len = options.first_journal_bytes();
    let next_number = journals.iter().map(|file| file.number + 1).max().unwrap_or(1);
    let next_len = (first_len * 4).min(options.journal_file_bytes);
    let mut ring = Ring { next_number, next_len, ..Ring::default() };
    let whole = |file: &JournalFile| file.len >= first_len && file.len.is_multiple_of(PAGE);
    let unnamed = planted::has(planted::Bug::ReusesUnnamed);
    let durable = |file: &JournalFile| reuse.is_some_and(|named| file.number <= named || unnamed);
    let (mut good, mut old): (Vec<_>, Vec<_>) =
        journals.into_iter().partition(|file| whole(file) && durable(file));
    good.sort_by_key(|file| file.len);
    if let Some(active) = good.pop() {
        ring.next_len = active.len.max(next_len).min(options.journal_file_bytes);
        ring.spares.extend(good.pop());
        old.extend(good);
        return Ok((active, ring, old));
    }
    let number = ring.take_number();
    let sync_dir = !options.planted(PlantedBug::NoDirSync);
    let active = JournalFile::create(disk, root, number, first_len, first_len, sync_dir)
        .and_then(|made| made)
        .map_err(|e| io_error("create", &journal_path(root, number), e))?;
    Ok((active, ring, old))
}

fn data_loss(path: &Path, what: &str) -> Error {
    let message = format!(
        "`{}` {what}: acknowledged entries are gone; restore the store or take over its replicas",
        path.display()
    );
    Error::new(ErrorCode::DataLoss, message)
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    files: &'a DataFiles,
    root: &'a Path,
    options: &'a StorageOptions,
    manifest: Manifest,
}

impl Recovery<'_> {
    fn replay(
        &self,
        journals: &[JournalFile],
        each: &mut dyn FnMut(Record) -> Result<(), String>,
    ) -> Result<journal::JournalEnd, Error> {
        let from = Replay {
            root: self.root,
            storage_id: self.manifest.storage_id,
            files: journals,
            epoch: self.manifest.epoch,
            sequence: self.manifest.sequence,
            cut_at_bad_block: self.options.planted(PlantedBug::CutAtBadBlock),
        };
        if self.manifest.clean {
            return Ok(journal::JournalEnd { epoch: from.epoch, sequence: from.sequence });
        }
        journal::replay(&from, each)
    }

    /// First pass: where everything will be. Changes the manifest's state in memory only.
    fn plan(
        &mut self,
        journals: &[JournalFile],
        replayed: &mut Replayed,
    ) -> Result<journal::JournalEnd, Error> {
        let mut loglets = std::mem::take(&mut self.manifest.loglets);
        let mut spared = std::mem::take(&mut self.manifest.spared);
        let end = self.replay(journals, &mut |record| {
            apply(record, &mut loglets, &mut spared, replayed, &mut |_, _| {})
        });
        self.manifest.loglets = loglets;
        self.manifest.spared = spared;
        end
    }

    /// What the manifest named and what is still kept has to be there, as long as it was; and what
    /// was published was acknowledged, so it has to be recovered.
    fn check_files(&self, replayed: &Replayed) -> Result<(), Error> {
        for (id, state) in &self.manifest.loglets {
            for extent in state.extents() {
                let key = (*id, extent.base);
                let path = data_path(self.root, key);
                let file = match self.disk.open(&path, OpenMode::Read) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        match replayed.durable.contains_key(&key) {
                            true => return Err(data_loss(&path, "is missing")),
                            false => continue,
                        }
                    }
                    other => other.map_err(|e| io_error("open", &path, e))?,
                };
                let fail = |e| io_error("read", &path, e);
                let len = file.len().map_err(fail)?;
                if replayed.durable.get(&key).is_some_and(|durable| len < *durable) {
                    return Err(data_loss(&path, "is shorter than it was"));
                }
                let slot = Slot::read(file.as_ref(), key).map_err(fail)?;
                if let Some(slot) = slot.filter(|_| self.options.checks_slots()) {
                    check_slot(&path, &slot, state)?;
                }
            }
        }
        Ok(())
    }

    /// Data files of known loglets that nothing names.
    fn dead_files(&self) -> Result<BTreeSet<FileKey>, Error> {
        let mut dead = BTreeSet::new();
        for (id, state) in &self.manifest.loglets {
            for base in self.data_files(*id)? {
                if state.extents().any(|extent| extent.base == base) {
                    continue;
                }
                let key = (*id, base);
                let path = data_path(self.root, key);
                let fail = |e| io_error("read", &path, e);
                if base > state.active.base && self.options.checks_slots() {
                    let file = self.disk.open(&path, OpenMode::Read).map_err(fail)?;
                    if let Some(slot) = Slot::read(file.as_ref(), key).map_err(fail)? {
                        check_slot(&path, &slot, state)?;
                    }
                }
                dead.insert(key);
            }
        }
        Ok(dead)
    }

    /// Looks for directories that nothing names. Those that are provably ours and dead
    /// are removed later; whatever else is there is left alone.
    fn check_directories(&self, replayed: &Replayed) -> Result<Vec<LogletId>, Error> {
        let all = self.root.join(LOGLETS);
        let names = self.disk.list(&all).map_err(|e| io_error("list", &all, e))?;
        let mut dead = Vec::new();
        for id in names.iter().filter_map(|name| parse_loglet_dir(name)) {
            if self.manifest.loglets.contains_key(&id) {
                continue;
            }
            let spared = self.manifest.spared.get(&id.log);
            let alive = spared.is_none_or(|spared| spared.spares(id.segment));
            if alive && self.options.checks_slots() {
                self.check_never_published(id, replayed)?;
            }
            dead.push(id);
        }
        Ok(dead)
    }

    /// A loglet that neither manifest nor journal knows was about to be created. If something was
    /// published in it, it was in use, and this is not the manifest that belongs to it.
    fn check_never_published(&self, id: LogletId, replayed: &Replayed) -> Result<(), Error> {
        for base in self.data_files(id)? {
            let key = (id, base);
            let path = data_path(self.root, key);
            let fail = |e| io_error("read", &path, e);
            let file = self.disk.open(&path, OpenMode::Read).map_err(fail)?;
            let published = Slot::read(file.as_ref(), key).map_err(fail)?.is_some();
            if published && !replayed.changed.contains(&id) {
                return Err(data_loss(&path, "is in use, but the manifest does not know it"));
            }
        }
        Ok(())
    }

    fn data_files(&self, id: LogletId) -> Result<Vec<LogletPos>, Error> {
        let dir = loglet_dir(self.root, id);
        let names = match self.disk.list(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|e| io_error("list", &dir, e))?,
        };
        Ok(names.iter().filter_map(|name| parse_data_file(name)).collect())
    }

    /// Second pass: the bytes.
    fn write(&self, journals: &[JournalFile], replayed: &Replayed) -> Result<(), Error> {
        let kept = |key: &FileKey| {
            let state = self.manifest.loglets.get(&key.0);
            state.is_some_and(|state| state.extents().any(|extent| extent.base == key.1))
        };
        for key in replayed.created.iter().filter(|key| kept(key)) {
            self.create_file(*key)?;
        }
        let before = Manifest::read(self.disk, self.root)?;
        let (mut loglets, mut spared) =
            before.map_or_else(Default::default, |before| (before.loglets, before.spared));
        let mut failed = None;
        self.replay(journals, &mut |record| {
            apply(record, &mut loglets, &mut spared, &mut Replayed::default(), &mut |key, at| {
                if kept(&key) && failed.is_none() {
                    failed = self.write_batch(key, at).err();
                }
            })
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        for (id, state) in &self.manifest.loglets {
            for extent in state.extents() {
                self.settle((*id, extent.base), extent, replayed)?;
            }
        }
        for key in &replayed.dead {
            let path = data_path(self.root, *key);
            self.disk.remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
        }
        self.sync_dirs(replayed)
    }

    fn create_file(&self, key: FileKey) -> Result<(), Error> {
        let dir = loglet_dir(self.root, key.0);
        let path = data_path(self.root, key);
        let fail = |e| io_error("create", &path, e);
        self.disk.create_dir(&dir).map_err(fail)?;
        match self.disk.open(&path, OpenMode::Write) {
            // The slot stays as it is: until the manifest is written, it is what readers go by.
            Ok(file) => self.files.write_header(file.as_ref(), key).map_err(fail),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let file = self.disk.open(&path, OpenMode::Create).map_err(fail)?;
                self.files.write_header(file.as_ref(), key).map_err(fail)
            }
            Err(e) => Err(fail(e)),
        }
    }

    fn write_batch(&self, key: FileKey, batch: Placed<'_>) -> Result<(), Error> {
        let file = self.files.get(key)?;
        let stamp = batch.stamped.stamp();
        let parts = [IoSlice::new(&stamp), IoSlice::new(batch.stamped.batch.as_bytes())];
        let path = self.files.path(key);
        self.files.mark_dirty(key);
        file.write_all_at(&parts, batch.offset).map_err(|e| io_error("write", &path, e))
    }

    /// Cuts what lies past the end, syncs, and gives the space of a hole back.
    fn settle(&self, key: FileKey, extent: &Extent, replayed: &Replayed) -> Result<(), Error> {
        let path = self.files.path(key);
        let fail = |e| io_error("write", &path, e);
        let written = replayed.written.contains(&key) || replayed.created.contains(&key);
        if !written && self.manifest.clean {
            return Ok(());
        }
        let file = self.files.get(key)?;
        let longer = file.len().map_err(fail)? > extent.len;
        if longer {
            file.set_len(extent.len).map_err(fail)?;
        }
        let hole = extent.start / PAGE * PAGE;
        if replayed.changed.contains(&key.0) && hole > DATA_START {
            match file.punch(DATA_START, hole) {
                Err(e) if e.kind() != io::ErrorKind::Unsupported => return Err(fail(e)),
                _ => {}
            }
        }
        if written || longer {
            file.sync_data().map_err(|e| io_error("sync", &path, e))?;
        }
        Ok(())
    }

    fn sync_dirs(&self, replayed: &Replayed) -> Result<(), Error> {
        if self.options.planted(PlantedBug::NoDirSync) {
            return Ok(());
        }
        let dirs: BTreeSet<LogletId> = replayed
            .created
            .iter()
            .map(|key| key.0)
            .filter(|id| self.manifest.loglets.contains_key(id))
            .collect();
        let dirs = dirs.iter().map(|id| loglet_dir(self.root, *id));
        for dir in std::iter::once(self.root.join(LOGLETS)).chain(dirs) {
            self.disk.sync_dir(&dir).map_err(|e| io_error("sync", &dir, e))?;
        }
        Ok(())
    }
}

fn check_slot(path: &Path, slot: &Slot, state: &LogletState) -> Result<(), Error> {
    let behind = slot.tail > state.tail
        || slot.trim > state.trim
        || (slot.sealed && !state.sealed)
        || state.extents().any(|e| e.base == slot.extent.base && slot.extent.len > e.len);
    match behind {
        false => Ok(()),
        true => Err(Error::new(
            ErrorCode::Corrupt,
            format!(
                "`{}` was published up to position {}, but the journal ends at {}: nothing was cut; \
                 restore the store or take over its replicas",
                path.display(),
                slot.tail,
                state.tail
            ),
        )),
    }
}

/// A batch and where in its file it goes.
struct Placed<'a> {
    offset: u64,
    stamped: &'a virtuallog_protocol::StampedBatch,
}

/// Applies one record of the journal. Replay starts at the very state that the manifest holds, so
/// a record that does not fit on it is damage.
fn apply(
    record: Record,
    loglets: &mut BTreeMap<LogletId, LogletState>,
    spared: &mut BTreeMap<LogId, Spared>,
    replayed: &mut Replayed,
    write: &mut dyn FnMut(FileKey, Placed<'_>),
) -> Result<(), String> {
    let unknown = |id: LogletId| format!("a record of the unknown loglet {id}");
    match record {
        Record::Batch(stamped) => {
            let id = stamped.loglet;
            let state = loglets.get_mut(&id).ok_or_else(|| unknown(id))?;
            // One that follows the seal came from a repair.
            if stamped.first < state.tail {
                return Err(format!("a batch at the taken position {} of {id}", stamped.first));
            }
            let key = (id, state.active.base);
            write(key, Placed { offset: state.active.len, stamped: &stamped });
            state.active.len += stamped.encoded_len() as u64;
            state.tail = stamped.end();
            replayed.written.insert(key);
            replayed.changed.insert(id);
        }
        Record::Control(Control::Create { id, base }) => {
            if loglets.insert(id, LogletState::new(base)).is_some() {
                return Err(format!("loglet {id} was created twice"));
            }
            replayed.created.insert((id, base));
            replayed.changed.insert(id);
        }
        Record::Control(Control::Roll { id, base }) => {
            let state = loglets.get_mut(&id).ok_or_else(|| unknown(id))?;
            if base < state.tail || base <= state.active.base {
                return Err(format!("a data file of {id} at the taken position {base}"));
            }
            state.roll(base);
            replayed.created.insert((id, base));
        }
        Record::Control(Control::Seal { id }) => {
            loglets.get_mut(&id).ok_or_else(|| unknown(id))?.sealed = true;
            replayed.changed.insert(id);
        }
        Record::Control(Control::Trim { id, keep_from }) => {
            loglets.get_mut(&id).ok_or_else(|| unknown(id))?.trim_to(keep_from);
            replayed.changed.insert(id);
        }
        Record::Control(Control::Start { id, file, start, position }) => {
            let state = loglets.get_mut(&id).ok_or_else(|| unknown(id))?;
            state.start_at(file, start, position);
            replayed.changed.insert(id);
        }
        Record::Control(Control::Retire { log, bound, live }) => {
            let now = Spared::by(bound, &live);
            loglets.retain(|id, _| id.log != log || now.spares(id.segment));
            let known = spared.entry(log).or_default();
            *known = known.and(&now);
        }
    }
    Ok(())
}
