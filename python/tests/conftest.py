"""What tests share: a store of each kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import virtuallog
from virtuallog.testing import LocalCluster

NAMES = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Three nodes that no test stops."""
    with LocalCluster() as started:
        yield started


@pytest.fixture(params=["memory", "file", "cluster"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store; that of the memory and of the cluster is shared by all tests."""
    if request.param == "cluster":
        # Only now, so that those who need no cluster start none.
        started: LocalCluster = request.getfixturevalue("cluster")
        return started.url
    return "memory:/" if request.param == "memory" else f"file:{tmp_path}/store/"


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a log that does not exist yet."""
    if request.param == "memory":
        return f"memory:test-{next(NAMES)}"
    return f"file:{tmp_path}/store/log"


@pytest.fixture
def log(url: str) -> Iterator[virtuallog.Log]:
    """An open, empty log."""
    with virtuallog.open(url) as opened:
        yield opened
