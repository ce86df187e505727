"""The types are true: the package passes `mypy --strict`, and the stubs say what is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import virtuallog
from virtuallog import aio, testing

PROJECT = Path(__file__).parents[1]


def check(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_strict() -> None:
    check("-m", "mypy")


def test_the_stubs_are_the_native_modules() -> None:
    check("-W", "ignore", "-m", "mypy.stubtest", "virtuallog._native")


def test_both_apis_have_the_same_operations() -> None:
    def public(owner: type) -> set[str]:
        return {name for name in dir(owner) if not name.startswith("_")}

    assert public(aio.Log) == public(virtuallog.Log)
    assert public(aio.Subscription) - {"aclose"} == public(virtuallog.Subscription) - {"close"}
    assert public(aio.Server) == public(virtuallog.Server)
    for name in ("open", "create", "delete", "logs", "init", "nodes", "drain", "remove", "move"):
        assert callable(getattr(virtuallog, name)) and callable(getattr(aio, name))


def test_everything_public_has_a_docstring() -> None:
    for module in (virtuallog, aio, testing):
        for name in module.__all__:
            thing = getattr(module, name)
            if name in ("Payload", "Start", "Timeout", "__version__"):
                continue  # Aliases and constants.
            assert thing.__doc__, name
            if isinstance(thing, type):
                for method, value in vars(thing).items():
                    if not method.startswith("_") and callable(value):
                        assert value.__doc__, f"{name}.{method}"
