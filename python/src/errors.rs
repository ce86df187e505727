//! The facade's error as the exception class of its code.
//!
//! The classes are Python (`errors.py`): with the stable ABI a native class could neither derive
//! from an exception nor carry fields.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use virtuallog_bindings::Error;

/// The exception for an error.
pub(crate) fn exception(py: Python<'_>, error: Error) -> PyErr {
    match make(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        Err(other) => other,
    }
}

/// The exception, not raised.
fn make(py: Python<'_>, error: Error) -> PyResult<Bound<'_, PyAny>> {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let make = MAKE.get_or_try_init(py, || {
        py.import("virtuallog.errors")?.getattr("_from_native").map(Bound::unbind)
    })?;
    make.bind(py).call1((
        error.code.name(),
        error.message,
        error.retryable,
        error.in_doubt,
        error.position,
        error.token,
        PyTuple::new(py, error.causes)?,
    ))
}

/// `INVALID`, for an argument of the right type and a wrong value.
pub(crate) fn invalid(py: Python<'_>, message: impl Into<String>) -> PyErr {
    exception(py, Error::invalid(message))
}
