//! Reading: a range, one entry, or the log as it goes on.

use std::time::Duration;

use virtuallog_bindings as facade;
use virtuallog_bindings::{LogPos, Start, Timeout};

use crate::call::{Call, Cross, answer};
use crate::error::guarded;
use crate::given;
use crate::handles::{self, Held};
use crate::log::{each_wait, log};
use crate::types::*;

/// What the program holds as a `vlog_reader`.
pub struct Reader {
    reader: facade::Reader,
    /// The deadline of a wait that names none.
    timeout: Option<Duration>,
}

impl Held for Reader {
    fn name() -> &'static str {
        "reader"
    }

    fn freed(&self) {
        self.reader.close();
    }
}

impl Cross for Reader {
    type C = vlog_reader;

    fn cross(self) -> vlog_reader {
        handles::insert(self)
    }

    fn value(crossed: &vlog_reader) -> u64 {
        *crossed
    }
}

/// Reads the entries from `start` up to, not including, `end`; `VLOG_TAIL`: up to the tail as checked now.
/// `vlog_free` the reader. The deadline bounds this call and then, unless that has its own, each
/// `vlog_reader_next`. A trimmed start is `VLOG_TRIMMED`, here or at the first batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_read(
    log: vlog_log,
    start: u64,
    end: u64,
    call: *const vlog_call,
    reader: *mut vlog_reader,
    error: *mut vlog_error,
) -> vlog_status {
    let begin = |call: &Call| {
        let log = self::log(log)?;
        let timeout = each_wait(&log, call.timeout);
        let op = log.read(start, given::end(end), call.timeout);
        Ok(op.map(move |reader| Reader { reader, timeout }))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, reader, error, begin) }
}

/// The first entry at or after `start` and below `end` (`VLOG_TAIL`: the tail as checked now), as a batch
/// of one entry, or of none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_read_next(
    log: vlog_log,
    start: u64,
    end: u64,
    call: *const vlog_call,
    entry: *mut vlog_batch,
    error: *mut vlog_error,
) -> vlog_status {
    let begin = |call: &Call| Ok(self::log(log)?.read_next(start, given::end(end), call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, entry, error, begin) }
}

/// Follows the log from `start`: a position, `VLOG_FIRST` or `VLOG_TAIL`. `vlog_free` the reader. The
/// deadline bounds this call alone: a `vlog_reader_next` without one of its own waits for as long as it
/// takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_subscribe(
    log: vlog_log,
    start: u64,
    call: *const vlog_call,
    reader: *mut vlog_reader,
    error: *mut vlog_error,
) -> vlog_status {
    let begin = |call: &Call| {
        let start = match start {
            VLOG_FIRST => Start::First,
            VLOG_TAIL => Start::Tail,
            position => Start::At(LogPos(position)),
        };
        let op = self::log(log)?.subscribe(start, call.timeout);
        Ok(op.map(|reader| Reader { reader, timeout: None }))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, reader, error, begin) }
}

/// The next entries: at least one, at most `entries_max`, waiting for the first. An empty batch is the end:
/// that of the range, or that of a log that was ended for good.
///
/// Nothing is copied: the entries lie where they were read to, until the batch is freed. One call at a time;
/// a second one beside it is `VLOG_INVALID`. `VLOG_DEADLINE` loses nothing: go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_reader_next(
    reader: vlog_reader,
    entries_max: usize,
    call: *const vlog_call,
    batch: *mut vlog_batch,
    error: *mut vlog_error,
) -> vlog_status {
    let begin = |call: &Call| {
        let reader = handles::get::<Reader>(reader)?;
        let timeout = match call.timeout {
            Timeout::Default => reader.timeout,
            Timeout::Never => None,
            Timeout::After(timeout) => Some(timeout),
        };
        Ok(reader.reader.next_batch(entries_max, timeout))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, batch, error, begin) }
}

/// The next position to deliver: what to save in order to resume.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_reader_position(
    reader: vlog_reader,
    position: *mut u64,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if position.is_null() {
            return Err(given::null("position"));
        }
        let at = handles::get::<Reader>(reader)?.reader.position()?;
        // SAFETY: it is not null.
        unsafe { position.write(at) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// Ends it: a call that waits says `VLOG_CLOSED`, and so do later ones. Again: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_reader_close(reader: vlog_reader) {
    if let Ok(reader) = handles::get::<Reader>(reader) {
        reader.reader.close();
    }
}
