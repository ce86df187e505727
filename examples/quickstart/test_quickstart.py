"""The quickstart in Python prints what the quickstart in every language prints."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_prints_what_is_expected(tmp_path: Path) -> None:
    url = f"file:{tmp_path}/store/fruit"
    run = subprocess.run([sys.executable, HERE / "main.py", url], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == (HERE / "expected.txt").read_text()
