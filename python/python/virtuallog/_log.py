"""The synchronous API: a log, and readers that are iterators.

Every call that waits releases the GIL, answers Ctrl-C, and takes ``timeout=`` in seconds. Handles may
be shared by threads; a reader or subscription belongs to one thread at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from operator import index, length_hint
from types import TracebackType
from typing import Final, Literal

from . import _native
from ._native import Batch, Entry
from ._types import Appended, Chain, Payload, Plan, Start, Tail, Timeout, Trimmed, VerifyReport
from .errors import InvalidError, VirtualLogError

BATCH_ENTRIES: Final = 1024
"""How many entries iteration fetches at a time, at most."""


class Log:
    """An open log. Made by `virtuallog.open`; a context manager that closes itself.

    Threads may share it. After a ``fork`` the child's copy raises `ClosedError`: open another there.

    >>> import virtuallog
    >>> with virtuallog.open("memory:") as log:
    ...     position = log.append(b"hello")
    ...     [entry.text() for entry in log.read(position)]
    ['hello']
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.Log) -> None:
        self._native = native

    @property
    def name(self) -> str:
        """The log's name: the last part of its URL."""
        return self._native.name

    @property
    def timeout(self) -> float | None:
        """The deadline, in seconds, of calls that name none. ``None``: none."""
        return self._native.timeout

    def append(self, payload: Payload, *, timeout: Timeout = ...) -> int:
        """Appends one entry and gives its position, once it is durable.

        Waits its turn when the window of entries in flight is full. Raises `TooLargeError` over the
        entry limit (1 MiB by default), `SealedError` on an ended log, and `DeadlineError` when time
        runs out; where that (or any error) is ``in_doubt``, the entry may be in the log: `resolve`
        its ``token`` before appending it again. Nothing is ever appended twice by itself.
        """
        return self._native.append(payload, timeout)

    def append_many(self, payloads: Iterable[Payload], *, timeout: Timeout = ...) -> int:
        """Appends one batch, atomically and contiguously; gives the position of its first entry.

        At most 1,024 entries and 4 MiB (or one entry up to the entry limit): more is
        `TooLargeError`, none at all `InvalidError`. For any number, see `append_all`.
        """
        return self._native.append_many(payloads, timeout)

    def append_nowait(self, payload: Payload, *, timeout: Timeout = ...) -> PendingAppend:
        """Submits one entry now, in call order, and gives what to wait for later.

        Raises `BusyError` when the window is full. ``timeout`` bounds the append. A failure that
        nobody asks for is raised by `flush` or `close`.

        >>> import virtuallog
        >>> with virtuallog.open("memory:") as log:
        ...     pending = [log.append_nowait(word) for word in (b"a", b"b")]
        ...     positions = [append.result() for append in pending]
        """
        return PendingAppend(self._native.append_nowait(payload, timeout))

    def append_all(
        self, payloads: Iterable[Payload], *, timeout: Timeout = ...
    ) -> Appended | None:
        """Appends any number of entries one after the other, pipelined, with back-pressure.

        The iterable is read on this thread, only as fast as the log takes the entries. Each entry
        stands for itself: an error leaves those before it in the log. ``timeout`` bounds each wait
        for answers. ``None`` for an empty iterable.
        """
        pipeline = self._native.pipeline(timeout)
        for payload in payloads:
            if pipeline.push(payload):
                pipeline.room().wait()
        return pipeline.finish().wait()

    def flush(self, *, timeout: Timeout = ...) -> None:
        """Waits for everything submitted so far; raises the first failure that nobody saw."""
        self._native.flush(timeout).wait()

    def check_tail(self, *, timeout: Timeout = ...) -> Tail:
        """Where the log ends: the first unwritten position, and whether the log was ended."""
        return self._native.check_tail(timeout).wait()

    def first(self, *, timeout: Timeout = ...) -> int:
        """The first position that was not trimmed."""
        return self._native.first(timeout).wait()

    def read(self, start: int, end: int | None = None, *, timeout: Timeout = ...) -> Reader:
        """Reads the entries from ``start`` up to, not including, ``end`` (or today's tail).

        Gives an iterator that reads in batches as it goes, and never the whole log. ``timeout``
        bounds this call and then each wait of the iterator. A trimmed start raises `TrimmedError`,
        here or at the first entry.
        """
        return Reader(self._native.read(start, end, timeout).wait(), _seconds(self, timeout))

    def read_next(
        self, start: int, end: int | None = None, *, timeout: Timeout = ...
    ) -> Entry | None:
        """The first entry at or after ``start`` and below ``end`` (or the tail); ``None`` if none."""
        return self._native.read_next(start, end, timeout).wait()

    def subscribe(self, start: Start, *, timeout: Timeout = ...) -> Subscription:
        """Follows the log from ``start``: a position, ``"first"`` or ``"tail"``.

        ``timeout`` bounds this call alone: iterating a subscription waits for ever.

        >>> import virtuallog
        >>> with virtuallog.open("memory:") as log:
        ...     first = log.append(b"one")
        ...     with log.subscribe("first") as subscription:
        ...         entry = next(subscription)
        ...         entry.payload, subscription.position == first + 1
        (b'one', True)
        """
        return Subscription(self._native.subscribe(start, timeout).wait(), None)

    def prefix_trim(self, keep_from: int, *, timeout: Timeout = ...) -> Trimmed:
        """Gives up every entry below ``keep_from``; reading there raises `TrimmedError` from then on."""
        return self._native.prefix_trim(keep_from, timeout).wait()

    def seal(self, *, timeout: Timeout = ...) -> Tail:
        """Ends the log for good and gives the final tail: later appends raise `SealedError`."""
        return self._native.seal(timeout).wait()

    def chain(self, *, timeout: Timeout = ...) -> Chain:
        """The newest chain: which loglet holds which positions."""
        return self._native.chain(timeout).wait()

    def reconfig_extend(
        self, loglet: str, *, if_version: int | None = None, timeout: Timeout = ...
    ) -> Chain:
        """Seals the active loglet and goes on in a new one, for example ``"local"``.

        Appends under way are carried over, none twice. Raises `ConflictError` where
        the chain is at another version than ``if_version``, or, if that is left out, than this handle saw
        last: after a change by somebody else, read `chain` and decide again. When time runs out the reconfiguration may still
        complete: read `chain`.
        """
        return self._native.reconfig_extend(loglet, if_version, timeout).wait()

    def reconfig_truncate(
        self, *, if_version: int | None = None, timeout: Timeout = ...
    ) -> Chain:
        """Drops the leading segments that were trimmed whole from the chain.

        Gives the chain as it is when there are none. Raises `ConflictError` where the chain is at another
        version than ``if_version``.
        """
        return self._native.reconfig_truncate(if_version, timeout).wait()

    def reconfig_modify(
        self, segment: int, loglet: str, *, if_version: int | None = None, timeout: float | None = None
    ) -> Chain:
        """Moves the sealed segment of this index into another loglet, by copying it.

        Has no deadline unless one is given; when that passes the move may still complete: read `chain`.
        Raises `InvalidError` when no sealed segment has the index, or for a loglet that this store cannot
        have, and `ConflictError` as `reconfig_extend` does.
        """
        return self._native.reconfig_modify(segment, loglet, if_version, timeout).wait()

    def plan(self, loglet: str, *, timeout: Timeout = ...) -> Plan:
        """What `reconfig_extend` to ``loglet`` would do; does nothing."""
        return self._native.plan(loglet, timeout).wait()

    def resolve(self, token: str, *, timeout: Timeout = ...) -> int | None:
        """Where an append in doubt ended up, by its error's ``token``: its position, or ``None``.

        ``None`` means that the entry is surely not in the log and never will be.
        """
        return self._native.resolve(token, timeout).wait()

    def verify(self, *, timeout: float | None = None) -> VerifyReport:
        """Reads the whole log and checks every checksum. Has no deadline unless one is given."""
        return self._native.verify(timeout).wait()

    def close(self, *, timeout: Timeout = ...) -> None:
        """Flushes and gives the handle's resources back; later calls raise `ClosedError`.

        Raises the first failure of an append that nobody saw. Idempotent.
        """
        self._native.close(timeout).wait()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<virtuallog.Log {self.name!r}>"


class PendingAppend:
    """An append under way, made by `Log.append_nowait`. Letting go of it does not undo it."""

    __slots__ = ("_op", "_outcome")

    def __init__(self, op: _native.Op[int]) -> None:
        self._op = op
        self._outcome: int | Exception | None = None

    def result(self, timeout: float | None = None) -> int:
        """Waits for the position, at most ``timeout`` seconds. May be asked again and again.

        Raises what became of the append; or `DeadlineError` when this wait ends first, and then the
        append goes on. For one thread at a time.
        """
        if self._outcome is None:
            try:
                self._outcome = self._op.wait(timeout)
            except VirtualLogError as error:
                if self._op.waiting():
                    raise
                self._outcome = error
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def batch_size(entries_max: int) -> int:
    """How many entries a batch may have: checked before any of them is taken."""
    if isinstance(entries_max, bool):
        raise TypeError("a batch's size is an int, not bool")
    size = index(entries_max)
    if size < 1:
        raise InvalidError(f"a batch has at least one entry: ask for 1, not {size}")
    return min(size, sys.maxsize)


def split(batch: Batch, entries_max: int) -> tuple[Batch, Batch]:
    """Its first entries, at most so many, and the others."""
    return batch[:entries_max], batch[entries_max:]


class Reader(Iterator[Entry]):
    """Entries of a range in order. An iterator, and a context manager that closes itself.

    For one thread at a time. A wait that ends early (a timeout, Ctrl-C) loses nothing: go on.
    """

    __slots__ = ("_batch", "_last", "_left", "_native", "_timeout")

    def __init__(self, native: _native.Reader, timeout: float | None) -> None:
        self._native = native
        self._timeout = timeout
        # What was read last, and what of it was not given out yet.
        self._batch: Batch | None = None
        self._left: Iterator[Entry] = iter(())
        self._last: Entry | None = None

    @property
    def position(self) -> int:
        """The next position to deliver: what to save in order to resume."""
        if self._last is not None and length_hint(self._left):
            return self._last.position + 1
        return self._native.position()

    def __next__(self) -> Entry:
        for entry in self._left:
            self._last = entry
            return entry
        self._batch = self._native.next_batch(BATCH_ENTRIES, self._timeout).wait()
        if not self._batch:
            raise StopIteration
        self._left = iter(self._batch)
        self._last = next(self._left)
        return self._last

    def next_batch(
        self, entries_max: int = BATCH_ENTRIES, *, timeout: Timeout = ...
    ) -> Batch:
        """The next entries: at least one, at most ``entries_max``, waiting for the first.

        An empty batch is the end. `DeadlineError` when ``timeout`` seconds pass first; nothing is
        lost then.
        """
        size = batch_size(entries_max)
        if self._batch is None or not (left := length_hint(self._left)):
            wait = self._timeout if timeout is ... else timeout
            return self._native.next_batch(size, wait).wait()
        batch, rest = split(self._batch[-left:], size)
        self._batch, self._left = rest, iter(rest)
        self._last = batch[-1]
        return batch

    def batches(self, entries_max: int = BATCH_ENTRIES) -> Iterator[Batch]:
        """The same entries in batches of at most ``entries_max``."""
        while batch := self.next_batch(entries_max):
            yield batch

    def close(self) -> None:
        """Stops reading; a wait in another thread raises `ClosedError`. Idempotent."""
        self._batch, self._left = None, iter(())
        self._native.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Subscription(Reader):
    """Follows a log: a `Reader` without an end, unless the log is ended for good.

    Iterating waits for the next entry for as long as it takes; `next_batch` takes a timeout.
    """

    __slots__ = ()

    def __enter__(self) -> Subscription:
        return self


def open(
    url: str,
    *,
    create: bool = True,
    mode: Literal["read", "write"] | None = None,
    loglet: str | None = None,
    timeout: Timeout = ...,
    entry_bytes_max: int | None = None,
    in_flight_bytes_max: int | None = None,
) -> Log:
    """Opens the log that ``url`` names, and creates it if it is missing.

    ``memory:NAME`` is in this process and gone with it (bare ``memory:`` a fresh one),
    ``file:DIR/NAME`` on this disk, ``virtuallog://HOST:PORT,HOST:PORT/NAME`` in the cluster that any of
    these nodes belongs to. What is not given here is taken from the URL's parameters.

    :param create: ``False`` raises `NotFoundError` rather than create a log.
    :param mode: ``"read"`` opens a ``file:`` log without lock and without any write, beside its
        owner in another process, and follows it live.
    :param loglet: what the first segment of a log that is created is kept in.
    :param timeout: the default deadline of each call, in seconds (10 if nothing is said); ``None``
        for none.
    :param entry_bytes_max: the limit on one entry, by default 1 MiB, at most 16 MiB.
    :param in_flight_bytes_max: the limit on what is submitted and not answered, by default 32 MiB.
    """
    return Log(
        _native.open(
            url, create, mode, loglet, timeout, entry_bytes_max, in_flight_bytes_max
        ).wait()
    )


def create(url: str, *, loglet: str | None = None, timeout: Timeout = ...) -> None:
    """Creates the log that ``url`` names; `ConflictError` if there is one."""
    _native.create(url, loglet, timeout).wait()


def delete(url: str, *, timeout: Timeout = ...) -> None:
    """Deletes a log and all its entries; `NotFoundError` if there is none."""
    _native.delete(url, timeout).wait()


def logs(url: str, *, timeout: Timeout = ...) -> list[str]:
    """The names of the logs in a store (a URL that ends in ``/``), sorted."""
    return _native.logs(url, timeout).wait()


def _seconds(log: Log, timeout: Timeout) -> float | None:
    return log.timeout if timeout is ... else timeout
