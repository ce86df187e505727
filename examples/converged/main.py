"""Converged: an application that is its own replica.

The server and the log are in one process, so reading takes no connection. Start the same program on other
machines with the first one's address, and each of them holds the orders, reads them locally, and goes on
when another one is gone.
"""

import sys

import virtuallog

data = sys.argv[1] if len(sys.argv) > 1 else "converged-data"
join = sys.argv[2:]  # addresses of those that run already

with virtuallog.Server(data, join=join) as server:
    if server.cluster is None:
        virtuallog.init([server.address])
    server.ready()
    with virtuallog.open(server.url + "orders") as log:
        log.append(b"apples")
        for entry in log.read(0):
            print(entry.position, entry.text())
    server.drain()  # others take over what it sequenced, before it is gone
