//! The bytes of a record batch, the unit that travels from a client to a disk and back.
//!
//! A client frames entries into one batch; nobody on the way re-encodes it. A loglet puts a *stamp*
//! before it (which loglet, which position), and stamp and batch are stored and delivered as they
//! are, so that a batch which turns up at a wrong place is detected by whoever reads it.
//!
//! `FORMAT.md` in this crate draws both. All integers are little endian. Decoding trusts nothing:
//! every length is bounded before it is used, and no input panics.
//!
//! What is not here: positions are given by loglets, and time and writer ids are arguments.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::limits::{
    ATTRIBUTE_BYTES_MAX, BATCH_BYTES_MAX, BATCH_ENCODED_MAX, BATCH_ENTRIES_MAX, COUNTER_MAX,
    ENTRY_BYTES_MAX,
};
use crate::planted::{Bug, Planted};
use crate::types::{LogId, LogletId, LogletPos, WriterId};

/// First bytes of every batch.
pub const BATCH_MAGIC: [u8; 4] = *b"VLB\x01";
/// First bytes of every stamp.
pub const STAMP_MAGIC: [u8; 4] = *b"VLS\x01";
/// Bytes of a batch header as this version writes it; a later one may be longer.
pub const BATCH_HEADER_LEN: usize = 56;
/// Bytes of a stamp.
pub const STAMP_LEN: usize = 40;
/// The version that this code writes, and the highest that it reads.
pub const BATCH_VERSION: u8 = 1;

const CRC_AT: usize = 52;
const ENTRY_LEN_BYTES: usize = 4;

/// Why bytes are not a batch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Fewer bytes than the record says it has. On the last record of a file this may be a torn write.
    #[error("record is cut short: {needed} bytes needed, {present} present")]
    Short {
        /// Bytes that the record needs.
        needed: usize,
        /// Bytes that are there.
        present: usize,
    },
    /// The bytes are damaged: a checksum or a length does not hold.
    #[error("record is damaged: {0}")]
    Damaged(&'static str),
    /// A later version wrote it.
    #[error("record has version {0}, newer than this build reads ({BATCH_VERSION})")]
    Version(u8),
}

/// What a batch carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BatchKind {
    /// Entries of users.
    Data = 0,
    /// Nothing: it fills positions so that others need not wait for them. Readers skip it.
    NoOp = 1,
    /// Words between parts of the system. Readers skip it.
    Control = 2,
}

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// What it carries.
    pub kind: BatchKind,
    /// The life of the writer that framed it.
    pub writer: WriterId,
    /// The writer's sequence number of its first entry; entries count one each.
    pub first_seq: u64,
    /// How many entries it has, at least one.
    pub count: u32,
    /// The writer's clock when it was framed, in microseconds since 1970 (UTC). Information only:
    /// never used for order.
    pub written_at: i64,
    /// Checksum over header and body: with writer and sequence number it names the batch.
    pub crc: u32,
}

/// A validated record batch. Cloning is cheap: the bytes are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    header: BatchHeader,
    /// Where the first entry's length stands.
    entries_at: u32,
}

impl Batch {
    /// Reads a batch from the start of `bytes`, which may go on after it.
    ///
    /// # Errors
    /// [`RecordError`]: the bytes are cut short, damaged, or of a later version.
    pub fn decode(bytes: &Bytes) -> Result<Batch, RecordError> {
        let (header, entries_at, len) = decode_header(bytes)?;
        let batch = bytes.slice(..len);
        if checksum(&batch) != header.crc && !Planted::here().has(Bug::ChecksumNotVerified) {
            return Err(RecordError::Damaged("checksum of the batch"));
        }
        let mut at = entries_at;
        for _ in 0..header.count {
            let size = u32_at(&batch, at).ok_or(RecordError::Damaged("entry length"))? as usize;
            at += ENTRY_LEN_BYTES + size.min(BATCH_ENCODED_MAX);
        }
        if at != len {
            return Err(RecordError::Damaged("entry lengths do not add up"));
        }
        Ok(Batch { bytes: batch, header, entries_at: entries_at as u32 })
    }

    /// What the batch says of itself.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// How many entries, and so positions, it takes.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::from(self.header.count)
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The payloads in order, sharing the batch's bytes.
    pub fn entries(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut at = self.entries_at as usize;
        (0..self.header.count).map(move |_| {
            let size = u32_at(&self.bytes, at).expect("decode checked every length") as usize;
            at += ENTRY_LEN_BYTES + size;
            self.bytes.slice(at - size..at)
        })
    }
}

/// Header, where the entries start, and the length of the whole batch: with lengths bounded, but
/// without a look at the checksum.
fn decode_header(bytes: &[u8]) -> Result<(BatchHeader, usize, usize), RecordError> {
    let need = |needed: usize| match bytes.len() {
        present if present < needed => Err(RecordError::Short { needed, present }),
        _ => Ok(()),
    };
    need(BATCH_HEADER_LEN)?;
    if bytes[..4] != BATCH_MAGIC {
        return Err(RecordError::Damaged("not a batch"));
    }
    if bytes[4] > BATCH_VERSION {
        return Err(RecordError::Version(bytes[4]));
    }
    let header_len = bytes[5] as usize;
    let kind = match bytes[7] {
        0 => BatchKind::Data,
        1 => BatchKind::NoOp,
        2 => BatchKind::Control,
        _ => return Err(RecordError::Damaged("unknown kind of batch")),
    };
    let int = |at| u32_at(bytes, at).expect("the header is complete");
    let long = |at: usize| u64::from(int(at)) | u64::from(int(at + 4)) << 32;
    let header = BatchHeader {
        kind,
        writer: WriterId(u128::from(long(8)) | u128::from(long(16)) << 64),
        first_seq: long(24),
        written_at: long(32) as i64,
        count: int(40),
        crc: int(CRC_AT),
    };
    let (attributes, body) = (int(44) as usize, int(48) as usize);
    if header_len < BATCH_HEADER_LEN
        || attributes > ATTRIBUTE_BYTES_MAX
        || header.count == 0
        || header.count as usize > BATCH_ENTRIES_MAX
        || attributes > body
        || header_len + body > BATCH_ENCODED_MAX
        || body - attributes < header.count as usize * ENTRY_LEN_BYTES
        || header.first_seq.checked_add(u64::from(header.count)).is_none()
    {
        return Err(RecordError::Damaged("lengths of the batch"));
    }
    need(header_len + body)?;
    Ok((header, header_len + attributes, header_len + body))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().expect("four bytes")))
}

/// CRC32C over everything but the checksum's own four bytes.
fn checksum(batch: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(&batch[..CRC_AT]);
    crc.update(&batch[CRC_AT + 4..]);
    crc.finish()
}

/// CRC32C (Castagnoli) in pieces: the one checksum of every format of this project.
#[derive(Debug)]
pub struct Crc32c(crc_fast::Digest);

impl Crc32c {
    /// Starts at the checksum of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    /// Goes on over `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all that was given.
    #[must_use]
    pub fn finish(&self) -> u32 {
        self.0.finalize() as u32
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// CRC32C of one piece.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Collects entries and frames them into a [`Batch`] without copying them again.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: BytesMut,
    count: u32,
}

impl BatchBuilder {
    /// An empty builder with room for `payload_bytes`.
    #[must_use]
    pub fn with_capacity(payload_bytes: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(BATCH_HEADER_LEN + ENTRY_LEN_BYTES + payload_bytes);
        bytes.put_bytes(0, BATCH_HEADER_LEN);
        Self { bytes, count: 0 }
    }

    /// True while nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Entries so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of payload so far.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.bytes.len() - BATCH_HEADER_LEN - self.count as usize * ENTRY_LEN_BYTES
    }

    /// Whether an entry of `size` bytes still fits. A lone entry always does, up to the entry limit.
    #[must_use]
    pub fn fits(&self, size: usize) -> bool {
        if self.is_empty() {
            return size <= ENTRY_BYTES_MAX;
        }
        (self.count as usize) < BATCH_ENTRIES_MAX && self.payload_len() + size <= BATCH_BYTES_MAX
    }

    /// Adds an entry.
    ///
    /// Panics if it does not [fit](Self::fits): callers ask first, since they have to start another
    /// batch or refuse.
    pub fn push(&mut self, payload: &[u8]) {
        assert!(self.fits(payload.len()), "push only what fits");
        self.bytes.put_u32_le(payload.len() as u32);
        self.bytes.put_slice(payload);
        self.count += 1;
    }

    /// Frames what was pushed. Panics when nothing was: an empty batch takes no position.
    #[must_use]
    pub fn finish(self, writer: WriterId, first_seq: u64, written_at: i64) -> Batch {
        self.finish_as(BatchKind::Data, writer, first_seq, written_at)
    }

    /// As [`finish`](Self::finish), for any kind of batch.
    #[must_use]
    pub fn finish_as(
        mut self,
        kind: BatchKind,
        writer: WriterId,
        first_seq: u64,
        written_at: i64,
    ) -> Batch {
        assert!(!self.is_empty(), "a batch has at least one entry");
        let body = self.bytes.len() - BATCH_HEADER_LEN;
        let mut head = &mut self.bytes[..BATCH_HEADER_LEN];
        head.put_slice(&BATCH_MAGIC);
        head.put_u8(BATCH_VERSION);
        head.put_u8(BATCH_HEADER_LEN as u8);
        head.put_u8(0);
        head.put_u8(kind as u8);
        head.put_u128_le(writer.0);
        head.put_u64_le(first_seq);
        head.put_i64_le(written_at);
        head.put_u32_le(self.count);
        head.put_u32_le(0);
        head.put_u32_le(body as u32);
        let crc = checksum(&self.bytes);
        self.bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        let header = BatchHeader { kind, writer, first_seq, count: self.count, written_at, crc };
        Batch { bytes: self.bytes.freeze(), header, entries_at: BATCH_HEADER_LEN as u32 }
    }
}

/// A batch at its place: what disks hold and readers are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampedBatch {
    /// The loglet that ordered it.
    pub loglet: LogletId,
    /// The position of its first entry; the others follow without a gap.
    pub first: LogletPos,
    /// The batch as its writer framed it.
    pub batch: Batch,
}

impl StampedBatch {
    /// The position after its last entry.
    #[must_use]
    pub fn end(&self) -> LogletPos {
        self.first.plus(self.batch.count())
    }

    /// Bytes of stamp and batch together.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        STAMP_LEN + self.batch.bytes.len()
    }

    /// The bytes that go before the batch.
    #[must_use]
    pub fn stamp(&self) -> [u8; STAMP_LEN] {
        let mut stamp = [0; STAMP_LEN];
        let mut out = &mut stamp[..];
        out.put_slice(&STAMP_MAGIC);
        out.put_u128_le(self.loglet.log.0);
        out.put_u32_le(self.loglet.segment);
        out.put_u64_le(self.first.0);
        out.put_u32_le(self.batch.bytes.len() as u32);
        let crc = stamp_checksum(&stamp, self.batch.header.crc);
        stamp[STAMP_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        stamp
    }

    /// Reads stamp and batch from the start of `bytes`, which may go on after them.
    ///
    /// # Errors
    /// [`RecordError`], as [`Batch::decode`]; also when stamp and batch do not belong together.
    pub fn decode(bytes: &Bytes) -> Result<StampedBatch, RecordError> {
        let stamp = Stamp::decode(bytes)?;
        let end = STAMP_LEN + stamp.batch_len;
        if bytes.len() < end {
            return Err(RecordError::Short { needed: end, present: bytes.len() });
        }
        let batch = Batch::decode(&bytes.slice(STAMP_LEN..end))?;
        if batch.bytes.len() != stamp.batch_len
            || (stamp.crc != stamp_checksum(bytes, batch.header.crc)
                && !Planted::here().has(Bug::ChecksumNotVerified))
        {
            return Err(RecordError::Damaged("stamp does not belong to its batch"));
        }
        if stamp.first.0 > COUNTER_MAX {
            return Err(RecordError::Damaged("position of the batch"));
        }
        Ok(StampedBatch { loglet: stamp.loglet, first: stamp.first, batch })
    }
}

/// A stamp alone, for walks that skip over batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The loglet that ordered the batch.
    pub loglet: LogletId,
    /// The position of the batch's first entry.
    pub first: LogletPos,
    /// Bytes of the batch that follows.
    pub batch_len: usize,
    crc: u32,
}

impl Stamp {
    /// Reads a stamp; its checksum covers the batch too and is checked only by
    /// [`StampedBatch::decode`].
    ///
    /// # Errors
    /// [`RecordError`]: cut short, or not a stamp.
    pub fn decode(bytes: &[u8]) -> Result<Stamp, RecordError> {
        if bytes.len() < STAMP_LEN {
            return Err(RecordError::Short { needed: STAMP_LEN, present: bytes.len() });
        }
        if bytes[..4] != STAMP_MAGIC {
            return Err(RecordError::Damaged("not a stamp"));
        }
        let int = |at| u32_at(bytes, at).expect("the stamp is complete");
        let long = |at: usize| u64::from(int(at)) | u64::from(int(at + 4)) << 32;
        let log = LogId(u128::from(long(4)) | u128::from(long(12)) << 64);
        let batch_len = int(32) as usize;
        if !(BATCH_HEADER_LEN..=BATCH_ENCODED_MAX).contains(&batch_len) {
            return Err(RecordError::Damaged("length in the stamp"));
        }
        Ok(Stamp {
            loglet: LogletId { log, segment: int(20) },
            first: LogletPos(long(24)),
            batch_len,
            crc: int(36),
        })
    }
}

fn stamp_checksum(stamp: &[u8], batch_crc: u32) -> u32 {
    let mut bytes = [0; STAMP_LEN];
    bytes[..STAMP_LEN - 4].copy_from_slice(&stamp[..STAMP_LEN - 4]);
    bytes[STAMP_LEN - 4..].copy_from_slice(&batch_crc.to_le_bytes());
    crc32c(&bytes)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
