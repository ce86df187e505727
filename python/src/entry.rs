//! An entry of the log, native because reading makes so many of them.
//!
//! A small payload is made a Python object at once: that is cheaper than whatever would hold it otherwise. A
//! large one stays where it was read until somebody asks for `payload`, and a `memoryview` of the entry looks
//! at it there, without a copy.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};

/// From so many bytes on a payload stays where it was read.
const LARGE_BYTES_MIN: usize = 32 << 10;

/// One entry of the log. Immutable; equal when position, payload and time are; can be pickled.
#[pyclass(frozen, module = "virtuallog")]
pub(crate) struct Entry {
    /// The entry's position: an int. Positions strictly increase from entry to entry and may skip.
    #[pyo3(get)]
    position: u64,
    payload: Payload,
    /// The writer's clock in microseconds since 1970 (UTC).
    #[pyo3(get)]
    written_at_micros: i64,
}

enum Payload {
    Made(Py<PyBytes>),
    /// With the object that `payload` gives, once it was asked for.
    Read(Bytes, PyOnceLock<Py<PyBytes>>),
}

impl Entry {
    pub(crate) fn from_core(py: Python<'_>, entry: virtuallog_bindings::Entry) -> Self {
        let (position, written_at_micros) = (entry.position.0, entry.written_at_micros);
        let payload = match entry.payload.len() {
            ..LARGE_BYTES_MIN => Payload::Made(PyBytes::new(py, &entry.payload).unbind()),
            _ => Payload::Read(entry.payload, PyOnceLock::new()),
        };
        Self { position, payload, written_at_micros }
    }

    fn made(&self, py: Python<'_>) -> &Py<PyBytes> {
        match &self.payload {
            Payload::Made(made) => made,
            Payload::Read(bytes, made) => made.get_or_init(py, || PyBytes::new(py, bytes).unbind()),
        }
    }

    fn bytes(&self, py: Python<'_>) -> &[u8] {
        match &self.payload {
            Payload::Made(made) => made.as_bytes(py),
            Payload::Read(bytes, _) => bytes,
        }
    }
}

#[pymethods]
impl Entry {
    #[new]
    #[pyo3(signature = (position, payload, written_at_micros = 0))]
    fn new(position: u64, payload: Py<PyBytes>, written_at_micros: i64) -> Self {
        Self { position, payload: Payload::Made(payload), written_at_micros }
    }

    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("position", "payload")
    }

    /// What was appended: bytes.
    #[getter]
    fn payload(&self, py: Python<'_>) -> Py<PyBytes> {
        self.made(py).clone_ref(py)
    }

    /// `memoryview(entry)` is the payload without a copy.
    ///
    /// # Safety
    /// Python calls it, with a `view` to be filled in.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let bytes = slf.get().bytes(slf.py());
        let (start, len) = (bytes.as_ptr().cast::<c_void>().cast_mut(), bytes.len());
        let len = len.try_into().expect("no slice is longer than an isize can say");
        // SAFETY: the view keeps `slf` alive, which owns the bytes and never changes them; it is
        // filled in as one that may only be read.
        let status = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 1, flags) };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
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
        self.made(py).bind(py).call_method1("decode", (encoding,))
    }

    /// The payload parsed as JSON. Raises `ValueError` where it is not.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let loads =
            LOADS.get_or_try_init(py, || py.import("json")?.getattr("loads").map(Bound::unbind))?;
        loads.bind(py).call1((self.made(py),))
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.bytes(py).len()
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> bool {
        (self.position, self.written_at_micros) == (other.position, other.written_at_micros)
            && self.bytes(py) == other.bytes(py)
    }

    fn __hash__(&self, py: Python<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.position, self.bytes(py)).hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        const SHOWN_MAX: usize = 64;
        let payload = self.bytes(py);
        let shown = PyBytes::new(py, &payload[..payload.len().min(SHOWN_MAX)]).repr()?;
        let dots = if payload.len() > SHOWN_MAX { "..." } else { "" };
        Ok(format!("Entry(position={}, payload={shown}{dots})", self.position))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, (u64, Py<PyBytes>, i64)) {
        let entry = slf.get();
        let fields = (entry.position, entry.payload(slf.py()), entry.written_at_micros);
        (slf.get_type().into_any(), fields)
    }

    fn __copy__<'py>(slf: Bound<'py, Self>) -> Bound<'py, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyDict>) -> Bound<'py, Self> {
        slf
    }
}
