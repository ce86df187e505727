"""The programs in Python print what those in every language print."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCENARIOS = sorted(path.parent for path in HERE.glob("*/expected.txt"))


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 4


@pytest.mark.parametrize("folder", SCENARIOS, ids=lambda folder: folder.name)
def test_prints_what_is_expected(folder: Path, tmp_path: Path) -> None:
    url = f"file:{tmp_path}/store/log"
    run = subprocess.run([sys.executable, folder / "main.py", url], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == (folder / "expected.txt").read_text()
