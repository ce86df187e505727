"""Damaged stores and full disks: typed errors, and never a wrong or a silently missing entry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import virtuallog

PAYLOADS = [b"entry %d " % number + b"x" * 100 for number in range(3000)]

DAMAGE: dict[str, Callable[[bytearray], bytes]] = {
    "first bit flipped": lambda data: bytes([data[0] ^ 0x80]) + data[1:],
    "a bit in the middle flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "last bit flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut in the middle": lambda data: bytes(data[: len(data) // 2]),
    "emptied": lambda data: b"",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was closed, with one log in it."""
    directory = tmp_path_factory.mktemp("damage") / "store"
    with virtuallog.open(f"file:{directory}/log") as log:
        log.append_all(PAYLOADS)
    return directory


def test_every_file_damaged_in_every_way(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    files = [path.relative_to(store) for path in sorted(store.rglob("*")) if path.is_file()]
    assert len(files) >= 4
    errors = 0
    for file in files:
        for how, damage in DAMAGE.items():
            shutil.copytree(store, copy)
            data = bytearray((copy / file).read_bytes())
            if data:
                (copy / file).write_bytes(damage(data))
            seen = []
            try:
                with virtuallog.open(f"file:{copy}/log", mode="read") as log:
                    for entry in log.read(0):
                        seen.append(entry.payload)
                assert seen == PAYLOADS, f"{file}, {how}: entries are missing without an error"
            except virtuallog.VirtualLogError as error:
                errors += 1
                expected = ("CORRUPT", "DATA_LOSS", "INCOMPATIBLE", "INVALID")
                assert error.code in expected, f"{file}, {how}: {error!r}"
                assert seen == PAYLOADS[: len(seen)], f"{file}, {how}: wrong entries were served"
            shutil.rmtree(copy)
    assert errors >= 5, "damage is noticed"


def test_verify_names_what_is_damaged(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    largest = max((copy / "loglets").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with virtuallog.open(f"file:{copy}/log") as log:
        report = log.verify()
    assert len(report.problems) == 1
    assert "position" in report.problems[0]


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    # A limit on the size of files stands for the disk: it fails the same writes.
    program = f"""
import resource, virtuallog
url = "file:{tmp_path}/store/log"
log = virtuallog.open(url)
count = 0
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, hard))
try:
    while count < 100_000:
        log.append_many([b"%d" % n + b"x" * 1000 for n in range(count, count + 1000)])
        count += 1000
    raise SystemExit("the limit was not met")
except virtuallog.DiskFullError as error:
    assert isinstance(error, OSError) and not error.in_doubt, error
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.close()
with virtuallog.open(url) as log:
    log.append(b"%d" % count)
    numbers = [int(entry.payload.rstrip(b"x")) for entry in log.read(0)]
assert numbers == list(range(count + 1)), (count, len(numbers))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    # Not by its permissions: root, as whom CI may run, has them all. A child gives root up first.
    tmp_path.chmod(0o555)
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.seteuid(65534)
            virtuallog.open(f"file:{tmp_path}/log")
        except virtuallog.VirtualLogError as error:
            os._exit(0 if "permission" in str(error).lower() else 2)
        except BaseException:
            os._exit(3)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
