"""What command lines share and what costs nothing to import: `--version`, remedies as commands, our own programs as
children."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from core.version import __version__

ROOT: Final = Path(__file__).parents[1]
"""The folder that the rooms lie in: a clone, or where the wheel was installed."""


def add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"fanrate {__version__}")


def remedy(make: str, script: str) -> str:
    """The command for this user: `make` in a clone, which may have nothing installed; elsewhere `script`, for the wheel
    brings the program `fanrate` and no Makefile."""
    return make if (ROOT / "Makefile").exists() else script


def child(module: str) -> list[str]:
    """The command that runs `module` of ours in the working directory.

    Python looks for modules in the working directory first, and rooms have ordinary names: a user's own `api` or
    `store` there must not be started. So that is switched off (-P) except where the rooms themselves lie there.
    """
    here = [] if Path.cwd() == ROOT else ["-P"]
    return [sys.executable, *here, "-m", module]
