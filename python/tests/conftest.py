"""What tests share: a store of each kind that needs no server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import virtuallog

NAMES = itertools.count()


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
