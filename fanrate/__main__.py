"""`fanrate`, also as `python -m fanrate`. Ctrl-C ends it without a traceback, also while it imports its command."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130


def main(prog: str = "fanrate") -> int:
    """Run the command that `sys.argv` asks for; the exit code."""
    _at_interrupt(_end)
    from fanrate.commands import prepare

    command = prepare(sys.argv[1:], prog)
    _at_interrupt(signal.default_int_handler)
    try:
        return command()
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        _at_interrupt(_end)


def _at_interrupt(handler: signal._HANDLER) -> None:
    """It stays ignored where it was, as in the background of a script."""
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _end):
        signal.signal(signal.SIGINT, handler)


def _end(*_: object) -> None:
    """Before and after the command there is nothing to clear up, and a KeyboardInterrupt in the middle of an import may
    be swallowed there, or shown."""
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main(prog="python -m fanrate"))
