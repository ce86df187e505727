"""The asyncio API: the same operations, awaited.

>>> import asyncio
>>> from virtuallog import aio
>>> async def main() -> list[bytes]:
...     async with aio.open("memory:") as log:
...         await asyncio.gather(*(log.append(word) for word in (b"one", b"two")))
...         return [entry.payload async for entry in await log.read(0)]
>>> asyncio.run(main())
[b'one', b'two']

A `Log` belongs to the event loop that it was opened in. Nothing here blocks the loop: answers come
in batches over one descriptor that the loop watches, and no other thread runs Python code.

Cancelling a task that awaits stops reads, subscriptions and administrative calls. An append is never
stopped: it was submitted at the call, and cancelling only lets go of its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from operator import length_hint
from types import TracebackType
from typing import Any, Literal

from . import _native
from ._aio_cluster import Server, drain, init, move, nodes, remove
from ._driver import Driver, driver
from ._log import BATCH_ENTRIES, batch_size, split
from ._native import Batch, Entry
from ._types import Appended, Chain, Payload, Plan, Start, Tail, Timeout, Trimmed, VerifyReport
from .errors import ClosedError, InvalidError

__all__ = [
    "Log",
    "Reader",
    "Server",
    "Subscription",
    "create",
    "delete",
    "drain",
    "init",
    "logs",
    "move",
    "nodes",
    "open",
    "remove",
]


class Log:
    """An open log of one event loop. Made by `virtuallog.aio.open`; an async context manager."""

    __slots__ = ("_driver", "_native")

    def __init__(self, native: _native.Log, driver: Driver) -> None:
        self._native = native
        self._driver = driver

    @property
    def name(self) -> str:
        """The log's name: the last part of its URL."""
        return self._native.name

    @property
    def timeout(self) -> float | None:
        """The deadline, in seconds, of calls that name none. ``None``: none."""
        return self._native.timeout

    def append(self, payload: Payload, *, timeout: Timeout = ...) -> asyncio.Future[int]:
        """Submits one entry at the call, in call order; await it for the position.

        Waits its turn when the window of entries in flight is full. Raises `TooLargeError` over the
        entry limit (1 MiB by default), `SealedError` on an ended log, and `DeadlineError` when time
        runs out; where that (or any error) is ``in_doubt``, the entry may be in the log: `resolve`
        its ``token`` before appending it again. Cancelling does not undo the append.
        """
        return self._driver.append(self._native, payload, timeout)

    def append_many(
        self, payloads: Iterable[Payload], *, timeout: Timeout = ...
    ) -> asyncio.Future[int]:
        """Submits one batch, atomic and contiguous; await it for the position of its first entry.

        At most 1,024 entries and 4 MiB (or one entry up to the entry limit): more is
        `TooLargeError`, none at all `InvalidError`. For any number, see `append_all`.
        """
        return self._driver.call(self._native.submit_many(payloads, timeout))

    def append_nowait(self, payload: Payload, *, timeout: Timeout = ...) -> asyncio.Future[int]:
        """As `append`, but raises `BusyError` at the call when the window is full."""
        return self._driver.call(self._native.append_nowait(payload, timeout))

    async def append_all(
        self,
        payloads: Iterable[Payload] | AsyncIterable[Payload],
        *,
        timeout: Timeout = ...,
    ) -> Appended | None:
        """Appends any number of entries one after the other, pipelined, with back-pressure.

        Each entry stands for itself: an error leaves those before it in the log. ``timeout`` bounds
        each wait for answers. ``None`` for an empty iterable.
        """
        pipeline = self._native.pipeline(timeout)
        if isinstance(payloads, AsyncIterable):
            async for payload in payloads:
                if pipeline.push(payload):
                    await self._driver.call(pipeline.room())
        else:
            for payload in payloads:
                if pipeline.push(payload):
                    await self._driver.call(pipeline.room())
        return await self._driver.call(pipeline.finish())

    async def flush(self, *, timeout: Timeout = ...) -> None:
        """Waits for everything submitted so far; raises the first failure that nobody saw."""
        await self._driver.call(self._native.flush(timeout))

    async def check_tail(self, *, timeout: Timeout = ...) -> Tail:
        """Where the log ends: the first unwritten position, and whether the log was ended."""
        return await self._driver.call(self._native.check_tail(timeout))

    async def first(self, *, timeout: Timeout = ...) -> int:
        """The first position that was not trimmed."""
        return await self._driver.call(self._native.first(timeout))

    async def read(
        self, start: int, end: int | None = None, *, timeout: Timeout = ...
    ) -> Reader:
        """Reads the entries from ``start`` up to, not including, ``end`` (or today's tail).

        Gives an async iterator that reads in batches as it goes. ``timeout`` bounds this call and
        then each wait of the iterator.
        """
        native = await self._driver.call(self._native.read(start, end, timeout))
        return Reader(native, self._driver, self.timeout if timeout is ... else timeout)

    async def read_next(
        self, start: int, end: int | None = None, *, timeout: Timeout = ...
    ) -> Entry | None:
        """The first entry at or after ``start`` and below ``end`` (or the tail); ``None`` if none."""
        return await self._driver.call(self._native.read_next(start, end, timeout))

    def subscribe(self, start: Start, *, timeout: Timeout = ...) -> Subscription:
        """Follows the log from ``start``: a position, ``"first"`` or ``"tail"``.

        Use it as ``async for entry in log.subscribe(0)``, better within ``async with``, which also
        ends it. It starts at once; ``timeout`` bounds the start alone.
        """
        starting = self._driver.call(self._native.subscribe(start, timeout))
        return Subscription(starting, self._driver, None)

    async def prefix_trim(self, keep_from: int, *, timeout: Timeout = ...) -> Trimmed:
        """Gives up every entry below ``keep_from``; reading there raises `TrimmedError` from then on."""
        return await self._driver.call(self._native.prefix_trim(keep_from, timeout))

    async def seal(self, *, timeout: Timeout = ...) -> Tail:
        """Ends the log for good and gives the final tail: later appends raise `SealedError`."""
        return await self._driver.call(self._native.seal(timeout))

    async def chain(self, *, timeout: Timeout = ...) -> Chain:
        """The newest chain: which loglet holds which positions."""
        return await self._driver.call(self._native.chain(timeout))

    async def reconfig_extend(
        self, loglet: str, *, if_version: int | None = None, timeout: Timeout = ...
    ) -> Chain:
        """Seals the active loglet and goes on in a new one, for example ``"local"``.

        Appends under way are carried over, none twice. Raises `ConflictError` where
        the chain is at another version than ``if_version``, or, if that is left out, than this handle saw
        last: after a change by somebody else, read `chain` and decide again. When time runs out, or the task is cancelled, the
        reconfiguration may still complete: read `chain`.
        """
        return await self._driver.call(self._native.reconfig_extend(loglet, if_version, timeout))

    async def reconfig_truncate(
        self, *, if_version: int | None = None, timeout: Timeout = ...
    ) -> Chain:
        """Drops the leading segments that were trimmed whole from the chain.

        Gives the chain as it is when there are none. Raises `ConflictError` where the chain is at another
        version than ``if_version``.
        """
        return await self._driver.call(self._native.reconfig_truncate(if_version, timeout))

    async def reconfig_modify(
        self, segment: int, loglet: str, *, if_version: int | None = None, timeout: float | None = None
    ) -> Chain:
        """Moves the sealed segment of this index into another loglet, by copying it.

        Has no deadline unless one is given; when that passes the move may still complete: read `chain`.
        Raises `InvalidError` when no sealed segment has the index, or for a loglet that this store cannot
        have, and `ConflictError` as `reconfig_extend` does.
        """
        return await self._driver.call(
            self._native.reconfig_modify(segment, loglet, if_version, timeout)
        )

    async def plan(self, loglet: str, *, timeout: Timeout = ...) -> Plan:
        """What `reconfig_extend` to ``loglet`` would do; does nothing."""
        return await self._driver.call(self._native.plan(loglet, timeout))

    async def resolve(self, token: str, *, timeout: Timeout = ...) -> int | None:
        """Where an append in doubt ended up, by its error's ``token``: its position, or ``None``.

        ``None`` means that the entry is surely not in the log and never will be.
        """
        return await self._driver.call(self._native.resolve(token, timeout))

    async def verify(self, *, timeout: float | None = None) -> VerifyReport:
        """Reads the whole log and checks every checksum. Has no deadline unless one is given."""
        return await self._driver.call(self._native.verify(timeout))

    async def close(self, *, timeout: Timeout = ...) -> None:
        """Flushes and gives the handle's resources back; later calls raise `ClosedError`.

        Raises the first failure of an append that nobody saw. Idempotent.
        """
        await self._driver.call(self._native.close(timeout))

    async def __aenter__(self) -> Log:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<virtuallog.aio.Log {self.name!r}>"


class Reader(AsyncIterator[Entry]):
    """Entries of a range in order. An async iterator, and an async context manager.

    For one task at a time. A wait that is cancelled or times out loses nothing: go on.
    """

    __slots__ = ("_after", "_batch", "_closed", "_driver", "_fetch", "_last", "_left", "_native", "_timeout")

    def __init__(
        self, native: _native.Reader | None, driver: Driver, timeout: float | None
    ) -> None:
        self._native = native
        self._driver = driver
        self._timeout = timeout
        # What was read last, and what of it was not given out yet.
        self._batch: Batch | None = None
        self._left: Iterator[Entry] = iter(())
        # The last entry delivered, and the position after the whole batch.
        self._last: Entry | None = None
        self._after = 0 if native is None else native.position()
        self._fetch: asyncio.Future[Batch] | None = None
        self._closed = False

    @property
    def position(self) -> int:
        """The next position to deliver: what to save in order to resume."""
        if self._last is not None and length_hint(self._left):
            return self._last.position + 1
        return self._after

    async def __anext__(self) -> Entry:
        for entry in self._left:
            self._last = entry
            return entry
        self._batch = await self._next(BATCH_ENTRIES, self._timeout)
        if not self._batch:
            raise StopAsyncIteration
        self._left = iter(self._batch)
        self._last = next(self._left)
        return self._last

    async def next_batch(
        self, entries_max: int = BATCH_ENTRIES, *, timeout: Timeout = ...
    ) -> Batch:
        """The next entries: at least one, at most ``entries_max``, waiting for the first.

        An empty batch is the end. `DeadlineError` when ``timeout`` seconds pass first; nothing is
        lost then.
        """
        size = batch_size(entries_max)
        if self._batch is not None and (left := length_hint(self._left)):
            batch = self._batch[-left:]
        else:
            batch = await self._next(size, self._timeout if timeout is ... else timeout)
        batch, rest = split(batch, size)
        self._batch, self._left = rest, iter(rest)
        if batch:
            self._last = batch[-1]
        return batch

    async def batches(self, entries_max: int = BATCH_ENTRIES) -> AsyncIterator[Batch]:
        """The same entries in batches of at most ``entries_max``."""
        while batch := await self.next_batch(entries_max):
            yield batch

    async def aclose(self) -> None:
        """Stops reading. Idempotent."""
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._batch, self._left = None, iter(())
        if self._fetch is not None:
            self._fetch.cancel()
        if self._native is not None:
            self._native.close()

    async def _next(self, entries_max: int, timeout: float | None) -> Batch:
        # The fetch outlives a cancelled wait: its batch may have been drained from the queue
        # already, and would be lost with the task that waited.
        if self._closed:
            raise _reader_closed()
        if self._fetch is None:
            native = self._opened()
            self._fetch = self._driver.call(native.next_batch(entries_max, timeout))
        fetch = self._fetch
        await asyncio.wait([fetch])
        self._fetch = None
        if fetch.cancelled():
            raise _reader_closed()
        batch = fetch.result()
        self._after = self._opened().position()
        return batch

    def _opened(self) -> _native.Reader:
        assert self._native is not None, "only a subscription has none, and only before it started"
        return self._native

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()


class Subscription(Reader):
    """Follows a log: a `Reader` without an end, unless the log is ended for good.

    Iterating waits for the next entry for as long as it takes; `next_batch` takes a timeout.
    """

    __slots__ = ("_starting",)

    def __init__(
        self, starting: asyncio.Future[_native.Reader], driver: Driver, timeout: float | None
    ) -> None:
        super().__init__(None, driver, timeout)
        self._starting = starting

    @property
    def position(self) -> int:
        """The next position to deliver: what to save in order to resume.

        Raises `InvalidError` before the subscription started: within ``async with``, and from the
        first entry on, it has.
        """
        if self._native is None:
            raise InvalidError("the subscription has not started: use `async with`, or iterate")
        return super().position

    async def _start(self) -> None:
        if self._native is None:
            await asyncio.wait([self._starting])
            if self._starting.cancelled():
                raise _reader_closed()
            self._native = self._starting.result()
            self._after = self._native.position()

    async def _next(self, entries_max: int, timeout: float | None) -> Batch:
        await self._start()
        return await super()._next(entries_max, timeout)

    def _close(self) -> None:
        self._starting.cancel()
        super()._close()

    async def __aenter__(self) -> Subscription:
        await self._start()
        return self


def _reader_closed() -> ClosedError:
    return ClosedError("this reader is closed: open another")


class _Opening:
    """What `open` gives: await it, or enter it with ``async with``."""

    __slots__ = ("_arguments", "_log")

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self._arguments = arguments
        self._log: Log | None = None

    async def _open(self) -> Log:
        mine = driver()
        return Log(await mine.call(_native.open(*self._arguments)), mine)

    def __await__(self) -> Generator[Any, None, Log]:
        return self._open().__await__()

    async def __aenter__(self) -> Log:
        self._log = await self._open()
        return self._log

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._log is not None:
            await self._log.close()


def open(
    url: str,
    *,
    create: bool = True,
    mode: Literal["read", "write"] | None = None,
    loglet: str | None = None,
    timeout: Timeout = ...,
    entry_bytes_max: int | None = None,
    in_flight_bytes_max: int | None = None,
) -> _Opening:
    """Opens the log that ``url`` names, and creates it if it is missing.

    ``log = await aio.open(url)``, or ``async with aio.open(url) as log:``. The arguments are those of
    `virtuallog.open`.
    """
    return _Opening((url, create, mode, loglet, timeout, entry_bytes_max, in_flight_bytes_max))


async def create(url: str, *, loglet: str | None = None, timeout: Timeout = ...) -> None:
    """Creates the log that ``url`` names; `ConflictError` if there is one."""
    await driver().call(_native.create(url, loglet, timeout))


async def delete(url: str, *, timeout: Timeout = ...) -> None:
    """Deletes a log and all its entries; `NotFoundError` if there is none."""
    await driver().call(_native.delete(url, timeout))


async def logs(url: str, *, timeout: Timeout = ...) -> list[str]:
    """The names of the logs in a store (a URL that ends in ``/``), sorted."""
    return await driver().call(_native.logs(url, timeout))
