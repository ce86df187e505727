"""The servers' programs that the package carries, as commands: ``virtuallogd`` and ``virtuallog``.

Installed they are on the path by the two functions here, which become the program: signals, exit status and
terminal are its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from . import _native
from .errors import VirtualLogError

FOLDER = str(Path(__file__).parent / "_bin")
"""Where the package has them; a checkout has them in its target folder."""


def virtuallogd() -> NoReturn:
    """The server."""
    _become("virtuallogd")


def virtuallog() -> NoReturn:
    """The command line."""
    _become("virtuallog")


def _become(name: str) -> NoReturn:
    try:
        path = _native.find_program(name, FOLDER)
    except VirtualLogError as error:
        sys.exit(f"{name}: {error}")
    os.execv(path, [name, *sys.argv[1:]])
