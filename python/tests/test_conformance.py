"""Runs ``bindings/conformance/*.toml`` over the sync and the asyncio API.

The format is told in ``bindings/conformance/README.md``; every language has a runner like this one.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import tomllib
from pathlib import Path
from typing import Any

import pytest
import virtuallog
from virtuallog import aio

SCENARIOS = sorted((Path(__file__).parents[2] / "bindings" / "conformance").glob("*.toml"))
RUNS = itertools.count()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
@pytest.mark.parametrize("api", [virtuallog, aio], ids=["sync", "aio"])
def test_scenario(api: Any, store: str, scenario: Path) -> None:
    steps = tomllib.loads(scenario.read_text())["step"]
    asyncio.run(Runner(api, store).run(steps))


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 15


async def settled(value: Any) -> Any:
    """The value of a sync call, or what an asynchronous one leads to."""
    return await value if inspect.isawaitable(value) else value


class Runner:
    """Runs a scenario over the store of this URL."""

    LOGLETS = {"memory": "memory", "file": "local", "virtuallog": "native"}

    def __init__(self, api: Any, store: str) -> None:
        self.api = api
        self.suffix = f"-py{next(RUNS)}"
        self.store = store
        self.urls = "memory:" if store == "memory:/" else store
        self.loglet = self.LOGLETS[store.partition(":")[0]]
        self.handles: dict[str, Any] = {}
        self.saved: dict[str, int] = {}

    async def run(self, steps: list[dict[str, Any]]) -> None:
        self.handles["main"] = await settled(self.api.open(self.fill("{main}")))
        for number, step in enumerate(steps, 1):
            place = f"step {number}: {step}"
            if "error" in step:
                with pytest.raises(virtuallog.VirtualLogError) as caught:
                    await self.do(step)
                assert caught.value.code == step["error"], place
                assert not caught.value.in_doubt, place
                if "error_position" in step:
                    assert caught.value.position == self.number(step["error_position"]), place
                continue
            result = await self.do(step)
            if "save" in step:
                is_chain = isinstance(result, virtuallog.Chain)
                self.saved[step["save"]] = result.version if is_chain else result
            if "expect" in step:
                self.compare(result, step["expect"], place)
        for log in self.handles.values():
            await settled(log.close())

    async def do(self, step: dict[str, Any]) -> Any:
        what = step["do"]
        if what == "open":
            options = {key: step[key] for key in ("create",) if key in step}
            opened = await settled(self.api.open(self.fill(step["url"]), **options))
            self.handles[step["log"]] = opened
            return None
        if what == "logs":
            names = await settled(self.api.logs(self.fill(step["url"])))
            own = [name for name in names if name.endswith(self.suffix)]
            return [name.removesuffix(self.suffix) for name in own]
        if what in ("create", "delete"):
            return await settled(getattr(self.api, what)(self.fill(step["url"])))
        log = self.handles[step.get("log", "main")]
        if what == "subscribe":
            start = step["start"]
            start = start if start in ("first", "tail") else self.number(start)
            subscription = await settled(log.subscribe(start))
            return await self.take(subscription, step.get("take", 1))
        arguments = []
        if "payload" in step:
            arguments.append(payload(step["payload"]))
        if "payloads" in step:
            arguments.append([payload(item) for item in step["payloads"]])
        if "loglet" in step:
            arguments.append(self.fill(step["loglet"]))
        for key in ("start", "keep_from", "end"):
            if key in step:
                arguments.append(self.number(step[key]))
        options = {key: self.number(step[key]) for key in ("if_version",) if key in step}
        result = await settled(getattr(log, what)(*arguments, **options))
        return await self.take(result, None) if what == "read" else result

    async def take(self, reader: Any, count: int | None) -> list[virtuallog.Entry]:
        entries = []
        if isinstance(reader, aio.Reader):
            async with reader:
                while len(entries) != count:
                    try:
                        entries.append(await anext(reader))
                    except StopAsyncIteration:
                        break
        else:
            with reader:
                entries.extend(itertools.islice(reader, count))
        return entries

    def fill(self, text: str) -> str:
        if not text.startswith("{"):
            return text
        name = text.strip("{}")
        known = {"store": self.store, "loglet": self.loglet}
        return known.get(name) or f"{self.urls}{name}{self.suffix}"

    def number(self, value: int | str) -> int:
        if isinstance(value, int):
            return value
        for sign, factor in (("+", 1), ("-", -1)):
            name, found, amount = value.removeprefix("$").partition(sign)
            if found:
                return self.saved[name] + factor * int(amount)
        return self.saved[value.removeprefix("$")]

    def compare(self, result: Any, expected: Any, place: str) -> None:
        if expected == "none":
            assert result is None, place
        elif isinstance(expected, dict):
            for name, wanted in expected.items():
                found = getattr(result, name)
                if isinstance(found, tuple):
                    found = len(found)
                if isinstance(found, bytes):
                    found = found.decode()
                is_number = isinstance(found, int) and not isinstance(found, bool)
                wanted = self.number(wanted) if is_number else None if wanted == "none" else wanted
                assert found == wanted, f"{place}: {name}"
        elif isinstance(expected, list):
            if result and isinstance(result[0], virtuallog.Entry):
                positions = [entry.position for entry in result]
                assert positions == sorted(set(positions)), place
                assert [entry.payload for entry in result] == [payload(p) for p in expected], place
            else:
                assert result == expected, place
        else:
            assert result == self.number(expected), place


def payload(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return value["repeat"].encode() * value["count"]
