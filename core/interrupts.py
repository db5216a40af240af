"""Ctrl-C ends a program without a traceback, also while it imports its command. Imports next to nothing itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

INTERRUPTED: Final = 130


def run(prepare: Callable[[], Callable[[], int]]) -> int:
    """Import what is needed, in `prepare`, and run the command that it returns; the exit code."""
    _at_interrupt(_end)
    command = prepare()
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
