"""What the library reports, in Python's `logging`.

A thread of Python's own takes the reports in batches; none of the library's threads ever runs Python code.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import warnings
from typing import Literal

from . import _native
from .errors import VirtualLogError

_LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}
# Whether it was said that the program's own logging fails.
_warned = False


def log_to_logging(level: Literal["off", "error", "warn", "info", "debug", "trace"] = "info") -> None:
    """Hands what the library reports, from this level on, to the loggers below ``virtuallog``.

    Off unless this is called or the variable ``VIRTUALLOG_LOG`` names a level when the package is imported.
    May be called again to change the level. What `logging` is set to show is up to the application. In a
    child of ``fork`` it is off.
    """
    logs = _native.Logs(level)
    if level != "off":
        threading.Thread(target=_watch, args=(logs,), name="virtuallog-log", daemon=True).start()


def _watch(logs: _native.Logs) -> None:
    while logs.wait():
        _hand_over()


def _hand_over() -> None:
    records, dropped = _native.Logs.take()
    for level, target, message in records:
        _tell(target.replace("::", "."), _LEVELS[level], message)
    if dropped:
        _tell("virtuallog", logging.WARNING, f"{dropped} reports were dropped: they came too fast")


def _tell(name: str, level: int, message: str) -> None:
    """Logs one report. What a handler or a filter of the program raises is its own affair: said once."""
    global _warned
    try:
        logging.getLogger(name).log(level, "%s", message)
    except Exception as error:
        if not _warned:
            _warned = True
            told = f"a logging handler or filter raised on a report of virtuallog: {error!r}"
            _warn(told)


def _warn(message: str) -> None:
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:
        # Where warnings are errors it is no error of this thread's, which has reports to hand over.
        print(f"virtuallog: {message}", file=sys.stderr)


def _start() -> None:
    try:
        level = _native.log_level()
    except VirtualLogError as error:
        warnings.warn(f"VIRTUALLOG_LOG: {error}", RuntimeWarning, stacklevel=2)
        return
    if level is not None:
        log_to_logging(level)  # type: ignore[arg-type]


atexit.register(_hand_over)
_start()
