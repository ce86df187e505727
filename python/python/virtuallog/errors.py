"""The exceptions: one class for each code of the error table (``bindings/errors.toml``).

Every failure of the log is a `VirtualLogError`. Catch a subclass to branch on what happened, or the
built-in exception that it also is (``except TimeoutError``, ``except ValueError``). An argument of
the wrong type is a plain `TypeError`.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "BusyError",
    "ClosedError",
    "ConflictError",
    "CorruptError",
    "DataLossError",
    "DeadlineError",
    "DiskFullError",
    "IncompatibleError",
    "InternalError",
    "InvalidError",
    "LockedError",
    "NotFoundError",
    "SealedError",
    "TooLargeError",
    "TrimmedError",
    "UnavailableError",
    "VirtualLogError",
]


class VirtualLogError(Exception):
    """What went wrong, and what to do about it. ``str()`` of it is the sentence that says so."""

    code: str = "INTERNAL"
    """What happened, in the spelling that every language shares, for example ``"TRIMMED"``."""

    retryable: bool = False
    """Whether the same call may succeed later. Never true for an outcome in doubt."""

    in_doubt: bool = False
    """True when an append may or may not be in the log: ask `Log.resolve` before appending again."""

    position: int | None = None
    """The position that the error speaks of: for `TrimmedError` the first one kept."""

    token: str | None = None
    """Names the append in doubt, for `Log.resolve`. May be written down and used later."""

    causes: tuple[str, ...] = ()
    """What led to it, outermost first."""

    # The column `retryable` of the table: `retryable` itself also depends on `in_doubt`.
    _retryable_code: ClassVar[bool] = False

    def __init__(self, message: str = "", **fields: Any) -> None:
        # One argument to `args`: several would turn an `OSError` into an errno and its text.
        super().__init__(message)
        self.retryable = self._retryable_code and not fields.get("in_doubt", False)
        self.__dict__.update(fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


class InvalidError(VirtualLogError, ValueError):
    """The call itself is wrong: an argument, a URL, a name. Mend the call."""

    code = "INVALID"


class NotFoundError(VirtualLogError, LookupError):
    """No such log, store or directory. Create it, or correct the name."""

    code = "NOT_FOUND"


class LockedError(VirtualLogError, OSError):
    """Another process owns the store. The message names its pid and the ways out."""

    code = "LOCKED"
    _retryable_code = True


class TooLargeError(VirtualLogError, ValueError):
    """An entry or a batch is over its limit. Split it, or raise the limit where that is possible."""

    code = "TOO_LARGE"


class TrimmedError(VirtualLogError, LookupError):
    """The position was trimmed away; ``position`` is the first that is kept."""

    code = "TRIMMED"


class SealedError(VirtualLogError):
    """The log was ended for good by ``seal``. Read it; append to another."""

    code = "SEALED"


class ConflictError(VirtualLogError):
    """Somebody else changed the chain first. Read it, decide again."""

    code = "CONFLICT"


class BusyError(VirtualLogError, BlockingIOError):
    """The window of entries in flight is full. Wait for some of them."""

    code = "BUSY"
    _retryable_code = True


class UnavailableError(VirtualLogError, ConnectionError):
    """The part that would answer is not to be reached or was stopped."""

    code = "UNAVAILABLE"
    _retryable_code = True


class DeadlineError(VirtualLogError, TimeoutError):
    """The call's time ran out. For an append see ``in_doubt``."""

    code = "DEADLINE"
    _retryable_code = True


class CorruptError(VirtualLogError):
    """Stored bytes fail their checks. Nothing was served in their place, nothing was cut away."""

    code = "CORRUPT"


class DiskFullError(VirtualLogError, OSError):
    """The disk is full. Trim, or make room; nothing was lost."""

    code = "DISK_FULL"
    _retryable_code = True


class IncompatibleError(VirtualLogError):
    """Written by a version, or of a kind, that this build does not know."""

    code = "INCOMPATIBLE"


class DataLossError(VirtualLogError):
    """Something acknowledged is not there any more. Restore it before going on."""

    code = "DATA_LOSS"


class ClosedError(VirtualLogError, RuntimeError):
    """The handle was closed, or made before a fork. Open another."""

    code = "CLOSED"


class InternalError(VirtualLogError, RuntimeError):
    """A bug of this library. Please report it."""

    code = "INTERNAL"


BY_CODE: dict[str, type[VirtualLogError]] = {
    subclass.code: subclass for subclass in VirtualLogError.__subclasses__()
}
"""The class of each code."""


def _rebuild(
    subclass: type[VirtualLogError], args: tuple[str, ...], fields: dict[str, Any]
) -> VirtualLogError:
    return subclass(*args, **fields)


def _from_native(
    code: str,
    message: str,
    retryable: bool,
    in_doubt: bool,
    position: int | None,
    token: str | None,
    causes: tuple[str, ...],
) -> VirtualLogError:
    return BY_CODE.get(code, InternalError)(
        message,
        retryable=retryable,
        in_doubt=in_doubt,
        position=position,
        token=token,
        causes=causes,
    )
