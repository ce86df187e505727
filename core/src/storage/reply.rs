//! Answers that reach whoever asked, whatever happens between.
//!
//! A completion is its caller's code, run on a thread that everybody shares. One that panics is
//! that caller's loss and must not be anybody else's; and one that was never called, because the
//! store itself panicked, would leave its caller waiting for ever.

use std::panic::{AssertUnwindSafe, catch_unwind};

use virtuallog_protocol::LogletPos;

use super::Done;
use super::error::StorageError;
use crate::error::{Error, ErrorCode};

/// A completion that is called exactly once: with the outcome, or else, when it is dropped, with
/// the news that there is none.
pub(crate) struct Reply(Option<Done>);

impl Reply {
    pub(crate) fn new(done: Done) -> Reply {
        Reply(Some(done))
    }

    /// Never panics.
    pub(crate) fn tell(mut self, outcome: Result<LogletPos, StorageError>) {
        self.call(outcome);
    }

    fn call(&mut self, outcome: Result<LogletPos, StorageError>) {
        let Some(done) = self.0.take() else { return };
        if catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
            tracing::error!("what was to be called with the outcome of a request panicked");
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.0.is_some() {
            let message = "the store stopped before it answered: close and reopen the store";
            let error = Error::new(ErrorCode::Unavailable, message);
            self.call(Err(StorageError::InDoubt(error)));
        }
    }
}
