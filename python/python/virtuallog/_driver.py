"""How answers of the native half come into an event loop: one completion queue a loop.

The queue's descriptor becomes readable when there is something to take; all that is ready is then taken at
once, on the loop's own thread. No other thread runs Python code.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from functools import partial
from threading import get_ident
from typing import Any, TypeVar

from . import _native
from ._types import Payload, Timeout
from .errors import ClosedError, InvalidError

_T = TypeVar("_T")

# So many answers at a time, so that other tasks of the loop get their turn in between.
_DRAIN_MAX = 4096


class Driver:
    """One event loop's completion queue, and the futures that wait for it.

    Only the loop's own thread touches it. Tags are never used again, so an answer to a future that
    was cancelled meanwhile is simply dropped.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue = _native.Queue(False)
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._thread = get_ident()
        self.generation = _native.generation()
        try:
            loop.add_reader(self._queue.fileno(), self._drain)
        except NotImplementedError:
            # Loops that watch no descriptors, such as Windows' proactor: a thread waits instead.
            self._queue = _native.Queue(True)
            threading.Thread(target=self._watch, name="virtuallog-drain", daemon=True).start()

    def call(self, op: _native.Op[_T]) -> asyncio.Future[_T]:
        """Hands an operation to the queue; cancelling the future drops it."""
        future: asyncio.Future[_T] = self._own_loop().create_future()
        tag = self._queue.submit(op)
        self._futures[tag] = future
        future.add_done_callback(partial(self._forget, tag))
        return future

    def append(
        self, log: _native.Log, payload: Payload, timeout: Timeout
    ) -> asyncio.Future[int]:
        """Submits an append; cancelling the future changes nothing."""
        future: asyncio.Future[int] = self._own_loop().create_future()
        self._futures[self._queue.append(log, payload, timeout)] = future
        return future

    def close(self) -> None:
        """Drops what is under way: the loop is gone, or the interpreter is about to be."""
        self._queue.close()
        self._futures.clear()

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        # `asyncio.get_running_loop` costs a system call before Python 3.12. A loop that runs, and runs
        # on this thread, is the same thing. In a child of `fork` the queue itself refuses.
        if self._thread == get_ident() and self._loop.is_running():
            return self._loop
        if self.generation != _native.generation():
            raise ClosedError("this handle was made before a fork: open another in this process")
        if asyncio.get_running_loop() is not self._loop:
            raise InvalidError("this log belongs to another event loop: open it again in this one")
        self._thread = get_ident()  # The loop runs on another thread than before.
        return self._loop

    def _drain(self) -> None:
        outcomes, more = self._queue.drain(_DRAIN_MAX)
        take = self._futures.pop
        for tag, succeeded, outcome in outcomes:
            future = take(tag, None)
            if future is None or future.done():
                continue
            if succeeded:
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
        if more:
            self._loop.call_soon(self._drain)

    def _forget(self, tag: int, future: asyncio.Future[Any]) -> None:
        if future.cancelled() and self._futures.pop(tag, None) is not None:
            self._queue.cancel(tag)

    def _watch(self) -> None:
        while self._queue.wait():
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                return  # The loop was closed.


_drivers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Driver] = (
    weakref.WeakKeyDictionary()
)
_drivers_lock = threading.Lock()


def driver() -> Driver:
    """The running loop's driver."""
    loop = asyncio.get_running_loop()
    with _drivers_lock:
        known = _drivers.get(loop)
        if known is None or known.generation != _native.generation():
            _close_drivers(of_closed_loops_only=True)
            known = _drivers[loop] = Driver(loop)
    return known


def _close_drivers(*, of_closed_loops_only: bool = False) -> None:
    for loop, known in list(_drivers.items()):
        if loop.is_closed() or not of_closed_loops_only:
            known.close()
            _drivers.pop(loop, None)


# A fork may happen while another thread holds the lock: the child gets one of its own.
def _after_fork_in_child() -> None:
    global _drivers_lock
    _drivers_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_drivers)
