"""`fanrate`, also as `python -m fanrate`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from core import interrupts


def main(prog: str = "fanrate") -> int:
    """Run the command that `sys.argv` asks for; the exit code."""
    return interrupts.run(lambda: _prepare(prog))


def _prepare(prog: str) -> Callable[[], int]:
    from fanrate.commands import prepare

    return prepare(sys.argv[1:], prog)


if __name__ == "__main__":
    sys.exit(main(prog="python -m fanrate"))
