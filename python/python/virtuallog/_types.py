"""The plain values that operations take and give. All are immutable and can be pickled."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import Literal, TypeAlias

__all__ = [
    "Appended",
    "Chain",
    "Payload",
    "Plan",
    "Segment",
    "Start",
    "Tail",
    "Timeout",
    "Trimmed",
    "VerifyReport",
]

Payload: TypeAlias = bytes | bytearray | memoryview
"""What can be appended: bytes, copied at the call. Text is encoded by the caller."""

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
