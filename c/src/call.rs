//! One operation: made, waited for or handed to a queue, and its result written where the program said.

use std::sync::Arc;

use virtuallog_bindings::{Op, Result, Timeout};

use crate::error::guarded;
use crate::given;
use crate::handles;
use crate::queue::Queue;
use crate::types::{vlog_call, vlog_error, vlog_status};

/// A result that has a form in C.
pub trait Cross: Send + Sized + 'static {
    /// That form.
    type C: Copy;

    /// Into it. What it points to is owned by a handle from then on.
    fn cross(self) -> Self::C;

    /// What goes into a completion's `value`: the result itself where it is one number.
    fn value(_crossed: &Self::C) -> u64 {
        0
    }

    /// The result on its way to `out`, to land when its completion is told.
    fn landing(self, out: Out<Self::C>) -> Landing {
        Landing::Later(Box::new(move || {
            let crossed = self.cross();
            let value = Self::value(&crossed);
            // SAFETY: who submitted the operation keeps what `out` leads to until it is told.
            unsafe { out.write(crossed) };
            value
        }))
    }
}

/// Where a program wants a result written. Null: nowhere.
pub struct Out<C>(*mut C);

// SAFETY: the program keeps it for the library's use until the operation is told or cancelled.
unsafe impl<C> Send for Out<C> {}

impl<C> Out<C> {
    pub(crate) fn new(out: *mut C) -> Self {
        Self(out)
    }

    /// Puts the result there.
    ///
    /// # Safety
    /// The program still keeps it.
    pub(crate) unsafe fn write(self, value: C) {
        if !self.0.is_null() {
            // SAFETY: it is not null, so by the program's word it can be written to.
            unsafe { self.0.write(value) };
        }
    }
}

/// A result that was not told yet.
pub enum Landing {
    /// A number, the one that is needed often.
    Number(u64, Out<u64>),
    /// Anything else. Gives the completion's `value`.
    Later(Box<dyn FnOnce() -> u64 + Send>),
}

impl Cross for () {
    type C = ();

    fn cross(self) {}
}

impl Cross for u64 {
    type C = u64;

    fn cross(self) -> u64 {
        self
    }

    fn value(crossed: &u64) -> u64 {
        *crossed
    }

    fn landing(self, out: Out<u64>) -> Landing {
        Landing::Number(self, out)
    }
}

/// How a program wants a call made.
pub struct Call {
    /// How long it may take.
    pub timeout: Timeout,
    queue: Option<Arc<Queue>>,
    context: u64,
    id: *mut u64,
}

impl Call {
    /// # Errors
    /// `INVALID` for a bad deadline or handle; `CLOSED` for a queue that was freed.
    ///
    /// # Safety
    /// `call` is null or leads to a `vlog_call`.
    pub unsafe fn read(call: *const vlog_call) -> Result<Call> {
        // SAFETY: the caller's word.
        match unsafe { given::maybe(call) } {
            None => Ok(Call {
                timeout: Timeout::Default,
                queue: None,
                context: 0,
                id: std::ptr::null_mut(),
            }),
            Some(call) => Ok(Call {
                timeout: given::timeout(call.timeout_ms)?,
                queue: if call.queue == 0 { None } else { Some(handles::get(call.queue)?) },
                context: call.context,
                id: call.id,
            }),
        }
    }

    /// Whether the caller's thread is to wait for the answer.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.queue.is_none()
    }
}

/// Starts an operation and waits for it, or hands it to the queue of `call`.
///
/// # Safety
/// `call`, `out` and `error` are null or lead to what they are pointers of; with a queue, `out` does until
/// the operation was told.
pub unsafe fn answer<T: Cross>(
    call: *const vlog_call,
    out: *mut T::C,
    error: *mut vlog_error,
    start: impl FnOnce(&Call) -> Result<Op<T>>,
) -> vlog_status {
    let body = || {
        // SAFETY: the caller's word.
        let call = unsafe { Call::read(call) }?;
        let op = start(&call)?;
        // SAFETY: the caller's word.
        unsafe { settle(&call, op, out) }
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// Waits for an operation, or hands it to the queue of `call`.
///
/// # Errors
/// The operation's own; with a queue, that it takes none any more.
///
/// # Safety
/// As of [`answer`].
pub unsafe fn settle<T: Cross>(call: &Call, op: Op<T>, out: *mut T::C) -> Result<()> {
    let Some(queue) = &call.queue else {
        let value = op.wait()?;
        // What nobody wants is dropped here and never gets a handle.
        if !out.is_null() {
            // SAFETY: the caller's word.
            unsafe { Out::new(out).write(value.cross()) };
        }
        return Ok(());
    };
    let id = queue.submit(op, Out::new(out), call.context)?;
    // SAFETY: the caller's word.
    unsafe { Out::new(call.id).write(id) };
    Ok(())
}
