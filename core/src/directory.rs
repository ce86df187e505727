//! A store in a directory, and the rule that a process opens each directory once.
//!
//! All logs of a directory share one journal, so all handles of this process share one owner: a
//! table of the directories that are open finds it. The owner closes with its last log. After a fork
//! the child finds the table, but not its parent's stores in it: their threads did not come along.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::{Error, ErrorCode, Result};
use crate::metastores::FileMetaStore;
use crate::resolve::Lives;
use crate::storage::{RealDisk, Storage, StorageOptions};

/// The folder of the registers.
pub(crate) const META: &str = "meta";

/// A directory that this process owns.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) storage: Arc<Storage>,
    pub(crate) metastore: Arc<FileMetaStore>,
    pub(crate) lives: Arc<Lives>,
    path: PathBuf,
    pid: u32,
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
    /// Takes the directory, or shares it with the rest of this process. Blocks.
    pub(crate) fn open(dir: &Path, create: bool) -> Result<Arc<Directory>> {
        check(dir, create)?;
        let path = canonical(dir);
        let place = place(&path);
        let mut directory = lock(&place);
        if let Some(directory) = directory.upgrade() {
            return match directory.storage.failure() {
                None => Ok(directory),
                Some(failure) => {
                    let message = "the store failed: close every log of it in this process, then \
                                   open it again";
                    Err(Error::new(ErrorCode::Unavailable, message).with_source(failure))
                }
            };
        }
        let disk = Arc::new(RealDisk);
        let options = StorageOptions { create, ..StorageOptions::default() };
        let storage = Storage::open(disk.clone(), &path, options)?;
        let metastore = Arc::new(FileMetaStore::open(disk, path.join(META))?);
        let (lives, pid) = (Arc::default(), std::process::id());
        let opened = Arc::new(Directory { storage, metastore, lives, path, pid });
        *directory = Arc::downgrade(&opened);
        Ok(opened)
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
        directory.storage.close()
    }
}

/// One name for one directory, also for one that is yet to be made.
fn canonical(dir: &Path) -> PathBuf {
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
