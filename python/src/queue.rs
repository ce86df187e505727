//! An event loop's completion queue: a socket that becomes readable when there is something to
//! drain.

use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use pyo3::prelude::*;
use pyo3::types::PyList;
use virtuallog_bindings::{CompletionQueue, SocketWaker};

use crate::convert;
use crate::errors::exception;
use crate::log::Log;
use crate::op::Op;
use crate::value::Value;

/// Operations of one event loop.
#[pyclass(frozen, module = "virtuallog._native")]
pub(crate) struct Queue {
    queue: CompletionQueue<Value>,
    /// The loop's end. The other one is the waker's, and stays open as long as any operation could
    /// use it: so a byte never goes to a descriptor that means something else by then.
    socket: UnixStream,
    /// Whether a thread waits on the socket rather than a loop: then it takes the bytes off.
    waited_on: bool,
}

#[pymethods]
impl Queue {
    /// `waited_on`: a thread will call `wait`, because the loop cannot watch a descriptor.
    #[new]
    fn new(py: Python<'_>, waited_on: bool) -> PyResult<Self> {
        let (waker, socket) = SocketWaker::pair().map_err(|error| exception(py, error))?;
        socket.set_nonblocking(!waited_on)?;
        Ok(Self { queue: CompletionQueue::new(waker), socket, waited_on })
    }

    /// The descriptor to watch for reading.
    fn fileno(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// Takes an operation in; gives its tag, which is never used again.
    fn submit(&self, py: Python<'_>, op: &Op) -> PyResult<u64> {
        let op = op.take().map_err(|error| exception(py, error))?;
        self.queue.submit(op).map_err(|error| exception(py, error))
    }

    /// Short cut: submits `log.append(payload, timeout)`.
    fn append(
        &self,
        log: &Bound<'_, Log>,
        payload: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<u64> {
        let (payload, timeout) = (convert::payload(payload)?, convert::timeout(timeout)?);
        let op = log.get().facade().append(payload, timeout).map(Value::Position);
        self.queue.submit(op).map_err(|error| exception(log.py(), error))
    }

    /// At most `max` answers as `(tag, succeeded, result or exception)`, and whether there are
    /// more, for which there will be no further wake-up.
    fn drain<'py>(&self, py: Python<'py>, max: usize) -> PyResult<(Bound<'py, PyList>, bool)> {
        if !self.waited_on {
            // The byte first: what is answered from here on writes another.
            let mut bytes = [0; 16];
            let _ = (&self.socket).read(&mut bytes);
        }
        let done = self.queue.drain(max).map_err(|error| exception(py, error))?;
        let outcomes = PyList::empty(py);
        for (tag, outcome) in done.outcomes {
            let converted = match outcome {
                Ok(value) => value.into_python(py),
                Err(error) => Err(exception(py, error)),
            };
            outcomes.append(match converted {
                Ok(value) => (tag, true, value),
                Err(error) => (tag, false, error.into_value(py).into_bound(py).into_any()),
            })?;
        }
        Ok((outcomes, done.more))
    }

    /// Drops an operation whose outcome nobody wants. An append stays submitted.
    fn cancel(&self, tag: u64) {
        self.queue.cancel(tag);
    }

    /// Drops every operation, wakes nobody any more. Idempotent.
    fn close(&self) {
        self.queue.close();
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Blocks, with the GIL released, until there is something to drain; false once closed.
    fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| {
            let mut bytes = [0; 16];
            loop {
                match (&self.socket).read(&mut bytes) {
                    Ok(read) => return Ok(read > 0),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
        })
    }

    fn __len__(&self) -> usize {
        self.queue.len()
    }

    fn __bool__(&self) -> bool {
        true
    }
}
