"""Tailer: follow a log while it is written, stop, and resume where you stopped."""

import sys
import threading

import virtuallog

url = sys.argv[1] if len(sys.argv) > 1 else "file:tailer-data/lines"

with virtuallog.open(url) as log:

    def write() -> None:
        log.append_all(b"line %d" % number for number in range(1, 6))

    writer = threading.Thread(target=write)  # just as well another process
    with log.subscribe("first") as subscription:
        writer.start()
        for _ in range(3):
            print(next(subscription).text())  # waits until there is one
        saved = subscription.position  # what to keep in order to resume
    writer.join()

    print("resumed at", saved)
    with log.subscribe(saved) as subscription:
        for _ in range(2):
            print(next(subscription).text())
