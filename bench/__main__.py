"""`python -m bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from core import interrupts

MISSING: Final = 3
"""The exit code when something that all commands need is not installed."""


def main() -> int:
    """Run the command that `sys.argv` asks for; the exit code."""
    return interrupts.run(_prepare)


def _prepare() -> Callable[[], int]:
    try:
        from bench import commands
    except ModuleNotFoundError as exc:
        print(f"python -m bench needs {exc.name}, which is not installed: install fanrate[bench]", file=sys.stderr)
        raise SystemExit(MISSING) from None
    return commands.main


if __name__ == "__main__":
    sys.exit(main())
