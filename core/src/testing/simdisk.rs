//! A disk in memory that can do everything that disks do to their users.
//!
//! It keeps two versions of everything: what a running system sees, and what is durable. Between them
//! stand the operations that were not synced, in order: writes by sectors of 512 bytes, changes of
//! length, names made and taken away. [`SimDisk::crash`] gives the disk that a machine finds after it
//! lost power: what is durable, and any chosen subset of the rest.
//!
//! It can also stop at the n-th operation, fail the n-th sync and drop what that sync should have
//! brought to the disk (while reads go on to show it), say of a write that it was done and lose it or
//! do it in a wrong place, run out of space or of open files, fail reads, and flip bits.
//! There is no chance in it: callers choose, from a seed of their own.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use virtuallog_protocol::record::crc32c;

use crate::storage::disk::{Disk, DiskFile, LockGuard, LockOutcome, OpenMode};

/// What a disk writes at once or not at all.
const SECTOR: usize = 512;

/// The process that uses the disk, as long as nobody says otherwise.
const OWNER: u32 = 4711;

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

type Content = Arc<Vec<u8>>;

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<u64, Inode>,
    /// Names as the running system sees them, and as they are durable.
    names: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<NameOp>,
    locked: BTreeMap<PathBuf, u64>,
    next_inode: u64,
    boot: u64,
    process: u32,
    faults: Faults,
    /// Operations that change or sync something, so far.
    operations: u64,
    syncs: u64,
    stopped: bool,
    /// What went wrong by [`SimDisk::fail_sync`] and by [`SimDisk::bad_write`], over all starts.
    failed_syncs: Arc<AtomicU64>,
    bad_writes: Arc<AtomicU64>,
}

#[derive(Clone, Debug, Default)]
struct Faults {
    stop_at: Option<u64>,
    fail_sync: Option<u64>,
    room: Option<u64>,
    fail_reads_of: Option<String>,
    fail_making: Option<String>,
    fail_opens_of: Option<String>,
    bad_write: Option<(u64, BadWrite)>,
    panic_at: Option<u64>,
}

/// What a disk does with a write that it then says it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadWrite {
    /// Nothing.
    Lost,
    /// Writes so many bytes further on, or further back but not before the file's start.
    Shifted(i64),
    /// Writes to the same place of another file, if that is there.
    Elsewhere(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Content,
    now: Content,
    pending: Vec<FileOp>,
}

#[derive(Clone, Debug)]
enum FileOp {
    /// At most a sector, within one.
    Write(u64, Vec<u8>),
    Len(u64),
}

#[derive(Clone, Debug)]
enum NameOp {
    Make(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameOp {
    fn dir(&self) -> &Path {
        let (NameOp::Make(path, _) | NameOp::Remove(path) | NameOp::Rename(path, _)) = self;
        path.parent().unwrap_or(Path::new(""))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        let parent = self.dir();
        // A name cannot outlive its directory.
        if parent.parent().is_some() && names.get(parent) != Some(&Node::Dir) {
            return;
        }
        match self {
            NameOp::Make(path, node) => {
                names.insert(path.clone(), *node);
            }
            NameOp::Remove(path) => {
                names.remove(path);
            }
            NameOp::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

impl FileOp {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            FileOp::Write(at, bytes) => {
                let end = *at as usize + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at as usize..end].copy_from_slice(bytes);
            }
            FileOp::Len(len) => content.resize(*len as usize, 0),
        }
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk with a root directory.
    #[must_use]
    pub fn new() -> SimDisk {
        let mut state = State { boot: 1, process: OWNER, next_inode: 1, ..State::default() };
        state.names.insert(PathBuf::from("/"), Node::Dir);
        state.durable = state.names.clone();
        SimDisk(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many operations were not synced: the choices that [`crash`](Self::crash) gives.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        let state = self.state();
        state.pending.len() + state.files.values().map(|file| file.pending.len()).sum::<usize>()
    }

    /// How many of them are names that were made or taken away: they have the lowest numbers.
    #[must_use]
    pub fn unsynced_names(&self) -> usize {
        self.state().pending.len()
    }

    /// The disk after the machine lost power: what is durable, and those operations that were not
    /// synced of which `keep` says so, asked by number in `0..unsynced()`.
    #[must_use]
    pub fn crash(&self, mut keep: impl FnMut(usize) -> bool) -> SimDisk {
        let state = self.state();
        let mut after = State {
            next_inode: state.next_inode,
            boot: state.boot + 1,
            process: OWNER,
            durable: state.durable.clone(),
            failed_syncs: state.failed_syncs.clone(),
            bad_writes: state.bad_writes.clone(),
            ..State::default()
        };
        let mut number = 0;
        let mut chosen = || {
            number += 1;
            keep(number - 1)
        };
        for op in &state.pending {
            if chosen() {
                op.apply(&mut after.durable);
            }
        }
        after.names = after.durable.clone();
        for (inode, file) in &state.files {
            let mut content = Arc::clone(&file.durable);
            for op in &file.pending {
                if chosen() {
                    op.apply(Arc::make_mut(&mut content));
                }
            }
            let file = Inode { durable: Arc::clone(&content), now: content, pending: Vec::new() };
            after.files.insert(*inode, file);
        }
        let named: Vec<u64> = after
            .names
            .values()
            .filter_map(|node| if let Node::File(inode) = node { Some(*inode) } else { None })
            .collect();
        after.files.retain(|inode, _| named.contains(inode));
        SimDisk(Arc::new(Mutex::new(after)))
    }

    /// The disk after only the process ended: everything that was written is there. The same start
    /// of the machine, no faults.
    #[must_use]
    pub fn kill(&self) -> SimDisk {
        let mut state = self.state().clone();
        state.faults = Faults::default();
        state.locked.clear();
        state.stopped = false;
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// Operations that change or sync something, so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Syncs of files and directories so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// How many syncs failed and how many writes went wrong since this was asked last, on this disk and
    /// on those that a crash made of it: a fault that was ordered may never come to pass.
    #[must_use]
    pub fn take_mishaps(&self) -> (u64, u64) {
        let state = self.state();
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        (take(&state.failed_syncs), take(&state.bad_writes))
    }

    /// The n-th operation from the start, or the next one if it was passed, is begun, fails, and
    /// everything after it fails too.
    pub fn stop_at(&self, operation: u64) {
        self.state().faults.stop_at = Some(operation);
    }

    /// The n-th sync from the start fails. What it should have made durable never will be, though
    /// reads show it until the next start.
    pub fn fail_sync(&self, sync: u64) {
        self.state().faults.fail_sync = Some(sync);
    }

    /// So many more bytes can be added to files. `None`: no limit.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.state().faults.room = bytes;
    }

    /// Reads of files whose path contains this fail with `EIO`.
    pub fn fail_reads_of(&self, part: Option<&str>) {
        self.state().faults.fail_reads_of = part.map(str::to_owned);
    }

    /// Files whose path contains this cannot be made: there is no room for another one.
    pub fn fail_making(&self, part: Option<&str>) {
        self.state().faults.fail_making = part.map(str::to_owned);
    }

    /// Files whose path contains this cannot be opened or made: too many are open (`EMFILE`).
    pub fn fail_opens_of(&self, part: Option<&str>) {
        self.state().faults.fail_opens_of = part.map(str::to_owned);
    }

    /// The n-th operation from the start, if it is a write to a file, is said to be done and is not.
    pub fn bad_write(&self, operation: u64, bad: BadWrite) {
        self.state().faults.bad_write = Some((operation, bad));
    }

    /// The n-th operation from the start panics, as a mistake in the store at that place would.
    pub fn panic_at(&self, operation: u64) {
        self.state().faults.panic_at = Some(operation);
    }

    /// From now on the one who asks is a child that was forked, or the owner again.
    pub fn fork(&self, child: bool) {
        self.state().process = OWNER + u32::from(child);
    }

    /// All files with their lengths.
    #[must_use]
    pub fn all_files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let len = |inode: &u64| state.files[inode].now.len() as u64;
        let files = state.names.iter().filter_map(|(path, node)| match node {
            Node::File(inode) => Some((path.clone(), len(inode))),
            Node::Dir => None,
        });
        files.collect()
    }

    /// The content of a file, if it is there.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        match state.names.get(path)? {
            Node::File(inode) => Some(state.files[inode].now.to_vec()),
            Node::Dir => None,
        }
    }

    /// Changes a file for good, as a failing disk would: `change` sees its bytes.
    ///
    /// Panics when there is no such file.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let Some(Node::File(inode)) = state.names.get(path).copied() else {
            panic!("no file `{}`", path.display());
        };
        let file = state.files.get_mut(&inode).expect("named files are there");
        change(Arc::make_mut(&mut file.now));
        file.durable = Arc::clone(&file.now);
        file.pending.clear();
    }

    /// Flips one bit of a file, for good.
    pub fn flip(&self, path: &Path, bit: u64) {
        self.damage(path, |bytes| bytes[(bit / 8) as usize] ^= 1 << (bit % 8));
    }

    /// A number that two disks of the same content have in common.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let state = self.state();
        let mut hash = DefaultHasher::new();
        for (path, node) in &state.names {
            path.hash(&mut hash);
            if let Node::File(inode) = node {
                // Faster than hashing all of it where nothing is optimized.
                let content = &state.files[inode].now;
                (content.len(), crc32c(content)).hash(&mut hash);
            }
        }
        hash.finish()
    }
}

impl State {
    /// Counts an operation. `Ok(true)`: it is the one at which the disk stops, so it is begun and
    /// then fails.
    fn operate(&mut self) -> io::Result<bool> {
        if self.stopped {
            return Err(io::Error::other("simulated stop of the machine"));
        }
        self.operations += 1;
        assert!(self.faults.panic_at != Some(self.operations), "planted panic");
        self.stopped = self.faults.stop_at.is_some_and(|at| self.operations >= at);
        Ok(self.stopped)
    }

    fn sync(&mut self) -> io::Result<bool> {
        if self.operate()? {
            return Err(io::Error::other("simulated stop of the machine"));
        }
        self.syncs += 1;
        let fails = self.faults.fail_sync == Some(self.syncs);
        self.failed_syncs.fetch_add(fails.into(), Ordering::Relaxed);
        Ok(fails)
    }

    fn name(&mut self, op: NameOp) -> io::Result<()> {
        let stop = self.operate()?;
        op.apply(&mut self.names);
        self.pending.push(op);
        ended(stop)
    }

    fn readable(&self, path: &Path) -> io::Result<()> {
        if self.stopped {
            return Err(io::Error::other("simulated stop of the machine"));
        }
        match &self.faults.fail_reads_of {
            Some(part) if path.to_string_lossy().contains(part.as_str()) => {
                Err(io::Error::from_raw_os_error(5))
            }
            _ => Ok(()),
        }
    }

    /// Where the write goes that this operation is; `None`: nowhere.
    fn target(&self, inode: u64, offset: u64) -> Option<(u64, u64)> {
        match &self.faults.bad_write {
            Some((at, bad)) if *at == self.operations => {
                self.bad_writes.fetch_add(1, Ordering::Relaxed);
                match bad {
                    BadWrite::Lost => None,
                    BadWrite::Shifted(by) => Some((inode, offset.saturating_add_signed(*by))),
                    BadWrite::Elsewhere(path) => match self.names.get(path)? {
                        Node::File(other) => Some((*other, offset)),
                        Node::Dir => None,
                    },
                }
            }
            _ => Some((inode, offset)),
        }
    }

    fn write(&mut self, inode: u64, op: FileOp) {
        let file = self.files.get_mut(&inode).expect("open files are kept");
        op.apply(Arc::make_mut(&mut file.now));
        file.pending.push(op);
    }
}

fn ended(stop: bool) -> io::Result<()> {
    match stop {
        false => Ok(()),
        true => Err(io::Error::other("simulated stop of the machine")),
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.readable(Path::new(""))?;
        let too_many = state.faults.fail_opens_of.as_deref();
        if too_many.is_some_and(|part| path.to_string_lossy().contains(part)) {
            return Err(rustix::io::Errno::MFILE.into());
        }
        let inode = match (state.names.get(path).copied(), mode) {
            (Some(Node::Dir), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(inode)), OpenMode::Create) => {
                let stop = state.operate()?;
                state.write(inode, FileOp::Len(0));
                ended(stop)?;
                inode
            }
            (Some(Node::File(inode)), _) => inode,
            (None, OpenMode::Create) => {
                let part = state.faults.fail_making.as_deref();
                if part.is_some_and(|part| path.to_string_lossy().contains(part)) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let parent = path.parent().unwrap_or(Path::new("/"));
                if state.names.get(parent) != Some(&Node::Dir) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let inode = state.next_inode;
                state.next_inode += 1;
                state.files.insert(inode, Inode::default());
                state.name(NameOp::Make(path.to_owned(), Node::File(inode)))?;
                inode
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimFile { disk: self.clone(), inode, path: path.to_owned() }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        match state.names.get(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            None if path.parent().is_some_and(|parent| !state.names.contains_key(parent)) => {
                Err(io::ErrorKind::NotFound.into())
            }
            None => state.name(NameOp::Make(path.to_owned(), Node::Dir)),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.readable(dir)?;
        if state.names.get(dir) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into());
        Ok(inside.filter_map(name).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // What was there before is gone, and its room is free.
        if let Some(Node::File(inode)) = state.names.get(to) {
            let len = state.files[inode].now.len() as u64;
            state.faults.room = state.faults.room.map(|room| room + len);
        }
        state.name(NameOp::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        match state.names.get(path) {
            Some(Node::File(inode)) => {
                let len = state.files[inode].now.len() as u64;
                state.faults.room = state.faults.room.map(|room| room + len);
                state.name(NameOp::Remove(path.to_owned()))
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        match state.names.get(path) {
            Some(Node::Dir) if state.names.keys().any(|name| name.parent() == Some(path)) => {
                Err(io::ErrorKind::DirectoryNotEmpty.into())
            }
            Some(Node::Dir) => state.name(NameOp::Remove(path.to_owned())),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.names.get(dir) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Names are journaled by file systems and not dropped like pages: they stay to be synced.
        if state.sync()? {
            return Err(io::Error::from_raw_os_error(5));
        }
        let pending = std::mem::take(&mut state.pending);
        let (synced, rest): (Vec<_>, Vec<_>) = pending.into_iter().partition(|op| op.dir() == dir);
        state.pending = rest;
        for op in synced {
            op.apply(&mut state.durable);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        {
            let mut state = self.state();
            if state.locked.contains_key(path) {
                return Ok(LockOutcome::Taken { owner: OWNER.to_string() });
            }
            state.readable(path)?;
            state.locked.insert(path.to_owned(), OWNER.into());
            if !state.names.contains_key(path) {
                let inode = state.next_inode;
                state.next_inode += 1;
                state.files.insert(inode, Inode::default());
                state.name(NameOp::Make(path.to_owned(), Node::File(inode)))?;
            }
        }
        Ok(LockOutcome::Held(Box::new(SimLock { disk: self.clone(), path: path.to_owned() })))
    }

    fn boot_id(&self) -> u64 {
        self.state().boot
    }

    fn process(&self) -> u32 {
        self.state().process
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locked.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: u64,
    path: PathBuf,
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        state.readable(&self.path)?;
        let content = &state.files[&self.inode].now;
        let from = (offset as usize).min(content.len());
        let len = buf.len().min(content.len() - from);
        buf[..len].copy_from_slice(&content[from..from + len]);
        Ok(len)
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        let mut state = self.disk.state();
        let stop = state.operate()?;
        let Some((inode, offset)) = state.target(self.inode, offset) else { return ended(stop) };
        let len = state.files[&inode].now.len() as u64;
        // A hole before it takes no room.
        let more = (offset + bytes.len() as u64).saturating_sub(len).min(bytes.len() as u64);
        let mut full = false;
        if let Some(room) = state.faults.room {
            full = more > room;
            if full {
                bytes.truncate(bytes.len() - (more - room) as usize);
            }
            state.faults.room = Some(room.saturating_sub(more));
        }
        let mut at = offset as usize;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let now = (SECTOR - at % SECTOR).min(rest.len());
            state.write(inode, FileOp::Write(at as u64, rest[..now].to_vec()));
            at += now;
            rest = &rest[now..];
        }
        ended(stop)?;
        match full {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let failed = state.sync()?;
        let file = state.files.get_mut(&self.inode).expect("open files are kept");
        let pending = std::mem::take(&mut file.pending);
        if failed {
            return Err(io::Error::from_raw_os_error(5));
        }
        // Not simply what reads show: what an earlier failed sync dropped stays lost.
        for op in &pending {
            op.apply(Arc::make_mut(&mut file.durable));
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.readable(Path::new(""))?;
        Ok(state.files[&self.inode].now.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let stop = state.operate()?;
        let before = state.files[&self.inode].now.len() as u64;
        state.faults.room = state.faults.room.map(|room| room + before.saturating_sub(len));
        state.write(self.inode, FileOp::Len(len));
        ended(stop)
    }

    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let stop = state.operate()?;
        let to = to.min(state.files[&self.inode].now.len() as u64);
        let mut at = from;
        while at < to {
            let end = ((at / SECTOR as u64 + 1) * SECTOR as u64).min(to);
            state.write(self.inode, FileOp::Write(at, vec![0; (end - at) as usize]));
            at = end;
        }
        if let Some(room) = &mut state.faults.room {
            *room += to.saturating_sub(from);
        }
        ended(stop)
    }
}
