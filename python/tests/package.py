"""Builds the wheel, installs it where there is no Rust, and runs the scenarios there.

    python python/tests/package.py [--profile PROFILE] [--sdist | --wheel FOLDER]

PROFILE is cargo's: ``dist`` (the default) is what is released. With ``--sdist`` the wheel is built out of a
source distribution, and with ``--wheel`` it is the one in that folder. What is installed sees neither this
checkout nor a compiler. Exit status 0 and a last line with counts, as pytest writes it, when all holds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("virtuallogd", "virtuallog")
# What a released program may weigh.
PROGRAM_BYTES_MAX = 15_000_000
# No rustup, no cargo.
CLEAN = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}


def run(*command: object, **options: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], text=True, stdout=subprocess.PIPE, **options  # type: ignore[call-overload]
    )
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}")
    return str(done.stdout)


def built(source: Path, profile: str, folder: Path) -> Path:
    """The wheel of this source."""
    env = {"CARGO_TARGET_DIR": str(ROOT / "target"), **os.environ}
    # maturin is beside the Python that runs this, whether or not its environment is active.
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*command, "--config-settings", f"profile={profile}", "--wheel-dir", folder, source, env=env)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_programs(wheel: Path, profile: str) -> None:
    for info in zipfile.ZipFile(wheel).infolist():
        name = info.filename.removeprefix("virtuallog/_bin/")
        if name in PROGRAMS:
            assert info.external_attr >> 16 & 0o111 == 0o111, f"{name} cannot be executed"
            print(f"{name}: {info.file_size / 1e6:.1f} MB, {info.compress_size / 1e6:.1f} MB packed")
            assert profile != "dist" or info.file_size <= PROGRAM_BYTES_MAX, f"{name} is too large"
    packed = [name for name in zipfile.ZipFile(wheel).namelist() if "/_bin/" in name]
    assert len(packed) == len(PROGRAMS), packed
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")


def installed(wheel: Path, folder: Path) -> Path:
    """A virtual environment with the wheel and pytest; its programs."""
    run(sys.executable, "-m", "venv", folder / "venv")
    programs = folder / "venv" / "bin"
    run(programs / "pip", "install", "--quiet", "--disable-pip-version-check", "pytest")
    run(programs / "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, env=CLEAN)
    return programs


def check_installed(programs: Path, folder: Path) -> None:
    version = run(programs / "python", "-c", "import virtuallog; print(virtuallog.__version__)", env=CLEAN)
    for program in PROGRAMS:
        said = run(programs / program, "--version", env=CLEAN)
        assert said == f"{program} {version}", said
    # On a free-threaded Python the package leaves the GIL off.
    off = "import sys, sysconfig, virtuallog; print(sysconfig.get_config_var('Py_GIL_DISABLED') == 1 and sys._is_gil_enabled())"
    assert run(programs / "python", "-c", off, env=CLEAN) == "False\n", "the package turns the GIL on"
    other = folder / "other"
    other.mkdir()
    (other / "virtuallogd").write_text("#!/bin/sh\necho virtuallogd 99.0.0\n")
    (other / "virtuallogd").chmod(0o755)
    refused = subprocess.run(
        [programs / "virtuallogd", "--version"],
        env={**CLEAN, "VIRTUALLOG_BIN_DIR": str(other)}, capture_output=True, text=True,
    )
    assert refused.returncode == 1 and "99.0.0" in refused.stderr, refused


def run_scenarios(programs: Path, folder: Path) -> None:
    """The runner and the scenarios, as they lie to each other in the checkout."""
    tests, scenarios = folder / "python" / "tests", folder / "bindings" / "conformance"
    tests.mkdir(parents=True)
    for name in ("conftest.py", "test_conformance.py", "test_log.py"):
        shutil.copy2(ROOT / "python" / "tests" / name, tests)
    shutil.copytree(ROOT / "bindings" / "conformance", scenarios)
    ignore = "ignore:virtuallog was built without:RuntimeWarning"
    pytest = [programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", ignore]
    # What threads do to a log, which is another thing where there is no GIL, and then the scenarios.
    print(run(*pytest, tests / "test_log.py", "-k", "thread", cwd=folder, env=CLEAN))
    print(run(*pytest, tests / "test_conformance.py", cwd=folder, env=CLEAN))


def unpacked_sdist(folder: Path) -> Path:
    maturin = Path(sys.executable).with_name("maturin")
    run(maturin, "sdist", "--out", folder, "--manifest-path", ROOT / "python" / "Cargo.toml")
    (packed,) = folder.glob("*.tar.gz")
    tarfile.open(packed).extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return source


def main(profile: str, *, sdist: bool, wheel: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="package-") as temporary:
        folder = Path(temporary)
        if wheel is not None:
            (wheel,) = wheel.glob("*.whl")
        else:
            source = unpacked_sdist(folder) if sdist else ROOT / "python"
            wheel = built(source, profile, folder)
        check_programs(wheel, profile)
        programs = installed(wheel, folder)
        check_installed(programs, folder)
        run_scenarios(programs, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="tests the package where there is no Rust")
    parser.add_argument("--profile", default="dist")
    parser.add_argument("--sdist", action="store_true")
    parser.add_argument("--wheel", type=Path)
    given = parser.parse_args()
    main(given.profile, sdist=given.sdist, wheel=given.wheel)
