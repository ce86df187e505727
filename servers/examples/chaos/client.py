"""The client in Python: appends, looks, follows, and says what it saw, as ``CLIENTS.md`` has it."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

import virtuallog
from virtuallog import aio

VALUES_MAX = 1_000_000_000
DIGITS = 20
RESOLVE_MAX_S = 10.0
# Between two tail checks, and after how many of them entries are read.
LOOK_S = 0.1
READ_EVERY = 5
READ_MAX = 64
# After a failure of a subscription.
PAUSE_S = 0.05


def payload(value: int) -> bytes:
    return b"%020d" % value * (1 + value % 25)


def value_of(data: bytes) -> int | None:
    digits = data[:DIGITS]
    if len(digits) < DIGITS or not digits.isdigit():
        return None
    value = int(digits)
    return value if payload(value) == data else None


def say(op: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"op": op, **fields}) + "\n")


class Client:
    def __init__(self, log: aio.Log, number: int, rounds_per_s: int) -> None:
        self.log = log
        self.number = number
        self.rounds_per_s = rounds_per_s
        self.count = 0
        self.ended = asyncio.Event()

    def value(self) -> int:
        self.count += 1
        return self.number * VALUES_MAX + self.count - 1

    async def pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.ended.wait(), seconds)
        except TimeoutError:
            pass

    async def appends(self) -> None:
        draw = random.Random(self.number)
        due = time.monotonic()
        while not self.ended.is_set():
            begun = time.monotonic_ns()
            if draw.randrange(100) < 12:
                values = [self.value() for _ in range(draw.randint(2, 8))]
                await self.settle(begun, self.log.append_many([payload(value) for value in values]), values)
            else:
                values = [self.value() for _ in range(draw.randint(1, 16))]
                out = [(time.monotonic_ns(), self.log.append(payload(value)), value) for value in values]
                await asyncio.gather(*(self.settle(begun, append, [value]) for begun, append, value in out))
            due = max(due + 1 / self.rounds_per_s, time.monotonic())
            await self.pause(due - time.monotonic())

    async def settle(self, begun: int, append: asyncio.Future[int], values: list[int]) -> None:
        """Waits for the outcome of one append, looks it up if it is in doubt, and says it."""
        outcome: dict[str, Any] = {}
        try:
            first = await append
        except virtuallog.VirtualLogError as error:
            first, outcome = None, {"error": error.code, "message": str(error), "in_doubt": error.in_doubt}
            if error.in_doubt and error.token is not None:
                try:
                    first = await self.log.resolve(error.token, timeout=RESOLVE_MAX_S)
                    outcome = {"resolved": True}
                    if first is None:
                        outcome |= {"error": error.code, "message": str(error), "in_doubt": False}
                except virtuallog.VirtualLogError:
                    pass
        ended = time.monotonic_ns()
        for index, value in enumerate(values):
            place = {} if first is None else {"position": first + index}
            say("append", **{"from": begun}, to=ended, value=value, **place, **outcome)

    async def looks(self) -> None:
        count = 0
        while not self.ended.is_set():
            begun = time.monotonic_ns()
            try:
                tail = await self.log.check_tail()
            except virtuallog.VirtualLogError as error:
                self.fails(begun, "check_tail", error)
            else:
                ended = time.monotonic_ns()
                say("tail", **{"from": begun}, to=ended, position=tail.position, sealed=tail.sealed)
                if count % READ_EVERY == 0:
                    await self.read(max(tail.position - READ_MAX, 0), tail.position)
            count += 1
            await self.pause(LOOK_S)

    async def read(self, start: int, end: int) -> None:
        begun, after = time.monotonic_ns(), start
        try:
            async for entry in await self.log.read(start, end):
                after = self.saw(begun, after, entry)
        except virtuallog.VirtualLogError as error:
            self.lost(begun, after, "read", error)
        else:
            say("end", **{"from": begun}, to=time.monotonic_ns(), position=end, after=after)

    async def follows(self) -> None:
        after = 0
        while not self.ended.is_set():
            begun = time.monotonic_ns()
            try:
                async with self.log.subscribe(after) as entries:
                    async for batch in entries.batches():
                        for entry in batch:
                            after = self.saw(begun, after, entry)
                        begun = time.monotonic_ns()
            except virtuallog.VirtualLogError as error:
                after = self.lost(begun, after, "subscription", error)
            await self.pause(PAUSE_S)

    def saw(self, begun: int, after: int, entry: virtuallog.Entry) -> int:
        value = value_of(bytes(entry.payload))
        if value is None:
            say("alien", position=entry.position)
        else:
            ended = time.monotonic_ns()
            say("entry", **{"from": begun}, to=ended, position=entry.position, value=value, after=after)
        return entry.position + 1

    def lost(self, begun: int, after: int, call: str, error: virtuallog.VirtualLogError) -> int:
        """Says why reading went no further than ``after``, and gives where it goes on."""
        if error.code == "TRIMMED" and error.position is not None:
            say("trimmed", **{"from": begun}, to=time.monotonic_ns(), position=after, kept=error.position)
            return max(error.position, after)
        self.fails(begun, call, error)
        return after

    def fails(self, begun: int, call: str, error: virtuallog.VirtualLogError) -> None:
        ended = time.monotonic_ns()
        say("error", **{"from": begun}, to=ended, call=call, error=error.code, message=str(error))


async def opened(url: str) -> aio.Log:
    while True:
        try:
            return await aio.open(url)
        except virtuallog.VirtualLogError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(PAUSE_S)


async def main(url: str, number: str, rounds_per_s: str, follow: str) -> None:
    loop = asyncio.get_running_loop()
    async with await opened(url) as log:
        client = Client(log, int(number), int(rounds_per_s))
        working = [asyncio.create_task(client.appends()), asyncio.create_task(client.looks())]
        following = asyncio.create_task(client.follows()) if follow == "follow" else None
        await loop.run_in_executor(None, sys.stdin.read)
        client.ended.set()
        await asyncio.gather(*working)
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
