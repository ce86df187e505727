//! Arguments, strictly: a wrong type is a `TypeError`, a wrong value `InvalidError`, and both say
//! what to write instead.

use std::time::Duration;

use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyMemoryView, PyString};
use virtuallog_bindings::Timeout;

use crate::errors::invalid;

/// An entry's payload, copied: the caller may change its buffer as soon as the call is back.
pub(crate) fn payload(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    if object.is_instance_of::<PyString>() {
        let hint = "a payload is bytes, not str: append text.encode()";
        return Err(PyTypeError::new_err(hint));
    }
    if let Ok(buffer) = PyBuffer::<u8>::get(object) {
        return Ok(Bytes::from(buffer.to_vec(object.py())?));
    }
    // Of elements other than bytes: what they are in memory, in order.
    let view = PyMemoryView::from(object).map_err(|error| {
        // Such as a memoryview that was released.
        if !error.is_instance_of::<PyTypeError>(object.py()) {
            return error;
        }
        let class = object.get_type();
        PyTypeError::new_err(format!(
            "a payload is bytes or another buffer, such as a bytearray, not {}",
            class.name().map_or_else(|_| "that".into(), |name| name.to_string())
        ))
    })?;
    let bytes = view.call_method0("tobytes")?;
    Ok(Bytes::copy_from_slice(bytes.cast::<PyBytes>()?.as_bytes()))
}

/// The payloads of one batch, copied into one piece of memory.
pub(crate) fn payloads(objects: &Bound<'_, PyAny>) -> PyResult<Vec<Bytes>> {
    if objects.is_instance_of::<PyString>() || objects.is_instance_of::<PyBytes>() {
        let hint = "append_many takes an iterable of payloads: for a single one use append";
        return Err(PyTypeError::new_err(hint));
    }
    let mut memory = Vec::new();
    let mut ends = Vec::with_capacity(objects.len().unwrap_or(0));
    for object in objects.try_iter()? {
        let object = object?;
        match object.cast::<PyBytes>() {
            Ok(bytes) => memory.extend_from_slice(bytes.as_bytes()),
            Err(_) => memory.extend_from_slice(&payload(&object)?),
        }
        ends.push(memory.len());
    }
    let mut memory = Bytes::from(memory);
    let mut start = 0;
    let cut = |end: usize| {
        let piece = memory.split_to(end - start);
        start = end;
        piece
    };
    Ok(ends.into_iter().map(cut).collect())
}

/// A position: an `int` from 0 to 2^64 - 1.
pub(crate) fn position(object: &Bound<'_, PyAny>) -> PyResult<u64> {
    whole(object, "a position")
}

/// A number that counts something.
pub(crate) fn whole(object: &Bound<'_, PyAny>, what: &str) -> PyResult<u64> {
    let wrong_type = || {
        let class = object.get_type();
        let name = class.name().map_or_else(|_| "that".into(), |name| name.to_string());
        PyTypeError::new_err(format!("{what} is an int, not {name}"))
    };
    if object.is_instance_of::<PyBool>() {
        return Err(wrong_type());
    }
    object.extract::<u64>().map_err(|error| {
        if error.is_instance_of::<PyTypeError>(object.py()) {
            return wrong_type();
        }
        let py = object.py();
        invalid(py, format!("{what} is a number from 0 to 2^64 - 1: got {object}"))
    })
}

/// `whole`, where `None` means none.
pub(crate) fn maybe_whole(object: Option<&Bound<'_, PyAny>>, what: &str) -> PyResult<Option<u64>> {
    object.map(|object| whole(object, what)).transpose()
}

/// Seconds: `...` is the handle's own timeout, `None` none.
pub(crate) fn timeout(object: &Bound<'_, PyAny>) -> PyResult<Timeout> {
    let py = object.py();
    if object.is(py.Ellipsis()) {
        return Ok(Timeout::Default);
    }
    if object.is_none() {
        return Ok(Timeout::Never);
    }
    if object.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err("a timeout is a number of seconds, not bool"));
    }
    let seconds: f64 = object
        .extract()
        .map_err(|_| PyTypeError::new_err("a timeout is a number of seconds, or None for none"))?;
    if seconds == f64::INFINITY {
        return Ok(Timeout::Never);
    }
    Duration::try_from_secs_f64(seconds).map(Timeout::After).map_err(|_| {
        invalid(py, format!("a timeout is a number of seconds from 0 on: got {seconds}"))
    })
}
