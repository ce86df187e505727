"""Measures the Python package: one JSON object a line, one line a figure.

    python python/bench/bench.py [URL] [SECONDS]

URL is a log or `memory:` (default: a `file:` log in a temporary directory); each figure takes about
SECONDS (default 2). Build with optimisation first: `pip install ./python`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator

import virtuallog
from virtuallog import aio

PAYLOAD = b"x" * 100
BATCH = [PAYLOAD] * 1000
IN_FLIGHT = 1024


def report(name: str, **figures: float) -> None:
    print(json.dumps({"bench": name, **{key: round(v, 1) for key, v in figures.items()}}), flush=True)


def turns(seconds: float) -> Iterator[float]:
    """The time since the start, until it is over."""
    start = time.perf_counter()
    while (now := time.perf_counter() - start) < seconds:
        yield now


def elapsed(start: float) -> float:
    return time.perf_counter() - start


def append_one(log: virtuallog.Log, seconds: float) -> None:
    times = []
    for _ in turns(seconds):
        start = time.perf_counter()
        log.append(PAYLOAD)
        times.append(elapsed(start) * 1e6)
    cuts = statistics.quantiles(times, n=100)
    report("append, sync, 1 in flight", p50_us=cuts[49], p99_us=cuts[98])


def append_many(log: virtuallog.Log, seconds: float) -> None:
    start, count = time.perf_counter(), 0
    for _ in turns(seconds):
        log.append_many(BATCH)
        count += len(BATCH)
    report("append_many, 1000 x 100 B", entries_per_s=count / elapsed(start))


def append_all(log: virtuallog.Log, seconds: float) -> None:
    start = time.perf_counter()
    appended = log.append_all(PAYLOAD for _ in turns(seconds))
    assert appended is not None
    report("append_all, 100 B", entries_per_s=appended.count / elapsed(start))


def read(log: virtuallog.Log, seconds: float) -> None:
    start, count = time.perf_counter(), 0
    for _ in turns(seconds):
        for entry in log.read(log.first()):
            count += 1
            if count % 65_536 == 0 and elapsed(start) > seconds:
                break
        assert entry.payload == PAYLOAD
    report("read, 100 B", entries_per_s=count / elapsed(start))


async def aio_append_one(url: str, seconds: float) -> None:
    async with aio.open(url) as log:
        times = []
        for _ in turns(seconds):
            start = time.perf_counter()
            await log.append(PAYLOAD)
            times.append(elapsed(start) * 1e6)
    cuts = statistics.quantiles(times, n=100)
    report("append, asyncio, 1 in flight", p50_us=cuts[49], p99_us=cuts[98])


async def aio_append_pipelined(url: str, seconds: float) -> None:
    async with aio.open(url) as log:
        start, count = time.perf_counter(), 0
        pending: deque[asyncio.Future[int]] = deque()
        for _ in turns(seconds):
            pending.append(log.append(PAYLOAD))
            if len(pending) >= IN_FLIGHT:
                await pending.popleft()
                count += 1
        await asyncio.gather(*pending)
        count += len(pending)
        report(f"append, asyncio, {IN_FLIGHT} in flight", entries_per_s=count / elapsed(start))


async def aio_read(url: str, seconds: float) -> None:
    async with aio.open(url) as log:
        start, count = time.perf_counter(), 0
        for _ in turns(seconds):
            async with await log.read(await log.first()) as reader:
                async for _entry in reader:
                    count += 1
                    if count % 65_536 == 0 and elapsed(start) > seconds:
                        break
        report("read, asyncio, 100 B", entries_per_s=count / elapsed(start))


def main(url: str | None, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="virtuallog-bench-") as directory:
        url = url or f"file:{directory}/bench"
        if url == "memory:":
            url = "memory:bench"
        with virtuallog.open(url) as log:
            append_one(log, seconds)
            append_many(log, seconds)
            append_all(log, seconds)
            read(log, seconds)
        asyncio.run(aio_append_one(url, seconds))
        asyncio.run(aio_append_pipelined(url, seconds))
        asyncio.run(aio_read(url, seconds))


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    main(given.get(1) or None, float(given.get(2, 2)))
