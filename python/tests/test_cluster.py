"""Servers in this process, clusters of them, and logs that move between stores."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import virtuallog
from virtuallog import aio
from virtuallog.testing import LocalCluster


def alone(tmp_path: Path) -> virtuallog.Server:
    """A cluster of one."""
    server = virtuallog.Server(tmp_path / "data")
    virtuallog.init([server.address])
    server.ready()
    return server


def until(holds: Callable[[], bool]) -> None:
    """Asks until it holds: nodes learn of a change one after the other, and any of them may answer."""
    while not holds():
        pass


def payloads(log: virtuallog.Log) -> list[bytes]:
    return [entry.payload for entry in log.read(log.first())]


def test_a_server_tells_who_it_is(tmp_path: Path) -> None:
    with virtuallog.Server(tmp_path / "data", zone="here") as server:
        assert (server.node, server.cluster) == (None, None)
        with pytest.raises(virtuallog.DeadlineError):
            server.ready(0)
        made = virtuallog.init([server.address])
        server.ready()
        assert (server.node, server.cluster) == (1, made.id)
        assert server.url == f"virtuallog://{server.address}/" == made.url
        (node,) = virtuallog.nodes(server.url).nodes
        assert (node.node, node.address, node.zone) == (1, server.address, "here")
        assert (node.alive, node.draining, node.metastore, node.sequences) == (True, False, True, 0)
        assert node.roles == ("log", "sequencer", "metastore") and len(node.storage) == 32


def test_a_closed_server_says_so_and_comes_back_with_all_it_had(tmp_path: Path) -> None:
    server = alone(tmp_path)
    address, url = server.address, server.url + "log"
    with virtuallog.open(url) as log:
        log.append(b"kept")
    server.close()
    server.close()
    calls: list[Callable[[], object]] = [
        lambda: server.node, lambda: server.cluster, server.ready, server.drain
    ]
    for call in calls:
        with pytest.raises(virtuallog.ClosedError):
            call()
    assert server.address == address
    with virtuallog.Server(tmp_path / "data", address) as again:
        again.ready()
        with virtuallog.open(url, create=False) as log:
            assert payloads(log) == [b"kept"]


def test_closing_ends_whoever_waits(tmp_path: Path) -> None:
    server = virtuallog.Server(tmp_path / "data")
    ended: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(virtuallog.ClosedError) as caught:
            server.ready(None)
        ended.append(caught.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    server.close()
    waiting.join(60)
    assert len(ended) == 1


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with virtuallog.Server(tmp_path / "data") as server:
        with pytest.raises(virtuallog.LockedError):
            virtuallog.Server(tmp_path / "data")
        with pytest.raises(virtuallog.UnavailableError, match="taken"):
            virtuallog.Server(tmp_path / "other", server.address)
        with pytest.raises(virtuallog.InvalidError, match="init"):
            virtuallog.open(server.url + "log")
        with pytest.raises(TypeError, match="iterable"):
            virtuallog.init(server.address)
    with pytest.raises(virtuallog.InvalidError, match="insecure"):
        virtuallog.Server(tmp_path / "other", "0.0.0.0:0")
    with pytest.raises(virtuallog.InvalidError, match="`log`"):
        virtuallog.Server(tmp_path / "other", roles=["leader"])
    with pytest.raises(TypeError, match="iterable"):
        virtuallog.Server(tmp_path / "other", roles="log")
    with pytest.raises(TypeError):
        virtuallog.Server(7)  # type: ignore[arg-type]
    with pytest.raises(virtuallog.UnavailableError):
        virtuallog.nodes(server.url)
    with pytest.raises(virtuallog.InvalidError):
        virtuallog.nodes("memory:/")
    with pytest.raises(virtuallog.InvalidError):
        virtuallog.init([])


def test_an_application_reads_its_own_replica_without_a_connection(tmp_path: Path) -> None:
    with alone(tmp_path) as server, virtuallog.open(server.url + "log") as log:
        log.append_many([b"a", b"b"])
        log.reconfig_extend("native")
        log.append(b"c")
        assert payloads(log) == [b"a", b"b", b"c"]
        assert connections_to(server.address) == 0


def connections_to(address: str) -> int:
    """How many connections to this address are open, from whomever."""
    host, port = address.split(":")
    there = f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{int(port):04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = "01"
    return sum(row[2] == there and row[3] == established for row in rows)


def test_asyncio_does_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        idle = aio.Server(tmp_path / "idle")
        with pytest.raises(virtuallog.InvalidError, match="async with"):
            idle.address  # noqa: B018
        async with aio.Server(tmp_path / "data") as server:
            made = await aio.init([server.address])
            await server.ready()
            assert (server.node, server.cluster) == (1, made.id)
            assert await aio.nodes(server.url) == virtuallog.nodes(server.url)
            async with aio.open(server.url + "log") as log:
                assert await asyncio.gather(*(log.append(b"x") for _ in range(3))) == [0, 1, 2]
                await server.drain()
            other = await aio.Server(tmp_path / "other", join=[server.address])
            await other.ready()
            await aio.drain(server.url, 2)
            assert [node.draining for node in (await aio.nodes(server.url)).nodes][1]
            await aio.remove(server.url, 2)
            assert [node.node for node in (await aio.nodes(server.url)).nodes] == [1]
            await other.close()
        with pytest.raises(virtuallog.ClosedError):
            await server.ready()

    asyncio.run(main())


def test_a_child_of_fork_has_no_server_and_the_parent_still_has(tmp_path: Path) -> None:
    with alone(tmp_path) as server:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                server.ready()
            except virtuallog.ClosedError:
                with virtuallog.open(server.url + "childs") as log:
                    status = log.append(b"over a connection")
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert virtuallog.logs(server.url) == ["childs"]


def test_a_node_is_drained_and_removed() -> None:
    with LocalCluster(4) as cluster, virtuallog.open(cluster.url + "log") as log:
        log.append(b"a")
        (sequencer,) = [node for node in virtuallog.nodes(cluster.url).nodes if node.sequences]
        virtuallog.drain(cluster.url, sequencer.node)
        log.append(b"b")

        def row() -> list[virtuallog.NodeInfo]:
            return [n for n in virtuallog.nodes(cluster.url).nodes if n.node == sequencer.node]

        until(lambda: [(n.draining, n.sequences) for n in row()] == [(True, 0)])
        virtuallog.remove(cluster.url, sequencer.node)
        until(lambda: not row())
        cluster.stop(sequencer.node)
        log.append(b"c")
        assert payloads(log) == [b"a", b"b", b"c"]
        for call in (virtuallog.drain, virtuallog.remove):
            with pytest.raises(virtuallog.NotFoundError):
                call(cluster.url, 99)


def test_a_local_cluster_goes_on_with_any_one_node_stopped() -> None:
    with LocalCluster() as cluster, virtuallog.open(cluster.url + "log") as log:
        for node in (1, 2, 3):
            log.append(b"before %d" % node)
            cluster.stop(node)
            assert [n.running for n in cluster.nodes] == [n != node for n in (1, 2, 3)]
            log.append(b"without %d" % node)
            cluster.start(node)
        assert len(payloads(log)) == 6
        assert all(n.dir.is_dir() for n in cluster.nodes)
        for call in (lambda: cluster.start(1), lambda: cluster.stop(7)):
            with pytest.raises(virtuallog.InvalidError):
                call()
    assert not any(node.dir.exists() for node in cluster.nodes)


def test_a_log_moves_to_a_cluster_and_back_while_it_is_used(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    home, there = f"file:{tmp_path}/store/moves", cluster.url + "moves"
    seen: list[virtuallog.MoveProgress] = []
    with virtuallog.open(home) as log, log.subscribe("first") as subscription:
        log.append(b"at home")
        chain = virtuallog.move(home, there, progress=seen.append)
        assert {segment.loglet.partition(":")[0] for segment in chain.segments} == {"native"}
        log.append(b"there")
        assert seen and seen[-1].segments_done == seen[-1].segments_total == 1
        back = f"file:{tmp_path}/back/moves"
        chain = virtuallog.move(there, back)
        assert {segment.loglet for segment in chain.segments} == {"local"}
        log.append(b"back")
        with virtuallog.open(home, create=False) as followed:
            assert payloads(followed) == payloads(log) == [b"at home", b"there", b"back"]
        entries = [next(subscription) for _ in range(3)]
        assert [(e.position, e.payload) for e in entries] == [(0, b"at home"), (1, b"there"), (2, b"back")]


def test_a_move_leaves_what_is_sealed_where_it_is(cluster: LocalCluster, tmp_path: Path) -> None:
    home, there = f"file:{tmp_path}/store/stays", cluster.url + "stays"

    async def main() -> list[bytes]:
        async with aio.open(home) as log:
            await log.append(b"stays")
            seen: list[virtuallog.MoveProgress] = []
            chain = await aio.move(home, there, leave_sealed=True, progress=seen.append)
            assert len(chain.segments) == 2 and seen
            await log.append(b"there")
            return [entry.payload async for entry in await log.read(0)]

    assert asyncio.run(main()) == [b"stays", b"there"]


def test_a_move_that_cannot_be_is_refused(cluster: LocalCluster) -> None:
    with pytest.raises(virtuallog.NotFoundError):
        virtuallog.move(cluster.url + "none", "memory:none")
    virtuallog.create(cluster.url + "one")
    with pytest.raises(virtuallog.InvalidError, match="one store"):
        virtuallog.move(cluster.url + "one", cluster.url + "two")
    with pytest.raises(TypeError):
        virtuallog.move(7, "memory:none")  # type: ignore[arg-type]
