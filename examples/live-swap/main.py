"""Live swap: replace the engine under a log that is in use, and lose nothing."""

import asyncio
import sys

from virtuallog import aio

url = sys.argv[1] if len(sys.argv) > 1 else "file:live-swap-data/numbers"


async def main() -> None:
    async with aio.open(url) as log:
        appends = [log.append(b"%d" % number) for number in range(500)]
        await log.reconfig_extend("local")  # while they are under way
        appends += [log.append(b"%d" % number) for number in range(500, 1000)]
        chain = await log.reconfig_extend("local")
        positions = await asyncio.gather(*appends)

        print(len(chain.segments), "segments")
        print(len(positions), "appended, in order:", word(positions == sorted(positions)))
        numbers = [int(entry.payload) async for entry in await log.read(0)]
        print(len(numbers), "read, in order:", word(numbers == list(range(1000))))


def word(holds: bool) -> str:
    return "yes" if holds else "no"


asyncio.run(main())
