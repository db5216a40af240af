"""What command lines share and what costs nothing to import: `--version`, remedies as commands, our own programs as
children."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from core.version import __version__

ROOT: Final = Path(__file__).parents[1]
"""The folder that the rooms lie in: a clone, or where the wheel was installed."""


def add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"fanrate {__version__}")


class Subcommand(argparse.ArgumentParser):
    """The parser of a command among others: it tells the version too, and what it does not know with its own usage
    instead of that of all."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        add_version(self)

    def parse_known_args(  # type: ignore[override] # of its overloads one is used here
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def number(least: int, most: int) -> Callable[[str], int]:
    """What an argument's text must be, for argparse."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"a number from {least} to {most}, not {text!r}")
        return int(text)

    return parse


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
