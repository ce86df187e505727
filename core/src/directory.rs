//! A store in a directory, and the rule that a process opens each directory once.
//!
//! All logs of a directory share one journal, so all handles of this process share one way to it: a
//! table of the directories that are open finds it. The way is either that this process owns the
//! directory, or that it asks the process that does (`owner.rs`, `guest.rs`). It is closed with its
//! last log. After a fork the child finds the table, but not its parent's stores in it: their
//! threads did not come along.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorCode, Result};
use crate::guest::{Guest, GuestMetaStore, GuestProvider};
use crate::loglet::LogletProvider;
use crate::loglets::local::LocalProvider;
use crate::metastore::MetaStore;
use crate::metastores::FileMetaStore;
use crate::owner::{self, Owner};
use crate::storage::{RealDisk, Storage, StorageOptions};

/// The folder of the registers.
pub(crate) const META: &str = "meta";
/// How long an owner that does not serve is tried: it may be about to begin or to end.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// What this process holds while it owns a directory.
#[derive(Debug)]
pub(crate) struct Owned {
    storage: Arc<Storage>,
    metastore: Arc<FileMetaStore>,
    pub(crate) owner: Arc<Owner>,
    listening: Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
}

impl Owned {
    /// Takes the directory and serves it. Blocks. Must be called in a runtime.
    ///
    /// # Errors
    /// `LOCKED` when another process has it; what else is wrong with it.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Owned> {
        let disk = Arc::new(RealDisk);
        let options = StorageOptions { create, ..StorageOptions::default() };
        let storage = Storage::open(disk.clone(), path, options)?;
        let metastore = Arc::new(FileMetaStore::open(disk, path.join(META))?);
        let owner = Owner::new(storage.clone(), metastore.clone());
        let (listening, path) = (Mutex::default(), path.to_owned());
        let owned = Owned { storage, metastore, owner, listening, path };
        owned.listen();
        Ok(owned)
    }

    /// Serves other processes, unless it does: the runtime that it did it on may have ended.
    fn listen(&self) {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if listening.as_ref().is_none_or(JoinHandle::is_finished) {
            let begun = owner::listen(&self.path, self.owner.clone());
            *listening = begun
                .inspect_err(|error| tracing::warn!(%error, "other processes cannot write here"))
                .ok();
        }
    }

    /// Cuts all connections, and serves anew.
    #[cfg(test)]
    pub(crate) fn cut(&self) {
        let serving = self.listening.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serving) = serving {
            serving.abort();
        }
        self.listen();
    }

    /// Lets go of the directory. Blocks.
    pub(crate) fn close(self) -> Result<()> {
        // In this order: who comes now finds nobody, who is here is refused; then the lock goes, and
        // the socket may be another's.
        owner::hide(&self.path);
        self.owner.stop();
        let closed = self.storage.close();
        let listening = self.listening.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(listening) = listening {
            listening.abort();
        }
        closed
    }
}

/// A directory that this process reaches.
#[derive(Debug)]
pub(crate) struct Directory {
    way: Way,
    path: PathBuf,
    pid: u32,
}

#[derive(Debug)]
enum Way {
    Owned(Owned),
    Asked(Arc<Guest>),
}

/// One directory's place in the table: locked while it is opened or closed, so that others wait for
/// this directory and for no other.
type Place = Arc<Mutex<Weak<Directory>>>;

/// The place of a directory. By process, since a child has its own, whatever its parent was doing with
/// its places when it forked.
fn place(path: &Path) -> Place {
    static TABLE: LazyLock<Mutex<HashMap<(u32, PathBuf), Place>>> = LazyLock::new(Mutex::default);
    let key = (std::process::id(), path.to_owned());
    TABLE.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
}

fn lock(place: &Place) -> MutexGuard<'_, Weak<Directory>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Directory {
    /// Takes the directory, shares it with the rest of this process, or reaches the process that has
    /// it. Blocks. Must be called in a runtime that does network I/O.
    pub(crate) fn open(dir: &Path, create: bool) -> Result<Arc<Directory>> {
        check(dir, create)?;
        let path = canonical(dir);
        let place = place(&path);
        let mut directory = lock(&place);
        if let Some(directory) = directory.upgrade() {
            if let Way::Owned(owned) = &directory.way {
                if let Some(failure) = owned.storage.failure() {
                    let message = "the store failed: close every log of it in this process, then \
                                   open it again";
                    return Err(Error::new(ErrorCode::Unavailable, message).with_source(failure));
                }
                owned.listen();
            }
            return Ok(directory);
        }
        let way = Way::find(&path, create)?;
        let opened = Arc::new(Directory { way, path, pid: std::process::id() });
        *directory = Arc::downgrade(&opened);
        Ok(opened)
    }

    /// The registers of the directory.
    pub(crate) fn metastore(&self) -> Arc<dyn MetaStore> {
        match &self.way {
            Way::Owned(owned) => owned.metastore.clone(),
            Way::Asked(guest) => Arc::new(GuestMetaStore::new(guest.clone())),
        }
    }

    /// The loglets of the directory.
    pub(crate) fn provider(&self) -> Arc<dyn LogletProvider> {
        match &self.way {
            Way::Owned(owned) => Arc::new(LocalProvider::new(owned.storage.clone())),
            Way::Asked(guest) => Arc::new(GuestProvider::new(guest.clone())),
        }
    }

    /// Gives one share back, and closes the directory if it was the last. Blocks.
    pub(crate) fn release(self: Arc<Self>) -> Result<()> {
        let place = place(&self.path);
        let _nobody_opens_it_meanwhile = lock(&place);
        let Some(directory) = Arc::into_inner(self) else { return Ok(()) };
        if directory.pid != std::process::id() {
            // The parent's: its threads are not here, and its files are not ours to write.
            std::mem::forget(directory);
            return Ok(());
        }
        match directory.way {
            Way::Owned(owned) => owned.close(),
            Way::Asked(guest) => guest.close(),
        }
    }
}

impl Way {
    fn find(path: &Path, create: bool) -> Result<Way> {
        let (runtime, begun) = (Handle::current(), Instant::now());
        loop {
            let locked = match Owned::open(path, create) {
                Ok(owned) => return Ok(Way::Owned(owned)),
                Err(error) if error.code() == ErrorCode::Locked => error,
                Err(error) => return Err(error),
            };
            match runtime.block_on(Guest::connect(path)) {
                Ok(guest) => return Ok(Way::Asked(guest)),
                Err(error) if begun.elapsed() >= PATIENCE => {
                    return Err(locked.with_source(error));
                }
                Err(_) => {}
            }
            runtime.block_on(tokio::time::sleep(PAUSE));
        }
    }
}

/// One name for one directory, also for one that is yet to be made.
pub(crate) fn canonical(dir: &Path) -> PathBuf {
    let path = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let Ok(known) = std::fs::canonicalize(&path) else {
        return match (path.parent().map(std::fs::canonicalize), path.file_name()) {
            (Some(Ok(parent)), Some(name)) => parent.join(name),
            _ => path,
        };
    };
    known
}

/// Says what is wrong with a directory before anything is made in it.
pub(crate) fn check(dir: &Path, create: bool) -> Result<()> {
    let shown = dir.display();
    let not_found = |message: String| Err(Error::new(ErrorCode::NotFound, message));
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Error::invalid(format!("`{shown}` is a file: a store is a directory"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(Error::invalid(format!("a part of `{shown}` is a file: a store is a directory")))
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("cannot look at `{shown}`: {error}; mind its permissions");
            Err(Error::invalid(message).with_source(error))
        }
        Err(_) if !create => {
            not_found(format!("there is no store in `{shown}`: create a log in it"))
        }
        Err(_) => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            match parent.is_none_or(Path::is_dir) {
                true => Ok(()),
                false => not_found(format!(
                    "cannot make `{shown}`: its parent directory does not exist; make that first"
                )),
            }
        }
    }
}
