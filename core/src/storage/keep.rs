//! Keeping house: checkpoints, journal files, removal of what was trimmed, marks when idle.
//!
//! A checkpoint makes a part of the journal superfluous: it syncs the data files, then replaces the
//! manifest, then uses the journal files again. It works from a snapshot that was taken when the
//! journal went on in its next file, and runs while commits go on.
//!
//! All of this happens on the thread `virtuallog-keep`, or on the leader's when the store has no
//! threads. Nothing here is on the path of an append, unless the journal is full.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use virtuallog_protocol::{LogletId, LogletPos};

use super::commit::{Committer, Request};
use super::data::{DATA_START, LOGLETS, loglet_dir, parse_data_file};
use super::error::StorageError;
use super::journal::{JournalFile, PAGE, journal_path};
use super::manifest::{MANIFEST, Manifest};
use super::reading::Source;
use super::{Inner, PlantedBug};

/// The store is idle when nothing was committed for so long.
const IDLE: Duration = Duration::from_millis(20);
/// Between attempts to write a manifest to a full disk.
const RETRY: Duration = Duration::from_millis(500);
/// A file that is made ahead of its use is synced each so many bytes. The disk is shared with the
/// commits: a sync of theirs that finds 64 MiB before it waits for tens of milliseconds.
const PREPARE_PIECE: u64 = 256 << 10;
/// Journal files that wait for use, at most.
const SPARES_MAX: usize = 2;

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Task {
    /// Remove data files that hold nothing but trimmed positions.
    Delete { id: LogletId, files: Vec<LogletPos> },
    /// Remove a retired loglet.
    DeleteLoglet { id: LogletId, files: Vec<LogletPos> },
    /// See whether the file at the trim point holds more dead bytes than live ones.
    Consider { id: LogletId },
    /// Give the space before `to` back.
    Punch { id: LogletId, file: LogletPos, to: u64 },
}

/// What there is to do.
#[derive(Debug, Default)]
pub(crate) struct Keep {
    todo: Mutex<Todo>,
    /// Something was added.
    wake: Condvar,
    /// A checkpoint came to its end, one way or the other.
    checked: Condvar,
    /// A block was written that no later block covers.
    unmarked: AtomicBool,
    /// Blocks written so far.
    blocks: AtomicU64,
    /// Somebody looks after the mark.
    armed: AtomicBool,
}

#[derive(Debug, Default)]
struct Todo {
    tasks: VecDeque<Task>,
    /// The newest snapshot that was not written.
    checkpoint: Option<Manifest>,
    checking: bool,
    /// Why the last checkpoint was put off: no room for its manifest, as a rule.
    put_off: Option<StorageError>,
    prepare: bool,
    stop: bool,
}

/// Journal files other than the active one.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// Not in use; what they hold is of no interest.
    pub(crate) spares: Vec<JournalFile>,
    /// Needed by recovery until the next checkpoint, with their epochs.
    pub(crate) in_use: Vec<(u64, JournalFile)>,
    pub(crate) next_number: u32,
    pub(crate) next_len: u64,
}

impl Keep {
    fn todo(&self) -> MutexGuard<'_, Todo> {
        self.todo.lock().expect("no panic under this lock")
    }

    pub(crate) fn unmarked(&self, unmarked: bool) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.unmarked.store(unmarked, Ordering::Release);
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is_unmarked(&self) -> bool {
        self.unmarked.load(Ordering::Acquire)
    }

    /// Lets the thread finish what it is at, and no more.
    pub(crate) fn stop(&self) {
        self.todo().stop = true;
        self.wake.notify_all();
    }

    /// Asks for a journal file ahead of its use.
    pub(crate) fn prepare(&self) {
        self.todo().prepare = true;
        self.wake.notify_all();
    }
}

impl Inner {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("no panic under this lock")
    }

    /// Adds things to do.
    pub(crate) fn keep_tasks(&self, tasks: Vec<Task>) {
        if !tasks.is_empty() {
            self.keep.todo().tasks.extend(tasks);
            self.keep.wake.notify_all();
        }
    }

    /// After the answers were given: without threads, keeps house now; with them, sees to it that
    /// somebody writes a mark once the store is idle. That wakes the thread once for a busy time
    /// and not once for each commit.
    pub(crate) fn after_commit(&self) {
        if !self.options.background {
            self.keep_once();
        } else if self.keep.unmarked.load(Ordering::Acquire)
            && !self.keep.armed.swap(true, Ordering::AcqRel)
        {
            // Under the lock: the thread either sees the flag or is already waiting.
            drop(self.keep.todo());
            self.keep.wake.notify_all();
        }
    }

    /// The thread `virtuallog-keep`.
    pub(crate) fn run_keep(&self) {
        let mut blocks = 0;
        loop {
            let todo = self.keep.todo();
            if todo.stop {
                return;
            }
            let checkpoint = todo.checkpoint.is_some() && todo.put_off.is_none();
            if todo.tasks.is_empty() && !checkpoint && !todo.prepare {
                let armed = self.keep.armed.load(Ordering::Acquire);
                let put_off = todo.checkpoint.is_some();
                if armed || put_off {
                    let time = if armed { IDLE } else { RETRY };
                    let (mut todo, waited) = (self.keep.wake.wait_timeout(todo, time))
                        .expect("no panic under this lock");
                    if waited.timed_out() {
                        todo.put_off = None;
                    }
                    drop(todo);
                    let now = self.keep.blocks.load(Ordering::Relaxed);
                    if armed && waited.timed_out() && std::mem::replace(&mut blocks, now) == now {
                        self.keep.armed.store(false, Ordering::Release);
                        self.enqueue(Request::Mark, false);
                    }
                } else {
                    drop(self.keep.wake.wait(todo).expect("no panic under this lock"));
                }
                continue;
            }
            drop(todo);
            if self.guarded(|| self.keep_once()).is_err() {
                // A leader may be waiting for the checkpoint that does not come.
                self.keep_once();
            }
        }
    }

    /// Does what is left when the store is closed. A checkpoint that is left is dropped: a newer one
    /// follows.
    pub(crate) fn keep_rest(&self) {
        self.keep.todo().checkpoint = None;
        self.keep_once();
    }

    /// Does everything there is to do.
    fn keep_once(&self) {
        loop {
            if self.poison.check().is_err() {
                let mut todo = self.keep.todo();
                let stop = todo.stop;
                *todo = Todo { stop, ..Todo::default() };
                self.keep.checked.notify_all();
                return;
            }
            let task = self.keep.todo().tasks.pop_front();
            if let Some(task) = task {
                if let Err(e) = self.run_task(&task) {
                    tracing::warn!("space is given back later ({task:?}): {e}");
                }
                continue;
            }
            if self.options.background && std::mem::take(&mut self.keep.todo().prepare) {
                self.prepare_journal_file();
            }
            let checkpoint = {
                let mut todo = self.keep.todo();
                let checkpoint = todo.checkpoint.take();
                todo.checking = checkpoint.is_some();
                checkpoint
            };
            let Some(manifest) = checkpoint else { return };
            let outcome = self.checkpoint(&manifest);
            let mut todo = self.keep.todo();
            todo.checking = false;
            todo.put_off = outcome.err();
            if let Some(e) = &todo.put_off {
                tracing::warn!("checkpoint is put off: {e}");
                todo.checkpoint.get_or_insert(manifest);
                self.keep.checked.notify_all();
                return;
            }
            self.keep.checked.notify_all();
        }
    }

    /// Makes `manifest` the place where recovery starts. `DiskFull`: the old one still stands.
    pub(crate) fn checkpoint(&self, manifest: &Manifest) -> Result<(), StorageError> {
        if !self.options.planted(PlantedBug::RecycleBeforeSync) {
            self.sync_data_files()?;
        }
        let path = self.root.join(MANIFEST);
        match manifest.write(self.disk.as_ref(), &self.root) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(StorageError::io("write", &path, e)),
            Err(e) => return Err(StorageError::Poisoned(self.poison.set("replace", &path, e))),
        }
        let mut ring = self.ring();
        let ring = &mut *ring;
        for (epoch, file) in std::mem::take(&mut ring.in_use) {
            match epoch < manifest.epoch {
                true => ring.spares.push(file),
                false => ring.in_use.push((epoch, file)),
            }
        }
        ring.spares.sort_by_key(|file| std::cmp::Reverse(file.len));
        while ring.spares.len() > SPARES_MAX {
            let file = ring.spares.pop().expect("more than some");
            let _ = self.disk.remove_file(&journal_path(&self.root, file.number));
        }
        Ok(())
    }

    fn sync_data_files(&self) -> Result<(), StorageError> {
        let dirty = self.files.take_dirty()?;
        let failed =
            |path: &std::path::Path, e| StorageError::Poisoned(self.poison.set("sync", path, e));
        for (key, file) in &dirty.files {
            file.sync_data().map_err(|e| failed(&self.files.path(*key), e))?;
        }
        if dirty.dirs.is_empty() || self.options.planted(PlantedBug::NoDirSync) {
            return Ok(());
        }
        let all = self.root.join(LOGLETS);
        let dirs = dirty.dirs.iter().map(|id| loglet_dir(&self.root, *id));
        for dir in std::iter::once(all).chain(dirs) {
            match self.disk.sync_dir(&dir) {
                // Retired meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|e| failed(&dir, e))?,
            }
        }
        Ok(())
    }

    /// The manifest that says what is durable now, if everything written is synced.
    pub(crate) fn snapshot(&self, committer: &Committer, clean: bool) -> Manifest {
        let known = self.known.read().expect("no panic under this lock");
        Manifest {
            storage_id: self.storage_id,
            counter: committer.epoch,
            epoch: committer.epoch + u64::from(clean),
            sequence: committer.sequence,
            journal_file: committer.active.number,
            clean,
            boot: self.boot,
            loglets: known.loglets.iter().map(|(id, loglet)| (*id, loglet.state())).collect(),
            lives: self.lives.clone(),
            spared: known.spared.clone(),
        }
    }

    /// A journal file that takes a block of this size: a spare one, or a new one. Waits for a
    /// checkpoint when too many are in use.
    pub(crate) fn next_journal_file(&self, size: u64) -> Result<JournalFile, StorageError> {
        while self.ring().in_use.len() + 1 >= self.options.journal_files_max.max(2) {
            self.wait_for_checkpoint()?;
        }
        let number = {
            let mut ring = self.ring();
            if let Some(i) = ring.spares.iter().rposition(|file| file.len >= size) {
                let file = ring.spares.remove(i);
                drop(ring);
                self.keep.prepare();
                return Ok(file);
            }
            ring.take_number()
        };
        let file = self.create_journal_file(number, size, u64::MAX)?;
        self.keep.prepare();
        Ok(file)
    }

    fn wait_for_checkpoint(&self) -> Result<(), StorageError> {
        if !self.options.background {
            self.keep_once();
        } else {
            self.keep.wake.notify_all();
        }
        let mut todo = self.keep.todo();
        while todo.checking || (todo.checkpoint.is_some() && todo.put_off.is_none()) {
            if todo.stop || !self.options.background {
                break;
            }
            todo = self.keep.checked.wait(todo).expect("no panic under this lock");
        }
        self.poison.check()?;
        match (&todo.put_off, todo.checkpoint.is_some()) {
            (Some(e), true) => Err(e.clone()),
            (_, false) => Ok(()),
            (None, true) => Err(StorageError::Unavailable(super::closed())),
        }
    }

    /// Notes that the journal went on in another file, and asks for a checkpoint that frees it.
    pub(crate) fn retire_journal_file(
        &self,
        epoch: u64,
        file: JournalFile,
        manifest: Manifest,
    ) -> Result<(), StorageError> {
        self.ring().in_use.push((epoch, file));
        {
            let mut todo = self.keep.todo();
            todo.checkpoint = Some(manifest);
            todo.put_off = None;
        }
        self.keep.wake.notify_all();
        if !self.options.background {
            self.keep_once();
            self.poison.check()?;
        }
        Ok(())
    }

    fn create_journal_file(
        &self,
        number: u32,
        size: u64,
        piece: u64,
    ) -> Result<JournalFile, StorageError> {
        let len = {
            let mut ring = self.ring();
            let len = ring.next_len.max(size.next_multiple_of(PAGE));
            ring.next_len = (ring.next_len * 4).min(self.options.journal_file_bytes);
            len
        };
        let sync_dir = !self.options.planted(PlantedBug::NoDirSync);
        let path = journal_path(&self.root, number);
        match JournalFile::create(self.disk.as_ref(), &self.root, number, len, piece, sync_dir) {
            Ok(made) => made.map_err(|e| StorageError::io("create", &path, e)),
            Err(e) => Err(StorageError::Poisoned(self.poison.set("sync", &path, e))),
        }
    }

    /// Fills a file with zeros before it is needed.
    fn prepare_journal_file(&self) {
        let number = {
            let mut ring = self.ring();
            if !ring.spares.is_empty() {
                return;
            }
            ring.take_number()
        };
        match self.create_journal_file(number, 0, PREPARE_PIECE) {
            Ok(file) => self.ring().spares.push(file),
            Err(e) => tracing::warn!("the next journal file is made when it is needed: {e}"),
        }
    }

    fn run_task(&self, task: &Task) -> Result<(), StorageError> {
        match task {
            Task::Delete { id, files } => {
                files.iter().try_for_each(|base| self.delete_file(*id, *base))
            }
            Task::DeleteLoglet { id, files } => {
                files.iter().try_for_each(|base| self.delete_file(*id, *base))?;
                self.delete_loglet_dir(*id)
            }
            Task::Consider { id } => self.consider_hole(*id),
            Task::Punch { id, file, to } => self.punch(*id, *file, *to),
        }
    }

    fn delete_file(&self, id: LogletId, base: LogletPos) -> Result<(), StorageError> {
        self.files.forget((id, base));
        self.index.forget((id, base));
        let path = self.files.path((id, base));
        match self.disk.remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::io("remove", &path, e))
            }
            _ => Ok(()),
        }
    }

    /// Removes what is left of a retired loglet. A file that is not ours keeps the directory.
    pub(crate) fn delete_loglet_dir(&self, id: LogletId) -> Result<(), StorageError> {
        let dir = loglet_dir(&self.root, id);
        let names = match self.disk.list(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| StorageError::io("list", &dir, e))?,
        };
        for base in names.iter().filter_map(|name| parse_data_file(name)) {
            self.delete_file(id, base)?;
        }
        self.disk.remove_dir(&dir).map_err(|e| StorageError::io("remove", &dir, e))
    }

    /// A file that is partly trimmed gives space back when more than half of it is dead, so that a
    /// store never takes more than twice what it holds.
    fn consider_hole(&self, id: LogletId) -> Result<(), StorageError> {
        let Some(loglet) = self.loglet(id) else { return Ok(()) };
        let state = loglet.state();
        let source = Source {
            files: &self.files,
            index: &self.index,
            chunks: &self.chunks,
            id,
            state: &state,
        };
        // What comes to trimmed positions beyond the tail lies behind it in the file.
        let kept = state.trim.min(state.tail);
        let (extent, offset) = source.find(kept)?;
        let dead = offset - extent.start;
        if dead > extent.len - offset && offset / PAGE > extent.start / PAGE {
            // Durable before the hole is: who reads the file has to know where its batches start.
            let request = Request::Start { id, file: extent.base, start: offset, position: kept };
            let mut queue = self.queue();
            if self.options.background && !queue.stop {
                drop(queue);
                self.enqueue(request, false);
            } else {
                // The leader is keeping house, and looks at the queue again afterwards.
                queue.requests.push_back(request);
            }
        }
        Ok(())
    }

    fn punch(&self, id: LogletId, base: LogletPos, to: u64) -> Result<(), StorageError> {
        let to = to / PAGE * PAGE;
        if self.loglet(id).is_none() || to <= DATA_START {
            return Ok(());
        }
        let key = (id, base);
        match self.files.get(key)?.punch(DATA_START, to) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => {
                other.map_err(|e| StorageError::io("punch a hole in", &self.files.path(key), e))
            }
        }
    }
}

impl Ring {
    pub(crate) fn take_number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number - 1
    }
}
