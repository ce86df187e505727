//! The one error of the public surface: a code to branch on, a sentence that says what to do.

use std::fmt;

use virtuallog_protocol::LogPos;

use crate::token::Token;

/// A source that is kept as it is.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $retryable:literal;)*) => {
        /// What went wrong, in the spelling that every language shares (`bindings/errors.toml`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $variant = $number),* }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The code's name as every language spells it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name),* }
            }

            /// Whether the same call may succeed later with nothing changed by the caller.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(ErrorCode::$variant => $retryable),* }
            }
        }
    };
}

codes! {
    /// The call itself is wrong: an argument, a URL, a name. Mend the call.
    Invalid = 1, "INVALID", false;
    /// No such log, store or directory. Create it, or correct the name.
    NotFound = 2, "NOT_FOUND", false;
    /// Another process owns the store. The message names its pid and the ways out.
    Locked = 3, "LOCKED", true;
    /// An entry or a batch is over its limit. Split it, or raise the limit where that is possible.
    TooLarge = 4, "TOO_LARGE", false;
    /// The position was trimmed away; `position` is the first that is kept.
    Trimmed = 5, "TRIMMED", false;
    /// The log was ended for good by `seal`. Read it; append to another.
    Sealed = 6, "SEALED", false;
    /// Somebody else changed the chain first. Read it, decide again.
    Conflict = 7, "CONFLICT", false;
    /// The window of entries in flight is full. Wait for some of them.
    Busy = 8, "BUSY", true;
    /// The part that would answer is not to be reached or was stopped.
    Unavailable = 9, "UNAVAILABLE", true;
    /// The call's time ran out. For an append see `in_doubt`.
    Deadline = 10, "DEADLINE", true;
    /// Stored bytes fail their checks. Nothing was served in their place, nothing was cut away.
    Corrupt = 11, "CORRUPT", false;
    /// The disk is full. Trim, or make room; nothing was lost.
    DiskFull = 12, "DISK_FULL", true;
    /// Written by a version, or of a kind, that this build does not know.
    Incompatible = 13, "INCOMPATIBLE", false;
    /// Something acknowledged is not there any more. Restore it before going on.
    DataLoss = 14, "DATA_LOSS", false;
    /// The handle was closed, or made before a fork. Open another.
    Closed = 15, "CLOSED", false;
    /// A bug of this library. Please report it.
    Internal = 16, "INTERNAL", false;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What went wrong, and what to do about it.
///
/// Cloning is cheap: one failure is often told to many waiting callers.
#[derive(Clone)]
pub struct Error(std::sync::Arc<Inner>);

#[derive(Clone)]
struct Inner {
    code: ErrorCode,
    message: String,
    in_doubt: bool,
    position: Option<LogPos>,
    token: Option<Token>,
    source: Option<std::sync::Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with a message that says what to do: lower case, no full stop.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(std::sync::Arc::new(Inner {
            code,
            message: message.into(),
            in_doubt: false,
            position: None,
            token: None,
            source: None,
        }))
    }

    /// [`ErrorCode::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// Keeps what caused it.
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        let source = Some(std::sync::Arc::from(source.into()));
        Self::change(self, |inner| inner.source = source)
    }

    /// Names the position that it speaks of.
    #[must_use]
    pub fn at(self, position: LogPos) -> Self {
        Self::change(self, |inner| inner.position = Some(position))
    }

    /// Says that the append may be in the log all the same.
    #[must_use]
    pub fn in_doubt(self) -> Self {
        Self::change(self, |inner| inner.in_doubt = true)
    }

    pub(crate) fn with_token(self, token: Token) -> Self {
        Self::change(self, |inner| inner.token = Some(token))
    }

    /// The error of a batch, as one of its entries sees it.
    pub(crate) fn for_entry(self, index: u64) -> Self {
        match (index, &self.0.token) {
            (1.., Some(token)) => {
                let token = token.plus(index);
                self.with_token(token)
            }
            _ => self,
        }
    }

    fn change(self, edit: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = std::sync::Arc::unwrap_or_clone(self.0);
        edit(&mut inner);
        Self(std::sync::Arc::new(inner))
    }

    /// What to branch on.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// The sentence, without code and sources.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same call may succeed later. Never true for an outcome in doubt: a blind
    /// re-send could put the entry in twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.code.retryable() && !self.0.in_doubt
    }

    /// True when an append may or may not be in the log.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.0.in_doubt
    }

    /// What names an append in doubt, for [`resolve`](crate::VirtualLog::resolve).
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.0.token.as_ref()
    }

    /// The position that the error speaks of: for [`ErrorCode::Trimmed`] the first one kept.
    #[must_use]
    pub fn position(&self) -> Option<LogPos> {
        self.0.position
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if self.0.in_doubt {
            f.write_str(" (in doubt)")?;
        }
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            write!(f, "\n  caused by: {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
