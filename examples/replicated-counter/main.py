"""Replicated counter: replicas that play the same log are in the same state."""

import sys

import virtuallog

url = sys.argv[1] if len(sys.argv) > 1 else "file:replicated-counter-data/counter"


class Counter:
    """A replica. What changes it goes through the log, and so does what reads it."""

    def __init__(self, log: virtuallog.Log) -> None:
        self.log = log
        self.played = log.subscribe("first")
        self.total = 0

    def add(self, amount: int) -> None:
        self.log.append(b"%d" % amount)

    def value(self) -> int:
        tail = self.log.check_tail().position  # all that was added before this call
        while self.played.position < tail:
            self.total += int(next(self.played).payload)
        return self.total


# Two in one process here; each on a machine of its own where the log is on a cluster.
with virtuallog.open(url) as first, virtuallog.open(url) as second:
    one, two = Counter(first), Counter(second)
    one.add(5)
    two.add(10)
    print("one:", one.value())
    print("two:", two.value())
    one.add(-3)
    print("two:", two.value())
    print("one that starts later:", Counter(second).value())
