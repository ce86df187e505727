//! The one seam below the store: what it asks of a disk, and the real one.
//!
//! A [`Disk`] is blocking and knows nothing of logs. Everything that can be lost, torn, refused or
//! damaged goes through it, so that the simulated disk (feature `testing`) can do all of that to the
//! very code that runs in production. There is no second seam above it.
//!
//! What a disk promises: bytes written are durable after `sync_data` of their file returned `Ok`, and
//! a name is durable after `sync_dir` of its directory did. Nothing else is, in no order.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use super::direct::Direct;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it has to be there.
    Read,
    /// For reading and writing; it has to be there.
    Write,
    /// For reading and writing; made when missing, emptied when there.
    Create,
}

/// Where a store lives.
pub trait Disk: Send + Sync + Debug {
    /// Opens or makes a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a directory; one that is there already is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Gives a file another name in the same directory, at once, over whatever had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock file for as long as the answer lives, or says who has it.
    fn lock(&self, path: &Path) -> io::Result<LockOutcome>;
    /// Differs from one start of the machine to the next; 0 when the system does not tell.
    fn boot_id(&self) -> u64;
    /// The process that asks. A fork gives a child its parent's store, and it is told apart by this.
    fn process(&self) -> u32 {
        std::process::id()
    }
}

/// An open file. Closed when the last handle is dropped.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads some bytes; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all parts, one after the other. After an error any part of them may be there.
    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes everything written to the file so far durable. After an error nothing is known of
    /// what was written since the last success, and asking again may lie.
    fn sync_data(&self) -> io::Result<()>;
    /// Writes all parts, one after the other, and makes them durable: them, and not what was written
    /// before. After an error any part of them may be there, and asking again may lie.
    fn write_synced(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.write_all_at(parts, offset)?;
        self.sync_data()
    }
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True for a file of no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file or fills it up with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Gives the space of `from..to` back; the bytes read as zeros, the length stays. A file system
    /// that cannot do this answers `Unsupported`.
    fn punch(&self, from: u64, to: u64) -> io::Result<()>;
}

/// What [`Disk::lock`] found.
#[derive(Debug)]
pub enum LockOutcome {
    /// Ours until the guard is dropped.
    Held(Box<dyn LockGuard>),
    /// Somebody else's; `owner` is what they wrote into it, usually a process id.
    Taken {
        /// Content of the lock file.
        owner: String,
    },
}

/// A lock that is given back when dropped.
pub trait LockGuard: Send + Sync + Debug {}

/// Fills `buf` from `offset` on.
///
/// # Errors
/// `UnexpectedEof` when the file ends before.
pub(crate) fn read_exact_at(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<()> {
    match read_up_to(file, buf, offset)? {
        n if n == buf.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Fills as much of `buf` as the file has from `offset` on.
pub(crate) fn read_up_to(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// True for the ways in which a file system says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// The operating system's file system. Files are readable by their owner alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// Most slices that one `pwritev` takes.
const IO_SLICES_MAX: usize = 1024;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        // The standard library sets O_CLOEXEC on everything it opens.
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::Create => options.write(true).create(true).truncate(true),
        };
        Ok(Arc::new(RealFile { file: options.open(path)?, direct: OnceLock::new() }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // What stands there only serves the message, so a failure to read it may pass.
                let _ = file.take(64).read_to_string(&mut owner);
                return Ok(LockOutcome::Taken { owner: owner.trim().to_owned() });
            }
            Err(fs::TryLockError::Error(e)) => return Err(e),
        }
        // The pid only serves other processes' messages: a full disk must not keep a store shut.
        let _ = file.set_len(0);
        let _ = file.rewind();
        let _ = writeln!(file, "{}", std::process::id());
        Ok(LockOutcome::Held(Box::new(RealLock { slot: remember_lock(&file), _file: file })))
    }

    fn boot_id(&self) -> u64 {
        match fs::read("/proc/sys/kernel/random/boot_id") {
            Ok(text) => {
                let half = |part: &[u8]| u64::from(virtuallog_protocol::record::crc32c(part));
                let (a, b) = text.split_at(text.len() / 2);
                (half(a) << 32 | half(b)).max(1)
            }
            Err(_) => 0,
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    /// For what is written and synced at once; `None` where the file system has no such thing.
    direct: OnceLock<Option<Direct>>,
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut parts = parts.to_vec();
        let mut rest = &mut parts[..];
        // Leading empty slices would look like a write that makes no progress.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let now = &rest[..rest.len().min(IO_SLICES_MAX)];
            match rustix::io::pwritev(&self.file, now, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_synced(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        if let Some(direct) = self.direct.get_or_init(|| Direct::open(&self.file))
            && direct.write(parts, offset)?
        {
            return Ok(());
        }
        self.write_all_at(parts, offset)?;
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    #[cfg(target_os = "linux")]
    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, from, to - from)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn punch(&self, _from: u64, _to: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Most locks that one process holds and that a fork is told of.
pub const LOCKS_MAX: usize = 64;

static LOCK_FDS: [AtomicI32; LOCKS_MAX] = [const { AtomicI32::new(-1) }; LOCKS_MAX];

/// The file descriptors of all locks that this process holds; -1 where there is none.
///
/// A forked child shares the lock with its parent and would keep the store locked after the
/// parent's end. The facade crate closes these in a `pthread_atfork` child handler: reading them
/// takes no lock and allocates nothing, so it is allowed there.
#[must_use]
pub fn lock_fds() -> [i32; LOCKS_MAX] {
    std::array::from_fn(|i| LOCK_FDS[i].load(Ordering::Acquire))
}

#[derive(Debug)]
struct RealLock {
    /// Where in `LOCK_FDS` it stands, if there was room.
    slot: Option<usize>,
    /// Closing it gives the lock back.
    _file: File,
}

impl LockGuard for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            LOCK_FDS[slot].store(-1, Ordering::Release);
        }
    }
}

fn remember_lock(file: &File) -> Option<usize> {
    let fd = file.as_raw_fd();
    LOCK_FDS
        .iter()
        .position(|slot| slot.compare_exchange(-1, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}
