//! How a failure crosses: a status, and a `vlog_error` where the program wants to know more.

use std::ffi::{CString, c_char};
use std::ptr;

use virtuallog_bindings::{Error, ErrorCode, Result, panic_guard};

use crate::results::{Memory, c_string};
use crate::types::vlog_error;
use crate::types::vlog_status::{self, *};

impl vlog_error {
    pub(crate) const NONE: vlog_error = vlog_error {
        owner: 0,
        status: VLOG_OK,
        retryable: false,
        in_doubt: false,
        has_position: false,
        position: 0,
        message: ptr::null(),
        token: ptr::null(),
        causes: ptr::null(),
    };
}

/// Runs the body of a function. Nothing leaves it but a status: no error, no panic.
///
/// # Safety
/// `error` is null or leads to a `vlog_error`.
pub unsafe fn guarded(error: *mut vlog_error, body: impl FnOnce() -> Result<()>) -> vlog_status {
    let outcome = panic_guard(body);
    let status = outcome.as_ref().map_or_else(|error| status(error.code), |()| VLOG_OK);
    if !error.is_null() {
        let told = match outcome {
            Ok(()) => vlog_error::NONE,
            Err(failure) => tell(&failure),
        };
        // SAFETY: it is not null, so by the caller's word it can be written to.
        unsafe { error.write(told) };
    }
    status
}

/// The error in C's form, with an owner of its own.
pub(crate) fn tell(error: &Error) -> vlog_error {
    let message = c_string(&error.message);
    let token = error.token.as_deref().map(c_string);
    let causes = (!error.causes.is_empty()).then(|| c_string(&error.causes.join("\n")));
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    vlog_error {
        status: status(error.code),
        retryable: error.retryable,
        in_doubt: error.in_doubt,
        has_position: error.position.is_some(),
        position: error.position.unwrap_or_default(),
        message: message.as_ptr(),
        token: pointer(&token),
        causes: pointer(&causes),
        owner: Memory::keep((message, token, causes)),
    }
}

pub(crate) fn status(code: ErrorCode) -> vlog_status {
    match code {
        ErrorCode::Invalid => VLOG_INVALID,
        ErrorCode::NotFound => VLOG_NOT_FOUND,
        ErrorCode::Locked => VLOG_LOCKED,
        ErrorCode::TooLarge => VLOG_TOO_LARGE,
        ErrorCode::Trimmed => VLOG_TRIMMED,
        ErrorCode::Sealed => VLOG_SEALED,
        ErrorCode::Conflict => VLOG_CONFLICT,
        ErrorCode::Busy => VLOG_BUSY,
        ErrorCode::Unavailable => VLOG_UNAVAILABLE,
        ErrorCode::Deadline => VLOG_DEADLINE,
        ErrorCode::Corrupt => VLOG_CORRUPT,
        ErrorCode::DiskFull => VLOG_DISK_FULL,
        ErrorCode::Incompatible => VLOG_INCOMPATIBLE,
        ErrorCode::DataLoss => VLOG_DATA_LOSS,
        ErrorCode::Closed => VLOG_CLOSED,
        // Also for a code that is newer than this file; a test compares both with `errors.toml`.
        _ => VLOG_INTERNAL,
    }
}

/// The name of a status as all languages write it, such as `NOT_FOUND`; `OK` for `VLOG_OK`, and NULL for
/// a number that is none. Lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_status_name(status: i32) -> *const c_char {
    const NAMES: [&std::ffi::CStr; 17] = [
        c"OK",
        c"INVALID",
        c"NOT_FOUND",
        c"LOCKED",
        c"TOO_LARGE",
        c"TRIMMED",
        c"SEALED",
        c"CONFLICT",
        c"BUSY",
        c"UNAVAILABLE",
        c"DEADLINE",
        c"CORRUPT",
        c"DISK_FULL",
        c"INCOMPATIBLE",
        c"DATA_LOSS",
        c"CLOSED",
        c"INTERNAL",
    ];
    let name = usize::try_from(status).ok().and_then(|status| NAMES.get(status));
    name.map_or(ptr::null(), |name| name.as_ptr())
}
