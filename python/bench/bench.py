"""Measures the Python package: medians of interleaved rounds, beside the same thing in Rust.

    python python/bench/bench.py [ROUNDS] [SECONDS]

One JSON object a line, one line a figure, with its bar where it has one; exit status 1 when one is
missed. Each figure takes SECONDS (default 1) a round, of ROUNDS (default 5). The Rust side is
`target/release/virtuallog bench` and `target/release/examples/rates`, and the logs lie under the target
folder, on the disk that is built on. Build them with optimisation first (`make bench` does).
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

import virtuallog
from virtuallog import aio
from virtuallog.testing import LocalCluster

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[2] / "target"))
PAYLOAD = b"x" * 100
BATCH = [PAYLOAD] * 1000
IN_FLIGHT = 1024

# Figure: its bar, and whether more is better.
BARS = {
    "append_many, 1000 x 100 B": (500_000, True),
    "append_many over Rust's": (0.5, True),
    f"append, asyncio, {IN_FLIGHT} in flight": (100_000, True),
    "read, 100 B": (500_000, True),
    "subscribe over Rust's": (0.5, True),
    "append, sync, 1 in flight, p50 over Rust's": (40, False),
    "append, asyncio, 1 in flight, p50 over Rust's": (80, False),
    "cluster of three, append, sync, p50 over Rust's": (40, False),
    "cluster of three, append, asyncio, p50 over Rust's": (80, False),
    "cluster of three, append_many over Rust's": (0.5, True),
    "cluster of three, subscribe over Rust's": (0.5, True),
    "growth over 1,000,000 operations, MB": (32, False),
    "resident after the run, MB": (300, False),
}
OPERATIONS = 1_000_000
# A disk is now slower, now faster: one append at a time is measured in so many short turns a round.
LATENCY_TURNS = 3


def turns(seconds: float) -> Iterator[float]:
    """The time since the start, until it is over."""
    start = time.perf_counter()
    while (now := time.perf_counter() - start) < seconds:
        yield now


def elapsed(start: float) -> float:
    return time.perf_counter() - start


def rust_append_one(url: str, seconds: float, *form: str) -> float:
    command = [str(TARGET / "release" / "virtuallog"), "bench", url, "--json", *form]
    command += ["--seconds", str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["p50_us"])


def rust_rates(url: str, seconds: float) -> dict[str, float]:
    command = [str(TARGET / "release" / "examples" / "rates"), url, str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def append_one(log: virtuallog.Log, seconds: float) -> float:
    times = []
    for _ in turns(seconds):
        start = time.perf_counter()
        log.append(PAYLOAD)
        times.append(elapsed(start) * 1e6)
    return statistics.median(times)


def append_many(log: virtuallog.Log, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    for _ in turns(seconds):
        log.append_many(BATCH)
        count += len(BATCH)
    return count / elapsed(start)


def append_all(log: virtuallog.Log, seconds: float) -> float:
    start = time.perf_counter()
    appended = log.append_all(PAYLOAD for _ in turns(seconds))
    assert appended is not None
    return appended.count / elapsed(start)


def read(log: virtuallog.Log, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    for _ in turns(seconds):
        for entry in log.read(log.first()):
            count += 1
            if count % 65_536 == 0 and elapsed(start) > seconds:
                break
        assert entry.payload == PAYLOAD
    return count / elapsed(start)


def subscribe(log: virtuallog.Log, seconds: float) -> float:
    tail = log.check_tail().position
    start, count = time.perf_counter(), 0
    while elapsed(start) < seconds:
        with log.subscribe("first") as subscription:
            while subscription.position < tail and elapsed(start) < seconds:
                count += len(subscription.next_batch(1000).payloads())
    return count / elapsed(start)


def follow(log: virtuallog.Log, seconds: float) -> float:
    tail = log.check_tail().position
    start, count = time.perf_counter(), 0
    while elapsed(start) < seconds:
        with log.subscribe("first") as subscription:
            for entry in subscription:
                count += 1
                if entry.position + 1 >= tail or (count % 65_536 == 0 and elapsed(start) > seconds):
                    break
    return count / elapsed(start)


async def aio_append_one(log: aio.Log, seconds: float) -> float:
    times = []
    for _ in turns(seconds):
        start = time.perf_counter()
        await log.append(PAYLOAD)
        times.append(elapsed(start) * 1e6)
    return statistics.median(times)


async def aio_append_pipelined(log: aio.Log, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    pending: deque[asyncio.Future[int]] = deque()
    for _ in turns(seconds):
        pending.append(log.append(PAYLOAD))
        if len(pending) >= IN_FLIGHT:
            await pending.popleft()
            count += 1
    await asyncio.gather(*pending)
    return (count + len(pending)) / elapsed(start)


async def aio_read(log: aio.Log, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    for _ in turns(seconds):
        async with await log.read(await log.first()) as reader:
            async for _entry in reader:
                count += 1
                if count % 65_536 == 0 and elapsed(start) > seconds:
                    break
    return count / elapsed(start)


async def aio_one(url: str, seconds: float) -> float:
    async with aio.open(url) as log:
        return await aio_append_one(log, seconds)


def latency_round(
    directory: str, number: str, seconds: float, figures: defaultdict[str, list[float]]
) -> None:
    """One append at a time, beside the same form in Rust, before anything makes the disk busy."""
    store = f"file:{directory}/one-{number}"
    rust = rust_append_one(f"{store}/rust-blocking", seconds, "--blocking")
    with virtuallog.open(f"{store}-sync/log") as log:
        python = append_one(log, seconds)
    figures["append, sync, 1 in flight, p50"].append(python)
    figures["append, sync, 1 in flight, p50 over Rust's"].append(python - rust)
    rust = rust_append_one(f"{store}/rust-awaited", seconds, "--in-flight", "1")
    python = asyncio.run(aio_one(f"{store}-aio/log", seconds))
    figures["append, asyncio, 1 in flight, p50"].append(python)
    figures["append, asyncio, 1 in flight, p50 over Rust's"].append(python - rust)


async def aio_round(url: str, seconds: float, figures: defaultdict[str, list[float]]) -> None:
    async with aio.open(url) as log:
        name = f"append, asyncio, {IN_FLIGHT} in flight"
        figures[name].append(await aio_append_pipelined(log, seconds))
        figures["read, asyncio, 100 B"].append(await aio_read(log, seconds))


def cluster_rates(
    store: str, number: int, seconds: float, figures: defaultdict[str, list[float]]
) -> None:
    """What waits on a thread, on a cluster."""
    rust = rust_append_one(f"{store}rust-sync-{number}", seconds, "--blocking")
    rates = rust_rates(f"{store}rates-{number}", seconds)
    with virtuallog.open(f"{store}python-sync-{number}") as log:
        figures["cluster of three, append, sync, p50 over Rust's"].append(append_one(log, seconds) - rust)
        many = append_many(log, seconds)
        figures["cluster of three, append_many over Rust's"].append(many / rates["append_many"])
        followed = subscribe(log, seconds)
        figures["cluster of three, subscribe over Rust's"].append(followed / rates["subscribe"])


async def cluster_round(
    store: str, number: int, seconds: float, figures: defaultdict[str, list[float]]
) -> None:
    rust = rust_append_one(f"{store}rust-{number}", seconds, "--in-flight", "1")
    async with aio.open(f"{store}python-{number}") as log:
        one = await aio_append_one(log, seconds)
        figures["cluster of three, append, asyncio, p50 over Rust's"].append(one - rust)
        name = f"cluster of three, append, asyncio, {IN_FLIGHT} in flight"
        figures[name].append(await aio_append_pipelined(log, seconds))


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def growth(url: str) -> float:
    """What the process holds more after a million appends that were answered, and as many entries read."""

    async def work(log: aio.Log, operations: int) -> float:
        for _ in range(0, operations, IN_FLIGHT):
            positions = await asyncio.gather(*(log.append(PAYLOAD) for _ in range(IN_FLIGHT)))
            async with await log.read(positions[0]) as reader:
                assert sum([1 async for _ in reader]) == IN_FLIGHT
            await log.prefix_trim(positions[-1] + 1)
        return resident()

    async with aio.open(url) as log:
        before = await work(log, OPERATIONS // 10)
        return await work(log, OPERATIONS) - before


def measure(directory: str, rounds: int, seconds: float) -> dict[str, list[float]]:
    figures: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(LATENCY_TURNS * rounds):
        latency_round(directory, str(number), seconds / LATENCY_TURNS, figures)
    for number in range(rounds):
        # Fresh logs each round, so that none is longer than the one that it is compared with.
        url = f"file:{directory}/python/log-{number}"
        rates = rust_rates(f"file:{directory}/rust/rates-{number}", seconds)
        with virtuallog.open(url) as log:
            many = append_many(log, seconds)
            figures["append_many, 1000 x 100 B"].append(many)
            figures["append_many over Rust's"].append(many / rates["append_many"])
            followed = subscribe(log, seconds)
            figures["subscribe, payloads of 1000"].append(followed)
            figures["subscribe over Rust's"].append(followed / rates["subscribe"])
            figures["subscribe, entry by entry"].append(follow(log, seconds))
            figures["read, 100 B"].append(read(log, seconds))
            figures["append_all, 100 B"].append(append_all(log, seconds))
        asyncio.run(aio_round(url, seconds, figures))
    with LocalCluster(dir=f"{directory}/cluster") as cluster:
        for number in range(rounds):
            cluster_rates(cluster.url, number, seconds, figures)
            asyncio.run(cluster_round(cluster.url, number, seconds, figures))
    figures["growth over 1,000,000 operations, MB"].append(asyncio.run(growth(f"file:{directory}/python/growth")))
    figures["resident after the run, MB"].append(resident())
    return figures


def main(rounds: int, seconds: float) -> int:
    held = True
    with tempfile.TemporaryDirectory(prefix="bench-python-", dir=TARGET) as directory:
        figures = measure(directory, rounds, seconds)
    for name, values in figures.items():
        unit = "us" if "p50" in name else "MB" if "MB" in name else "entries/s"
        unit = "ratio" if "over Rust's" in name and unit == "entries/s" else unit
        middle = statistics.median(values)
        row: dict[str, object] = {"bench": name, "median": round(middle, 2), "unit": unit}
        if name in BARS:
            bar, at_least = BARS[name]
            holds = middle >= bar if at_least else middle <= bar
            row |= {"bar": f"{'>=' if at_least else '<='} {bar}", "holds": holds}
            held &= holds
        print(json.dumps(row), flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    sys.exit(main(int(given.get(1, 5)), float(given.get(2, 1))))
