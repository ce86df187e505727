"""A virtual shared log: one totally ordered, durable log whose engine can be swapped while it runs.

>>> import virtuallog
>>> with virtuallog.open("memory:") as log:
...     first = log.append_many([b"one", b"two"])
...     [entry.payload for entry in log.read(first)]
[b'one', b'two']

`virtuallog.open` is for threads, `virtuallog.aio.open` for asyncio. `virtuallog.Server` runs a server of a
cluster in this process, and `virtuallog.testing.LocalCluster` a whole cluster for tests. Every failure is a
`VirtualLogError`. Positions are ints that strictly increase and may skip; ranges are half open.
"""

import warnings as _warnings
from collections.abc import Sequence as _Sequence

from . import _native, aio, errors
from ._cluster import Server, drain, init, move, nodes, remove
from ._log import Log, PendingAppend, Reader, Subscription, create, delete, logs, open
from ._logging import log_to_logging
from ._native import Batch, Entry, __version__
from ._types import (
    Appended,
    Chain,
    ClusterInfo,
    MoveProgress,
    NodeInfo,
    Payload,
    Placement,
    Plan,
    Segment,
    Start,
    Tail,
    Timeout,
    Trimmed,
    VerifyReport,
)
from .errors import (
    BusyError,
    ClosedError,
    ConflictError,
    CorruptError,
    DataLossError,
    DeadlineError,
    DiskFullError,
    IncompatibleError,
    InternalError,
    InvalidError,
    LockedError,
    NotFoundError,
    SealedError,
    TooLargeError,
    TrimmedError,
    UnavailableError,
    VirtualLogError,
)

__all__ = [
    "Appended",
    "Batch",
    "BusyError",
    "Chain",
    "ClosedError",
    "ClusterInfo",
    "ConflictError",
    "CorruptError",
    "DataLossError",
    "DeadlineError",
    "DiskFullError",
    "Entry",
    "IncompatibleError",
    "InternalError",
    "InvalidError",
    "LockedError",
    "Log",
    "MoveProgress",
    "NodeInfo",
    "NotFoundError",
    "Payload",
    "PendingAppend",
    "Placement",
    "Plan",
    "Reader",
    "SealedError",
    "Segment",
    "Server",
    "Start",
    "Subscription",
    "Tail",
    "Timeout",
    "TooLargeError",
    "Trimmed",
    "TrimmedError",
    "UnavailableError",
    "VerifyReport",
    "VirtualLogError",
    "__version__",
    "aio",
    "create",
    "delete",
    "drain",
    "errors",
    "init",
    "log_to_logging",
    "logs",
    "move",
    "nodes",
    "open",
    "remove",
]

_Sequence.register(Batch)

if _native.debug_build:
    _warnings.warn(
        "virtuallog was built without optimisation: do not measure it", RuntimeWarning, stacklevel=2
    )
