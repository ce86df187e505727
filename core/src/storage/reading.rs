//! Reading batches out of data files, for owners and for readers in other processes.
//!
//! A read takes one chunk from the file and cuts the batches out of it without copying them. Every
//! batch is checked on the way: checksums, whose it is, and that positions ascend. Since the exact
//! number of valid bytes of a file is known, batches have to tile them: a file can turn out damaged
//! but not short. Bytes that fail are named and never passed over. Positions may have been passed
//! over, so a batch that a disk wrote to an earlier one's place would look like the end of such a gap:
//! no gap is believed before what follows it fits too.

use bytes::Bytes;
use virtuallog_protocol::record::{RecordError, STAMP_LEN, Stamp};
use virtuallog_protocol::{LogletId, LogletPos, StampedBatch};

use super::chunks::{CHUNK_BYTES, Chunks};
use super::data::{DataFiles, FileKey};
use super::disk::read_exact_at;
use super::error::StorageError;
use super::index::IndexCache;
use super::state::{Extent, LogletState};

/// Least bytes that one read takes from a file. The most are those of a chunk, unless a batch is
/// larger.
const READ_BYTES_MIN: u64 = 64 << 10;

/// What a read works on.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) files: &'a DataFiles,
    pub(crate) index: &'a IndexCache,
    pub(crate) chunks: &'a Chunks,
    pub(crate) id: LogletId,
    pub(crate) state: &'a LogletState,
}

/// What [`verify`](super::Storage::verify) looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Batches.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of stamps and batches.
    pub bytes: u64,
}

impl Source<'_> {
    /// As [`Storage::read`](super::Storage::read), within the state's tail.
    pub(crate) fn read(
        &self,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, StorageError> {
        if from < self.state.trim {
            return Err(StorageError::Trimmed { first_kept: self.state.trim });
        }
        let to = to.min(self.state.tail);
        let mut out = Found::new(from, to, bytes_max.max(1));
        if from >= to {
            return Ok(out.batches);
        }
        let mut extent = self.state.extent_at(from);
        loop {
            match self.read_file(&extent, &mut out) {
                Ok(()) => {}
                // What comes before the damage is fine; the next read begins with it.
                Err(_) if !out.batches.is_empty() => return Ok(out.batches),
                Err(error) => return Err(error),
            }
            match self.state.extent_after(extent.base) {
                Some(next) if !out.done && next.base < to => extent = next,
                _ => return Ok(out.batches),
            }
        }
    }

    /// The file that holds `position`, and where in it the batch starts that contains it or else the
    /// first one after it: the end of the file when there is none.
    pub(crate) fn find(&self, position: LogletPos) -> Result<(Extent, u64), StorageError> {
        let extent = self.state.extent_at(position);
        let mut out = Found::new(position, LogletPos(u64::MAX), 1);
        self.read_file(&extent, &mut out)?;
        Ok((extent, out.offset.unwrap_or(extent.len)))
    }

    fn read_file(&self, extent: &Extent, out: &mut Found) -> Result<(), StorageError> {
        let key = (self.id, extent.base);
        if extent.start == extent.len {
            return Ok(());
        }
        let begun = self.index.locate(key, extent, out.from);
        let mut at = begun;
        let file = self.files.get(key)?;
        let mut walk = self.walk(extent);
        let mut want = 0;
        while at < extent.len && !out.done {
            let len = (out.left as u64).clamp(READ_BYTES_MIN, CHUNK_BYTES as u64);
            let len = len.max(want).min(extent.len - at);
            let chunk =
                self.chunks.read(file.as_ref(), at, len as usize).map_err(|e| walk.io(at, e))?;
            let (mut seen, before) = (Vec::new(), out.batches.len());
            let (used, needed) = walk.cut(&chunk, at, extent.len, out, &mut seen)?;
            if out.batches.len() > before {
                // The batches keep the chunk's last bytes in memory too.
                out.take((len - used) as usize);
            }
            self.index.note(key, extent, seen);
            at += used;
            // The next batch may be as large: not to read it twice too.
            want = needed.max(want);
        }
        // Where nothing was passed over, nothing is known of the positions before `at` either: they
        // can be a gap, and the file's base then lies far below.
        if at > begun {
            self.index.stopped(key, walk.above, at);
        }
        Ok(())
    }

    fn walk(&self, extent: &Extent) -> Walk<'_> {
        let next = self.state.extent_after(extent.base);
        Walk {
            key: (self.id, extent.base),
            above: extent.base,
            below: next.map_or(self.state.tail, |next| next.base),
            files: self.files,
        }
    }

    /// Checks every byte of every data file.
    pub(crate) fn verify(
        &self,
        progress: &mut dyn FnMut(u64),
    ) -> Result<VerifyReport, StorageError> {
        let mut report = VerifyReport::default();
        for extent in self.state.extents().filter(|extent| extent.start < extent.len) {
            let mut out = Found::new(LogletPos(0), LogletPos(u64::MAX), usize::MAX);
            let file = self.files.get((self.id, extent.base))?;
            let mut walk = self.walk(extent);
            let (mut at, mut want) = (extent.start, 0);
            while at < extent.len {
                let len = want.max(CHUNK_BYTES as u64).min(extent.len - at);
                let chunk = self
                    .chunks
                    .read(file.as_ref(), at, len as usize)
                    .map_err(|e| walk.io(at, e))?;
                let (used, needed) = walk.cut(&chunk, at, extent.len, &mut out, &mut Vec::new())?;
                for batch in out.batches.drain(..) {
                    report.batches += 1;
                    report.entries += batch.batch.count();
                }
                report.bytes += used;
                progress(used);
                (at, want) = (at + used, needed.max(want));
            }
        }
        Ok(report)
    }
}

/// What a read looks for and what it has.
struct Found {
    from: LogletPos,
    to: LogletPos,
    left: usize,
    batches: Vec<StampedBatch>,
    /// Offset of the first of them in its file.
    offset: Option<u64>,
    done: bool,
}

impl Found {
    fn new(from: LogletPos, to: LogletPos, left: usize) -> Found {
        Found { from, to, left, batches: Vec::new(), offset: None, done: false }
    }

    /// Counts bytes that the answer holds.
    fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.done |= self.left == 0;
    }
}

/// The batches of one file, one after the other.
struct Walk<'a> {
    key: FileKey,
    /// The next batch starts at or after this position.
    above: LogletPos,
    /// The file's last batch ends at or before this one.
    below: LogletPos,
    files: &'a DataFiles,
}

impl Walk<'_> {
    /// Cuts batches out of a chunk that starts at offset `at` of a file with `len` valid bytes.
    /// Returns how many bytes were used up, and how many the batch needs that is cut short by the
    /// chunk's end.
    fn cut(
        &mut self,
        chunk: &Bytes,
        at: u64,
        len: u64,
        out: &mut Found,
        seen: &mut Vec<(LogletPos, u64, u64)>,
    ) -> Result<(u64, u64), StorageError> {
        let mut used = 0;
        while used < chunk.len() {
            let rest = &chunk[used..];
            let here = at + used as u64;
            let stamp = match Stamp::decode(rest) {
                Err(RecordError::Short { needed, .. }) if here + (needed as u64) <= len => {
                    return Ok((used as u64, needed as u64));
                }
                other => other.map_err(|e| self.corrupt(here, &e.to_string()))?,
            };
            if stamp.loglet != self.key.0 || stamp.first < self.above {
                return Err(self.corrupt(here, "a batch of another place"));
            }
            let size = STAMP_LEN + stamp.batch_len;
            if here + size as u64 > len {
                return Err(self.corrupt(here, "a batch reaches beyond the file's end"));
            }
            if rest.len() < size {
                return Ok((used as u64, size as u64));
            }
            let stamped = StampedBatch::decode(&chunk.slice(used..used + size))
                .map_err(|e| self.corrupt(here, &format!("position {}: {e}", stamp.first)))?;
            if stamped.end() > self.below {
                return Err(self.corrupt(here, "a batch of another place"));
            }
            if stamped.first > self.above.max(out.from) {
                self.fits_before(stamped.end(), &chunk[used + size..], here + size as u64, len)?;
            }
            // Only now, after its checksum: a flipped bit must not look like the range's end.
            if stamped.first >= out.to {
                out.done = true;
                break;
            }
            if stamped.end() > out.from {
                if size > out.left && !out.batches.is_empty() {
                    out.done = true;
                    break;
                }
                out.take(size);
            }
            seen.push((stamped.first, here, here + size as u64));
            self.above = stamped.end();
            used += size;
            if stamped.end() > out.from {
                out.offset.get_or_insert(here);
                out.batches.push(stamped);
            }
            if out.done {
                break;
            }
        }
        Ok((used as u64, 0))
    }

    /// Fails when what follows a batch that ends at `end` is no batch, or one that belongs before it.
    /// `rest` is what was read of the file from offset `at` on.
    fn fits_before(
        &self,
        end: LogletPos,
        rest: &[u8],
        at: u64,
        len: u64,
    ) -> Result<(), StorageError> {
        if at == len {
            return Ok(());
        }
        let mut bytes = [0; STAMP_LEN];
        match rest.get(..STAMP_LEN) {
            Some(stamp) => bytes.copy_from_slice(stamp),
            None if at + STAMP_LEN as u64 > len => {
                return Err(self.corrupt(at, "a batch reaches beyond the file's end"));
            }
            None => read_exact_at(self.files.get(self.key)?.as_ref(), &mut bytes, at)
                .map_err(|e| self.io(at, e))?,
        }
        let next = Stamp::decode(&bytes).map_err(|e| self.corrupt(at, &e.to_string()))?;
        match next.loglet == self.key.0 && next.first >= end {
            true => Ok(()),
            false => Err(self.corrupt(at, "a batch of another place")),
        }
    }

    fn corrupt(&self, at: u64, what: &str) -> StorageError {
        let (path, (id, _)) = (self.files.path(self.key), self.key);
        StorageError::Corrupt(format!(
            "`{}` at byte {at}: {what} (loglet {id}, at or after position {}): restore the file or \
             take over its replicas",
            path.display(),
            self.above
        ))
    }

    fn io(&self, at: u64, error: std::io::Error) -> StorageError {
        let path = self.files.path(self.key);
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            return self.corrupt(at, "the file is shorter than it has to be");
        }
        StorageError::io("read", &path, error)
    }
}
