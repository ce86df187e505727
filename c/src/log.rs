//! A log's operations, but for appends and readers, and the functions on stores.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use virtuallog_bindings as facade;
use virtuallog_bindings::{Mode, Options, Result, Timeout};

use crate::call::{Call, Cross, answer};
use crate::given;
use crate::handles::{self, Held};
use crate::results::c_string;
use crate::types::*;

/// What the program holds as a `vlog_log`.
pub struct Log {
    log: facade::Log,
    name: CString,
}

impl Held for Log {
    fn name() -> &'static str {
        "log"
    }
}

impl Cross for Log {
    type C = vlog_log;

    fn cross(self) -> vlog_log {
        handles::insert(self)
    }

    fn value(crossed: &vlog_log) -> u64 {
        *crossed
    }
}

impl std::ops::Deref for Log {
    type Target = facade::Log;

    fn deref(&self) -> &facade::Log {
        &self.log
    }
}

/// The log of this handle.
pub(crate) fn log(handle: vlog_log) -> Result<Arc<Log>> {
    handles::get(handle)
}

/// The library's version, such as `0.1.0`: that of the header is `VLOG_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Frees a handle, or what a result points to, by its `owner`. 0, and what was freed before, is let be.
///
/// A log that is freed and not closed goes on with what was submitted, and nobody hears of failures.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_free(handle: u64) {
    // What ends here may panic only by a bug, which nobody can be told of.
    let _ = facade::panic_guard(|| {
        handles::remove(handle);
        Ok(())
    });
}

/// Creates the log that `url` names; `VLOG_CONFLICT` if there is one. `loglet`: what its first segment is
/// kept in; NULL for the store's default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_create(
    url: *const c_char,
    loglet: *const c_char,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    // SAFETY: the caller's word, here and in what follows.
    let start = |call: &Call| unsafe {
        let loglet = given::maybe_text(loglet, "loglet")?;
        Ok(facade::create(&given::text(url, "url")?, loglet, call.timeout))
    };
    unsafe { answer(call, ptr::null_mut(), error, start) }
}

/// Deletes a log and all its entries; `VLOG_NOT_FOUND` if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_delete(
    url: *const c_char,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    // SAFETY: the caller's word.
    let start =
        |call: &Call| Ok(facade::delete(&unsafe { given::text(url, "url") }?, call.timeout));
    unsafe { answer(call, ptr::null_mut(), error, start) }
}

/// The names of the logs in a store: a URL that ends in `/`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_logs(
    url: *const c_char,
    call: *const vlog_call,
    names: *mut vlog_names,
    error: *mut vlog_error,
) -> vlog_status {
    // SAFETY: the caller's word.
    let start = |call: &Call| Ok(facade::logs(&unsafe { given::text(url, "url") }?, call.timeout));
    unsafe { answer(call, names, error, start) }
}

/// Options, read from what C gave.
///
/// # Safety
/// `options` is null or leads to a `vlog_options`.
unsafe fn options(options: *const vlog_options) -> Result<Options> {
    // SAFETY: the caller's word, here and below.
    let Some(options) = (unsafe { given::maybe(options) }) else { return Ok(Options::default()) };
    let size = |bytes: usize| (bytes != 0).then_some(bytes);
    Ok(Options {
        create: options.no_create.then_some(false),
        mode: options.read_only.then_some(Mode::Read),
        loglet: unsafe { given::maybe_text(options.loglet, "loglet") }?,
        timeout: given::timeout(options.timeout_ms)?,
        entry_bytes_max: size(options.entry_bytes_max),
        in_flight_bytes_max: size(options.in_flight_bytes_max),
    })
}

/// Opens the log that `url` names, and creates it if it is missing. `vlog_close` it, then `vlog_free` it.
///
/// `memory:NAME` is in this process and gone with it, `file:DIR/NAME` on this disk,
/// `virtuallog://HOST:PORT,HOST:PORT/NAME` on the cluster that any of these nodes belongs to. What is not
/// given in `options` is taken from the URL's parameters. The deadline is that of `options`: the one of
/// `call` is not looked at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_open(
    url: *const c_char,
    options: *const vlog_options,
    call: *const vlog_call,
    log: *mut vlog_log,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |_: &Call| {
        // SAFETY: the caller's word.
        let options = unsafe { self::options(options) }?;
        // SAFETY: the caller's word.
        let url = unsafe { given::text(url, "url") }?;
        let named = |log: facade::Log| Log { name: c_string(log.name()), log };
        Ok(facade::Log::open(&url, options).map(named))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, log, error, start) }
}

/// Flushes and gives the log's resources back; later calls say `VLOG_CLOSED`. Fails with the first failure
/// of an append that nobody saw. Again: nothing happens. When time runs out, closing goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_close(
    log: vlog_log,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(self::log(log)?.close(call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, ptr::null_mut(), error, start) }
}

/// The log's name: the last part of its URL. Lives as long as the handle; NULL for a dead one.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_log_name(log: vlog_log) -> *const c_char {
    self::log(log).map_or(ptr::null(), |log| log.name.as_ptr())
}

/// The deadline of calls that name none, in milliseconds; `VLOG_FOREVER`: none; 0 for a dead handle.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_log_timeout_ms(log: vlog_log) -> i64 {
    self::log(log).map_or(0, |log| match log.timeout() {
        None => VLOG_FOREVER,
        Some(timeout) => timeout.as_millis().try_into().unwrap_or(i64::MAX),
    })
}

/// Waits for all that was submitted so far; fails with the first failure that nobody saw.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_flush(
    log: vlog_log,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(self::log(log)?.flush(call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, ptr::null_mut(), error, start) }
}

/// Where the log ends. Linearizable for the owner of the log's store.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_check_tail(
    log: vlog_log,
    call: *const vlog_call,
    tail: *mut vlog_tail,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(self::log(log)?.check_tail(call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, tail, error, start) }
}

/// The first position that was not trimmed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_first(
    log: vlog_log,
    call: *const vlog_call,
    position: *mut u64,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(self::log(log)?.first(call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, position, error, start) }
}

/// Gives up every entry below `keep_from`: reading there is `VLOG_TRIMMED` from then on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_prefix_trim(
    log: vlog_log,
    keep_from: u64,
    call: *const vlog_call,
    trimmed: *mut vlog_trimmed,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(self::log(log)?.prefix_trim(keep_from, call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, trimmed, error, start) }
}

/// Ends the log for good and gives the final tail: later appends are `VLOG_SEALED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_seal(
    log: vlog_log,
    call: *const vlog_call,
    tail: *mut vlog_tail,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(self::log(log)?.seal(call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, tail, error, start) }
}

/// The newest chain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_get_chain(
    log: vlog_log,
    call: *const vlog_call,
    chain: *mut vlog_chain,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(self::log(log)?.chain(call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, chain, error, start) }
}

/// Seals the active loglet and goes on in a new one, for example `local`. Appends under way are carried
/// over, none twice.
///
/// `VLOG_CONFLICT` where the chain is at another version than `if_version`. When time runs out the
/// reconfiguration may still complete: look at the chain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_reconfig_extend(
    log: vlog_log,
    loglet: *const c_char,
    if_version: u64,
    call: *const vlog_call,
    chain: *mut vlog_chain,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| {
        // SAFETY: the caller's word.
        let loglet = unsafe { given::text(loglet, "loglet") }?;
        Ok(self::log(log)?.reconfig_extend(loglet, given::version(if_version), call.timeout))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, chain, error, start) }
}

/// Drops the leading segments that were trimmed whole from the chain; gives it as it is when there are none.
/// `VLOG_CONFLICT` where the chain is at another version than `if_version`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_reconfig_truncate(
    log: vlog_log,
    if_version: u64,
    call: *const vlog_call,
    chain: *mut vlog_chain,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| {
        Ok(self::log(log)?.reconfig_truncate(given::version(if_version), call.timeout))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, chain, error, start) }
}

/// Moves the sealed segment of this index into another loglet, by copying it. Has no deadline unless `call`
/// gives one; when that passes the move may still complete: look at the chain.
///
/// `VLOG_INVALID` when no sealed segment has the index, or for a loglet that this store cannot have;
/// `VLOG_CONFLICT` as `vlog_reconfig_extend`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_reconfig_modify(
    log: vlog_log,
    segment: u32,
    loglet: *const c_char,
    if_version: u64,
    call: *const vlog_call,
    chain: *mut vlog_chain,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| {
        // SAFETY: the caller's word.
        let loglet = unsafe { given::text(loglet, "loglet") }?;
        let if_version = given::version(if_version);
        Ok(self::log(log)?.reconfig_modify(segment, loglet, if_version, call.timeout))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, chain, error, start) }
}

/// What `vlog_reconfig_extend` to `loglet` would do; does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_get_plan(
    log: vlog_log,
    loglet: *const c_char,
    call: *const vlog_call,
    plan: *mut vlog_plan,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| {
        // SAFETY: the caller's word.
        let loglet = unsafe { given::text(loglet, "loglet") }?;
        Ok(self::log(log)?.plan(loglet, call.timeout))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, plan, error, start) }
}

/// What became of an append in doubt, by its error's `token`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_resolve(
    log: vlog_log,
    token: *const c_char,
    call: *const vlog_call,
    resolved: *mut vlog_resolved,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| {
        // SAFETY: the caller's word.
        let token = unsafe { given::text(token, "token") }?;
        Ok(self::log(log)?.resolve(&token, call.timeout))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, resolved, error, start) }
}

/// Reads the whole log and checks every checksum. Has no deadline unless `call` gives one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_verify(
    log: vlog_log,
    call: *const vlog_call,
    report: *mut vlog_report,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(self::log(log)?.verify(call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, report, error, start) }
}

/// The deadline of each wait of a reader that was opened by a call with this one.
pub(crate) fn each_wait(log: &Log, timeout: Timeout) -> Option<std::time::Duration> {
    match timeout {
        Timeout::Default => log.timeout(),
        Timeout::Never => None,
        Timeout::After(timeout) => Some(timeout),
    }
}
