"""The demo's input, and the proof that a log holds exactly it.

The log is to hold the input's lines, pass after pass, each line one entry. A :class:`Checker` is fed what
a reader got, in the order it came, and says how many entries were lost, doubled and out of order. Nothing
is marked in the payloads: what is compared is what a user would compare.

As long as both agree this is one comparison a group. From the first surprise on the two are aligned again
and again at the nearest place where several entries in a row agree, as ``diff`` does, since lines may be equal.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path("/var/lib/dpkg/info")
SOURCES = {".rs", ".py", ".md", ".toml", ".sh"}
# So many entries in a row have to agree to take two places for the same.
ROW = 8
NOT_SOURCES = {"target", "node_modules", "__pycache__"}


@dataclass(frozen=True)
class Input:
    """The lines, without their line feeds, and what to call them."""

    name: str
    lines: list[bytes]

    def sha256(self, passes: int) -> str:
        """Of the lines, each with a line feed, so many times over: what ``virtuallog read`` prints."""
        once = b"".join(line + b"\n" for line in self.lines)
        digest = hashlib.sha256()
        for _ in range(passes):
            digest.update(once)
        return digest.hexdigest()


def load() -> Input:
    """The file that ``INPUT`` names, or else the package database's file lists, or else our sources."""
    if wanted := os.environ.get("INPUT"):
        name, files = wanted, [Path(wanted)]
    elif files := sorted(PACKAGES.glob("*.list")):
        name = f"{PACKAGES}/*.list"
    else:
        name, files = "this repository's sources", sources()
    try:
        text = b"".join(ended(file.read_bytes()) for file in files)
    except OSError as error:
        raise SystemExit(f"cannot read the input: {error}; name a readable file with INPUT=") from error
    lines = text.split(b"\n")[:-1]
    if not lines:
        raise SystemExit(f"the input {name} is empty: name a file with lines with INPUT=")
    return Input(name, lines)


def sources() -> list[Path]:
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(f for f in folders if f not in NOT_SOURCES and not f.startswith("."))
        found += [Path(folder, name) for name in sorted(names) if Path(name).suffix in SOURCES]
    return found


def ended(text: bytes) -> bytes:
    return text if not text or text.endswith(b"\n") else text + b"\n"


@dataclass(frozen=True)
class Findings:
    """What one reader got, against what was written."""

    entries: int
    sha256: str
    lost: int
    doubled: int
    reordered: int
    # Entries that lie at another position than their writer was told.
    misplaced: int = 0

    @property
    def clean(self) -> bool:
        return self.lost == self.doubled == self.reordered == self.misplaced == 0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class Checker:
    """Compares what a reader gets with the input, entry by entry."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.count = 0
        self.hash = hashlib.sha256()
        # From the first surprise on: every entry from there, to be matched at the end.
        self.surprise_at = 0
        self.rest: list[bytes] = []

    def feed(self, payloads: list[bytes]) -> None:
        """Takes the next entries."""
        self.hash.update(b"\n".join(payloads) + b"\n" if payloads else b"")
        if self.rest:
            self.rest += payloads
        else:
            self.follow(payloads)
        self.count += len(payloads)

    def follow(self, payloads: list[bytes]) -> None:
        at, lines = self.count, self.lines
        done = 0
        while done < len(payloads):
            line = (at + done) % len(lines)
            expected = lines[line : line + len(payloads) - done]
            if payloads[done : done + len(expected)] != expected:
                self.surprise_at, self.rest = at + done, payloads[done:]
                return
            done += len(expected)

    def finish(self, written: int, misplaced: int = 0) -> Findings:
        """The verdict, given how many entries were written."""
        missing: Counter[bytes] = Counter()
        extra: Counter[bytes] = Counter()
        if self.rest or self.count != written:
            start = self.surprise_at if self.rest else self.count
            due = [self.lines[at % len(self.lines)] for at in range(start, written)]
            spare = [self.lines[at % len(self.lines)] for at in range(written, start)]
            missing, extra = difference(due, self.rest or spare)
        return Findings(
            entries=self.count,
            sha256=self.hash.hexdigest(),
            lost=(missing - extra).total(),
            doubled=(extra - missing).total(),
            reordered=(missing & extra).total(),
            misplaced=misplaced,
        )


def difference(due: list[bytes], got: list[bytes]) -> tuple[Counter[bytes], Counter[bytes]]:
    """What is due and not got where it belongs, and what is got where it does not belong."""
    missing: Counter[bytes] = Counter()
    extra: Counter[bytes] = Counter()
    at = have = 0
    while True:
        while at < len(due) and have < len(got) and due[at] == got[have]:
            at, have = at + 1, have + 1
        if at == len(due) and have == len(got):
            return missing, extra
        skip, pass_over = realign(due, at, got, have)
        missing.update(due[at : at + skip])
        extra.update(got[have : have + pass_over])
        at, have = at + skip, have + pass_over


def realign(due: list[bytes], at: int, got: list[bytes], have: int) -> tuple[int, int]:
    """How many to leave out of each, at the least, until several in a row agree or both end."""
    reach = 64
    while True:
        places: dict[tuple[bytes, ...], int] = {}
        for skip in range(min(reach, len(got) - have) + 1):
            places.setdefault(tuple(got[have + skip : have + skip + ROW]), skip)
        found = [
            (skip, places[row])
            for skip in range(min(reach, len(due) - at) + 1)
            if (row := tuple(due[at + skip : at + skip + ROW])) in places
        ]
        if found:
            return min(found, key=sum)
        reach *= 8
