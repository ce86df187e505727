"""What happens to the whole process: fork, signals, exit, memory."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import virtuallog
from virtuallog import aio


def in_child(body: Callable[[], object]) -> None:
    """Runs `body` in a forked child and fails where it fails."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException as error:  # noqa: BLE001
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(virtuallog.ClosedError, match="fork"):
        call()


def test_a_parents_handles_are_closed_in_the_child(log: virtuallog.Log) -> None:
    log.append(b"before")
    reader = log.read(0)
    subscription = log.subscribe("tail")
    pending = log.append_nowait(b"under way")

    def child() -> None:
        refused(lambda: log.append(b"x"))
        refused(lambda: log.append_many([b"x"]))
        refused(lambda: log.append_nowait(b"x"))
        refused(lambda: log.append_all([b"x"]))
        refused(lambda: log.check_tail())
        refused(lambda: log.read(0))
        refused(lambda: next(reader))
        refused(lambda: next(subscription))
        refused(lambda: pending.result())
        refused(lambda: log.close())
        reader.close()
        subscription.close()

    in_child(child)
    pending.result()
    assert log.append(b"after") == 2
    assert [entry.payload for entry in reader] in ([b"before"], [b"before", b"under way"])
    assert [entry.payload for entry in subscription.next_batch(1)]


def test_the_child_opens_its_own(log: virtuallog.Log, tmp_path: Path) -> None:
    log.append(b"parent's")

    def child() -> None:
        for url in ("memory:", "memory:child", f"file:{tmp_path}/child/log"):
            with virtuallog.open(url) as own:
                assert own.append(b"child's") == 0
                assert [entry.payload for entry in own.read(0)] == [b"child's"]
                in_child(lambda: refused(lambda: own.append(b"x")))
                assert own.append(b"more") == 1

        async def main() -> None:
            async with aio.open(f"file:{tmp_path}/child/log") as own:
                assert await own.append(b"and more") == 2

        asyncio.run(main())

    in_child(child)
    assert log.append(b"parent's") == 1


def test_a_fork_within_a_running_loop(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(f"file:{tmp_path}/store/log") as log:
            await log.append(b"x")
            in_child(lambda: refused(lambda: log.append(b"x")))
            assert await log.append(b"y") == 1

    asyncio.run(main())


def test_a_forks_in_a_row_while_appends_are_under_way(log: virtuallog.Log) -> None:
    count = 0
    for _ in range(20):
        pending = [log.append_nowait(b"x" * 100) for _ in range(100)]
        count += len(pending)
        in_child(lambda: refused(lambda: log.append(b"x")))
        for append in pending:
            append.result()
    assert log.check_tail().position == count


def test_a_child_does_not_keep_the_parents_store_locked(tmp_path: Path) -> None:
    url = f"file:{tmp_path}/store/log"
    reading, writing = os.pipe()
    log = virtuallog.open(url)
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # Lives until the parent lets go.
        os._exit(0)
    os.close(reading)
    log.append(b"x")
    log.close()
    with virtuallog.open(url) as log:
        assert log.append(b"y") == 1
    os.close(writing)
    os.waitpid(child, 0)


def _pool_worker(url: str) -> int:
    with virtuallog.open(url) as log:
        return log.append(b"x")


def test_a_forking_pool(log: virtuallog.Log, tmp_path: Path) -> None:
    log.append(b"x")
    urls = [f"file:{tmp_path}/pool-{number}/log" for number in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_pool_worker, urls) == [0, 0, 0, 0]


SIGINT_CALLS = {
    "subscription": ("memory", "next(log.subscribe('tail'))"),
    "batch": ("memory", "log.subscribe('tail').next_batch(timeout=3600)"),
    "append": ("cluster", "log.append(b'never', timeout=None)"),
    "append_many": ("cluster", "log.append_many([b'never'], timeout=3600)"),
}


@pytest.mark.parametrize("call", SIGINT_CALLS)
def test_ctrl_c_in_a_blocking_call(call: str) -> None:
    # The child interrupts itself from a thread once the main thread waits with the GIL released: below
    # one of these names it holds the GIL until it waits. On a cluster two of three nodes are gone.
    store, waits = SIGINT_CALLS[call]
    program = f"""
import os, signal, sys, threading, virtuallog
from virtuallog.testing import LocalCluster
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where this runs in the background
def interrupt():
    waiting = False
    while not waiting:
        code = sys._current_frames()[threading.main_thread().ident].f_code
        waiting = code.co_name.startswith("append") or "wait" in code.co_names
    os.kill(os.getpid(), signal.SIGINT)
def check(log, without_majority):
    without_majority()
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        {waits}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
if {store!r} == "memory":
    log = virtuallog.open("memory:")
    check(log, lambda: None)
    print(log.append(b"still usable"))
else:
    with LocalCluster() as cluster:
        log = virtuallog.open(cluster.url + "log")
        log.append(b"first")
        check(log, lambda: cluster.stop(2, 3))
        cluster.start(2, 3)
        print(log.append(b"still usable", timeout=None) > 0)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120
    )
    told = "interrupted\n0\n" if store == "memory" else "interrupted\nTrue\n"
    assert (done.returncode, done.stdout) == (0, told), done.stderr


def test_a_signal_handler_runs_and_the_wait_goes_on(log: virtuallog.Log) -> None:
    handled = []

    def handle(number: int, frame: object) -> None:
        handled.append(log.append(b"from the handler"))

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with log.subscribe("tail") as subscription:
            signal.raise_signal(signal.SIGUSR1)
            assert next(subscription).payload == b"from the handler"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled == [0]


def test_exit_without_close_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    url = f"file:{tmp_path}/store/log"
    program = f"""
import virtuallog
log = virtuallog.open({url!r})
print(log.append(b"acknowledged"))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    with virtuallog.open(url) as log:
        assert [entry.payload for entry in log.read(0)] == [b"acknowledged"]


def resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Many operations of every kind do not grow the process."""

    def work(rounds: int) -> None:
        async def main() -> None:
            async with aio.open(url) as own:
                for _ in range(rounds):
                    await asyncio.gather(*(own.append(b"x" * 1000) for _ in range(1000)))
                    await own.prefix_trim((await own.check_tail()).position)
                    reader = asyncio.ensure_future(anext(own.subscribe("tail")))
                    await asyncio.sleep(0)
                    reader.cancel()

        asyncio.run(main())
        with virtuallog.open(url) as log:
            for _ in range(rounds):
                first = log.append_many([b"x" * 1000] * 1000)
                assert sum(1 for _ in log.read(first)) == 1000
                with pytest.raises(virtuallog.InvalidError):
                    log.read(2**63)
                log.prefix_trim(log.check_tail().position)

    url = f"file:{tmp_path}/store/log"
    work(10)
    before = resident_peak()
    work(40)
    assert resident_peak() - before < 32 << 20


def test_the_number_of_threads_is_checked() -> None:
    for value, ok in (("1", True), ("3", True), ("0", False), ("many", False)):
        program = "import virtuallog; print(virtuallog.open('memory:').append(b'x'))"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env=os.environ | {"VIRTUALLOG_RUNTIME_THREADS": value},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode == 0) is ok, done.stderr
        assert ok or "VIRTUALLOG_RUNTIME_THREADS" in done.stderr


def test_another_process_follows_live(tmp_path: Path) -> None:
    url = f"file:{tmp_path}/store/log"
    program = f"""
import virtuallog
with virtuallog.open({url!r}, mode="read") as log, log.subscribe("first") as subscription:
    for entry in subscription:
        print(entry.position, entry.text(), flush=True)
        if entry.payload == b"end":
            break
"""
    with virtuallog.open(url) as log:
        log.append(b"0")
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program], stdout=subprocess.PIPE, text=True
        ) as follower:
            assert follower.stdout is not None
            for number in range(1, 30):
                # Each entry is seen before the next is appended: it is followed, not read at the end.
                assert follower.stdout.readline() == f"{number - 1} {number - 1}\n"
                if number == 15:
                    log.reconfig_extend("local")
                log.append(b"%d" % number)
            log.append(b"end")
            assert follower.wait(60) == 0
