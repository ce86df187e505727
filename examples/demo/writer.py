"""A client of the demo in Python: appends numbered entries until it is told to end.

    python writer.py URL NAME

What a writer in any language does: it opens the log URL and appends, some hundred under way at any time, the
entries ``\\0NAME 0``, ``\\0NAME 1``, and so on. Once the first is acknowledged it prints a line, ``writing``. When
its standard input ends it appends no more, waits for all answers, and prints one line: the positions that it
was told, in the order of its entries, as a JSON array. Any failure ends it with another status than 0.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque

from virtuallog import aio

IN_FLIGHT = 256


async def main(url: str, name: str) -> None:
    told_to_end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    positions: list[int] = []
    async with aio.open(url) as log:
        pending: deque[asyncio.Future[int]] = deque()
        count = 0
        while not told_to_end.done():
            pending.append(log.append(b"\0%s %d" % (name.encode(), count)))
            count += 1
            if len(pending) >= IN_FLIGHT:
                positions.append(await pending.popleft())
            if count == IN_FLIGHT:
                print("writing", flush=True)
        positions += await asyncio.gather(*pending)
    print(json.dumps(positions))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
