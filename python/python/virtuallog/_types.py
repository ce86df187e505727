"""The plain values that operations take and give. All are immutable and can be pickled."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    # Known to type checkers; in `collections.abc` from Python 3.12 on.
    from typing_extensions import Buffer

__all__ = [
    "Appended",
    "Chain",
    "ClusterInfo",
    "MoveProgress",
    "NodeInfo",
    "Payload",
    "Placement",
    "Plan",
    "Segment",
    "Start",
    "Tail",
    "Timeout",
    "Trimmed",
    "VerifyReport",
]

Payload: TypeAlias = "Buffer"
"""What can be appended: bytes or any other buffer (`bytearray`, `memoryview`, an array), copied at the call.
Text is encoded by the caller."""

Timeout: TypeAlias = float | None | EllipsisType
"""Seconds that a call may take; ``None`` for as long as it takes; ``...`` (the default) for what the
handle was opened with."""

Start: TypeAlias = int | Literal["first", "tail"]
"""Where a subscription starts: at a position, at the first one kept, or at the tail."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a log ends."""

    position: int
    """The first unwritten position."""
    sealed: bool
    """True when nothing can be appended any more."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What `Log.prefix_trim` did."""

    requested: int
    """The first position to keep, as asked."""
    effective: int
    """The first position that is kept."""
    limited_by: str | None
    """Why ``effective`` is not ``requested``: ``"tail"``, ``"already_trimmed"``, or ``None``."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What `Log.append_all` put into the log. Other writers' entries may lie in between."""

    first: int
    """Position of the first entry."""
    last: int
    """Position of the last entry."""
    count: int
    """How many entries."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A range of the log's positions, and the loglet that holds it."""

    index: int
    """The segment's identity, never used again."""
    start: int
    """The first position."""
    stop: int | None
    """The position after the last; ``None`` while the segment is open."""
    loglet: str
    """What holds it, as users write it, for example ``"local"``."""

    @property
    def sealed(self) -> bool:
        """Whether nothing can be appended to it any more."""
        return self.stop is not None


@dataclass(frozen=True, slots=True)
class Chain:
    """Which loglet holds which positions of a log, at one version."""

    log: str
    """The log's identity: 32 hexadecimal digits, drawn when it was created."""
    version: int
    """What to pass as ``if_version``."""
    segments: tuple[Segment, ...]
    """In order, contiguous, never empty."""
    next: str | None
    """The loglet of a reconfiguration that was begun and not completed; ``"end"`` for a seal."""
    life: Literal["open", "ended", "moved"]
    """Whether the log can go on."""
    moved_to: str | None
    """Where a moved log lives now."""

    @property
    def active(self) -> Segment:
        """The last segment: the open one, unless the log was ended."""
        return self.segments[-1]


@dataclass(frozen=True, slots=True)
class Placement:
    """The nodes of a cluster that a loglet is on. It goes on as long as a majority of them does."""

    members: tuple[int, ...]
    """Numbers of the nodes that hold it."""
    sequencer: int
    """Number of the one that gives its positions."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a `Log.reconfig_extend` would do."""

    version: int
    """The chain version that it speaks of: pass it as ``if_version`` to do exactly this."""
    from_loglet: str
    """The active loglet."""
    to_loglet: str
    """The loglet to come, with all that was left to defaults written out."""
    seals_segment: int
    """Index of the segment that would be sealed."""
    tail: int
    """The tail at the time of planning: the boundary will be here or later."""
    bytes_to_move: int
    """None have to be moved for an extend."""
    objections: tuple[str, ...]
    """What stands against it, in sentences. Empty: it can be done."""
    before: Placement | None = None
    """Where the active loglet is; ``None`` if it is on no nodes."""
    after: Placement | None = None
    """Where the loglet to come would be, as things are now; ``None`` if on no nodes."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `Log.verify` found."""

    segments: int
    """Segments looked at."""
    entries: int
    """Entries read, each with a right checksum."""
    bytes: int
    """Bytes of payload."""
    problems: tuple[str, ...]
    """What is wrong, in sentences that name segment and position. Empty: all is well."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node of a cluster."""

    node: int
    """Its number, never given again."""
    address: str
    """Where it is reached, ``"HOST:PORT"``."""
    zone: str
    """Where it stands: replicas are spread over zones. May be empty."""
    roles: tuple[str, ...]
    """What it does: some of ``"log"``, ``"sequencer"``, ``"metastore"``."""
    metastore: bool
    """Whether it is one of those that hold the chains now."""
    alive: bool
    """Whether it answers."""
    draining: bool
    """Whether nothing new is placed on it."""
    sequences: int
    """How many loglets it gives positions for; 0 when it does not answer."""
    storage: str
    """The identity of its disk: 32 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """A cluster, as one of its nodes sees it."""

    id: str
    """Its identity: 32 hexadecimal digits."""
    nodes: tuple[NodeInfo, ...]
    """Its nodes, by number."""

    @property
    def url(self) -> str:
        """Its store, by the addresses of all its nodes: add a log's name to open one."""
        return f"virtuallog://{','.join(node.address for node in self.nodes)}/"


@dataclass(frozen=True, slots=True)
class MoveProgress:
    """How far a log has come on its way to another store."""

    phase: Literal["engine", "chain", "copy"]
    """What it is at: going over to an engine of the destination, its chain going there, or, when it
    lives there already, copying what was left behind."""
    segments_done: int
    """Sealed segments that were copied."""
    segments_total: int
    """Sealed segments that are to be copied, those included."""
    bytes_done: int
    """Bytes that were copied, with what frames them."""
