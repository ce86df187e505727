"""The package's build backend (PEP 517): maturin, after the two programs were built.

maturin packs a library or programs into a wheel, and not both. So `build_wheel` first has cargo build
``virtuallogd`` and ``virtuallog``, and puts them where ``pyproject.toml`` tells maturin to take them from. An
editable install takes them from the target folder, where they are built while working anyway.

The setting ``profile`` names the cargo profile of the programs and of the library: ``dist``, small and slow to
build, unless it is given (``pip wheel --config-settings profile=dev``).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import maturin
from maturin import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

PROGRAMS = ("virtuallogd", "virtuallog")
HERE = Path(__file__).resolve().parent


def build_wheel(
    wheel_directory: str,
    config_settings: Mapping[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """A wheel with the library and the programs."""
    settings = dict(config_settings or {})
    profile = settings.pop("profile", "dist")
    folder = HERE / "python" / "virtuallog" / "_bin"
    folder.mkdir(exist_ok=True)
    try:
        for program in built(profile):
            shutil.copy2(program, folder / program.name)
            (folder / program.name).chmod(0o755)
        arguments = maturin.get_maturin_pep517_args(settings)
        if "--profile" not in arguments:
            arguments = [*arguments, "--profile", profile]
        settings["maturin.build-args"] = " ".join(arguments)
        return str(maturin.build_wheel(wheel_directory, settings, metadata_directory))
    finally:
        # A checkout would take them for its own from now on, however old they are.
        shutil.rmtree(folder)


def built(profile: str) -> list[Path]:
    """Builds the programs, and gives their paths."""
    # This file is in a folder of a checkout, and at the root of a source distribution.
    root = HERE if (HERE / "servers" / "Cargo.toml").is_file() else HERE.parent
    command = ["cargo", "build", "--profile", profile, "--package", "virtuallog-server", "--bins"]
    command += ["--message-format", "json-render-diagnostics"]
    print("Running", *command, flush=True)
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True, env=os.environ)
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    paths = [Path(message["executable"]) for message in messages if message.get("executable")]
    found = {path.name: path for path in paths}
    return [found[program] for program in PROGRAMS]
