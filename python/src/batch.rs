//! Entries that were read together, made Python objects when somebody looks.
//!
//! Rust reads far more entries a second than Python can make objects, and a program that only counts,
//! forwards or wants the bare payloads should not pay for them.

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyList, PySlice};
use virtuallog_bindings as facade;

use crate::entry::Entry;

/// Consecutive entries of a log: a sequence of `Entry`, immutable, equal to a list of the same entries.
///
/// An entry is made when it is looked at, each time. A batch keeps what was read with it in memory, some
/// megabytes at most; an entry keeps only itself.
#[pyclass(frozen, sequence, module = "virtuallog")]
pub(crate) struct Batch {
    entries: facade::Batch,
}

impl Batch {
    pub(crate) fn new(entries: facade::Batch) -> Self {
        Self { entries }
    }

    fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let entry = |entry: &facade::Entry| Bound::new(py, Entry::from_core(py, entry.clone()));
        let entries: Vec<_> = self.entries.iter().map(entry).collect::<PyResult<_>>()?;
        PyList::new(py, entries)
    }
}

#[pymethods]
impl Batch {
    /// The payloads alone, in order: a list of bytes. Faster than asking entry by entry.
    fn payloads<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.entries.iter().map(|entry| PyBytes::new(py, &entry.payload)))
    }

    fn __len__(&self) -> usize {
        self.entries.len()
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        at: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let len = self.entries.len();
        let Ok(slice) = at.cast::<PySlice>() else {
            let at: isize = at.extract()?;
            let at = if at < 0 { at + len as isize } else { at };
            let entry = usize::try_from(at).ok().and_then(|at| self.entries.get(at));
            let entry = entry.ok_or_else(|| PyIndexError::new_err("batch index out of range"))?;
            return Ok(Bound::new(py, Entry::from_core(py, entry.clone()))?.into_any());
        };
        let slice_of = slice.indices(len as isize)?;
        if slice_of.step != 1 {
            return self.list(py)?.as_any().get_item(slice);
        }
        let start = slice_of.start.unsigned_abs();
        let entries = self.entries.slice(start..start + slice_of.slicelength);
        Ok(Bound::new(py, Self { entries })?.into_any())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.list(py)?.try_iter()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = other.py();
        match other.cast::<Self>() {
            Ok(other) => Ok(self.entries[..] == other.get().entries[..]),
            Err(_) => self.list(py)?.eq(other),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Batch({})", self.list(py)?.repr()?))
    }
}
