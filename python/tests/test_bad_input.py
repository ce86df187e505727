"""Wrong arguments and broken stores: each gets its typed error, at the call, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import virtuallog
from virtuallog import Log, aio


@pytest.mark.parametrize("payload", ["text", 7, None, [b"x"], {"a": 1}])
def test_a_payload_that_is_no_bytes(log: Log, payload: Any) -> None:
    calls = (log.append, log.append_nowait, lambda p: log.append_many([b"ok", p]),
             lambda p: log.append_all([p]))
    for call in calls:
        with pytest.raises(TypeError):
            call(payload)
    assert log.check_tail().position == 0


def test_text_gets_a_hint(log: Log) -> None:
    with pytest.raises(TypeError, match="encode"):
        log.append("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="append"):
        log.append_many(b"text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="append"):
        log.append_many("text")  # type: ignore[arg-type]


@pytest.mark.parametrize("position", [1.0, 0.5, "0", b"0", True, None])
def test_a_position_that_is_no_int(log: Log, position: Any) -> None:
    for call in (log.read, log.read_next, log.prefix_trim):
        with pytest.raises(TypeError, match="position"):
            call(position)


@pytest.mark.parametrize("position", [-1, -(2**63), 2**64, 2**100])
def test_a_position_out_of_range(log: Log, position: int) -> None:
    for call in (log.read, log.read_next, log.prefix_trim, log.subscribe):
        with pytest.raises(virtuallog.InvalidError, match="from 0"):
            call(position)


def test_a_start_that_is_no_start(log: Log) -> None:
    with pytest.raises(virtuallog.InvalidError, match="first"):
        log.subscribe("end")  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [-1, -0.1, float("nan"), float("-inf"), 1e300])
def test_a_timeout_that_cannot_be(log: Log, timeout: float) -> None:
    with pytest.raises(virtuallog.InvalidError, match="seconds"):
        log.check_tail(timeout=timeout)


@pytest.mark.parametrize("timeout", ["1", b"1", True, [1]])
def test_a_timeout_that_is_no_number(log: Log, timeout: Any) -> None:
    with pytest.raises(TypeError, match="seconds"):
        log.append(b"x", timeout=timeout)


def test_no_time_limit(log: Log) -> None:
    assert log.append(b"x", timeout=None) == 0
    assert log.append(b"y", timeout=float("inf")) == 1
    assert log.check_tail(timeout=None).position == 2


def test_a_payload_whose_memory_is_gone(log: Log) -> None:
    view = memoryview(b"gone")
    view.release()
    for call in (log.append, log.append_nowait, lambda p: log.append_many([p]), lambda p: log.append_all([p])):
        with pytest.raises(ValueError, match="released"):
            call(view)
    assert log.check_tail().position == 0


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("size", [0, -1, 0.5, "1", None, True])
def test_a_batch_size_of_nothing(log: Log, size: Any, begun: bool) -> None:
    log.append_many([b"0", b"1", b"2"])
    reader = log.read(0)
    if begun:
        next(reader)
    wrong = virtuallog.InvalidError if size in (0, -1) else TypeError
    with pytest.raises(wrong):
        reader.next_batch(size)
    assert [entry.payload for entry in reader.next_batch(2**64)] == [b"0", b"1", b"2"][begun:]


def test_a_batch_size_of_nothing_awaited(url: str) -> None:
    async def main() -> None:
        async with aio.open(url) as log:
            await log.append_many([b"0", b"1", b"2"])
            reader = await log.read(0)
            await anext(reader)
            for size in (0, -1):
                with pytest.raises(virtuallog.InvalidError):
                    await reader.next_batch(size)
            with pytest.raises(TypeError):
                await reader.next_batch("1")  # type: ignore[arg-type]
            assert [entry.payload for entry in await reader.next_batch(2**64)] == [b"1", b"2"]

    asyncio.run(main())


def test_what_an_iterator_raises(log: Log) -> None:
    mine = RuntimeError("mine")

    def payloads() -> Iterator[bytes]:
        yield b"before"
        raise mine

    for call, left in ((log.append_many, []), (log.append_all, [b"before"])):
        with pytest.raises(RuntimeError) as raised:
            call(payloads())
        assert raised.value is mine
        log.flush()
        assert [entry.payload for entry in log.read(0)] == left


@pytest.mark.parametrize("call", ["move", "aio.move"])
def test_what_progress_raises_stops_a_move(call: str, tmp_path: Path) -> None:
    src, dst = f"file:{tmp_path}/a/log", f"file:{tmp_path}/b/log"
    mine = RuntimeError("mine")

    def progress(_: object) -> None:
        raise mine

    def move(**how: Any) -> None:
        moving: Any = aio.move if call == "aio.move" else virtuallog.move
        if call == "aio.move":

            async def main() -> None:
                await moving(src, dst, **how)

            asyncio.run(main())
        else:
            moving(src, dst, **how)

    with virtuallog.open(src) as log:
        log.append(b"kept")
        try:
            move(progress=progress)
        except RuntimeError as error:  # There may be no step between the first and the last.
            assert error is mine
        # The same call completes it, unless it is complete.
        with contextlib.suppress(virtuallog.NotFoundError):
            move()
        assert [entry.payload for entry in log.read(0)] == [b"kept"]


def test_a_token_that_is_none(log: Log) -> None:
    with pytest.raises(virtuallog.InvalidError, match="token"):
        log.resolve("not a token")


@pytest.mark.parametrize("url", [7, None, b"memory:", Path("memory:")])
def test_a_url_that_is_no_text(url: Any) -> None:
    for call in (virtuallog.open, virtuallog.create, virtuallog.delete, virtuallog.logs):
        with pytest.raises(TypeError, match="URL"):
            call(url)


def test_a_mode_that_is_none() -> None:
    with pytest.raises(virtuallog.InvalidError, match="mode"):
        virtuallog.open("memory:", mode="append")  # type: ignore[arg-type]


def test_limits_that_cannot_be() -> None:
    with pytest.raises(virtuallog.InvalidError):
        virtuallog.open("memory:", entry_bytes_max=-1)
    with pytest.raises(virtuallog.VirtualLogError):
        virtuallog.open("memory:", entry_bytes_max=17 << 20)
    with pytest.raises(TypeError):
        virtuallog.open("memory:", entry_bytes_max=1.5)  # type: ignore[arg-type]


def test_a_missing_parent_directory(tmp_path: Path) -> None:
    with pytest.raises(virtuallog.NotFoundError):
        virtuallog.open(f"file:{tmp_path}/no/such/directory/log")
    assert not (tmp_path / "no").exists()


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(virtuallog.VirtualLogError):
        virtuallog.open(f"file:{tmp_path}/file/log")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_directory_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(virtuallog.VirtualLogError):
        virtuallog.open(f"file:{tmp_path}/log")
    assert os.listdir(tmp_path) == ["holiday.jpg"]


def test_a_second_writer_in_another_process(tmp_path: Path) -> None:
    url = f"file:{tmp_path}/store/log"
    with virtuallog.open(url) as log:
        log.append(b"x")
        child = os.fork()
        if child == 0:
            try:
                with virtuallog.open(url) as other:
                    os._exit(0 if other.append(b"y") == 1 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert log.append(b"z") == 2


def test_a_batch_of_too_many(log: Log) -> None:
    with pytest.raises(virtuallog.TooLargeError):
        log.append_many([b"x"] * 1025)
    assert log.append_many([b"x"] * 1024) == 0
