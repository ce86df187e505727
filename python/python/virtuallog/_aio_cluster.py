"""Clusters, for asyncio: the same as `virtuallog.Server` and the functions beside it, awaited."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any

from . import _native
from ._cluster import ROLES
from ._driver import Driver, driver
from ._types import Chain, ClusterInfo, MoveProgress, Timeout
from .errors import InvalidError


class Server:
    """A server of a cluster, in this process: ``async with`` it, or await it to start it.

    The arguments are those of `virtuallog.Server`. It does not start before it is entered or awaited, and
    belongs to the event loop that it was started in; it runs on threads of its own, also while the loop is
    busy. What is told there about stopping and about ``fork`` holds here too.
    """

    __slots__ = ("_arguments", "_driver", "_server")

    def __init__(
        self,
        data: str | os.PathLike[str],
        listen: str = "127.0.0.1:0",
        *,
        advertise: str | None = None,
        zone: str = "",
        roles: Iterable[str] = ROLES,
        join: Iterable[str] = (),
        insecure: bool = False,
        timeout: Timeout = ...,
    ) -> None:
        self._arguments: tuple[Any, ...] = (
            os.fspath(data), listen, advertise, zone, roles, join, insecure, timeout
        )
        self._driver: Driver | None = None
        self._server: _native.Server | None = None

    @property
    def address(self) -> str:
        """``"HOST:PORT"`` by which others reach it."""
        return self._started.address

    @property
    def url(self) -> str:
        """The store of its cluster, by its address: add a log's name to open one."""
        return self._started.url

    @property
    def node(self) -> int | None:
        """Its number in its cluster; ``None`` until it is part of one. `ClosedError` once closed."""
        return self._started.node()

    @property
    def cluster(self) -> str | None:
        """The identity of its cluster: 32 hexadecimal digits; ``None`` until it is part of one."""
        return self._started.cluster()

    async def ready(self, timeout: Timeout = ...) -> None:
        """Waits until it is part of a cluster and can be used: `DeadlineError` after ``timeout`` s."""
        await self._call(self._started.ready(timeout))

    async def drain(self, timeout: Timeout = ...) -> None:
        """Hands the logs that it gives positions for to other nodes, and gets no new ones."""
        await self._call(self._started.drain(timeout))

    async def close(self, timeout: Timeout = ...) -> None:
        """Stops it and gives its directory and port back. Idempotent; when time runs out it goes on."""
        await self._call(self._started.close(timeout))

    @property
    def _started(self) -> _native.Server:
        if self._server is None:
            raise InvalidError("the server was not started: use `async with`, or await it")
        return self._server

    async def _call(self, op: _native.Op[None]) -> None:
        assert self._driver is not None, "a server that was started has one"
        await self._driver.call(op)

    async def _start(self) -> Server:
        if self._server is None:
            self._driver = driver()
            self._server = await self._driver.call(_native.serve(*self._arguments))
        return self

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        return await self._start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        where = "not started" if self._server is None else self.address
        return f"<virtuallog.aio.Server {where}>"


async def init(addresses: Iterable[str], *, timeout: Timeout = ...) -> ClusterInfo:
    """Makes a cluster of the servers at these addresses. See `virtuallog.init`."""
    return await driver().call(_native.init(addresses, timeout))


async def nodes(url: str, *, timeout: Timeout = ...) -> ClusterInfo:
    """The nodes of the cluster that ``url``, a store or a log of it, names."""
    return await driver().call(_native.nodes(url, timeout))


async def drain(url: str, node: int, *, timeout: Timeout = ...) -> None:
    """Hands what a node gives positions for to others. See `virtuallog.drain`."""
    await driver().call(_native.drain(url, node, timeout))


async def remove(url: str, node: int, *, timeout: float | None = None) -> None:
    """Takes a node out of its cluster for good. See `virtuallog.remove`."""
    await driver().call(_native.remove(url, node, timeout))


async def move(
    src: str,
    dst: str,
    *,
    leave_sealed: bool = False,
    progress: Callable[[MoveProgress], object] | None = None,
) -> Chain:
    """Moves a log to another store while it is used. See `virtuallog.move`.

    ``progress`` is called in the event loop. Cancelling stops it; the same call completes it.
    """
    moving = _native.Relocation(src, dst, leave_sealed)
    while not isinstance(step := await driver().call(moving.next()), Chain):
        if progress is not None:
            progress(step)
    return step
