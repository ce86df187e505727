//! What a program gives: pointers, looked at once, checked and copied at the border.
//!
//! A null pointer where something is needed is `INVALID` and names the argument. What cannot be checked,
//! that a pointer leads to as much memory as the caller says, is the caller's word.

use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use virtuallog_bindings::{Error, Result, Timeout};

use crate::types::{VLOG_FOREVER, VLOG_LAST_SEEN, VLOG_TAIL, vlog_slice};

/// Text that has to be there.
///
/// # Errors
/// `INVALID` where it is null or not UTF-8.
///
/// # Safety
/// `text` is null or a C string.
pub unsafe fn text(text: *const c_char, what: &str) -> Result<String> {
    // SAFETY: the caller's word.
    unsafe { maybe_text(text, what) }?.ok_or_else(|| null(what))
}

/// Text that may be null.
///
/// # Errors
/// `INVALID` where it is not UTF-8.
///
/// # Safety
/// `text` is null or a C string.
pub unsafe fn maybe_text(text: *const c_char, what: &str) -> Result<Option<String>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not null, so by the caller's word a C string.
    let text = unsafe { CStr::from_ptr(text) }.to_str();
    match text {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(Error::invalid(format!("`{what}` is not UTF-8: encode it so"))),
    }
}

/// A path that has to be there.
///
/// # Errors
/// `INVALID` where it is null.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn path(path: *const c_char, what: &str) -> Result<PathBuf> {
    if path.is_null() {
        return Err(null(what));
    }
    // SAFETY: it is not null, so by the caller's word a C string.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// Several texts, none of them null.
///
/// # Errors
/// `INVALID` where one is null or not UTF-8.
///
/// # Safety
/// `texts` is null or leads to `len` pointers, each null or a C string.
pub unsafe fn texts(texts: *const *const c_char, len: usize, what: &str) -> Result<Vec<String>> {
    // SAFETY: the caller's word.
    let texts = unsafe { slice(texts, len, what) }?;
    // SAFETY: the caller's word.
    texts.iter().map(|one| unsafe { text(*one, what) }).collect()
}

/// A copy of bytes.
///
/// # Errors
/// `INVALID` where `data` is null and `len` is not 0.
///
/// # Safety
/// `data` is null or leads to `len` bytes.
pub unsafe fn bytes(data: *const u8, len: usize) -> Result<Bytes> {
    // SAFETY: the caller's word.
    Ok(Bytes::copy_from_slice(unsafe { slice(data, len, "data") }?))
}

/// Copies of several payloads, which share one allocation.
///
/// # Errors
/// `INVALID` where one is null and its length is not 0.
///
/// # Safety
/// `slices` is null or leads to `len` slices, each as told in `vlog_slice`.
pub unsafe fn payloads(slices: *const vlog_slice, len: usize) -> Result<Vec<Bytes>> {
    // SAFETY: the caller's word.
    let given = unsafe { slice(slices, len, "slices") }?;
    let total = given.iter().try_fold(0_usize, |sum, one| sum.checked_add(one.len));
    let total = total.filter(|total| isize::try_from(*total).is_ok()).ok_or_else(too_long)?;
    for one in given {
        // SAFETY: the caller's word; looked at before all is allocated.
        unsafe { slice(one.data, one.len, "data") }?;
    }
    let mut all = BytesMut::with_capacity(total);
    let mut payloads = Vec::with_capacity(given.len());
    for one in given {
        // SAFETY: the caller's word.
        all.extend_from_slice(unsafe { slice(one.data, one.len, "data") }?);
        payloads.push(all.split().freeze());
    }
    Ok(payloads)
}

/// A slice of what a pointer leads to.
///
/// # Errors
/// `INVALID` where it is null and `len` is not 0, or where no memory is as long.
///
/// # Safety
/// `data` is null or leads to `len` values that live and do not change for `'a`.
pub unsafe fn slice<'a, T>(data: *const T, len: usize, what: &str) -> Result<&'a [T]> {
    match (data.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(null(what)),
        (false, _) if !data.is_aligned() => {
            Err(Error::invalid(format!("`{what}` is not aligned: give a pointer to its type")))
        }
        (false, _) => match len.checked_mul(size_of::<T>()).map(isize::try_from) {
            // SAFETY: the caller's word; it is not null, and not longer than memory.
            Some(Ok(_)) => Ok(unsafe { std::slice::from_raw_parts(data, len) }),
            _ => Err(too_long()),
        },
    }
}

/// What a pointer leads to, or `None` where it is null.
///
/// # Safety
/// `value` is null or leads to a `T` that lives and does not change for `'a`.
pub unsafe fn maybe<'a, T>(value: *const T) -> Option<&'a T> {
    // SAFETY: the caller's word.
    unsafe { value.as_ref() }
}

/// A deadline in milliseconds, as `vlog_call` tells.
///
/// # Errors
/// `INVALID` for a negative one but `VLOG_FOREVER`.
pub fn timeout(timeout_ms: i64) -> Result<Timeout> {
    match u64::try_from(timeout_ms) {
        Ok(0) => Ok(Timeout::Default),
        Ok(milliseconds) => Ok(Timeout::After(Duration::from_millis(milliseconds))),
        Err(_) if timeout_ms == VLOG_FOREVER => Ok(Timeout::Never),
        Err(_) => Err(Error::invalid(format!(
            "a timeout of {timeout_ms} ms: write 1 or more, 0 for the default or VLOG_FOREVER"
        ))),
    }
}

/// The end of a read: `None` for the tail.
#[must_use]
pub fn end(end: u64) -> Option<u64> {
    (end != VLOG_TAIL).then_some(end)
}

/// The version to change the chain at: `None` for the one seen last.
#[must_use]
pub fn version(if_version: u64) -> Option<u64> {
    (if_version != VLOG_LAST_SEEN).then_some(if_version)
}

/// An argument that is null and must not be.
pub(crate) fn null(what: &str) -> Error {
    Error::invalid(format!("`{what}` is NULL: give one"))
}

fn too_long() -> Error {
    Error::invalid("longer than memory can be: give the length in bytes")
}
