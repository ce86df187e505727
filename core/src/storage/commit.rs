//! The one path by which anything becomes durable: group commit.
//!
//! All requests go through one queue, so that a seal is ordered with appends. Whoever *leads* takes
//! everything that waits, and in this order (1) writes the batches to the data files, unsynced, where
//! a full disk is a definite refusal of that loglet's batches and harms nothing else; (2) writes one
//! block to the journal; (3) syncs it, once; (4) publishes; (5) answers, holding no lock. Requests
//! are checked when they are taken, against a state that includes earlier ones of the same block.
//!
//! One block is synced before the next is written. The next leader starts with all that came in
//! meanwhile; nobody waits for company. The leader is the commit thread, or a caller that lends
//! its own ([`Storage::append_here`](super::Storage::append_here)), never two at once.
//!
//! After a failed sync nothing is tried again on that file: the store is poisoned.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use virtuallog_protocol::record::STAMP_LEN;
use virtuallog_protocol::{Batch, LogId, LogletId, LogletPos, StampedBatch, WriterId};

use super::data::{DATA_START, FileKey, Slot};
use super::error::StorageError;
use super::journal::{BlockBuilder, Control, JournalFile, PAGE, block_size, journal_path};
use super::keep::Task;
use super::reply::Reply;
use super::state::{Loglet, LogletState};
use super::{Inner, PlantedBug};

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
        first: Option<LogletPos>,
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

    fn done(self) -> Option<Reply> {
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

/// A block while it is put together.
#[derive(Default)]
struct Block {
    touched: BTreeMap<LogletId, Staged>,
    retired: BTreeMap<LogId, u32>,
    items: Vec<Item>,
    answers: Vec<(Reply, Answer)>,
    /// Batches that there was no room for: the writer's later ones must not overtake them.
    refused: Vec<(LogletId, WriterId, u64)>,
    mark: bool,
}

/// A loglet as the block will leave it.
struct Staged {
    /// `None` until the block that creates it is durable.
    loglet: Option<Arc<Loglet>>,
    before: LogletState,
    after: LogletState,
    writers: BTreeMap<WriterId, u64>,
    starts: Vec<(LogletPos, u64, LogletPos)>,
    trimmed: bool,
    removed: bool,
    /// Why none of its batches in this block is stored.
    failed: Option<StorageError>,
}

enum Item {
    Batch {
        key: FileKey,
        offset: u64,
        stamp: [u8; STAMP_LEN],
        batch: Batch,
    },
    /// `opens`: the data file that it announces.
    Control {
        bytes: Vec<u8>,
        opens: Option<FileKey>,
    },
}

enum Answer {
    /// Of an append: fails when its loglet's data could not be written.
    Position(LogletId, LogletPos),
    /// Of a seal.
    Tail(LogletId),
    Settled(Result<LogletPos, StorageError>),
}

/// What there is room for.
enum Room {
    All,
    /// The journal is full but for what is kept for seals and trims.
    Control(StorageError),
    None(StorageError),
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
                    if lead || !self.options.background {
                        queue.leading = true;
                        return true;
                    }
                    drop(queue);
                    self.wake.notify_one();
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

    fn stage(&self, committer: &Committer, block: &mut Block, request: Request, room: &Room) {
        let refuse = match (room, &request) {
            (Room::All, _) => None,
            (Room::Control(e), Request::Append { .. }) | (Room::None(e), _) => Some(e.clone()),
            (Room::Control(_), _) => None,
        };
        if let Some(e) = refuse {
            if let Request::Append { id, batch, .. } = &request {
                block.refused.push((*id, batch.header().writer, batch.header().first_seq));
            }
            if let Some(done) = request.done() {
                block.answers.push((done, Answer::Settled(Err(e))));
            }
            return;
        }
        let (done, answer) = match request {
            Request::Append { id, first, batch, done } => {
                (done, self.stage_append(committer, block, id, first, batch))
            }
            Request::Create { id, base, done } => (done, self.stage_create(block, id, base)),
            Request::Seal { id, done } => (done, self.stage_seal(block, id)),
            Request::Trim { id, keep_from, done } => (done, self.stage_trim(block, id, keep_from)),
            Request::Retire { log, live, bound, done } => {
                (done, Ok(self.stage_retire(block, log, live, bound)))
            }
            Request::Start { id, file, start, position } => {
                self.stage_start(block, id, file, start, position);
                return;
            }
            Request::Mark => {
                block.mark = true;
                return;
            }
        };
        block.answers.push((done, answer.unwrap_or_else(|e| Answer::Settled(Err(e)))));
    }

    fn stage_append(
        &self,
        committer: &Committer,
        block: &mut Block,
        id: LogletId,
        first: Option<LogletPos>,
        batch: Batch,
    ) -> Result<Answer, StorageError> {
        let staged = self.staged(&mut block.touched, id)?;
        if staged.after.sealed {
            return Err(StorageError::Sealed);
        }
        let tail = staged.after.tail;
        let header = *batch.header();
        // Refused for good, and noted at once: later ones of this very block must not overtake it.
        let mut refuse = |staged: &mut Staged, error| {
            staged.writers.entry(header.writer).or_insert(header.first_seq);
            block.refused.push((id, header.writer, header.first_seq));
            Err(error)
        };
        if first.is_some_and(|first| first < tail) {
            // A place that its caller gave it: nothing can overtake it to there.
            return Err(StorageError::Position { tail });
        }
        let first = first.unwrap_or(tail);
        let known = committer.writers.get(&id).and_then(|of| of.get(&header.writer));
        if let Some(&expected) = staged.writers.get(&header.writer).or(known)
            && expected != header.first_seq
        {
            return Err(StorageError::OutOfOrder { expected });
        }
        if first.0.checked_add(batch.count()).is_none() {
            return refuse(staged, StorageError::Position { tail });
        }
        let stamped = StampedBatch { loglet: id, first, batch };
        let len = stamped.encoded_len() as u64;
        let active = staged.after.active;
        if active.len > DATA_START && active.len + len > self.options.data_file_bytes {
            if let Err(error) = self.files.create((id, first)) {
                return refuse(staged, error);
            }
            staged.after.roll(first);
            let bytes = Control::Roll { id, base: first }.encode();
            block.items.push(Item::Control { bytes, opens: Some((id, first)) });
        }
        let offset = staged.after.active.len;
        staged.after.active.len += len;
        staged.after.tail = stamped.end();
        staged.writers.insert(header.writer, header.first_seq + stamped.batch.count());
        let key = (id, staged.after.active.base);
        let stamp = stamped.stamp();
        block.items.push(Item::Batch { key, offset, stamp, batch: stamped.batch });
        Ok(Answer::Position(id, first))
    }

    fn stage_create(
        &self,
        block: &mut Block,
        id: LogletId,
        base: LogletPos,
    ) -> Result<Answer, StorageError> {
        match self.staged(&mut block.touched, id) {
            Ok(staged) if staged.after.base == base => return Ok(Answer::Settled(Ok(base))),
            Ok(staged) => return Err(StorageError::Exists { base: staged.after.base }),
            Err(_) => {}
        }
        let bound = block.retired.get(&id.log).copied().max(self.retired_bound(id.log));
        if let Some(bound) = bound.filter(|bound| id.segment < *bound) {
            return Err(StorageError::Retired { bound });
        }
        self.files.create((id, base))?;
        let state = LogletState::new(base);
        block.touched.insert(id, Staged::new(None, state));
        block.control(&Control::Create { id, base });
        Ok(Answer::Settled(Ok(base)))
    }

    fn stage_seal(&self, block: &mut Block, id: LogletId) -> Result<Answer, StorageError> {
        let staged = self.staged(&mut block.touched, id)?;
        if !staged.after.sealed {
            staged.after.sealed = true;
            block.control(&Control::Seal { id });
        }
        Ok(Answer::Tail(id))
    }

    fn stage_trim(
        &self,
        block: &mut Block,
        id: LogletId,
        keep_from: LogletPos,
    ) -> Result<Answer, StorageError> {
        let staged = self.staged(&mut block.touched, id)?;
        // What this block appends nobody was told of yet, and it may still be refused.
        let keep_from = keep_from.min(staged.before.tail);
        if keep_from > staged.after.trim {
            staged.after.trim = keep_from;
            staged.trimmed = true;
            block.control(&Control::Trim { id, keep_from });
        }
        let staged = self.staged(&mut block.touched, id)?;
        Ok(Answer::Settled(Ok(staged.after.trim)))
    }

    fn stage_retire(&self, block: &mut Block, log: LogId, live: Vec<u32>, bound: u32) -> Answer {
        let known = block.retired.get(&log).copied().max(self.retired_bound(log)).unwrap_or(0);
        let dead =
            |id: &LogletId| id.log == log && id.segment < bound && !live.contains(&id.segment);
        let mut removed: Vec<LogletId> = self.loglet_ids().into_iter().filter(dead).collect();
        removed.extend(
            block.touched.iter().filter(|(id, s)| dead(id) && !s.removed).map(|(id, _)| *id),
        );
        for id in &removed {
            // One that an earlier request of this block removed is not found, and that is fine.
            if let Ok(staged) = self.staged(&mut block.touched, *id) {
                staged.removed = true;
            }
        }
        if bound > known || !removed.is_empty() {
            block.retired.insert(log, bound.max(known));
            block.control(&Control::Retire { log, bound, live });
        }
        Answer::Settled(Ok(LogletPos(u64::from(bound.max(known)))))
    }

    fn stage_start(
        &self,
        block: &mut Block,
        id: LogletId,
        file: LogletPos,
        start: u64,
        position: LogletPos,
    ) {
        if let Ok(staged) = self.staged(&mut block.touched, id)
            && staged.before.extents().any(|extent| extent.base == file && extent.start < start)
        {
            staged.starts.push((file, start, position));
            block.control(&Control::Start { id, file, start, position });
        }
    }

    /// The loglet as the block leaves it so far.
    fn staged<'a>(
        &self,
        touched: &'a mut BTreeMap<LogletId, Staged>,
        id: LogletId,
    ) -> Result<&'a mut Staged, StorageError> {
        use std::collections::btree_map::Entry;
        let staged = match touched.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let loglet = self.loglet(id).ok_or(StorageError::Unknown(id))?;
                let state = loglet.state();
                entry.insert(Staged::new(Some(loglet), state))
            }
        };
        match staged.removed {
            true => Err(StorageError::Unknown(id)),
            false => Ok(staged),
        }
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
        staged.writers.clear();
        staged.failed = Some(error);
        let mut refused = Vec::new();
        block.items.retain(|item| match item {
            Item::Batch { key, batch, .. } if key.0 == id => {
                refused.push((id, batch.header().writer, batch.header().first_seq));
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
        let written =
            builder.write(file, committer.offset, self.storage_id, at, count).and_then(|size| {
                match planted(PlantedBug::AckBeforeSync) || seal_only {
                    true => Ok(size),
                    false => file.sync_data().map(|()| size),
                }
            });
        match written {
            Ok(size) => {
                debug_assert!(size % PAGE == 0);
                committer.offset += size;
                committer.sequence += 1;
                committer.marked = block.items.is_empty();
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
        self.forget_loglets(removed, &block.retired);
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
            None => self.add_loglet(Arc::new(Loglet::new(id, state))),
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

impl Staged {
    fn new(loglet: Option<Arc<Loglet>>, state: LogletState) -> Staged {
        Staged {
            loglet,
            before: state.clone(),
            after: state,
            writers: BTreeMap::new(),
            starts: Vec::new(),
            trimmed: false,
            removed: false,
            failed: None,
        }
    }
}

impl Block {
    fn control(&mut self, control: &Control) {
        self.items.push(Item::Control { bytes: control.encode(), opens: None });
    }

    fn answers(self) -> Vec<(Reply, Result<LogletPos, StorageError>)> {
        let touched = self.touched;
        let answer = |answer| match answer {
            Answer::Settled(outcome) => outcome,
            Answer::Tail(id) => Ok(touched[&id].after.tail),
            Answer::Position(id, first) => match &touched[&id].failed {
                Some(error) => Err(error.clone()),
                None => Ok(first),
            },
        };
        self.answers.into_iter().map(|(done, of)| (done, answer(of))).collect()
    }

    /// The answers when the journal failed: what was refused before stays refused.
    fn in_doubt(self, error: &StorageError) -> Vec<(Reply, Result<LogletPos, StorageError>)> {
        let touched = self.touched;
        let answer = |answer| match answer {
            Answer::Settled(Err(refused)) => Err(refused),
            Answer::Position(id, _) if touched[&id].failed.is_some() => {
                Err(touched[&id].failed.clone().expect("just seen"))
            }
            _ => Err(error.clone()),
        };
        self.answers.into_iter().map(|(done, of)| (done, answer(of))).collect()
    }
}
