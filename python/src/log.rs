//! A log's operations and the functions on stores.

use std::time::Duration;

use bytes::Bytes;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use virtuallog_bindings as facade;
use virtuallog_bindings::{LogPos, Options, Start, Timeout};

use crate::convert::{self, maybe_whole, position};
use crate::errors::{exception, invalid};
use crate::op::Op;
use crate::value::Value;

/// The longest that a call may go on without a look at signals.
const UNINTERRUPTED_MAX: Duration = Duration::from_secs(30);

/// A handle to an open log. Every `timeout` is in seconds, `None` for none, `...` for the handle's.
#[pyclass(frozen, module = "virtuallog._native")]
pub(crate) struct Log(facade::Log);

impl Log {
    pub(crate) fn new(log: facade::Log) -> Self {
        Self(log)
    }

    pub(crate) fn facade(&self) -> &facade::Log {
        &self.0
    }

    /// Whether a wait may go on for longer than Ctrl-C should go unheard: a blocking append cannot
    /// be interrupted, one that is submitted and waited for can, at the cost of a hand-over.
    fn is_long(&self, timeout: Timeout) -> bool {
        let limit = match timeout {
            Timeout::Default => self.0.timeout(),
            Timeout::Never => None,
            Timeout::After(timeout) => Some(timeout),
        };
        limit.is_none_or(|limit| limit > UNINTERRUPTED_MAX)
    }
}

#[pymethods]
impl Log {
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn timeout(&self) -> Option<f64> {
        self.0.timeout().map(|timeout| timeout.as_secs_f64())
    }

    /// Appends on this thread, with the GIL released; where that may take long, waits so that Ctrl-C
    /// ends the wait.
    fn append(&self, payload: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<u64> {
        let py = payload.py();
        let (payload, timeout) = (convert::payload(payload)?, convert::timeout(timeout)?);
        if self.is_long(timeout) {
            let submitted = Op::new(self.0.append(payload, timeout), Value::Position);
            return submitted.wait(py, None)?.extract();
        }
        py.detach(|| self.0.append_blocking(payload, timeout)).map_err(|error| exception(py, error))
    }

    /// Appends one batch as `append` does one entry.
    fn append_many<'py>(
        &self,
        payloads: &Bound<'py, PyAny>,
        timeout: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = payloads.py();
        let (payloads, timeout) = (convert::payloads(payloads)?, convert::timeout(timeout)?);
        if self.is_long(timeout) {
            return Op::new(self.0.append_many(payloads, timeout), Value::Position).wait(py, None);
        }
        let position = py.detach(|| self.0.append_many_blocking(payloads, timeout));
        position.map(Value::Position).map_err(|error| exception(py, error))?.into_python(py)
    }

    /// Submits one batch.
    fn submit_many(&self, payloads: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        let (payloads, timeout) = (convert::payloads(payloads)?, convert::timeout(timeout)?);
        Ok(Op::new(self.0.append_many(payloads, timeout), Value::Position))
    }

    /// Submits one entry; `BUSY` where the window is full.
    fn append_nowait(
        &self,
        payload: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<Op> {
        let py = payload.py();
        let (payload, timeout) = (convert::payload(payload)?, convert::timeout(timeout)?);
        let op = self.0.append_nowait(payload, timeout).map_err(|error| exception(py, error))?;
        Ok(Op::new(op, Value::Position))
    }

    fn pipeline(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Pipeline> {
        let pipeline = self.0.pipeline(convert::timeout(timeout)?);
        pipeline.map(Pipeline).map_err(|error| exception(timeout.py(), error))
    }

    fn flush(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.flush(convert::timeout(timeout)?), |()| Value::None))
    }

    fn check_tail(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.check_tail(convert::timeout(timeout)?), Value::Tail))
    }

    fn first(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.first(convert::timeout(timeout)?), Value::Position))
    }

    fn read(
        &self,
        start: &Bound<'_, PyAny>,
        end: Option<&Bound<'_, PyAny>>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<Op> {
        let (start, end) = (position(start)?, maybe_whole(end, "a position")?);
        Ok(Op::new(self.0.read(start, end, convert::timeout(timeout)?), Value::Reader))
    }

    fn read_next(
        &self,
        start: &Bound<'_, PyAny>,
        end: Option<&Bound<'_, PyAny>>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<Op> {
        let (start, end) = (position(start)?, maybe_whole(end, "a position")?);
        Ok(Op::new(self.0.read_next(start, end, convert::timeout(timeout)?), Value::Entry))
    }

    /// `start`: a position, `"first"` or `"tail"`.
    fn subscribe(&self, start: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        let start = match start.cast::<PyString>() {
            Err(_) => Start::At(LogPos(position(start)?)),
            Ok(word) => match word.to_cow()?.as_ref() {
                "first" => Start::First,
                "tail" => Start::Tail,
                _ => {
                    let message = format!("start is a position, \"first\" or \"tail\": got {word}");
                    return Err(invalid(start.py(), message));
                }
            },
        };
        Ok(Op::new(self.0.subscribe(start, convert::timeout(timeout)?), Value::Reader))
    }

    fn prefix_trim(
        &self,
        keep_from: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<Op> {
        let trim = self.0.prefix_trim(position(keep_from)?, convert::timeout(timeout)?);
        Ok(Op::new(trim, Value::Trimmed))
    }

    fn seal(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.seal(convert::timeout(timeout)?), Value::Tail))
    }

    fn chain(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.chain(convert::timeout(timeout)?), Value::Chain))
    }

    fn reconfig_extend(
        &self,
        loglet: String,
        if_version: Option<&Bound<'_, PyAny>>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<Op> {
        let if_version = maybe_whole(if_version, "a chain version")?;
        let timeout = convert::timeout(timeout)?;
        Ok(Op::new(self.0.reconfig_extend(loglet, if_version, timeout), Value::Chain))
    }

    fn reconfig_truncate(
        &self,
        if_version: Option<&Bound<'_, PyAny>>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<Op> {
        let if_version = maybe_whole(if_version, "a chain version")?;
        let timeout = convert::timeout(timeout)?;
        Ok(Op::new(self.0.reconfig_truncate(if_version, timeout), Value::Chain))
    }

    fn reconfig_modify(
        &self,
        segment: &Bound<'_, PyAny>,
        loglet: String,
        if_version: Option<&Bound<'_, PyAny>>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<Op> {
        let index = u32::try_from(convert::whole(segment, "a segment's index")?)
            .map_err(|_| invalid(segment.py(), "a segment's index is below 2^32"))?;
        let if_version = maybe_whole(if_version, "a chain version")?;
        let timeout = convert::timeout(timeout)?;
        Ok(Op::new(self.0.reconfig_modify(index, loglet, if_version, timeout), Value::Chain))
    }

    fn plan(&self, loglet: String, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.plan(loglet, convert::timeout(timeout)?), Value::Plan))
    }

    fn resolve(&self, token: &str, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.resolve(token, convert::timeout(timeout)?), Value::MaybePosition))
    }

    fn verify(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.verify(convert::timeout(timeout)?), Value::Report))
    }

    fn close(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.close(convert::timeout(timeout)?), |()| Value::None))
    }
}

/// An `append_all` under way.
#[pyclass(frozen, module = "virtuallog._native")]
pub(crate) struct Pipeline(facade::Pipeline);

#[pymethods]
impl Pipeline {
    /// Submits an entry. True: full, wait for `room`.
    fn push(&self, payload: &Bound<'_, PyAny>) -> PyResult<bool> {
        let bytes: Bytes = convert::payload(payload)?;
        self.0.push(bytes).map_err(|error| exception(payload.py(), error))
    }

    fn room(&self) -> Op {
        Op::new(self.0.room(), |()| Value::None)
    }

    fn finish(&self) -> Op {
        Op::new(self.0.finish(), Value::Appended)
    }
}

/// Opens a log.
#[pyfunction]
pub(crate) fn open(
    url: &Bound<'_, PyAny>,
    create: bool,
    mode: Option<&str>,
    loglet: Option<String>,
    timeout: &Bound<'_, PyAny>,
    entry_bytes_max: Option<&Bound<'_, PyAny>>,
    in_flight_bytes_max: Option<&Bound<'_, PyAny>>,
) -> PyResult<Op> {
    let py = url.py();
    let size = |bytes: Option<&Bound<'_, PyAny>>| -> PyResult<Option<usize>> {
        let bytes = maybe_whole(bytes, "a limit in bytes")?;
        Ok(bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)))
    };
    let options = Options {
        // True is the default, and leaves the word to the URL.
        create: (!create).then_some(false),
        mode: mode.map(str::parse).transpose().map_err(|error| exception(py, error))?,
        loglet,
        timeout: convert::timeout(timeout)?,
        entry_bytes_max: size(entry_bytes_max)?,
        in_flight_bytes_max: size(in_flight_bytes_max)?,
    };
    Ok(Op::new(facade::Log::open(&text(url)?, options), Value::Log))
}

/// Creates a log.
#[pyfunction]
pub(crate) fn create(
    url: &Bound<'_, PyAny>,
    loglet: Option<String>,
    timeout: &Bound<'_, PyAny>,
) -> PyResult<Op> {
    let timeout = convert::timeout(timeout)?;
    Ok(Op::new(facade::create(&text(url)?, loglet, timeout), |()| Value::None))
}

/// Deletes a log.
#[pyfunction]
pub(crate) fn delete(url: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
    Ok(Op::new(facade::delete(&text(url)?, convert::timeout(timeout)?), |()| Value::None))
}

/// The names of the logs in a store.
#[pyfunction]
pub(crate) fn logs(url: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
    Ok(Op::new(facade::logs(&text(url)?, convert::timeout(timeout)?), Value::Names))
}

pub(crate) fn text(url: &Bound<'_, PyAny>) -> PyResult<String> {
    match url.cast::<PyString>() {
        Ok(text) => Ok(text.to_cow()?.into_owned()),
        Err(_) => {
            let hint = "a URL is a str, for example \"memory:\" or f\"file:{directory}/name\"";
            Err(PyTypeError::new_err(hint))
        }
    }
}
