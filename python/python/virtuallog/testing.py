"""A real cluster for the tests of applications: `LocalCluster`.

Faster yet, where one process is enough and nothing has to fail, is a log in memory: open ``memory:``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from . import _native, _programs
from ._types import Timeout

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
    pid: int | None
    """The number of its process; ``None`` while it is stopped."""

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.pid is not None


class LocalCluster:
    """Servers on loopback, each a process of its own, on temporary directories. A context manager.

    They are those of production, ``virtuallogd`` as this package carries it: sockets, disks, replication.
    Up when the call returns, in about a second; closing removes everything, and so does the end of this
    process. With three nodes (or five) one (or two) may be stopped.

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

    A checkout carries no programs: there those of its target folder are used. ``VIRTUALLOG_BIN_DIR`` names
    another folder to take them from. Where there are none, `NotFoundError` says how to come by them.

    :param nodes: how many, from 1 to 64.
    :param dir: a directory for theirs, made where it is missing, that stays; left out: a temporary one.
    :param timeout: seconds that starting may take (60 if nothing is said); ``None``: no limit.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        dir: str | os.PathLike[str] | None = None,
        timeout: Timeout = ...,
    ) -> None:
        folder = None if dir is None else os.fspath(dir)
        self._native = _native.local_cluster(nodes, folder, _programs.FOLDER, timeout).wait()

    @property
    def url(self) -> str:
        """The store, by the addresses of all nodes: add a log's name to open one."""
        return self._native.url

    @property
    def nodes(self) -> tuple[LocalNode, ...]:
        """All nodes, those that were stopped too."""
        return tuple(LocalNode(*row) for row in self._native.nodes())

    def stop(self, *nodes: int) -> None:
        """Kills nodes as they stand, all or, with `InvalidError` when one does not run, none."""
        self._native.stop(list(nodes)).wait()

    def start(self, *nodes: int, timeout: Timeout = ...) -> None:
        """Starts nodes that were stopped, on their directories and addresses, until all are up."""
        self._native.start(list(nodes), timeout).wait()

    def close(self) -> None:
        """Kills all nodes and removes what was temporary. Idempotent."""
        self._native.close().wait()

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
