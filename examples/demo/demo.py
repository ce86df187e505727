"""A log whose engine is swapped while a program writes to it, and nothing is lost.

This program appends the lines of a real file, one line an entry, pipelined, in passes until at least ten
seconds have gone by. Meanwhile it swaps the active loglet again and again, and a second process
(``follow.py``) follows the log live. At the end this program and the command line read everything back, and
all three readers are compared with the input. The exit status is 0 only when nothing was lost, doubled or out
of order.

Run it with ``make demo``, or ``INPUT=file make demo``. ``check.py`` has the proof, ``report.py`` the report.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import virtuallog
from virtuallog import aio

from check import ROOT, Checker, Findings, Input, load
from report import Report, Swap, counted, grouped

SECONDS = 10.0
SWAPS = 6
# Appends under way at any time.
WINDOW = 4096
# So many appends between two looks at what was acknowledged.
BURST = 128
# How long the follower may take to catch up after the last append.
PATIENCE_S = 60.0

HERE = Path(__file__).resolve().parent


@dataclass
class Written:
    """What the writer knows: for each entry, in the order of appends, its position and when it was told."""

    positions: array[int] = field(default_factory=lambda: array("Q"))
    acked_at: array[float] = field(default_factory=lambda: array("d"))
    submitted: int = 0
    passes: int = 0
    started_at: float = 0.0
    failure: BaseException | None = None


class Writer:
    """Appends pipelined: never more than a window of appends under way."""

    def __init__(self, log: aio.Log) -> None:
        self.log = log
        self.written = Written()
        self.room = asyncio.Event()

    async def run(self, lines: list[bytes]) -> Written:
        """Appends the lines, pass after pass, and waits for the last answer."""
        written = self.written
        written.started_at = time.monotonic()
        while time.monotonic() - written.started_at < SECONDS:
            for start in range(0, len(lines), BURST):
                await self.wait_for_room(WINDOW - BURST)
                for line in lines[start : start + BURST]:
                    self.log.append(line).add_done_callback(self.answered)
                    written.submitted += 1
                # Lets the loop take the answers that came meanwhile.
                await asyncio.sleep(0)
            written.passes += 1
        await self.wait_for_room(0)
        return written

    async def wait_for_room(self, under_way_max: int) -> None:
        while self.written.failure is None and self.under_way() > under_way_max:
            self.room.clear()
            await self.room.wait()
        if self.written.failure is not None:
            raise self.written.failure

    def under_way(self) -> int:
        return self.written.submitted - len(self.written.positions)

    def answered(self, append: asyncio.Future[int]) -> None:
        if error := append.exception():
            self.written.failure = self.written.failure or error
        else:
            self.written.positions.append(append.result())
            self.written.acked_at.append(time.monotonic())
        self.room.set()


async def swap_engines(log: aio.Log, started_at: float) -> list[Swap]:
    """Replaces the active loglet by a new one, evenly spread over the run."""
    swaps: list[Swap] = []
    for number in range(1, SWAPS + 1):
        due = started_at + SECONDS * number / (SWAPS + 1)
        await asyncio.sleep(due - time.monotonic())
        begun = time.monotonic()
        chain = await log.reconfig_extend("local")
        swap = Swap(begun, time.monotonic(), chain.segments[-1].start)
        print(
            f"  {begun - started_at:5.1f} s   swap {number}: a new loglet from position"
            f" {grouped(swap.position)}, done in {swap.took_ms:.1f} ms",
            flush=True,
        )
        swaps.append(swap)
    return swaps


async def write(url: str, source: Input) -> tuple[Written, list[Swap], virtuallog.Chain, Follower]:
    """Writes, swaps and is followed, all at once."""
    async with aio.open(url) as log:
        follower = Follower(url)
        try:
            writer = Writer(log)
            writing = asyncio.create_task(writer.run(source.lines))
            swapping = asyncio.create_task(swap_engines(log, time.monotonic()))
            written, swaps = await asyncio.gather(writing, swapping)
            # The end of the log is what tells the follower that it has seen everything.
            await log.seal()
            chain = await log.chain()
        except BaseException:
            follower.stop()
            raise
    return written, swaps, chain, follower


class Follower:
    """The second process: follows the log live, and tells at the end what it got."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, str(HERE / "follow.py"), url]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "following\n":
            self.stop()
            raise SystemExit("the following process did not start: see its message above")

    def finish(self, written: int) -> tuple[Findings, list[tuple[float, int]]]:
        """Its findings, and how far it was at which time."""
        try:
            out, _ = self.process.communicate(f"{written}\n", timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.stop()
            raise SystemExit(f"the follower did not reach the log's end in {PATIENCE_S:.0f} s") from None
        if self.process.returncode != 0:
            raise SystemExit("the follower failed: see its message above")
        told = json.loads(out)
        return Findings(**told["findings"]), told["samples"]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def read_back(url: str, source: Input, written: Written) -> Findings:
    """This program reads everything back, and compares also where each entry lies."""
    checker = Checker(source.lines)
    misplaced = 0
    with virtuallog.open(url, mode="read") as log:
        for batch in log.read(0).batches():
            at = checker.count
            there = array("Q", [entry.position for entry in batch])
            if there != written.positions[at : at + len(batch)]:
                acked = written.positions[at : at + len(batch)]
                misplaced += sum(a != b for a, b in zip(there, acked, strict=False))
            checker.feed([entry.payload for entry in batch])
    return checker.finish(written.submitted, misplaced)


def read_with_command_line(url: str, source: Input, written: Written) -> Findings:
    """The command line reads everything back: entries as lines."""
    checker = Checker(source.lines)
    command = [command_line(), "read", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        rest = b""
        while chunk := process.stdout.read(1 << 20):
            *lines, rest = (rest + chunk).split(b"\n")
            checker.feed(lines)
    if process.returncode != 0 or rest:
        raise SystemExit(f"`virtuallog read` failed with status {process.returncode}")
    return checker.finish(written.submitted)


def command_line() -> str:
    """The binary that ``make`` built, or the one that is installed."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for found in (os.environ.get("VIRTUALLOG_BIN"), target / "release/virtuallog", target / "debug/virtuallog"):
        if found and Path(found).is_file():
            return str(found)
    if installed := shutil.which("virtuallog"):
        return installed
    raise SystemExit("no `virtuallog` binary: run `cargo build --release -p virtuallog-server` first")


def main() -> int:
    print("virtuallog demo: takes about 20 seconds", flush=True)
    command_line()
    source = load()
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "demo"
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    url = f"file:{store}/demo"
    lines = counted(len(source.lines), "line", "lines")
    print(f"  input   {source.name}: {lines}, one entry each")
    print(f"  log     {url}", flush=True)

    try:
        written, swaps, chain, follower = asyncio.run(write(url, source))
    except virtuallog.VirtualLogError as error:
        raise SystemExit(f"the log refused: {error}") from error
    print("  reading everything back", flush=True)
    followed, samples = follower.finish(written.submitted)
    readers = {
        "second process, live": followed,
        "this program": read_back(url, source, written),
        "virtuallog read": read_with_command_line(url, source, written),
    }
    report = Report(source, url, written, swaps, chain, readers, samples)
    report.print()
    report.write_json(folder / "report.json")
    report.plot(folder / "report.png")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
