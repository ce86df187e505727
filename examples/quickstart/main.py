"""Quickstart: write to a durable log, swap its engine, read everything back."""

import sys

import virtuallog

url = sys.argv[1] if len(sys.argv) > 1 else "file:quickstart-data/fruit"

with virtuallog.open(url) as log:
    log.append(b"apples")
    log.append_many([b"pears", b"plums"])  # one batch: all or nothing
    log.reconfig_extend("local")  # another engine, while the log is in use
    log.append(b"quinces")

    for entry in log.read(0):
        print(entry.text())
    print("tail", log.check_tail().position)
