//! What the library reports, on its way to whoever the package hands it to.

use napi::bindgen_prelude::Function;
use napi::{Either, Result};
use napi_derive::napi;
use virtuallog_bindings as facade;
use virtuallog_bindings::LogLevel;

use crate::queue::LoopWaker;
use crate::value::Failure;

/// What waited to be taken.
#[napi(object, object_from_js = false)]
pub struct LogBatch {
    pub records: Vec<LogRecord>,
    /// How many were dropped for want of room.
    pub dropped: f64,
}

/// One report.
#[napi(object, object_from_js = false)]
pub struct LogRecord {
    pub level: &'static str,
    pub target: String,
    pub message: String,
}

/// Turns reports on at this level; `wake` is called on the loop when there is something to take.
#[napi(catch_unwind)]
pub fn start_logs(level: String, wake: Function<'_, (), ()>) -> Result<Option<Failure>> {
    match level.parse::<LogLevel>() {
        Err(error) => Ok(Some(error.into())),
        Ok(level) => {
            facade::start_logs(level, LoopWaker::new(&wake)?);
            Ok(None)
        }
    }
}

/// Takes what waits.
#[napi(catch_unwind)]
pub fn drain_logs() -> LogBatch {
    let batch = facade::drain_logs();
    let record = |record: facade::LogRecord| LogRecord {
        level: record.level,
        target: record.target,
        message: record.message,
    };
    LogBatch {
        records: batch.records.into_iter().map(record).collect(),
        dropped: batch.dropped as f64,
    }
}

/// The level that the environment names, if it does.
#[napi(catch_unwind)]
pub fn log_level() -> Either<Option<String>, Failure> {
    match LogLevel::from_env() {
        Ok(level) => Either::A(level.map(LogLevel::name)),
        Err(error) => Either::B(error.into()),
    }
}
