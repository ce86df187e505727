"""The second process of the demo: follows a log live, beside its owner, and checks what it gets.

It opens the log to read, so it takes no lock and writes nothing. It prints one line when it follows, and one
JSON object when the log was ended: its findings, and how far it was at which time.
"""

from __future__ import annotations

import json
import sys
import time

import virtuallog

from check import Checker, load
from writers import own

# Seconds between two notes of how far it is.
EVERY_S = 0.02


def main(url: str) -> None:
    checker = Checker(load().lines)
    samples: list[tuple[float, int]] = []
    noted_at = 0.0
    with virtuallog.open(url, mode="read") as log, log.subscribe("first") as subscription:
        print("following", flush=True)
        for batch in subscription.batches():
            checker.feed(own([entry.payload for entry in batch]))
            now = time.monotonic()
            if now - noted_at >= EVERY_S:
                samples.append((now, checker.count))
                noted_at = now
    # How many it should have got is the writer's to say.
    findings = checker.finish(int(sys.stdin.readline()))
    print(json.dumps({"findings": findings.as_dict(), "samples": samples}))


if __name__ == "__main__":
    main(sys.argv[1])
