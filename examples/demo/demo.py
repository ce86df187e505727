"""A log that goes from one disk to a cluster and back while a program writes to it, and nothing is lost.

This program appends the lines of a real file, one line an entry, pipelined, in passes until its time is over.
Meanwhile it swaps the log's engine, moves the log from its own disk to a cluster of three servers
(``nodes.py``), kills the server that gives the positions, and moves the log back. Clients in several languages
(``writers.py``) append to it all the time, and a second process (``follow.py``) follows it live all the way. At
the end this program and the command line read everything back, and all is compared with what was written. The
exit status is 0 only when nothing was lost, doubled or out of order.

Run it with ``make demo``, or ``INPUT=file make demo``. ``check.py`` has the proof, ``report.py`` the report.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from array import array
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import virtuallog
from virtuallog import aio

from check import Checker, Findings, Input, load
from nodes import TARGET, Nodes, command_line
from report import Event, Report, counted, grouped
from writers import MARK, Others, Writers, commands, own

SECONDS = 20.0
# Appends under way at any time.
WINDOW = 4096
# So many appends between two looks at what was acknowledged.
BURST = 128
# How long the follower may take to catch up after the last append.
PATIENCE_S = 60.0
# Between two looks at whether the others have replaced a server.
LOOK_S = 0.005

HERE = Path(__file__).resolve().parent


@dataclass
class Written:
    """What the writer knows: the position of each entry in the order of appends, and when answers came."""

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
                    self.log.append(line).add_done_callback(partial(self.answered, written.submitted))
                    written.positions.append(0)
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
        return self.written.submitted - len(self.written.acked_at)

    def answered(self, number: int, append: asyncio.Future[int]) -> None:
        if error := append.exception():
            self.written.failure = self.written.failure or error
        else:
            self.written.positions[number] = append.result()
            self.written.acked_at.append(time.monotonic())
        self.room.set()


class Director:
    """What happens to the log while it is written to, and when."""

    def __init__(self, log: aio.Log, writer: Writer, home: str, cluster: Nodes) -> None:
        self.log = log
        self.writer = writer
        self.home = home
        self.away = cluster.url + log.name
        self.cluster = cluster
        self.events: list[Event] = []

    async def run(self, started_at: float) -> list[Event]:
        """All of it, evenly spread over the run."""
        script = [
            ("swap", partial(self.swap, "local"), "another engine, on the same disk"),
            ("move out", partial(aio.move, self.home, self.away), "to the cluster"),
            ("swap", partial(self.swap, "native"), "another engine, in the cluster"),
            ("kill", self.kill_sequencer, "SIGKILL to the server that gave the positions"),
            ("swap", partial(self.swap, "native"), "another engine, with one server dead"),
            ("move back", partial(aio.move, self.away, self.home), "to the disk of this program"),
        ]
        for number, (what, happening, meaning) in enumerate(script, start=1):
            due = started_at + SECONDS * number / (len(script) + 1)
            await asyncio.sleep(due - time.monotonic())
            begun = time.monotonic()
            chain = await happening()
            event = Event(what, begun, time.monotonic(), chain.segments[-1].start)
            print(
                f"  {begun - started_at:5.1f} s   {what}: {meaning}, done in {event.took_ms:.0f} ms",
                flush=True,
            )
            self.events.append(event)
        return self.events

    async def swap(self, loglet: str) -> virtuallog.Chain:
        # A move or the servers may have changed the chain since this handle last saw it.
        newest = await self.log.chain()
        return await self.log.reconfig_extend(loglet, if_version=newest.version)

    async def kill_sequencer(self) -> virtuallog.Chain:
        """Done when the others have replaced it, and an append of after that is acknowledged."""
        before = await self.log.chain()
        nodes = (await aio.nodes(self.cluster.url)).nodes
        self.cluster.kill(next(node.address for node in nodes if node.sequences))
        chain = before
        while chain.version == before.version or chain.next is not None:
            await asyncio.sleep(LOOK_S)
            try:
                chain = await self.log.chain()
            except virtuallog.UnavailableError:
                pass  # It asked the dead one.
        acked = self.writer.written.submitted
        while len(self.writer.written.acked_at) <= acked:
            await asyncio.sleep(LOOK_S)
        return chain


async def write(
    url: str, source: Input, cluster: Nodes, programs: dict[str, list[str]]
) -> tuple[Written, dict[str, array[int]], list[Event], virtuallog.Chain, Follower]:
    """Writes, directs and is followed, all at once."""
    async with aio.open(url) as log:
        follower = Follower(url)
        writers = None
        try:
            writers = await asyncio.to_thread(Writers, programs, url, TARGET / "demo")
            writer = Writer(log)
            writing = asyncio.create_task(writer.run(source.lines))
            director = Director(log, writer, url, cluster)
            directing = asyncio.create_task(director.run(time.monotonic()))
            written, events = await asyncio.gather(writing, directing)
            told = await asyncio.to_thread(writers.finish)
            # The end of the log is what tells the follower that it has seen everything.
            await log.seal()
            chain = await log.chain()
        except BaseException:
            follower.stop()
            if writers is not None:
                writers.stop()
            raise
    return written, told, events, chain, follower


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


def read_back(
    url: str, source: Input, written: Written, told: dict[str, array[int]]
) -> tuple[Findings, dict[str, Findings]]:
    """This program reads everything back, and compares also where each entry lies; then of the others."""
    checker, others = Checker(source.lines), Others(told)
    misplaced = 0
    with virtuallog.open(url, mode="read") as log:
        for everything in log.read(0).batches():
            batch = []
            for entry in everything:
                if entry.payload.startswith(MARK):
                    others.feed(entry.position, entry.payload)
                else:
                    batch.append(entry)
            at = checker.count
            there = array("Q", [entry.position for entry in batch])
            if there != written.positions[at : at + len(batch)]:
                acked = written.positions[at : at + len(batch)]
                misplaced += sum(a != b for a, b in zip(there, acked, strict=False))
            checker.feed([entry.payload for entry in batch])
    return checker.finish(written.submitted, misplaced), others.findings()


def read_with_command_line(url: str, source: Input, written: Written) -> Findings:
    """The command line reads everything back: entries as lines."""
    checker = Checker(source.lines)
    command = [command_line(), "read", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        rest = b""
        while chunk := process.stdout.read(1 << 20):
            *lines, rest = (rest + chunk).split(b"\n")
            checker.feed(own(lines))
    if process.returncode != 0 or rest:
        raise SystemExit(f"`virtuallog read` failed with status {process.returncode}")
    return checker.finish(written.submitted)


def main() -> int:
    print("virtuallog demo: takes about 30 seconds", flush=True)
    command_line()
    source = load()
    folder = TARGET / "demo"
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    programs = commands()
    url = f"file:{store}/demo"
    lines = counted(len(source.lines), "line", "lines")
    print(f"  input   {source.name}: {lines}, one entry each")
    print(f"  log     {url}")
    print(f"  writers in {', '.join(programs)}, beside this program", flush=True)

    with Nodes(folder / "cluster.log") as cluster:
        print(f"  cluster {cluster.url}", flush=True)
        try:
            written, told, events, chain, follower = asyncio.run(write(url, source, cluster, programs))
        except virtuallog.VirtualLogError as error:
            raise SystemExit(f"the log refused: {error}") from error
    print("  reading everything back", flush=True)
    followed, samples = follower.finish(written.submitted)
    here, others = read_back(url, source, written, told)
    readers = {
        "second process, live": followed,
        "this program": here,
        "virtuallog read": read_with_command_line(url, source, written),
    }
    report = Report(source, url, written, events, chain, readers, others, samples)
    report.print()
    report.write_json(folder / "report.json")
    report.plot(folder / "report.png")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
