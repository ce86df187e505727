"""The application keeps its orders from one run to the next, and shares them with those that it joins."""

import subprocess
import sys
from pathlib import Path

import virtuallog
from virtuallog.testing import LocalCluster

HERE = Path(__file__).parent


def run(*arguments: str) -> str:
    command = [sys.executable, str(HERE / "main.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_joins_those_that_run_already(tmp_path: Path) -> None:
    with LocalCluster(1) as cluster:
        with virtuallog.open(cluster.url + "orders") as log:
            log.append(b"pears")
        address = cluster.nodes[0].address
        assert run(str(tmp_path / "data"), address) == "0 pears\n1 apples\n"


def test_alone_it_is_a_cluster_of_one(tmp_path: Path) -> None:
    assert run(str(tmp_path / "data")) == "0 apples\n"
