//! The journal: one block a commit, one sync a block, read only by recovery.
//!
//! A journal file is filled with zeros before it is used, so that a sync has no metadata to write,
//! and used again under a fresh epoch. A block starts and ends on a page, so that a commit never
//! rewrites bytes that hold something acknowledged. Its header carries the epoch and a sequence
//! number, and since a block is synced before the next one is written, *a valid header of number
//! n+1 proves that block n was synced*. That is all of rule T: see [`replay`].
//!
//! This file knows bytes and files; what records mean is known by `commit.rs` and `recovery.rs`.
//! Bytes are in `FORMAT.md`.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use virtuallog_protocol::record::{Crc32c, STAMP_MAGIC, crc32c};
use virtuallog_protocol::{LogId, LogletId, LogletPos, StampedBatch};

use super::disk::{Disk, DiskFile, OpenMode, is_full, read_exact_at, read_up_to};
use super::error::io_error;
use crate::env::{planted, sometimes};
use crate::error::{Error, ErrorCode};

/// Blocks start and end at multiples of this.
pub(crate) const PAGE: u64 = 4096;
/// Bytes of a block's header.
pub(crate) const HEADER_LEN: usize = 64;
/// Directory of the journal in the store's directory.
pub(crate) const JOURNAL: &str = "journal";

const BLOCK_MAGIC: [u8; 4] = *b"VLJ\x01";
const CONTROL_MAGIC: [u8; 4] = *b"VLC\x01";
const VERSION: u32 = 1;
const CONTROL_LEN: usize = 56;
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Where a journal file is.
pub(crate) fn journal_path(root: &Path, number: u32) -> PathBuf {
    root.join(JOURNAL).join(format!("{number:08}"))
}

/// One file of the journal.
#[derive(Clone, Debug)]
pub(crate) struct JournalFile {
    pub(crate) number: u32,
    pub(crate) len: u64,
    pub(crate) file: Arc<dyn DiskFile>,
}

impl JournalFile {
    /// Makes a file of zeros, durable in content and in name, in pieces that are synced one by one.
    /// The outer error means that a sync failed, the inner one that nothing is wrong but that there
    /// is no file.
    pub(crate) fn create(
        disk: &dyn Disk,
        root: &Path,
        number: u32,
        len: u64,
        piece: u64,
        sync_dir: bool,
    ) -> io::Result<io::Result<JournalFile>> {
        let path = journal_path(root, number);
        let refused = |e| {
            // Gives the space back; recovery removes the file if this fails.
            let _ = disk.remove_file(&path);
            Ok(Err(e))
        };
        let file = match disk.open(&path, OpenMode::Create) {
            Ok(file) => file,
            Err(e) => return refused(e),
        };
        let mut at = 0;
        while at < len {
            let end = len.min(at.saturating_add(piece));
            while at < end {
                let now = (end - at).min(ZEROS.len() as u64);
                if let Err(e) = file.write_all_at(&[IoSlice::new(&ZEROS[..now as usize])], at) {
                    return refused(e);
                }
                at += now;
            }
            match file.sync_data() {
                // Delayed allocation can find the disk full as late as here.
                Err(e) if is_full(&e) => return refused(e),
                other => other?,
            }
        }
        if sync_dir {
            disk.sync_dir(&root.join(JOURNAL))?;
        }
        Ok(Ok(JournalFile { number, len, file }))
    }
}

/// All journal files in a store's directory, by number. Other names are left alone.
pub(crate) fn list(disk: &dyn Disk, root: &Path) -> Result<Vec<JournalFile>, Error> {
    let dir = root.join(JOURNAL);
    let names = disk.list(&dir).map_err(|e| io_error("list", &dir, e))?;
    let mut numbers: Vec<u32> = names
        .iter()
        .filter_map(|name| name.parse().ok().filter(|n| format!("{n:08}") == *name))
        .collect();
    numbers.sort_unstable();
    let open = |number| {
        let path = journal_path(root, number);
        let fail = |e| io_error("open", &path, e);
        let file = disk.open(&path, OpenMode::Write).map_err(fail)?;
        Ok(JournalFile { number, len: file.len().map_err(fail)?, file })
    };
    numbers.into_iter().map(open).collect()
}

/// Whether any file holds something. Of a store that is being created none does.
pub(crate) fn is_used(disk: &dyn Disk, root: &Path) -> Result<bool, Error> {
    for file in list(disk, root)? {
        let mut head = [0; HEADER_LEN];
        let path = journal_path(root, file.number);
        read_up_to(file.file.as_ref(), &mut head, 0).map_err(|e| io_error("read", &path, e))?;
        if head != [0; HEADER_LEN] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    /// Bytes of records that follow the header.
    pub(crate) len: u32,
    /// How many records. None: a mark, which only says that all blocks before it were synced.
    pub(crate) count: u32,
    /// Checksum of the records.
    pub(crate) crc: u32,
}

impl BlockHeader {
    pub(crate) fn encode(&self, storage_id: u128) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&BLOCK_MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..24].copy_from_slice(&storage_id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.len.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.count.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32c(&bytes[..HEADER_LEN - 4]);
        bytes[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], storage_id: u128) -> Option<BlockHeader> {
        let bytes = bytes.get(..HEADER_LEN)?;
        let int = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from(int(at)) | u64::from(int(at + 4)) << 32;
        let ours = bytes[..4] == BLOCK_MAGIC
            && bytes[8..24] == storage_id.to_le_bytes()
            && int(HEADER_LEN - 4) == crc32c(&bytes[..HEADER_LEN - 4])
            && int(4) == VERSION;
        ours.then(|| BlockHeader {
            epoch: long(24),
            sequence: long(32),
            len: int(40),
            count: int(44),
            crc: int(48),
        })
    }

    /// Bytes that the block takes in the file.
    pub(crate) fn size(&self) -> u64 {
        block_size(u64::from(self.len))
    }
}

/// Bytes that a block with so many bytes of records takes in the file.
pub(crate) fn block_size(records: u64) -> u64 {
    (HEADER_LEN as u64 + records).next_multiple_of(PAGE)
}

/// A block that is being put together from pieces that stay where they are.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder<'a> {
    pub(crate) parts: Vec<IoSlice<'a>>,
    crc: Crc32c,
    len: u64,
}

impl<'a> BlockBuilder<'a> {
    pub(crate) fn push(&mut self, bytes: &'a [u8]) {
        self.crc.update(bytes);
        self.len += bytes.len() as u64;
        self.parts.push(IoSlice::new(bytes));
    }

    /// Writes the block, makes it durable unless `unsynced`, and returns its size.
    pub(crate) fn write(
        self,
        file: &dyn DiskFile,
        offset: u64,
        storage_id: u128,
        (epoch, sequence): (u64, u64),
        count: u32,
        unsynced: bool,
    ) -> io::Result<u64> {
        let len = u32::try_from(self.len).expect("a block is bounded when requests are drained");
        let header = BlockHeader { epoch, sequence, len, count, crc: self.crc.finish() };
        let bytes = header.encode(storage_id);
        let padding = header.size() - HEADER_LEN as u64 - self.len;
        let mut parts = Vec::with_capacity(self.parts.len() + 2);
        parts.push(IoSlice::new(&bytes));
        parts.extend(self.parts);
        parts.push(IoSlice::new(&ZEROS[..padding as usize]));
        match unsynced {
            true => file.write_all_at(&parts, offset)?,
            false => match file.write_synced(&parts, offset) {
                Err(_) if planted::has(planted::Bug::IgnoresFailedSync) => {}
                Err(_) if planted::has(planted::Bug::RetriesSync) => file.sync_data()?,
                written => written?,
            },
        }
        Ok(header.size())
    }
}

/// What a block records besides batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// A loglet with its first, empty data file.
    Create { id: LogletId, base: LogletPos },
    /// The next batch of the loglet opens a new data file.
    Roll { id: LogletId, base: LogletPos },
    /// Nothing can be appended any more.
    Seal { id: LogletId },
    /// Everything below is given up.
    Trim { id: LogletId, keep_from: LogletPos },
    /// In this file, everything before `start` is about to become a hole.
    Start { id: LogletId, file: LogletPos, start: u64, position: LogletPos },
    /// All loglets below the bound are gone for good, but for those that are live.
    Retire { log: LogId, bound: u32, live: Vec<u32> },
}

impl Control {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let none = [0; 3];
        let (kind, log, segment, longs, live): (u8, _, _, [u64; 3], &[u32]) = match self {
            Control::Create { id, base } => (1, id.log, id.segment, [base.0, 0, 0], &[]),
            Control::Roll { id, base } => (2, id.log, id.segment, [base.0, 0, 0], &[]),
            Control::Seal { id } => (3, id.log, id.segment, none, &[]),
            Control::Trim { id, keep_from } => (4, id.log, id.segment, [keep_from.0, 0, 0], &[]),
            Control::Start { id, file, start, position } => {
                (5, id.log, id.segment, [file.0, *start, position.0], &[])
            }
            Control::Retire { log, bound, live } => (6, *log, *bound, none, live),
        };
        let mut bytes = Vec::with_capacity(CONTROL_LEN + 4 * live.len());
        bytes.extend_from_slice(&CONTROL_MAGIC);
        bytes.extend_from_slice(&[kind, 0, 0, 0]);
        bytes.extend_from_slice(&log.0.to_le_bytes());
        bytes.extend_from_slice(&segment.to_le_bytes());
        bytes.extend_from_slice(&(live.len() as u32).to_le_bytes());
        longs.iter().for_each(|long| bytes.extend_from_slice(&long.to_le_bytes()));
        live.iter().for_each(|index| bytes.extend_from_slice(&index.to_le_bytes()));
        bytes
    }

    /// Reads a record from the start of `bytes`, and says how long it is.
    fn decode(bytes: &[u8]) -> Option<(Control, usize)> {
        let head = bytes.get(..CONTROL_LEN)?;
        let int = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from(int(at)) | u64::from(int(at + 4)) << 32;
        if head[..4] != CONTROL_MAGIC {
            return None;
        }
        let log = LogId(u128::from(long(8)) | u128::from(long(16)) << 64);
        let id = LogletId { log, segment: int(24) };
        let (a, b, c) = (long(32), long(40), long(48));
        let live_end = CONTROL_LEN.checked_add((int(28) as usize).checked_mul(4)?)?;
        let live = bytes.get(CONTROL_LEN..live_end)?;
        let control = match head[4] {
            1 => Control::Create { id, base: LogletPos(a) },
            2 => Control::Roll { id, base: LogletPos(a) },
            3 => Control::Seal { id },
            4 => Control::Trim { id, keep_from: LogletPos(a) },
            5 => Control::Start { id, file: LogletPos(a), start: b, position: LogletPos(c) },
            6 => Control::Retire {
                log,
                bound: id.segment,
                live: live
                    .chunks_exact(4)
                    .map(|four| u32::from_le_bytes(four.try_into().expect("four bytes")))
                    .collect(),
            },
            _ => return None,
        };
        Some((control, live_end))
    }
}

/// One record of a block.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Batch(StampedBatch),
    Control(Control),
}

/// The records of a block whose checksum holds; `None` when they make no sense all the same.
fn records(bytes: &Bytes, count: u32) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.slice(at..);
        if rest.starts_with(&STAMP_MAGIC) {
            let stamped = StampedBatch::decode(&rest).ok()?;
            at += stamped.encoded_len();
            records.push(Record::Batch(stamped));
        } else {
            let (control, len) = Control::decode(&rest)?;
            at += len;
            records.push(Record::Control(control));
        }
    }
    (records.len() == count as usize).then_some(records)
}

/// Where the journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalEnd {
    /// Epoch of the last file with a valid block, or of the first file.
    pub(crate) epoch: u64,
    /// The sequence number that the next block would have.
    pub(crate) sequence: u64,
}

/// What [`replay`] reads.
pub(crate) struct Replay<'a> {
    pub(crate) root: &'a Path,
    pub(crate) storage_id: u128,
    pub(crate) files: &'a [JournalFile],
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    /// A planted bug: take the first bad block for the end, whatever follows.
    pub(crate) cut_at_bad_block: bool,
}

/// Reads every block from epoch and sequence on, in order.
///
/// Rule T: the first block that does not hold is a torn write, and the journal's end, only if no
/// later header of this journal holds anywhere: a later block would prove that this one was synced,
/// and so perhaps acknowledged. Lengths in a bad block may be anything, so the search for later
/// headers looks at every page. The very block that comes next, whole at a place where no block
/// starts, was synced too: the disk wrote it to a wrong place.
///
/// # Errors
/// `CORRUPT` naming file and offset, when something that was synced does not hold. Nothing was
/// changed then.
pub(crate) fn replay(
    from: &Replay<'_>,
    each: &mut dyn FnMut(Record) -> Result<(), String>,
) -> Result<JournalEnd, Error> {
    let mut end = JournalEnd { epoch: from.epoch, sequence: from.sequence };
    let mut epoch_min = from.epoch;
    let mut bad: Option<(u32, u64)> = None;
    while let Some((file, epoch)) = file_of(from, epoch_min, end.sequence)? {
        end.epoch = epoch;
        let mut at = 0;
        while let Some((size, records)) = read_block(from, file, at, epoch, end.sequence)? {
            for record in records {
                each(record).map_err(|what| corrupt(from, file.number, at, &what))?;
            }
            end.sequence += 1;
            at += size;
        }
        bad = Some((file.number, at));
        epoch_min = epoch + 1;
    }
    if !from.cut_at_bad_block {
        for file in from.files {
            check_nothing_follows(from, file, end, bad)?;
        }
    }
    Ok(end)
}

/// The file whose first block is the one that comes next, and its epoch. An epoch can be missing:
/// that of a file which was too small for the first block that it was to take.
fn file_of<'a>(
    from: &Replay<'a>,
    epoch_min: u64,
    sequence: u64,
) -> Result<Option<(&'a JournalFile, u64)>, Error> {
    for file in from.files {
        let fail = |e| io_error("read", &journal_path(from.root, file.number), e);
        let mut head = [0; HEADER_LEN];
        let read = read_up_to(file.file.as_ref(), &mut head, 0).map_err(fail)?;
        let Some(header) = BlockHeader::decode(&head[..read], from.storage_id) else { continue };
        if header.epoch >= epoch_min && read_block(from, file, 0, header.epoch, sequence)?.is_some()
        {
            return Ok(Some((file, header.epoch)));
        }
    }
    Ok(None)
}

fn read_block(
    from: &Replay<'_>,
    file: &JournalFile,
    at: u64,
    epoch: u64,
    sequence: u64,
) -> Result<Option<(u64, Vec<Record>)>, Error> {
    let fail = |e| io_error("read", &journal_path(from.root, file.number), e);
    let mut head = [0; HEADER_LEN];
    if read_up_to(file.file.as_ref(), &mut head, at).map_err(fail)? < HEADER_LEN {
        return Ok(None);
    }
    let Some(header) = BlockHeader::decode(&head, from.storage_id) else { return Ok(None) };
    let fits = at + header.size() <= file.len;
    if !fits || (header.epoch, header.sequence) != (epoch, sequence) {
        return Ok(None);
    }
    let mut bytes = vec![0; header.len as usize];
    read_exact_at(file.file.as_ref(), &mut bytes, at + HEADER_LEN as u64).map_err(fail)?;
    if crc32c(&bytes) != header.crc {
        sometimes!("a journal's end was torn");
        return Ok(None);
    }
    match records(&Bytes::from(bytes), header.count) {
        Some(records) => Ok(Some((header.size(), records))),
        None => Err(corrupt(from, file.number, at, "records of a valid block make no sense")),
    }
}

/// Looks at every page for a header that comes after the journal's end.
fn check_nothing_follows(
    from: &Replay<'_>,
    file: &JournalFile,
    end: JournalEnd,
    bad: Option<(u32, u64)>,
) -> Result<(), Error> {
    let fail = |e| io_error("read", &journal_path(from.root, file.number), e);
    let mut chunk = vec![0; (file.len as usize).min(ZEROS.len())];
    let mut at = 0;
    while at < file.len {
        let read = read_up_to(file.file.as_ref(), &mut chunk, at).map_err(fail)?;
        for (i, page) in chunk[..read].chunks(PAGE as usize).enumerate() {
            let Some(header) = BlockHeader::decode(page, from.storage_id) else { continue };
            let here = (file.number, at + i as u64 * PAGE);
            let misplaced = header.sequence == end.sequence && here.1 > 0 && bad != Some(here);
            if header.epoch >= from.epoch && (header.sequence > end.sequence || misplaced) {
                let (number, offset) = bad.unwrap_or(here);
                return Err(corrupt(from, number, offset, "a block that was synced is damaged"));
            }
        }
        if read < chunk.len() {
            break;
        }
        at += read as u64;
    }
    Ok(())
}

fn corrupt(from: &Replay<'_>, number: u32, at: u64, what: &str) -> Error {
    let path = journal_path(from.root, number);
    let message = format!(
        "`{}` at byte {at}: {what}: nothing was cut; restore the store or take over its replicas",
        path.display()
    );
    Error::new(ErrorCode::Corrupt, message)
}
