//! A value that belongs to the process that made it.
//!
//! After a `fork` the child has a copy of every value but none of the threads behind it. So a copy
//! is refused there (`CLOSED`), and it is never dropped there either: its destructor could wait for
//! a thread, or for a lock that some thread held at the fork. It is leaked instead, which costs the
//! child what it shares with its parent anyway.

use std::mem;

use virtuallog::ErrorCode;

use crate::error::{Error, Result};
use crate::runtime;

#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    generation: u64,
    /// `None` only while it is dropped.
    value: Option<T>,
}

impl<T> PerProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        runtime::watch_forks();
        Self { generation: runtime::generation(), value: Some(value) }
    }

    pub(crate) fn get(&self) -> Result<&T> {
        self.check()?;
        Ok(self.value.as_ref().expect("it is there until it is dropped"))
    }

    pub(crate) fn get_mut(&mut self) -> Result<&mut T> {
        self.check()?;
        Ok(self.value.as_mut().expect("it is there until it is dropped"))
    }

    pub(crate) fn into_inner(mut self) -> Result<T> {
        self.check()?;
        Ok(self.value.take().expect("it is there until it is dropped"))
    }

    fn check(&self) -> Result<()> {
        if self.generation == runtime::generation() {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::Closed,
            "this handle was made before a fork: open another in this process",
        ))
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        if self.generation != runtime::generation() {
            mem::forget(self.value.take());
        }
    }
}
