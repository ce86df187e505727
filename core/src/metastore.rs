//! What a MetaStore is: one versioned register for each log, with a conditional write (paper §3.2).
//!
//! It is the only consensus that the whole system needs, and it may be slow: nobody asks it on the
//! append or read path, only on open, after a seal, and to reconfigure.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::error::{BoxError, Error};

/// How often a register was written. The first write gives 1; deleting counts too, and a register
/// that is created again goes on counting, so a version is never seen twice with different values.
pub type Version = u64;

/// A register's value and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// `None`: never written (version 0), or deleted.
    pub value: Option<Bytes>,
    /// Its version.
    pub version: Version,
}

/// Exactly what callers of a MetaStore branch on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MetaError {
    /// The register had another version: nothing was written.
    #[error("register is at version {}", current.version)]
    Conflict {
        /// What it holds.
        current: Versioned,
    },
    /// Surely not written: the error says why.
    #[error("{0}")]
    Refused(Error),
    /// It cannot be reached. A write may or may not have happened: read again before deciding.
    #[error("unavailable: {0}")]
    Unavailable(BoxError),
    /// Stored bytes fail their checks.
    #[error("corrupt: {0}")]
    Corrupt(String),
}

/// Linearizable, durable registers by name.
#[async_trait]
pub trait MetaStore: Send + Sync + fmt::Debug {
    /// The newest value. A register that was never written is at version 0 without a value.
    async fn get(&self, name: &str) -> Result<Versioned, MetaError>;

    /// Writes `value` (`None` deletes) if the register is at `expected`, and returns the new version,
    /// which is `expected + 1`. Durable before it returns.
    async fn put_if(
        &self,
        name: &str,
        value: Option<Bytes>,
        expected: Version,
    ) -> Result<Version, MetaError>;

    /// Waits until the register is beyond version `after`, then gives the newest value: versions
    /// in between may be skipped. Dropping the future is free of consequence.
    async fn watch(&self, name: &str, after: Version) -> Result<Versioned, MetaError>;

    /// The names that have a value, sorted.
    async fn list(&self) -> Result<Vec<String>, MetaError>;
}
