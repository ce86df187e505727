"""The demo's cluster: three servers, each a process of its own, one of which is to be killed.

``virtuallog dev`` starts them on loopback, tells their process ids, and ends them with itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from check import ROOT

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# How long the servers may take to end.
PATIENCE_S = 20.0


def command_line() -> str:
    """The binary that ``make`` built, or the one that is installed; of ``VIRTUALLOG_BIN_DIR``, where that is set."""
    folders = [TARGET / "release", TARGET / "debug"]
    if named := os.environ.get("VIRTUALLOG_BIN_DIR"):
        folders.insert(0, Path(named))
    for folder in folders:
        if (folder / "virtuallog").is_file():
            return str(folder / "virtuallog")
    if installed := shutil.which("virtuallog"):
        return installed
    raise SystemExit("no `virtuallog` binary: run `cargo build --release -p virtuallog-server` first")


class Nodes:
    """A cluster that runs. A context manager that ends it."""

    def __init__(self, said: Path) -> None:
        """``said``: the file that gets what the servers say meanwhile."""
        command = [command_line(), "dev", "--nodes", "3", "--json"]
        with said.open("w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        up = self.process.stdout.readline()
        if not up:
            raise SystemExit(f"the cluster did not start: see {said}")
        told = json.loads(up)
        self.url: str = told["url"]
        self.pids: dict[str, int] = {node["address"]: node["pid"] for node in told["nodes"]}

    def kill(self, address: str) -> None:
        """Kills a node with SIGKILL: it can do nothing about it."""
        os.kill(self.pids.pop(address), signal.SIGKILL)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
