"""The demo's other writers: programs in several languages that append to its log all the time.

`writer.py` says what such a program does. Each is a process of its own, which writes through the owner of the
store, or to the cluster while the log is there. What they append begins with a NUL, which no line of the input
has, so that a reader can tell it from the demo's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from array import array
from pathlib import Path

from check import ROOT, Findings
from nodes import TARGET

HERE = Path(__file__).resolve().parent
MARK = b"\0"
# How long the last answers may take.
PATIENCE_S = 30.0


def commands() -> dict[str, list[str]]:
    """The programs by language: of each one, or of those that ``WRITERS`` names. None is left out in silence."""
    made = {"python": python, "node": node, "c": c}
    wanted = os.environ.get("WRITERS", ",".join(made)).split(",")
    if unknown := [name for name in wanted if name not in made]:
        raise SystemExit(f"WRITERS={','.join(unknown)}: write some of {','.join(made)}")
    found = {name: made[name]() for name in wanted}
    if missing := [name for name, command in found.items() if not command]:
        others = ",".join(name for name in found if name not in missing)
        raise SystemExit(
            f"no writer in {' and '.join(missing)}: `make demo` builds it where Node.js and a C compiler are "
            f"installed; WRITERS={others or 'python'} does without"
        )
    return found


def python() -> list[str]:
    """The one in Python."""
    return [sys.executable, str(HERE / "writer.py")]


def node() -> list[str]:
    """The one in Node.js, in a project that has the package."""
    program, package = shutil.which("node"), ROOT / "node"
    if not program or not (package / "dist" / "index.js").is_file():
        return []
    project = TARGET / "demo" / "node"
    (project / "node_modules").mkdir(parents=True, exist_ok=True)
    link = project / "node_modules" / "virtuallog"
    link.unlink(missing_ok=True)
    link.symlink_to(package)
    return [program, shutil.copy2(HERE / "writer.mjs", project)]


def c() -> list[str]:
    """The one in C, compiled now, with the library in it."""
    libraries = [TARGET / profile / "libvirtuallog_c.a" for profile in ("release", "dist", "debug")]
    library = next((path for path in libraries if path.is_file()), None)
    compiler = shutil.which("cc")
    if not library or not compiler:
        return []
    program = str(TARGET / "demo" / "writer-c")
    source, include = str(HERE / "writer.c"), str(ROOT / "c" / "include")
    needs = ["-lpthread", "-ldl", "-lm"]
    subprocess.run([compiler, "-O2", "-I", include, source, str(library), *needs, "-o", program], check=True)
    return [program]


def own(payloads: list[bytes]) -> list[bytes]:
    """Those of the demo's own writer."""
    return [payload for payload in payloads if not payload.startswith(MARK)]


class Writers:
    """The programs, running."""

    def __init__(self, programs: dict[str, list[str]], url: str, folder: Path) -> None:
        self.processes: dict[str, subprocess.Popen[str]] = {}
        pipe = subprocess.PIPE
        for name, command in programs.items():
            with (folder / f"writer-{name}.log").open("w") as errors:
                self.processes[name] = subprocess.Popen(
                    [*command, url, name], stdin=pipe, stdout=pipe, stderr=errors, text=True
                )
        for name, process in self.processes.items():
            assert process.stdout is not None
            if process.stdout.readline() != "writing\n":
                self.stop()
                raise SystemExit(f"the writer in {name} did not start: see {folder}/writer-{name}.log")

    def finish(self) -> dict[str, array[int]]:
        """Ends them; the positions that each was told, in the order of its entries."""
        told: dict[str, array[int]] = {}
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None  # `communicate` would write to it.
        for name, process in self.processes.items():
            try:
                out, _ = process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.stop()
                raise SystemExit(f"the writer in {name} did not end in {PATIENCE_S:.0f} s") from None
            if process.returncode != 0:
                self.stop()
                raise SystemExit(f"the writer in {name} failed: see its log in {TARGET / 'demo'}")
            told[name] = array("Q", json.loads(out))
        return told

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


class Others:
    """What a reader found of the other writers' entries, against what each was told."""

    def __init__(self, told: dict[str, array[int]]) -> None:
        self.told = told
        self.found: dict[str, list[tuple[int, int]]] = {name: [] for name in told}

    def feed(self, position: int, payload: bytes) -> None:
        """Takes the next entry that begins with the mark."""
        name, _, number = payload.removeprefix(MARK).decode().partition(" ")
        self.found[name].append((int(number), position))

    def findings(self) -> dict[str, Findings]:
        return {name: verdict(told, self.found[name]) for name, told in self.told.items()}


def verdict(told: array[int], found: list[tuple[int, int]]) -> Findings:
    """One writer's entries as (number, position) in the order of the log, against the positions it was told."""
    seen: set[int] = set()
    doubled = reordered = misplaced = 0
    highest = -1
    for number, position in found:
        doubled += number in seen
        reordered += number < highest
        misplaced += number >= len(told) or told[number] != position
        seen.add(number)
        highest = max(highest, number)
    lost = len(told) - len(seen & set(range(len(told))))
    return Findings(len(found), "", lost, doubled, reordered, misplaced)
