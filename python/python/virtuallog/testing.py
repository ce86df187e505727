"""A real cluster for the tests of applications: `LocalCluster`.

Faster yet, where one process is enough and nothing has to fail, is a log in memory: open ``memory:``.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from . import _native
from ._cluster import ROLES, Server, init
from ._types import Timeout
from .errors import InvalidError

__all__ = ["LocalCluster", "LocalNode"]


@dataclass(frozen=True, slots=True)
class LocalNode:
    """A node of a `LocalCluster`."""

    node: int
    """Its number: what `LocalCluster.stop` and `LocalCluster.start` take."""
    address: str
    """``"HOST:PORT"``, the same whenever it runs."""
    dir: Path
    """Its directory."""
    running: bool
    """Whether it runs."""


class LocalCluster:
    """Servers on loopback, in this process, on temporary directories. A context manager.

    They are those of production: sockets, disks, replication. Up when the call returns, in less than a
    second; closing removes everything. With three nodes (or five) one (or two) may be stopped.

    >>> import virtuallog
    >>> from virtuallog.testing import LocalCluster
    >>> with LocalCluster() as cluster, virtuallog.open(cluster.url + "orders") as log:
    ...     log.append(b"first")
    ...     cluster.stop(3)
    ...     log.append(b"second")
    0
    1

    In pytest, one for all tests, each with a log of its own::

        @pytest.fixture(scope="session")
        def store():
            with LocalCluster() as cluster:
                yield cluster.url

    :param nodes: how many, from 1 on.
    :param dir: where their directories are made; left out: in a temporary one that is removed.
    """

    def __init__(self, nodes: int = 3, *, dir: Path | None = None) -> None:
        if nodes < 1:
            raise InvalidError(f"a cluster has at least one node: got {nodes}")
        self._temporary = None if dir else tempfile.TemporaryDirectory(prefix="virtuallog-")
        self._dir = dir or Path(self._temporary.name if self._temporary else "")
        self._servers: dict[int, Server] = {}
        self._addresses: dict[int, str] = {}
        try:
            self._begin(range(1, nodes + 1))
        except BaseException:
            self.close()
            raise

    def _begin(self, numbers: range) -> None:
        # All at once: most of starting is waiting for disks.
        starting = [self._serve(node, "127.0.0.1:0") for node in numbers]
        for node, op in zip(numbers, starting, strict=True):
            self._servers[node] = Server._of(op.wait())
        self._addresses = {node: server.address for node, server in self._servers.items()}
        init(self._addresses.values())
        for server in self._servers.values():
            server.ready()

    def _serve(self, node: int, listen: str) -> _native.Op[_native.Server]:
        data = str(self._dir / f"node-{node}")
        return _native.serve(data, listen, None, "", ROLES, (), False, ...)

    @property
    def url(self) -> str:
        """The store, by the addresses of all nodes: add a log's name to open one."""
        return f"virtuallog://{','.join(self._addresses.values())}/"

    @property
    def nodes(self) -> tuple[LocalNode, ...]:
        """All nodes, those that were stopped too."""
        return tuple(
            LocalNode(node, address, self._dir / f"node-{node}", node in self._servers)
            for node, address in self._addresses.items()
        )

    def stop(self, node: int, *, timeout: Timeout = ...) -> None:
        """Stops a node as it stands, as a crash would. `InvalidError` when it does not run."""
        server = self._servers.pop(node, None)
        if server is None:
            raise InvalidError(f"node {node} does not run: there are {sorted(self._servers)}")
        server.close(timeout)

    def start(self, node: int, *, timeout: Timeout = ...) -> None:
        """Starts a node that was stopped, on its directory and address, and waits until it is ready."""
        if node not in self._addresses or node in self._servers:
            stopped = sorted(self._addresses.keys() - self._servers.keys())
            raise InvalidError(f"node {node} was not stopped: those that were are {stopped}")
        self._servers[node] = Server._of(self._serve(node, self._addresses[node]).wait())
        self._servers[node].ready(timeout)

    def close(self) -> None:
        """Stops all nodes and removes what was temporary. Idempotent."""
        closing = [server._native.close(...) for server in self._servers.values()]
        self._servers.clear()
        try:
            for op in closing:
                op.wait()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<virtuallog.testing.LocalCluster {self.url}>"
