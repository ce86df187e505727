//! An entry of the log, native because reading makes so many of them.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};

/// One entry of the log. Immutable; equal when position, payload and time are; can be pickled.
#[pyclass(frozen, module = "virtuallog")]
pub(crate) struct Entry {
    /// The entry's position: an int. Positions strictly increase from entry to entry and may skip.
    #[pyo3(get)]
    position: u64,
    /// What was appended: bytes.
    #[pyo3(get)]
    payload: Py<PyBytes>,
    /// The writer's clock in microseconds since 1970 (UTC).
    #[pyo3(get)]
    written_at_micros: i64,
}

impl Entry {
    pub(crate) fn from_core(py: Python<'_>, entry: &virtuallog_bindings::Entry) -> Self {
        Self {
            position: entry.position.0,
            payload: PyBytes::new(py, &entry.payload).unbind(),
            written_at_micros: entry.written_at_micros,
        }
    }
}

#[pymethods]
impl Entry {
    #[new]
    #[pyo3(signature = (position, payload, written_at_micros = 0))]
    fn new(position: u64, payload: Py<PyBytes>, written_at_micros: i64) -> Self {
        Self { position, payload, written_at_micros }
    }

    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("position", "payload")
    }

    /// The writer's clock when the entry was appended: an aware `datetime` in UTC.
    ///
    /// Information only: it is never used for order, and clocks may go back.
    #[getter]
    fn written_at<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static EPOCH_AND_DELTA: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
        let (epoch, delta) = EPOCH_AND_DELTA.get_or_try_init(py, || {
            let datetime = py.import("datetime")?;
            let utc = datetime.getattr("timezone")?.getattr("utc")?;
            let epoch = datetime.getattr("datetime")?.call_method1("fromtimestamp", (0, utc))?;
            Ok::<_, PyErr>((epoch.unbind(), datetime.getattr("timedelta")?.unbind()))
        })?;
        let since = delta.bind(py).call1((0, 0, self.written_at_micros))?;
        epoch.bind(py).call_method1("__add__", (since,))
    }

    /// The payload as text. Raises `UnicodeDecodeError` where it is not.
    #[pyo3(signature = (encoding = "utf-8"))]
    fn text<'py>(&self, py: Python<'py>, encoding: &str) -> PyResult<Bound<'py, PyAny>> {
        self.payload.bind(py).call_method1("decode", (encoding,))
    }

    /// The payload parsed as JSON. Raises `ValueError` where it is not.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let loads =
            LOADS.get_or_try_init(py, || py.import("json")?.getattr("loads").map(Bound::unbind))?;
        loads.bind(py).call1((&self.payload,))
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.payload.as_bytes(py).len()
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> bool {
        (self.position, self.written_at_micros) == (other.position, other.written_at_micros)
            && self.payload.as_bytes(py) == other.payload.as_bytes(py)
    }

    fn __hash__(&self, py: Python<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.position, self.payload.as_bytes(py)).hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        const SHOWN_MAX: usize = 64;
        let payload = self.payload.as_bytes(py);
        let shown = PyBytes::new(py, &payload[..payload.len().min(SHOWN_MAX)]).repr()?;
        let dots = if payload.len() > SHOWN_MAX { "..." } else { "" };
        Ok(format!("Entry(position={}, payload={shown}{dots})", self.position))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, (u64, Py<PyBytes>, i64)) {
        let entry = slf.get();
        let fields = (entry.position, entry.payload.clone_ref(slf.py()), entry.written_at_micros);
        (slf.get_type().into_any(), fields)
    }

    fn __copy__<'py>(slf: Bound<'py, Self>) -> Bound<'py, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyDict>) -> Bound<'py, Self> {
        slf
    }
}
