"""The synchronous API: what the scenarios of ``bindings/conformance`` do not say."""

from __future__ import annotations

import copy
import ctypes
import pickle
import threading
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
import virtuallog
from virtuallog import Entry, Log


def test_entry(log: Log) -> None:
    before = datetime.now(UTC)
    position = log.append(b'{"a": [1]}')
    entry = log.read_next(position)
    assert entry is not None
    assert entry.position == position
    assert entry.payload == b'{"a": [1]}'
    assert entry.text() == '{"a": [1]}'
    assert entry.json() == {"a": [1]}
    assert len(entry) == 10
    assert abs(entry.written_at - before) < timedelta(minutes=1)
    assert repr(entry) == f"Entry(position={position}, payload=b'{{\"a\": [1]}}')"
    for twin in (pickle.loads(pickle.dumps(entry)), copy.copy(entry), copy.deepcopy(entry)):
        assert twin == entry and hash(twin) == hash(entry)
    assert entry != Entry(position, b"other", entry.written_at_micros)
    match entry:
        case Entry(found, payload):
            assert (found, payload) == (position, entry.payload)
    with pytest.raises(AttributeError):
        entry.position = 7  # type: ignore[misc]


def test_entry_before_1970_and_without_text() -> None:
    assert Entry(0, b"", -1).written_at == datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    with pytest.raises(UnicodeDecodeError):
        Entry(0, b"\xff").text()
    with pytest.raises(ValueError):
        Entry(0, b"{").json()
    assert len(repr(Entry(0, b"x" * 1000))) < 200


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_an_entry_is_a_buffer(log: Log, size: int) -> None:
    log.append(b"x" * size)
    entry = log.read_next(0)
    assert entry is not None
    view = memoryview(entry)
    assert view.readonly and view == entry.payload == b"x" * size
    with pytest.raises((TypeError, BufferError)):
        (ctypes.c_char * size).from_buffer(entry)
    del entry
    assert bytes(view) == b"x" * size, "the view keeps it alive"
    twin = Entry(0, bytes(view))
    assert memoryview(pickle.loads(pickle.dumps(twin))) == view


def test_an_empty_entry_is_true(log: Log) -> None:
    log.append(b"")
    assert log.read_next(0)


def test_any_bytes_like_payload_is_copied_at_the_call(log: Log) -> None:
    changing = bytearray(b"before")
    pending = log.append_nowait(changing)
    changing[:] = b"after!"
    pending.result()
    log.append(memoryview(b"a-view")[2:])
    log.append_many([bytearray(b"x"), memoryview(b"yz")[::2], b"z"])
    assert [entry.payload for entry in log.read(0)] == [b"before", b"view", b"x", b"y", b"z"]


def test_a_buffer_of_any_elements_is_its_bytes_in_order(log: Log) -> None:
    log.append(array("H", [1, 0x203]))
    log.append_many([array("d", [1.5]), memoryview(array("H", [1, 2, 3]))[::2]])
    assert log.append_all([array("b", [-1]), b"bytes"])
    expected = [array("H", [1, 0x203]).tobytes(), array("d", [1.5]).tobytes()]
    expected += [array("H", [1, 3]).tobytes(), b"\xff", b"bytes"]
    assert [entry.payload for entry in log.read(0)] == expected


def test_append_nowait_settles_in_call_order(log: Log) -> None:
    pending = [log.append_nowait(b"%d" % number) for number in range(100)]
    positions = [append.result() for append in pending]
    assert positions == sorted(positions)
    assert pending[0].result() == positions[0], "it may be asked again"
    log.flush()
    assert [entry.payload for entry in log.read(0)] == [b"%d" % number for number in range(100)]


def test_a_pending_append_tells_its_failure_again(log: Log) -> None:
    log.append(b"x")
    pending = log.append_nowait(b"y")
    log.seal()
    with_answer = [pending]
    late = []
    try:
        late.append(log.append_nowait(b"z"))
    except virtuallog.SealedError:
        pass
    assert with_answer[0].result() == with_answer[0].result() == 1
    for append in late:
        for _ in range(2):
            with pytest.raises(virtuallog.SealedError):
                append.result()


def test_appends_in_doubt_can_be_resolved(log: Log, url: str) -> None:
    positions: dict[int, int | None] = {}
    tokens: dict[int, str] = {}
    for number in range(200):
        pending = log.append_nowait(b"%d" % number, timeout=0)
        try:
            positions[number] = pending.result()
        except virtuallog.DeadlineError as error:
            assert not (error.in_doubt and error.retryable)
            assert error.in_doubt == (error.token is not None)
            positions[number] = None
            if error.token:
                tokens[number] = error.token
    # A swap seals the segment: from then on nothing in it is undecided.
    log.reconfig_extend("memory" if url.startswith("memory") else "local")
    for number, token in tokens.items():
        positions[number] = log.resolve(token)
    read = {int(entry.payload): entry.position for entry in log.read(0)}
    told = {number: at for number, at in positions.items() if at is not None}
    assert read == told


def test_append_all_of_a_generator_with_back_pressure(log: Log) -> None:
    count = 20_000
    appended = log.append_all(b"%d" % number for number in range(count))
    assert appended is not None and appended.count == count
    assert appended.last >= appended.first + count - 1
    read = [entry.payload for entry in log.read(appended.first)]
    assert read == [b"%d" % number for number in range(count)]


def test_append_all_keeps_what_came_before_an_error(log: Log) -> None:
    def payloads():  # type: ignore[no-untyped-def]
        yield b"a"
        raise KeyError("mine")

    with pytest.raises(KeyError):
        log.append_all(payloads())
    log.flush()
    assert [entry.payload for entry in log.read(0)] == [b"a"]


def test_reader_position_resumes(log: Log) -> None:
    log.append_all(b"%d" % number for number in range(3000))
    reader = log.read(0)
    assert reader.position == 0
    seen = []
    for entry in reader:
        seen.append(entry.payload)
        if len(seen) == 1500:
            break
    seen += [entry.payload for entry in log.read(reader.position)]
    assert seen == [b"%d" % number for number in range(3000)]
    seen = [entry for batch in log.read(0).batches(7) for entry in batch]
    assert [entry.payload for entry in seen] == [b"%d" % number for number in range(3000)]


def test_iterating_and_batches_mix(log: Log) -> None:
    log.append_many([b"a", b"b", b"c", b"d"])
    with log.subscribe("first") as subscription:
        assert next(subscription).payload == b"a"
        assert [entry.payload for entry in subscription.next_batch(2)] == [b"b", b"c"]
        assert subscription.position == 3
        assert next(subscription).payload == b"d"
        assert subscription.position == 4


def test_a_batch_is_a_sequence_of_entries(log: Log) -> None:
    payloads = [b"%d" % number for number in range(10)] + [b"x" * 100_000]
    log.append_many(payloads)
    batch = log.read(0).next_batch(20)
    assert isinstance(batch, Sequence) and isinstance(batch, virtuallog.Batch)
    assert len(batch) == 11 and batch.payloads() == payloads
    entries = list(batch)
    assert batch == entries and entries == list(reversed(list(reversed(batch))))
    assert batch != entries[:-1] and batch != 7 and entries[3] in batch
    assert (batch[0], batch[-1]) == (entries[0], entries[10])
    for cut in (slice(2, 5), slice(-3, None), slice(5, 2), slice(None, None, -1)):
        assert batch[cut] == entries[cut]
    assert batch[2:5].payloads() == payloads[2:5] and batch[2:9][1:3] == entries[3:5]
    assert repr(batch[:1]) == f"Batch([{entries[0]!r}])"
    for wrong in (11, -12):
        with pytest.raises(IndexError):
            batch[wrong]
    with pytest.raises(TypeError):
        batch["0"]  # type: ignore[call-overload]
    assert not log.read(11).next_batch()


def test_a_batch_of_what_iterating_left_has_at_least_one(log: Log) -> None:
    log.append_many([b"a", b"b", b"c"])
    reader = log.read(0)
    assert next(reader).payload == b"a"
    with pytest.raises(virtuallog.InvalidError):
        reader.next_batch(0)
    assert reader.next_batch().payloads() == [b"b", b"c"]


def test_a_wait_that_times_out_loses_nothing(log: Log) -> None:
    with log.subscribe("tail") as subscription:
        for number in range(50):
            with pytest.raises(virtuallog.DeadlineError):
                subscription.next_batch(timeout=0)
            log.append(b"%d" % number)
            assert [entry.payload for entry in subscription.next_batch(1)] == [b"%d" % number]


def test_closing_ends_a_wait_in_another_thread(log: Log) -> None:
    subscription = log.subscribe("tail")
    waiting = threading.Event()
    ended: list[BaseException] = []

    def wait() -> None:
        waiting.set()
        try:
            next(subscription)
        except virtuallog.ClosedError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    subscription.close()
    thread.join()
    assert len(ended) == 1


def test_appends_without_a_deadline(log: Log) -> None:
    assert log.append(b"x", timeout=None) == 0
    assert log.append_many([b"y", b"z"], timeout=3600) == 1
    assert log.check_tail().position == 3


def test_threads_share_a_log(log: Log) -> None:
    def work(name: int) -> None:
        for number in range(200):
            log.append(b"%d %d" % (name, number))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = [tuple(map(int, entry.payload.split())) for entry in log.read(0)]
    assert len(entries) == 800
    for name in range(4):
        assert [number for who, number in entries if who == name] == list(range(200))


def test_a_subscription_ends_with_its_log(log: Log) -> None:
    log.append(b"last")
    log.seal()
    with log.subscribe("first") as subscription:
        assert [entry.payload for entry in subscription] == [b"last"]


def test_chain_and_plan_are_plain_values(log: Log, url: str) -> None:
    loglet = "memory" if url.startswith("memory") else "local"
    log.append(b"x")
    plan = log.plan(loglet)
    chain = log.reconfig_extend(loglet, if_version=plan.version)
    assert chain.version > plan.version
    assert [segment.sealed for segment in chain.segments] == [True, False]
    assert chain.active is chain.segments[1]
    assert (chain.segments[0].start, chain.segments[0].stop) == (0, 1)
    assert chain.next is None and chain.moved_to is None and len(chain.log) == 32
    assert pickle.loads(pickle.dumps(chain)) == chain == log.chain()


def test_the_url_and_the_arguments_give_options(tmp_path: object) -> None:
    with virtuallog.open(f"file:{tmp_path}/s/a?timeout=3s") as log:
        assert (log.timeout, log.name) == (3.0, "a")
    with virtuallog.open(f"file:{tmp_path}/s/a?timeout=3s", timeout=4) as log:
        assert log.timeout == 4.0
    with virtuallog.open(f"file:{tmp_path}/s/a", timeout=None) as log:
        assert log.timeout is None
    with virtuallog.open("memory:", entry_bytes_max=10) as log:
        assert log.timeout == 10.0
        log.append(b"x" * 10)
        with pytest.raises(virtuallog.TooLargeError):
            log.append(b"x" * 11)


def test_reopening_a_file_log(tmp_path: object) -> None:
    url = f"file:{tmp_path}/store/log"
    for number in range(3):
        with virtuallog.open(url) as log:
            assert log.append(b"%d" % number) == number
    with virtuallog.open(url, mode="read") as log:
        assert [entry.payload for entry in log.read(0)] == [b"0", b"1", b"2"]
        with pytest.raises(virtuallog.VirtualLogError):
            log.append(b"not here")


def test_flush_tells_the_failure_that_nobody_saw(tmp_path: object) -> None:
    url = f"file:{tmp_path}/store/log"
    with virtuallog.open(url) as ending, virtuallog.open(url) as log:
        log.append(b"x")
        ending.seal()
        log.append_nowait(b"nobody looks at this one")
        with pytest.raises(virtuallog.SealedError):
            log.flush()
        log.flush()
