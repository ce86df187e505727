"""Clusters, for threads: a server in this process, what is done to a cluster, and logs that move.

An application that runs a `Server` is its own replica: a log of the server's cluster that is opened in the
same process is read without a connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from types import TracebackType

from . import _native
from ._types import Chain, ClusterInfo, MoveProgress, Timeout

ROLES = ("log", "sequencer", "metastore")
"""What a server can do for its cluster."""


class Server:
    """A server of a cluster, in this process. A context manager that closes itself.

    Runs from the call on, on threads of its own that run no Python code, until it is closed. A server whose
    directory belongs to no cluster waits until `virtuallog.init` makes one, or joins the one of ``join``.

    >>> import tempfile, virtuallog
    >>> with tempfile.TemporaryDirectory() as data, virtuallog.Server(f"{data}/store") as server:
    ...     cluster = virtuallog.init([server.address])
    ...     server.ready()
    ...     with virtuallog.open(server.url + "orders") as log:
    ...         log.append(b"first")
    0

    :param data: its directory, made if its parent is there. Belongs to one server at a time
        (`LockedError`), and to its node of its cluster for good.
    :param listen: ``"HOST:PORT"``; port 0 is a free one. Taken: `UnavailableError`.
    :param advertise: ``"HOST:PORT"`` by which others reach it, if not the one that it listens on. Others
        remember it: give the same one again when the directory is started again.
    :param zone: where it stands; replicas are spread over zones.
    :param roles: what it does: hold logs, give positions (which needs the first), hold the chains.
    :param join: addresses of a cluster to join while its directory belongs to none.
    :param insecure: allows an address that other machines reach: connections are not encrypted, so
        without it that is an `InvalidError`.
    :param timeout: seconds that starting may take (10 if nothing is said); ``None``: no limit.

    Threads may share it. Stopping without `drain`, be it by `close`, by the end of the process or of the
    last reference, is what the rest of the cluster takes for a crash: it goes on after a moment.

    After a ``fork`` the child's copy raises `ClosedError`. The child also keeps the port taken until it
    ends or runs another program: fork before starting a server, or use ``spawn``.
    """

    __slots__ = ("_native",)

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
        self._native = _native.serve(
            os.fspath(data), listen, advertise, zone, roles, join, insecure, timeout
        ).wait()

    @classmethod
    def _of(cls, native: _native.Server) -> Server:
        server = cls.__new__(cls)
        server._native = native
        return server

    @property
    def address(self) -> str:
        """``"HOST:PORT"`` by which others reach it."""
        return self._native.address

    @property
    def url(self) -> str:
        """The store of its cluster, by its address: add a log's name to open one."""
        return self._native.url

    @property
    def node(self) -> int | None:
        """Its number in its cluster; ``None`` until it is part of one. `ClosedError` once closed."""
        return self._native.node()

    @property
    def cluster(self) -> str | None:
        """The identity of its cluster: 32 hexadecimal digits; ``None`` until it is part of one."""
        return self._native.cluster()

    def ready(self, timeout: Timeout = ...) -> None:
        """Waits until it is part of a cluster and can be used.

        At most ``timeout`` seconds (10 if nothing is said; ``None``: as long as it takes), then
        `DeadlineError`. Raises `DataLossError` when the others say that its disk has forgotten something.
        """
        self._native.ready(timeout).wait()

    def drain(self, timeout: Timeout = ...) -> None:
        """Hands the logs that it gives positions for to other nodes, and gets no new ones.

        Before `close`, so that nobody notices that. Does nothing where there is no other node.
        Lasts until the directory is started again. When ``timeout`` passes (10 s if nothing is said),
        `DeadlineError`: some may have been handed over.
        """
        self._native.drain(timeout).wait()

    def close(self, timeout: Timeout = ...) -> None:
        """Stops it and gives its directory and port back. Idempotent; when time runs out it goes on."""
        self._native.close(timeout).wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<virtuallog.Server {self.address}>"


def init(addresses: Iterable[str], *, timeout: Timeout = ...) -> ClusterInfo:
    """Makes a cluster of the servers at these addresses, which belong to none yet.

    The first ones, at most five and an odd number, hold the chains; of those that join later more do.
    Again after an interruption: completes it. `UnavailableError` when one does not answer, `ConflictError` when one belongs to another
    cluster.
    """
    return _native.init(addresses, timeout).wait()


def nodes(url: str, *, timeout: Timeout = ...) -> ClusterInfo:
    """The nodes of the cluster that ``url``, a store or a log of it, names."""
    return _native.nodes(url, timeout).wait()


def drain(url: str, node: int, *, timeout: Timeout = ...) -> None:
    """Hands what a node gives positions for to others, and places nothing new on it.

    Lasts until the node is started again. `NotFoundError` when the cluster has no such node.
    """
    _native.drain(url, node, timeout).wait()


def remove(url: str, node: int, *, timeout: float | None = None) -> None:
    """Takes a node out of its cluster for good: drains it and copies what it holds to others first.

    As long as that takes, unless a timeout is given; when that passes, do it again. `NotFoundError` when
    there is no such node; `InvalidError` or `UnavailableError` when the others could not keep what it
    holds.
    """
    _native.remove(url, node, timeout).wait()


def move(
    src: str,
    dst: str,
    *,
    leave_sealed: bool = False,
    progress: Callable[[MoveProgress], object] | None = None,
) -> Chain:
    """Moves the log ``src`` to ``dst``, a name in another store, while it is used; gives its chain there.

    No entry and no position changes. Open handles follow, and so does whoever opens ``src`` later. Takes
    as long as it takes. Whatever ends it early (an error, Ctrl-C), the log goes on in one of both stores,
    and the same call completes it.

    :param leave_sealed: leaves what is sealed where it is; the log then needs that store as long as it
        keeps those entries.
    :param progress: called on this thread, as it goes on, with how far it is.

    `InvalidError` for two names in one store; `NotFoundError` when there is no log ``src``; `SealedError`
    when it was ended; `ConflictError` when there is another log ``dst``.
    """
    moving = _native.Relocation(src, dst, leave_sealed)
    while not isinstance(step := moving.next().wait(), Chain):
        if progress is not None:
            progress(step)
    return step
