//! Appends: one, one batch, and any number through a pipeline.
//!
//! An append that waits runs on the caller's thread, which writes and syncs itself where that saves a
//! hand-over.

use bytes::Bytes;
use virtuallog_bindings as facade;
use virtuallog_bindings::Op;

use crate::call::{Call, Out, answer, settle};
use crate::error::guarded;
use crate::given;
use crate::handles::{self, Held};
use crate::log::log;
use crate::types::*;

/// What the program holds as a `vlog_pipeline`.
pub struct Pipeline(facade::Pipeline);

impl Held for Pipeline {
    fn name() -> &'static str {
        "pipeline"
    }
}

/// Appends one entry. `*position`, which may be NULL, gets its position once it is durable.
///
/// Waits its turn when the window of entries in flight is full. Where an error is `in_doubt`, the entry
/// may be in the log: `vlog_resolve` its token before appending it again. Any other error: it is surely
/// not in the log. With a queue it is submitted now, in call order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_append(
    log: vlog_log,
    data: *const u8,
    len: usize,
    call: *const vlog_call,
    position: *mut u64,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        // SAFETY: the caller's word, here and below.
        let (call, payload) = unsafe { (Call::read(call)?, given::slice(data, len, "data")?) };
        let log = self::log(log)?;
        if !call.waits() {
            return unsafe { settle(&call, log.append_slice(payload, call.timeout), position) };
        }
        let at = log.append_blocking(Bytes::copy_from_slice(payload), call.timeout)?;
        unsafe { Out::new(position).write(at) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// Appends one batch, atomically and contiguously. `*first` gets the position of its first entry.
///
/// At most 1,024 entries and 4 MiB (or one entry up to the entry limit): more is `VLOG_TOO_LARGE`, none at
/// all `VLOG_INVALID`. For any number, see `vlog_pipeline_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_append_many(
    log: vlog_log,
    slices: *const vlog_slice,
    slices_len: usize,
    call: *const vlog_call,
    first: *mut u64,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        // SAFETY: the caller's word, here and below.
        let (call, payloads) = unsafe { (Call::read(call)?, given::payloads(slices, slices_len)?) };
        let log = self::log(log)?;
        if !call.waits() {
            return unsafe { settle(&call, log.append_many(payloads, call.timeout), first) };
        }
        let at = log.append_many_blocking(payloads, call.timeout)?;
        unsafe { Out::new(first).write(at) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// As `vlog_append`, but `VLOG_BUSY` at once when the window of entries in flight is full.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_append_nowait(
    log: vlog_log,
    data: *const u8,
    len: usize,
    call: *const vlog_call,
    position: *mut u64,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| -> facade::Result<Op<u64>> {
        // SAFETY: the caller's word.
        let payload = unsafe { given::bytes(data, len) }?;
        self::log(log)?.append_nowait(payload, call.timeout)
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, position, error, start) }
}

/// Begins to append many entries one after the other, with back-pressure. `timeout_ms`, as in
/// `vlog_call`, bounds each wait for answers. `vlog_free` it.
///
/// Each entry stands for itself: an error leaves those before it in the log. For one thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_pipeline_new(
    log: vlog_log,
    timeout_ms: i64,
    pipeline: *mut vlog_pipeline,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if pipeline.is_null() {
            return Err(given::null("pipeline"));
        }
        let made = self::log(log)?.pipeline(given::timeout(timeout_ms)?)?;
        // SAFETY: it is not null.
        unsafe { pipeline.write(handles::insert(Pipeline(made))) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// Submits an entry. Waits for room when thousands are under way, and fails then with the first failed
/// append's error. What becomes of this entry, a later call tells.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_pipeline_push(
    pipeline: vlog_pipeline,
    data: *const u8,
    len: usize,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        // SAFETY: the caller's word.
        let payload = unsafe { given::bytes(data, len) }?;
        let pipeline = handles::get::<Pipeline>(pipeline)?;
        if pipeline.0.push(payload)? {
            pipeline.0.room().wait()?;
        }
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// Waits until all that was pushed is durable. Fails with the first failed append's error. More may be
/// pushed afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_pipeline_finish(
    pipeline: vlog_pipeline,
    call: *const vlog_call,
    appended: *mut vlog_appended,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |_: &Call| Ok(handles::get::<Pipeline>(pipeline)?.0.finish());
    // SAFETY: the caller's word.
    unsafe { answer(call, appended, error, start) }
}
