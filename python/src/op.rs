//! An operation under way, and how a thread waits for one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use virtuallog_bindings as facade;
use virtuallog_bindings::{Error, ErrorCode, Result, Timeout};

use crate::convert;
use crate::errors::exception;
use crate::value::Value;

/// How long a wait goes on without a look at signals: long enough that a call that answers at all
/// pays for one release of the GIL, short enough that Ctrl-C feels immediate.
const SLICE: Duration = Duration::from_millis(50);

/// One operation. Wait for it, or give it to a queue; either once.
#[pyclass(frozen, module = "virtuallog._native")]
pub(crate) struct Op(Mutex<Option<facade::Op<Value>>>);

impl Op {
    pub(crate) fn new<T: Send + 'static>(
        op: facade::Op<T>,
        convert: impl FnOnce(T) -> Value + Send + 'static,
    ) -> Self {
        Self(Mutex::new(Some(op.map(convert))))
    }

    pub(crate) fn take(&self) -> Result<facade::Op<Value>> {
        let mut op = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        op.take().ok_or_else(|| Error::invalid("this operation was waited for already"))
    }

    /// `None`: not answered after `slice`.
    fn wait_slice(&self, slice: Duration) -> Option<Result<Value>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(op) = slot.as_mut() else {
            return Some(Err(Error::invalid("this operation was waited for already")));
        };
        let outcome = op.wait_timeout(slice)?;
        *slot = None;
        Some(outcome)
    }
}

#[pymethods]
impl Op {
    /// Waits with the GIL released, and looks at signals from time to time.
    ///
    /// `timeout` bounds this wait only: when it passes (`DEADLINE`) the operation goes on and one
    /// may wait again. Any other exception out of a signal handler drops the operation's answer.
    #[pyo3(signature = (timeout = None))]
    pub(crate) fn wait<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let until = match timeout.map(convert::timeout).transpose()? {
            Some(Timeout::After(timeout)) => Instant::now().checked_add(timeout),
            _ => None,
        };
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            match py.detach(|| self.wait_slice(slice)) {
                Some(Ok(value)) => return value.into_python(py),
                Some(Err(error)) => return Err(exception(py, error)),
                None if left == Some(slice) => {
                    let message = "there is no answer yet: wait again";
                    return Err(exception(py, Error::new(ErrorCode::Deadline, message)));
                }
                None => py.check_signals()?,
            }
        }
    }

    /// Whether one may still wait for it: it was neither answered nor given to a queue.
    fn waiting(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
