"""The asyncio API: pipelining, cancellation, loops and threads."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
import virtuallog
from virtuallog import _driver, aio


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main)


def test_open_may_be_awaited_or_entered(url: str) -> None:
    async def main() -> None:
        log = await aio.open(url)
        assert await log.append(b"a") == 0
        await log.close()
        with pytest.raises(virtuallog.ClosedError):
            await log.append(b"b")
        if url.startswith("file"):
            async with aio.open(url) as log:
                assert [entry.payload async for entry in await log.read(0)] == [b"a"]

    run(main())


def test_appends_are_submitted_at_the_call_in_order(url: str) -> None:
    async def main() -> None:
        async with aio.open(url) as log:
            futures = [log.append(b"%d" % number) for number in range(5000)]
            positions = await asyncio.gather(*futures)
            assert positions == sorted(positions)
            read = [entry.payload async for entry in await log.read(0)]
            assert read == [b"%d" % number for number in range(5000)]

    run(main())


def test_append_all_takes_both_kinds_of_iterable(url: str) -> None:
    async def words() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%d" % number

    async def main() -> None:
        async with aio.open(url) as log:
            one = await log.append_all(words())
            two = await log.append_all(b"%d" % number for number in range(20_000))
            assert one is not None and two is not None
            assert (one.count, two.count) == (100, 20_000)
            assert await log.append_all([]) is None

    run(main())


def test_a_subscription_follows(url: str) -> None:
    async def main() -> None:
        async with aio.open(url) as log, log.subscribe("tail") as subscription:
            for number in range(100):
                waiting = asyncio.ensure_future(anext(subscription))
                await log.append(b"%d" % number)
                assert (await waiting).payload == b"%d" % number
                assert subscription.position == number + 1

    run(main())


def test_a_plain_async_for_over_a_subscription(log: virtuallog.Log, url: str) -> None:
    async def main() -> list[bytes]:
        seen = []
        async with aio.open(url) as follower:
            async for entry in follower.subscribe("first"):
                seen.append(entry.payload)
                if len(seen) == 2:
                    break
            async for batch in (await follower.read(0)).batches(1):
                seen += [entry.payload for entry in batch]
        return seen

    log.append_many([b"a", b"b"])
    assert run(main()) == [b"a", b"b", b"a", b"b"]


def test_cancelled_waits_lose_no_entry(url: str) -> None:
    async def main() -> None:
        async with aio.open(url) as log, log.subscribe("first") as subscription:
            seen: list[int] = []
            for number in range(300):
                waiting = asyncio.ensure_future(anext(subscription))
                await asyncio.sleep(0)
                log.append(b"%d" % number)
                # At a different moment each time: before, while and after the entry arrives.
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                waiting.cancel()
                try:
                    seen.append(int((await waiting).payload))
                except asyncio.CancelledError:
                    pass
            while len(seen) < 300:
                seen.append(int((await anext(subscription)).payload))
            assert seen == list(range(300))

    run(main())


def test_a_storm_of_cancelled_appends_loses_only_answers(url: str) -> None:
    async def main() -> None:
        async with aio.open(url) as log:
            futures = [log.append(b"%d" % number) for number in range(2000)]
            for future in futures[::2]:
                future.cancel()
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            assert all(isinstance(o, asyncio.CancelledError) for o in outcomes[::2])
            assert all(isinstance(position, int) for position in outcomes[1::2])
            await log.flush()
            assert (await log.check_tail()).position == 2000
            assert await log.append(b"still usable") == 2000

    run(main())


def test_a_storm_of_cancelled_calls(url: str) -> None:
    async def main() -> None:
        async with aio.open(url) as log:
            tasks = [asyncio.ensure_future(log.check_tail()) for _ in range(500)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert (await log.check_tail()).position == 0
            assert log._driver._futures == {}
            assert len(log._driver._queue) == 0

    run(main())


def test_closing_ends_a_wait_in_another_task(url: str) -> None:
    async def main() -> None:
        async with aio.open(url) as log:
            subscription = log.subscribe("tail")
            waiting = asyncio.ensure_future(anext(subscription))
            await asyncio.sleep(0)
            await subscription.aclose()
            with pytest.raises(virtuallog.ClosedError):
                await waiting
            with pytest.raises(virtuallog.ClosedError):
                await anext(subscription)

    run(main())


def test_timeouts(url: str) -> None:
    async def main() -> None:
        async with aio.open(url, timeout=20) as log:
            assert await log.append(b"x", timeout=None) == 0
            assert (await log.check_tail(timeout=10)).position == 1
            async with log.subscribe("tail", timeout=10) as subscription:
                with pytest.raises(virtuallog.DeadlineError):
                    await subscription.next_batch(timeout=0)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await subscription.next_batch()
                await log.append(b"y")
                assert (await anext(subscription)).payload == b"y"
            await log.close(timeout=10)

    run(main())


def test_bad_arguments_are_told_at_the_call(url: str) -> None:
    async def main() -> None:
        async with aio.open(url) as log:
            with pytest.raises(TypeError, match="encode"):
                log.append("text")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                log.append_many([7])  # type: ignore[list-item]
            with pytest.raises(virtuallog.InvalidError):
                await log.append_many([])
            with pytest.raises(virtuallog.InvalidError):
                log.subscribe(-1)
            with pytest.raises(virtuallog.InvalidError):
                await log.check_tail(timeout=-1)

    run(main())


def test_a_log_belongs_to_its_loop(url: str) -> None:
    async def use(log: aio.Log) -> None:
        with pytest.raises(virtuallog.InvalidError, match="loop"):
            log.append(b"x")

    async def opened() -> aio.Log:
        return await aio.open(url)

    run(use(run(opened())))


def test_two_loops_in_two_threads() -> None:
    async def main(name: str) -> int:
        async with aio.open(f"memory:{name}") as log:
            await asyncio.gather(*(log.append(name.encode()) for _ in range(3000)))
            return len([entry async for entry in await log.read(0)])

    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda name=name: counts.append(run(main(name))))
        for name in ("loop-one", "loop-two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [3000, 3000]


def test_a_loop_closed_with_operations_under_way(url: str) -> None:
    async def main() -> None:
        log = await aio.open(url)
        for number in range(100):
            log.append(b"%d" % number)
        waiting = asyncio.ensure_future(anext(log.subscribe("tail")))
        await asyncio.sleep(0)
        waiting.cancel()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    gone = weakref.ref(loop)
    del loop

    async def count() -> int:
        async with aio.open(url) as log:
            await log.append(b"the next loop")
            return (await log.check_tail()).position

    assert run(count()) == 101
    gc.collect()
    assert gone() is None, "a closed loop is not kept alive"


def test_a_loop_that_watches_no_descriptors(url: str) -> None:
    class Blind(asyncio.SelectorEventLoop):
        def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
            raise NotImplementedError

    async def main() -> None:
        async with aio.open(url) as log:
            await asyncio.gather(*(log.append(b"%d" % number) for number in range(1000)))
            assert [int(e.payload) async for e in await log.read(0)] == list(range(1000))

    loop = Blind()
    try:
        loop.run_until_complete(main())
    finally:
        _driver._close_drivers()
        loop.close()


EXITS = {
    "in the main coroutine": "raise SystemExit(7)",
    "with os threads waiting": """
import threading
threading.Thread(target=lambda: next(virtuallog.open("memory:").subscribe("tail")), daemon=True).start()
raise SystemExit(7)
""",
}


@pytest.mark.parametrize("how", EXITS)
def test_interpreter_exit_with_operations_under_way(how: str, tmp_path: Any) -> None:
    program = f"""
import asyncio, virtuallog
from virtuallog import _driver, aio
async def main():
    log = await aio.open("file:{tmp_path}/store/log")
    for number in range(2000):
        log.append(b"x" * 1000)
    subscription = log.subscribe("tail")
    asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
{"".join("    " + line + chr(10) for line in EXITS[how].splitlines())}
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (7, ""), done.stderr
    assert "Fatal" not in done.stderr and "panicked" not in done.stderr, done.stderr
