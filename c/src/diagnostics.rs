//! What the library reports while it works, for the program's own logging.
//!
//! Reports wait in the library until the program takes them, with readiness on a descriptor as for a queue:
//! no thread of the library ever runs the program's code. A process has one stream of reports, so whoever
//! starts it last gets them; the one before is told that it is closed.

use std::ffi::{CString, c_char};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use virtuallog_bindings::{
    Error, ErrorCode, HostWaker, LogBatch, LogLevel, LogRecord, Result, SocketWaker, drain_logs,
    start_logs,
};

use crate::error::guarded;
use crate::given;
use crate::handles::{self, Held};
use crate::queue::{Deadline, wait};
use crate::results::{Memory, c_string};
use crate::types::vlog_level::*;
use crate::types::*;

/// What the program holds as a `vlog_diagnostics`: its end. The other one is the library's, which lets go of
/// it when another one takes the place of this.
pub struct Diagnostics(UnixStream);

/// Of a stream of reports that is off.
struct Nobody;

impl HostWaker for Nobody {
    fn wake(&self) {}
}

impl Held for Diagnostics {
    fn name() -> &'static str {
        "diagnostics"
    }

    fn freed(&self) {
        let mut taken = std::iter::from_fn(|| self.take_bytes());
        let is_replaced = taken.any(|bytes| bytes == 0);
        if !is_replaced && let Ok(off) = "off".parse() {
            start_logs(off, Nobody);
        }
        // Whoever waits sees the end of the stream.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Diagnostics {
    fn start(level: LogLevel) -> Result<Self> {
        let (waker, socket) = SocketWaker::pair()?;
        start_logs(level, waker);
        Ok(Self(socket))
    }

    /// How many bytes were in the socket, at most some; 0 at the end of the stream, `None` where there are
    /// none yet.
    fn take_bytes(&self) -> Option<usize> {
        (&self.0).read(&mut [0; 16]).ok()
    }

    /// What waits; empty when the time is over first.
    fn next(&self, deadline: Deadline) -> Result<LogBatch> {
        loop {
            // The bytes first: what is reported from here on writes another.
            if self.take_bytes() == Some(0) {
                let message = "these diagnostics were freed, or others were started: take those";
                return Err(Error::new(ErrorCode::Closed, message));
            }
            let batch = drain_logs();
            if !batch.records.is_empty() || batch.dropped > 0 || deadline.is_over() {
                return Ok(batch);
            }
            wait(&self.0, deadline)?;
        }
    }
}

/// Memory is kept for as long as the batch: the texts, then what points to them.
fn cross(batch: LogBatch) -> vlog_diagnostic_batch {
    if batch.records.is_empty() {
        let (owner, records) = (0, std::ptr::null());
        return vlog_diagnostic_batch { owner, records, len: 0, dropped: batch.dropped };
    }
    let texts: Vec<(CString, CString)> =
        batch.records.iter().map(|r| (c_string(&r.target), c_string(&r.message))).collect();
    let record = |(told, (target, message)): (&LogRecord, &(CString, CString))| vlog_diagnostic {
        level: level(told.level),
        target: target.as_ptr(),
        message: message.as_ptr(),
    };
    let records: Vec<_> = batch.records.iter().zip(&texts).map(record).collect();
    vlog_diagnostic_batch {
        records: records.as_ptr(),
        len: records.len(),
        dropped: batch.dropped,
        owner: Memory::keep((records, texts)),
    }
}

fn level(name: &str) -> vlog_level {
    match name {
        "error" => VLOG_LEVEL_ERROR,
        "warn" => VLOG_LEVEL_WARN,
        "info" => VLOG_LEVEL_INFO,
        "debug" => VLOG_LEVEL_DEBUG,
        _ => VLOG_LEVEL_TRACE,
    }
}

/// Has the library report what it does, from `level` ("error", "warn", "info", "debug", "trace" or "off") on;
/// NULL: from the one that the variable `VIRTUALLOG_LOG` names, "off" where it is not set. It reports nothing
/// unless this is called. `vlog_free` it, which turns the reports off.
///
/// Again: the level takes the place of the one before, and so does the handle, which is `VLOG_CLOSED` then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_diagnostics_start(
    level: *const c_char,
    diagnostics: *mut vlog_diagnostics,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if diagnostics.is_null() {
            return Err(given::null("diagnostics"));
        }
        // SAFETY: the caller's word.
        let level = match unsafe { given::maybe_text(level, "level") }? {
            Some(level) => level.parse()?,
            None => LogLevel::from_env()?.map_or_else(|| "off".parse(), Ok)?,
        };
        let made = handles::insert(Diagnostics::start(level)?);
        // SAFETY: it is not null.
        unsafe { diagnostics.write(made) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// The descriptor that can be read while there may be reports to take; -1 for a dead handle. Only to be
/// watched, and taken out of the loop before the handle is freed.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_diagnostics_fd(diagnostics: vlog_diagnostics) -> i32 {
    handles::get::<Diagnostics>(diagnostics).map_or(-1, |told| told.0.as_raw_fd())
}

/// Takes the reports that wait, into `batch`, and waits `timeout_ms` for the first one: 0 does not wait,
/// `VLOG_FOREVER` has no deadline. That time ran out is `VLOG_OK` with a `len` of 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_diagnostics_next(
    diagnostics: vlog_diagnostics,
    timeout_ms: i64,
    batch: *mut vlog_diagnostic_batch,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if batch.is_null() {
            return Err(given::null("batch"));
        }
        let deadline = Deadline::after(timeout_ms)?;
        let taken = handles::get::<Diagnostics>(diagnostics)?.next(deadline)?;
        // SAFETY: it is not null.
        unsafe { batch.write(cross(taken)) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}
