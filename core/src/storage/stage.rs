//! What a block is made of, and whether a request may go into it.
//!
//! Requests are checked in the order of the queue, against their loglet as the block leaves it so
//! far, and answered after the block was synced. So a seal refuses every store that comes after it,
//! in its own block too, and what came before it is durable before it is answered (rules N2, N4,
//! N5); and each answer is one moment of the loglet's life (N6). Where a batch of a sequencer or of
//! a repair goes is decided by the pure `LocalLog`; everything else is decided here.
//!
//! Nothing is durable here: `commit.rs` writes the block, syncs it and publishes what it leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use virtuallog_protocol::limits::COUNTER_MAX;
use virtuallog_protocol::log_server::{Refusal, Verdict};
use virtuallog_protocol::record::STAMP_LEN;
use virtuallog_protocol::{Batch, LogId, LogletId, LogletPos, StampedBatch, WriterId};

use super::Inner;
use super::commit::{Committer, Request};
use super::data::{DATA_START, FileKey};
use super::error::StorageError;
use super::journal::Control;
use super::reply::Reply;
use super::state::{Loglet, LogletState, Spared};
use crate::env::{planted, sometimes};

/// Where an append goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the tail, behind the batch that its writer appended before. Answered with its position.
    Tail,
    /// A copy of a closed segment: at this position, which must not be below the tail, behind the
    /// batch that its writer appended before. What is passed over stays a gap for ever. Answered
    /// with its position.
    At(LogletPos),
    /// From a sequencer, which sees to the writers' order itself, by the rule of
    /// [`store`](virtuallog_protocol::log_server::LocalLog::store). Answered with the tail as this
    /// request leaves it, once everything below is durable, also when the batch was here already or
    /// was passed over; refused once the loglet is sealed, also then.
    Store {
        /// Position of the batch's first entry.
        first: LogletPos,
        /// Everything below is on a majority of the loglet's servers, so this one may pass it over.
        known_tail: LogletPos,
    },
    /// From a repair, at this position, by the rule of
    /// [`repair`](virtuallog_protocol::log_server::LocalLog::repair): only a sealed loglet takes it.
    /// Answered as a store is.
    Repair(LogletPos),
}

impl Place {
    /// Whether the writers' batches are kept in their order here, and not by who sent them.
    pub(super) fn in_order(self) -> bool {
        matches!(self, Place::Tail | Place::At(_))
    }
}

/// A block while it is put together.
#[derive(Default)]
pub(super) struct Block {
    pub(super) touched: BTreeMap<LogletId, Staged>,
    pub(super) spared: BTreeMap<LogId, Spared>,
    pub(super) items: Vec<Item>,
    pub(super) answers: Vec<(Reply, Answer)>,
    /// Batches that there was no room for: the writer's later ones must not overtake them.
    pub(super) refused: Vec<(LogletId, WriterId, u64)>,
    pub(super) mark: bool,
}

/// A loglet as the block will leave it.
pub(super) struct Staged {
    /// `None` until the block that creates it is durable.
    pub(super) loglet: Option<Arc<Loglet>>,
    pub(super) before: LogletState,
    pub(super) after: LogletState,
    pub(super) writers: BTreeMap<WriterId, u64>,
    pub(super) starts: Vec<(LogletPos, u64, LogletPos)>,
    pub(super) trimmed: bool,
    pub(super) removed: bool,
    /// Why none of its batches in this block is stored.
    pub(super) failed: Option<StorageError>,
}

pub(super) enum Item {
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

pub(super) enum Answer {
    /// Of an append: fails when its loglet's data could not be written.
    Written(LogletId, LogletPos),
    /// Of a seal.
    Tail(LogletId),
    Settled(Result<LogletPos, StorageError>),
}

/// What there is room for.
pub(super) enum Room {
    All,
    /// The journal is full but for what is kept for seals and trims.
    Control(StorageError),
    None(StorageError),
}

impl Inner {
    /// Takes one request into the block, or refuses it.
    pub(super) fn stage(
        &self,
        committer: &Committer,
        block: &mut Block,
        request: Request,
        room: &Room,
    ) {
        let refuse = match (room, &request) {
            (Room::All, _) => None,
            (Room::Control(e), Request::Append { .. }) | (Room::None(e), _) => Some(e.clone()),
            (Room::Control(_), _) => None,
        };
        if let Some(e) = refuse {
            if let Request::Append { id, place, batch, .. } = &request
                && place.in_order()
            {
                block.refused.push((*id, batch.header().writer, batch.header().first_seq));
            }
            if let Some(done) = request.done() {
                block.answers.push((done, Answer::Settled(Err(e))));
            }
            return;
        }
        let (done, answer) = match request {
            Request::Append { id, place, batch, done } => {
                (done, self.stage_append(committer, block, id, place, batch))
            }
            Request::Create { id, base, done } => (done, self.stage_create(block, id, base)),
            Request::Seal { id, done } => {
                if matches!(room, Room::Control(_)) {
                    sometimes!("a full disk took a seal");
                }
                (done, self.stage_seal(block, id))
            }
            Request::Trim { id, keep_from, beyond, done } => {
                (done, self.stage_trim(block, id, keep_from, beyond))
            }
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
        place: Place,
        batch: Batch,
    ) -> Result<Answer, StorageError> {
        let staged = self.staged(&mut block.touched, id)?;
        let log = staged.after.local_log();
        let first = match place {
            Place::Tail => return self.stage_in_order(committer, block, id, log.tail, batch),
            Place::At(first) => return self.stage_in_order(committer, block, id, first, batch),
            Place::Store { first, .. } | Place::Repair(first) => first,
        };
        // The tail that is told with a refusal is one that stays, whatever becomes of this block.
        let tail = staged.before.tail;
        if first.0 > COUNTER_MAX {
            return Err(StorageError::Position { tail });
        }
        let verdict = match place {
            Place::Store { known_tail, .. } => log.store(first, batch.count(), known_tail),
            _ => log.repair(first, batch.count()),
        };
        let verdict = verdict.map_err(|refusal| match refusal {
            Refusal::Sealed => {
                if first.plus(batch.count()) <= tail {
                    sometimes!("a duplicate was refused after a seal");
                }
                StorageError::Sealed
            }
            Refusal::NotSealed => StorageError::NotSealed,
            Refusal::Gap { .. } => StorageError::Gap { tail },
            Refusal::Conflict { .. } => StorageError::Conflict { tail },
        })?;
        if verdict == Verdict::Write {
            self.stage_batch(staged, &mut block.items, id, first, batch)?;
        }
        Ok(Answer::Written(id, staged.after.tail))
    }

    /// An append that keeps its writer's order.
    fn stage_in_order(
        &self,
        committer: &Committer,
        block: &mut Block,
        id: LogletId,
        first: LogletPos,
        batch: Batch,
    ) -> Result<Answer, StorageError> {
        let staged = self.staged(&mut block.touched, id)?;
        if staged.after.sealed {
            return Err(StorageError::Sealed);
        }
        let tail = staged.after.tail;
        if first < tail {
            // A place that its caller gave it: nothing can overtake it to there.
            return Err(StorageError::Position { tail });
        }
        let (writer, first_seq, count) =
            (batch.header().writer, batch.header().first_seq, batch.count());
        let known = committer.writers.get(&id).and_then(|of| of.get(&writer));
        if let Some(&expected) = staged.writers.get(&writer).or(known)
            && expected != first_seq
        {
            return Err(StorageError::OutOfOrder { expected });
        }
        let outcome = match first.0 > COUNTER_MAX {
            false => self.stage_batch(staged, &mut block.items, id, first, batch),
            true => Err(StorageError::Position { tail }),
        };
        if outcome.is_err() {
            // Refused for good, and noted at once: later ones of this very block must not overtake
            // it.
            staged.writers.entry(writer).or_insert(first_seq);
            block.refused.push((id, writer, first_seq));
        }
        outcome?;
        staged.writers.insert(writer, first_seq + count);
        Ok(Answer::Written(id, first))
    }

    /// Puts a batch at its place at or beyond the tail.
    fn stage_batch(
        &self,
        staged: &mut Staged,
        items: &mut Vec<Item>,
        id: LogletId,
        first: LogletPos,
        batch: Batch,
    ) -> Result<(), StorageError> {
        let stamped = StampedBatch { loglet: id, first, batch };
        let len = stamped.encoded_len() as u64;
        let active = staged.after.active;
        if active.len > DATA_START && active.len + len > self.options.data_file_bytes {
            self.files.create((id, first))?;
            staged.after.roll(first);
            let bytes = Control::Roll { id, base: first }.encode();
            items.push(Item::Control { bytes, opens: Some((id, first)) });
        }
        let key = (id, staged.after.active.base);
        let offset = staged.after.active.len;
        staged.after.active.len += len;
        staged.after.tail = stamped.end();
        items.push(Item::Batch { key, offset, stamp: stamped.stamp(), batch: stamped.batch });
        Ok(())
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
        let spared = self.spared(block, id.log);
        if !spared.spares(id.segment) && !planted::has(planted::Bug::RemakesDeleted) {
            return Err(StorageError::Retired { bound: spared.bound });
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
        beyond: bool,
    ) -> Result<Answer, StorageError> {
        let staged = self.staged(&mut block.touched, id)?;
        let keep_from = match beyond {
            true => keep_from.min(LogletPos(COUNTER_MAX)),
            // What this block appends nobody was told of yet, and it may still be refused.
            false => keep_from.min(staged.before.tail),
        };
        if keep_from > staged.after.trim {
            staged.after.trim = keep_from;
            staged.trimmed = true;
            block.control(&Control::Trim { id, keep_from });
        }
        let staged = self.staged(&mut block.touched, id)?;
        Ok(Answer::Settled(Ok(staged.after.trim)))
    }

    fn stage_retire(&self, block: &mut Block, log: LogId, live: Vec<u32>, bound: u32) -> Answer {
        let (known, now) = (self.spared(block, log), Spared::by(bound, &live));
        let dead = |id: &LogletId| id.log == log && !now.spares(id.segment);
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
        let both = known.and(&now);
        let bound_now = both.bound;
        if both != known || !removed.is_empty() {
            block.spared.insert(log, both);
            block.control(&Control::Retire { log, bound, live });
        }
        Answer::Settled(Ok(LogletPos(u64::from(bound_now))))
    }

    /// What of a log is still made, as the block leaves it so far.
    fn spared(&self, block: &Block, log: LogId) -> Spared {
        block.spared.get(&log).cloned().unwrap_or_else(|| self.spared_so_far(log))
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

    /// The answers once the block is durable.
    pub(super) fn answers(self) -> Vec<(Reply, Result<LogletPos, StorageError>)> {
        let touched = self.touched;
        let answer = |answer| match answer {
            Answer::Settled(outcome) => outcome,
            Answer::Tail(id) => Ok(touched[&id].after.tail),
            Answer::Written(id, position) => match &touched[&id].failed {
                Some(error) => Err(error.clone()),
                None => Ok(position),
            },
        };
        self.answers.into_iter().map(|(done, of)| (done, answer(of))).collect()
    }

    /// The answers when the journal failed: what was refused before stays refused.
    pub(super) fn in_doubt(
        self,
        error: &StorageError,
    ) -> Vec<(Reply, Result<LogletPos, StorageError>)> {
        let touched = self.touched;
        let answer = |answer| match answer {
            Answer::Settled(Err(refused)) => Err(refused),
            Answer::Written(id, _) if touched[&id].failed.is_some() => {
                Err(touched[&id].failed.clone().expect("just seen"))
            }
            _ => Err(error.clone()),
        };
        self.answers.into_iter().map(|(done, of)| (done, answer(of))).collect()
    }
}
