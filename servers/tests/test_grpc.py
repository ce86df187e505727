"""The gRPC service of a cluster of ``virtuallogd``, with a client that is none of ours: stubs made from the
``.proto`` file. The programs are those that `LocalCluster` finds, built here unless it is told where.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc
from virtuallog.testing import LocalCluster

SERVERS = Path(__file__).parent.parent
ROOT = SERVERS.parent
BUILD = ["cargo", "build", "--quiet", "-p", "virtuallog-server", "--bins"]


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Messages and stubs as ``grpcio-tools`` makes them."""
    folder = tmp_path_factory.mktemp("stubs")
    proto = SERVERS / "proto"
    out = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", f"-I{proto}", *out, "virtuallog_v1.proto"]) == 0
    sys.path.insert(0, str(folder))
    import virtuallog_v1_pb2 as messages
    import virtuallog_v1_pb2_grpc as stubs

    return SimpleNamespace(**vars(messages), LogStub=stubs.LogStub, ClusterStub=stubs.ClusterStub)


@pytest.fixture(scope="session")
def programs() -> None:
    """The real ones are there."""
    if "VIRTUALLOG_BIN_DIR" not in os.environ:
        subprocess.run(BUILD, cwd=ROOT, check=True, timeout=900)


@pytest.fixture
def cluster(programs: None) -> Iterator[LocalCluster]:
    """Three servers, and nothing in them."""
    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture
def server(cluster: LocalCluster) -> Iterator[SimpleNamespace]:
    """The first of them, and a channel to it."""
    first = cluster.nodes[0]
    with grpc.insecure_channel(first.address) as channel:
        yield SimpleNamespace(pid=first.pid, channel=channel, address=first.address)


@pytest.fixture
def log(api: Any, server: SimpleNamespace) -> Any:
    """A stub of the service."""
    return api.LogStub(server.channel)


def append(api: Any, log: Any, *payloads: bytes, name: str = "a") -> list[Any]:
    """Appends each payload on its own, on one stream; gives the outcomes."""
    requests = [api.AppendRequest(log=name, create=True)]
    requests += [api.AppendRequest(id=n, payloads=[x]) for n, x in enumerate(payloads, 1)]
    return [outcome for reply in log.Append(iter(requests)) for outcome in reply.outcomes]


def trailers(error: grpc.RpcError) -> dict[str, str]:
    """What the product says about a call that failed."""
    return {k: v for k, v in error.trailing_metadata() if k.startswith("virtuallog-")}


def test_what_is_appended_is_read(api: Any, log: Any) -> None:
    payloads = [b"", "grüße".encode(), bytes(range(256)), b"x" * 100_000]
    outcomes = append(api, log, *payloads)
    assert [outcome.id for outcome in outcomes] == [1, 2, 3, 4]
    assert [outcome.position for outcome in outcomes] == [0, 1, 2, 3]
    batch = api.AppendRequest(log="a", id=9, payloads=[b"one", b"two"])
    (reply,) = log.Append(iter([batch]))
    assert (reply.outcomes[0].position, reply.outcomes[0].count) == (4, 2)
    entries = [entry for reply in log.Read(api.ReadRequest(log="a")) for entry in reply.entries]
    assert [entry.position for entry in entries] == list(range(6))
    assert [entry.payload for entry in entries] == [*payloads, b"one", b"two"]
    assert log.CheckTail(api.CheckTailRequest(log="a")).position == 6


def test_a_subscription_follows(api: Any, log: Any) -> None:
    append(api, log, b"0", b"1")
    request = api.SubscribeRequest(log="a", edge=api.SubscribeRequest.EDGE_FIRST)
    replies = log.Subscribe(request)
    assert next(replies).next == 0
    read = [entry.payload for entry in next(replies).entries]
    append(api, log, b"2")
    while len(read) < 3:
        read += [entry.payload for entry in next(replies).entries]
    assert read == [b"0", b"1", b"2"]
    log.Seal(api.SealRequest(log="a"))
    assert list(replies) == []


def test_errors_are_typed(api: Any, log: Any) -> None:
    append(api, log, *[b"x"] * 10)
    log.Trim(api.TrimRequest(log="a", keep_from=7))
    with pytest.raises(grpc.RpcError) as failed:
        list(log.Read(api.ReadRequest(log="a", start=3)))
    assert failed.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert trailers(failed.value) == {
        "virtuallog-code": "TRIMMED",
        "virtuallog-retryable": "false",
        "virtuallog-in-doubt": "false",
        "virtuallog-position": "7",
    }
    with pytest.raises(grpc.RpcError) as failed:
        log.CheckTail(api.CheckTailRequest(log="unknown"))
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    assert "unknown" in failed.value.details()
    with pytest.raises(grpc.RpcError) as failed:
        append(api, log, b"x" * ((1 << 20) + 1))
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert trailers(failed.value)["virtuallog-code"] == "TOO_LARGE"


def test_the_chain_is_changed(api: Any, log: Any) -> None:
    log.Create(api.CreateRequest(log="a"))
    append(api, log, b"x", b"y")
    before = log.GetChain(api.GetChainRequest(log="a"))
    extend = api.ReconfigureRequest.Extend(loglet=before.segments[0].loglet)
    request = api.ReconfigureRequest(log="a", if_version=before.version, extend=extend)
    after = log.Reconfigure(request)
    assert [(part.start, part.stop) for part in after.segments] == [(0, 2), (2, 0)]
    assert not after.segments[1].HasField("stop")
    with pytest.raises(grpc.RpcError) as failed:
        log.Reconfigure(request)
    assert failed.value.code() is grpc.StatusCode.ABORTED
    assert [name for reply in log.List(api.ListRequest()) for name in reply.logs] == ["a"]
    log.Delete(api.DeleteRequest(log="a"))
    assert list(log.List(api.ListRequest())) == []


def test_a_client_needs_no_file_of_ours(server: SimpleNamespace) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(server.channel))
    service = pool.FindServiceByName("virtuallog.v1.Log")
    assert {"Append", "Read", "Subscribe"} <= set(service.methods_by_name)
    service = pool.FindServiceByName("virtuallog.v1.Cluster")
    assert {"ListNodes", "DrainNode"} <= set(service.methods_by_name)
    assert pool.FindServiceByName("grpc.health.v1.Health")


def test_every_server_serves_every_log(api: Any, cluster: LocalCluster) -> None:
    """Whichever of them sequences it, and when that one is killed."""
    channels = [grpc.insecure_channel(node.address) for node in cluster.nodes]
    logs = [api.LogStub(channel) for channel in channels]
    for at, log in enumerate(logs):
        (outcome,) = append(api, log, b"%d" % at)
        assert outcome.position == at
    status = api.ClusterStub(channels[1]).GetStatus(api.GetStatusRequest(log="a"))
    killed = status.segments[-1].sequencer
    cluster.stop(killed)
    alive = [log for at, log in enumerate(logs, 1) if at != killed]
    for at, log in enumerate(alive, len(logs)):
        (outcome,) = append(api, log, b"%d" % at)
        assert outcome.position == at
    for log in alive:
        read = [entry.payload for reply in log.Read(api.ReadRequest(log="a")) for entry in reply.entries]
        assert read == [b"0", b"1", b"2", b"3", b"4"]
    for channel in channels:
        channel.close()


def test_a_cluster_is_looked_at_and_changed(api: Any, log: Any, server: SimpleNamespace) -> None:
    log.Create(api.CreateRequest(log="a", loglet="native:1"))
    append(api, log, b"x", b"y")
    cluster = api.ClusterStub(server.channel)
    before = cluster.ListNodes(api.ListNodesRequest())
    assert len(before.cluster_id) == 32
    assert [node.number for node in before.nodes] == [1, 2, 3]
    assert all(node.alive and node.metastore and not node.draining for node in before.nodes)
    assert list(before.nodes[0].roles) == ["log", "sequencer", "metastore"]
    assert before.nodes[0].address == server.address
    (segment,) = cluster.GetStatus(api.GetStatusRequest(log="a")).segments
    (member,) = segment.members
    assert (segment.segment.start, segment.sequencer) == (0, member.node)
    assert (member.tail, member.sealed, member.error) == (2, False, "")

    leaves = 2 if member.node == 3 else 3
    cluster.DrainNode(api.DrainNodeRequest(node=leaves))
    nodes = cluster.ListNodes(api.ListNodesRequest()).nodes
    assert [node.number for node in nodes if node.draining] == [leaves]
    cluster.RemoveNode(api.RemoveNodeRequest(node=leaves))
    nodes = cluster.ListNodes(api.ListNodesRequest()).nodes
    assert leaves not in [node.number for node in nodes]
    with pytest.raises(grpc.RpcError) as failed:
        cluster.RemoveNode(api.RemoveNodeRequest(node=leaves))
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    assert log.CheckTail(api.CheckTailRequest(log="a")).position == 2


def test_slow_readers_cost_no_memory(api: Any, log: Any, server: SimpleNamespace) -> None:
    """Eight subscriptions that nobody reads, and 48 MiB that all of them could be sent."""
    slow = []
    for _ in range(8):
        channel = grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)])
        edge = api.SubscribeRequest.EDGE_FIRST
        append(api, log)
        replies = api.LogStub(channel).Subscribe(api.SubscribeRequest(log="a", edge=edge))
        next(replies)
        slow.append((channel, replies))
    block = b"x" * 500_000
    for _ in range(12):
        append(api, log, *[block] * 8)
    for channel, replies in slow[:2]:
        count = 0
        while count < 96:
            count += len(next(replies).entries)
        channel.close()
    status = Path(f"/proc/{server.pid}/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024  # type: ignore[index]
    for channel, _ in slow[2:]:
        channel.close()
    # 8 times 48 MiB are 384; what a reader may hold is about 3 MiB.
    assert peak < 200, f"{peak} MiB"
