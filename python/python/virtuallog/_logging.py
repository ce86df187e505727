"""What the library reports, in Python's `logging`.

A thread of Python's own takes the reports in batches; none of the library's threads ever runs Python code.
"""

from __future__ import annotations

import atexit
import logging
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
        logging.getLogger(target.replace("::", ".")).log(_LEVELS[level], "%s", message)
    if dropped:
        logging.getLogger("virtuallog").warning("%d reports were dropped: they came too fast", dropped)


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
