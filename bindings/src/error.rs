//! The core's error as plain owned data, and the guard that turns a panic into one.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use virtuallog::ErrorCode;

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the form that crosses into a language: nothing borrowed, nothing dynamic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What to branch on.
    pub code: ErrorCode,
    /// The sentence that says what to do: lower case, no full stop, no code in front.
    pub message: String,
    /// Whether the same call may succeed later. Never true for an outcome in doubt.
    pub retryable: bool,
    /// True when an append may or may not be in the log.
    pub in_doubt: bool,
    /// The position that the error speaks of: for `TRIMMED` the first one kept.
    pub position: Option<u64>,
    /// Names the append in doubt, for `resolve`.
    pub token: Option<String>,
    /// The causes, outermost first, each as its own sentence.
    pub causes: Vec<String>,
}

impl Error {
    /// An error of the facade's own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retryable: code.retryable(),
            in_doubt: false,
            position: None,
            token: None,
            causes: Vec::new(),
        }
    }

    /// [`ErrorCode::Invalid`]: an argument that a skin refuses before it calls.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(ErrorCode::Closed, format!("this {what} is closed: open another"))
    }

    pub(crate) fn deadline(what: &str) -> Self {
        let message = format!("time ran out before `{what}` was answered: try again, or give more");
        Self::new(ErrorCode::Deadline, message)
    }
}

impl From<virtuallog::Error> for Error {
    fn from(error: virtuallog::Error) -> Self {
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self {
            code: error.code(),
            message: error.message().to_owned(),
            retryable: error.is_retryable(),
            in_doubt: error.is_in_doubt(),
            position: error.position().map(u64::from),
            token: error.token().map(ToString::to_string),
            causes,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

/// Runs `body`; a panic in it becomes `INTERNAL`, because it may not cross into another language.
///
/// # Errors
/// `body`'s own, or `INTERNAL` with the panic's message.
pub fn panic_guard<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "a panic without a message",
    };
    Error::new(ErrorCode::Internal, format!("a bug of virtuallog, please report it: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_error_with_its_message() {
        let error = panic_guard::<()>(|| panic!("seven {}", 7)).expect_err("it panicked");
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(error.message.ends_with("seven 7"), "{error}");
        let error = panic_guard::<()>(|| std::panic::panic_any(7)).expect_err("it panicked");
        assert!(error.message.ends_with("without a message"), "{error}");
    }

    #[test]
    fn nothing_of_the_cores_error_is_lost() {
        let source = std::io::Error::other("disk on fire");
        let core = virtuallog::Error::new(ErrorCode::Unavailable, "try later")
            .with_source(source)
            .at(virtuallog::LogPos(7))
            .in_doubt();
        let error = Error::from(core);
        assert_eq!(error.causes, ["disk on fire"]);
        assert_eq!((error.position, error.in_doubt, error.retryable), (Some(7), true, false));
        assert_eq!(error.to_string(), "UNAVAILABLE: try later");
    }
}
