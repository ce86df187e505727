//! What can go wrong in a store: the few cases that callers branch on, and the words for the rest.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error as ThisError;
use virtuallog_protocol::{LogletId, LogletPos};

use super::disk::is_full;
use crate::error::{Error, ErrorCode};

/// Exactly what callers of a store branch on.
#[derive(Clone, Debug, ThisError)]
#[non_exhaustive]
pub enum StorageError {
    /// The loglet is sealed; the batch is surely not stored.
    #[error("loglet is sealed")]
    Sealed,
    /// The store holds no such loglet: it was never created, or it was retired.
    #[error("unknown loglet {0}")]
    Unknown(LogletId),
    /// The position was trimmed away.
    #[error("trimmed: first kept position is {first_kept}")]
    Trimmed {
        /// The first position that can still be read.
        first_kept: LogletPos,
    },
    /// A batch of this writer is missing before this one; surely not stored.
    #[error("out of order: writer's next sequence number here is {expected}")]
    OutOfOrder {
        /// The sequence number that would be taken.
        expected: u64,
    },
    /// The position that was asked for is taken; surely not stored.
    #[error("position is taken: the tail is {tail}")]
    Position {
        /// The lowest position that can be asked for.
        tail: LogletPos,
    },
    /// What comes before the batch is missing here and not known to be elsewhere; surely not stored.
    #[error("gap: the tail is {tail}")]
    Gap {
        /// A tail that the loglet surely has: send again from there.
        tail: LogletPos,
    },
    /// The batch overlaps what is stored and is not a part of it, so there are two sequencers, or
    /// one that forgot; surely not stored.
    #[error("conflict with what is stored: the tail is {tail}")]
    Conflict {
        /// A tail that the loglet surely has.
        tail: LogletPos,
    },
    /// Only a sealed loglet is repaired; surely not stored.
    #[error("loglet is not sealed: seal it before it is repaired")]
    NotSealed,
    /// The loglet is there with another base.
    #[error("loglet exists with base {base}")]
    Exists {
        /// The base that it has.
        base: LogletPos,
    },
    /// The identity was retired and is never given out again.
    #[error(
        "retired: of this log's loglets below segment {bound} only those that its chain names are made"
    )]
    Retired {
        /// The lowest segment index from which on any can still be created.
        bound: u32,
    },
    /// No room; the batch is surely not stored, and nothing else was harmed.
    #[error("{0}")]
    DiskFull(Error),
    /// The write began and its outcome is not known.
    #[error("{0}")]
    InDoubt(Error),
    /// The store failed earlier and does nothing any more until it is opened again.
    #[error("{0}")]
    Poisoned(Error),
    /// The store cannot answer; nothing is known to be wrong with what it holds.
    #[error("{0}")]
    Unavailable(Error),
    /// Stored bytes fail their checks. They are neither served nor cut.
    #[error("{0}")]
    Corrupt(String),
}

impl StorageError {
    /// An I/O error that harmed nothing.
    pub(crate) fn io(what: &str, path: &Path, error: io::Error) -> Self {
        let full = is_full(&error);
        let error = io_error(what, path, error);
        if full { Self::DiskFull(error) } else { Self::Unavailable(error) }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Error {
        use StorageError::{Corrupt, DiskFull, InDoubt, Poisoned, Unavailable};
        match error {
            DiskFull(e) | InDoubt(e) | Poisoned(e) | Unavailable(e) => e,
            Corrupt(message) => Error::new(ErrorCode::Corrupt, message),
            StorageError::Sealed => Error::new(ErrorCode::Sealed, "loglet is sealed"),
            StorageError::Unknown(_) => Error::new(ErrorCode::NotFound, error.to_string()),
            StorageError::Trimmed { .. } => Error::new(ErrorCode::Trimmed, error.to_string()),
            other => Error::new(ErrorCode::Conflict, other.to_string()),
        }
    }
}

/// Puts an I/O error into a sentence that names the file and says what to do.
pub(crate) fn io_error(what: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    let (code, advice) = match error.kind() {
        _ if is_full(&error) => (ErrorCode::DiskFull, "trim the log or make room"),
        NotFound => (ErrorCode::NotFound, "create it, or correct the path"),
        PermissionDenied | ReadOnlyFilesystem => {
            (ErrorCode::Invalid, "let this process read and write there, or open with `mode=read`")
        }
        _ => (ErrorCode::Unavailable, "look at the disk and the system's log, then try again"),
    };
    let message = format!("cannot {what} `{}`: {error}; {advice}", path.display());
    Error::new(code, message).with_source(error)
}

/// Remembers the first failed sync. After it nothing that the store wrote can be trusted to be on
/// the disk, and asking the disk again may be answered with a lie, so everything stops here.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    set: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Poison {
    /// Fails when something failed before.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        match self.set.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(StorageError::Poisoned(self.error().expect("set after the error"))),
        }
    }

    /// What failed, if anything did.
    pub(crate) fn error(&self) -> Option<Error> {
        self.error.lock().expect("no panic under this lock").clone()
    }

    /// Stops the store. The first failure is the one that is told.
    pub(crate) fn set(&self, what: &str, path: &Path, error: io::Error) -> Error {
        self.stop(|| {
            let message = format!(
                "a sync failed: cannot {what} `{}`: {error}; close and reopen the store",
                path.display()
            );
            Error::new(ErrorCode::Unavailable, message).with_source(error)
        })
    }

    /// Stops the store after a panic: what it has in memory may be half of something.
    pub(crate) fn panicked(&self) -> Error {
        self.stop(|| {
            let message = "a thread of the store panicked: close and reopen the store, and report \
                           what it wrote to the standard error stream";
            Error::new(ErrorCode::Unavailable, message)
        })
    }

    fn stop(&self, error: impl FnOnce() -> Error) -> Error {
        let mut kept = self.error.lock().expect("no panic under this lock");
        let told = kept.get_or_insert_with(|| {
            let error = error();
            tracing::error!("{}", error.message());
            error
        });
        let told = told.clone();
        self.set.store(true, Ordering::Release);
        told
    }
}
