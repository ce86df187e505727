//! What the library reports, for a thread of Python's that hands it to `logging`.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

use pyo3::prelude::*;
use virtuallog_bindings as facade;
use virtuallog_bindings::{LogLevel, SocketWaker};

use crate::errors::exception;

/// Reports to be taken.
#[pyclass(frozen, module = "virtuallog._native")]
pub(crate) struct Logs(UnixStream);

#[pymethods]
impl Logs {
    /// Turns them on at this level.
    #[new]
    fn new(py: Python<'_>, level: &str) -> PyResult<Self> {
        let level: LogLevel = level.parse().map_err(|error| exception(py, error))?;
        let (waker, socket) = SocketWaker::pair().map_err(|error| exception(py, error))?;
        socket.set_nonblocking(false)?;
        facade::start_logs(level, waker);
        Ok(Self(socket))
    }

    /// Blocks, with the GIL released, until there is something to take; false when another one of these
    /// has taken its place.
    fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| {
            loop {
                match (&self.0).read(&mut [0; 16]) {
                    Ok(read) => return Ok(read > 0),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
        })
    }

    /// What waits, each as level, target and message, and how many were dropped for want of room.
    #[staticmethod]
    fn take() -> (Vec<(&'static str, String, String)>, u64) {
        let batch = facade::drain_logs();
        let rows = batch.records.into_iter().map(|r| (r.level, r.target, r.message));
        (rows.collect(), batch.dropped)
    }
}

/// The level that the environment names, if it does.
#[pyfunction]
pub(crate) fn log_level(py: Python<'_>) -> PyResult<Option<String>> {
    let level = LogLevel::from_env().map_err(|error| exception(py, error))?;
    Ok(level.map(LogLevel::name))
}
