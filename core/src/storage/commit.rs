//! The one path by which anything becomes durable: group commit.
//!
//! All requests go through one queue, so that a seal is ordered with appends. Whoever *leads* takes
//! everything that waits, and in this order (1) writes the batches to the data files, unsynced, where
//! a full disk is a definite refusal of that loglet's batches and harms nothing else; (2) writes one
//! block to the journal; (3) syncs it, once; (4) publishes; (5) answers, holding no lock. Before, it
//! asks `stage.rs` which requests may go into the block.
//!
//! One block is synced before the next is written. The next leader starts with all that came in
//! meanwhile; nobody waits for company. The leader is the commit thread, or a caller that lends
//! its own ([`Storage::append_here`](super::Storage::append_here)), never two at once.
//!
//! After a failed sync nothing is tried again on that file: the store is poisoned.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use virtuallog_protocol::record::STAMP_LEN;
use virtuallog_protocol::{Batch, LogId, LogletId, LogletPos, WriterId};

use super::data::{FileKey, Slot};
use super::error::StorageError;
use super::journal::{BlockBuilder, JournalFile, PAGE, block_size, journal_path};
use super::keep::Task;
use super::reply::Reply;
use super::stage::{Block, Item, Place, Room, Staged};
use super::state::{Loglet, LogletState};
use super::{Inner, PlantedBug, defer};

/// Most bytes of requests that one block takes, unless a single one has more.
const BLOCK_BYTES_MAX: usize = 8 << 20;
/// Most requests that one block takes.
const BLOCK_REQUESTS_MAX: usize = 16 << 10;
/// Bytes of a control record without its list, at most.
const CONTROL_BYTES: usize = 64;

/// What is asked of the store.
pub(crate) enum Request {
    Append {
        id: LogletId,
        place: Place,
        batch: Batch,
        done: Reply,
    },
    Create {
        id: LogletId,
        base: LogletPos,
        done: Reply,
    },
    Seal {
        id: LogletId,
        done: Reply,
    },
    Trim {
        id: LogletId,
        keep_from: LogletPos,
        /// Also beyond what is here.
        beyond: bool,
        done: Reply,
    },
    Retire {
        log: LogId,
        live: Vec<u32>,
        bound: u32,
        done: Reply,
    },
    /// Of the store itself, before it punches a hole.
    Start {
        id: LogletId,
        file: LogletPos,
        start: u64,
        position: LogletPos,
    },
    /// Of the store itself, when idle: a later block proves that the earlier ones were synced.
    Mark,
}

impl Request {
    /// Upper bound on the bytes that it takes in a block.
    fn size_max(&self) -> usize {
        match self {
            // The batch, and a record that opens a data file for it.
            Request::Append { batch, .. } => STAMP_LEN + batch.as_bytes().len() + CONTROL_BYTES,
            Request::Retire { live, .. } => CONTROL_BYTES + 4 * live.len(),
            _ => CONTROL_BYTES,
        }
    }

    pub(super) fn done(self) -> Option<Reply> {
        match self {
            Request::Append { done, .. }
            | Request::Create { done, .. }
            | Request::Seal { done, .. }
            | Request::Trim { done, .. }
            | Request::Retire { done, .. } => Some(done),
            Request::Start { .. } | Request::Mark => None,
        }
    }
}

/// What waits, and whether somebody is at it.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) requests: std::collections::VecDeque<Request>,
    pub(crate) leading: bool,
    /// Whose completions may be running now.
    pub(crate) leader: Option<std::thread::ThreadId>,
    pub(crate) stop: bool,
}

/// What only the leader touches.
pub(crate) struct Committer {
    pub(crate) active: JournalFile,
    pub(crate) epoch: u64,
    /// Of the next block.
    pub(crate) sequence: u64,
    /// Where the next block goes.
    pub(crate) offset: u64,
    /// Whether the last block was a mark, or nothing was written yet.
    pub(crate) marked: bool,
    /// The sequence number that each writer's next batch has to have.
    pub(crate) writers: BTreeMap<LogletId, BTreeMap<WriterId, u64>>,
}

impl Inner {
    /// Puts a request into the queue. True when the caller is now the leader and has to lead.
    pub(crate) fn enqueue(&self, request: Request, lead: bool) -> bool {
        let refusal = if let Err(e) = self.check_process() {
            e
        } else {
            let mut queue = self.queue();
            match self.poison.check() {
                Ok(()) if !queue.stop => {
                    queue.requests.push_back(request);
                    if queue.leading {
                        return false;
                    }
                    if lead || self.options.caller_commits() {
                        queue.leading = true;
                        return true;
                    }
                    drop(queue);
                    if defer::note(self) {
                        return false;
                    }
                    self.wake.notify_one();
                    self.options.tell();
                    return false;
                }
                Ok(()) => StorageError::Unavailable(super::closed()),
                Err(e) => e,
            }
        };
        if let Some(done) = request.done() {
            done.tell(Err(refusal));
        }
        false
    }

    /// Commits block after block until nothing waits or `enough` says so. The caller became the
    /// leader before; it no longer is when this returns.
    pub(crate) fn lead(&self, enough: impl Fn() -> bool) {
        loop {
            let requests = {
                let mut queue = self.queue();
                queue.leader = Some(std::thread::current().id());
                if queue.requests.is_empty() || enough() {
                    queue.leading = false;
                    queue.leader = None;
                    let someone_waits = !queue.requests.is_empty() || queue.stop;
                    drop(queue);
                    if someone_waits {
                        self.wake.notify_all();
                        self.options.tell();
                    }
                    return;
                }
                drain(&mut queue)
            };
            let answers = self.guarded(|| self.commit(requests)).unwrap_or_default();
            for (done, outcome) in answers {
                done.tell(outcome);
            }
            let _ = self.guarded(|| self.after_commit());
        }
    }

    /// After a panic the store is stopped and not its thread: whoever waits is told, and nobody
    /// waits for ever.
    pub(crate) fn guarded<T>(&self, work: impl FnOnce() -> T) -> Result<T, StorageError> {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        outcome.map_err(|_| StorageError::Poisoned(self.poison.panicked()))
    }

    fn commit(&self, requests: Vec<Request>) -> Vec<(Reply, Result<LogletPos, StorageError>)> {
        // A panic of an earlier leader is no reason to panic too: the poison stands for it.
        let mut committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        let committer = &mut *committer;
        let mut block = Block::default();
        let room = match self.poison.check() {
            Ok(()) => self.make_room(committer, &requests),
            Err(e) => Room::None(e),
        };
        for request in requests {
            self.stage(committer, &mut block, request, &room);
        }
        self.write_data(&mut block);
        for (id, writer, first_seq) in std::mem::take(&mut block.refused) {
            // The first refused one is the next that is taken (contract L10).
            committer.writers.entry(id).or_default().entry(writer).or_insert(first_seq);
        }
        match self.write_block(committer, &block) {
            Ok(()) => self.publish(committer, &mut block),
            Err(error) => return block.in_doubt(&error),
        }
        block.answers()
    }

    /// Sees to it that the journal's active file has room for the block, and that the reserve for
    /// seals and trims stays.
    fn make_room(&self, committer: &mut Committer, requests: &[Request]) -> Room {
        let size = |of: &dyn Fn(&Request) -> bool| {
            let sizes = requests.iter().filter(|r| of(r)).map(|r| r.size_max() as u64);
            block_size(sizes.sum())
        };
        let all = size(&|_| true);
        let fits = |c: &Committer, size: u64| c.offset + size <= c.active.len;
        let reserve = self.options.reserve_bytes();
        if fits(committer, all + reserve) {
            return Room::All;
        }
        let error = match self.roll_journal(committer, all + reserve) {
            Ok(()) => return Room::All,
            Err(error) => error,
        };
        let control = size(&|r| !matches!(r, Request::Append { .. }));
        match fits(committer, control) {
            true => Room::Control(error),
            false => Room::None(error),
        }
    }

    /// Goes on in the next journal file. What the last ones hold is left to a checkpoint.
    fn roll_journal(&self, committer: &mut Committer, size: u64) -> Result<(), StorageError> {
        let next = self.next_journal_file(size)?;
        let old = std::mem::replace(&mut committer.active, next);
        let old_epoch = committer.epoch;
        committer.epoch += 1;
        committer.offset = 0;
        let manifest = self.snapshot(committer, false);
        self.retire_journal_file(old_epoch, old, manifest)
    }

    /// Writes the batches to their data files. A loglet whose bytes do not go in takes none of this
    /// block's batches, and nothing else is wrong.
    fn write_data(&self, block: &mut Block) {
        let mut writes: BTreeMap<FileKey, (u64, Vec<IoSlice<'_>>)> = BTreeMap::new();
        for item in &block.items {
            if let Item::Batch { key, offset, stamp, batch } = item {
                let (_, parts) = writes.entry(*key).or_insert((*offset, Vec::new()));
                parts.push(IoSlice::new(stamp));
                parts.push(IoSlice::new(batch.as_bytes()));
            }
        }
        let mut failed: Vec<(LogletId, StorageError)> = Vec::new();
        for (key, (offset, parts)) in &writes {
            if failed.iter().any(|(id, _)| *id == key.0) {
                continue;
            }
            let outcome = self.files.get(*key).and_then(|file| {
                // Before, so that it is not closed unsynced; after, since a checkpoint that took it
                // in between may have synced too early.
                self.files.mark_dirty(*key);
                let written = file.write_all_at(parts, *offset);
                self.files.mark_dirty(*key);
                written.map_err(|e| StorageError::io("write", &self.files.path(*key), e))
            });
            if let Err(e) = outcome {
                failed.push((key.0, e));
            }
        }
        drop(writes);
        for (id, error) in failed {
            self.refuse_batches(block, id, error);
        }
    }

    fn refuse_batches(&self, block: &mut Block, id: LogletId, error: StorageError) {
        let staged = block.touched.get_mut(&id).expect("staged before it was written");
        staged.after.tail = staged.before.tail;
        staged.after.older = Arc::clone(&staged.before.older);
        staged.after.active = staged.before.active;
        let ordered = std::mem::take(&mut staged.writers);
        staged.failed = Some(error);
        let mut refused = Vec::new();
        block.items.retain(|item| match item {
            Item::Batch { key, batch, .. } if key.0 == id => {
                if ordered.contains_key(&batch.header().writer) {
                    refused.push((id, batch.header().writer, batch.header().first_seq));
                }
                false
            }
            Item::Batch { .. } => true,
            Item::Control { opens: Some(key), .. } if key.0 == id => {
                self.files.forget(*key);
                // Recovery removes it if this fails: nothing durable names it.
                let _ = self.disk.remove_file(&self.files.path(*key));
                false
            }
            Item::Control { .. } => true,
        });
        // They were taken before any that was refused at once, so they come first again.
        block.refused.splice(0..0, refused);
    }

    /// Writes the block and syncs it. After an error the store is poisoned.
    fn write_block(&self, committer: &mut Committer, block: &Block) -> Result<(), StorageError> {
        let mark = block.mark && !committer.marked;
        if block.items.is_empty() && !mark {
            return Ok(());
        }
        let mut builder = BlockBuilder::default();
        for item in &block.items {
            match item {
                Item::Batch { stamp, batch, .. } => {
                    builder.push(stamp);
                    builder.push(batch.as_bytes());
                }
                Item::Control { bytes, .. } => builder.push(bytes),
            }
        }
        let file = committer.active.file.as_ref();
        let at = (committer.epoch, committer.sequence);
        let count = block.items.len() as u32;
        let planted = |bug| self.options.planted(bug);
        let seal_only = planted(PlantedBug::SealNotSynced)
            && block.touched.values().any(|s| s.after.sealed && !s.before.sealed);
        let unsynced = planted(PlantedBug::AckBeforeSync) || seal_only;
        let written = builder.write(file, committer.offset, self.storage_id, at, count, unsynced);
        match written {
            Ok(size) => {
                debug_assert!(size % PAGE == 0);
                committer.offset += size;
                committer.sequence += 1;
                committer.marked = block.items.is_empty();
                self.generation.store(committer.epoch, Ordering::Release);
                self.keep.unmarked(!committer.marked);
                Ok(())
            }
            Err(e) => {
                let path = journal_path(&self.root, committer.active.number);
                Err(StorageError::InDoubt(self.poison.set("write and sync", &path, e)))
            }
        }
    }

    /// Everybody may see it now: it is durable.
    fn publish(&self, committer: &mut Committer, block: &mut Block) {
        let mut tasks = Vec::new();
        for (id, staged) in &mut block.touched {
            if !staged.removed {
                self.publish_loglet(*id, staged, &block.items, &mut tasks);
                let writers = committer.writers.entry(*id).or_default();
                writers.append(&mut staged.writers);
                continue;
            }
            committer.writers.remove(id);
            let mut files: Vec<LogletPos> = staged.before.extents().map(|e| e.base).collect();
            files.extend(
                staged
                    .after
                    .extents()
                    .map(|e| e.base)
                    .filter(|b| !files.contains(b))
                    .collect::<Vec<_>>(),
            );
            tasks.push(Task::DeleteLoglet { id: *id, files });
        }
        let removed = block.touched.iter().filter(|(_, staged)| staged.removed).map(|(id, _)| *id);
        self.forget_loglets(removed, &block.spared);
        self.keep_tasks(tasks);
    }

    fn publish_loglet(
        &self,
        id: LogletId,
        staged: &mut Staged,
        items: &[Item],
        tasks: &mut Vec<Task>,
    ) {
        let mut state = staged.after.clone();
        for (file, start, position) in &staged.starts {
            state.start_at(*file, *start, *position);
            tasks.push(Task::Punch { id, file: *file, to: *start });
        }
        if staged.trimmed {
            let dead = state.trim_to(state.trim);
            if !dead.is_empty() {
                tasks.push(Task::Delete { id, files: dead });
            }
            tasks.push(Task::Consider { id });
        }
        if state == staged.before && staged.loglet.is_some() {
            return;
        }
        self.note_batches(id, &state, items);
        // Readers in other processes first learn how far an older file goes, then of the next one.
        let from = staged.before.active.base;
        for extent in state.extents() {
            let started = staged.starts.iter().any(|(file, ..)| *file == extent.base);
            if extent.base >= from || started {
                self.publish_slot(&state, (id, extent.base), *extent);
            }
        }
        match &staged.loglet {
            Some(loglet) => loglet.publish(state),
            None => self.add_loglet(Arc::new(Loglet::born(id, state))),
        }
    }

    fn publish_slot(&self, state: &LogletState, key: FileKey, extent: super::state::Extent) {
        let slot = Slot::of(state, extent);
        let written = self.files.get(key).map_err(crate::error::Error::from).and_then(|file| {
            slot.write(file.as_ref(), key)
                .map_err(|e| super::error::io_error("publish in", &self.files.path(key), e))
        });
        match written {
            Ok(()) => {}
            // The log itself is fine: only readers in other processes fall behind.
            Err(e) => tracing::warn!("readers in other processes are not told of new entries: {e}"),
        }
    }

    fn note_batches(&self, id: LogletId, state: &LogletState, items: &[Item]) {
        let active = state.active;
        let key = (id, active.base);
        let batches = items.iter().filter_map(|item| match item {
            Item::Batch { key: at, offset, stamp, batch } if *at == key => {
                let first = u64::from_le_bytes(stamp[24..32].try_into().expect("eight bytes"));
                let end = offset + (STAMP_LEN + batch.as_bytes().len()) as u64;
                Some((LogletPos(first), *offset, end))
            }
            _ => None,
        });
        self.index.note(key, &active, batches);
    }
}

/// Takes from the queue what fits into one block, at least one request.
fn drain(queue: &mut Queue) -> Vec<Request> {
    let mut bytes = 0;
    let mut count = 0;
    for request in queue.requests.iter().take(BLOCK_REQUESTS_MAX) {
        bytes += request.size_max();
        if count > 0 && bytes > BLOCK_BYTES_MAX {
            break;
        }
        count += 1;
    }
    queue.requests.drain(..count).collect()
}
