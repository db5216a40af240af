"""What the services' command lines share: `--help` with the settings, wrong settings as one line and exit 2, uvloop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from core.commands import add_version
from core.errors import FanrateError, SettingsError
from core.sections import Section, describe

FOUND_SOMETHING = 1
WRONG_USAGE = 2
_YOUNG_OBJECTS = 5000
"""Python's own 700 are a few hundred rates."""

_T = TypeVar("_T")


def parser(prog: str, text: str, section: type[Section]) -> argparse.ArgumentParser:
    """An argument parser whose help ends in the table of settings."""
    made = argparse.ArgumentParser(
        prog,
        description=text,
        epilog=f"settings, from environment variables [default]:\n{describe(section)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(made)
    return made


def run(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run `main` on uvloop, with standard streams, which who starts a service may have closed. What a user can put
    right ends in one line on standard error and an exit code."""
    _open_streams()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(main())
            sys.stdout.flush()
            return result
    except SettingsError as exc:
        raise _exit(exc, WRONG_USAGE) from None
    except FanrateError as exc:
        raise _exit(exc, FOUND_SOMETHING) from None
    except BrokenPipeError:  # who read our output has gone, as `head` does; what Python still holds of it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FOUND_SOMETHING) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _open_streams() -> None:
    """Whatever opens next would be taken for one of them; and uvloop aborts."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def settle_memory() -> None:
    """After the start: what is there by now stays, and the collector of cycles need not look at it again. Rates under
    way are many young objects in no cycle: it looks at them less often, too."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _exit(message: object, code: int) -> SystemExit:
    print(f"fanrate: {message}", file=sys.stderr)
    return SystemExit(code)
