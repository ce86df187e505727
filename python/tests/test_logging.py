"""What the library reports comes out of Python's own logging, and only when it is asked for."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import virtuallog
from virtuallog import _logging


class Collector(logging.Handler):
    """Keeps what it gets, and tells that it got something."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.got = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.got.set()


def provoke(server: virtuallog.Server) -> None:
    """A connection that ends before it said anything is reported, as debugging."""
    host, port = server.address.split(":")
    socket.create_connection((host, int(port))).close()


def test_reports_reach_the_loggers_of_their_parts(tmp_path: Path) -> None:
    collector = Collector()
    logger = logging.getLogger("virtuallog")
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    try:
        virtuallog.log_to_logging("debug")
        with virtuallog.Server(tmp_path / "data") as server:
            provoke(server)
            assert collector.got.wait(60)
        record = collector.records[0]
        assert record.name.startswith("virtuallog.") and record.getMessage()
        assert record.threadName == "virtuallog-log"

        child = os.fork()
        if child == 0:
            # Off in the child, and asking for it again is no error.
            virtuallog.log_to_logging("debug")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        virtuallog.log_to_logging("off")
        logger.removeHandler(collector)


class Raiser(Collector):
    """Fails at all it gets."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        raise RuntimeError("mine")


@pytest.mark.parametrize("where", ["handler", "filter"])
def test_what_a_handler_or_a_filter_raises_is_its_own_affair(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is warned of once, and the reports after it are handed over all the same."""
    warned: list[str] = []
    monkeypatch.setattr(_logging, "_warned", False)
    monkeypatch.setattr(_logging, "_warn", warned.append)
    raiser = Raiser()
    logger = logging.getLogger("virtuallog")

    def fail(record: logging.LogRecord) -> bool:
        raiser.emit(record)
        return True

    taker = logging.Handler()
    taker.addFilter(fail)
    logger.addHandler(taker if where == "filter" else raiser)
    logger.setLevel(logging.DEBUG)
    try:
        virtuallog.log_to_logging("debug")
        with virtuallog.Server(tmp_path / "data") as server:
            for _ in range(3):
                raiser.got.clear()
                provoke(server)
                assert raiser.got.wait(60), "nothing is handed over any more"
    finally:
        virtuallog.log_to_logging("off")
        logger.removeHandler(taker)
        logger.removeHandler(raiser)
    assert len(raiser.records) >= 3
    assert len(warned) == 1 and "mine" in warned[0]


def test_a_level_that_is_none() -> None:
    with pytest.raises(virtuallog.InvalidError, match="`warn`"):
        virtuallog.log_to_logging("loud")  # type: ignore[arg-type]


PROGRAM = """
import logging, socket, sys, tempfile, threading
got = threading.Event()
class Handler(logging.Handler):
    def emit(self, record):
        print(record.name, record.getMessage(), flush=True)
        got.set()
logging.basicConfig(level=logging.DEBUG, handlers=[Handler()])
import virtuallog
with tempfile.TemporaryDirectory() as folder, virtuallog.Server(folder + "/data") as server:
    host, port = server.address.split(":")
    socket.create_connection((host, int(port))).close()
    if any(thread.name == "virtuallog-log" for thread in threading.enumerate()):
        got.wait(60)
"""


@pytest.mark.parametrize(("level", "wanted"), [("debug", True), ("", False), ("off", False)])
def test_the_variable_turns_it_on(level: str, wanted: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env={**os.environ, "VIRTUALLOG_LOG": level}, capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert ("virtuallog.server" in done.stdout) is wanted, done.stdout


def test_a_wrong_variable_is_a_warning_and_no_failure() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import virtuallog"],
        env={**os.environ, "VIRTUALLOG_LOG": "loud"}, capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0 and "VIRTUALLOG_LOG" in done.stderr
