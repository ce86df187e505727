//! What an acceptor must not forget, on disk: one file of checked records, replaced as a whole now and
//! then. The folder's `FORMAT.md` has the bytes and the rule by which a torn end is told from damage.
//!
//! Everything blocks. Whoever holds it makes a step of the acceptor and persists it before the answer
//! goes out, one after the other: a cluster's registers change too rarely for more.
//!
//! Beside the directory stands a mark that there was a file: so one that is gone is told from one that
//! never was, and its acceptor has forgotten what it promised, for ever, whatever it is taught later.
//!
//! A write that fails, for example since the disk is full, takes the acceptor back to what the disk
//! has. A sync that fails ends everything: nothing is known any more.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use virtuallog_protocol::paxos::messages::MESSAGE_BYTES_MAX;
use virtuallog_protocol::paxos::{Acceptor, Member, Persist, Registers};
use virtuallog_protocol::record::Crc32c;

use crate::error::{Error, ErrorCode};
use crate::storage::disk::{Disk, DiskFile, OpenMode, is_full, read_exact_at};
use crate::storage::error::{Poison, io_error};
use crate::storage::whole::Whole;

const FILE: &str = "acceptor";
const TEMPORARY: &str = "acceptor.new";
const MAGIC: [u8; 4] = *b"VLA\x01";
/// The format that this code writes, and the highest that it reads.
const FORMAT: u32 = 1;
const HEADER_LEN: usize = 40;
const RECORD_MAGIC: [u8; 4] = *b"VLr\x01";
const RECORD_HEAD_LEN: usize = 20;
/// How much may follow an image, beyond its own length, before the file is replaced.
const REPLACE_AFTER: u64 = 1 << 20;
/// More than a file grows to; a longer one is damaged.
const FILE_BYTES_MAX: u64 = 4 * (MESSAGE_BYTES_MAX as u64 + REPLACE_AFTER);

/// Stands beside the directory from when there is a file in it: whether that was lost since.
const BEGUN: Whole =
    Whole { name: "paxos.begun", temporary: "paxos.begun.new", magic: *b"VLB\x01", version: 1 };

/// A record's body.
#[derive(Clone, PartialEq, Message)]
struct Body {
    /// `None`: a mark.
    #[prost(oneof = "Persist", tags = "1, 2, 3, 4")]
    persist: Option<Persist>,
}

/// The file of one acceptor.
#[derive(Debug)]
pub(super) struct Store {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    me: Member,
    /// `None` while the acceptor is blank.
    file: Option<Arc<dyn DiskFile>>,
    /// Where the next record goes.
    end: u64,
    /// How far the file is durable.
    durable: u64,
    image_end: u64,
    /// True when a record says that all before it is durable.
    marked: bool,
    begun: bool,
    forgot: bool,
    poison: Poison,
}

impl Store {
    /// Opens what `me` has in `dir`, and makes the directory when missing.
    ///
    /// # Errors
    /// `CORRUPT`, `INCOMPATIBLE`, `INVALID` for somebody else's file, or what the disk said.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        me: Member,
    ) -> Result<(Store, Acceptor), Error> {
        disk.create_dir(dir).map_err(|e| io_error("make directory", dir, e))?;
        let parent = beside(dir);
        disk.sync_dir(parent).map_err(|e| io_error("sync directory", parent, e))?;
        let lost = |body: &[u8]| <[u8; 1]>::try_from(body).ok().map(|[lost]| lost != 0);
        let begun = BEGUN.read(&*disk, parent, lost)?;
        let mut store = Store {
            disk,
            dir: dir.to_owned(),
            me,
            file: None,
            end: 0,
            durable: 0,
            image_end: 0,
            marked: true,
            begun: begun.is_some(),
            forgot: begun == Some(true),
            poison: Poison::default(),
        };
        let acceptor = store.load()?;
        match (begun, store.file.is_some()) {
            (None, true) => store.begin(false)?,
            (Some(false), false) => store.begin(true)?,
            _ => {}
        }
        if acceptor.registers().applied() > 0 {
            // What was read may be in memory only, and behind it may lie a torn end.
            store.replace(&acceptor)?;
        }
        Ok((store, acceptor))
    }

    /// Whether there was a file once, and it was lost.
    pub(super) fn forgot(&self) -> bool {
        self.forgot
    }

    /// Notes that there is a file from now on, or that it was lost.
    fn begin(&mut self, lost: bool) -> Result<(), Error> {
        let parent = beside(&self.dir);
        let path = parent.join(BEGUN.name);
        let written = BEGUN.replace(&*self.disk, parent, &[u8::from(lost)]);
        let written = written.map_err(|error| self.poison.set("replace", &path, error))?;
        written.map_err(|error| io_error("replace", &path, error))?;
        (self.begun, self.forgot) = (true, lost);
        Ok(())
    }

    /// The sync that failed, if one did.
    pub(super) fn failed(&self) -> Option<Error> {
        self.poison.error()
    }

    /// Makes what a step of `acceptor` gave back lie on the disk, durable if `sync`. After an error
    /// the acceptor is as the disk has it.
    ///
    /// # Errors
    /// What the disk said; for ever, after a failed sync.
    pub(super) fn persist(
        &mut self,
        acceptor: &mut Acceptor,
        persist: &[Persist],
        sync: bool,
    ) -> Result<(), Error> {
        self.poison.check()?;
        if persist.is_empty() {
            return Ok(());
        }
        let grown = self.end - self.image_end > self.image_end + REPLACE_AFTER;
        let snapshot = persist.iter().any(|persist| matches!(persist, Persist::Snapshot(_)));
        let written = match &self.file {
            Some(file) if !grown && !snapshot => {
                let file = file.clone();
                self.append(&*file, persist.iter().cloned().map(Some), sync)
            }
            // Before anybody has an answer of this file it is noted that there is one.
            _ => self.replace(acceptor).and_then(|()| match self.begun {
                true => Ok(()),
                false => self.begin(false),
            }),
        };
        if written.is_err() && self.poison.check().is_ok() {
            // The acceptor must not remember what the disk does not.
            let mut known = self.load().map_err(|error| {
                self.poison.set("read back", &self.dir.join(FILE), io::Error::other(error))
            })?;
            known.set_voting(acceptor.voting());
            *acceptor = known;
        }
        written
    }

    /// Says on the disk how far it is durable, for the time when nothing else does.
    pub(super) fn mark(&mut self) -> Result<(), Error> {
        self.poison.check()?;
        match self.file.clone() {
            Some(file) if !self.marked => {
                let path = self.dir.join(FILE);
                if self.durable < self.end {
                    // What the mark speaks of has to be durable before it.
                    file.sync_data().map_err(|e| self.poison.set("sync", &path, e))?;
                    self.durable = self.end;
                }
                self.append(&*file, std::iter::once(None), true)?;
                self.marked = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn append(
        &mut self,
        file: &dyn DiskFile,
        persist: impl Iterator<Item = Option<Persist>>,
        sync: bool,
    ) -> Result<(), Error> {
        let path = self.dir.join(FILE);
        let bytes = encode(persist, self.end, self.durable);
        if let Err(error) = file.write_all_at(&[IoSlice::new(&bytes)], self.end) {
            // A part of it may lie there, in the way of nothing: it is no valid record, and the next
            // one is written over it.
            return Err(io_error("write", &path, error));
        }
        if sync {
            file.sync_data().map_err(|e| self.poison.set("sync", &path, e))?;
        }
        self.end += bytes.len() as u64;
        if sync {
            self.durable = self.end;
        }
        self.marked = false;
        Ok(())
    }

    /// Puts a new file with an image of `acceptor` in the place of the old one.
    fn replace(&mut self, acceptor: &Acceptor) -> Result<(), Error> {
        let (temporary, path) = (self.dir.join(TEMPORARY), self.dir.join(FILE));
        let image = acceptor.image().into_iter().map(Some);
        let records = encode(image, HEADER_LEN as u64, 0);
        let end = (HEADER_LEN + records.len()) as u64;
        let header = self.header(end);
        // Up to the rename nothing has changed, so whatever fails is a definite failure.
        let stage = || -> Result<Arc<dyn DiskFile>, Error> {
            let file = self.disk.open(&temporary, OpenMode::Create);
            let file = file.map_err(|e| io_error("make", &temporary, e))?;
            file.write_all_at(&[IoSlice::new(&header), IoSlice::new(&records)], 0)
                .map_err(|e| io_error("write", &temporary, e))?;
            match file.sync_data() {
                // The file is thrown away, so nothing is in doubt.
                Err(e) if is_full(&e) => Err(io_error("write", &temporary, e)),
                Err(e) => Err(self.poison.set("sync", &temporary, e)),
                Ok(()) => Ok(file),
            }
        };
        let file = stage().inspect_err(|_| {
            // It is in nobody's way, and the next one is written over it.
            let _ = self.disk.remove_file(&temporary);
        })?;
        let fail = |what, path: &Path| {
            let (poison, path) = (&self.poison, path.to_owned());
            move |error| poison.set(what, &path, error)
        };
        self.disk.rename(&temporary, &path).map_err(fail("rename", &temporary))?;
        self.disk.sync_dir(&self.dir).map_err(fail("sync directory", &self.dir))?;
        self.file = Some(file);
        (self.end, self.durable, self.image_end, self.marked) = (end, end, end, true);
        Ok(())
    }

    fn header(&self, image_end: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.put_slice(&MAGIC);
        bytes.put_u32_le(FORMAT);
        bytes.put_u32_le(self.me.node);
        bytes.put_u128_le(self.me.storage.into());
        bytes.put_u64_le(image_end);
        let mut crc = Crc32c::new();
        crc.update(&bytes);
        bytes.put_u32_le(crc.finish());
        bytes
    }

    /// What the disk has. Changes nothing there.
    fn load(&mut self) -> Result<Acceptor, Error> {
        let path = self.dir.join(FILE);
        let mut acceptor = Acceptor::new(self.me, Registers::blank());
        let file = match self.disk.open(&path, OpenMode::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(acceptor),
            other => other.map_err(|e| io_error("open", &path, e))?,
        };
        let len = file.len().map_err(|e| io_error("read", &path, e))?;
        if len > FILE_BYTES_MAX {
            return Err(damaged(&path, "it is longer than it can be"));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        read_exact_at(&*file, &mut bytes, 0).map_err(|e| io_error("read", &path, e))?;
        let bytes = Bytes::from(bytes);
        self.image_end = self.check_header(&path, bytes.slice(..HEADER_LEN.min(bytes.len())))?;
        let mut at = HEADER_LEN;
        while let Some(record) = Record::at(&bytes, at) {
            let body =
                Body::decode(record.body).map_err(|_| damaged(&path, "a record's fields"))?;
            if let Some(persist) = body.persist {
                acceptor.replay(persist).map_err(|e| damaged(&path, e.0))?;
            }
            at = record.end;
        }
        if (at as u64) < self.image_end {
            return Err(damaged(&path, "its image is cut short"));
        }
        let beyond = |from: usize| Record::at(&bytes, from).is_some_and(|r| r.durable > at as u64);
        if (at + 1..bytes.len()).any(beyond) {
            return Err(damaged(&path, "a record that was durable fails its check"));
        }
        // A torn end is as if it had never been written.
        (self.file, self.end, self.marked) = (Some(file), at as u64, false);
        self.durable = self.durable.min(self.end);
        Ok(acceptor)
    }

    /// Checks the header, and gives the image's end.
    fn check_header(&self, path: &Path, mut bytes: Bytes) -> Result<u64, Error> {
        if bytes.len() < HEADER_LEN {
            return Err(damaged(path, "it is cut short"));
        }
        let mut crc = bytes.split_off(HEADER_LEN - 4);
        let mut expected = Crc32c::new();
        expected.update(&bytes);
        if crc.get_u32_le() != expected.finish() || bytes.split_to(MAGIC.len()) != MAGIC[..] {
            return Err(damaged(path, "its header does not hold"));
        }
        let format = bytes.get_u32_le();
        if format > FORMAT {
            let path = path.display();
            let message = format!(
                "`{path}` has format {format}, this build reads up to {FORMAT}: use a newer version"
            );
            return Err(Error::new(ErrorCode::Incompatible, message));
        }
        let owner = Member::new(bytes.get_u32_le(), bytes.get_u128_le());
        if owner != self.me {
            let message = format!(
                "`{}` belongs to node {} with disk {:032x}: give each server its own directory",
                path.display(),
                owner.node,
                u128::from(owner.storage)
            );
            return Err(Error::invalid(message));
        }
        Ok(bytes.get_u64_le())
    }
}

/// Where the mark is: not in the directory, so that it is not lost with it.
fn beside(dir: &Path) -> &Path {
    let parent = dir.parent().unwrap_or(dir);
    if parent.as_os_str().is_empty() { Path::new(".") } else { parent }
}

/// A record that holds.
struct Record {
    durable: u64,
    body: Bytes,
    end: usize,
}

impl Record {
    /// The record at `at`, if there is one.
    fn at(bytes: &Bytes, at: usize) -> Option<Record> {
        let head = bytes.get(at..at + RECORD_HEAD_LEN)?;
        if head[..4] != RECORD_MAGIC {
            return None;
        }
        let mut fields = &head[4..];
        let (len, durable, crc) = (fields.get_u32_le(), fields.get_u64_le(), fields.get_u32_le());
        let body = at + RECORD_HEAD_LEN;
        let end = body.checked_add(len as usize).filter(|end| *end <= bytes.len())?;
        let body = bytes.slice(body..end);
        (crc == checksum(at as u64, &head[..16], &body)).then_some(Record { durable, body, end })
    }
}

fn encode(persist: impl Iterator<Item = Option<Persist>>, at: u64, durable: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for persist in persist {
        let body = Body { persist }.encode_to_vec();
        let start = bytes.len();
        bytes.put_slice(&RECORD_MAGIC);
        bytes.put_u32_le(body.len() as u32);
        bytes.put_u64_le(durable);
        let crc = checksum(at + start as u64, &bytes[start..], &body);
        bytes.put_u32_le(crc);
        bytes.put_slice(&body);
    }
    bytes
}

fn checksum(at: u64, head: &[u8], body: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(&at.to_le_bytes());
    crc.update(head);
    crc.update(body);
    crc.finish()
}

fn damaged(path: &Path, what: &str) -> Error {
    let message = format!(
        "`{}` is damaged ({what}): take this node out of the cluster and add it again with an empty \
         directory",
        path.display()
    );
    Error::new(ErrorCode::Corrupt, message)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
