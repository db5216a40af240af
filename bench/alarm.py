"""One alarm that an event loop hears to within some 50 microseconds.

The timers of uvloop, and of epoll under asyncio, are good to a millisecond, which would stand in every latency. Linux'
timerfd is a file that becomes readable at a given time of `time.monotonic`. Python has it from 3.13 on, so it is called
in the C library. Elsewhere the loop's own timer serves.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class Alarm:
    """Calls `ring` once after each `set`. Belongs to the running loop."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._setting = _Setting()
        self._file = -1
        if sys.platform == "linux":
            self._library = ctypes.CDLL(None, use_errno=True)
            self._file = self._library.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file >= 0:
            self._loop.add_reader(self._file, ring)

    def set(self, at: float) -> None:
        """Ring at `time.monotonic` = `at`, or at once if that is over, instead of at an earlier set time."""
        if self._file < 0:
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._ring)
            return
        seconds = int(at)
        value = self._setting.value
        value.seconds, value.nanoseconds = seconds, int((at - seconds) * 1e9) or 1
        self._library.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(self._setting), None)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1
