//! Registers in a directory: one small file for each name, replaced as a whole.
//!
//! A write goes into a temporary file, is synced, gets the register's file name, and the directory
//! is synced: before the rename nothing has changed, after the last sync it is durable. Deleting
//! writes a file without a value, so that versions go on. Files are named by a hash and never by a
//! name; the name stands inside and is compared.
//!
//! ```text
//! "VLM\x01" | format u32 | version u64 | has value u32 | name length u32 | value length u32
//! name | value | CRC32C u32 of all before: the last four bytes, in every format
//! ```
//!
//! There is one writer: the process that holds the store's lock (not taken here). Others open it
//! [read only](FileMetaStore::open_read_only), write nothing, and follow by looking again.
//! After a failed sync nothing is known of the disk, so every call fails until the store is opened
//! again; a sync is never tried twice.

use std::io::{self, IoSlice};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use virtuallog_protocol::limits::COUNTER_MAX;
use virtuallog_protocol::record::crc32c;

use crate::env;
use crate::error::{Error, ErrorCode};
use crate::metastore::{MetaError, MetaStore, Version, Versioned};
use crate::storage::disk::{Disk, OpenMode, is_full, read_exact_at};
use crate::storage::error::{Poison, io_error};

/// How soon a reader beside the owner looks again at first, and at most. A chain changes rarely and
/// a look costs some 10 µs, so this bounds what an idle follower costs and how late it is.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(50);

/// Most bytes that one register's file can have: what a reader refuses to look beyond.
pub const REGISTER_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 4] = *b"VLM\x01";
/// The format that this code writes, and the highest that it reads.
const FORMAT: u32 = 1;
const HEADER_LEN: usize = 28;
const CRC_LEN: usize = 4;

const SUFFIX: &str = ".reg";
const SUFFIX_TEMPORARY: &str = ".tmp";

/// A MetaStore in a directory. Cloning gives another handle on the same one.
#[derive(Clone, Debug)]
pub struct FileMetaStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    read_only: bool,
    /// Held by the owner from the look at the current version to the last sync, and by its reads, so
    /// that nobody is shown what is not durable yet.
    one_at_a_time: Mutex<()>,
    poison: Poison,
    changed: Notify,
}

impl FileMetaStore {
    /// Opens the registers in `dir` as their only writer, and makes the directory when missing.
    /// The caller holds the lock of the store that the directory belongs to. Blocks.
    ///
    /// # Errors
    /// What the disk said, with a code to branch on.
    pub fn open(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let dir = dir.into();
        disk.create_dir(&dir).map_err(|e| io_error("make directory", &dir, e))?;
        if let Some(parent) = dir.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            disk.sync_dir(parent).map_err(|e| io_error("sync directory", parent, e))?;
        }
        for name in disk.list(&dir).map_err(|e| io_error("list", &dir, e))? {
            if name.ends_with(SUFFIX_TEMPORARY) {
                // Left behind by a crash in mid-write, and of no use. The next write would replace
                // it anyway, so a failure may pass.
                let _ = disk.remove_file(&dir.join(name));
            }
        }
        Ok(Self::new(disk, dir, false))
    }

    /// Why it does nothing any more, if that is so: after a failed sync it has to be opened anew.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.0.poison.error()
    }

    /// Opens the registers in `dir` beside their writer: takes no lock and never writes. A directory
    /// that is not there yet holds no registers.
    pub fn open_read_only(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        Self::new(disk, dir.into(), true)
    }

    fn new(disk: Arc<dyn Disk>, dir: PathBuf, read_only: bool) -> Self {
        Self(Arc::new(Inner {
            disk,
            dir,
            read_only,
            one_at_a_time: Mutex::new(()),
            poison: Poison::default(),
            changed: Notify::new(),
        }))
    }

    /// Does file work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, MetaError> + Send + 'static,
    ) -> Result<T, MetaError> {
        let inner = self.0.clone();
        let Ok(runtime) = Handle::try_current() else {
            return work(&inner);
        };
        match env::blocking(&runtime, move || work(&inner)).await {
            Ok(outcome) => outcome,
            Err(lost) => match lost.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(lost) => Err(MetaError::Unavailable(lost.into())),
            },
        }
    }
}

#[async_trait]
impl MetaStore for FileMetaStore {
    async fn get(&self, name: &str) -> Result<Versioned, MetaError> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.get(&name)).await
    }

    async fn put_if(
        &self,
        name: &str,
        value: Option<Bytes>,
        expected: Version,
    ) -> Result<Version, MetaError> {
        let name = name.to_owned();
        // In here and not after the await, so that watchers hear of it although the caller let go.
        self.blocking(move |inner| {
            let outcome = inner.put_if(&name, value.as_deref(), expected);
            inner.changed.notify_waiters();
            outcome
        })
        .await
    }

    async fn watch(&self, name: &str, after: Version) -> Result<Versioned, MetaError> {
        let mut pause = POLL_MIN;
        loop {
            // Enlisted before the look, so that a change after the look is not missed.
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let current = self.get(name).await?;
            if current.version > after {
                return Ok(current);
            }
            if self.0.read_only {
                // The writer is another process, and a directory tells nobody.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(POLL_MAX);
            } else {
                changed.await;
            }
        }
    }

    async fn list(&self) -> Result<Vec<String>, MetaError> {
        self.blocking(Inner::list).await
    }
}

impl Inner {
    fn get(&self, name: &str) -> Result<Versioned, MetaError> {
        let _one = self.one_at_a_time.lock().expect("no panic under this lock");
        self.healthy().map_err(|e| MetaError::Unavailable(e.into()))?;
        self.current(name)
    }

    fn put_if(
        &self,
        name: &str,
        value: Option<&[u8]>,
        expected: Version,
    ) -> Result<Version, MetaError> {
        if self.read_only {
            return Err(MetaError::Refused(Error::invalid(
                "the store is open with `mode=read`: open it for writing",
            )));
        }
        let _one = self.one_at_a_time.lock().expect("no panic under this lock");
        self.healthy().map_err(MetaError::Refused)?;
        let current = self.current(name)?;
        if current.version != expected {
            return Err(MetaError::Conflict { current });
        }
        let version = expected + 1;
        let bytes = encode(name, value, version)?;
        self.replace(name, &bytes)?;
        Ok(version)
    }

    fn list(&self) -> Result<Vec<String>, MetaError> {
        let _one = self.one_at_a_time.lock().expect("no panic under this lock");
        self.healthy().map_err(|e| MetaError::Unavailable(e.into()))?;
        let files = match self.disk.list(&self.dir) {
            Ok(files) => files,
            Err(e) if self.read_only && e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(unavailable("list", &self.dir, e)),
        };
        let mut names = Vec::new();
        for file in files.iter().filter(|file| file.ends_with(SUFFIX)) {
            let path = self.dir.join(file);
            // A file that went away in between cannot be: registers are replaced, never removed.
            let Some(register) = self.read(&path)? else { continue };
            if self.path(&register.name, SUFFIX) != path {
                return Err(damaged(&path, "its name does not belong to what it holds"));
            }
            if register.versioned.value.is_some() {
                names.push(register.name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Fails after a failed sync.
    fn healthy(&self) -> Result<(), Error> {
        self.poison.check().map_err(Error::from)
    }

    fn current(&self, name: &str) -> Result<Versioned, MetaError> {
        match self.read(&self.path(name, SUFFIX))? {
            None => Ok(Versioned { value: None, version: 0 }),
            Some(register) if register.name == name => Ok(register.versioned),
            Some(register) => Err(MetaError::Refused(Error::invalid(format!(
                "the names `{name}` and `{}` fall on one file: choose another name",
                register.name
            )))),
        }
    }

    fn read(&self, path: &Path) -> Result<Option<Register>, MetaError> {
        let file = match self.disk.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unavailable("open", path, e)),
        };
        let len = file.len().map_err(|e| unavailable("read", path, e))?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > REGISTER_BYTES_MAX {
            return Err(damaged(path, "it is longer than a register can be"));
        }
        let mut bytes = vec![0; len];
        read_exact_at(&*file, &mut bytes, 0).map_err(|e| unavailable("read", path, e))?;
        decode(path, bytes.into()).map(Some)
    }

    /// Puts `bytes` durably in the place of a register's file.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), MetaError> {
        let (temporary, path) = (self.path(name, SUFFIX_TEMPORARY), self.path(name, SUFFIX));
        // Up to the rename nothing has changed, so whatever fails is a definite failure.
        let stage = || -> Result<(), Error> {
            let file = self.disk.open(&temporary, OpenMode::Create);
            let file = file.map_err(|e| io_error("make", &temporary, e))?;
            file.write_all_at(&[IoSlice::new(bytes)], 0)
                .map_err(|e| io_error("write", &temporary, e))?;
            match file.sync_data() {
                // The file is thrown away and nothing else was to be synced, so nothing is in doubt.
                Err(e) if is_full(&e) => Err(io_error("write", &temporary, e)),
                Err(e) => Err(self.poison.set("sync", &temporary, e)),
                Ok(()) => Ok(()),
            }
        };
        if let Err(error) = stage() {
            // It is in nobody's way, and the next opening removes it too.
            let _ = self.disk.remove_file(&temporary);
            return Err(MetaError::Refused(error));
        }
        match self.disk.rename(&temporary, &path) {
            Err(e) if is_full(&e) => Err(MetaError::Refused(io_error("rename", &temporary, e))),
            Err(e) => Err(MetaError::Unavailable(self.poison.set("rename", &temporary, e).into())),
            Ok(()) => self.disk.sync_dir(&self.dir).map_err(|e| {
                let error = self.poison.set("sync directory", &self.dir, e);
                MetaError::Unavailable(error.into())
            }),
        }
    }

    fn path(&self, name: &str, suffix: &str) -> PathBuf {
        self.dir.join(format!("{:032x}{suffix}", hash(name)))
    }
}

/// What one file says.
#[derive(Debug)]
struct Register {
    name: String,
    versioned: Versioned,
}

fn encode(name: &str, value: Option<&[u8]>, version: Version) -> Result<Vec<u8>, MetaError> {
    let bytes = value.unwrap_or_default();
    let len = HEADER_LEN + name.len() + bytes.len() + CRC_LEN;
    if len > REGISTER_BYTES_MAX {
        let message = format!("a value of {len} bytes is over the limit: {REGISTER_BYTES_MAX}");
        return Err(MetaError::Refused(Error::new(ErrorCode::TooLarge, message)));
    }
    let mut out = Vec::with_capacity(len);
    out.put_slice(&MAGIC);
    out.put_u32_le(FORMAT);
    out.put_u64_le(version);
    out.put_u32_le(u32::from(value.is_some()));
    out.put_u32_le(name.len() as u32);
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(name.as_bytes());
    out.put_slice(bytes);
    let crc = crc32c(&out);
    out.put_u32_le(crc);
    Ok(out)
}

fn decode(path: &Path, mut bytes: Bytes) -> Result<Register, MetaError> {
    if bytes.len() < HEADER_LEN + CRC_LEN {
        return Err(damaged(path, "it is cut short"));
    }
    let mut crc = bytes.split_off(bytes.len() - CRC_LEN);
    if crc32c(&bytes) != crc.get_u32_le() {
        return Err(damaged(path, "its checksum does not hold"));
    }
    if bytes.split_to(MAGIC.len()) != MAGIC[..] {
        return Err(damaged(path, "it is not a register"));
    }
    let format = bytes.get_u32_le();
    if format > FORMAT {
        let path = path.display();
        let message = format!("`{path}` has format {format}, this build reads up to {FORMAT}");
        return Err(MetaError::Refused(Error::new(ErrorCode::Incompatible, message)));
    }
    let (version, has_value) = (bytes.get_u64_le(), bytes.get_u32_le());
    let (name_len, value_len) = (bytes.get_u32_le() as usize, bytes.get_u32_le() as usize);
    if has_value > 1 || version == 0 || name_len.checked_add(value_len) != Some(bytes.len()) {
        return Err(damaged(path, "its lengths do not add up"));
    }
    if version > COUNTER_MAX {
        return Err(damaged(path, "nothing is written so often"));
    }
    let name = bytes.split_to(name_len).to_vec();
    let name = String::from_utf8(name).map_err(|_| damaged(path, "its name is not text"))?;
    let value = (has_value == 1).then_some(bytes);
    Ok(Register { name, versioned: Versioned { value, version } })
}

fn damaged(path: &Path, what: &str) -> MetaError {
    MetaError::Corrupt(format!("register file `{}`: {what}", path.display()))
}

fn unavailable(what: &str, path: &Path, error: io::Error) -> MetaError {
    MetaError::Unavailable(io_error(what, path, error).into())
}

/// 128-bit FNV-1a: files are named by it for good, so it must never change. Two names on one file
/// would be noticed, since the name stands inside.
fn hash(name: &str) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    name.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
