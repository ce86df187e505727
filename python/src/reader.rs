//! A reader or a subscription, batch by batch.

use pyo3::prelude::*;
use virtuallog_bindings as facade;
use virtuallog_bindings::Timeout;

use crate::convert;
use crate::errors::exception;
use crate::op::Op;
use crate::value::Value;

/// Reads a range, or follows a log.
#[pyclass(frozen, module = "virtuallog._native")]
pub(crate) struct Reader(facade::Reader);

impl Reader {
    pub(crate) fn new(reader: facade::Reader) -> Self {
        Self(reader)
    }
}

#[pymethods]
impl Reader {
    /// The next position to deliver.
    fn position(&self, py: Python<'_>) -> PyResult<u64> {
        self.0.position().map_err(|error| exception(py, error))
    }

    /// The next entries, at most `entries_max`; an empty list is the end.
    fn next_batch(
        &self,
        entries_max: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<Op> {
        let entries_max = convert::whole(entries_max, "a batch's size")?;
        let timeout = match convert::timeout(timeout)? {
            Timeout::After(timeout) => Some(timeout),
            Timeout::Default | Timeout::Never => None,
        };
        let entries_max = usize::try_from(entries_max).unwrap_or(usize::MAX);
        Ok(Op::new(self.0.next_batch(entries_max, timeout), Value::Batch))
    }

    /// Ends it; idempotent.
    fn close(&self) {
        self.0.close();
    }
}
