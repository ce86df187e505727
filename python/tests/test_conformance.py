"""Runs ``bindings/conformance/*.toml`` over the sync and the asyncio API.

The format is told in ``bindings/conformance/README.md``; every language has a runner like this one. The two
APIs differ in how operations are begun and in what has to be awaited; `Blocking` and `Awaited` are that.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import re
import socketserver
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import virtuallog
from virtuallog import aio
from virtuallog.testing import LocalCluster

SCENARIOS = {
    path.stem: tomllib.loads(path.read_text())
    for path in sorted((Path(__file__).parents[2] / "bindings" / "conformance").glob("*.toml"))
}
KINDS = {"memory": "memory", "file": "file", "virtuallog": "cluster"}
LOGLETS = {"memory": "memory", "file": "local", "cluster": "native"}
RUNS = itertools.count()
# What a step gives to the call of the same name, by position and by name.
POSITIONAL = ("payload", "payloads", "segment", "loglet", "token", "start", "keep_from", "end")
OPTIONS = ("if_version", "timeout")


def names(api: Any, *, own_nodes: bool) -> list[str]:
    """The scenarios for this API, in stores that are shared or on clusters of their own."""
    return [
        name
        for name, scenario in SCENARIOS.items()
        if ("nodes" in scenario) == own_nodes and (api is aio or "needs" not in scenario)
    ]


def cases(*, own_nodes: bool) -> list[Any]:
    apis = {"sync": virtuallog, "aio": aio}
    return [
        pytest.param(api, name, kind, id=f"{word}-{name}-{kind}")
        for word, api in apis.items()
        for name in names(api, own_nodes=own_nodes)
        for kind in (["cluster"] if own_nodes else SCENARIOS[name].get("over", LOGLETS))
    ]


@pytest.mark.parametrize(("api", "name", "kind"), cases(own_nodes=False))
def test_scenario(
    request: pytest.FixtureRequest, api: Any, name: str, kind: str, tmp_path: Path
) -> None:
    stores = {"memory": lambda: "memory:/", "file": lambda: f"file:{tmp_path}/store/"}
    stores["cluster"] = lambda: request.getfixturevalue("cluster").url
    asyncio.run(Runner(api, stores[kind](), tmp_path, None).run(SCENARIOS[name]["step"]))


@pytest.mark.parametrize(("api", "name", "kind"), cases(own_nodes=True))
def test_scenario_with_nodes_that_stop(api: Any, name: str, kind: str, tmp_path: Path) -> None:
    assert kind == "cluster"
    with LocalCluster(SCENARIOS[name]["nodes"]) as cluster:
        asyncio.run(Runner(api, cluster.url, tmp_path, cluster).run(SCENARIOS[name]["step"]))


def test_there_are_scenarios() -> None:
    for api in (virtuallog, aio):
        assert sum(len(names(api, own_nodes=own_nodes)) for own_nodes in (False, True)) >= 80
        assert len(names(api, own_nodes=True)) >= 5


async def settled(value: Any) -> Any:
    """The value of a sync call, or what an asynchronous one leads to."""
    return await value if inspect.isawaitable(value) else value


class Blocking:
    """Operations of the synchronous API, begun: appends without waiting, others on a thread."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor()

    def begin(self, owner: Any, what: str, *arguments: Any, **options: Any) -> Any:
        if what == "append":
            return owner.append_nowait(*arguments, **options)
        return self.threads.submit(getattr(owner, what), *arguments, **options)

    async def finish(self, begun: Any) -> Any:
        return begun.result()

    async def cancel(self, begun: Any) -> None:
        assert isinstance(begun, virtuallog.PendingAppend)

    async def opened(self, reader: Any) -> Any:
        return reader

    async def entries(self, reader: Any, count: int | None) -> list[virtuallog.Entry]:
        with reader:
            return list(itertools.islice(reader, count))


class Awaited:
    """Operations of the asyncio API, begun: appends are submitted at the call, others are tasks."""

    def begin(self, owner: Any, what: str, *arguments: Any, **options: Any) -> Any:
        return asyncio.ensure_future(getattr(owner, what)(*arguments, **options))

    async def finish(self, begun: Any) -> Any:
        return await begun

    async def cancel(self, begun: Any) -> None:
        await asyncio.sleep(0)  # Lets it begin.
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun

    async def opened(self, reader: Any) -> Any:
        return await reader.__aenter__()

    async def entries(self, reader: Any, count: int | None) -> list[virtuallog.Entry]:
        entries: list[virtuallog.Entry] = []
        async with reader:
            while len(entries) != count:
                try:
                    entries.append(await anext(reader))
                except StopAsyncIteration:
                    break
        return entries


class Impostor:
    """Listens on loopback, and answers whatever connects with these bytes alone."""

    def __init__(self, answer: bytes) -> None:
        class Answers(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    self.request.sendall(answer)
                    # Until the other side has gone: what nobody reads would take the answer away.
                    while self.request.recv(4096):
                        pass

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers)
        self.address = "{}:{}".format(*self.server.server_address)
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.01])
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Runner:
    """Runs a scenario over the store of this URL."""

    def __init__(self, api: Any, store: str, folder: Path, cluster: LocalCluster | None) -> None:
        self.api = api
        self.way = Awaited() if api is aio else Blocking()
        self.suffix = f"-py{next(RUNS)}"
        self.store = store
        self.kind = KINDS[store.partition(":")[0]]
        self.folder = folder
        self.cluster = cluster
        self.handles: dict[str, Any] = {}
        self.begun: dict[str, Any] = {}
        self.saved: dict[str, Any] = {}
        self.named: dict[str, int] = {}

    async def run(self, steps: list[dict[str, Any]]) -> None:
        # So long a timeout that a machine that is busy is no failure.
        self.handles["main"] = await settled(self.api.open(self.fill("{main}"), timeout=60))
        for number, step in enumerate(steps, 1):
            place = f"step {number}: {step}"
            if "error" in step:
                with pytest.raises(virtuallog.VirtualLogError) as caught:
                    await self.do(step)
                self.fails(step, caught.value, place)
                continue
            result = await self.do(step)
            if "save" in step:
                is_chain = isinstance(result, virtuallog.Chain)
                self.saved[step["save"]] = result.version if is_chain else result
            if "expect" in step:
                self.compare(result, step["expect"], place)
        for handle in self.handles.values():
            if isinstance(handle, (virtuallog.Log, aio.Log)):
                await settled(handle.close())
        for handle in self.handles.values():
            if isinstance(handle, (virtuallog.Server, aio.Server)):
                await settled(handle.close())
            if isinstance(handle, Impostor):
                handle.close()

    def fails(self, step: dict[str, Any], error: virtuallog.VirtualLogError, place: str) -> None:
        assert error.code == step["error"], place
        assert error.in_doubt == step.get("in_doubt", False) == (error.token is not None), place
        assert str(error), place
        assert error.retryable == step.get("retryable", error.retryable), place
        if "error_position" in step:
            assert error.position == self.number(step["error_position"]), place
        if "save_token" in step:
            self.saved[step["save_token"]] = error.token

    async def do(self, step: dict[str, Any]) -> Any:
        what = step["do"]
        if what == "await":
            return await self.way.finish(self.begun.pop(step["of"]))
        if what == "cancel":
            return await self.way.cancel(self.begun.pop(step["of"]))
        if what == "impostor":
            self.handles[step["as"]] = Impostor(payload(step["payload"]))
            return None
        if what in ("stop", "start", "overwrite", "rename"):
            return self.meddle(step)
        if what in ("open", "create", "delete", "logs", "move", "nodes", "drain", "remove"):
            return await self.of_store(step)
        if what in ("init", "serve", "ready", "drain_server", "close_server", "server"):
            return await self.of_server(step)
        if what in ("next", "position", "close_reader"):
            return await self.of_reader(step)
        return await self.of_log(step)

    async def of_store(self, step: dict[str, Any]) -> Any:
        what, url = step["do"], self.fill(step["url"])
        keys = ("create", "mode", "timeout", "entry_bytes_max", "in_flight_bytes_max", "leave_sealed")
        options = {key: step[key] for key in keys if key in step}
        if "loglet" in step:
            options["loglet"] = self.fill(step["loglet"])
        if what == "move":
            return await settled(self.api.move(url, self.fill(step["to"]), **options))
        if what in ("drain", "remove"):
            return await settled(getattr(self.api, what)(url, self.node(step["node"]), **options))
        result = await settled(getattr(self.api, what)(url, **options))
        if what == "open":
            self.handles[step["as"]] = result
        if what == "logs":
            own = [name.removesuffix(self.suffix) for name in result if name.endswith(self.suffix)]
            return own or result
        return result

    async def of_server(self, step: dict[str, Any]) -> Any:
        what = step["do"]
        options = {key: step[key] for key in ("timeout",) if key in step}
        if what == "init":
            addresses = [self.fill(address) for address in step["addresses"]]
            return await settled(self.api.init(addresses, **options))
        if what == "serve":
            listen = self.fill(step.get("listen", "127.0.0.1:0"))
            options["join"] = [self.fill(address) for address in step.get("join", [])]
            server = self.api.Server(self.folder / step["data"], listen, **options)
            self.handles[step["as"]] = await settled(server)
            return None
        server = self.handles[step["server"]]
        if what == "server":
            server.node  # noqa: B018: a closed one raises here.
            return server
        return await settled(getattr(server, what.removesuffix("_server"))(**options))

    async def of_reader(self, step: dict[str, Any]) -> Any:
        what, reader = step["do"], self.handles[step["reader"]]
        if what == "position":
            return reader.position
        if what == "close_reader":
            return await settled((reader.aclose if self.api is aio else reader.close)())
        options = {key: step[key] for key in ("timeout",) if key in step}
        if "begin" in step:
            self.begun[step["begin"]] = self.way.begin(reader, "next_batch", 1, **options)
            return None
        entries: list[virtuallog.Entry] = []
        take = step.get("take", 1)
        while len(entries) < take:
            batch = await settled(reader.next_batch(min(take - len(entries), 64), **options))
            if not batch:
                break
            entries += batch
        return entries

    async def of_log(self, step: dict[str, Any]) -> Any:
        what, log = step["do"], self.handles[step.get("log", "main")]
        arguments = [self.argument(key, step[key]) for key in POSITIONAL if key in step]
        options = {key: self.argument(key, step[key]) for key in OPTIONS if key in step}
        if "begin" in step:
            self.begun[step["begin"]] = self.way.begin(log, what, *arguments, **options)
            return None
        result = await settled(getattr(log, what)(*arguments, **options))
        if what == "append_nowait" and self.api is virtuallog:
            return result.result()
        if what in ("read", "subscribe"):
            if "as" in step:
                self.handles[step["as"]] = await self.way.opened(result)
                return None
            return await self.way.entries(result, step.get("take"))
        return result

    def argument(self, key: str, value: Any) -> Any:
        if key == "payload":
            return payload(value)
        if key == "payloads":
            return payloads(value)
        if key == "loglet":
            return self.fill(value)
        if key == "timeout" or value in ("first", "tail"):
            return value
        if key == "token":
            return self.saved[value[1:]] if value.startswith("$") else value
        return self.number(value)

    def meddle(self, step: dict[str, Any]) -> None:
        """What only the runner can do: to the nodes, and to the files of a store."""
        if "node" in step:
            assert self.cluster is not None
            nodes = step["node"] if isinstance(step["node"], list) else [step["node"]]
            numbers = [self.node(node) for node in nodes]
            (self.cluster.stop if step["do"] == "stop" else self.cluster.start)(*numbers)
            return
        store = Path(self.store.removeprefix("file:"))
        if step["do"] == "rename":
            (store / step["file"]).rename(store / step["to"])
            return
        with (store / step["file"]).open("r+b") as file:
            file.seek(step["at"])
            file.write(payload(step["payload"]))

    def node(self, node: int | str) -> int:
        """A node's number, by it or by what the node is to the only log."""
        if isinstance(node, int):
            return node
        if not self.named:
            rows = virtuallog.nodes(self.store).nodes
            (self.named["sequencer"],) = (row.node for row in rows if row.sequences)
            followers = [row.node for row in rows if not row.sequences]
            self.named |= {f"follower-{number}": n for number, n in enumerate(followers, 1)}
        return self.named[node]

    def fill(self, text: str) -> str:
        def by(found: re.Match[str]) -> str:
            what, _, server = found[1].partition(":")
            if server:
                return str(getattr(self.handles[server], "url" if what == "url" else "address"))
            known = {"store": self.store, "loglet": LOGLETS[self.kind], "away": f"file:{self.folder}/away/"}
            logs = "memory:" if self.kind == "memory" else self.store
            return known.get(what) or f"{logs}{what}{self.suffix}"

        return re.sub(r"\{([^}]*)\}", by, text)

    def number(self, value: int | str) -> int:
        if isinstance(value, int):
            return value
        for sign, factor in (("+", 1), ("-", -1)):
            name, found, amount = value.removeprefix("$").partition(sign)
            if found:
                return int(self.saved[name]) + factor * int(amount)
        return int(self.saved[value.removeprefix("$")])

    def compare(self, result: Any, expected: Any, place: str) -> None:
        if expected == "none":
            assert result is None, place
        elif isinstance(expected, list) or "numbered" in (expected if isinstance(expected, dict) else ()):
            if isinstance(expected, list) and result and isinstance(result[0], str):
                assert result == expected, place
                return
            positions = [entry.position for entry in result]
            assert positions == sorted(set(positions)), place
            assert [entry.payload for entry in result] == payloads(expected), place
        elif isinstance(expected, dict):
            for name, wanted in expected.items():
                found = field(result, name)
                is_number = isinstance(found, int) and not isinstance(found, bool)
                wanted = self.number(wanted) if is_number else None if wanted == "none" else wanted
                assert found == wanted, f"{place}: {name}"
        else:
            assert result == self.number(expected), place


def field(result: Any, name: str) -> Any:
    """A field by its name in the scenarios: collections by how many there are."""
    if isinstance(result, virtuallog.ClusterInfo) and name != "nodes":
        return sum(getattr(node, name) for node in result.nodes)
    found = getattr(result, name)
    if isinstance(found, tuple):
        return len(found)
    return found.decode() if isinstance(found, bytes) else found


def payloads(value: list[Any] | dict[str, int]) -> list[bytes]:
    if isinstance(value, dict):
        return [b"%d" % number for number in range(value["numbered"])]
    return [payload(item) for item in value]


def payload(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if "hex" in value:
        return bytes.fromhex(value["hex"])
    return bytes(value["repeat"].encode() * value["count"])
